//! System calls for which the crates we use have no safe function.
//!
//! Not here: those that a ring makes (`raw_uring`), memory (`mapping`).
#![allow(unsafe_code, reason = "part of raw_uring, where alone unsafe may stand in this crate")]

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// `sync_file_range(2)`.
pub(crate) fn sync_file_range(
    file: &std::fs::File,
    offset: i64,
    len: i64,
    flags: u32,
) -> nix::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed; no argument points to memory.
    Errno::result(unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, flags) })?;
    Ok(())
}

/// `F_GET_RW_HINT` and `F_SET_RW_HINT` of `<linux/fcntl.h>`.
#[cfg(test)]
const GET_WRITE_HINT: i32 = 1024 + 11;
const SET_WRITE_HINT: i32 = 1024 + 12;

/// Tells the file system how long what is written is expected to live (`fcntl(2)`).
pub(crate) fn set_write_hint(file: &std::fs::File, hint: u64) -> nix::Result<()> {
    let hint = &raw const hint;
    // SAFETY: the kernel reads one u64, which lives on this stack until the call returns; the
    // descriptor is open while `file` is borrowed.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), SET_WRITE_HINT, hint) })?;
    Ok(())
}

/// What was said last of the file's inode.
#[cfg(test)]
pub(crate) fn write_hint(file: &std::fs::File) -> nix::Result<u64> {
    let mut hint = 0_u64;
    let into = &raw mut hint;
    // SAFETY: the kernel writes one u64, which lives on this stack until the call returns; the
    // descriptor is open while `file` is borrowed.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), GET_WRITE_HINT, into) })?;
    Ok(hint)
}

/// `BLKDISCARD`; `ENOTTY` where the file is no device.
pub(crate) fn discard(file: &std::fs::File, offset: u64, len: u64) -> nix::Result<()> {
    const BLKDISCARD: libc::c_ulong = 0x1277;
    let range = [offset, len];
    // SAFETY: the descriptor is open while `file` is borrowed; the kernel reads two u64, which
    // live on this stack.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })?;
    Ok(())
}
