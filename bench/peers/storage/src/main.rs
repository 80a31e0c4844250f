//! Random 4 KiB reads of one file through io_uring runtimes and through ours, with the same
//! loop and the same offsets, on one core, in alternation.
//!
//! Data flow: arguments → rounds → a process per runtime and round (`work`, one module per
//! runtime) → CPU time and wall time per read → ratios to the hand-written loop → a table.
//!
//! Each runtime has a process of its own, so that none inherits the rings, threads or heap of
//! another. Every runtime reads as its documentation advises for speed, with a task of its own
//! executor for each read in flight; ours also without tasks.
//!
//! Not here: what a single runtime does.
#![deny(unsafe_code)]

mod compio;
mod glommio;
mod mfio_rt;
mod monoio;
mod ours;
mod psync;
#[allow(unsafe_code, reason = "the hand-written loop submits entries itself")]
mod raw;
mod table;
mod tokio_fs;
mod tokio_uring;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::Parser;

use work::{Runtime, Work};

/// Random reads of one file through several runtimes.
#[derive(Clone, Debug, Parser)]
pub struct Arguments {
    /// The file; its length is what is read from.
    pub file: PathBuf,
    /// Reads in flight.
    #[arg(long, default_value_t = 128)]
    pub depth: u32,
    /// Reads of one measurement.
    #[arg(long, default_value_t = 200_000)]
    pub ios: u64,
    /// Measurements of each runtime.
    #[arg(long, default_value_t = 15)]
    pub rounds: usize,
    /// Adjacent blocks that are read one after the other at each random place.
    #[arg(long, default_value_t = 1)]
    pub run: u64,
    /// Reads through the page cache.
    #[arg(long)]
    pub buffered: bool,
    /// Only these runtimes and the hand-written loop, separated by commas.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Runtime>,
    /// Exit with 1 if what any of ours adds to the hand-written loop is more than this share of
    /// what the best peer adds.
    #[arg(long)]
    pub max_added: Option<f64>,
    /// Measure this runtime once and print the figures.
    #[arg(long, hide = true)]
    pub one: Option<Runtime>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.one {
        Some(runtime) => one(runtime, &arguments),
        None => table::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("storage-peers: {error}");
        ExitCode::FAILURE
    })
}

type Outcome = Result<ExitCode, Box<dyn std::error::Error>>;

fn one(runtime: Runtime, arguments: &Arguments) -> Outcome {
    let work = Rc::new(Work::new(arguments)?);
    let spent = match runtime {
        Runtime::Raw => raw::run(&work),
        Runtime::Ours => ours::tasks(&work),
        Runtime::OursQueue => ours::queue(&work),
        Runtime::OursBatch => ours::batch(&work),
        Runtime::TokioUring => tokio_uring::run(&work),
        Runtime::Monoio => monoio::run(&work),
        Runtime::Compio => compio::run(&work),
        Runtime::Glommio => glommio::run(&work),
        Runtime::MfioRt => mfio_rt::run(&work),
        Runtime::TokioFs => tokio_fs::run(&work),
        Runtime::Psync => psync::run(&work),
    }?;
    println!("{} {}", spent.cpu_ns_per_io, spent.wall_ns_per_io);
    Ok(ExitCode::SUCCESS)
}
