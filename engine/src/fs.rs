//! A file system on a shard: the traits of [`mfio_rt`], whose files are the shard's.
//!
//! Data flow: name, relative to a [`ShardDir`] → opened → [`ShardFile`] → packets at byte
//! offsets, which go down the shard's ring like those of any [`File`](crate::File).
//!
//! What goes where:
//!
//! - Reads, and writes of handles that do not append: ops of the ring, or a plain call for one
//!   that is alone ([`Bypass`](crate::Bypass)).
//! - `sync`, `set_len`, and `allocate` with `Extend` or `PunchHole`: ops of the ring. Before
//!   Linux 6.9, `set_len` is a call on the shard's thread.
//! - Opening, directories, links, renames, removals, metadata, permissions, times, locks, and
//!   `allocate` with `KeepSize`: calls of a few threads.
//! - Writes of handles that append: calls of a thread, in order.
//!
//! Of the ops on names that io_uring has, all but an open whose path is cached are handed to a
//! worker thread of the kernel, so that the ring would gain little but the power to open files,
//! which a data ring is [denied](crate::ring::kernel) for safety's sake.
//!
//! ```
//! use mfio_core::{IoRead, IoWrite, block_on};
//! use mfio_engine::fs::ShardFs;
//! use mfio_engine::{Config, Shard, ring::threads::ThreadRing};
//! use mfio_rt::{FileHandle, Fs, OpenOptions, SyncLevel};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! // `KernelRing` where io_uring is allowed; the same code runs on threads.
//! let shard = Shard::with_ring(ThreadRing::new(2, 64)?, &Config::new())?;
//! let fs = ShardFs::at(&shard, dir.path())?;
//! let bytes = block_on(&fs, async {
//!     let options = OpenOptions::new().read(true).write(true).create(true);
//!     let file = fs.open("note", &options).await?;
//!     let (written, _) = file.write_exact(0, &b"buy milk"[..]).await;
//!     written.map_err(|error| mfio_rt::Error::of_bytes(mfio_rt::Op::Write, error))?;
//!     file.sync(SyncLevel::Data).await?;
//!     Ok::<_, mfio_rt::Error>(file.read_exact(0, vec![0; 8]).await.1)
//! })?;
//! assert_eq!(bytes?, b"buy milk");
//! # Ok(())
//! # }
//! ```
//!
//! Files opened here take no part in the engine's locks between buffered and direct handles
//! (F45): of a file that is open both ways, the kernel keeps the two views together as
//! `open(2)` says.
//!
//! Not here: the traits and what they promise ([`mfio_rt::fs`]), sockets
//! ([`net`](crate::net)), block devices with a geometry ([`Shard::open`]).

use std::fmt;
use std::path::Path;

use mfio_core::backend::PollingHandle;
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_rt::portable::Portable;
use mfio_rt::{Error, Fs};

use crate::ring::{AutoRing, Ring};
use crate::shard::Shard;

mod dir;
mod file;
mod names;

pub use dir::ShardDir;
pub use file::ShardFile;

/// A file system on a shard; see the [module](self).
///
/// Like the shard's own handles it stays on the shard's thread. Whatever drives the shard
/// drives it: [`block_on`](mfio_core::block_on), a task of the shard, a host.
pub struct ShardFs<R: Ring = AutoRing> {
    current_dir: ShardDir<R>,
}

impl<R: Ring> ShardFs<R> {
    /// A file system in the directory that the process is in now.
    ///
    /// Blocks: the directory is opened on the spot.
    ///
    /// # Errors
    /// Those of opening the directory, and of starting a thread.
    pub fn new(shard: &Shard<R>) -> Result<Self, Error> {
        Self::at(shard, Path::new("."))
    }

    /// A file system in `current_dir`.
    ///
    /// Blocks: the directory is opened on the spot.
    ///
    /// # Errors
    /// As [`ShardFs::new`].
    pub fn at(shard: &Shard<R>, current_dir: &Path) -> Result<Self, Error> {
        Ok(Self::with_threads(shard, &Portable::at(current_dir)?))
    }

    /// A file system on the threads of `threads`, in its directory: several shards may share
    /// them.
    #[must_use]
    pub fn with_threads(shard: &Shard<R>, threads: &Portable) -> Self {
        let names = threads.current_dir().clone();
        Self { current_dir: ShardDir::new(shard.clone(), threads.clone(), names) }
    }

    /// The shard whose ring moves the bytes.
    #[must_use]
    pub fn shard(&self) -> &Shard<R> {
        self.current_dir.shard()
    }
}

impl<R: Ring> Fs for ShardFs<R> {
    type Dir = ShardDir<R>;
    type File = ShardFile<R>;

    fn current_dir(&self) -> &ShardDir<R> {
        &self.current_dir
    }
}

impl<R: Ring> IoBackend for ShardFs<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.shard().polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.shard().get_backend()
    }
}

impl<R: Ring> fmt::Debug for ShardFs<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardFs").finish_non_exhaustive()
    }
}
