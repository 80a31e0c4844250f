//! Shows what a scan in the background does to the reads that somebody waits for, and what
//! reading neighbouring pages together is worth. On a real file, so the figures are those of
//! its device.
//!
//! `cargo run --release -p mfio-engine --example background_scan -- FILE` (of 64 MiB or more;
//! without one, a file is made in the temporary directory)
#![allow(clippy::print_stdout, reason = "an example says what it saw")]

mod outcome;

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use mfio_core::{CompletionQueue, Packet, Read};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Class, ClassLimits, Config, DirectMode, File, OpenOptions, Shard, block_on};

const PAGE: usize = 4096;
const FILE_BYTES: u64 = 64 << 20;
const READS: usize = 4000;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn config(adaptive: bool, coalesce: bool) -> Config {
    let classes = ClassLimits { adaptive, ..ClassLimits::new() };
    let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 1024 }]);
    Config { classes, arena, coalesce, ..Config::new() }
}

fn open(path: &std::path::Path, config: &Config) -> Outcome<File<KernelRing>> {
    let shard = Shard::with_ring(KernelRing::new(&KernelConfig::new(256))?, config)?;
    let options = OpenOptions { direct: DirectMode::PreferDirect, ..OpenOptions::default() };
    Ok(shard.open(path, &options)?)
}

/// A page of the file, each time another.
fn next_page(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % (FILE_BYTES / PAGE as u64) * PAGE as u64
}

fn page(file: &File<KernelRing>) -> Outcome<ArenaBuf> {
    file.shard().arena().alloc(PAGE).ok_or_else(|| "the arena is in use".into())
}

/// Reads one page after the other, with or without a scan beside; returns the 99th percentile
/// of their latency in microseconds and the scan's pages per second.
fn foreground(file: &File<KernelRing>, scan: bool) -> Outcome<(u64, u64)> {
    let shard = file.shard();
    let background = file.with_class(Class::Background);
    let (mut ours, mut theirs) = (CompletionQueue::<Read, _>::new(), CompletionQueue::new());
    let mut random = 7;
    for tag in 0..if scan { 128 } else { 0 } {
        let packet = Packet::<Read, _>::new(page(file)?);
        theirs.send(&background, next_page(&mut random), packet, tag).map_err(|_| "full")?;
    }
    let (mut took_ns, mut scanned) = (Vec::with_capacity(READS), 0_u64);
    let start_ns = shard.now_ns();
    let mut sent_ns = start_ns;
    ours.send(file, 0, Packet::new(page(file)?), 0).map_err(|_| "full")?;
    while took_ns.len() < READS {
        shard.turn(Wait::at_least(1))?;
        if let Some((_, done)) = ours.pop() {
            done.result()?;
            took_ns.push(shard.now_ns() - sent_ns);
            sent_ns = shard.now_ns();
            let packet = done.into_packet();
            ours.send(file, next_page(&mut random), packet, 0).map_err(|_| "full")?;
        }
        while let Some((tag, done)) = theirs.pop() {
            scanned += 1;
            let packet = done.into_packet();
            theirs.send(&background, next_page(&mut random), packet, tag).map_err(|_| "full")?;
        }
    }
    let seconds_ns = shard.now_ns() - start_ns;
    took_ns.sort_unstable();
    Ok((took_ns[READS * 99 / 100] / 1000, scanned * 1_000_000_000 / seconds_ns))
}

/// Reads 32 pages in a row, again and again; returns pages per second.
fn neighbours(file: &File<KernelRing>) -> Outcome<u64> {
    let mut batch = file.shard().batch::<32, ArenaBuf>();
    let (start_ns, mut random, mut pages) = (file.shard().now_ns(), 7, 0);
    while pages < 64_000 {
        let first = next_page(&mut random).min(FILE_BYTES - 32 * PAGE as u64);
        for at in 0..32 {
            let offset = first + at * PAGE as u64;
            batch.push_read(file, offset, page(file)?).map_err(|_| "full")?;
        }
        block_on(file.shard(), batch.run())?;
        while let Some(reaped) = batch.reap() {
            reaped.result?;
            pages += 1;
        }
    }
    Ok(pages * 1_000_000_000 / (file.shard().now_ns() - start_ns))
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let path = match std::env::args().nth(1) {
        Some(path) => PathBuf::from(path),
        None => {
            let mut made = std::fs::File::create(dir.path().join("pages"))?;
            for _ in 0..FILE_BYTES >> 20 {
                made.write_all(&[7; 1 << 20])?;
            }
            made.sync_all()?;
            dir.path().join("pages")
        }
    };
    for round in 1..=3 {
        let (idle_us, _) = foreground(&open(&path, &config(true, true))?, false)?;
        println!("round {round}: p99 alone {idle_us} us");
        for adaptive in [true, false] {
            let file = open(&path, &config(adaptive, true))?;
            let (p99_us, rate) = foreground(&file, true)?;
            let limit = file.shard().background_limit();
            println!("  beside a scan, adaptive {adaptive}: p99 {p99_us} us ({rate} pages/s)");
            println!("    {limit} background ops are let in at the end");
        }
        let together = neighbours(&open(&path, &config(true, true))?)?;
        let apart = neighbours(&open(&path, &config(true, false))?)?;
        println!("  32 neighbours: together {together}, one by one {apart} pages/s");
    }
    Ok(())
}
