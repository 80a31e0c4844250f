//! Power cuts, torn and lost sectors, failing flushes and crashes inside recovery, from seeds:
//! what was acknowledged is found, nothing is invented, and opening twice finds the same.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::sim::SimRing;
use mfio_engine::ring::sim::{FaultRates, FileSpec, Random, SimConfig, SimControl, SimDevice};
use mfio_engine::ring::{Plant, Wait};
use mfio_engine::wal::{Lsn, PremadeSegments, RecordAlign, Recovery, Wal, WalConfig, WalError};
use mfio_engine::{Config, EngineError, Shard};

type SimWal = Wal<SimRing>;
type Found = Vec<(Lsn, Vec<u8>)>;

/// What all seeds together have seen; a test that sees nothing proves nothing.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    crashes: u64,
    crashes_in_open: u64,
    kills: u64,
    acknowledged: u64,
    recovered: u64,
    poisoned: u64,
    opens_failed: u64,
    erased_blocks: u64,
    erased_segments: u64,
    confirmed_blocks: u64,
    truncations: u64,
    full: u64,
    dropped: u64,
    short: u64,
    eagain: u64,
    flush_failures: u64,
    shared_blocks: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.crashes += other.crashes;
        self.crashes_in_open += other.crashes_in_open;
        self.kills += other.kills;
        self.acknowledged += other.acknowledged;
        self.recovered += other.recovered;
        self.poisoned += other.poisoned;
        self.opens_failed += other.opens_failed;
        self.erased_blocks += other.erased_blocks;
        self.erased_segments += other.erased_segments;
        self.confirmed_blocks += other.confirmed_blocks;
        self.truncations += other.truncations;
        self.full += other.full;
        self.dropped += other.dropped;
        self.short += other.short;
        self.eagain += other.eagain;
        self.flush_failures += other.flush_failures;
        self.shared_blocks += other.shared_blocks;
    }
}

/// What must be true of the log.
#[derive(Default)]
struct Model {
    next_id: u64,
    /// Records that may be found, because they were handed in since the last open.
    issued: BTreeSet<u64>,
    /// Records that must be found, and where.
    acked: BTreeMap<u64, u64>,
    /// Handed in without waiting.
    unawaited: BTreeMap<u64, u64>,
    /// Records before this one may be gone.
    truncated: u64,
    /// Records before this one must be gone.
    gone: u64,
}

fn record_of(id: u64, len: usize) -> Vec<u8> {
    let mut random = Random::new(id ^ 0x5eed);
    let mut record = id.to_le_bytes().to_vec();
    while record.len() < len.max(8) {
        record.extend(random.bits().to_le_bytes());
    }
    record.truncate(len.max(8));
    record
}

impl Model {
    fn issue(&mut self, len: usize) -> (u64, Vec<u8>) {
        self.next_id += 1;
        self.issued.insert(self.next_id);
        (self.next_id, record_of(self.next_id, len))
    }

    fn ack(&mut self, lsn: Lsn, id: u64, newer_than: u64) -> Result<(), String> {
        if lsn.0 <= newer_than {
            return Err(format!("record {id} got number {lsn}, not above {newer_than}"));
        }
        match self.acked.insert(lsn.0, id) {
            Some(other) if other != id => Err(format!("{lsn} is both {other} and {id}")),
            _ => Ok(()),
        }
    }

    fn newest(&self) -> u64 {
        self.acked.last_key_value().map_or(0, |(lsn, _)| *lsn)
    }

    /// Holds what an open has found against what must be.
    fn check(&mut self, found: &Found, report: &Recovery) -> Result<(), String> {
        let mut ids = BTreeSet::new();
        let mut found_by_lsn = BTreeMap::new();
        let first = found.first().map_or(report.next_lsn.0, |(lsn, _)| lsn.0);
        for (expected, (lsn, bytes)) in (first..).zip(found) {
            if lsn.0 != expected {
                return Err(format!("record {lsn} where {expected} should be"));
            }
            let id = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            if *bytes != record_of(id, bytes.len()) {
                return Err(format!("record {lsn} was never appended"));
            }
            match self.acked.get(&lsn.0) {
                Some(acked) if *acked != id => {
                    return Err(format!("record {lsn} is {id}, {acked} was acknowledged"));
                }
                None if !self.issued.contains(&id) => {
                    return Err(format!("record {lsn} is {id}, which is from elsewhere"));
                }
                _ => {}
            }
            if !ids.insert(id) {
                return Err(format!("record {id} was found twice"));
            }
            found_by_lsn.insert(lsn.0, id);
        }
        if report.next_lsn.0 != first + found.len() as u64 || report.records != found.len() as u64 {
            return Err(format!("{} records found, reported: {report:?}", found.len()));
        }
        if first > self.truncated.max(1) {
            return Err(format!("the log begins with {first}, not {}", self.truncated));
        }
        if first < self.gone {
            return Err(format!("the log begins with {first}, {} was truncated", self.gone));
        }
        let lost =
            self.acked.range(self.truncated..).find(|(lsn, _)| !found_by_lsn.contains_key(lsn));
        if let Some((lsn, id)) = lost {
            return Err(format!("record {id}, acknowledged as {lsn}, is lost"));
        }
        self.acked = found_by_lsn;
        self.issued.clear();
        self.unawaited.clear();
        Ok(())
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

enum Outcome {
    Appended { id: u64, newer_than: u64, result: Result<Lsn, WalError> },
    Committed(Result<Lsn, WalError>),
    Truncated(Result<Lsn, WalError>),
}

struct Task {
    future: Pin<Box<dyn Future<Output = Outcome>>>,
    flag: Arc<Flag>,
    waker: Waker,
}

impl Task {
    fn new(future: impl Future<Output = Outcome> + 'static) -> Self {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        Self { future: Box::pin(future), flag, waker }
    }
}

struct World {
    random: Random,
    device: SimDevice,
    files: usize,
    config: WalConfig,
    ring: SimConfig,
    in_flight_max: u32,
    model: Model,
    counts: Counts,
}

enum Opened {
    Open(SimWal, Found, Recovery),
    Failed(WalError),
    Crashed,
}

fn turn(shard: &Shard<SimRing>) -> Result<(), String> {
    match shard.turn(Wait::at_least(1)) {
        Ok(_) | Err(EngineError::Busy) => Ok(()),
        Err(error) => Err(format!("a turn failed: {error}")),
    }
}

impl World {
    fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed);
        let files = random.between(2, 5) as usize;
        let align = random.pick(&[1, 512, 512, 4096]);
        let size_bytes = random.pick(&[16, 32, 64]) << 10;
        let spec = FileSpec { size_bytes, align_bytes: align, ..FileSpec::direct(size_bytes) };
        let spec = FileSpec { memory_align_bytes: align, ..spec };
        let unit = align.max(random.pick(&[512, 512, 4096]));
        let config = WalConfig {
            segment_bytes: u64::from(size_bytes),
            block_bytes_max: (unit * random.between(3, 9)).min(size_bytes),
            block_align_bytes: unit,
            in_flight_max: random.between(1, 5),
            record_align: random.pick(&[RecordAlign::Packed, RecordAlign::Sector]),
            ..WalConfig::new()
        };
        let mut ring = SimConfig::hostile(0);
        ring.plant = plant;
        if random.one_in(2) {
            // Fewer errors, so that more blocks are under way when the power goes.
            ring.faults = FaultRates { eio: 0, enospc: 0, flush_fail: 64, ..ring.faults };
        }
        ring.sq_entries = random.pick(&[2, 4, 16, 64]);
        ring.cq_entries = ring.sq_entries * 2;
        let in_flight_max = random.between(2, 32);
        let device = SimDevice::new(&vec![spec; files]);
        let (model, counts) = (Model::default(), Counts::default());
        Self { random, device, files, config, ring, in_flight_max, model, counts }
    }

    fn shard(&mut self, calm: bool) -> (Shard<SimRing>, SimControl) {
        let mut ring = self.ring;
        ring.seed = self.random.bits();
        if calm {
            ring.faults = FaultRates::NONE;
        }
        let ring = SimRing::new(ring, &self.device);
        let control = ring.control();
        let blocks = self.config.in_flight_max + 4;
        let mut classes = vec![
            SizeClass { bytes: 512, count: 4 },
            SizeClass { bytes: self.config.block_bytes_max, count: blocks },
        ];
        if self.config.block_bytes_max > 4096 {
            classes.push(SizeClass { bytes: 4096, count: 4 });
        }
        let config = Config {
            in_flight_max: self.in_flight_max,
            backlog_max: 16,
            arena: ArenaConfig::new(classes),
            drain_ns: 50_000_000,
            ..Config::new()
        };
        (Shard::with_ring(ring, &config).unwrap(), control)
    }

    /// Opens the log; `turns_max` is when the power goes.
    fn open(
        &mut self,
        shard: &Shard<SimRing>,
        control: &SimControl,
        turns_max: Option<u32>,
    ) -> Result<Opened, String> {
        let files = (0..self.files).map(|at| {
            let geometry = self.device.geometry(at);
            shard.adopt_simulated(&format!("segment {at}"), self.device.fd(at), geometry)
        });
        let store = PremadeSegments::new(files.collect(), self.random.bits());
        let found = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&found);
        let visit = async move |lsn, record: &[u8]| {
            seen.borrow_mut().push((lsn, record.to_vec()));
            Ok(())
        };
        let mut opening = Box::pin(Wal::open(shard, store, &self.config, visit));
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&flag));
        for turns in 0..20_000_u32 {
            if flag.0.swap(false, Ordering::Relaxed) {
                match opening.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(Ok((wal, report))) => {
                        drop(opening);
                        let found = found.take();
                        self.counts.recovered += found.len() as u64;
                        self.counts.erased_blocks += u64::from(report.erased_blocks);
                        self.counts.erased_segments += u64::from(report.erased_segments);
                        self.counts.confirmed_blocks += u64::from(report.confirmed_blocks);
                        return Ok(Opened::Open(wal, found, report));
                    }
                    Poll::Ready(Err(error)) => return Ok(Opened::Failed(error)),
                    Poll::Pending => {}
                }
            }
            if turns_max == Some(turns) {
                control.crash();
                self.counts.crashes += 1;
                self.counts.crashes_in_open += 1;
                return Ok(Opened::Crashed);
            }
            turn(shard)?;
        }
        Err(String::from("an open never ends"))
    }

    fn spawn(&mut self, wal: &SimWal, tasks: &mut Vec<Task>) -> Result<(), String> {
        let newer_than = self.model.newest();
        let most = u32::try_from(wal.record_bytes_max()).unwrap();
        let len = match self.random.below(8) {
            0 => self.random.below(most + 1),
            1 => most,
            _ => self.random.below(200.min(most)),
        };
        let wal = wal.clone();
        match self.random.below(16) {
            0 => tasks.push(Task::new(async move { Outcome::Committed(wal.commit().await) })),
            1 if newer_than > 0 => {
                let newest = u32::try_from(newer_than).unwrap();
                let lsn = Lsn(u64::from(self.random.between(1, newest)));
                self.model.truncated = self.model.truncated.max(lsn.0);
                let truncate = async move { Outcome::Truncated(wal.truncate_before(lsn).await) };
                tasks.push(Task::new(truncate));
            }
            2 | 3 => {
                let (id, record) = self.model.issue(len as usize);
                match wal.append_no_wait(&record) {
                    Ok(lsn) => {
                        self.model.unawaited.insert(lsn.0, id);
                    }
                    Err(error) => self.refused(id, &error)?,
                }
            }
            _ => {
                let (id, record) = self.model.issue(len as usize);
                tasks.push(Task::new(async move {
                    let result = wal.append(&record).await;
                    Outcome::Appended { id, newer_than, result }
                }));
            }
        }
        Ok(())
    }

    /// Only a poisoned log leaves it open whether the record is there.
    fn refused(&mut self, id: u64, error: &WalError) -> Result<(), String> {
        match error {
            WalError::Full => self.counts.full += 1,
            WalError::WouldBlock => {}
            WalError::Poisoned { .. } => {
                self.counts.poisoned += 1;
                return Ok(());
            }
            other => return Err(format!("an append failed: {other}")),
        }
        self.model.issued.remove(&id);
        Ok(())
    }

    fn over(&mut self, outcome: Outcome) -> Result<(), String> {
        match outcome {
            Outcome::Appended { id, newer_than, result: Ok(lsn) } => {
                self.counts.acknowledged += 1;
                self.model.ack(lsn, id, newer_than)
            }
            Outcome::Appended { id, result: Err(error), .. } => self.refused(id, &error),
            Outcome::Committed(Ok(lsn)) => {
                let later = self.model.unawaited.split_off(&(lsn.0 + 1));
                for (lsn, id) in std::mem::replace(&mut self.model.unawaited, later) {
                    self.model.ack(Lsn(lsn), id, 0)?;
                }
                Ok(())
            }
            Outcome::Truncated(Ok(_)) => {
                self.counts.truncations += 1;
                Ok(())
            }
            Outcome::Committed(Err(WalError::Poisoned { .. }))
            | Outcome::Truncated(Err(WalError::Open(_) | WalError::NoBuffer { .. })) => Ok(()),
            Outcome::Committed(Err(error)) | Outcome::Truncated(Err(error)) => {
                Err(format!("failed: {error}"))
            }
        }
    }

    /// Polls whatever was woken until nothing is.
    fn poll(&mut self, tasks: &mut Vec<Task>) -> Result<(), String> {
        let mut progress = true;
        while progress {
            progress = false;
            let mut at = 0;
            while at < tasks.len() {
                let task = &mut tasks[at];
                if !task.flag.0.swap(false, Ordering::Relaxed) {
                    at += 1;
                    continue;
                }
                progress = true;
                let polled = task.future.as_mut().poll(&mut Context::from_waker(&task.waker));
                match polled {
                    Poll::Ready(outcome) => {
                        drop(tasks.remove(at));
                        self.over(outcome)?;
                    }
                    Poll::Pending => at += 1,
                }
            }
        }
        Ok(())
    }

    /// Lets all tasks finish.
    fn drain(&mut self, shard: &Shard<SimRing>, tasks: &mut Vec<Task>) -> Result<(), String> {
        for _ in 0..20_000 {
            self.poll(tasks)?;
            if tasks.is_empty() {
                return Ok(());
            }
            turn(shard)?;
        }
        Err(format!("{} tasks never end", tasks.len()))
    }

    /// One life: open, work, and a power cut or a killed process.
    fn live(&mut self) -> Result<(), String> {
        let (shard, control) = self.shard(false);
        let crash_in_open = self.random.one_in(4).then(|| self.random.below(40));
        let opened = self.open(&shard, &control, crash_in_open)?;
        match opened {
            Opened::Open(wal, found, report) => {
                self.model.check(&found, &report)?;
                self.work(&shard, &control, &wal)?;
            }
            Opened::Failed(WalError::Open(_)) => self.counts.opens_failed += 1,
            Opened::Failed(error) => return Err(format!("open: {error}")),
            Opened::Crashed => {}
        }
        self.end(shard, &control)
    }

    fn end(&mut self, shard: Shard<SimRing>, control: &SimControl) -> Result<(), String> {
        drop(shard);
        let stats = control.stats();
        self.counts.short += stats.short_transfers;
        self.counts.eagain += stats.eagain;
        self.counts.flush_failures += stats.flush_failures;
        match control.complaints().first() {
            Some(complaint) => Err(format!("the kernel complains: {complaint:?}")),
            None => Ok(()),
        }
    }

    fn work(
        &mut self,
        shard: &Shard<SimRing>,
        control: &SimControl,
        wal: &SimWal,
    ) -> Result<(), String> {
        let mut tasks = Vec::new();
        let tasks_max = self.random.pick(&[1, 4, 16]);
        let steps = self.random.between(1, 80);
        let blocks = wal.blocks();
        for _ in 0..steps {
            let spawned = self.random.below(tasks_max + 1);
            for _ in 0..spawned {
                if tasks.len() < tasks_max as usize {
                    self.spawn(wal, &mut tasks)?;
                }
            }
            if !tasks.is_empty() && self.random.one_in(16) {
                let count = u32::try_from(tasks.len()).unwrap();
                drop(tasks.swap_remove(self.random.below(count) as usize));
                self.counts.dropped += 1;
            }
            self.poll(&mut tasks)?;
            turn(shard)?;
            if self.random.one_in(2) {
                self.poll(&mut tasks)?;
            }
            if wal.failure().is_some() && self.random.one_in(4) {
                break;
            }
        }
        if self.random.one_in(3) {
            self.drain(shard, &mut tasks)?;
        }
        self.counts.shared_blocks += wal.blocks() - blocks;
        if self.random.one_in(4) {
            self.counts.kills += 1;
        } else {
            control.crash();
            self.counts.crashes += 1;
        }
        Ok(())
    }

    fn images(&self) -> Vec<Vec<u8>> {
        let image = |at| {
            let mut bytes = vec![0; self.device.spec(at).size_bytes as usize];
            self.device.peek(at, 0, &mut bytes);
            bytes
        };
        (0..self.files).map(image).collect()
    }

    /// Everything is found with nothing in the way; found again by a second open, which
    /// changes nothing; and the log takes records.
    fn last_life(&mut self) -> Result<(), String> {
        let mut before: Option<(Found, Vec<Vec<u8>>)> = None;
        for round in 0..3 {
            let (shard, control) = self.shard(true);
            let opened = self.open(&shard, &control, None)?;
            let (wal, found, report) = match opened {
                Opened::Open(wal, found, report) => (wal, found, report),
                Opened::Failed(error) => return Err(format!("the last open: {error}")),
                Opened::Crashed => return Err(String::from("not asked to crash")),
            };
            self.model.check(&found, &report)?;
            if let Some((found_before, images)) = &before {
                if *found_before != found || report.erased_blocks + report.erased_segments > 0 {
                    return Err(String::from("a second open finds something else"));
                }
                if *images != self.images() {
                    return Err(String::from("a second open changes something"));
                }
            }
            before = Some((found, self.images()));
            if round == 1 {
                let mut tasks = Vec::new();
                for _ in 0..4 {
                    let (id, record) = self.model.issue(100);
                    let (wal, newer_than) = (wal.clone(), self.model.newest());
                    tasks.push(Task::new(async move {
                        let result = wal.append(&record).await;
                        Outcome::Appended { id, newer_than, result }
                    }));
                }
                self.drain(&shard, &mut tasks)?;
                before = None;
            }
            drop(wal);
            self.end(shard, &control)?;
        }
        Ok(())
    }
}

fn run(seed: u64, plant: Option<Plant>) -> Result<Counts, String> {
    let mut world = World::new(seed, plant);
    let lives = world.random.between(1, 3);
    for _ in 0..lives {
        world.live()?;
    }
    // At least one power cut in every seed, whatever the lives came to.
    while world.counts.crashes == 0 {
        world.live()?;
    }
    world.last_life()?;
    Ok(world.counts)
}

#[test]
fn f40_ten_thousand_power_cuts_lose_nothing_that_was_acknowledged() {
    let seeds: u64 = std::env::var("WAL_SEEDS").map_or(10_000, |seeds| seeds.parse().unwrap());
    let first: u64 = std::env::var("WAL_SEED").map_or(0, |seed| seed.parse().unwrap());
    let next = AtomicU64::new(first);
    let worker = || {
        let mut counts = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return counts;
            }
            match run(seed, None) {
                Ok(seen) => counts.add(&seen),
                Err(violation) => panic!("WAL_SEED={seed} WAL_SEEDS=1: {violation}"),
            }
        }
    };
    let mut counts = Counts::default();
    std::thread::scope(|scope| {
        let workers = [scope.spawn(worker), scope.spawn(worker)];
        for worker in workers {
            counts.add(&worker.join().unwrap());
        }
    });
    println!("{seeds} seeds: {counts:?}");
    if seeds >= 10_000 {
        assert!(counts.crashes >= 10_000, "{counts:?}");
        let seen = [
            counts.crashes_in_open,
            counts.kills,
            counts.acknowledged,
            counts.recovered,
            counts.poisoned,
            counts.opens_failed,
            counts.erased_blocks,
            counts.erased_segments,
            counts.confirmed_blocks,
            counts.truncations,
            counts.full,
            counts.dropped,
            counts.short,
            counts.eagain,
            counts.flush_failures,
        ];
        assert!(seen.iter().all(|&count| count > 0), "{counts:?}");
        assert!(counts.acknowledged > 2 * counts.shared_blocks / 3, "{counts:?}");
    }
}

fn expect_caught(plant: Plant, budget: u64) {
    let caught = (0..budget).find_map(|seed| Some((seed, run(seed, Some(plant)).err()?)));
    let (seed, violation) = caught.unwrap_or_else(|| {
        panic!("{} survives {budget} seeds", plant.name());
    });
    println!("{}: seed {seed}: {violation}", plant.name());
    assert!(run(seed, None).is_ok(), "the same seed without the bug is clean");
}

#[test]
fn f14_acknowledgement_before_the_flush_is_caught() {
    expect_caught(Plant::AckBeforeFlush, 200);
}

#[test]
fn f14_flush_before_the_write_is_whole_is_caught() {
    expect_caught(Plant::FlushEarly, 200);
}

#[test]
fn f11_short_write_taken_for_a_whole_one_is_caught() {
    expect_caught(Plant::AcceptShort, 200);
}
