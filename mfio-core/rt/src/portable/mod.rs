//! Files and sockets on any operating system that has `std`: a few threads for what blocks, a
//! poller for what does not.
//!
//! Data flow: packet of a file, or operation on a name → bounded queue → thread → completed
//! from there. Packet of a connection → done at once, or when the poller says so.
//!
//! Nobody has to drive it: completions come from other threads and wake, so futures run in any
//! executor, and [`block_on`](mfio_core::block_on) sleeps. A thread that blocks on a connection
//! or a listener asks the poller itself, and is woken by what it waits for, without another
//! thread in between. A queue that is full makes its
//! callers wait; nothing queues without a bound.
//!
//! On Unix all operations on names are relative to open directories (`openat` and its kin). On
//! other systems directories are remembered by their absolute path.
//!
//! Not here: rings of the kernel, which do the same without threads (the engine crate).

use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::num::NonZeroUsize;
use std::net::ToSocketAddrs as _;
use std::path::Path;

use mfio_core::{BackendBusy, BackendHandle, IoBackend};

use crate::error::{Error, Op};
use crate::fs::Fs;
use crate::options::OpenOptions;

#[cfg(target_os = "linux")]
pub mod asked;
mod call;
mod dir;
mod errno;
mod file;
mod flock;
mod net;
mod pool;
#[cfg_attr(unix, path = "sys_unix.rs")]
#[cfg_attr(not(unix), path = "sys_other.rs")]
mod sys;

pub use dir::{PortableDir, PortableEntries};
pub use file::PortableFile;
pub use net::{PortableListener, PortableStream};

use net::Reactor;
use pool::Pool;

/// Limits of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortableConfig {
    /// Threads that do what blocks.
    pub threads: NonZeroUsize,
    /// Packets and operations that wait for a thread at most; more wait with their callers.
    pub queued_max: NonZeroUsize,
    /// Locks of files that are waited for at the same time. They share one thread, which is
    /// there while any are.
    pub lock_waits_max: usize,
}

impl Default for PortableConfig {
    /// 4 threads, 256 waiting, 4096 locks.
    fn default() -> Self {
        let number = |number| NonZeroUsize::new(number).unwrap_or(NonZeroUsize::MIN);
        Self { threads: number(4), queued_max: number(256), lock_waits_max: 4096 }
    }
}

/// A runtime on threads; clones share it. See the [module](self).
///
/// Dropping all handles ends the threads, after what was accepted has been done.
///
/// ```
/// use mfio_core::{IoRead, block_on};
/// use mfio_rt::{Fs, OpenOptions, portable::Portable};
/// let fs = Portable::new().unwrap();
/// let bytes = block_on(&fs, async {
///     let file = fs.open("Cargo.toml", &OpenOptions::new().read(true)).await?;
///     Ok::<_, mfio_rt::Error>(file.read_exact(0, vec![0; 9]).await.1)
/// });
/// assert_eq!(bytes.unwrap().unwrap(), b"[package]");
/// ```
#[derive(Clone)]
pub struct Portable {
    pool: Pool,
    /// What serves connections: no disk keeps it waiting.
    net: Reactor,
    current_dir: PortableDir,
}

impl Portable {
    /// A runtime in the directory that the process is in now, with the usual limits.
    ///
    /// # Errors
    /// Those of opening the directory, and of starting a thread.
    pub fn new() -> Result<Self, Error> {
        Self::at(Path::new("."))
    }

    /// A runtime in `current_dir`, with the usual limits.
    ///
    /// # Errors
    /// As [`Portable::new`].
    pub fn at(current_dir: &Path) -> Result<Self, Error> {
        Self::with_config(current_dir, &PortableConfig::default())
    }

    /// A runtime in `current_dir`.
    ///
    /// # Errors
    /// As [`Portable::new`].
    pub fn with_config(current_dir: &Path, config: &PortableConfig) -> Result<Self, Error> {
        let pool = Pool::start(config)?;
        let net = Reactor::start()?;
        let path = current_dir.as_os_str().as_encoded_bytes();
        let opened = sys::Dir::ambient(current_dir);
        let opened = opened.map_err(|error| errno::of(Op::OpenDir, &error).at(path))?;
        Ok(Self { current_dir: PortableDir::new(pool.clone(), opened), net, pool })
    }

    /// The addresses of a host, by whatever the system asks.
    ///
    /// # Errors
    /// The system's; `NotFound` where there are none.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let name = alloc::string::String::from(host);
        let found = self.pool.call(Op::Resolve, move || {
            (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        found.await?.map_err(|error| errno::of(Op::Resolve, &error).at(host))
    }

    /// A file that was opened elsewhere, to be used here: what `options` say of it is believed.
    #[must_use]
    pub fn adopt_file(&self, file: std::fs::File, options: &OpenOptions) -> PortableFile {
        PortableFile::new(self.pool.clone(), file, options)
    }

    /// Runs `task` beside the connections, by whatever thread serves them at the moment: what
    /// arrives for it then wakes that thread and no other. It must not block, for all
    /// connections wait meanwhile. A panic ends it, and nothing else.
    ///
    /// It lives until it is over: what it holds keeps the runtime's threads.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.net.spawn(task);
    }

    /// Packets and operations that wait for a thread at the moment.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.pool.queued()
    }
}

impl Fs for Portable {
    type Dir = PortableDir;
    type File = PortableFile;

    fn current_dir(&self) -> &PortableDir {
        &self.current_dir
    }
}

/// What the system answered to `op`, in our words; the errno is kept.
#[must_use]
pub fn error_of(op: Op, error: &std::io::Error) -> Error {
    errno::of(op, error)
}

/// Completions come from other threads; but those of connections from the thread that blocks on
/// one of these, where one does. Several may: the first of them serves all.
macro_rules! driven_here_or_elsewhere {
    ($($name:ident: $seat:expr,)*) => {
        $(impl IoBackend for $name {
            fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
                let seat: fn(&Self) -> Option<BackendHandle<'_>> = $seat;
                Ok(seat(self))
            }
        })*
    };
}

driven_here_or_elsewhere! {
    Portable: |this| this.net.seat(),
    PortableDir: |_| None,
    PortableFile: |_| None,
    PortableStream: |this| this.net().seat(),
    PortableListener: |this| this.net().seat(),
}

impl fmt::Debug for Portable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Portable").field("queued", &self.queued()).finish_non_exhaustive()
    }
}
