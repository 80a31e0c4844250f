//! What a shard does with the messages of other threads.
//!
//! Data flow: mailbox → [`Inner::take_in`] → the backlog of its class, or `held` until that has
//! room → the same way as a packet of the shard's own. Flushes are answered across threads when
//! their ticket is.
//!
//! Not here: the mailbox (`route`), the other side's handles (`remote`).

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};

use mfio_core::Error;
use mfio_core::wakers::tell_all;

use super::class::Class;
use super::core::{Bytes, Core, Ending, Job};
use super::flush::TicketId;
use super::held::Held;
use super::{Inner, Shard};
use crate::answer::Teller;
use crate::remote::{Remote, RemoteFile};
use crate::ring::Ring;
use crate::route::{Errand, Mailbox, Message};
use crate::target::{NamespaceError, OpenError};

/// Flushes that were asked for from other threads, and are not answered yet.
#[derive(Debug)]
pub(super) struct Intake {
    syncs: Vec<(TicketId, Teller<Result<(), Error>>)>,
    answered: Arc<Answered>,
    waker: Waker,
    held: Held,
}

/// Some ticket was answered.
#[derive(Debug, Default)]
struct Answered(AtomicBool);

impl Wake for Answered {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Default for Intake {
    fn default() -> Self {
        let answered = Arc::new(Answered::default());
        let waker = Waker::from(Arc::clone(&answered));
        Self { syncs: Vec::new(), answered, waker, held: Held::default() }
    }
}

impl<R: Ring> Shard<R> {
    /// A handle of this shard for any thread and any runtime. Packets sent by it are served
    /// while the shard is driven.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::of(vec![self.mailbox()])
    }

    /// As [`Shard::adopt_simulated`], for other threads.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn adopt_simulated_remote(
        &self,
        name: &str,
        fd: i32,
        geometry: crate::target::Geometry,
    ) -> RemoteFile {
        let name = name.to_owned();
        let mut core = self.inner.core.borrow_mut();
        let target = core.add_target(name.clone(), None, fd, geometry, None);
        drop(core);
        RemoteFile::of(self.mailbox(), target, name, geometry)
    }

    pub(crate) fn mailbox(&self) -> Arc<Mailbox> {
        let inner = &*self.inner;
        let mailbox = inner.mailbox.get_or_init(|| {
            let mailbox = Mailbox::new(inner.mailbox_max, Arc::clone(inner.tasks.bell()));
            if inner.core.borrow().closing {
                mailbox.close();
            }
            Arc::new(mailbox)
        });
        Arc::clone(mailbox)
    }
}

impl<R: Ring> Inner<R> {
    /// Whether messages wait that could be taken in.
    pub(super) fn mail_waits(&self) -> bool {
        let Some(mailbox) = self.mailbox.get() else { return false };
        if mailbox.has_errands() || mailbox.has_messages() {
            return true;
        }
        let intake = self.intake.borrow();
        intake.answered.0.load(Ordering::Acquire) || intake.held.can_go_on(&self.core.borrow())
    }

    /// Takes in what other threads have sent, as far as there is room for it.
    pub(super) fn take_in(&self) {
        let Some(mailbox) = self.mailbox.get() else { return };
        if mailbox.has_errands() {
            // One by one, because an answer may run anything, which may panic.
            while let Some(errand) = mailbox.take_errand() {
                self.run_errand(mailbox, errand);
            }
        }
        if mailbox.has_messages() || self.intake.borrow().held.can_go_on(&self.core.borrow()) {
            self.take_messages(mailbox);
        }
        self.answer_syncs();
    }

    fn take_messages(&self, mailbox: &Mailbox) {
        let mut taken = 0;
        let news = {
            let mut core = self.core.borrow_mut();
            let mut intake = self.intake.borrow_mut();
            let Intake { held, syncs, answered, .. } = &mut *intake;
            // Those that waited, first.
            while let Some(message) = held.next(&core) {
                core.accept(message, syncs);
                taken += 1;
            }
            // No more than there were at first, so that senders cannot keep the shard here.
            for _ in 0..mailbox.messages() {
                let Some(message) = mailbox.take() else { break };
                if let Some(message) = held.pass(message, &core) {
                    core.accept(message, syncs);
                    taken += 1;
                }
            }
            if taken > 0 {
                // Tickets that were answered at once wake nobody: they are looked at below.
                answered.0.store(true, Ordering::Release);
            }
            core.has_news()
        };
        mailbox.make_room(taken);
        if news {
            self.deliver();
        }
    }

    #[cold]
    fn run_errand(&self, mailbox: &Arc<Mailbox>, errand: Errand) {
        let mut core = self.core.borrow_mut();
        match errand {
            Errand::Close { target } => core.close_target(target),
            Errand::Adopt { opened, name, teller, sync_method } => {
                let (geometry, fd) = (opened.geometry, opened.file.as_raw_fd());
                let shown = name.clone();
                let target = core.add_target(name, Some((*opened).into()), fd, geometry, None);
                if !core.targets.get(target).is_served() {
                    core.close_target(target);
                    drop(core);
                    let why = NamespaceError::Ring;
                    let refused = OpenError::Namespace { path: shown.into(), why };
                    return teller.tell(Err(refused.into()));
                }
                if let Some(method) = sync_method {
                    core.targets.get_mut(target).choose_sync_method(method);
                }
                drop(core);
                teller.tell(Ok(RemoteFile::of(Arc::clone(mailbox), target, shown, geometry)));
            }
        }
    }

    /// Tells the flushes that have been answered. Only where some may have been.
    fn answer_syncs(&self) {
        if !self.intake.borrow().answered.0.swap(false, Ordering::AcqRel) {
            return;
        }
        let mut at = 0;
        // One by one, because telling may run anything.
        let answered = std::iter::from_fn(|| {
            let mut intake = self.intake.borrow_mut();
            loop {
                let &(ticket, _) = intake.syncs.get(at)?;
                let mut waker = Some(intake.waker.clone());
                let polled = self.core.borrow_mut().tickets.poll(ticket, &mut waker);
                match polled {
                    Poll::Pending => at += 1,
                    Poll::Ready(result) => {
                        return Some((intake.syncs.swap_remove(at).1, result));
                    }
                }
            }
        });
        tell_all(answered, |(teller, result)| teller.tell(result));
    }

    /// Fails everything that waits to be taken in, and everything that is sent from now on.
    pub(super) fn close_mailbox(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.close();
        }
        // Their tellers and wakers may run anything.
        let held = std::mem::take(&mut self.intake.borrow_mut().held);
        held.refuse();
    }

    /// Answers the flushes that can be, and gives up on the others.
    pub(super) fn end_intake(&self) {
        self.intake.borrow().answered.0.store(true, Ordering::Release);
        self.answer_syncs();
        let syncs = std::mem::take(&mut self.intake.borrow_mut().syncs);
        drop(syncs);
    }
}

impl<R: Ring> Core<R> {
    /// Makes a message one more job of the backlog.
    fn accept(&mut self, message: Message, syncs: &mut Vec<(TicketId, Teller<Result<(), Error>>)>) {
        match message {
            Message::Read { target, offset_bytes, view, class } => {
                let target = target.index();
                match self.refusal(target, false) {
                    Some(error) => self.endings.push(Ending::FailedRead(view, error)),
                    None => self.queue_message(target, offset_bytes, Bytes::Read(view), class),
                }
            }
            Message::Write { target, at, view, class } => {
                let target = target.index();
                if let Some(error) = self.refusal(target, true) {
                    return self.endings.push(Ending::FailedWrite(view, error));
                }
                let how = match self.how(target, at, view.len()) {
                    Ok(how) => how,
                    Err(kind) => return self.endings.push(Ending::FailedWrite(view, kind.into())),
                };
                let epoch = self.targets.get_mut(target).barrier.write_started();
                let bytes = Bytes::Write { view, epoch, how };
                self.queue_message(target, at.offset_bytes, bytes, class);
            }
            Message::Sync { target, durability, teller } => {
                let ticket = self.sync(target.index(), durability);
                syncs.push((ticket, teller));
            }
        }
    }

    /// Room was looked for before the message was accepted.
    fn queue_message(&mut self, target: u32, offset_bytes: u64, bytes: Bytes, class: Class) {
        if class == Class::Foreground {
            return self.queue_rest(target, offset_bytes, bytes);
        }
        self.targets.retain(target);
        self.queue_job(class, Job { target, offset_bytes, bytes }, false);
    }
}
