//! fio's job language in, fio's human and JSON output out.
//!
//! ```
//! use fio_compat::{IoEngine, Rw, Source, parse_job_text};
//!
//! struct NoFiles;
//!
//! impl Source for NoFiles {
//!     fn read_job_file(&self, path: &str) -> Result<String, String> {
//!         Err(format!("{path} does not exist"))
//!     }
//!     fn env(&self, _name: &str) -> Option<String> {
//!         None
//!     }
//!     fn cpus(&self) -> u32 {
//!         4
//!     }
//!     fn page_size(&self) -> u64 {
//!         4096
//!     }
//!     fn memory_mib(&self) -> u64 {
//!         8192
//!     }
//! }
//!
//! let text = "[global]\nioengine=libaio\nsize=64m\n[scan]\nrw=randread\niodepth=$ncpus\n";
//! let invocation = parse_job_text(text, "example.fio", &NoFiles)?;
//! let job = &invocation.jobs[0];
//! assert_eq!((job.name.as_str(), job.rw, job.iodepth), ("scan", Rw::RandRead, 4));
//! assert_eq!((job.ioengine, job.ioengine_requested.as_str()), (IoEngine::IoUring, "libaio"));
//!
//! let error = parse_job_text("[scan]\nrw=randreed\n", "bad.fio", &NoFiles).unwrap_err();
//! assert!(error.to_string().starts_with("bad.fio:2:1: failed parsing `rw=randreed`"));
//! # Ok::<(), fio_compat::ParseError>(())
//! ```
//!
//! Data flow: arguments and job files -> [`Invocation`] of [`Job`]s -> the bench runs them, filling
//! [`stats`] -> [`report::RunReport`] -> [`render`].
//!
//! Not here: I/O, clocks, threads, environment. The caller hands in a [`Source`] and prints what
//! comes out, so every behaviour of this crate is a table test.

mod assemble;
mod command_line;
mod error;
mod invocation;
mod job;
mod lex;
mod options;
pub mod render;
pub mod report;
mod source;
pub mod stats;
pub mod trace;

pub use command_line::{output_settings, parse_command_line, parse_job_text};
pub use error::{ParseError, Place, Warning};
pub use invocation::{Action, Eta, Invocation, OutputFormat};
pub use job::Steering;
pub use job::{
    BlockShare, BlockSizes, Checking, Content, ContinueOnError, Control, CpusPolicy, Direction,
    Distribution, ExitWhat, Extent, FileService, IoEngine, Job, Origin, Pace, Pattern,
    RandomGenerator, Rw, Sequencer, Setting, Strided, ThinkAfter, Verify, Workload, Zone,
};
pub use job::{Durability, SyncFileRange, SyncIo};
pub use job::{EngineOptions, Fallocate, FileAdvice, Layout, WriteLife};
pub use job::{LogOptions, LogPrefix, Reporting, Unified, Units, WindowValue};
pub use job::{Memory, MemoryKind};
pub use job::{Replay, ReplaySkip};
pub use options::{engine_names, option_help};
pub use source::Source;
