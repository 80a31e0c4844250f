//! What Linux is asked here, for whoever asks it the same by other means.
//!
//! Data flow: directory handle → descriptor; options → flags; path → which part of it is opened
//! first. What a ring of the kernel does with names so is what threads do, to the flag.
//!
//! Not here: asking (`sys`).

use alloc::sync::Arc;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{FileType, OFlags};

use super::{Portable, PortableDir, errno, sys};
use crate::error::{Error, Op};
use crate::metadata::FileKind;
use crate::options::OpenOptions;

/// The flags of `open(2)` for a directory handle, `O_CLOEXEC` among them.
pub const DIRECTORY_FLAGS: i32 = bits(sys::DIRECTORY);

/// `RESOLVE_*` of `openat2(2)` for paths that must not lead out of the directory.
pub const RESOLVE_BENEATH: u64 = sys::BENEATH.bits();

/// How often the kernel is asked again where it says `EAGAIN` to such a path, because something
/// was renamed while it walked.
pub const WALKS_MAX: usize = sys::WALKS_MAX;

const fn bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// The flags of `open(2)` for a file, `O_CLOEXEC` and `O_NONBLOCK` among them: no pipe keeps
/// anybody waiting for its other end.
///
/// # Errors
/// Those of options that contradict each other.
pub fn open_flags(options: &OpenOptions) -> Result<i32, Error> {
    options.check()?;
    sys::flags_of(options).map(bits).map_err(|error| errno::of(Op::Open, &error))
}

/// The flags of `open(2)` for what is only looked at (`O_PATH`), followed or not.
#[must_use]
pub fn path_flags(follow: bool) -> i32 {
    bits(if follow { sys::path_only() } else { sys::path_only() | OFlags::NOFOLLOW })
}

/// Where the last component of `path` is looked for by a call that does not follow it: in the
/// directory that the first part leads to, which is opened [beneath](RESOLVE_BENEATH) first, or,
/// without one, where the path begins. What is left of the path comes second.
///
/// # Errors
/// `ENOENT` and `EXDEV` of a `confined` directory, where the path is empty or nothing but slashes.
pub fn place_of(path: &[u8], confined: bool) -> io::Result<(Option<&[u8]>, &[u8])> {
    sys::place_of(path, confined)
}

/// What stands behind a name, by its `st_mode` (`inode(7)`).
#[must_use]
pub fn kind_of_mode(st_mode: u32) -> FileKind {
    sys::kind_of(FileType::from_raw_mode(st_mode))
}

impl PortableDir {
    /// The descriptor, which stays open as long as somebody has it.
    #[must_use]
    pub fn descriptor(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.dir.fd)
    }

    /// Whether no path leads out of it.
    #[must_use]
    pub fn is_confined(&self) -> bool {
        self.dir.confined
    }
}

impl Portable {
    /// A directory that was opened elsewhere, with [`DIRECTORY_FLAGS`], to be used here. Where it
    /// is `confined`, no path leads out of it.
    #[must_use]
    pub fn adopt_dir(&self, directory: OwnedFd, confined: bool) -> PortableDir {
        PortableDir::new(self.pool.clone(), sys::Dir { fd: Arc::new(directory), confined })
    }
}
