//! The way into the kernel: one instruction where it is called from, and no lookup of a
//! descriptor.
//!
//! Data flow: the ring's descriptor → the calling thread's table of rings
//! (`IORING_REGISTER_RING_FDS`, Linux 5.18) → [`Gate::enter`] by the number in that.
//!
//! The call stands in the caller, which a function of libc or of the crate would not do: on
//! processors that forget return addresses in the kernel, a return to a caller from before the
//! call costs about as much as the rest of a turn.
//!
//! Not here: when to enter, and what has come of it (`enter`).
#![allow(unsafe_code, reason = "enters the kernel, which reads the queue and writes to its memory")]

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use io_uring::types::Timespec;
use io_uring::{EnterFlags, IoUring};
use nix::errno::Errno;
use rustix::io_uring::{
    IoringEnterFlags, IoringRegisterOp, io_uring_enter, io_uring_enter_arg, io_uring_getevents_arg,
    io_uring_ptr, io_uring_register, io_uring_rsrc_update,
};

use crate::process::Process;

/// Names a ring to `io_uring_enter(2)`. Belongs to the thread that made it.
#[derive(Debug)]
pub(super) struct Gate {
    ring: RawFd,
    /// The ring's number in the thread's table, if it is there; else its descriptor.
    name: RawFd,
    /// Says which of the two it is.
    named: IoringEnterFlags,
    /// Whose ring it is.
    owner: Process,
}

impl Gate {
    /// To the ring of this thread, which goes after the gate.
    pub(super) fn new(ring: &IoUring) -> Self {
        let ring = ring.as_raw_fd();
        let number = register(ring, IoringRegisterOp::RegisterRingFds, u32::MAX);
        let number = number.and_then(|number| RawFd::try_from(number).ok());
        let registered = IoringEnterFlags::REGISTERED_RING;
        let named = if number.is_some() { registered } else { IoringEnterFlags::empty() };
        Self { ring, name: number.unwrap_or(ring), named, owner: Process::current() }
    }

    /// Whether the ring is in the thread's table.
    pub(super) fn is_registered(&self) -> bool {
        !self.named.is_empty()
    }

    /// Submits `queued` entries and waits for `min` completions. Returns how many were taken.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`.
    ///
    /// # Safety
    /// As many entries are published in the ring's queue, not taken yet, and what they name stays
    /// until they have completed.
    #[inline(always)]
    pub(super) unsafe fn enter(
        &self,
        queued: u32,
        min: u32,
        flags: EnterFlags,
    ) -> Result<u32, Errno> {
        let flags = IoringEnterFlags::from_bits_retain(flags.bits()) | self.named;
        // SAFETY: handed through from the caller; no argument memory is passed.
        match unsafe { io_uring_enter(borrowed(self.name), queued, min, flags) } {
            Ok(taken) => Ok(taken),
            Err(errno) => refused(errno),
        }
    }

    /// As [`Gate::enter`], but waits no longer than `limit`.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`: `ETIME` where it has waited for so long.
    ///
    /// # Safety
    /// As [`Gate::enter`].
    pub(super) unsafe fn enter_for(
        &self,
        queued: u32,
        min: u32,
        flags: EnterFlags,
        limit: &Timespec,
    ) -> Result<u32, Errno> {
        let flags = IoringEnterFlags::from_bits_retain((flags | EnterFlags::EXT_ARG).bits());
        let ts = io_uring_ptr::new((&raw const *limit).cast_mut().cast());
        let args = io_uring_getevents_arg { ts, ..io_uring_getevents_arg::default() };
        let (ring, flags) = (borrowed(self.name), flags | self.named);
        // SAFETY: handed through from the caller; arguments and limit outlive the call, and the
        // kernel copies both before it waits.
        unsafe { io_uring_enter_arg(ring, queued, min, flags, Some(&args)) }.or_else(refused)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // The table holds a reference of its own, which would keep the ring open until the thread
        // ends. A forked child has a table of its own, and another ring there, perhaps (F26).
        if let Ok(number) = u32::try_from(self.name)
            && self.is_registered()
            && self.owner.is_current()
        {
            let _number = register(self.ring, IoringRegisterOp::UnregisterRingFds, number);
        }
    }
}

/// Puts a ring into the thread's table at `number`, or anywhere, or takes it out; where that was.
fn register(ring: RawFd, op: IoringRegisterOp, number: u32) -> Option<u32> {
    let data = match op {
        IoringRegisterOp::RegisterRingFds => ring,
        _ => 0,
    };
    let data = core::ptr::without_provenance_mut(usize::try_from(data).ok()?);
    let mut update = io_uring_rsrc_update::default();
    (update.offset, update.data) = (number, io_uring_ptr::new(data));
    // SAFETY: the kernel reads and writes one update, which lives on this stack, and takes a
    // reference of its own to the ring.
    let done = unsafe { io_uring_register(borrowed(ring), op, (&raw mut update).cast(), 1) };
    (done == Ok(1)).then_some(update.offset)
}

#[cold]
#[inline(never)]
fn refused(errno: rustix::io::Errno) -> Result<u32, Errno> {
    Err(Errno::from_raw(errno.raw_os_error()))
}

/// What the call is given in the place of a descriptor.
#[inline(always)]
fn borrowed<'a>(name: RawFd) -> BorrowedFd<'a> {
    // SAFETY: it is not -1: the number of a ring in the thread's table, which is looked at as such
    // and as nothing else, or the descriptor of a ring that is open for longer than its gate.
    unsafe { BorrowedFd::borrow_raw(name) }
}
