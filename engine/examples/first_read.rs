//! How long it takes from nothing to the first read: the ring and its probes, a registered arena
//! of 64 MiB, a file opened for reading, and one page of it.
//!
//! `cargo run --release -p mfio-engine --example first_read FILE`
//! The median and the longest of 15 rounds, each with a shard of its own. By then the first of
//! the arena is registered; then how long it takes at the most until all of it is, where one waits
//! for that instead of going on.
#![allow(clippy::print_stdout, reason = "an example says what it measured")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod outcome;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Config, DirectMode, OpenOptions, Shard, block_on};

const PAGE_BYTES: u32 = 4096;
const ARENA_BYTES: u32 = 64 << 20;
const ROUNDS: usize = 15;

/// Milliseconds until the page is read, and from there until all of the arena is registered.
fn round(path: &Path) -> Result<(f64, f64), Box<dyn Error>> {
    let begun = Instant::now();
    let pages = SizeClass { bytes: PAGE_BYTES, count: ARENA_BYTES / PAGE_BYTES };
    let config = Config { arena: ArenaConfig::new(vec![pages]), ..Config::new() };
    let shard = Shard::with_ring(KernelRing::new(&KernelConfig::new(128))?, &config)?;
    let file = shard.open(path, &OpenOptions::new().direct(DirectMode::PreferDirect))?;
    let page = shard.arena().alloc(PAGE_BYTES as usize).ok_or("a fresh arena has a page")?;
    let (read, _page) = block_on(&shard, file.read_exact_at(0, page))?;
    read?;
    let until_read = begun.elapsed();
    let _registered_bytes = shard.register(shard.arena());
    let from_there = begun.elapsed().saturating_sub(until_read);
    Ok((until_read.as_secs_f64() * 1e3, from_there.as_secs_f64() * 1e3))
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("first_read FILE: a file of a page or more")?;
    let (mut reads, mut rests) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (read, rest) = round(Path::new(&path))?;
        reads.push(read);
        rests.push(rest);
    }
    let [read, rest] = [reads, rests].map(|mut all| {
        all.sort_by(f64::total_cmp);
        format!("{:.1} ms, at most {:.1} ms", all[ROUNDS / 2], all[ROUNDS - 1])
    });
    println!("first read after {read}; all of the arena registered {rest} later");
    Ok(())
}
