//! The traits of file systems: a [`Fs`] gives directories, directories give files.
//!
//! Data flow: name, relative to a [`DirHandle`] → [`FileHandle`] → packets at byte offsets.
//!
//! Names are bytes. Where a system's names are not, they are its UTF-8 (on Windows), and other
//! bytes are refused as `InvalidName`. Components are separated by `/`.
//!
//! The traits ask for no allocation: a file takes packets, and a future holds what it needs.
//! They are not object-safe, because their methods are `async`; the packets of a file are
//! (`&dyn PacketIo<Read>`). Futures are `Send` where the implementation's are, so code that
//! spawns on threads names the implementation or stays on one thread.
//!
//! Not here: operations made of several others (`tree`), sockets (`net`).

use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll};

use mfio_core::{IoBackend, PacketIo, Read, Write};

use crate::error::Error;
use crate::metadata::{DirEntry, Metadata, Times};
use crate::options::{Allocate, Follow, LockKind, OpenOptions, SyncLevel};

/// A file system: where the first directory comes from.
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait Fs: IoBackend {
    /// Its directories.
    type Dir: DirHandle<File = Self::File>;
    /// Its files.
    type File: FileHandle;

    /// The directory that relative paths start from. Fixed when the file system was made: it
    /// does not follow the process when that changes its own.
    fn current_dir(&self) -> &Self::Dir;

    /// Opens a file, as [`DirHandle::open_file`] of the current directory.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Cancel safety
    /// As there.
    async fn open(
        &self,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<Self::File, Error> {
        self.current_dir().open_file(path, options).await
    }
}

/// An open directory. Every operation is relative to it, and stays so when it is renamed; an
/// absolute path starts at the root of the file system.
///
/// A future that is dropped before it was started does nothing; after that the operation
/// happens, whole, and nobody learns how it ended. What it would have opened is closed.
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait DirHandle: IoBackend + Sized {
    /// Its files.
    type File: FileHandle;
    /// Its listings.
    type Entries: Entries;

    /// Opens a file, following symbolic links unless told not to.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists` (`create_new`), `IsADirectory`, `NotADirectory` (on the
    /// way), `InvalidInput` ([`OpenOptions::check`]), `Unsupported` where an option cannot be
    /// honoured here, and what a walk along a path can meet: `LinkLoop`, `NameTooLong`,
    /// `InvalidName`, `PermissionDenied`, `Escapes`.
    ///
    /// # Cancel safety
    /// The file may have been created or emptied; it is not open.
    async fn open_file(
        &self,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<Self::File, Error>;

    /// Opens a directory; `.` is this one once more.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, and those of the walk.
    ///
    /// # Cancel safety
    /// It is not open.
    async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<Self, Error>;

    /// This directory once more, out of which no path leads: neither `..`, nor an absolute
    /// path, nor a symbolic link, whatever others rename meanwhile. Directories opened from it
    /// are confined each to itself. For paths that somebody else chose.
    ///
    /// # Errors
    /// `Unsupported` where the system has no means of promising this.
    ///
    /// # Cancel safety
    /// It is not open.
    async fn confined(&self) -> Result<Self, Error>;

    /// Lists the names in this directory, in no order. What is there all the time is listed
    /// once; what comes or goes meanwhile may be.
    ///
    /// # Errors
    /// Those of opening the listing.
    ///
    /// # Cancel safety
    /// Nothing is open.
    async fn read_dir(&self) -> Result<Self::Entries, Error>;

    /// Makes a directory with the permission bits `mode`, before the umask.
    ///
    /// # Errors
    /// `AlreadyExists`, even for a dangling symbolic link; `NotFound` for what is to hold it;
    /// those of the walk.
    ///
    /// # Cancel safety
    /// Made or not.
    async fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error>;

    /// Removes a name that is no directory. An open file lives on in its handles.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, those of the walk.
    ///
    /// # Cancel safety
    /// Removed or not.
    async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NotFound`, `NotADirectory`, `NotEmpty`, `Busy` for a root, `InvalidInput` for `.`.
    ///
    /// # Cancel safety
    /// Removed or not.
    async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error>;

    /// Moves a name to `to_path` of `to`, in one step that others see before or after. What
    /// was there is replaced: a file by no directory, a directory only by another and if empty.
    /// Two names of one file stay as they are.
    ///
    /// # Errors
    /// `NotFound`, `IsADirectory`, `NotADirectory`, `NotEmpty`; `InvalidInput` for a directory
    /// into itself; `Busy` for `.` and `..`; `Escapes` to another file system.
    ///
    /// # Cancel safety
    /// Moved or not.
    async fn rename(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error>;

    /// Gives a file a second name, `to_path` of `to`. A symbolic link is not followed.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists`, `PermissionDenied` for a directory, `TooManyLinks`,
    /// `Escapes` to another file system.
    ///
    /// # Cancel safety
    /// Named or not.
    async fn hard_link(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error>;

    /// Makes `path` a symbolic link to `target`, which need not exist.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for what is to hold it, or an empty target; those of the
    /// walk; `Unsupported` where there are no such links.
    ///
    /// # Cancel safety
    /// Made or not.
    async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<(), Error>;

    /// Where a symbolic link points to, byte for byte.
    ///
    /// # Errors
    /// `InvalidInput` where it is no symbolic link, `NotFound`, those of the walk.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error>;

    /// Facts about what stands behind `path`; `.` is this directory.
    ///
    /// # Errors
    /// `NotFound`, those of the walk.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    async fn metadata(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Metadata, Error>;

    /// Sets the permission bits of what stands behind `path`, following links. A system with
    /// nothing but "read-only" sets that where no write bit is in `mode`.
    ///
    /// # Errors
    /// `NotFound`, `PermissionDenied`, those of the walk.
    ///
    /// # Cancel safety
    /// Set or not.
    async fn set_permissions(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error>;

    /// Sets times of what stands behind `path`.
    ///
    /// # Errors
    /// `InvalidInput` as [`Times::check`] says; `NotFound`, `PermissionDenied`, those of the
    /// walk; `Unsupported` for links where the system cannot.
    ///
    /// # Cancel safety
    /// Set or not.
    async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        times: Times,
        follow: Follow,
    ) -> Result<(), Error>;

    /// Returns when the names in this directory, as they are now, would survive power loss. A
    /// new file is durable when it is synced *and* the directory that names it.
    ///
    /// # Errors
    /// The system's; `Unsupported` where it cannot be asked.
    ///
    /// # Cancel safety
    /// Says nothing.
    async fn sync(&self) -> Result<(), Error>;
}

/// A listing of a directory.
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait Entries {
    /// The next name; `Ready(None)` when all have been listed; else `cx` is woken.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<DirEntry, Error>>>;

    /// As `poll_next`, awaited. After an error the listing has ended.
    ///
    /// # Cancel safety
    /// No name is lost: the next call has it.
    async fn next(&mut self) -> Option<Result<DirEntry, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// All the names that are left.
    ///
    /// # Errors
    /// The first.
    ///
    /// # Cancel safety
    /// Names that were fetched are lost.
    async fn collect(&mut self) -> Result<Vec<DirEntry>, Error> {
        let mut found = Vec::new();
        while let Some(entry) = self.next().await {
            found.push(entry?);
        }
        Ok(found)
    }
}

/// An open file: packets at byte offsets, and what else can be done with it.
///
/// Reading behind the end fails those bytes as
/// [`UnexpectedEof`](mfio_core::ErrorKind::UnexpectedEof); writing there makes the file longer,
/// with zeros between. An empty packet succeeds. A handle that was not opened for a direction
/// fails its packets with `EBADF`. Dropping the handle closes the file when the packets under
/// way are done with it.
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait FileHandle: PacketIo<Read, u64> + PacketIo<Write, u64> + IoBackend {
    /// Facts about the file.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    async fn metadata(&self) -> Result<Metadata, Error>;

    /// Returns when every write completed before would survive power loss. The file's name is
    /// another matter: [`DirHandle::sync`].
    ///
    /// # Errors
    /// The system's; after one the bytes' fate is unknown, and asking again proves nothing.
    ///
    /// # Cancel safety
    /// Says nothing.
    async fn sync(&self, level: SyncLevel) -> Result<(), Error>;

    /// Makes the file `len` bytes long: cut, or grown by zeros that take no space.
    ///
    /// # Errors
    /// `InvalidInput` where it was not opened for writing, `FileTooLarge`, `NoSpace`.
    ///
    /// # Cancel safety
    /// Done or not.
    async fn set_len(&self, len: u64) -> Result<(), Error>;

    /// Sets space aside for `len` bytes at `at`, or gives it back.
    ///
    /// # Errors
    /// `BadHandle` where it was not opened for writing, `InvalidInput` for an empty range,
    /// `FileTooLarge`, `NoSpace`, `Unsupported`.
    ///
    /// # Cancel safety
    /// Done or not, or in part.
    async fn allocate(&self, at: u64, len: u64, how: Allocate) -> Result<(), Error>;

    /// Sets the permission bits.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Cancel safety
    /// Set or not.
    async fn set_permissions(&self, mode: u32) -> Result<(), Error>;

    /// Sets times.
    ///
    /// # Errors
    /// `InvalidInput` as [`Times::check`] says; the system's.
    ///
    /// # Cancel safety
    /// Set or not.
    async fn set_times(&self, times: Times) -> Result<(), Error>;

    /// Locks the file, for those who ask: nobody is kept from reading or writing. The lock is
    /// this handle's, until it unlocks or is closed; another kind replaces it. For that the old
    /// one is given up first, as by Linux: a change that is refused leaves no lock.
    ///
    /// # Errors
    /// `Locked` where another handle's lock stands against it.
    ///
    /// # Cancel safety
    /// Locked or not: unlock.
    async fn try_lock(&self, kind: LockKind) -> Result<(), Error>;

    /// As [`FileHandle::try_lock`], but waits, holding none meanwhile. Waiting keeps nothing
    /// else of the backend waiting.
    ///
    /// # Errors
    /// The system's; `TooManyOpen` where as many wait as may.
    ///
    /// # Cancel safety
    /// Not locked, or not for longer than it takes to undo it. What the handle locks afterwards
    /// is not undone.
    async fn lock(&self, kind: LockKind) -> Result<(), Error>;

    /// Gives the lock back, if there is one.
    ///
    /// # Errors
    /// The system's.
    ///
    /// # Cancel safety
    /// Unlocked or not.
    async fn unlock(&self) -> Result<(), Error>;
}
