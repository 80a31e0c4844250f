//! An io_uring storage engine for Linux: thread-per-core shards, registered buffers, and
//! durability that tells the truth.
//!
//! ```
//! use mfio_core::block_on;
//! use mfio_engine::{Config, Durability, OpenOptions, Shard, ring::threads::ThreadRing};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("data");
//! // `KernelRing` where io_uring is allowed; the same code runs on threads.
//! let shard = Shard::with_ring(ThreadRing::new(2, 64)?, &Config::new())?;
//! let options = OpenOptions { write: true, create: true, ..OpenOptions::default() };
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
//! One direction: a packet is sent to a [`File`], cut by [`plan`], lives in a slot while the
//! [`ring`] executes it, is judged by [`complete`], and its views get their results.
#![cfg(target_os = "linux")]

pub mod buffer;
pub mod complete;
mod config;
mod error;
mod metrics;
pub mod plan;
pub mod ring;
pub mod shard;
mod sys;
pub mod target;
pub mod wal;

pub use config::Config;
pub use error::{EngineError, IoError};
pub use metrics::Metrics;
pub use shard::{Durability, Durable, File, Shard, SyncFut};
pub use target::{DirectMode, Geometry, OpenOptions};
