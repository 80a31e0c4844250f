//! The few system calls of the engine that neither io_uring nor `std` makes for it.
//!
//! Data flow: a descriptor, a range of memory or nothing → one call → a value or an `Errno`.
//! No state, no retry, no policy: an `EINTR` goes to the caller like any other errno.
//!
//! Not here: the ring's own calls (`ring::kernel`), mapping memory (`buffer::arena`), what an
//! errno means (`complete`, `target`).
#![allow(unsafe_code, reason = "libc calls that std and nix have no safe form for")]

use core::mem::MaybeUninit;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;

use crate::buffer::MemRange;

mod facts;
mod fork;
mod inline;
mod nvme;
mod perf;

pub(crate) use facts::{is_memlock_exempt, physical_block_bytes, read_nowait, statx};
pub(crate) use fork::generation as fork_generation;
pub(crate) use inline::{read_inline, write_inline};
pub(crate) use nvme::{nvme_identify, nvme_io, nvme_io_vectored, nvme_io_with, nvme_namespace_id};
pub(crate) use perf::count_tracepoint;

mod request {
    //! The two requests of `<linux/fs.h>` that tell a block device's size and sector.
    use libc::{c_int, c_ulong};

    nix::ioctl_read_bad!(sector_bytes, c_ulong_of(libc::BLKSSZGET), c_int);
    nix::ioctl_read!(device_bytes, 0x12, 114, usize);

    #[allow(clippy::unnecessary_cast, reason = "the constant's type differs between targets")]
    #[allow(clippy::cast_sign_loss, reason = "requests are bit patterns")]
    const fn c_ulong_of(request: libc::Ioctl) -> c_ulong {
        request as c_ulong
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock that the kernel uses for ring timeouts.
#[must_use]
pub(crate) fn now_ns() -> u64 {
    let mut now = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: lifetime: `now` outlives the call. Aliasing: it is this function's. Bounds: it is
    // exactly one timespec.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, now.as_mut_ptr()) };
    assert_eq!(result, 0, "CLOCK_MONOTONIC exists on every Linux");
    // SAFETY: the call has filled it in, as it said.
    let now = unsafe { now.assume_init() };
    let (seconds, ns) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + ns.unwrap_or(0)
}

/// Gives up the processor for about `duration`. For opening a target, never in a shard.
#[allow(clippy::disallowed_methods, reason = "waiting for another process's lock, off the ring")]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// `pread(2)`: fills `into` from `offset_bytes` of `fd`, once. Returns the bytes moved.
pub(crate) fn pread(fd: i32, into: MemRange, offset_bytes: u64) -> Result<u32, Errno> {
    let (len, offset) = (into.len_bytes() as usize, file_offset(offset_bytes)?);
    // SAFETY: lifetime: the slot or the chain of the op owns the memory until its completion,
    // which the caller, a ring or the shard in its place, makes known after this returns.
    // Aliasing: the owner keeps everybody else away. Bounds: address and length of one range.
    let moved = unsafe { libc::pread(fd, into.addr().cast(), len, offset) };
    bytes_moved(moved)
}

/// `pwrite(2)`: writes all of `from` to `offset_bytes` of `fd`, once. Returns the bytes moved.
pub(crate) fn pwrite(fd: i32, from: MemRange, offset_bytes: u64) -> Result<u32, Errno> {
    let (len, offset) = (from.len_bytes() as usize, file_offset(offset_bytes)?);
    // SAFETY: as in `pread`; the memory is only read.
    let moved = unsafe { libc::pwrite(fd, from.addr().cast(), len, offset) };
    bytes_moved(moved)
}

/// `pwritev2(2)` of one range with `flags` (`RWF_DSYNC`, `RWF_ATOMIC`), once. Returns the bytes
/// moved; `EOPNOTSUPP` where kernel or file system lacks a flag.
pub(crate) fn pwritev2(
    fd: i32,
    from: MemRange,
    offset_bytes: u64,
    flags: i32,
) -> Result<u32, Errno> {
    let offset = file_offset(offset_bytes)?;
    let piece = libc::iovec { iov_base: from.addr().cast(), iov_len: from.len_bytes() as usize };
    // SAFETY: lifetime and aliasing: as in `pwrite`; `piece` outlives the call. Bounds: one
    // iovec, which names address and length of one range.
    let moved = unsafe { libc::pwritev2(fd, &raw const piece, 1, offset, flags) };
    bytes_moved(moved)
}

/// `fallocate(2)`.
pub(crate) fn fallocate(
    fd: i32,
    mode: i32,
    offset_bytes: u64,
    len_bytes: u64,
) -> Result<(), Errno> {
    let (offset, len) = (file_offset(offset_bytes)?, file_offset(len_bytes)?);
    // SAFETY: no memory is passed; a wrong descriptor is an EBADF.
    let result = unsafe { libc::fallocate(fd, mode, offset, len) };
    Errno::result(result).map(drop)
}

/// `ftruncate(2)`.
pub(crate) fn ftruncate(fd: i32, len_bytes: u64) -> Result<(), Errno> {
    let len = file_offset(len_bytes)?;
    // SAFETY: no memory is passed; a wrong descriptor is an EBADF.
    let result = unsafe { libc::ftruncate(fd, len) };
    Errno::result(result).map(drop)
}

/// `preadv(2)`: fills the pieces of `into` from `offset_bytes` of `fd`, once. Returns the bytes
/// moved.
pub(crate) fn preadv(fd: i32, into: MemRange, offset_bytes: u64) -> Result<u32, Errno> {
    let (pieces, offset) = (i32::from(into.vector_len()), file_offset(offset_bytes)?);
    // SAFETY: lifetime: the slot that pushed the op owns the array and what it names until its
    // completion, which the calling ring posts after this returns. Aliasing: the slot keeps
    // everybody else away. Bounds: the array has as many entries, each of one range.
    let moved = unsafe { libc::preadv(fd, into.addr().cast(), pieces, offset) };
    bytes_moved(moved)
}

/// `pwritev(2)`: writes the pieces of `from` to `offset_bytes` of `fd`, once. Returns the bytes
/// moved.
pub(crate) fn pwritev(fd: i32, from: MemRange, offset_bytes: u64) -> Result<u32, Errno> {
    let (pieces, offset) = (i32::from(from.vector_len()), file_offset(offset_bytes)?);
    // SAFETY: as in `preadv`; the memory is only read.
    let moved = unsafe { libc::pwritev(fd, from.addr().cast(), pieces, offset) };
    bytes_moved(moved)
}

fn file_offset(offset_bytes: u64) -> Result<libc::off_t, Errno> {
    libc::off_t::try_from(offset_bytes).map_err(|_| Errno::EINVAL)
}

fn bytes_moved(moved: isize) -> Result<u32, Errno> {
    // -1 is the only negative; a range is shorter than 2 GiB.
    u32::try_from(moved).map_err(|_| Errno::last())
}

/// The descriptor that the kernel has just handed over as the result of an op.
///
/// Only for such a result, and once for each: whoever holds what comes back closes it.
pub(crate) fn handed_over(fd: i32) -> Option<OwnedFd> {
    if fd < 0 {
        return None;
    }
    // SAFETY: ownership: the kernel has installed it for this op and told nobody else of it. It
    // is open: what closes it is only made here.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `fdatasync(2)`.
pub(crate) fn fdatasync(fd: i32) -> Result<(), Errno> {
    // SAFETY: no memory is passed; a wrong descriptor is an EBADF.
    let result = unsafe { libc::fdatasync(fd) };
    Errno::result(result).map(drop)
}

/// `fsync(2)`.
pub(crate) fn fsync(fd: i32) -> Result<(), Errno> {
    // SAFETY: no memory is passed; a wrong descriptor is an EBADF.
    let result = unsafe { libc::fsync(fd) };
    Errno::result(result).map(drop)
}

/// Logical sector size in bytes of the block device `file` (`BLKSSZGET`).
pub(crate) fn sector_bytes(file: &File) -> Result<u32, Errno> {
    let mut bytes = 0;
    // SAFETY: lifetime: `bytes` outlives the call. Aliasing: it is this function's. Bounds: the
    // request writes one int.
    unsafe { request::sector_bytes(file.as_raw_fd(), &raw mut bytes) }?;
    u32::try_from(bytes).map_err(|_| Errno::EINVAL)
}

/// Size in bytes of the block device `file` (`BLKGETSIZE64`).
pub(crate) fn device_bytes(file: &File) -> Result<u64, Errno> {
    // The request is declared with size_t, and writes 64 bits all the same.
    let mut bytes = [0_usize; size_of::<u64>() / size_of::<usize>()];
    // SAFETY: lifetime: `bytes` outlives the call. Aliasing: it is this function's. Bounds: the
    // request writes 64 bits, which is what the array has on every target.
    unsafe { request::device_bytes(file.as_raw_fd(), bytes.as_mut_ptr()) }?;
    let bytes = bytes.map(usize::to_ne_bytes);
    let mut all = [0; 8];
    all.copy_from_slice(bytes.as_flattened());
    Ok(u64::from_ne_bytes(all))
}

/// How many bytes this process may lock or pin (`RLIMIT_MEMLOCK`); `u64::MAX` for no limit.
pub(crate) fn memlock_bytes_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: lifetime: `limit` outlives the call. Aliasing: it is this function's. Bounds: it
    // is exactly one rlimit.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { 0 }
}

/// How many descriptors this process may have open (`RLIMIT_NOFILE`).
pub(crate) fn open_files_max() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: as in `memlock_bytes_max`.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    if result == 0 { limit.rlim_cur } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_clock_moves_forwards() {
        let before = now_ns();
        pause(Duration::from_millis(2));
        assert!(now_ns() >= before + 2_000_000);
    }

    #[test]
    fn wrong_descriptor_is_an_error_of_every_call() {
        let mut byte = [0_u8];
        let range = MemRange::of_raw(byte.as_mut_ptr(), 1, None).unwrap();
        assert_eq!(pread(-1, range, 0), Err(Errno::EBADF));
        assert_eq!(pwrite(-1, range, 0), Err(Errno::EBADF));
        assert_eq!(fdatasync(-1), Err(Errno::EBADF));
        assert_eq!(fsync(-1), Err(Errno::EBADF));
        let null = File::open("/dev/null").unwrap();
        assert_eq!(sector_bytes(&null), Err(Errno::ENOTTY));
        assert_eq!(device_bytes(&null), Err(Errno::ENOTTY));
    }

    #[test]
    fn f18_offset_beyond_the_signed_range_is_refused() {
        let mut byte = [0_u8];
        let range = MemRange::of_raw(byte.as_mut_ptr(), 1, None).unwrap();
        assert_eq!(pread(0, range, u64::MAX), Err(Errno::EINVAL));
    }
}
