//! What one read at a time costs: `pread(2)`, the call of the bypass by itself (`preadv2(2)` with
//! `RWF_NOWAIT`), the ring, and the bypass, in turns on one core.
//!
//! `cargo run --release -p mfio-engine --example lone_reads [DIRECTORY]…`
//! Each directory gets a file of 64 MiB that fits into the page cache; medians of 15 rounds.
#![allow(clippy::print_stdout, reason = "an example says what it measured")]
#![allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod outcome;

use std::error::Error;
use std::future::Future;
use std::io::IoSliceMut;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use mfio_core::{Packet, PacketIoExt, Read};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{BypassMode, Config, File, OpenOptions, Shard};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

const PAGE: usize = 4096;
const PAGES: u64 = 16 << 10;
const READS: u64 = 20_000;
const ROUNDS: usize = 15;

type Failure = Box<dyn Error>;

fn open(path: &Path, bypass: BypassMode) -> Result<File<KernelRing>, Failure> {
    let ring = KernelRing::new(&KernelConfig::new(64))?;
    let shard = Shard::with_ring(ring, &Config { bypass, ..Config::new() })?;
    Ok(shard.open(path, &OpenOptions::default())?)
}

fn offset(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % PAGES * PAGE as u64
}

/// Nanoseconds per read of the engine, one at a time.
fn engine(file: &File<KernelRing>) -> Result<f64, Failure> {
    let shard = file.shard();
    let mut cx = Context::from_waker(Waker::noop());
    // One packet for all, as one buffer for all plain reads.
    let page = shard.arena().alloc(PAGE).ok_or("the arena is in use")?;
    let mut packet = Packet::<Read, _>::new(page);
    let started = Instant::now();
    for number in 0..READS {
        let mut read = pin!(file.io(offset(number), packet));
        let done = loop {
            if let Poll::Ready(done) = read.as_mut().poll(&mut cx) {
                break done;
            }
            shard.turn(Wait::at_least(1))?;
        };
        done.result().map_err(|error| error.to_string())?;
        packet = done.into_packet();
    }
    Ok(started.elapsed().as_nanos() as f64 / READS as f64)
}

/// Aligned as the engine's memory is: how fast the kernel copies depends on it.
#[repr(align(4096))]
struct Page([u8; PAGE]);

/// Nanoseconds per `pread(2)`.
fn plain(file: &std::fs::File, page: &mut [u8]) -> Result<f64, Failure> {
    let started = Instant::now();
    for number in 0..READS {
        file.read_exact_at(page, offset(number))?;
    }
    Ok(started.elapsed().as_nanos() as f64 / READS as f64)
}

/// Nanoseconds per `preadv2(2)` that may not block; `None` where the file system has no such call.
fn nowait(file: &std::fs::File, page: &mut [u8]) -> Result<Option<f64>, Failure> {
    let started = Instant::now();
    for number in 0..READS {
        let into = &mut [IoSliceMut::new(page)];
        match preadv2(file, into, offset(number), ReadWriteFlags::NOWAIT) {
            Ok(PAGE) => {}
            Ok(bytes) => return Err(format!("{bytes} bytes of a page").into()),
            Err(Errno::OPNOTSUPP) => return Ok(None),
            // A page that somebody has locked, such as for writing it back.
            Err(Errno::AGAIN) => file.read_exact_at(page, offset(number))?,
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(Some(started.elapsed().as_nanos() as f64 / READS as f64))
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn measure(directory: &Path) -> Result<(), Failure> {
    let path = directory.join("lone_reads.dat");
    std::fs::write(&path, vec![7; PAGE * usize::try_from(PAGES)?])?;
    let file = std::fs::File::open(&path)?;
    let ring = open(&path, BypassMode::Off)?;
    let bypass = open(&path, BypassMode::Auto)?;
    let page = &mut Box::new(Page([0; PAGE])).0;
    let mut samples = [const { Vec::new() }; 4];
    for round in 0..=ROUNDS {
        // Each begins a round in its turn: what goes before leaves the caches to it.
        for side in (0..4).map(|side| (side + round) % 4) {
            let ns = match side {
                0 => plain(&file, page)?,
                1 => nowait(&file, page)?.unwrap_or(f64::NAN),
                2 => engine(&ring)?,
                _ => engine(&bypass)?,
            };
            // The first round warms the caches and settles the bypass.
            if round > 0 {
                samples[side].push(ns);
            }
        }
    }
    let has_nowait = !samples[1].iter().any(|ns| ns.is_nan());
    let [plain_ns, call_ns, ring_ns, bypass_ns] = samples.each_mut().map(|all| median(all));
    let call = if has_nowait {
        format!("{call_ns:.0} ns ({:.2}x)", call_ns / plain_ns)
    } else {
        "refused".to_owned()
    };
    println!(
        "{}: pread {plain_ns:.0} ns, preadv2 without waiting {call}, \
         ring {ring_ns:.0} ns ({:.2}x), bypass {bypass_ns:.0} ns \
         ({:.2}x of pread, {:.2}x faster than the ring); {:?}",
        directory.display(),
        ring_ns / plain_ns,
        bypass_ns / plain_ns,
        ring_ns / bypass_ns,
        bypass.bypass().read,
    );
    std::fs::remove_file(&path)?;
    Ok(())
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Failure> {
    let mut directories: Vec<String> = std::env::args().skip(1).collect();
    if directories.is_empty() {
        directories = vec![".".to_owned(), "/dev/shm".to_owned()];
    }
    directories.iter().try_for_each(|directory| measure(Path::new(directory)))
}
