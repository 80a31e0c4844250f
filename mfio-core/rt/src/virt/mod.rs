//! The in-memory file system: POSIX names, links, times and sparse files, without an operating
//! system.
//!
//! Data flow: path → `walk` → `names` → `inode`; packet → `file` → `sparse` pages.
//! Everything is done inside the call, and packets complete inside `send_io`, with no lock
//! held: a caller may block on it, or await it in any executor, and need not drive anything.
//!
//! It behaves as Linux does for the superuser: mode bits are stored and not enforced, the order
//! of refusals is the same. Times come from a counter, or from a clock that is given; reading
//! leaves no trace in them.
//!
//! Not here: durability. A sync succeeds, and everything is gone with the last handle.

use alloc::sync::Arc;
use core::fmt;

use mfio_core::{BackendBusy, BackendHandle, IoBackend};

use crate::fs::Fs;
use crate::metadata::Timestamp;

mod dir;
mod file;
mod flock;
mod inode;
mod names;
mod sparse;
mod walk;

pub use dir::{VirtDir, VirtEntries};
pub use file::VirtFile;

use inode::Volume;
use sparse::{PAGE_BYTES, Usage};

/// The longest file, in bytes: what ext4 allows with pages of 4 KiB.
pub const FILE_BYTES_MAX: u64 = (1 << 44) - (1 << 12);

/// Limits and conventions of a new file system.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct VirtConfig {
    /// Bytes that all files together may take, counted in pages of 4 KiB; holes take none. A
    /// symbolic link whose target is longer than 60 bytes takes a page.
    pub capacity_bytes: u64,
    /// How many files, directories and links there may be; every name of a file with several
    /// counts. Names, of 255 bytes at most, take nothing of the capacity.
    pub nodes_max: u64,
    /// Mode bits that new files and directories do not get.
    pub umask: u32,
    /// What time it is; `None` counts one nanosecond for each change.
    pub clock: Option<fn() -> Timestamp>,
}

impl Default for VirtConfig {
    /// 1 GiB in at most 1,048,576 files, umask 0o022, no clock.
    fn default() -> Self {
        Self { capacity_bytes: 1 << 30, nodes_max: 1 << 20, umask: 0o022, clock: None }
    }
}

/// A file system in memory; clones share it. See the [module](self).
///
/// ```
/// use mfio_core::{IoRead, IoWrite, block_on};
/// use mfio_rt::{DirHandle, Follow, Fs, OpenOptions, virt::VirtFs};
/// let fs = VirtFs::new();
/// block_on(&fs, async {
///     let options = OpenOptions::new().read(true).write(true).create(true);
///     let file = fs.open("greeting", &options).await?;
///     assert_eq!(file.write_value(0, *b"hello").await, Ok(()));
///     fs.current_dir().remove_file("greeting").await?;
///     // Unlinked, and alive while it is open.
///     assert_eq!(file.read_value::<[u8; 5]>(0).await, Ok(*b"hello"));
///     assert!(fs.current_dir().metadata("greeting", Follow::Yes).await.is_err());
///     Ok::<_, mfio_rt::Error>(())
/// }).unwrap().unwrap();
/// ```
#[derive(Clone)]
pub struct VirtFs {
    root: VirtDir,
}

impl VirtFs {
    /// An empty one, with the usual limits.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(&VirtConfig::default())
    }

    /// An empty one.
    #[must_use]
    pub fn with_config(config: &VirtConfig) -> Self {
        let usage = Usage {
            pages: 0,
            pages_max: config.capacity_bytes / PAGE_BYTES as u64,
            nodes: 0,
            nodes_max: config.nodes_max.max(1),
        };
        let volume = Volume::new(usage, config.clock, config.umask & 0o777);
        Self { root: VirtDir::root(Arc::new(volume)) }
    }

    /// Bytes that all files and long targets of symbolic links take together, those included
    /// that only handles keep alive.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.root.usage(|usage| usage.pages * PAGE_BYTES as u64)
    }

    /// How many files, directories and links there are, the root, second names and those
    /// included that only handles keep alive.
    #[must_use]
    pub fn nodes(&self) -> u64 {
        self.root.usage(|usage| usage.nodes)
    }
}

impl Default for VirtFs {
    fn default() -> Self {
        Self::new()
    }
}

impl Fs for VirtFs {
    type Dir = VirtDir;
    type File = VirtFile;

    fn current_dir(&self) -> &VirtDir {
        &self.root
    }
}

/// Completed where they are sent, packets need nobody to drive.
macro_rules! inline_backend {
    ($($name:ident)*) => {
        $(impl IoBackend for $name {
            fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
                Ok(None)
            }
        })*
    };
}

inline_backend! { VirtFs VirtDir VirtFile }

impl fmt::Debug for VirtFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtFs")
            .field("nodes", &self.nodes())
            .field("used_bytes", &self.used_bytes())
            .finish()
    }
}
