//! Timers, deadlines and explicit cancels: who wins is told, and the buffer always comes back.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use mfio_core::{Error, ErrorKind, Packet, PacketIoExt, Read, Write, block_on};
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::sim::{FaultRates, FileSpec, SimConfig, SimControl, SimDevice, SimRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Bounded, Config, Ended, File, Outcome, Shard};

const BYTES: u32 = 64 << 10;

struct Rig {
    shard: Shard<SimRing>,
    file: File<SimRing>,
    device: SimDevice,
    control: SimControl,
}

fn rig(seed: u64, faults: FaultRates, in_flight_max: u32, backlog_max: u32) -> Rig {
    let device = SimDevice::new(&[FileSpec::direct(BYTES)]);
    device.poke(0, 0, &vec![7; BYTES as usize]);
    let ring = SimRing::new(SimConfig { faults, ..SimConfig::calm(seed) }, &device);
    let control = ring.control();
    let mut arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 64 }]);
    arena.poison_released = true;
    let config = Config { in_flight_max, backlog_max, arena, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.adopt_simulated("sim", device.fd(0), device.geometry(0));
    Rig { shard, file, device, control }
}

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn turn_until<F: Future + Unpin, R: Ring>(shard: &Shard<R>, future: &mut F) -> F::Output {
    for _ in 0..1000 {
        if let Poll::Ready(output) = poll(future) {
            return output;
        }
        shard.turn(Wait::at_least(1)).unwrap();
    }
    panic!("it never ends")
}

/// When the cancel of one run is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    BeforeSending,
    Queued,
    Submitted,
    Waited,
    Afterwards,
}

type ReadFut<'a> = Bounded<'a, SimRing, File<SimRing>, Read, mfio_engine::buffer::ArenaBuf, u64>;

fn check_read(ended: Ended<Read, mfio_engine::buffer::ArenaBuf>) -> Outcome {
    let outcome = ended.outcome;
    let done_bytes = match outcome {
        Outcome::Completed => 4096,
        Outcome::Cancelled { done_bytes } | Outcome::TimedOut { done_bytes } => done_bytes,
        other => panic!("nothing went wrong: {other:?}"),
    };
    let buffer = ended.into_buffer();
    let done = usize::try_from(done_bytes).unwrap();
    assert!(buffer[..done].iter().all(|&byte| byte == 7), "what is told to be read was read");
    outcome
}

/// Cancels at every moment, often enough that each side wins now and then, and twice.
#[test]
fn f03_cancel_resolves_with_the_target_and_says_who_won() {
    let faults =
        FaultRates { start_delay: 30_000, delay: 8_000, cq_delay: 30_000, ..FaultRates::NONE };
    let (mut won, mut lost) = (0, 0);
    let (mut before, mut during, mut after) = (0, 0, 0);
    let moments = [
        Moment::BeforeSending,
        Moment::Queued,
        Moment::Submitted,
        Moment::Waited,
        Moment::Afterwards,
    ];
    for seed in 0..1000 {
        let moment = moments[usize::try_from(seed).unwrap() % moments.len()];
        let Rig { shard, file, control, .. } = rig(seed, faults, 1, 8);
        let blocker = (moment == Moment::Queued).then(|| {
            let buffer = shard.arena().alloc(4096).unwrap();
            let mut blocker = Box::pin(file.io(0, Packet::<Read, _>::new(buffer)));
            assert!(poll(&mut blocker).is_pending());
            blocker
        });
        let buffer = shard.arena().alloc(4096).unwrap();
        let mut read: ReadFut<'_> = shard.cancellable(file.io(4096, Packet::new(buffer)));
        match moment {
            Moment::BeforeSending => {}
            Moment::Queued => assert!(poll(&mut read).is_pending()),
            Moment::Submitted => {
                assert!(poll(&mut read).is_pending());
                shard.turn(Wait::NONE).unwrap();
            }
            Moment::Waited => {
                assert!(poll(&mut read).is_pending());
                let soon_ns = shard.now_ns() + 20_000;
                shard.turn(Wait { min: 1, deadline_ns: Some(soon_ns) }).unwrap();
            }
            Moment::Afterwards => {
                assert!(poll(&mut read).is_pending());
                while !shard.is_idle() {
                    shard.turn(Wait::at_least(1)).unwrap();
                }
            }
        }
        read.cancel();
        if seed % 2 == 0 {
            read.cancel();
        }
        let outcome = check_read(turn_until(&shard, &mut read));
        match moment {
            Moment::BeforeSending | Moment::Queued => {
                assert_eq!(outcome, Outcome::Cancelled { done_bytes: 0 });
            }
            Moment::Afterwards => assert_eq!(outcome, Outcome::Completed),
            Moment::Submitted | Moment::Waited if outcome == Outcome::Completed => lost += 1,
            Moment::Submitted | Moment::Waited => won += 1,
        }
        drop(blocker);
        while !shard.is_idle() {
            shard.turn(Wait::at_least(1)).unwrap();
        }
        assert!(shard.arena().verify_released().changed_at_bytes.is_empty());
        assert!(!control.has_complaints(), "{:?}", control.complaints());
        let stats = control.stats();
        before += stats.cancels_before;
        during += stats.cancels_during;
        after += stats.cancels_after;
    }
    println!("cancel won {won}, lost {lost}; before {before}, during {during}, after {after}");
    assert!(won > 20 && lost > 20 && before > 10 && during > 10 && after > 10);
}

#[test]
fn f17_deadline_says_which_side_won_and_gives_the_buffer_back() {
    let faults = FaultRates { start_delay: 20_000, delay: 6_000, ..FaultRates::NONE };
    let (mut timely, mut late) = (0, 0);
    for seed in 0..200 {
        let Rig { shard, file, control, .. } = rig(seed, faults, 4, 8);
        let buffer = shard.arena().alloc(4096).unwrap();
        let at_ns = shard.now_ns() + 30_000;
        let io = file.io(0, Packet::<Read, _>::new(buffer));
        let ended = block_on(&shard, shard.deadline(at_ns, io)).unwrap();
        match check_read(ended) {
            Outcome::Completed => timely += 1,
            Outcome::TimedOut { .. } => late += 1,
            other => panic!("{other:?}"),
        }
        assert!(shard.is_idle() && !control.has_complaints());
    }
    println!("{timely} in time, {late} timed out");
    assert!(timely > 20 && late > 20);
}

/// A write that times out while it is short says how far it came.
#[test]
fn deadline_of_a_short_write_tells_the_bytes_that_are_through() {
    let mut partly = 0;
    for seed in 0..300 {
        let faults = FaultRates { short: 60_000, eagain: 4_000, ..FaultRates::NONE };
        let Rig { shard, file, device, .. } = rig(seed, faults, 4, 8);
        let mut buffer = shard.arena().alloc(4096).unwrap();
        buffer.fill(9);
        let at_ns = shard.now_ns() + 60_000;
        let io = file.io(0, Packet::<Write, _>::new(buffer));
        let ended = block_on(&shard, shard.deadline(at_ns, io)).unwrap();
        if let Outcome::TimedOut { done_bytes } = ended.outcome {
            let mut seen = vec![0; usize::try_from(done_bytes).unwrap()];
            device.peek(0, 0, &mut seen);
            assert!(seen.iter().all(|&byte| byte == 9));
            partly += u32::from(done_bytes > 0);
        }
    }
    assert!(partly > 10, "{partly}");
}

#[test]
fn deadline_passed_while_waiting_for_room_sends_nothing() {
    let faults = FaultRates { start_delay: 65_535, ..FaultRates::NONE };
    let Rig { shard, file, .. } = rig(1, faults, 1, 1);
    let read = || file.io(0, Packet::<Read, _>::new(shard.arena().alloc(4096).unwrap()));
    let (mut running, mut queued) = (read(), read());
    assert!(poll(&mut running).is_pending() && poll(&mut queued).is_pending());
    let mut late = shard.deadline(shard.now_ns() + 100, read());
    assert!(poll(&mut late).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let Poll::Ready(ended) = poll(&mut late) else { panic!("its time has passed") };
    assert_eq!(ended.outcome, Outcome::TimedOut { done_bytes: 0 });
    assert_eq!(ended.packet.error().map(Error::kind), Some(ErrorKind::Cancelled));
}

#[test]
fn sleeps_fire_in_order_and_past_ones_at_once() {
    let Rig { shard, .. } = rig(1, FaultRates::NONE, 1, 1);
    assert_eq!(poll(&mut shard.sleep_until(0)), Poll::Ready(()));
    let start_ns = shard.now_ns();
    let mut late = pin!(shard.sleep_ns(2_000_000));
    let mut soon = pin!(shard.sleep_ns(1_000_000));
    assert!(poll(&mut late).is_pending() && poll(&mut soon).is_pending());
    shard.turn(Wait::at_least(1)).unwrap();
    assert!(poll(&mut soon).is_ready() && poll(&mut late).is_pending());
    shard.turn(Wait::at_least(1)).unwrap();
    assert!(poll(&mut late).is_ready());
    let passed_ns = shard.now_ns() - start_ns;
    assert!((2_000_000..2_100_000).contains(&passed_ns), "{passed_ns}");
    assert!(shard.is_idle(), "a timer is no I/O");
}

/// Nanoseconds that this thread has been on a processor.
fn on_cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn idle_with_a_far_timer<R: Ring>(ring: R) {
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let mut far = shard.sleep_ns(3_600_000_000_000);
    assert!(poll(&mut far).is_pending());
    let (enters, cpu_ns, start_ns) = (shard.metrics().enters, on_cpu_ns(), shard.now_ns());
    block_on(&shard, shard.sleep_ns(300_000_000)).unwrap();
    let (took_ns, cpu_ns) = (shard.now_ns() - start_ns, on_cpu_ns() - cpu_ns);
    let enters = shard.metrics().enters - enters;
    println!("slept {took_ns} ns with {enters} enters and {cpu_ns} ns of processor");
    assert!(took_ns >= 300_000_000);
    assert!(enters <= 4 && cpu_ns < 20_000_000);
}

#[test]
fn idle_shard_with_a_far_timer_uses_no_processor() {
    match KernelRing::new(&KernelConfig::new(8)) {
        Ok(ring) => idle_with_a_far_timer(ring),
        Err(error) => println!("SKIP: {error}"),
    }
    idle_with_a_far_timer(ThreadRing::new(1, 8).unwrap());
}
