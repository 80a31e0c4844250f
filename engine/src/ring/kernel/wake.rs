//! Turns a wake from any thread into one completion of the ring's own poll.
//!
//! Data flow: [`KernelWaker::wake`] → eventfd → poll SQE → CQE with [`WAKE`] → [`Wake::seen`].
//! The poll is armed by the first `enter` that may sleep, or comes before one that may.
//!
//! Not here: pushing the poll SQE and recognising its CQE (`kernel`).

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::ring::{RingWaker, Tag};

/// The tag of the poll. Its slot is that of [`Tag::INTERNAL`], which is never given out.
pub(super) const WAKE: Tag = Tag { slot: Tag::INTERNAL.slot, generation: 0 };

#[derive(Debug)]
struct Bell {
    event: EventFd,
    /// A wake has been asked for and not been seen yet: more of them need no system call.
    rung: AtomicBool,
    /// Tells a host's event loop; registered with the ring once it is watched.
    host: OnceLock<EventFd>,
    watched: AtomicBool,
}

/// Ends a blocking wait of one [`KernelRing`](super::KernelRing). See
/// [`Ring::enter`](crate::ring::Ring::enter) there for what it promises.
#[derive(Clone, Debug)]
pub struct KernelWaker(Arc<Bell>);

impl RingWaker for KernelWaker {
    fn wake(&self) {
        // What the waker did before is seen by the shard that sees the bell rung: the swap here
        // and the one in `Wake::seen` are read-modify-writes of the same flag.
        if !self.0.rung.swap(true, Ordering::AcqRel) {
            // Fails only when the counter is full, and then the descriptor is readable anyway.
            let _readable_anyway = self.0.event.write(1);
            // Not left to the ring, which would have to signal one eventfd because of another:
            // the kernel puts that off, and was seen to forget it (Linux 6.18).
            if self.0.watched.load(Ordering::Acquire)
                && let Some(host) = self.0.host.get()
            {
                let _readable_anyway = host.write(1);
            }
        }
    }
}

/// The ring's end of the bell.
#[derive(Debug)]
pub(super) struct Wake {
    bell: Arc<Bell>,
    armed: bool,
    /// Cleared when the kernel refuses a multishot poll (before Linux 5.13).
    multishot: bool,
}

impl Wake {
    /// # Errors
    /// Of `eventfd(2)`: `EMFILE` or `ENFILE` when no more files can be open.
    pub(super) fn new() -> Result<Self, Errno> {
        let (event, host) = (event()?, OnceLock::new());
        let (rung, watched) = (AtomicBool::new(false), AtomicBool::new(false));
        let bell = Arc::new(Bell { event, rung, host, watched });
        Ok(Self { bell, armed: false, multishot: true })
    }

    pub(super) fn waker(&self) -> KernelWaker {
        KernelWaker(Arc::clone(&self.bell))
    }

    /// Whether a poll is in flight.
    #[inline]
    pub(super) const fn is_armed(&self) -> bool {
        self.armed
    }

    /// Marks the poll as in flight and says what it must be: descriptor, multishot.
    pub(super) fn arm(&mut self) -> (i32, bool) {
        self.armed = true;
        (self.bell.event.as_raw_fd(), self.multishot)
    }

    /// A wake has been asked for and not been seen yet.
    pub(super) fn is_rung(&self) -> bool {
        self.bell.rung.load(Ordering::Acquire)
    }

    /// What ends a sleep when it becomes readable.
    pub(super) fn event_fd(&self) -> i32 {
        self.bell.event.as_raw_fd()
    }

    /// The descriptor for a host's event loop; `None` when no more files can be open.
    pub(super) fn host(&self) -> Option<&EventFd> {
        if self.bell.host.get().is_none() {
            let _first = self.bell.host.set(event().ok()?);
        }
        self.bell.host.get()
    }

    /// Whether wakes and the ring make that descriptor readable.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.bell.watched.load(Ordering::Relaxed)
    }

    /// It has been registered with the ring: from now on wakes tell it too.
    pub(super) fn watch(&self) {
        self.bell.watched.store(true, Ordering::Release);
        // What arrived before counts too.
        self.tell_host();
    }

    /// Makes that descriptor unreadable, before everything that it told of is looked at.
    #[cold]
    pub(super) fn hush(&self) {
        if let Some(host) = self.host() {
            let _empty_already = host.read();
        }
        if self.bell.rung.load(Ordering::Relaxed) {
            self.quiet();
        }
    }

    /// Makes that descriptor readable: the ring is to be looked at again.
    pub(super) fn tell_host(&self) {
        if let Some(host) = self.host() {
            let _readable_anyway = host.write(1);
        }
    }

    /// Takes note of a wake that no poll tells of.
    pub(super) fn quiet(&self) {
        // Emptied before the flag is cleared: in the other order, a wake between the two would
        // be emptied away, and a poll that is armed afterwards would never see it.
        let _empty_already = self.bell.event.read();
        self.bell.rung.swap(false, Ordering::AcqRel);
    }

    /// Takes note of a CQE of the poll.
    pub(super) fn seen(&mut self, result: i32, more: bool) {
        self.armed = more;
        if result < 0 && self.multishot {
            // Refused; the wait ended with this CQE, and the next one arms the plain form.
            self.multishot = false;
        }
        self.quiet();
    }
}

fn event() -> Result<EventFd, Errno> {
    EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
}
