//! An in-memory target: the reference that every other backend is compared with.
//!
//! Data flow: view → copied to or from the bytes → completed, at once or when driven. What
//! lies beyond the end fails alone: the part before it succeeds.
//!
//! Not here: files, growth, durability.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};

use crate::backend::{BackendBusy, BackendHandle, Drive, IoBackend};
use crate::error::ErrorKind;
use crate::io::{PacketIo, Refused};
use crate::packet::{Perms, Read, ReadWrite, View, Write};
use crate::stream::Length;
use crate::wakers::wake_all;

enum Queued {
    Read(u64, View<Read>),
    Write(u64, View<Write>),
    Exchange(u64, View<ReadWrite>),
}

/// Bytes in memory, addressed by byte offset, of a fixed length.
#[derive(Default)]
pub struct Mem {
    bytes: RefCell<Vec<u8>>,
    /// The most views that wait for the next drive; 0 completes inside `send_io`.
    depth: usize,
    queued: RefCell<VecDeque<Queued>>,
    /// Room in `queued` that is promised to somebody.
    reserved: Cell<usize>,
    waiting: RefCell<Vec<Waker>>,
    driven: Cell<bool>,
}

impl From<Vec<u8>> for Mem {
    /// A target that completes inside `send_io`.
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: RefCell::new(bytes), ..Self::default() }
    }
}

impl Mem {
    /// A target that completes when it is driven, and accepts `depth` views until then.
    ///
    /// # Panics
    /// If `depth` is 0.
    #[must_use]
    pub fn polled(bytes: Vec<u8>, depth: usize) -> Self {
        assert!(depth > 0, "a target that accepts nothing");
        Self { depth, queued: RefCell::new(VecDeque::with_capacity(depth)), ..bytes.into() }
    }

    /// A copy of all bytes.
    ///
    /// # Panics
    /// Never: no borrow outlives a call.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.bytes.borrow().clone()
    }

    /// How much of `len` bytes at `at` exists, and where.
    fn existing(&self, at: u64, len: u64) -> core::ops::Range<usize> {
        let size = self.bytes.borrow().len();
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(size);
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        start..start.saturating_add(len).min(size)
    }

    fn complete_read(&self, at: u64, view: View<Read>) {
        let range = self.existing(at, view.len());
        let (mut head, rest) = cut(view, range.len() as u64);
        head.write_at(0, &self.bytes.borrow()[range]);
        // Completed outside the borrow: the woken may send again.
        head.filled();
        if let Some(rest) = rest {
            rest.fail(ErrorKind::UnexpectedEof);
        }
    }

    fn complete_write(&self, at: u64, view: View<Write>) {
        let range = self.existing(at, view.len());
        let (head, rest) = cut(view, range.len() as u64);
        let copied = head.read_at(0, &mut self.bytes.borrow_mut()[range]);
        match copied {
            Ok(()) => head.written(),
            Err(_gone) => head.fail(ErrorKind::Aborted),
        }
        if let Some(rest) = rest {
            rest.fail(ErrorKind::OutOfRange);
        }
    }

    fn complete_exchange(&self, at: u64, view: View<ReadWrite>) {
        let range = self.existing(at, view.len());
        let (mut head, rest) = cut(view, range.len() as u64);
        let exchanged = head.exchange_at(0, &mut self.bytes.borrow_mut()[range]);
        match exchanged {
            Ok(()) => head.exchanged(),
            Err(_gone) => head.fail(ErrorKind::Aborted),
        }
        if let Some(rest) = rest {
            rest.fail(ErrorKind::OutOfRange);
        }
    }

    fn queue(&self, queued: Queued) {
        self.reserved.set(self.reserved.get().saturating_sub(1));
        self.queued.borrow_mut().push_back(queued);
    }

    /// Whether nothing more is accepted from who has not reserved.
    fn full(&self) -> bool {
        self.reserved.get() == 0 && self.queued.borrow().len() >= self.depth
    }

    fn set_aside(&self, views: usize) -> bool {
        let taken = self.queued.borrow().len() + self.reserved.get();
        let fits = self.depth == 0 || taken.saturating_add(views) <= self.depth;
        if fits && self.depth > 0 {
            self.reserved.set(self.reserved.get() + views);
        }
        fits
    }

    fn give_back(&self, views: usize) {
        self.reserved.set(self.reserved.get().saturating_sub(views));
    }

    fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.depth == 0 || !self.full() {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        self.waiting.borrow_mut().push(waker);
        Poll::Pending
    }
}

/// What exists of a view, and what does not, if any: cutting costs more than copying a little.
fn cut<P: Perms>(view: View<P>, existing: u64) -> (View<P>, Option<View<P>>) {
    if existing == view.len() {
        return (view, None);
    }
    let (head, rest) = view.split_at(existing);
    (head, Some(rest))
}

/// The three directions differ in what is queued and how it is completed.
macro_rules! packet_io {
    ($perms:ident, $queued:ident, $complete:ident) => {
        impl PacketIo<$perms, u64> for Mem {
            fn send_io(&self, param: u64, view: View<$perms>) -> Result<(), Refused<$perms>> {
                match self.depth {
                    0 => self.$complete(param, view),
                    _ if self.full() => return Err(Refused { param, view }),
                    _ => self.queue(Queued::$queued(param, view)),
                }
                Ok(())
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.poll_room(cx)
            }

            fn reserve(&self, views: usize) -> bool {
                self.set_aside(views)
            }

            fn release(&self, views: usize) {
                self.give_back(views);
            }
        }
    };
}

packet_io!(Read, Read, complete_read);
packet_io!(Write, Write, complete_write);
packet_io!(ReadWrite, Exchange, complete_exchange);

impl Drive for Mem {
    fn poll_drive(&self, cx: &mut Context<'_>) {
        // What is sent while completing waits for the next drive, so this ends.
        let waiting = self.queued.borrow().len();
        for _ in 0..waiting {
            let next = self.queued.borrow_mut().pop_front();
            match next {
                Some(Queued::Read(at, view)) => self.complete_read(at, view),
                Some(Queued::Write(at, view)) => self.complete_write(at, view),
                Some(Queued::Exchange(at, view)) => self.complete_exchange(at, view),
                None => break,
            }
        }
        if !self.waiting.borrow().is_empty() {
            wake_all(self.waiting.take());
        }
        if !self.queued.borrow().is_empty() {
            cx.waker().wake_by_ref();
        }
    }
}

impl IoBackend for Mem {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        if self.depth == 0 {
            return Ok(None);
        }
        BackendHandle::acquire(self, &self.driven).map(Some)
    }
}

impl Length for Mem {
    fn len_bytes(&self) -> Option<u64> {
        Some(self.bytes.borrow().len() as u64)
    }
}

impl core::fmt::Debug for Mem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let queued = self.queued.borrow().len();
        let len = self.bytes.borrow().len();
        f.debug_struct("Mem").field("len", &len).field("queued", &queued).finish()
    }
}
