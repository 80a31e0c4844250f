//! What a shard does with the messages of other threads.
//!
//! Data flow: mailbox → [`Inner::take_in`] → backlog, as far as that has room → the same way as
//! a packet of the shard's own. Flushes are answered across threads when their ticket is.
//!
//! Not here: the mailbox (`route`), the other side's handles (`remote`).

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Poll, Wake, Waker};

use mfio_core::Error;

use super::core::{Bytes, Core, Ending};
use super::flush::TicketId;
use super::{Inner, Shard};
use crate::answer::Teller;
use crate::remote::{Remote, RemoteFile};
use crate::ring::Ring;
use crate::route::{Errand, Mailbox, Message};
use crate::target::Opened;

/// Flushes that were asked for from other threads, and are not answered yet.
#[derive(Debug)]
pub(super) struct Intake {
    syncs: Vec<(TicketId, Teller<Result<(), Error>>)>,
    answered: Arc<Answered>,
    waker: Waker,
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
        Self { syncs: Vec::new(), answered, waker }
    }
}

impl<R: Ring> Shard<R> {
    /// A handle of this shard for any thread and any runtime. Packets sent by it are served
    /// while the shard is driven.
    #[must_use]
    pub fn remote(&self) -> Remote {
        Remote::of(vec![self.mailbox()])
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
        mailbox.has_errands()
            || self.intake.borrow().answered.0.load(Ordering::Acquire)
            || (mailbox.has_messages() && self.core.borrow().has_room())
    }

    /// Takes in what other threads have sent, as far as there is room for it.
    pub(super) fn take_in(&self) {
        let Some(mailbox) = self.mailbox.get() else { return };
        if mailbox.has_errands() {
            for errand in mailbox.take_errands() {
                self.run_errand(mailbox, errand);
            }
        }
        if mailbox.has_messages() {
            self.take_messages(mailbox);
        }
        self.answer_syncs();
    }

    fn take_messages(&self, mailbox: &Mailbox) {
        let mut taken = 0;
        let news = {
            let mut core = self.core.borrow_mut();
            let mut intake = self.intake.borrow_mut();
            while core.has_room()
                && let Some(message) = mailbox.take()
            {
                core.accept(message, &mut intake.syncs);
                taken += 1;
            }
            if taken > 0 {
                // Tickets that were answered at once wake nobody: they are looked at below.
                intake.answered.0.store(true, Ordering::Release);
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
            Errand::Close { target } => {
                let Core { targets, ring, .. } = &mut *core;
                targets.close(target, ring);
            }
            Errand::Adopt { opened, name, teller } => {
                let Opened { file, geometry, .. } = opened;
                let (fd, shown) = (file.as_raw_fd(), name.clone());
                let target = core.add_target(name, Some(file), fd, geometry, None);
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
        loop {
            // One by one, because telling may run anything.
            let answered = {
                let mut intake = self.intake.borrow_mut();
                let Some(&(ticket, _)) = intake.syncs.get(at) else { break };
                let mut waker = Some(intake.waker.clone());
                let polled = self.core.borrow_mut().tickets.poll(ticket, &mut waker);
                match polled {
                    Poll::Pending => None,
                    Poll::Ready(result) => Some((intake.syncs.swap_remove(at).1, result)),
                }
            };
            match answered {
                Some((teller, result)) => teller.tell(result),
                None => at += 1,
            }
        }
    }

    /// Fails everything that waits to be taken in, and everything that is sent from now on.
    pub(super) fn close_mailbox(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            mailbox.close();
        }
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
            Message::Read { target, offset_bytes, view } => {
                let target = target.index();
                match self.refusal(target, false) {
                    Some(error) => self.endings.push(Ending::FailedRead(view, error)),
                    None => self.queue_rest(target, offset_bytes, Bytes::Read(view)),
                }
            }
            Message::Write { target, at, view } => {
                let target = target.index();
                if let Some(error) = self.refusal(target, true) {
                    return self.endings.push(Ending::FailedWrite(view, error));
                }
                let how = match self.how(target, at, view.len()) {
                    Ok(how) => how,
                    Err(kind) => return self.endings.push(Ending::FailedWrite(view, kind.into())),
                };
                let epoch = self.targets.get_mut(target).barrier.write_started();
                self.queue_rest(target, at.offset_bytes, Bytes::Write { view, epoch, how });
            }
            Message::Sync { target, durability, teller } => {
                let ticket = self.sync(target.index(), durability);
                syncs.push((ticket, teller));
            }
        }
    }
}
