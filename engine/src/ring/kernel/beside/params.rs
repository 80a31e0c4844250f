//! `io_uring_setup(2)` in the kernel's own words, for flags that the `io-uring` crate cannot say.
//!
//! Data flow: entries and flags → [`setup`] → a descriptor, and [`Params`] that tell where its
//! queues lie → [`adopt`], a ring of the crate's that registers and enters by that descriptor.
//!
//! Not here: the queues (`queues`), which flags are asked for (`companion`).
#![allow(unsafe_code, reason = "makes and moves descriptors of rings")]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::IoUring;
use nix::errno::Errno;

use super::super::setup::errno_of;

/// The flags of `io_uring_setup(2)`, from `<linux/io_uring.h>`.
pub(super) mod flag {
    pub(in super::super) const IOPOLL: u32 = 1 << 0;
    pub(in super::super) const CQSIZE: u32 = 1 << 3;
    pub(in super::super) const CLAMP: u32 = 1 << 4;
    pub(in super::super) const R_DISABLED: u32 = 1 << 6;
    pub(in super::super) const SUBMIT_ALL: u32 = 1 << 7;
    pub(in super::super) const COOP_TASKRUN: u32 = 1 << 8;
    pub(in super::super) const TASKRUN_FLAG: u32 = 1 << 9;
    pub(in super::super) const SINGLE_ISSUER: u32 = 1 << 12;
    pub(in super::super) const DEFER_TASKRUN: u32 = 1 << 13;
    pub(in super::super) const HYBRID_IOPOLL: u32 = 1 << 17;
}

/// `struct io_sqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SqOffsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) ring_mask: u32,
    pub(super) ring_entries: u32,
    pub(super) flags: u32,
    pub(super) dropped: u32,
    pub(super) array: u32,
    pub(super) reserved: u32,
    pub(super) user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CqOffsets {
    pub(super) head: u32,
    pub(super) tail: u32,
    pub(super) ring_mask: u32,
    pub(super) ring_entries: u32,
    pub(super) overflow: u32,
    pub(super) cqes: u32,
    pub(super) flags: u32,
    pub(super) reserved: u32,
    pub(super) user_addr: u64,
}

/// `struct io_uring_params`: what is asked for, and once the ring is there, what it has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Params {
    pub(super) sq_entries: u32,
    pub(super) cq_entries: u32,
    pub(super) flags: u32,
    pub(super) sq_thread_cpu: u32,
    pub(super) sq_thread_idle: u32,
    pub(super) features: u32,
    pub(super) wq_fd: u32,
    pub(super) reserved: [u32; 3],
    pub(super) sq_off: SqOffsets,
    pub(super) cq_off: CqOffsets,
}

// The kernel's ABI fixes the sizes.
const _: () = assert!(size_of::<SqOffsets>() == 40 && size_of::<CqOffsets>() == 40);
const _: () = assert!(size_of::<Params>() == 120);

/// Makes a ring of `entries` as `asked`, closed on `exec`. The answer says what was granted.
pub(super) fn setup(entries: u32, asked: Params) -> Result<(OwnedFd, Params), Errno> {
    let (entries, mut params) = (libc::c_ulong::from(entries), asked);
    // SAFETY: lifetime: `params` outlives the call. Aliasing: it is this function's. Bounds: the
    // kernel reads and writes the 120 bytes of its structure, which are those of `Params`.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, &raw mut params) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: lifetime: the kernel has just made it. Aliasing: nobody else knows it. Bounds: it
    // is a descriptor, since the call succeeded.
    Ok((unsafe { OwnedFd::from_raw_fd(fd) }, params))
}

/// A ring of the crate's that stands for `fd` in its system calls, and in nothing else.
///
/// The crate can take over a ring, but maps it so that a child inherits it (F26). What this one
/// has mapped is therefore another ring, the smallest there is, which stays idle until they go
/// together; only its descriptor becomes one of `fd`'s.
pub(super) fn adopt(fd: OwnedFd) -> Result<IoUring, Errno> {
    let ring = IoUring::builder().dontfork().build(1).map_err(|error| errno_of(&error))?;
    // SAFETY: lifetime: both descriptors are open. Aliasing: the number that is replaced is that
    // of `ring`, which closes it once, whatever it stands for; the mappings hold on to their ring
    // by themselves. Bounds: no memory is passed.
    let replaced = unsafe { libc::dup3(fd.as_raw_fd(), ring.as_raw_fd(), libc::O_CLOEXEC) };
    Errno::result(replaced).map(|_| ring)
}
