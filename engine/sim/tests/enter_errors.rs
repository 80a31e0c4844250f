//! Every errno of `enter`, at every call of a short run: with nothing and with ops in flight (F21).
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use mfio_core::{CompletionQueue, ErrorKind, Packet, Write};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::{FileSpec, SimConfig, SimDevice, SimRing};
use mfio_engine::{Config, EngineError, Shard};
use nix::errno::Errno;

const WRITES: u8 = 6;

/// Turns in which a run must be over, whatever `enter` says meanwhile.
const TURNS_MAX: u32 = 200;

/// What a run came to.
#[derive(Debug)]
struct Outcome {
    done: u8,
    broken: Option<Errno>,
    /// The call that was to fail has been made.
    refused: u64,
    in_flight: u32,
}

/// Six writes on a ring of two entries, where `times` calls of `enter` after `skip` others fail.
fn run(errno: Errno, skip: u32, times: u32) -> Outcome {
    let device = SimDevice::new(&[FileSpec::direct(64 << 10)]);
    let sim = SimConfig { sq_entries: 2, cq_entries: 4, ..SimConfig::calm(u64::from(skip)) };
    let ring = SimRing::new(sim, &device);
    let control = ring.control();
    let mut arena = ArenaConfig::new(vec![SizeClass { bytes: 512, count: 16 }]);
    arena.poison_released = true;
    let config = Config { arena, drain_ns: 10_000_000, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.adopt_simulated("refused", device.fd(0), device.geometry(0));
    control.refuse_enter(errno, skip, times);
    let mut writes = CompletionQueue::<Write, ArenaBuf>::new();
    for at in 0..WRITES {
        let mut buffer = shard.arena().alloc(512).unwrap();
        buffer.fill(at + 1);
        writes.send(&file, u64::from(at) * 512, Packet::new(buffer), at.into()).unwrap();
    }
    let (mut done, mut closed, mut broken, mut turns) = (0, 0, None, 0);
    while done + closed < WRITES && broken.is_none() && turns < TURNS_MAX {
        turns += 1;
        match shard.turn(Wait::at_least(1)) {
            Ok(_) | Err(EngineError::Busy) => {}
            Err(EngineError::Ring { errno }) => broken = Some(errno),
            Err(error) => panic!("{error}"),
        }
        shard.audit(broken.is_none()).unwrap();
        while let Some((_, packet)) = writes.pop() {
            match packet.result() {
                Ok(()) => done += 1,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Closed, "after {errno}");
                    closed += 1;
                }
            }
        }
    }
    let outcome = Outcome {
        done,
        broken,
        refused: control.stats().enter_errors,
        in_flight: shard.in_flight(),
    };
    for at in 0..done {
        let mut seen = [0; 512];
        device.peek(0, u64::from(at) * 512, &mut seen);
        assert!(broken.is_some() || seen == [at + 1; 512], "{outcome:?}");
    }
    let arena = shard.arena().clone();
    drop((file, shard, writes));
    assert_eq!(arena.verify_released().changed_at_bytes, Vec::<u64>::new(), "{outcome:?}");
    // What the kernel may still read is given back to nobody.
    assert_eq!(arena.in_use(), outcome.in_flight as usize, "{outcome:?}");
    outcome
}

#[test]
fn f21_passing_error_at_any_call_costs_time_and_nothing_else() {
    for errno in [Errno::EINTR, Errno::EAGAIN, Errno::EBUSY, Errno::ENOMEM] {
        for skip in 0..10 {
            for times in [1, 2, 9, 30] {
                let outcome = run(errno, skip, times);
                let whole = outcome.done == WRITES && outcome.broken.is_none();
                assert!(whole, "{errno} after {skip} calls, {times} times: {outcome:?}");
                assert!(skip > 0 || outcome.refused == u64::from(times), "{outcome:?}");
            }
        }
    }
}

#[test]
fn f05_lasting_error_at_any_call_breaks_the_ring_and_frees_nothing_in_flight() {
    let (mut idle, mut busy) = (0, 0);
    for errno in [Errno::EBADFD, Errno::ENXIO, Errno::EFAULT, Errno::EINVAL] {
        for skip in 0..10 {
            let outcome = run(errno, skip, 1);
            if outcome.refused == 0 {
                assert_eq!(outcome.done, WRITES, "it was over before");
                continue;
            }
            assert_eq!(outcome.broken, Some(errno), "{outcome:?}");
            idle += u32::from(skip == 0);
            busy += u32::from(skip > 0 && outcome.in_flight > 0);
        }
    }
    assert!(idle == 4 && busy > 4, "{idle} {busy}");
}
