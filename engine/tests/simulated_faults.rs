//! Cases of the failure catalogue on a simulated kernel that has one fault, and that often:
//! small queues, submits in parts, completions too many, short transfers over used memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mfio_core::block_on;
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::{FaultRates, FileSpec, SimConfig, SimDevice, SimRing, SimStats};
use mfio_engine::{BypassMode, Config, Durability, EngineError, Metrics, Shard};
use proptest::prelude::*;

const PAGES: u8 = 48;

type Pending<'a> = Pin<Box<dyn Future<Output = bool> + 'a>>;

/// Drives all of them at once, and says how many there were.
fn all(shard: &Shard<SimRing>, mut pending: Vec<Pending<'_>>) -> usize {
    let count = pending.len();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..200_000 {
        pending.retain_mut(|future| match future.as_mut().poll(&mut cx) {
            Poll::Ready(good) => {
                assert!(good, "an op failed, and no op was to fail");
                false
            }
            Poll::Pending => true,
        });
        if pending.is_empty() {
            return count;
        }
        match shard.turn(Wait::at_least(1)) {
            Ok(_) | Err(EngineError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("{} of {count} hang", pending.len());
}

/// Writes pages, one in three durably, flushes, and reads them back, all of a kind at once.
fn serve(sim: SimConfig, in_flight_max: u32) -> (SimStats, Metrics) {
    let device = SimDevice::new(&[FileSpec::direct(u32::from(PAGES) * 4096)]);
    let ring = SimRing::new(sim, &device);
    let control = ring.control();
    let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 64 }]);
    // Nothing is joined or goes past the queues: they are what is tested.
    let bypass = BypassMode::Off;
    let limits = Config { in_flight_max, arena, bypass, coalesce: false, ..Config::new() };
    let shard = Shard::with_ring(ring, &limits).unwrap();
    let file = shard.adopt_simulated("sim", device.fd(0), device.geometry(0));
    let page = |byte| {
        let mut page = shard.arena().alloc(4096).unwrap();
        page.fill(byte);
        page
    };
    let at = |number: u8| u64::from(number) * 4096;
    let writes = (0..PAGES).map(|number| -> Pending<'_> {
        let (file, page) = (file.clone(), page(number + 1));
        if number % 3 == 0 {
            return Box::pin(
                async move { file.write_durable_at(at(number), page).await.0.is_ok() },
            );
        }
        Box::pin(async move { file.write_all_at(at(number), page).await.0.is_ok() })
    });
    assert_eq!(all(&shard, writes.collect()), usize::from(PAGES));
    let flush = file.sync(Durability::Data);
    assert_eq!(all(&shard, vec![Box::pin(async move { flush.await.is_ok() })]), 1);
    let mut durable = vec![0; usize::from(PAGES) * 4096];
    device.peek_durable(0, 0, &mut durable);
    for (number, bytes) in (1..).zip(durable.chunks(4096)) {
        assert!(bytes.iter().all(|&byte| byte == number), "page {number} is not durable");
    }
    let reads = (0..PAGES).map(|number| -> Pending<'_> {
        let (file, page) = (file.clone(), page(0xee));
        Box::pin(async move {
            let (result, page) = file.read_exact_at(at(number), page).await;
            result.is_ok() && page.iter().all(|&byte| byte == number + 1)
        })
    });
    all(&shard, reads.collect());
    assert!(shard.is_idle());
    let metrics = shard.metrics();
    assert_eq!(shard.shutdown(), 0);
    assert!(!control.has_complaints(), "{:?}", control.complaints());
    (control.stats(), metrics)
}

#[test]
fn f19_queues_of_one_two_and_four_entries_serve_everybody() {
    for (sq_entries, seed) in [1, 2, 4].into_iter().flat_map(|n| (0..12).map(move |s| (n, s))) {
        for in_flight_max in [1, 2, 64] {
            let cq_entries = sq_entries * 2;
            let sim = SimConfig { sq_entries, cq_entries, ..SimConfig::calm(seed) };
            let (stats, metrics) = serve(sim, in_flight_max);
            assert!(stats.ops >= 2 * u64::from(PAGES) && metrics.flushes > 0);
        }
    }
}

#[test]
fn f20_completion_queue_as_short_as_the_submission_queue_loses_nothing() {
    let faults = FaultRates { more: 20_000, stale: 10_000, cq_delay: 20_000, ..FaultRates::NONE };
    let (mut full, mut duplicates, mut overflows, mut stale) = (0, 0, 0, 0);
    for (entries, seed) in [1, 2, 8].into_iter().flat_map(|n| (0..20).map(move |s| (n, s))) {
        let sim =
            SimConfig { sq_entries: entries, cq_entries: entries, faults, ..SimConfig::calm(seed) };
        let (stats, metrics) = serve(sim, 64);
        (full, duplicates) = (full + stats.cq_full, duplicates + stats.duplicates);
        (overflows, stale) = (overflows + stats.cq_overflows, stale + metrics.stale_completions);
    }
    assert!(full > 0 && duplicates > 100 && overflows > 0, "{full} {duplicates} {overflows}");
    assert!(stale > 50, "{stale} late completions met nobody");
}

#[test]
fn f22_submits_in_parts_lose_nothing() {
    let faults = FaultRates { partial_submit: 40_000, ..FaultRates::NONE };
    let mut parts = 0;
    for seed in 0..60 {
        let (stats, metrics) = serve(SimConfig { faults, ..SimConfig::calm(seed) }, 64);
        parts += stats.partial_submits;
        assert_eq!(metrics.submitted, stats.ops, "what the kernel took is what we count");
    }
    assert!(parts > 100, "{parts} submits in parts");
}

#[test]
fn f21_enter_that_is_refused_every_other_time_hangs_nobody() {
    let faults = FaultRates {
        enter_eintr: 12_000,
        enter_eagain: 12_000,
        enter_ebusy: 12_000,
        ..FaultRates::NONE
    };
    let mut refused = 0;
    for seed in 0..60 {
        let (stats, _) = serve(SimConfig { faults, ..SimConfig::calm(seed) }, 64);
        refused += stats.enter_errors;
    }
    assert!(refused > 500, "{refused}");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 48,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    /// A pool whose memory is full of somebody else's bytes, reads that come short or fail: what
    /// a caller gets back holds the file's bytes, or what the caller put there, and nothing else.
    #[test]
    fn f50_no_byte_of_a_used_pool_reaches_another_caller(
        seed in 0_u64..1 << 32,
        reads in prop::collection::vec((0_u64..40_000, 1_usize..9000), 1..24),
        align in prop::sample::select(vec![512_u32, 4096]),
    ) {
        const SECRET: u8 = 0xee;
        const LEN: u32 = 32 << 10;
        let spec = FileSpec {
            align_bytes: align,
            memory_align_bytes: align,
            ..FileSpec::buffered(LEN)
        };
        let device = SimDevice::new(&[spec]);
        device.poke(0, 0, &vec![0x11; LEN as usize]);
        let faults =
            FaultRates { short: 20_000, eio: 6_000, torn_copy: 8_000, ..FaultRates::NONE };
        let ring = SimRing::new(SimConfig { faults, ..SimConfig::calm(seed) }, &device);
        let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 16 }]);
        let limits = Config { arena, ..Config::new() };
        let shard = Shard::with_ring(ring, &limits).unwrap();
        let file = shard.adopt_simulated("sim", device.fd(0), device.geometry(0));
        let spoil = || {
            // All of them at once, so that each is another one.
            let pages: Vec<_> = std::iter::from_fn(|| shard.arena().alloc(4096)).collect();
            pages.into_iter().for_each(|mut page| page.fill(SECRET));
        };
        for (offset, len) in reads {
            spoil();
            let read = file.read_exact_at(offset, vec![0x22; len]);
            let (result, bytes) = block_on(&shard, read).unwrap();
            let done = result.map_or_else(|error| error.done_bytes, |()| len as u64);
            let done = usize::try_from(done).unwrap();
            prop_assert!(bytes[..done].iter().all(|&byte| byte == 0x11), "what is told was read");
            prop_assert!(!bytes.contains(&SECRET), "{len} bytes at {offset} show the pool's");
        }
    }
}
