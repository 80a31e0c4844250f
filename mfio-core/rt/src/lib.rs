//! Files, directories and sockets, whatever they are made of.
//!
//! ```
//! use mfio_core::{IoRead, IoWrite, block_on};
//! use mfio_rt::{DirHandle, DirHandleExt, Entries, Fs, OpenOptions, virt::VirtFs};
//!
//! /// Works on every file system: in memory, on disk, across a network.
//! async fn note(fs: &impl Fs, text: &'static [u8]) -> Result<Vec<String>, mfio_rt::Error> {
//!     let dir = fs.current_dir();
//!     dir.create_dir_all("notes/today", 0o755).await?;
//!     let notes = dir.open_dir("notes/today").await?;
//!     let options = OpenOptions::new().read(true).write(true).create(true);
//!     let file = notes.open_file("first", &options).await?;
//!     let (written, _) = file.write_exact(0, text).await;
//!     written.map_err(|error| mfio_rt::Error::of_bytes(mfio_rt::Op::Write, error))?;
//!     notes.rename("first", dir, "moved").await?;
//!     let names = dir.read_dir().await?.collect().await?;
//!     Ok(names.iter().map(|entry| entry.name_lossy()).collect())
//! }
//!
//! let fs = VirtFs::new();
//! let names = block_on(&fs, note(&fs, b"buy milk")).unwrap().unwrap();
//! assert_eq!(names, ["moved", "notes"]);
//! ```
//!
//! | module | turns what into what |
//! |---|---|
//! | [`fs`] | names into directories and files, files into targets of packets |
//! | [`net`] | addresses into connections, which are targets of packets |
//! | [`tree`] | one call into many on a whole path, tree or file |
//! | [`virt`] | memory into a file system, without `std` |
//! | `portable` (feature `std`) | any operating system into both, by a few threads and a poller |
//! | `conformance` (feature `conformance`) | an implementation into tests of it |
//!
//! The traits are made so that an implementation on a ring of the kernel needs no allocation
//! per packet and no thread: names are relative to handles, files take packets of
//! [`mfio_core`], and nothing waits but a future.
//!
//! `no_std` with `alloc`; the feature `std` (default) adds `portable`. No unsafe code.
//!
//! Not here: what a ring makes of the traits (the engine crate), a file system across a network.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
pub mod fs;
mod lock;
mod metadata;
pub mod net;
mod options;
#[cfg(feature = "std")]
pub mod portable;
pub mod tree;
pub mod virt;

pub use error::{Error, ErrorKind, Op};
pub use fs::{DirHandle, Entries, FileHandle, Fs};
pub use metadata::{DirEntry, FileKind, Metadata, Times, Timestamp};
pub use net::{ListenOptions, ListenerHandle, Shutdown, StreamHandle, Tcp, Whole};
pub use options::{Allocate, Follow, LockKind, OpenOptions, SyncLevel};
pub use tree::DirHandleExt;
