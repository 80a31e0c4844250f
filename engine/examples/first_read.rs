//! How long it takes from nothing to the first read: the ring and its probes, a registered arena
//! of 64 MiB, a file opened for reading, and one page of it.
//!
//! `cargo run --release -p mfio-engine --example first_read FILE`
//! The median and the longest of 15 rounds, each with a shard of its own.
#![allow(clippy::print_stdout, reason = "an example says what it measured")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod outcome;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mfio_core::block_on;
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Config, DirectMode, OpenOptions, Shard};

const PAGE_BYTES: u32 = 4096;
const ARENA_BYTES: u32 = 64 << 20;
const ROUNDS: usize = 15;

/// Milliseconds of one round.
fn round(path: &Path) -> Result<f64, Box<dyn Error>> {
    let begun = Instant::now();
    let pages = SizeClass { bytes: PAGE_BYTES, count: ARENA_BYTES / PAGE_BYTES };
    let config = Config { arena: ArenaConfig::new(vec![pages]), ..Config::new() };
    let shard = Shard::with_ring(KernelRing::new(&KernelConfig::new(128))?, &config)?;
    let file = shard.open(path, &OpenOptions::new().direct(DirectMode::PreferDirect))?;
    let page = shard.arena().alloc(PAGE_BYTES as usize).ok_or("a fresh arena has a page")?;
    let (read, _page) = block_on(&shard, file.read_exact_at(0, page))?;
    read?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("first_read FILE: a file of a page or more")?;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(round(Path::new(&path))?);
    }
    rounds.sort_by(f64::total_cmp);
    println!("first read after {:.1} ms, at most {:.1} ms", rounds[ROUNDS / 2], rounds[ROUNDS - 1]);
    Ok(())
}
