//! Another thread, which sends to the shard just when that goes to sleep.
//!
//! Data flow: drawn read → [`Visit`] → sent by a remote handle at one of the places where the
//! shard has looked and does not sleep yet, or sleeps already → mailbox → shard → future →
//! checker. What is under way here is waited for by parking, as a thread of a shard does, so a
//! message that the shard has overlooked is a sleep that nothing ends.
//!
//! Not here: the places (`Ring::interleave`), sending on the shard's own thread (`driver`).

use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use std::rc::Rc;
use std::sync::Arc;

use mfio_core::{Completed, Drive as _, IoBackend as _, Packet, PacketIoExt as _, Read};
use mfio_engine::RemoteFile;
use mfio_engine::buffer::ArenaBuf;
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::SimControl;

use crate::driver::{Driver, Flag};
use crate::model::Issued;
use crate::packets::{Kind, Sent};

/// The most packets of the other thread that are under way at a time.
const VISITS_MAX: usize = 4;

/// Places that a shard passes on its way to sleep: before it says so, before it looks again, and
/// as it blocks.
const PLACES: u32 = 3;

type Done = Completed<Read, ArenaBuf>;

/// A packet of the other thread.
struct Visit {
    sent: Sent,
    reading: Pin<Box<dyn Future<Output = Done>>>,
    done: Option<Done>,
    flag: Arc<Flag>,
    /// How many more places are passed before it is sent; `None` once it was.
    passes: Option<u32>,
}

impl Visit {
    fn poll(&mut self) {
        let waker = Waker::from(Arc::clone(&self.flag));
        if let Poll::Ready(done) = self.reading.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.done = Some(done);
        }
    }

    /// The first poll sends.
    fn send(&mut self) {
        if self.passes.take().is_some() {
            self.poll();
        }
    }

    /// The shard is at the next place.
    fn come_by(&mut self) {
        match self.passes {
            Some(0) => self.send(),
            Some(passes) => self.passes = Some(passes - 1),
            None => {}
        }
    }

    /// Looks for the result, where it was told of one.
    fn look(&mut self) {
        if self.done.is_none() && self.flag.0.swap(false, Ordering::Relaxed) {
            self.poll();
        }
    }
}

/// Everything that the other thread has under way.
pub(crate) struct Elsewhere {
    remote: RemoteFile,
    visits: Rc<RefCell<Vec<Visit>>>,
    control: SimControl,
}

impl Elsewhere {
    /// A thread with `remote`, which comes in where the kernel of `control` lets it.
    pub(crate) fn new(remote: RemoteFile, control: SimControl) -> Self {
        let visits: Rc<RefCell<Vec<Visit>>> = Rc::default();
        let others = Rc::clone(&visits);
        control.interleave(Some(Box::new(move || {
            others.borrow_mut().iter_mut().for_each(Visit::come_by);
        })));
        Self { remote, visits, control }
    }

    pub(crate) fn under_way(&self) -> usize {
        self.visits.borrow().len()
    }

    fn prepare(&self, sent: Sent, buffer: ArenaBuf, passes: u32) {
        let (remote, at) = (self.remote.clone(), sent.range.offset as u64);
        let reading = Box::pin(async move { remote.io(at, Packet::new(buffer)).await });
        let flag = Arc::new(Flag::default());
        let visit = Visit { sent, reading, done: None, flag, passes: Some(passes) };
        self.visits.borrow_mut().push(visit);
    }

    /// One that is over.
    fn take_done(&self) -> Option<(Sent, Done)> {
        let mut visits = self.visits.borrow_mut();
        visits.iter_mut().for_each(Visit::look);
        let at = visits.iter().position(|visit| visit.done.is_some())?;
        let Visit { sent, done, .. } = visits.swap_remove(at);
        done.map(|done| (sent, done))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.control.interleave(None);
    }
}

impl Driver<'_> {
    /// Another thread reads, and sends that while the shard goes to sleep; often when nothing
    /// but a message could end the sleep.
    pub(crate) fn visit(&mut self, offset: usize, len: usize) {
        if self.elsewhere.as_ref().is_none_or(|elsewhere| elsewhere.under_way() == VISITS_MAX) {
            return self.turn(Wait::at_least(1));
        }
        if self.world.random.one_in(2) {
            self.drain();
        }
        let Some(buffer) = self.buffer(len) else { return self.drain() };
        let sent = self.issue(Kind::Read, Issued { sequence: 0, offset, len });
        let passes = self.world.random.below(PLACES);
        self.world.coverage.from_elsewhere += 1;
        let Some(elsewhere) = &self.elsewhere else { return };
        elsewhere.prepare(sent, buffer, passes);
        let visits = Rc::clone(&elsewhere.visits);
        self.turn(Wait::at_least(1));
        // Where the shard had something to do, it did not pass all places.
        visits.borrow_mut().iter_mut().for_each(Visit::send);
    }

    /// Whether only a shard that looks into its mailbox gets on with everything. A batch may have
    /// turned the shard meanwhile, so what has come back is taken first.
    pub(crate) fn waits_elsewhere(&mut self) -> bool {
        self.collect_elsewhere();
        self.elsewhere.as_ref().is_some_and(|elsewhere| elsewhere.under_way() > 0)
    }

    /// One round as a thread of the shard goes: messages taken in, then asleep if nothing is to
    /// be done.
    pub(crate) fn park(&mut self) {
        match self.shard.get_backend() {
            Ok(Some(backend)) => {
                let _pending = backend.park();
            }
            _ => self.world.violate(String::from("somebody else drives the shard")),
        }
    }

    /// Takes what has come back to the other thread.
    pub(crate) fn collect_elsewhere(&mut self) {
        while let Some((sent, done)) = self.elsewhere.as_ref().and_then(Elsewhere::take_done) {
            self.world.read_done(sent, done);
        }
    }

    /// Drops everything that the other thread waits for.
    pub(crate) fn forget_elsewhere(&mut self) {
        let Some(elsewhere) = &self.elsewhere else { return };
        let visits = elsewhere.visits.take();
        for visit in visits {
            self.world.model.end_read(visit.sent.issued);
        }
    }
}
