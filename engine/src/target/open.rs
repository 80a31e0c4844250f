//! Turns a path into a locked descriptor and its geometry, or into a reason why not.
//!
//! Data flow: path and [`OpenOptions`] → `open(2)` → `flock(2)` → [`Geometry`] → [`Opened`].
//! The lock is taken before anything of the contents is read: a killed predecessor's writes
//! may still be landing while its lock is held (F46).
//!
//! Not here: what the first read after an open must wait for, fixed files (`shard`).

use core::fmt;
use std::fs::{File, TryLockError};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

use super::durability::SyncMethod;
use super::geometry::{Geometry, errno_of};
use crate::sys;

/// How long an open waits for another process's lock, in milliseconds.
pub const LOCK_WAIT_MS_MAX: u64 = 2_000;

/// How long it pauses between two attempts.
const LOCK_PAUSE: Duration = Duration::from_millis(5);

/// Whether transfers bypass the page cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DirectMode {
    /// Through the page cache.
    #[default]
    Buffered,
    /// Past it (`O_DIRECT`), or not at all.
    Direct,
    /// Past it where the file system can, else through it; [`Opened::fell_back`] says which.
    PreferDirect,
}

/// How a target is to be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// For reading.
    pub read: bool,
    /// For writing. Block devices refuse it.
    pub write: bool,
    /// Make the file if there is none; needs `write`.
    pub create: bool,
    /// Permission bits of a file that is made, before the umask.
    pub mode: u32,
    /// Past the page cache or through it.
    pub direct: DirectMode,
    /// Lock it against other openers, as `flock(2)` does: shared for reading, exclusive for
    /// writing. Waits up to [`LOCK_WAIT_MS_MAX`].
    pub lock: bool,
    /// How durable writes become durable; measured at the first of them where it is `None`.
    /// [`SyncMethod::Dsync`] needs direct I/O.
    pub sync_method: Option<SyncMethod>,
}

impl OpenOptions {
    /// An existing file, for reading, buffered, locked.
    #[must_use]
    pub const fn new() -> Self {
        let direct = DirectMode::Buffered;
        Self {
            read: true,
            write: false,
            create: false,
            mode: 0o644,
            direct,
            lock: true,
            sync_method: None,
        }
    }

    /// Sets whether it is opened for reading.
    #[must_use]
    pub const fn read(self, read: bool) -> Self {
        Self { read, ..self }
    }

    /// Sets whether it is opened for writing.
    #[must_use]
    pub const fn write(self, write: bool) -> Self {
        Self { write, ..self }
    }

    /// Sets whether a missing file is made.
    #[must_use]
    pub const fn create(self, create: bool) -> Self {
        Self { create, ..self }
    }

    /// Sets the permission bits of a file that is made.
    #[must_use]
    pub const fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    /// Sets whether transfers bypass the page cache.
    #[must_use]
    pub const fn direct(self, direct: DirectMode) -> Self {
        Self { direct, ..self }
    }

    /// Sets how durable writes become durable.
    #[must_use]
    pub const fn sync_method(self, sync_method: Option<SyncMethod>) -> Self {
        Self { sync_method, ..self }
    }

    /// Sets whether it is locked against other openers.
    #[must_use]
    pub const fn lock(self, lock: bool) -> Self {
        Self { lock, ..self }
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// An open target.
#[derive(Debug)]
pub struct Opened {
    /// The descriptor; it is closed on exec, and holds the lock.
    pub file: File,
    /// What transfers on it must respect.
    pub geometry: Geometry,
    /// Direct I/O was preferred, and the file system has none.
    pub fell_back: bool,
}

/// Why a target was not opened. Nothing of its contents was read or changed; with
/// [`OpenOptions::create`], an empty file may have been made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Neither reading nor writing was asked for, a file is to be made without writing, or
    /// `RWF_DSYNC` is to be used through the page cache.
    Options {
        /// The target.
        path: PathBuf,
    },
    /// A directory has no bytes to transfer.
    Directory {
        /// The target.
        path: PathBuf,
    },
    /// A pipe, a socket or a character device has no positions (F18).
    NoPositions {
        /// The target.
        path: PathBuf,
    },
    /// Writing to a block device destroys what is on it, and nothing here can tell yet whether
    /// that is in use.
    BlockDeviceWrite {
        /// The target.
        path: PathBuf,
    },
    /// The file system has no direct I/O (`EINVAL` from `open(2)` with `O_DIRECT`).
    NoDirect {
        /// The target.
        path: PathBuf,
    },
    /// Another process has it open, for all of the time that was waited.
    Locked {
        /// The target.
        path: PathBuf,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A system call failed.
    Os {
        /// The target.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

impl OpenError {
    /// The target that was not opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Options { path }
            | Self::Directory { path }
            | Self::NoPositions { path }
            | Self::BlockDeviceWrite { path }
            | Self::NoDirect { path }
            | Self::Locked { path, .. }
            | Self::Os { path, .. } => path,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open {}: ", self.path().display())?;
        match self {
            Self::Options { .. } => f.write_str(
                "ask for reading or writing; making it needs writing, and RWF_DSYNC needs \
                     direct I/O",
            ),
            Self::Directory { .. } => f.write_str("it is a directory; name a file in it (EISDIR)"),
            Self::NoPositions { .. } => {
                f.write_str("it is neither a regular file nor a block device (ESPIPE)")
            }
            Self::BlockDeviceWrite { .. } => f.write_str(
                "it is a block device, and writing to one would destroy what is on it: a guard \
                 that makes sure it is not in use does not exist yet; open it for reading only, \
                 or write to a file",
            ),
            Self::NoDirect { .. } => f.write_str(
                "its file system has no direct I/O (EINVAL); ask for PreferDirect or Buffered",
            ),
            Self::Locked { waited_ms, .. } => write!(
                f,
                "another process has it locked, and still had after {waited_ms} ms; stop that \
                 process (lslocks shows it), or open without a lock"
            ),
            Self::Os { call, errno, .. } => write!(f, "{call}: {errno}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Opens `path`, locks it, and reads its geometry. Blocks for up to [`LOCK_WAIT_MS_MAX`] while
/// another process holds the lock, so it is not for a shard's thread under load.
///
/// # Errors
/// - [`OpenError::Options`], [`OpenError::Directory`], [`OpenError::NoPositions`],
///   [`OpenError::BlockDeviceWrite`]: this is not something to open, or not like this.
/// - [`OpenError::NoDirect`]: only with [`DirectMode::Direct`].
/// - [`OpenError::Locked`]: in use elsewhere.
/// - [`OpenError::Os`]: `ENOENT`, `EACCES`, `EMFILE` (F36) and whatever else `open(2)` says.
pub fn open(path: &Path, options: &OpenOptions) -> Result<Opened, OpenError> {
    let make = || path.to_owned();
    if !options.write && (options.create || !options.read) {
        return Err(OpenError::Options { path: make() });
    }
    // Looked at before it is opened, because opening a pipe or a device can do something; and
    // again afterwards, because it may have become something else.
    if let Ok(metadata) = std::fs::metadata(path) {
        check_kind(path, &metadata, options)?;
    }
    let (file, fell_back) = open_descriptor(path, options)?;
    let os = |call, errno| OpenError::Os { path: make(), call, errno };
    let metadata = file.metadata().map_err(|error| os("fstat", errno_of(&error)))?;
    check_kind(path, &metadata, options)?;
    if options.lock {
        lock(path, &file, options.write)?;
    }
    let geometry = Geometry::of(&file).map_err(|errno| os("reading the geometry", errno))?;
    Ok(Opened { file, geometry, fell_back })
}

fn check_kind(
    path: &Path,
    metadata: &std::fs::Metadata,
    options: &OpenOptions,
) -> Result<(), OpenError> {
    let path = || path.to_owned();
    if metadata.is_dir() {
        return Err(OpenError::Directory { path: path() });
    }
    let is_block_device = metadata.file_type().is_block_device();
    if !metadata.is_file() && !is_block_device {
        return Err(OpenError::NoPositions { path: path() });
    }
    if is_block_device && options.write {
        return Err(OpenError::BlockDeviceWrite { path: path() });
    }
    Ok(())
}

/// The descriptor, and whether direct I/O was given up for it.
fn open_descriptor(path: &Path, options: &OpenOptions) -> Result<(File, bool), OpenError> {
    let open = |flags| {
        // std always adds O_CLOEXEC.
        let mut how = std::fs::OpenOptions::new();
        how.read(options.read).write(options.write).create(options.create);
        how.mode(options.mode).custom_flags(flags).open(path).map_err(|error| errno_of(&error))
    };
    let path = || path.to_owned();
    let os = |errno| OpenError::Os { path: path(), call: "open", errno };
    if options.direct == DirectMode::Buffered {
        return open(0).map(|file| (file, false)).map_err(os);
    }
    match open(libc::O_DIRECT) {
        Ok(file) => Ok((file, false)),
        Err(Errno::EINVAL) if options.direct == DirectMode::PreferDirect => {
            open(0).map(|file| (file, true)).map_err(os)
        }
        Err(Errno::EINVAL) => Err(OpenError::NoDirect { path: path() }),
        Err(errno) => Err(os(errno)),
    }
}

fn lock(path: &Path, file: &File, exclusive: bool) -> Result<(), OpenError> {
    let started_ns = sys::now_ns();
    loop {
        let attempt = if exclusive { file.try_lock() } else { file.try_lock_shared() };
        let waited_ms = (sys::now_ns() - started_ns) / 1_000_000;
        match attempt {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if waited_ms >= LOCK_WAIT_MS_MAX => {
                return Err(OpenError::Locked { path: path.to_owned(), waited_ms });
            }
            Err(TryLockError::WouldBlock) => sys::pause(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => {
                let errno = errno_of(&error);
                return Err(OpenError::Os { path: path.to_owned(), call: "flock", errno });
            }
        }
    }
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
