//! Batches: the steps apart and as one call, neighbours joined, and no difference to be seen.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::path::Path;
use std::task::{Context, Poll, Waker};

use mfio_core::{AlignedBuf, Buffer, ErrorKind, Packet, PacketIoExt, Read, Write, block_on};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::sim::SimRing;
use mfio_engine::ring::sim::{FaultRates, FileSpec, Random, SimConfig, SimControl, SimDevice};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Batch, Config, DirectMode, File, Full, OpenOptions, Shard};

const PAGE: usize = 4096;

fn config(in_flight_max: u32, coalesce: bool) -> Config {
    let mut arena = ArenaConfig::new(vec![
        SizeClass { bytes: 4096, count: 128 },
        SizeClass { bytes: 16 << 10, count: 16 },
    ]);
    arena.poison_released = true;
    Config { in_flight_max, arena, coalesce, ..Config::new() }
}

struct Rig {
    shard: Shard<SimRing>,
    file: File<SimRing>,
    device: SimDevice,
    control: SimControl,
}

fn rig(sim: SimConfig, config: &Config, pages: u32) -> Rig {
    let device = SimDevice::new(&[FileSpec::direct(pages * 4096)]);
    let ring = SimRing::new(sim, &device);
    let control = ring.control();
    let shard = Shard::with_ring(ring, config).unwrap();
    let file = shard.adopt_simulated("sim", device.fd(0), device.geometry(0));
    Rig { shard, file, device, control }
}

fn settle(shard: &Shard<SimRing>) {
    for _ in 0..10_000 {
        if shard.is_idle() {
            return;
        }
        shard.turn(Wait::at_least(1)).unwrap();
    }
    panic!("it never ends");
}

#[test]
fn steps_apart_take_one_enter_and_entries_are_reused() {
    let Rig { shard, file, device, .. } = rig(SimConfig::calm(1), &config(64, true), 64);
    device.poke(0, 0, &[5; 64 * PAGE]);
    let mut batch = shard.batch::<4, ArenaBuf>();
    let page = |shard: &Shard<SimRing>| shard.arena().alloc(PAGE).unwrap();
    for round in 0..20_u64 {
        for entry in 0..4 {
            let index = batch.push_read(&file, (round * 8 + entry * 2) % 64 * 4096, page(&shard));
            assert!(index.is_ok());
        }
        let Err(Full(_buffer)) = batch.push_read(&file, 0, page(&shard)) else {
            panic!("four entries are all there are")
        };
        let enters = shard.metrics().enters;
        assert_eq!((batch.len(), batch.unsubmitted()), (4, 4));
        assert_eq!(batch.submit().unwrap(), 4);
        assert_eq!((shard.metrics().enters - enters, batch.unsubmitted()), (1, 0));
        while batch.ready() < 4 {
            shard.turn(Wait::at_least(1)).unwrap();
        }
        while let Some(reaped) = batch.reap() {
            assert_eq!(reaped.result, Ok(()));
            assert!(reaped.buffer.iter().all(|&byte| byte == 5));
        }
        assert!(batch.is_empty() && batch.reap().is_none());
    }
}

/// One entry of a drawn batch.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    is_read: bool,
    page: u32,
    pages: u32,
    stamp: u8,
}

/// Ranges that do not overlap, many of them neighbours, in any order.
fn draw(random: &mut Random, pages: u32) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut page = random.below(4);
    while page < pages + 4 && wanted.len() < 48 {
        let len = random.pick(&[1, 1, 1, 2, 3]);
        let is_read = random.below(8) < 5;
        let stamp = u8::try_from(random.between(1, 120)).unwrap();
        wanted.push(Wanted { is_read, page, pages: len, stamp });
        page += len + random.pick(&[0, 0, 0, 0, 1, 2]);
    }
    for at in (1..wanted.len()).rev() {
        let other = random.below(u32::try_from(at + 1).unwrap()) as usize;
        wanted.swap(at, other);
    }
    wanted
}

/// What became of one entry: its error and errno, how far it came, and its bytes.
type Ending = (Option<(ErrorKind, Option<i32>)>, u64, Vec<u8>);

struct Seen {
    endings: Vec<Ending>,
    image: Vec<u8>,
    coalesced: u64,
    uncoalesced: u64,
    vectored: u64,
}

trait Bytes: Buffer<Read> + Buffer<Write> {
    fn make(shard: &Shard<SimRing>, len: usize) -> Self;
    fn memory(&mut self) -> &mut [u8];
}

impl Bytes for ArenaBuf {
    fn make(shard: &Shard<SimRing>, len: usize) -> Self {
        shard.arena().alloc(len).unwrap()
    }
    fn memory(&mut self) -> &mut [u8] {
        self
    }
}

impl Bytes for AlignedBuf {
    fn make(_shard: &Shard<SimRing>, len: usize) -> Self {
        Self::new(len, 4096)
    }
    fn memory(&mut self) -> &mut [u8] {
        self
    }
}

/// Does what `wanted` says: as a batch, or with `batched` off as single packets.
fn perform<B: Bytes>(
    seed: u64,
    wanted: &[Wanted],
    pages: u32,
    batched: bool,
    coalesce: bool,
    faults: FaultRates,
) -> Seen {
    let sim = SimConfig { faults, ..SimConfig::calm(seed) };
    let mut random = Random::new(seed ^ 0x5eed);
    let config = config(random.pick(&[1, 4, 64]), coalesce);
    let Rig { shard, file, device, control } = rig(sim, &config, pages);
    for page in 0..pages {
        let byte = u8::try_from(128 + page % 100).unwrap();
        device.poke(0, u64::from(page) * 4096, &[byte; PAGE]);
    }
    if random.one_in(2) {
        let at = u64::from(random.below(pages)) * 4096;
        device.damage(0, at..at + 1);
    }
    let mut endings: Vec<Option<Ending>> = wanted.iter().map(|_| None).collect();
    let make = |wanted: &Wanted| {
        let mut buffer = B::make(&shard, wanted.pages as usize * PAGE);
        buffer.memory().fill(if wanted.is_read { 0 } else { wanted.stamp });
        (u64::from(wanted.page) * 4096, buffer)
    };
    if batched {
        let mut batch: Batch<48, B, SimRing> = shard.batch();
        for (at, wanted) in wanted.iter().enumerate() {
            let (offset, buffer) = make(wanted);
            let index = if wanted.is_read {
                batch.push_read(&file, offset, buffer)
            } else {
                batch.push_write(&file, offset, buffer)
            };
            assert_eq!(index.ok(), Some(at));
        }
        block_on(&shard, batch.run()).unwrap();
        while let Some(mut reaped) = batch.reap() {
            let done = wanted[reaped.index].pages as usize * PAGE;
            let (error, done) = match &reaped.result {
                Ok(()) => (None, done as u64),
                Err(error) => (Some((error.error.kind(), error.error.errno())), error.done_bytes),
            };
            let shown = usize::try_from(done).unwrap();
            let bytes = reaped.buffer.memory()[..shown].to_vec();
            assert!(endings[reaped.index].replace((error, done, bytes)).is_none());
        }
    } else {
        for (at, wanted) in wanted.iter().enumerate() {
            let (offset, buffer) = make(wanted);
            let (failed, done, mut buffer) = if wanted.is_read {
                let packet = Packet::<Read, _>::new(buffer);
                let done = block_on(&shard, file.io(offset, packet)).unwrap();
                (done.error(), done.contiguous_bytes(), done.into_buffer())
            } else {
                let packet = Packet::<Write, _>::new(buffer);
                let done = block_on(&shard, file.io(offset, packet)).unwrap();
                (done.error(), done.contiguous_bytes(), done.into_buffer())
            };
            let failed = failed.map(|error| (error.kind(), error.errno()));
            let bytes = buffer.memory()[..usize::try_from(done).unwrap()].to_vec();
            endings[at] = Some((failed, done, bytes));
        }
    }
    settle(&shard);
    assert!(!control.has_complaints(), "seed {seed}: {:?}", control.complaints());
    assert!(shard.arena().verify_released().changed_at_bytes.is_empty(), "seed {seed}");
    assert_eq!(control.stats().misaligned, 0);
    let mut image = vec![0; pages as usize * PAGE];
    device.peek(0, 0, &mut image);
    let metrics = shard.metrics();
    Seen {
        endings: endings.into_iter().map(Option::unwrap).collect(),
        image,
        coalesced: metrics.coalesced,
        uncoalesced: metrics.uncoalesced,
        vectored: control.stats().vectored,
    }
}

fn same_as_single_ops<B: Bytes>(seeds: u64, faults: FaultRates, exact: bool) {
    let (mut coalesced, mut uncoalesced, mut vectored, mut failed) = (0, 0, 0, 0);
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let pages = random.between(8, 40);
        let wanted = draw(&mut random, pages);
        let single = perform::<B>(seed, &wanted, pages, false, true, faults);
        let apart = perform::<B>(seed, &wanted, pages, true, false, faults);
        let joined = perform::<B>(seed, &wanted, pages, true, true, faults);
        assert_eq!((apart.coalesced, single.coalesced), (0, 0));
        for other in [&apart, &joined] {
            for ((ours, theirs), wanted) in other.endings.iter().zip(&single.endings).zip(&wanted) {
                assert_eq!(ours.0, theirs.0, "seed {seed}: {wanted:?}");
                // How far a failed entry came depends on where it was cut short.
                if exact || ours.0.is_none() {
                    assert_eq!(ours.1, theirs.1, "seed {seed}: {wanted:?}");
                }
                let both = ours.2.len().min(theirs.2.len());
                assert!(ours.2[..both] == theirs.2[..both], "seed {seed}: {wanted:?}");
                failed += u32::from(ours.0.is_some());
            }
            // Of a failed write any part may have been written.
            let unknown = |page: usize| {
                let page = u32::try_from(page).unwrap();
                wanted.iter().zip(&single.endings).any(|(wanted, ending)| {
                    let inside = (wanted.page..wanted.page + wanted.pages).contains(&page);
                    inside && !exact && ending.0.is_some()
                })
            };
            let pages = other.image.chunks(PAGE).zip(single.image.chunks(PAGE)).enumerate();
            for (page, (ours, theirs)) in pages {
                assert!(ours == theirs || unknown(page), "seed {seed}: page {page} differs");
            }
        }
        coalesced += joined.coalesced;
        uncoalesced += joined.uncoalesced;
        vectored += joined.vectored;
    }
    println!(
        "{coalesced} joined, {uncoalesced} apart again, {vectored} in pieces, {failed} failed"
    );
    assert!(coalesced > seeds && vectored > 0 && failed > 0 && uncoalesced > 0);
}

#[test]
fn joined_entries_end_as_single_ops_do() {
    let faults = FaultRates { delay: 2048, cq_delay: 8192, torn_copy: 8192, ..FaultRates::NONE };
    same_as_single_ops::<ArenaBuf>(200, faults, true);
    same_as_single_ops::<AlignedBuf>(100, faults, true);
}

#[test]
fn joined_entries_end_as_single_ops_do_although_the_kernel_is_hostile() {
    let faults = FaultRates {
        short: 6000,
        eagain: 3000,
        interrupted: 500,
        zero: 0,
        eio: 0,
        enospc: 0,
        ..FaultRates::HOSTILE
    };
    same_as_single_ops::<ArenaBuf>(400, faults, false);
    same_as_single_ops::<AlignedBuf>(100, faults, false);
}

#[test]
fn dropped_batch_gives_its_buffers_back_when_the_kernel_is_through() {
    let mut dropped = 0;
    for seed in 0..200 {
        let sim = SimConfig::hostile(seed);
        let Rig { shard, file, control, .. } = rig(sim, &config(16, true), 64);
        let mut random = Random::new(seed);
        let mut batch = shard.batch::<32, ArenaBuf>();
        for at in 0..32 {
            let buffer = shard.arena().alloc(PAGE).unwrap();
            let offset = at * 4096 + u64::from(random.below(2)) * 512;
            let pushed = if random.one_in(2) {
                batch.push_read(&file, offset, buffer)
            } else {
                batch.push_write(&file, offset, buffer)
            };
            assert!(pushed.is_ok());
        }
        if !random.one_in(8) {
            // Busy is no matter: the ops are queued.
            drop(batch.submit());
        }
        for _ in 0..random.below(4) {
            drop(shard.turn(Wait::at_least(1)));
        }
        dropped += shard.in_flight();
        drop(batch);
        for _ in 0..10_000 {
            if shard.is_idle() {
                break;
            }
            drop(shard.turn(Wait::at_least(1)));
        }
        assert!(shard.is_idle() && !control.has_complaints(), "{:?}", control.complaints());
        assert!(shard.arena().verify_released().changed_at_bytes.is_empty());
        let free: Vec<_> = (0..128).map_while(|_| shard.arena().alloc(PAGE)).collect();
        assert_eq!(free.len(), 128, "every buffer has come back");
    }
    assert!(dropped > 500, "{dropped}");
}

#[test]
fn batch_deadline_ends_entries_as_timed_out_and_others_as_they_are() {
    let (mut late, mut timely) = (0, 0);
    for seed in 0..100 {
        let faults = FaultRates { start_delay: 20_000, delay: 6_000, ..FaultRates::NONE };
        let sim = SimConfig { faults, ..SimConfig::calm(seed) };
        let Rig { shard, file, .. } = rig(sim, &config(4, true), 64);
        let mut batch = shard.batch::<16, ArenaBuf>();
        for at in 0..16 {
            let buffer = shard.arena().alloc(PAGE).unwrap();
            batch.push_read(&file, at * 3 * 4096, buffer).unwrap();
        }
        batch.set_deadline(Some(shard.now_ns() + 100_000));
        block_on(&shard, batch.run()).unwrap();
        assert!(shard.is_idle());
        while let Some(reaped) = batch.reap() {
            match reaped.result {
                Ok(()) => timely += 1,
                Err(error) => {
                    assert_eq!(error.error.kind(), ErrorKind::TimedOut);
                    late += 1;
                }
            }
        }
        assert!(batch.is_empty());
    }
    println!("{timely} in time, {late} timed out");
    assert!(late > 100 && timely > 100);
}

/// One future of a batch's neighbour is dropped: the others do not notice.
#[test]
fn cancelled_batch_is_over_at_once_and_leaves_others_alone() {
    let Rig { shard, file, device, .. } = rig(SimConfig::calm(3), &config(1, true), 64);
    device.poke(0, 0, &[9; 64 * PAGE]);
    let mut blocker = Box::pin(file.read_exact_at(0, vec![0; PAGE]));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(blocker.as_mut().poll(&mut cx).is_pending());
    let mut first = shard.batch::<4, ArenaBuf>();
    let mut second = shard.batch::<4, ArenaBuf>();
    for at in 0..4 {
        first.push_read(&file, at * 4096, shard.arena().alloc(PAGE).unwrap()).unwrap();
        second.push_read(&file, (8 + at) * 4096, shard.arena().alloc(PAGE).unwrap()).unwrap();
    }
    first.submit().unwrap();
    second.submit().unwrap();
    first.cancel();
    assert_eq!((first.ready(), second.ready()), (4, 0));
    block_on(&shard, second.run()).unwrap();
    while let Some(reaped) = second.reap() {
        assert_eq!(reaped.result, Ok(()));
    }
    while let Some(reaped) = first.reap() {
        assert_eq!(reaped.result.unwrap_err().error.kind(), ErrorKind::Cancelled);
    }
    let Poll::Ready((Ok(()), _)) = blocker.as_mut().poll(&mut cx) else { panic!("it was read") };
}

#[test]
fn batch_larger_than_the_backlog_goes_in_parts() {
    let config = Config { backlog_max: 3, ..config(2, true) };
    let Rig { shard, file, device, .. } = rig(SimConfig::calm(3), &config, 64);
    device.poke(0, 0, &[9; 64 * PAGE]);
    let mut batch = shard.batch::<32, ArenaBuf>();
    for at in 0..32 {
        batch.push_read(&file, at * 2 % 64 * 4096, shard.arena().alloc(PAGE).unwrap()).unwrap();
    }
    assert!((3..32).contains(&batch.submit().unwrap()));
    block_on(&shard, batch.run()).unwrap();
    let mut seen = 0;
    while let Some(reaped) = batch.reap() {
        assert_eq!(reaped.result, Ok(()));
        seen += 1;
    }
    assert_eq!(seen, 32);
}

/// Writes and reads back through a real file; returns how many enters and ops the read took.
fn on_a_file<R: Ring>(ring: R, name: &str, coalesce: bool) -> (u64, u64) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, vec![0; 64 * PAGE]).unwrap();
    let shard = Shard::with_ring(ring, &config(64, coalesce)).unwrap();
    let direct = DirectMode::PreferDirect;
    let options = OpenOptions { write: true, direct, ..OpenOptions::default() };
    let file = shard.open(&path, &options).unwrap();
    let mut batch = shard.batch::<64, ArenaBuf>();
    for at in (0..64_u8).rev() {
        let mut buffer = shard.arena().alloc(PAGE).unwrap();
        buffer.fill(at);
        batch.push_write(&file, u64::from(at) * 4096, buffer).unwrap();
    }
    block_on(&shard, batch.run()).unwrap();
    while let Some(reaped) = batch.reap() {
        assert_eq!(reaped.result, Ok(()));
    }
    let before = shard.metrics();
    for at in 0..64 {
        let buffer = shard.arena().alloc(PAGE).unwrap();
        batch.push_read(&file, at * 4096, buffer).unwrap();
    }
    batch.submit().unwrap();
    let enters = shard.metrics().enters - before.enters;
    block_on(&shard, batch.run()).unwrap();
    let mut buffers = Vec::new();
    while let Some(reaped) = batch.reap() {
        assert_eq!(reaped.result, Ok(()));
        buffers.push(reaped.buffer);
    }
    buffers.sort_by_key(|buffer| buffer[0]);
    for (at, buffer) in (0..64_u8).zip(&buffers) {
        assert!(buffer.iter().all(|&byte| byte == at), "page {at}");
    }
    println!("{name}: {:?}, {:?}", shard.features().in_use, shard.metrics());
    (enters, shard.metrics().ops - before.ops)
}

#[test]
fn neighbours_go_as_few_ops_on_the_kernel_ring() {
    let ring = || KernelRing::new(&KernelConfig::new(64));
    let Ok(first) = ring() else {
        println!("SKIP: no io_uring");
        return;
    };
    assert_eq!(on_a_file(first, "batch-kernel", true), (1, 4));
    assert_eq!(on_a_file(ring().unwrap(), "batch-kernel-apart", false), (1, 64));
}

#[test]
fn neighbours_go_as_few_ops_on_the_thread_ring() {
    assert_eq!(on_a_file(ThreadRing::new(2, 64).unwrap(), "batch-threads", true), (1, 4));
}
