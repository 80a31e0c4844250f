//! Transfers that are nothing but a system call, made where they are asked for.
//!
//! Data flow: a descriptor, a range of memory, an offset → one call → bytes, or an errno, as a
//! completion would have it.
//!
//! The instruction itself stands in the caller, which a function of libc would not do: on
//! processors that forget return addresses in the kernel, each return to a caller from before the
//! call costs as much as a hundred other instructions, and the call itself no more than a few.
//!
//! Not here: whether it is worth it (`shard::bypass`), the same with nothing to be gained (`sys`).
#![allow(unsafe_code, reason = "names memory and a descriptor that a caller owns")]

use core::slice;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use nix::errno::Errno;
use rustix::io::{ReadWriteFlags, pread, preadv2, pwrite, pwritev2};

use crate::buffer::MemRange;

/// `pread(2)`, or where it is not to wait, `preadv2(2)` with `RWF_NOWAIT`: that answers `EAGAIN`
/// where it would block, `EOPNOTSUPP` where the file system cannot tell. Offsets as the kernel
/// takes them: below 2^63.
#[inline(always)]
pub(crate) fn read_inline(fd: i32, into: MemRange, offset_bytes: u64, waits: bool) -> i32 {
    let Some(fd) = borrowed(fd, offset_bytes) else { return refused(fd) };
    // SAFETY: lifetime: the op that the call is made for owns the memory until it is over, which
    // is made known after this returns. Aliasing: the owner keeps everybody else away. Bounds:
    // address and length of one range, all of it initialised, as all memory of packets is.
    let into = unsafe { slice::from_raw_parts_mut(into.addr(), into.len_bytes() as usize) };
    result(if waits {
        pread(fd, into, offset_bytes)
    } else {
        preadv2(fd, &mut [IoSliceMut::new(into)], offset_bytes, ReadWriteFlags::NOWAIT)
    })
}

/// As [`read_inline`], by `pwrite(2)` or `pwritev2(2)`.
#[inline]
pub(crate) fn write_inline(fd: i32, from: MemRange, offset_bytes: u64, waits: bool) -> i32 {
    let Some(fd) = borrowed(fd, offset_bytes) else { return refused(fd) };
    // SAFETY: as in `read_inline`; the memory is only read.
    let from = unsafe { slice::from_raw_parts(from.addr(), from.len_bytes() as usize) };
    result(if waits {
        pwrite(fd, from, offset_bytes)
    } else {
        pwritev2(fd, &[IoSlice::new(from)], offset_bytes, ReadWriteFlags::NOWAIT)
    })
}

/// What the call is given, unless it would be refused, or taken for the current position (F18).
#[inline(always)]
fn borrowed<'a>(fd: i32, offset_bytes: u64) -> Option<BorrowedFd<'a>> {
    if fd < 0 || offset_bytes > i64::MAX as u64 {
        return None;
    }
    // SAFETY: it is not -1; the target that it belongs to keeps it open longer than the call,
    // and a wrong one is an EBADF.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}

#[cold]
fn refused(fd: i32) -> i32 {
    -(if fd < 0 { Errno::EBADF } else { Errno::EINVAL } as i32)
}

#[inline(always)]
fn result(moved: rustix::io::Result<usize>) -> i32 {
    match moved {
        #[allow(clippy::cast_possible_truncation, reason = "a range is shorter than 2 GiB")]
        #[allow(clippy::cast_possible_wrap, reason = "a range is shorter than 2 GiB")]
        Ok(bytes) => bytes as i32,
        Err(errno) => -errno.raw_os_error(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn bytes_and_errors_are_those_of_a_completion() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = *b"some bytes";
        let range = MemRange::of_raw(bytes.as_mut_ptr(), 10, None).unwrap();
        let fd = file.as_raw_fd();
        for waits in [true, false] {
            let written = write_inline(fd, range, 2, waits);
            // A write that allocates may have to wait.
            assert!(written == 10 || !waits, "{written}");
            assert_eq!(read_inline(fd, range, 7, true), 5, "the file ends");
            assert_eq!(&bytes[..5], b"bytes");
            bytes = *b"some bytes";
            let bad = -(Errno::EBADF as i32);
            assert_eq!(read_inline(-1, range, 0, waits), bad);
            assert_eq!(write_inline(-1, range, 0, waits), bad);
            let beyond = -(Errno::EINVAL as i32);
            assert_eq!(read_inline(fd, range, u64::MAX, waits), beyond, "no current position");
            assert_eq!(write_inline(fd, range, 1 << 63, waits), beyond);
        }
    }
}
