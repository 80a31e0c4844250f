//! The log on real files and rings, and the failures that have a name.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::Cell;
use std::fs;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use mfio_core::{ErrorKind, block_on};
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::sim::{FaultRates, FileSpec, SimConfig, SimDevice, SimRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{AutoRing, Ring, Wait};
use mfio_engine::wal::{
    Growing, Lsn, PremadeSegments, RecordAlign, Recovery, SegmentDir, SegmentStore, Wal, WalConfig,
    WalError,
};
use mfio_engine::{Config, DirectMode, File, OpenOptions, Shard, SyncMethod};

const SMALL: WalConfig =
    WalConfig { segment_bytes: 64 << 10, block_bytes_max: 16 << 10, ..WalConfig::new() };

type Found = Vec<(Lsn, Vec<u8>)>;
type Appending<'a> = Pin<Box<dyn Future<Output = Result<Lsn, WalError>> + 'a>>;

fn record_of(number: u64) -> Vec<u8> {
    let len = 8 + usize::try_from(number * 37 % 900).unwrap();
    let mut record = number.to_le_bytes().to_vec();
    record.resize(len, number.to_le_bytes()[0]);
    record
}

async fn open_in<R: Ring + 'static>(
    shard: &Shard<R>,
    store: SegmentDir,
    config: &WalConfig,
) -> Result<(Wal<R>, Found, Recovery), WalError> {
    let mut found = Vec::new();
    let visit = async |lsn, record: &[u8]| {
        found.push((lsn, record.to_vec()));
        Ok(())
    };
    let (wal, report) = Wal::open(shard, store, config, visit).await?;
    Ok((wal, found, report))
}

fn open<R: Ring + 'static>(
    shard: &Shard<R>,
    dir: &Path,
) -> Result<(Wal<R>, Found, Recovery), WalError> {
    block_on(shard, open_in(shard, SegmentDir::new(dir), &SMALL)).unwrap()
}

/// Awaits all of them at once, in whatever order they end.
async fn all(mut appends: Vec<Appending<'_>>) -> Vec<Result<Lsn, WalError>> {
    let mut results: Vec<_> = appends.iter().map(|_| None).collect();
    poll_fn(|cx| {
        for (append, result) in appends.iter_mut().zip(&mut results) {
            if result.is_none()
                && let Poll::Ready(ready) = append.as_mut().poll(cx)
            {
                *result = Some(ready);
            }
        }
        let over = results.iter().all(Option::is_some);
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

fn append_all<R: Ring>(
    shard: &Shard<R>,
    wal: &Wal<R>,
    numbers: std::ops::Range<u64>,
) -> Vec<Result<Lsn, WalError>> {
    let records: Vec<_> = numbers.map(record_of).collect();
    let appends = records.iter().map(|record| Box::pin(wal.append(record)) as Appending<'_>);
    block_on(shard, all(appends.collect())).unwrap()
}

fn check(found: &Found, first: u64, next: u64) {
    assert_eq!(found.len() as u64, next - first);
    for ((lsn, record), expected) in found.iter().zip(first..) {
        assert_eq!((lsn.0, record), (expected, &record_of(expected)));
    }
}

fn kernel_ring() -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(64)).map_err(|error| println!("SKIP: {error}")).ok()
}

fn lives<R: Ring + 'static>(ring: impl Fn() -> R, direct: DirectMode) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut next = 1;
    let mut first = 1;
    for life in 0..4 {
        let shard = Shard::with_ring(ring(), &Config::new()).unwrap();
        let record_align = if life % 2 == 0 { RecordAlign::Packed } else { RecordAlign::Sector };
        let config = WalConfig { record_align, in_flight_max: 1 + life, ..SMALL };
        let store = SegmentDir::new(dir.path()).direct(direct);
        let opened = block_on(&shard, open_in(&shard, store, &config)).unwrap();
        let (wal, found, report) = opened.unwrap();
        check(&found, first, next);
        assert_eq!(report.next_lsn, Lsn(next));
        for _ in 0..4 {
            let results = append_all(&shard, &wal, next..next + 100);
            for (result, expected) in results.into_iter().zip(next..) {
                assert_eq!(result, Ok(Lsn(expected)));
            }
            next += 100;
            assert_eq!(wal.durable_lsn(), Lsn(next - 1));
            let before = Lsn(next.saturating_sub(150).max(1));
            let oldest = block_on(&shard, wal.truncate_before(before)).unwrap().unwrap();
            assert!(oldest <= before && oldest >= Lsn(first));
            first = oldest.0;
        }
        assert!(wal.blocks() < 400, "records share blocks");
    }
    assert!(first > 1000, "old records were given back");
    let segments = fs::read_dir(dir.path()).unwrap().count();
    assert!(segments < 12, "segments are used again: {segments} files");
}

#[test]
fn f39_log_survives_lives_on_the_kernel_ring() {
    if kernel_ring().is_some() {
        lives(|| kernel_ring().unwrap(), DirectMode::PreferDirect);
        lives(|| kernel_ring().unwrap(), DirectMode::Buffered);
    }
}

#[test]
fn f39_log_survives_lives_on_threads() {
    lives(|| ThreadRing::new(2, 64).unwrap(), DirectMode::PreferDirect);
}

#[test]
fn record_too_long_is_refused_and_empty_one_is_not() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let (wal, ..) = open(&shard, dir.path()).unwrap();
    let most = wal.record_bytes_max();
    let (longest, longer) = (vec![1; most], vec![1; most + 1]);
    let refused = WalError::RecordTooLong { len_bytes: most + 1, max_bytes: most };
    assert_eq!(block_on(&shard, wal.append(&longer)).unwrap(), Err(refused.clone()));
    assert_eq!(wal.append_no_wait(&longer), Err(refused));
    assert_eq!(wal.next_lsn(), Lsn(1), "nothing of it was taken");
    assert_eq!(block_on(&shard, wal.append(&[])).unwrap(), Ok(Lsn(1)));
    for expected in 2..12 {
        assert_eq!(block_on(&shard, wal.append(&longest)).unwrap(), Ok(Lsn(expected)));
    }
    drop(wal);
    let (_wal, found, _) = open(&shard, dir.path()).unwrap();
    assert_eq!(found.len(), 11);
    assert!(found[0].1.is_empty() && found[10].1 == longest);
}

#[test]
fn record_that_nobody_waits_for_is_durable_after_a_commit() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let (wal, ..) = open(&shard, dir.path()).unwrap();
    for number in 1..=10 {
        assert_eq!(wal.append_no_wait(&record_of(number)), Ok(Lsn(number)));
    }
    assert_eq!(wal.durable_lsn(), Lsn(0));
    assert_eq!(block_on(&shard, wal.commit()).unwrap(), Ok(Lsn(10)));
    assert_eq!((wal.durable_lsn(), wal.blocks()), (Lsn(10), 1));
    drop(wal);
    check(&open(&shard, dir.path()).unwrap().1, 1, 11);
}

#[test]
fn f46_second_opener_is_refused_until_the_first_has_gone() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let first = open(&shard, dir.path()).unwrap();
    let refused = open(&shard, dir.path()).err();
    assert!(matches!(refused, Some(WalError::Directory { .. })), "{refused:?}");
    drop(first);
    assert!(open(&shard, dir.path()).is_ok());
}

/// Where the blocks of a segment begin: at multiples of 512 that look like one.
fn block_offsets(bytes: &[u8]) -> Vec<usize> {
    (512..bytes.len()).step_by(512).filter(|&at| bytes[at..].starts_with(b"WBLK")).collect()
}

#[test]
fn f41_rot_in_the_middle_is_damage_and_nothing_is_erased() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let (wal, ..) = open(&shard, dir.path()).unwrap();
    for number in 1..20 {
        block_on(&shard, wal.append(&record_of(number))).unwrap().unwrap();
    }
    drop(wal);
    let is_used = |path: &Path| fs::read(path).is_ok_and(|bytes| !block_offsets(&bytes).is_empty());
    let segment = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.into_iter().find(|path| is_used(path)).unwrap();
    let sound = fs::read(&segment).unwrap();
    let blocks = block_offsets(&sound);
    for (number, &at) in blocks.iter().enumerate() {
        let mut rotten = sound.clone();
        rotten[at + 100] ^= 1;
        fs::write(&segment, &rotten).unwrap();
        let opened = open(&shard, dir.path());
        if number + 1 == blocks.len() {
            // The last block is no different from one that was being written.
            check(&opened.unwrap().1, 1, 19);
            continue;
        }
        let lsn = Lsn(number as u64 + 1);
        assert!(
            matches!(opened, Err(WalError::Damaged { lsn: missing, .. }) if missing == lsn),
            "block {number}"
        );
        assert_eq!(fs::read(&segment).unwrap(), rotten, "nothing was changed");
    }
}

#[test]
fn segments_of_two_logs_are_told_apart() {
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let dirs = [(); 2].map(|()| tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    for dir in &dirs {
        let (wal, ..) = open(&shard, dir.path()).unwrap();
        block_on(&shard, wal.append(b"mine")).unwrap().unwrap();
    }
    for entry in fs::read_dir(dirs[0].path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|suffix| suffix == "segment") {
            let other = dirs[1].path().join(format!("9{}", path.file_name().unwrap().display()));
            fs::copy(&path, other).unwrap();
        }
    }
    let opened = open(&shard, dirs[1].path());
    assert!(matches!(opened, Err(WalError::Mixed { .. })), "{:?}", opened.err());
}

const FILE_BYTES: u32 = 64 << 10;

fn simulated(device: &SimDevice, faults: FaultRates) -> Shard<SimRing> {
    let ring = SimRing::new(SimConfig { faults, ..SimConfig::calm(3) }, device);
    let classes = vec![
        SizeClass { bytes: 512, count: 8 },
        SizeClass { bytes: 4096, count: 8 },
        SizeClass { bytes: 16 << 10, count: 8 },
    ];
    let config = Config { arena: ArenaConfig::new(classes), ..Config::new() };
    Shard::with_ring(ring, &config).unwrap()
}

fn open_simulated(
    shard: &Shard<SimRing>,
    device: &SimDevice,
    salt: u64,
) -> Result<(Wal<SimRing>, Found), WalError> {
    let file = shard.adopt_simulated("the log", device.fd(0), device.geometry(0));
    let mut found = Vec::new();
    let visit = async |lsn, record: &[u8]| {
        found.push((lsn, record.to_vec()));
        Ok(())
    };
    let config = WalConfig { block_bytes_max: 4096, ..SMALL };
    let opening = Wal::open(shard, PremadeSegments::new(vec![file], salt), &config, visit);
    let (wal, _report) = block_on(shard, opening).unwrap()?;
    Ok((wal, found))
}

#[test]
fn f37_failed_flush_poisons_the_log_until_it_is_opened_anew() {
    let device = SimDevice::new(&[FileSpec::direct(FILE_BYTES)]);
    let calm = simulated(&device, FaultRates::NONE);
    let (wal, _) = open_simulated(&calm, &device, 1).unwrap();
    assert!(append_all(&calm, &wal, 1..6).iter().all(Result::is_ok));
    drop((wal, calm));
    // One in three flushes fails, so some opens succeed and some appends do.
    let faults = FaultRates { flush_fail: 20_000, ..FaultRates::NONE };
    let shard = simulated(&device, faults);
    let (wal, found) = (2..).find_map(|salt| open_simulated(&shard, &device, salt).ok()).unwrap();
    check(&found, 1, 6);
    let mut next = 6;
    let failed = loop {
        let results = append_all(&shard, &wal, next..next + 10);
        next += 10;
        let failed = results.into_iter().filter_map(Result::err).collect::<Vec<_>>();
        if !failed.is_empty() {
            break failed;
        }
    };
    for error in &failed {
        let WalError::Poisoned { first, durable_lsn } = error else { panic!("{error}") };
        assert_eq!((first.op, &first.target[..]), ("durable write", "the log"));
        assert_eq!(first.error.kind(), ErrorKind::Poisoned);
        assert_eq!(*durable_lsn, wal.durable_lsn());
    }
    // Nothing is accepted any more, not even when flushes would succeed.
    let refused = block_on(&shard, wal.append(b"later")).unwrap();
    assert_eq!(refused.as_ref(), Err(&failed[0]));
    assert_eq!(wal.append_no_wait(b"later").as_ref(), Err(&failed[0]));
    assert!(block_on(&shard, wal.commit()).unwrap().is_err());
    let durable = wal.durable_lsn();
    drop((wal, shard));
    let calm = simulated(&device, FaultRates::NONE);
    let (wal, found) = open_simulated(&calm, &device, 99).unwrap();
    assert!(found.len() as u64 >= durable.0);
    assert!(block_on(&calm, wal.append(b"opened anew")).unwrap().is_ok());
}

#[test]
fn f42_full_device_surfaces_before_the_acknowledgement() {
    let space_sectors = Some(20);
    let device = SimDevice::new(&[FileSpec { space_sectors, ..FileSpec::direct(FILE_BYTES) }]);
    let shard = simulated(&device, FaultRates::NONE);
    let (wal, _) = open_simulated(&shard, &device, 1).unwrap();
    let mut acked = 0;
    let error = loop {
        match block_on(&shard, wal.append(&record_of(acked + 1))).unwrap() {
            Ok(lsn) => acked = lsn.0,
            Err(error) => break error,
        }
    };
    let WalError::Poisoned { first, durable_lsn } = &error else { panic!("{error}") };
    assert_eq!((first.error.kind(), *durable_lsn), (ErrorKind::NoSpace, Lsn(acked)));
    assert!(acked > 5);
    drop((wal, shard));
    device.add_space(0, 1000);
    let shard = simulated(&device, FaultRates::NONE);
    let (wal, found) = open_simulated(&shard, &device, 2).unwrap();
    assert!(found.len() as u64 >= acked);
    check(&found, 1, found.len() as u64 + 1);
    assert!(block_on(&shard, wal.append(b"there is room again")).unwrap().is_ok());
}

#[test]
fn waiters_go_on_when_the_one_that_leads_is_dropped() {
    let device = SimDevice::new(&[FileSpec::direct(FILE_BYTES)]);
    let shard = simulated(&device, FaultRates::NONE);
    let (wal, _) = open_simulated(&shard, &device, 1).unwrap();
    for turns in 0..6 {
        let records = [record_of(1), record_of(2), record_of(3)];
        let mut first = Box::pin(wal.append(&records[0]));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        let rest = records[1..].iter().map(|r| Box::pin(wal.append(r)) as Appending<'_>);
        let mut rest = pin!(all(rest.collect()));
        assert!(rest.as_mut().poll(&mut cx).is_pending());
        for _ in 0..turns {
            shard.turn(Wait::NONE).unwrap();
        }
        drop(first);
        let results = block_on(&shard, rest).unwrap();
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }
}

#[test]
fn one_waiter_costs_one_block_and_two_enters_a_record() {
    let Some(ring) = kernel_ring() else { return };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let linked = WalConfig { sync_method: Some(SyncMethod::LinkedFlush), ..SMALL };
    let opened = block_on(&shard, open_in(&shard, SegmentDir::new(dir.path()), &linked)).unwrap();
    let (wal, ..) = opened.unwrap();
    let (before, blocks) = (shard.metrics(), wal.blocks());
    const RECORDS: u64 = 50;
    for _ in 0..RECORDS {
        let mut append = pin!(wal.append(b"alone"));
        let mut cx = Context::from_waker(Waker::noop());
        while append.as_mut().poll(&mut cx).is_pending() {
            shard.turn(Wait::at_least(1)).unwrap();
        }
    }
    let after = shard.metrics();
    assert_eq!(wal.blocks() - blocks, RECORDS);
    let (enters, ops) = (after.enters - before.enters, after.ops - before.ops);
    println!("{enters} enters and {ops} ops for {RECORDS} records");
    assert_eq!(ops, 2 * RECORDS, "a write and the flush linked to it");
    // One more arms the ring's waker.
    assert!(enters <= 2 * RECORDS + 1);
}

/// As [`SMALL`], with nothing made ahead of need.
const LAZY: WalConfig = WalConfig { segments_ready: 0, ..SMALL };

/// Says whether a future was woken, without polling it for anybody else's sake.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls each future only when it was woken, until the first is ready.
fn drive<'a, R: Ring, T>(
    shard: &Shard<R>,
    first: Pin<&'a mut (dyn Future<Output = T> + 'a)>,
    other: Pin<&'a mut (dyn Future<Output = T> + 'a)>,
) -> T {
    let mut futures = [first, other];
    let flags = [(); 2].map(|()| Arc::new(Flag(AtomicBool::new(true))));
    let mut over = [false; 2];
    let mut quiet = 0;
    loop {
        quiet += 1;
        // The other one first: it is there already.
        for at in [1, 0] {
            if over[at] || !flags[at].0.swap(false, Ordering::Relaxed) {
                continue;
            }
            quiet = 0;
            let waker = Waker::from(Arc::clone(&flags[at]));
            match futures[at].as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(ready) if at == 0 => return ready,
                Poll::Ready(_) => over[at] = true,
                Poll::Pending => {}
            }
        }
        let _reaped = shard.turn(Wait::at_least(1)).unwrap();
        assert!(quiet < 3 || shard.in_flight() > 0, "nobody was woken, and nothing is under way");
    }
}

#[test]
fn append_gets_a_segment_while_the_leader_waits_for_a_record_of_the_future() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let opened = block_on(&shard, open_in(&shard, SegmentDir::new(dir.path()), &LAZY)).unwrap();
    let (wal, ..) = opened.unwrap();
    let record = vec![1; 15 << 10];
    let mut tailing = pin!(wal.durable(Lsn(u64::MAX)));
    for next in 1..20 {
        let append = pin!(wal.append(&record));
        assert_eq!(drive(&shard, append, tailing.as_mut()), Ok(Lsn(next)));
    }
}

#[test]
fn record_put_without_waiting_wakes_who_waits_for_its_number() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let (wal, ..) = open(&shard, dir.path()).unwrap();
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(Arc::clone(&flag));
    let mut tailing = pin!(wal.durable(Lsn(1)));
    assert!(tailing.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(!flag.0.load(Ordering::Relaxed));
    assert_eq!(wal.append_no_wait(b"it"), Ok(Lsn(1)));
    assert!(flag.0.load(Ordering::Relaxed), "nobody else seals the block");
    assert_eq!(block_on(&shard, tailing).unwrap(), Ok(Lsn(1)));
}

/// How a truncation ends before it is done.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Early {
    Dropped,
    /// Polling it panics: the waker of before does when it is dropped.
    Panicked,
}

struct PanicsWhenDropped;

impl Wake for PanicsWhenDropped {
    fn wake(self: Arc<Self>) {
        let _kept = Arc::into_raw(self);
    }

    fn wake_by_ref(self: &Arc<Self>) {}
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a waker: this panic belongs to the test");
    }
}

/// Polls it up to so many times; whether that panicked.
fn begin<F: Future>(mut truncation: Pin<&mut F>, shard: &Shard<SimRing>, moments: u64) -> bool {
    let waker = Waker::from(Arc::new(PanicsWhenDropped));
    for moment in 1..=moments {
        if truncation.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            break;
        }
        // In the end, what was sent is only just on its way.
        let wait = if moment < moments { Wait::at_least(1) } else { Wait::NONE };
        let _reaped = shard.turn(wait).unwrap();
    }
    let last = catch_unwind(AssertUnwindSafe(|| drop(waker)));
    let polled = || truncation.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    last.is_ok() && catch_unwind(AssertUnwindSafe(polled)).is_err()
}

/// A truncation that ends early at every possible moment, the next one, and the next use of
/// the segment: nothing that the first has sent may come last.
fn truncation_never_marks_a_later_use_of_its_segment(early: Early) {
    let slow = FaultRates { start_delay: 30_000, delay: 30_000, ..FaultRates::NONE };
    let config = WalConfig { block_bytes_max: 4096, in_flight_max: 1, ..SMALL };
    let adopt = |shard: &Shard<SimRing>, device: &SimDevice| {
        let file = |at| shard.adopt_simulated("a segment", device.fd(at), device.geometry(at));
        (0..3).map(file).collect::<Vec<_>>()
    };
    let record = vec![5; 3000];
    let mut panicked = 0;
    for seed in 0..400 {
        let device = SimDevice::new(&[FileSpec::direct(16 << 10); 3]);
        let calm = SimConfig { latency_ns_max: 5_000_000, ..SimConfig::calm(seed) };
        let ring = SimRing::new(SimConfig { faults: slow, ..calm }, &device);
        let shard = Shard::with_ring(ring, &Config::new()).unwrap();
        let store = PremadeSegments::new(adopt(&shard, &device), 1);
        let (wal, _) = block_on(&shard, Wal::open(&shard, store, &config, async |_, _| Ok(())))
            .unwrap()
            .unwrap();
        for next in 1..9 {
            assert_eq!(block_on(&shard, wal.append(&record)).unwrap(), Ok(Lsn(next)));
        }
        {
            let mut dropped = pin!(wal.truncate_before(Lsn(9)));
            let moments = 1 + seed % 4;
            match early {
                Early::Panicked => panicked += u64::from(begin(dropped, &shard, moments)),
                Early::Dropped => {
                    let mut cx = Context::from_waker(Waker::noop());
                    for moment in 1..=moments {
                        if dropped.as_mut().poll(&mut cx).is_ready() {
                            break;
                        }
                        // In the end, what was sent is only just on its way.
                        let wait = if moment < moments { Wait::at_least(1) } else { Wait::NONE };
                        let _reaped = shard.turn(wait).unwrap();
                    }
                    // A device need not heed a cancel: the write could land at any later time.
                    let cancels = shard.metrics().cancels;
                    assert_eq!(cancels, 0, "seed {seed}: its write is abandoned");
                }
            }
        }
        let oldest = block_on(&shard, wal.truncate_before(Lsn(9))).unwrap().unwrap();
        assert!(oldest > Lsn(1));
        let mut next = 9;
        while block_on(&shard, wal.append(&record)).unwrap() == Ok(Lsn(next)) {
            next += 1;
        }
        assert!(next > 9, "segments were used again");
        drop(wal);
        while shard.in_flight() > 0 {
            let _reaped = shard.turn(Wait::at_least(1)).unwrap();
        }
        let mut found = Vec::new();
        let store = PremadeSegments::new(adopt(&shard, &device), 2);
        let visit = async |lsn: Lsn, _: &[u8]| {
            found.push(lsn.0);
            Ok(())
        };
        let opened = block_on(&shard, Wal::open(&shard, store, &config, visit)).unwrap();
        assert!(opened.is_ok(), "seed {seed}: {opened:?}");
        assert_eq!(found, (oldest.0..next).collect::<Vec<_>>(), "seed {seed}");
    }
    assert_eq!(panicked > 50, early == Early::Panicked, "{panicked}");
}

#[test]
fn dropped_truncation_never_marks_a_later_use_of_its_segment() {
    truncation_never_marks_a_later_use_of_its_segment(Early::Dropped);
}

#[test]
fn truncation_that_panics_never_marks_a_later_use_of_its_segment() {
    truncation_never_marks_a_later_use_of_its_segment(Early::Panicked);
}

#[test]
fn segment_shorter_than_a_block_is_not_begun() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let (wal, ..) = open(&shard, dir.path()).unwrap();
    block_on(&shard, wal.append(b"short")).unwrap().unwrap();
    drop(wal);
    // What is left over of the first life is shorter than one block of the second.
    let wide =
        WalConfig { segment_bytes: 256 << 10, block_bytes_max: 128 << 10, ..WalConfig::new() };
    let opened = block_on(&shard, open_in(&shard, SegmentDir::new(dir.path()), &wide)).unwrap();
    let (wal, found, _) = opened.unwrap();
    assert_eq!(found, [(Lsn(1), b"short".to_vec())]);
    let long = vec![7; wal.record_bytes_max()];
    for next in 2..8 {
        assert_eq!(block_on(&shard, wal.append(&long)).unwrap(), Ok(Lsn(next)));
    }
    // The first segment of all is not used again either.
    block_on(&shard, wal.truncate_before(Lsn(7))).unwrap().unwrap();
    for next in 8..14 {
        assert_eq!(block_on(&shard, wal.append(&long)).unwrap(), Ok(Lsn(next)));
    }
}

#[test]
fn redo_waits_for_its_io_and_its_error_ends_the_opening() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let shard = Shard::new(16).unwrap();
    let log = || SegmentDir::new(&dir.path().join("log"));
    let (wal, ..) = block_on(&shard, open_in(&shard, log(), &SMALL)).unwrap().unwrap();
    for number in 0..100_u64 {
        block_on(&shard, wal.append(&number.to_le_bytes())).unwrap().unwrap();
    }
    drop(wal);
    let pages = dir.path().join("pages");
    let options = OpenOptions::new().write(true).create(true);
    let pages = shard.open(&pages, &options).unwrap();
    let redo = async |upto: Lsn| {
        let visit = async |lsn: Lsn, record: &[u8]| {
            if lsn > upto {
                return Err(format!("no page for {record:?}").into());
            }
            Ok(pages.write_all_at(8 * (lsn.0 - 1), record.to_vec()).await.0?)
        };
        Wal::open(&shard, log(), &SMALL, visit).await.map(|(_, report)| report.records)
    };
    let refused = block_on(&shard, redo(Lsn(7))).unwrap().unwrap_err();
    let why = format!("no page for {:?}", 7_u64.to_le_bytes());
    assert_eq!(refused, WalError::Refused { lsn: Lsn(8), why });
    let (read, redone) = block_on(&shard, pages.read_exact_at(0, vec![0; 56])).unwrap();
    assert_eq!(read, Ok(()), "those before it were");
    assert_eq!(redone[48..], 6_u64.to_le_bytes());
    assert_eq!(block_on(&shard, redo(Lsn(100))).unwrap(), Ok(100), "nothing was changed");
    let (read, redone) = block_on(&shard, pages.read_exact_at(0, vec![0; 800])).unwrap();
    assert_eq!(read, Ok(()));
    assert_eq!(redone, (0..100_u64).flat_map(u64::to_le_bytes).collect::<Vec<_>>());
}

/// Polls `future` once, and gives it back.
async fn polled_once<F: Future + Unpin>(mut future: F) -> F {
    std::future::poll_fn(|cx| {
        let _first = Pin::new(&mut future).poll(cx);
        Poll::Ready(())
    })
    .await;
    future
}

#[test]
fn appends_that_are_dropped_leaked_or_kept_unpolled_do_not_stall_the_others() {
    for shard in [Backend::Auto, Backend::Threads].map(|backend| {
        let ring = AutoRing::new(backend, &AutoConfig::new(16)).unwrap();
        Shard::with_ring(ring, &Config::new()).unwrap()
    }) {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let config = WalConfig { segment_bytes: 1 << 20, ..WalConfig::new() };
        let opening = Wal::open(&shard, SegmentDir::new(dir.path()), &config, async |_, _| Ok(()));
        let (wal, _report) = shard.block_on(opening).unwrap().unwrap();
        for how in 0..3 {
            let others = shard.block_on(async {
                // Several in a row, so that each of them may come to lead.
                for _ in 0..3 {
                    let wal: &'static Wal<AutoRing> = Box::leak(Box::new(wal.clone()));
                    let append = polled_once(wal.append(b"left")).await;
                    match how {
                        0 => drop(append),
                        1 => {
                            let _leaked = Box::leak(Box::new(append));
                        }
                        _ => drop(shard.spawn(async move {
                            std::future::pending::<()>().await;
                            drop(append);
                        })),
                    }
                }
                let mut others = Vec::new();
                for _ in 0..8 {
                    let wal = wal.clone();
                    let task = shard.spawn(async move {
                        for _ in 0..20 {
                            wal.append(b"served").await.unwrap();
                        }
                    });
                    others.push(task.unwrap());
                }
                let limit_ns = shard.now_ns() + 10_000_000_000;
                for other in others {
                    let mut other = Box::pin(other);
                    let mut limit = shard.sleep_until(limit_ns);
                    let won = std::future::poll_fn(|cx| {
                        if other.as_mut().poll(cx).is_ready() {
                            return Poll::Ready(true);
                        }
                        Pin::new(&mut limit).poll(cx).map(|()| false)
                    });
                    if !won.await {
                        return false;
                    }
                }
                true
            });
            assert!(others.unwrap(), "{:?}: way {how}", shard.features().kind);
        }
    }
}

/// A caller's waker is called for each record that is durable, whoever else's panics.
#[test]
fn waker_that_panics_keeps_no_other_append_from_being_told() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("a waker");
        }
    }
    struct Told(AtomicBool);
    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let shard = Shard::with_ring(ThreadRing::new(2, 64).unwrap(), &Config::new()).unwrap();
    let (wal, _, _) = open(&shard, dir.path()).unwrap();
    let told = Arc::new(Told(AtomicBool::new(false)));
    let mut appends = [b"first ", b"second", b"third "].map(|record| Box::pin(wal.append(record)));
    let wakers = [Waker::noop().clone(), Waker::from(Arc::new(Panics)), Waker::from(told.clone())];
    for (append, waker) in appends.iter_mut().zip(&wakers) {
        assert!(append.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    for _ in 0..3 {
        let commit = std::panic::AssertUnwindSafe(|| block_on(&shard, wal.commit()));
        let _panicked = std::panic::catch_unwind(commit);
    }
    let third = appends[2].as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(third, Poll::Ready(Ok(_))), "{third:?}");
    assert!(told.0.load(Ordering::Relaxed), "it is durable, and nobody has said so");
}

/// A store that panics once, as soon as it makes a segment or draws the salt of one.
struct Panicking {
    store: SegmentDir,
    making: Rc<Cell<bool>>,
    drawing: Rc<Cell<bool>>,
}

impl<R: Ring + 'static> SegmentStore<R> for Panicking {
    fn existing(&mut self, shard: &Shard<R>) -> Result<Vec<File<R>>, WalError> {
        self.store.existing(shard)
    }

    fn grow(&mut self, shard: &Shard<R>, segment_bytes: u64) -> Option<Growing<R>> {
        if self.making.take() {
            return Some(Box::pin(async { panic!("a store: this panic belongs to the test") }));
        }
        self.store.grow(shard, segment_bytes)
    }

    fn draw(&mut self) -> u64 {
        assert!(!self.drawing.take(), "a store: this panic belongs to the test");
        SegmentStore::<R>::draw(&mut self.store)
    }
}

/// Neither whoever drove nor what was being made is waited for ever after.
#[test]
fn store_that_panics_once_does_not_stop_the_log() {
    for draws in [false, true] {
        let temp = tempfile::tempdir().unwrap();
        let shard = Shard::new(16).unwrap();
        let [making, drawing] = [(); 2].map(|()| Rc::new(Cell::new(false)));
        let panics = Rc::clone(if draws { &drawing } else { &making });
        let store = Panicking { store: SegmentDir::new(temp.path()), making, drawing };
        let opening = Wal::open(&shard, store, &LAZY, async |_lsn, _record: &[u8]| Ok(()));
        let (wal, _report) = block_on(&shard, opening).unwrap().unwrap();
        panics.set(true);
        let mut panicked = 0;
        // More than one segment.
        for _ in 0..40 {
            let append = || block_on(&shard, wal.append(&[7; 4000])).unwrap();
            match catch_unwind(AssertUnwindSafe(append)) {
                Ok(appended) => drop(appended.unwrap()),
                Err(_) => panicked += 1,
            }
        }
        assert!(!panics.get() && panicked <= 1, "{panicked}");
    }
}
