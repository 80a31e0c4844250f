//! The one fact that all handles of a file share: whether a flush of it has failed.
//!
//! Data flow: open → [`Poison::of`] → the handles of that inode in this process, on whichever
//! shard → a failed flush sets it → every handle sees it with its next write or flush.
//! The registry is locked at an open and nowhere else; asking is one relaxed load.
//!
//! Not here: what sets it (`shard::flush`), the flush that an open begins with (`open`).

use core::sync::atomic::{AtomicU32, Ordering};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// `st_dev`; 0 for a device.
    pub device: u64,
    /// `st_ino`; 0 for a block device, which may have several nodes, and 1 for a character
    /// device.
    pub number: u64,
    /// `st_rdev`; 0 for a file.
    pub special: u64,
}

impl Inode {
    /// That of an open file; `None` where `fstat(2)` fails.
    #[must_use]
    pub fn of(file: &File) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        if metadata.file_type().is_block_device() {
            return Some(Self { device: 0, number: 0, special: metadata.rdev() });
        }
        if metadata.file_type().is_char_device() {
            // Their numbers are others than those of block devices.
            return Some(Self { device: 0, number: 1, special: metadata.rdev() });
        }
        Some(Self { device: metadata.dev(), number: metadata.ino(), special: 0 })
    }
}

/// The file again, with an open file description of its own. The kernel tells each description
/// once of writes that were lost, so of two shards with duplicates of one, the other's flush
/// would succeed (F37). `None` where it cannot be opened again, or is nothing that keeps bytes:
/// opening a pipe may wait for ever.
pub(crate) fn own_description(file: &File) -> Option<File> {
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() && !metadata.is_dir() && !metadata.file_type().is_block_device() {
        return None;
    }
    let flags = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL).ok()?);
    let access = flags & OFlag::O_ACCMODE;
    let mut how = std::fs::OpenOptions::new();
    how.read(access != OFlag::O_WRONLY).write(access != OFlag::O_RDONLY);
    // What made the file (`O_TMPFILE`) is among its flags, too.
    let lasting = OFlag::O_DIRECT | OFlag::O_APPEND | OFlag::O_SYNC | OFlag::O_NOATIME;
    how.custom_flags((flags & lasting).bits());
    let again = how.open(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    (Inode::of(&again)? == Inode::of(file)?).then_some(again)
}

/// Of the first flush that failed, the errno, and above its 16 bits what the device said; or 0.
#[derive(Debug, Default)]
pub(crate) struct Poison(AtomicU32);

static OPEN: Mutex<Vec<(Inode, Weak<Poison>)>> = Mutex::new(Vec::new());

impl Poison {
    /// What the handles of `inode` share. A poisoned one is not handed out again: an open
    /// starts afresh, and the handles from before stay as they are (F37).
    pub(crate) fn of(inode: Option<Inode>) -> Arc<Self> {
        let fresh = Arc::new(Self::default());
        let Some(inode) = inode else { return fresh };
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, poison)| poison.strong_count() > 0);
        if let Some((_, poison)) = open.iter_mut().find(|(other, _)| *other == inode) {
            if let Some(shared) = poison.upgrade().filter(|shared| !shared.is_set()) {
                return shared;
            }
            *poison = Arc::downgrade(&fresh);
        } else {
            open.push((inode, Arc::downgrade(&fresh)));
        }
        fresh
    }

    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }

    /// The error of everything that a failed flush has made uncertain.
    #[inline]
    pub(crate) fn error(&self) -> Option<Error> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            failure => Some(of_failure(failure)),
        }
    }

    /// A flush has failed; the first one stays on record. Returns the error to answer with.
    #[cold]
    pub(crate) fn set(&self, errno: Errno, device_status: u16) -> Error {
        let failure = (errno as i32).cast_unsigned() & 0xffff | u32::from(device_status) << 16;
        // Whoever comes second keeps what is there.
        let first = self.0.compare_exchange(0, failure, Ordering::Relaxed, Ordering::Relaxed);
        of_failure(first.map_or_else(|earlier| earlier, |_| failure))
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the half above is cut out")]
fn of_failure(failure: u32) -> Error {
    let errno = (failure & 0xffff).cast_signed();
    let error = Error::with_errno(ErrorKind::Poisoned, errno);
    error.with_device_status((failure >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INODE: Inode = Inode { device: u64::MAX, number: 7, special: 0 };

    #[test]
    fn f37_first_failure_poisons_all_handles_and_a_new_open_starts_afresh() {
        let (first, second) = (Poison::of(Some(INODE)), Poison::of(Some(INODE)));
        assert!(first.error().is_none());
        let error = second.set(Errno::EIO, 0x4286);
        assert_eq!(first.error(), Some(error));
        assert_eq!((error.errno(), error.device_status()), (Some(libc::EIO), Some(0x4286)));
        assert_eq!(first.set(Errno::ENOSPC, 0), error, "the first failure stays on record");
        let third = Poison::of(Some(INODE));
        assert!(!third.is_set() && first.is_set() && second.is_set());
        assert!(Arc::ptr_eq(&third, &Poison::of(Some(INODE))));
    }

    #[test]
    fn unknown_and_other_inodes_share_nothing() {
        let (one, other) = (Poison::of(None), Poison::of(None));
        one.set(Errno::EIO, 0);
        assert!(!other.is_set());
        let elsewhere = Inode { number: 8, ..INODE };
        let (here, there) =
            (Poison::of(Some(elsewhere)), Poison::of(Some(Inode { number: 9, ..INODE })));
        here.set(Errno::EIO, 0);
        assert!(!there.is_set());
    }
}
