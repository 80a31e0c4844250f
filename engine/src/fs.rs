//! A file system on a shard: the traits of [`mfio_rt`], whose files are the shard's.
//!
//! Data flow: name, relative to a [`ShardDir`] → opened → [`ShardFile`] → packets at byte
//! offsets, which go down the shard's ring like those of any [`File`](crate::File).
//!
//! What goes where on io_uring:
//!
//! - Reads, and writes of handles that do not append: ops of the ring, or a plain call for one
//!   that is alone ([`Bypass`](crate::Bypass)).
//! - `sync` of files, `set_len`, and `allocate` with `Extend` or `PunchHole`: ops of the ring.
//!   Before Linux 6.9, `set_len` is a call on the shard's thread.
//! - Names: ops of another ring of the shard, of the kinds that the kernel has. `open_file`,
//!   `open_dir`, `confined`, `metadata`, and `sync` of directories: since Linux 5.6.
//!   `remove_file`, `remove_dir`, `rename`: 5.11. `create_dir`, `symlink`, `hard_link`: 5.15.
//! - `read_dir`, `read_link`, permissions, times, locks, and `allocate` with `KeepSize`: calls of
//!   a few threads, because there are no such ops, or none with such flags.
//! - Writes of handles that append: calls of a thread, in order.
//! - Closing: a call on the shard's thread.
//!
//! What is missing goes by threads: an op that the kernel does not have, or all of them where
//! there is no io_uring, or no second ring to be had.
//!
//! The ring for names is made with the first op on a name, on the same thread, and is allowed
//! nothing else: the ring that moves bytes stays [denied](crate::ring::kernel) what could open a
//! file. It owns paths and answers until the kernel is through with them. 32 ops are under way at
//! a time, others wait in order: all but an open whose path is cached are handed to a worker
//! thread of the kernel, and a flush is not to stand behind a thousand of them. A future that is
//! dropped leaves nothing open; its op may be done all the same where it was under way. When the
//! shard is shut down, threads do what the ring has not done.
//!
//! In a directory that is [confined](mfio_rt::DirHandle::confined), an open says `RESOLVE_BENEATH`
//! by itself. Removing, renaming, linking and making have no such flag: the way to the name is
//! opened first (`O_PATH`), as threads do it, and the rest is one name.
//!
//! Files have plain descriptors, which are registered with the ring that moves their bytes,
//! rather than direct ones: I/O costs the same by either, and bypass, locks, threads, and
//! another shard's ring could use no file that is in one ring's table alone.
//!
//! Processor time by threads, divided by that by the ring, on a busy machine of two cores (Linux
//! 6.18, ext4): 1.6 for opening and closing what is cached, 1.7 with 16 at a time; 0.9 for facts,
//! 2.3 with 16; 0.9 for a rename, 1.0 with 16. What goes to a worker of the kernel anyway gains
//! by company alone. (`taskset -c 0 cargo run --profile test -p mfio-engine --example names`)
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
