//! What no engine does: giving ranges back, and writing ranges or all out.
//!
//! Data flow: file and I/O -> one system call -> bytes or a negated errno.
//!
//! Not here: when (`worker`), anything with data (`ioengine`).

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;

use crate::ioengine::{Io, Operation, discard, sync_file_range};

/// The flags of `sync_file_range(2)` that a job asks for.
pub(crate) fn range_flags(range: fio_compat::SyncFileRange) -> u32 {
    let parts = [
        (range.wait_before, libc::SYNC_FILE_RANGE_WAIT_BEFORE),
        (range.write, libc::SYNC_FILE_RANGE_WRITE),
        (range.wait_after, libc::SYNC_FILE_RANGE_WAIT_AFTER),
    ];
    parts.into_iter().filter(|(used, _)| *used).map(|(_, flag)| flag).sum()
}

/// What it would have said, for the engine that has no files.
pub(crate) fn pretend(io: Io) -> i32 {
    if io.operation == Operation::Trim { whole(io) } else { 0 }
}

/// The result of a trim that did all of it.
fn whole(io: Io) -> i32 {
    i32::try_from(io.len_bytes).unwrap_or(i32::MAX)
}

/// Executes a trim, or a sync of a range or a file system, on the spot.
pub(crate) fn execute(file: &File, io: Io, range_flags: u32) -> i32 {
    let Ok(offset) = i64::try_from(io.offset_bytes) else { return -libc::EINVAL };
    let len = i64::from(io.len_bytes);
    let outcome = match io.operation {
        Operation::Trim => match discard(file, io.offset_bytes, u64::from(io.len_bytes)) {
            // No device: a file gives the range back as a hole.
            Err(Errno::ENOTTY) => {
                let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE;
                let flags = punch | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                fallocate(file, flags, offset, len).map(|()| whole(io))
            }
            outcome => outcome.map(|()| whole(io)),
        },
        Operation::SyncRange => sync_file_range(file, offset, len, range_flags).map(|()| 0),
        Operation::SyncFs => nix::unistd::syncfs(file).map(|()| 0),
        _ => Err(Errno::EOPNOTSUPP),
    };
    outcome.unwrap_or_else(|errno| -(errno as i32))
}
