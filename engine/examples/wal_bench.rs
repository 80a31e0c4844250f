//! Group commit against one flush per record, in one run: commits per second with 256 waiting
//! tasks, and the latency of one waiter.
//!
//! `cargo run --release -p mfio-engine --example wal_bench -- DIR [ROUNDS]`
//!
//! A and B alternate, on the same file system; medians and ratios are printed, and the load
//! beside them. DIR must be on a real file system: tmpfs has nothing to flush. Pin it to a core
//! (`taskset -c 1`), as the threads of an engine are: the ring's worker then runs where its data
//! is, and the latency of one waiter is that of the device.
#![allow(clippy::print_stdout, reason = "a program that prints figures")]

mod outcome;

use std::cell::RefCell;
use std::error::Error;
use std::fs::File;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use mfio_core::block_on;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::wal::{SegmentDir, Wal, WalConfig, WalError};
use mfio_engine::{Config, DirectMode, Shard, SyncMethod};

const RECORD_BYTES: usize = 256;
const WAITERS: usize = 256;
/// Bytes of the file that the serial pair goes through.
const SERIAL_BYTES: usize = 16 << 20;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A task is polled when it was woken, and at no other time.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Work = Pin<Box<dyn Future<Output = Result<(), WalError>>>>;

/// Runs all tasks to their end on this thread, as a shard's executor would.
fn run<R: Ring>(shard: &Shard<R>, works: Vec<Work>) -> Outcome<()> {
    let mut tasks: Vec<(Work, Arc<Flag>, Waker)> = Vec::with_capacity(works.len());
    for work in works {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        tasks.push((work, flag, waker));
    }
    while !tasks.is_empty() {
        let mut polled = false;
        let mut at = 0;
        while at < tasks.len() {
            let (work, flag, waker) = &mut tasks[at];
            if !flag.0.load(Ordering::Relaxed) {
                at += 1;
                continue;
            }
            flag.0.store(false, Ordering::Relaxed);
            polled = true;
            if work.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                drop(tasks.swap_remove(at));
            } else {
                at += 1;
            }
        }
        if !polled {
            shard.turn(Wait::at_least(1))?;
        }
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The serial pair: `pwrite(2)` and `fdatasync(2)`, one record after the other.
struct Serial {
    file: File,
    at: usize,
}

impl Serial {
    fn new(path: &Path) -> Outcome<Self> {
        let file = File::create(path)?;
        file.write_all_at(&vec![1; SERIAL_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self { file, at: 0 })
    }

    fn commit(&mut self, record: &[u8]) -> Outcome<()> {
        self.file.write_all_at(record, self.at as u64)?;
        self.file.sync_data()?;
        self.at = (self.at + RECORD_BYTES) % SERIAL_BYTES;
        Ok(())
    }
}

struct Bench {
    shard: Shard<KernelRing>,
    wal: Wal<KernelRing>,
    serial: Serial,
    rounds: usize,
}

impl Bench {
    fn now_ns(&self) -> u64 {
        self.shard.with_ring_ref(Ring::now_ns)
    }

    /// Microseconds of each of `count` commits of the serial pair.
    fn serial_us(&mut self, count: usize) -> Outcome<Vec<f64>> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let from = self.now_ns();
            self.serial.commit(&[7; RECORD_BYTES])?;
            all.push((self.now_ns() - from) as f64 / 1e3);
        }
        Ok(all)
    }

    /// Microseconds of each of `count` appends by one waiter.
    fn single_us(&self, count: usize) -> Outcome<Vec<f64>> {
        let all = Rc::new(RefCell::new(Vec::with_capacity(count)));
        let (wal, shard, into) = (self.wal.clone(), self.shard.clone(), Rc::clone(&all));
        let work = async move {
            for _ in 0..count {
                let from = shard.with_ring_ref(Ring::now_ns);
                wal.append(&[7; RECORD_BYTES]).await?;
                let us = (shard.with_ring_ref(Ring::now_ns) - from) as f64 / 1e3;
                into.borrow_mut().push(us);
            }
            Ok(())
        };
        run(&self.shard, vec![Box::pin(work)])?;
        Ok(all.take())
    }

    /// Commits per second of [`WAITERS`] tasks, each of which waits for every record.
    fn group_per_s(&self, each: usize) -> Outcome<f64> {
        let from = self.now_ns();
        let works = (0..WAITERS).map(|_| {
            let wal = self.wal.clone();
            let work = async move {
                for _ in 0..each {
                    wal.append(&[7; RECORD_BYTES]).await?;
                }
                Ok(())
            };
            Box::pin(work) as Work
        });
        run(&self.shard, works.collect())?;
        Ok((WAITERS * each) as f64 * 1e9 / (self.now_ns() - from) as f64)
    }

    fn truncate(&self) -> Outcome<()> {
        let newest = self.wal.durable_lsn();
        block_on(&self.shard, self.wal.truncate_before(newest))
            .map_err(|_| "the shard is driven already")??;
        Ok(())
    }

    fn run(&mut self, label: &str) -> Outcome<()> {
        drop((self.serial_us(50)?, self.single_us(50)?));
        self.group_per_s(4)?;
        let (mut ratios_group, mut ratios_single) = (Vec::new(), Vec::new());
        let (mut groups, mut serials, mut singles) = (Vec::new(), Vec::new(), Vec::new());
        let mut records = 0;
        let mut group_blocks = 0;
        for _ in 0..self.rounds {
            let serial = self.serial_us(150)?;
            let per_s = serial.len() as f64 * 1e6 / serial.iter().sum::<f64>();
            let before = self.wal.blocks();
            let group = self.group_per_s(100)?;
            group_blocks += self.wal.blocks() - before;
            records += WAITERS * 100;
            // Small steps: the device's mood changes faster than a round takes.
            let (mut single, mut pair) = (Vec::new(), Vec::new());
            for _ in 0..20 {
                single.extend(self.single_us(10)?);
                pair.extend(self.serial_us(10)?);
            }
            let (single, pair) = (median(&mut single), median(&mut pair));
            ratios_group.push(group / per_s);
            ratios_single.push(single / pair);
            groups.push(group);
            serials.push(pair);
            singles.push(single);
            self.truncate()?;
        }
        println!(
            "{label}: group {:.0} commits/s, {:.0}x the serial pair; {:.0} records per flush; \
             one waiter {:.1} us, the pair {:.1} us: {:.2}x",
            median(&mut groups),
            median(&mut ratios_group),
            records as f64 / group_blocks as f64,
            median(&mut singles),
            median(&mut serials),
            median(&mut ratios_single),
        );
        Ok(())
    }
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: wal_bench DIR [ROUNDS]")?);
    let rounds = arguments.next().map_or(Ok(5), |rounds| rounds.parse())?;
    std::fs::create_dir_all(&dir)?;
    println!("load: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    let (direct, buffered) = (DirectMode::PreferDirect, DirectMode::Buffered);
    let mut plans =
        vec![(buffered, 512, 2, Some(SyncMethod::LinkedFlush)), (direct, 4096, 2, None)];
    for method in [None, Some(SyncMethod::LinkedFlush), Some(SyncMethod::Dsync)] {
        plans.extend([1, 2, 4].map(|in_flight| (direct, 512, in_flight, method)));
    }
    for (direct, align, in_flight, method) in plans {
        let method_name = method.map_or("measured", SyncMethod::name);
        let label = format!("{direct:?}, units of {align}, {in_flight} in flight, {method_name}");
        let log = dir.join("wal-bench-log");
        let serial = dir.join("wal-bench-serial");
        if log.exists() {
            std::fs::remove_dir_all(&log)?;
        }
        let shard = Shard::with_ring(KernelRing::new(&KernelConfig::new(64))?, &Config::new())?;
        let config = WalConfig {
            segment_bytes: 32 << 20,
            block_align_bytes: align,
            in_flight_max: in_flight,
            sync_method: method,
            ..WalConfig::new()
        };
        let store = SegmentDir::new(&log).direct(direct);
        let opening = Wal::open(&shard, store, &config, async |_, _| Ok(()));
        let (wal, _report) =
            block_on(&shard, opening).map_err(|_| "the shard is driven already")??;
        let serial_file = Serial::new(&serial)?;
        let mut bench = Bench { shard, wal, serial: serial_file, rounds };
        bench.run(&label)?;
        drop(bench);
        std::fs::remove_dir_all(&log)?;
        std::fs::remove_file(&serial)?;
    }
    Ok(())
}
