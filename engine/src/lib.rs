//! An io_uring storage engine for Linux: thread-per-core shards, registered buffers, and
//! durability that tells the truth.
//!
//! ```
//! use mfio_engine::{DirectMode, Durability, OpenOptions, Shard, block_on};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! // io_uring with 64 entries, or threads where it is forbidden; `Shard::features` says which.
//! let shard = Shard::new(64)?;
//! // Past the page cache where the file system can.
//! let options = OpenOptions::new().write(true).create(true).direct(DirectMode::PreferDirect);
//! let file = shard.open(&path, &options)?;
//!
//! let mut page = shard.arena().alloc(4096).ok_or("the arena is in use")?;
//! page.fill(7);
//! let (written, mut page) = block_on(&shard, file.write_all_at(8192, page))?;
//! written?;
//! block_on(&shard, file.sync(Durability::Data))??;
//!
//! page.fill(0);
//! let (read, page) = block_on(&shard, file.read_exact_at(8192, page))?;
//! read?;
//! assert!(page.iter().all(|&byte| byte == 7));
//! # Ok(())
//! # }
//! ```
//!
//! An [`Engine`] is several shards, each on a thread of its own that is bound to a core. Tasks
//! run on a shard, beside its I/O; everybody else has a [`RemoteFile`], which is `Send`, awaited
//! in any runtime, and blocked on by the same call:
//!
//! ```
//! use mfio_engine::{Engine, OpenOptions, Shards, block_on};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! let engine = Engine::builder().shards(Shards::Count(2)).queue_depth(64).build()?;
//! let remote = engine.remote();
//! let options = OpenOptions::new().write(true).create(true);
//! let file = block_on(&remote, remote.open(&path, &options))??;
//! block_on(&file, file.write_durable_at(0, vec![7; 4096]))?.0?;
//!
//! let sums = engine.run_on_each(move |_shard| {
//!     let file = file.clone();
//!     async move {
//!         let (read, bytes) = file.read_exact_at(0, vec![0; 4096]).await;
//!         read.map(|()| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>())
//!     }
//! })?;
//! assert_eq!(sums, [Ok(7 * 4096), Ok(7 * 4096)]);
//! assert!(engine.shutdown().is_clean());
//! # Ok(())
//! # }
//! ```
//!
//! [`block_on`] drives whatever it is given first: a shard, a file, a handle;
//! [`Shard::block_on`] is the same for a shard and its tasks. Errors of single transfers are
//! [`IoError`]s, which name the target and the range and come with the buffer; those of opening and
//! of the shard itself are [`EngineError`]s. Print them with `{}`: the text says what to do.
//!
//! `(F38)` and the like in these pages are numbers of `engine/tests/CATALOGUE.md`: the ways to lose
//! data, each with its tests.
//!
//! # Forking
//! A child of `fork(2)` that calls `exec` or `_exit` needs nothing of this. One that goes on has
//! copies of every handle, of which it may drop any, in whatever state: nothing of the parent's is
//! cancelled, waited for, shut down, unlocked or unmapped by that, and nothing at the addresses of
//! the parent's arenas and rings touched, where the child may have memory of its own by then. What
//! was under way is told to nobody in the child, and its memory leaks there. Anything else is not
//! for the child: no arena, buffer of one, ring, shard or file of the parent may be used. They are
//! not mapped there (F26), so a use faults, or goes to what the child has at that address since;
//! such is `fork`'s contract to keep, which is why it is unsafe. A child makes its own engine.
//!
//! A host that has a loop of its own (a current-thread Tokio runtime, `epoll(7)`) drives a shard
//! by the descriptor of [`Shard::poll_fd`].
//!
//! One direction: a packet is sent to a [`File`], cut by [`plan`], lives in a slot while the
//! [`ring`] executes it, is judged by [`complete`], and its views get their results.
#![cfg(target_os = "linux")]

mod answer;
pub mod buffer;
mod chain;
pub mod complete;
mod config;
pub mod doctor;
mod engine;
mod error;
pub mod fs;
#[cfg(all(test, mfio_loom))]
mod loom_tests;
mod metrics;
pub mod net;
pub mod nvme;
pub mod plan;
mod process;
mod remote;
pub mod ring;
mod route;
pub mod shard;
mod sync;
mod sys;
pub mod target;
pub mod wal;

pub use chain::STEPS_MAX;
pub use config::{ClassLimits, Config};
pub use engine::{Engine, EngineBuilder, Joinable, Shards, ShutdownReport};
pub use error::{EngineError, IoError};
pub use metrics::{
    Direction, Histogram, LATENCY_CLASSES, Metrics, MetricsReader, PuntCounter, Punts, punts,
};
/// Of `mfio-core`, so that a program that reads and writes needs this crate alone.
pub use mfio_core::block_on;
pub use remote::{Remote, RemoteFile, RemoteOpen};
pub use shard::{AsBackground, AsLog, Batch, Bounded, Class, Ended, Full, Outcome, Reaped, Sleep};
pub use shard::{Bypass, BypassMode, Durability, Durable, File, JoinHandle, Lone, Shard, SyncFut};
pub use shard::{Chain, ChainBuffers, ChainError, Commit, WriteAt};
pub use target::{AtomicWrite, DeviceClaim, DeviceWrite, DirectMode, Geometry, OpenOptions};
pub use target::{MethodReport, SyncMethod, SyncReport, SyncSource};
