//! The hot paths one by one, each doing N I/Os and nothing else: what `scripts/budget` counts the
//! instructions of.
//!
//! `cargo run --release -p mfio-engine --example hot_paths -- PATH N FILE`
//!
//! PATH is `nop` (packets that move nothing, on a completion queue), `queue` (the same with
//! reads), `lone` (those at depth 1), `bypass` (one awaited after the other, without the ring),
//! `future` (tasks that await one packet at a time), `exact` (tasks that await one buffer at a
//! time), `batch`, `chain` (two reads each) or `wal` (a record per task and group commit). All
//! others go at depth 32, in batches of 32, to 4 KiB blocks of FILE: a sparse file, opened for
//! direct I/O where its file system has that. The log is in the directory FILE; for `bypass`, FILE
//! is in memory (tmpfs), where that is faster on every machine.
#![allow(clippy::print_stdout, reason = "a program that says what it did")]

mod outcome;

use std::cell::Cell;
use std::error::Error;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mfio_core::{CompletionQueue, Packet, PacketIoExt, Read};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::wal::{SegmentDir, Wal, WalConfig};
use mfio_engine::{Config, DirectMode, File, JoinHandle, Lone, OpenOptions, Shard, SyncMethod};

const DEPTH: u32 = 32;
const BLOCK_BYTES: u32 = 4096;
const FILE_BYTES: u64 = 1 << 30;
const LOG_BLOCK_BYTES: u32 = 16 << 10;
const RECORD: [u8; 256] = [7; 256];

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Offsets of blocks in no particular order, the same in every run.
struct Offsets(u64);

impl Offsets {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 34) * u64::from(BLOCK_BYTES) % FILE_BYTES
    }
}

fn shard() -> Outcome<Shard<KernelRing>> {
    let mut config = Config::new();
    config.in_flight_max = 2 * DEPTH;
    config.backlog_max = 2 * DEPTH;
    config.arena = ArenaConfig::new(vec![
        SizeClass { bytes: BLOCK_BYTES, count: 3 * DEPTH },
        SizeClass { bytes: LOG_BLOCK_BYTES, count: 4 },
    ]);
    Ok(Shard::with_ring(KernelRing::new(&KernelConfig::new(2 * DEPTH))?, &config)?)
}

fn open(shard: &Shard<KernelRing>, path: &Path) -> Outcome<File<KernelRing>> {
    let sparse = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    sparse.set_len(FILE_BYTES)?;
    let options = OpenOptions::new().write(true).direct(DirectMode::PreferDirect);
    Ok(shard.open(path, &options)?)
}

fn buffer(shard: &Shard<KernelRing>) -> Outcome<ArenaBuf> {
    Ok(shard.arena().alloc(BLOCK_BYTES as usize).ok_or("the arena is in use")?)
}

fn queue(shard: &Shard<KernelRing>, file: &File<KernelRing>, depth: u32, ios: u64) -> Outcome<()> {
    let mut offsets = Offsets(1);
    let mut queue = CompletionQueue::<Read, ArenaBuf>::new();
    let mut packets = Vec::new();
    for _ in 0..depth {
        packets.push(Packet::new(buffer(shard)?));
    }
    for _ in 0..ios / u64::from(depth) {
        for packet in packets.drain(..) {
            queue.send(file, offsets.next(), packet, 0).map_err(|_full| "no room")?;
        }
        let mut reaped = 0;
        while reaped < depth {
            reaped += shard.turn_into(Wait::at_least(depth - reaped), &mut queue)?;
        }
        while let Some((_tag, done)) = queue.pop() {
            assert!(done.is_ok());
            packets.push(done.into_packet());
        }
    }
    Ok(())
}

/// Lone reads, after as many as it takes to find out how they go best.
fn bypass(shard: &Shard<KernelRing>, file: &File<KernelRing>, ios: u64) -> Outcome<()> {
    const TRIAL: u64 = 64;
    let mut offsets = Offsets(1);
    let mut cx = Context::from_waker(Waker::noop());
    let mut packet = Packet::<Read, _>::new(buffer(shard)?);
    for _ in 0..TRIAL + ios {
        let mut read = pin!(file.io(offsets.next(), packet));
        let done = loop {
            if let Poll::Ready(done) = read.as_mut().poll(&mut cx) {
                break done;
            }
            shard.turn(Wait::at_least(1))?;
        };
        assert!(done.is_ok());
        packet = done.into_packet();
    }
    if file.bypass().read != Lone::Inline || shard.metrics().inline_ops < ios {
        return Err("reads of this file do not bypass the ring: is it in memory (tmpfs)?".into());
    }
    Ok(())
}

fn finish(shard: &Shard<KernelRing>, tasks: Vec<JoinHandle<()>>) -> Outcome<()> {
    shard.block_on(async {
        for task in tasks {
            assert!(task.await.is_ok());
        }
    })?;
    Ok(())
}

fn future(shard: &Shard<KernelRing>, file: &File<KernelRing>, ios: u64) -> Outcome<()> {
    let mut tasks = Vec::new();
    for task in 0..DEPTH {
        let (file, mut packet) = (file.clone(), Packet::<Read, _>::new(buffer(shard)?));
        let mut offsets = Offsets(u64::from(task) << 16);
        tasks.push(shard.spawn(async move {
            for _ in 0..ios / u64::from(DEPTH) {
                let done = file.io(offsets.next(), packet).await;
                assert!(done.is_ok());
                packet = done.into_packet();
            }
        })?);
    }
    finish(shard, tasks)
}

fn exact(shard: &Shard<KernelRing>, file: &File<KernelRing>, ios: u64) -> Outcome<()> {
    let mut tasks = Vec::new();
    for task in 0..DEPTH {
        let (file, mut page) = (file.clone(), buffer(shard)?);
        let mut offsets = Offsets(u64::from(task) << 16);
        tasks.push(shard.spawn(async move {
            for _ in 0..ios / u64::from(DEPTH) {
                let (done, back) = file.read_exact_at(offsets.next(), page).await;
                assert!(done.is_ok());
                page = back;
            }
        })?);
    }
    finish(shard, tasks)
}

fn batch(shard: &Shard<KernelRing>, file: &File<KernelRing>, ios: u64) -> Outcome<()> {
    let mut offsets = Offsets(1);
    let mut batch = shard.batch::<{ DEPTH as usize }, _>();
    let mut buffers = Vec::new();
    for _ in 0..DEPTH {
        buffers.push(buffer(shard)?);
    }
    shard.block_on(async {
        for _ in 0..ios / u64::from(DEPTH) {
            for buffer in buffers.drain(..) {
                assert!(batch.push_read(file, offsets.next(), buffer).is_ok());
            }
            batch.run().await;
            while let Some(page) = batch.reap() {
                assert!(page.result.is_ok());
                buffers.push(page.buffer);
            }
        }
    })?;
    Ok(())
}

fn chain(shard: &Shard<KernelRing>, file: &File<KernelRing>, chains: u64) -> Outcome<()> {
    let mut tasks = Vec::new();
    for task in 0..u64::from(DEPTH) / 2 {
        let (file, mut first, mut second) = (file.clone(), buffer(shard)?, buffer(shard)?);
        tasks.push(shard.spawn(async move {
            let at = task * 2 * u64::from(BLOCK_BYTES);
            for _ in 0..chains / (u64::from(DEPTH) / 2) {
                let chain = file.chain().read_at(at, first);
                let chain = chain.read_at(at + u64::from(BLOCK_BYTES), second);
                let (result, mut buffers) = chain.commit().await;
                assert!(result.is_ok());
                let both = buffers.take(0).zip(buffers.take(1));
                (first, second) = both.expect("a chain gives its buffers back");
            }
        })?);
    }
    finish(shard, tasks)
}

/// Every task appends a record and waits for it before any appends its next one: so each block
/// has as many records, however long a flush takes.
fn wal(shard: &Shard<KernelRing>, directory: &Path, records: u64) -> Outcome<()> {
    std::fs::create_dir_all(directory)?;
    let config = WalConfig {
        segment_bytes: 4 << 20,
        block_bytes_max: LOG_BLOCK_BYTES,
        in_flight_max: 1,
        // Measuring which is the best here would take as many writes as it likes.
        sync_method: Some(SyncMethod::LinkedFlush),
        ..WalConfig::new()
    };
    let opening = Wal::open(shard, SegmentDir::new(directory), &config, async |_, _| Ok(()));
    let (wal, _report) = shard.block_on(opening)??;
    let (rounds, done) = (records / u64::from(DEPTH), Rc::new(Cell::new(0)));
    for _ in 0..rounds {
        let mut tasks = Vec::new();
        for _ in 0..DEPTH {
            let (wal, done) = (wal.clone(), Rc::clone(&done));
            tasks.push(shard.spawn(async move {
                assert!(wal.append(&RECORD).await.is_ok());
                done.set(done.get() + 1);
            })?);
        }
        shard.block_on(async {
            for task in tasks {
                assert!(task.await.is_ok());
            }
        })?;
        shard.block_on(wal.truncate_before(wal.durable_lsn()))??;
    }
    assert_eq!(done.get(), rounds * u64::from(DEPTH));
    Ok(())
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Outcome<()> {
    let usage = "hot_paths PATH N FILE, where PATH is nop, queue, lone, bypass, future, exact, \
                 batch, chain or wal";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, ios, file] = &arguments[..] else { return Err(usage.into()) };
    let (ios, place) = (ios.parse()?, Path::new(file));
    let shard = shard()?;
    if path == "wal" {
        wal(&shard, place, ios)?;
    } else {
        let file = open(&shard, place)?;
        match path.as_str() {
            "nop" => queue(&shard, &shard.nowhere().ok_or("no nops")?, DEPTH, ios)?,
            "queue" => queue(&shard, &file, DEPTH, ios)?,
            "lone" => queue(&shard, &file, 1, ios)?,
            "bypass" => bypass(&shard, &file, ios)?,
            "future" => future(&shard, &file, ios)?,
            "exact" => exact(&shard, &file, ios)?,
            "batch" => batch(&shard, &file, ios)?,
            "chain" => chain(&shard, &file, ios)?,
            _ => return Err(usage.into()),
        }
    }
    let ops = shard.metrics().ops;
    println!("{path}: {ios} asked for, {ops} ops in {} system calls", shard.metrics().enters);
    Ok(())
}
