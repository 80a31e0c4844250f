//! The simulated kernel keeps the rules of the real one.

use super::*;
use crate::buffer::MemRange;
use crate::ring::OpKind;

/// Memory for ops; each call leaks nothing because the vector outlives the ring.
struct Memory(Vec<u8>);

impl Memory {
    fn new(len: usize, byte: u8) -> Self {
        Self(vec![byte; len])
    }

    fn range(&mut self) -> MemRange {
        let len = u32::try_from(self.0.len()).unwrap();
        MemRange::of_raw(self.0.as_mut_ptr(), len, None).unwrap()
    }
}

struct Bench {
    ring: SimRing,
    device: SimDevice,
    file: FileRef,
    next: u32,
}

impl Bench {
    fn new(config: SimConfig, spec: FileSpec) -> Self {
        let device = SimDevice::new(&[spec]);
        let mut ring = SimRing::new(config, &device);
        let file = ring.register_file(device.fd(0));
        Self { ring, device, file, next: 0 }
    }

    fn push(
        &mut self,
        kind: OpKind,
        offset_bytes: u64,
        memory: Option<MemRange>,
        link: bool,
    ) -> Tag {
        assert!(self.ring.reserve(1));
        let tag = Tag { slot: self.next, generation: 7 };
        self.next += 1;
        let file = self.file;
        self.ring.push(Op { offset_bytes, memory, link, ..Op::on(kind, file) }, tag);
        tag
    }

    fn write(&mut self, offset_bytes: u64, memory: &mut Memory, link: bool) -> Tag {
        let memory = memory.range();
        self.push(OpKind::Write, offset_bytes, Some(memory), link)
    }

    fn flush(&mut self) -> Tag {
        self.push(OpKind::Fdatasync, 0, None, false)
    }

    /// Everything that completes, in order; retries refused enters.
    fn run(&mut self, min: u32) -> Vec<Completion> {
        let mut completions = Vec::new();
        let mut into = Vec::new();
        while completions.len() < min as usize {
            let refused = self.ring.enter(Wait::at_least(1));
            assert!(refused.is_ok() || self.ring.control().stats().enter_errors > 0);
            self.ring.reap(&mut into);
            completions.append(&mut into);
        }
        completions
    }

    fn result_of(completions: &[Completion], tag: Tag) -> i32 {
        completions.iter().find(|cqe| cqe.tag == tag && !cqe.more).unwrap().result
    }
}

fn only(rates: FaultRates) -> impl Fn(u64) -> SimConfig {
    move |seed| SimConfig { faults: rates, ..SimConfig::calm(seed) }
}

const ECANCELED: i32 = -(Errno::ECANCELED as i32);

#[test]
fn written_bytes_are_read_back_and_survive_only_after_a_flush() {
    let mut bench = Bench::new(SimConfig::calm(1), FileSpec::buffered(4096));
    let mut memory = Memory::new(1000, 9);
    bench.write(100, &mut memory, false);
    assert_eq!(bench.run(1)[0].result, 1000);
    let mut seen = [0; 1000];
    bench.device.peek(0, 100, &mut seen);
    assert_eq!(seen, [9; 1000]);
    bench.device.peek_durable(0, 100, &mut seen);
    assert_eq!(seen, [0; 1000]);
    bench.flush();
    bench.run(1);
    bench.ring.control().crash();
    bench.device.peek(0, 100, &mut seen);
    assert_eq!(seen, [9; 1000]);
    assert_eq!(bench.ring.control().complaints(), []);
}

#[test]
fn f14_follower_starts_only_after_its_head_was_whole() {
    let shorten = only(FaultRates { short: 32768, ..FaultRates::NONE });
    let (mut short, mut whole) = (0, 0);
    for seed in 0..100 {
        let mut bench = Bench::new(shorten(seed), FileSpec::buffered(4096));
        let mut memory = Memory::new(1000, 9);
        let head = bench.write(0, &mut memory, true);
        let follower = bench.flush();
        let completions = bench.run(2);
        let broken = Bench::result_of(&completions, follower) == ECANCELED;
        assert_eq!(broken, Bench::result_of(&completions, head) < 1000);
        if broken {
            short += 1;
        } else {
            whole += 1;
            let mut durable = [0; 1000];
            bench.device.peek_durable(0, 0, &mut durable);
            assert_eq!(durable, [9; 1000]);
        }
    }
    assert!(short > 20 && whole > 20);
}

#[test]
fn f15_chain_ends_where_a_submit_ends() {
    let cut = only(FaultRates { partial_submit: 65535, chain_cut: 65535, ..FaultRates::NONE });
    let mut overtaken = 0;
    for seed in 0..100 {
        let mut bench = Bench::new(cut(seed), FileSpec::buffered(4096));
        let mut memory = Memory::new(512, 1);
        let head = bench.write(0, &mut memory, true);
        bench.flush();
        assert_eq!(bench.ring.enter(Wait::NONE), Ok(1));
        let completions = bench.run(2);
        overtaken += u32::from(completions[0].tag != head);
        assert_eq!(bench.ring.control().stats().chains_cut, 1);
    }
    assert!(overtaken > 0, "without the link, the flush sometimes comes first");
}

#[test]
fn f03_cancel_comes_before_during_and_after() {
    let rates = FaultRates { start_delay: 32768, cq_delay: 32768, ..FaultRates::NONE };
    let delay = |seed| SimConfig { latency_ns_max: 5000, ..only(rates)(seed) };
    let mut stats = SimStats::default();
    let mut results = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let mut bench = Bench::new(delay(seed), FileSpec::buffered(4096));
        let mut memory = Memory::new(512, 1);
        let tag = bench.write(0, &mut memory, false);
        for _ in 0..Random::new(seed).below(200) {
            bench.ring.enter(Wait::NONE).unwrap();
        }
        assert!(bench.ring.cancel(tag));
        let completions = bench.run(1);
        assert_eq!(completions.len(), 1, "the cancel's own completion is swallowed");
        results.insert(completions[0].result);
        stats.add(&bench.ring.control().stats());
    }
    assert!(stats.cancels_before > 0 && stats.cancels_during > 0 && stats.cancels_after > 0);
    assert!(results.contains(&ECANCELED) && results.contains(&512));
}

#[test]
fn f20_completions_that_do_not_fit_are_kept() {
    let config = SimConfig { cq_entries: 2, ..SimConfig::calm(3) };
    let mut bench = Bench::new(config, FileSpec::direct(4096));
    for _ in 0..16 {
        bench.push(OpKind::Nop, 0, None, false);
    }
    for _ in 0..1000 {
        bench.ring.enter(Wait::NONE).unwrap();
    }
    assert_eq!(bench.run(16).len(), 16);
    let stats = bench.ring.control().stats();
    assert!(stats.cq_full > 0 && stats.cq_overflows == 14);
    let complaints = bench.ring.control().complaints();
    assert!(complaints.contains(&Complaint::InFlightAboveCq { in_flight: 3 }));
}

#[test]
fn f21_refused_enter_loses_nothing() {
    let refuse = only(FaultRates {
        enter_eintr: 16384,
        enter_eagain: 16384,
        enter_ebusy: 8192,
        partial_submit: 32768,
        ..FaultRates::NONE
    });
    for seed in 0..50 {
        let mut bench = Bench::new(refuse(seed), FileSpec::direct(4096));
        for _ in 0..8 {
            bench.push(OpKind::Nop, 0, None, false);
        }
        let mut slots: Vec<u32> = bench.run(8).iter().map(|cqe| cqe.tag.slot).collect();
        slots.sort_unstable();
        assert_eq!(slots, (0..8).collect::<Vec<_>>());
        assert!(bench.ring.control().stats().enter_errors > 0);
    }
}

#[test]
fn f44_misaligned_transfer_is_refused_by_a_direct_file() {
    let mut bench = Bench::new(SimConfig::calm(1), FileSpec::direct(4096));
    let mut memory = Memory::new(1024, 1);
    let whole = memory.range();
    let align = whole.addr().align_offset(512);
    let aligned = whole.sub(u32::try_from(align % 512).unwrap(), 512);
    for (offset, memory, expected) in [
        (512, aligned, 512),
        (100, aligned, -(Errno::EINVAL as i32)),
        (0, aligned.sub(0, 100), -(Errno::EINVAL as i32)),
        (0, aligned.sub(8, 504), -(Errno::EINVAL as i32)),
        (4096, aligned, -(Errno::ENOSPC as i32)),
    ] {
        bench.push(OpKind::Write, offset, Some(memory), false);
        assert_eq!(bench.run(1)[0].result, expected);
    }
}

#[test]
fn caller_that_breaks_the_contract_is_named() {
    let mut bench = Bench::new(SimConfig::calm(1), FileSpec::direct(4096));
    let mut memory = Memory::new(512, 1);
    let range = memory.range();
    let first = bench.push(OpKind::Read, 0, Some(range), false);
    let second = bench.push(OpKind::Write, 512, Some(range), true);
    bench.ring.enter(Wait::NONE).unwrap();
    bench.run(2);
    bench.ring.enter(Wait::at_least(1)).unwrap();
    bench.flush();
    let control = bench.ring.control();
    drop(bench);
    assert_eq!(
        control.complaints(),
        [
            Complaint::LinkLeftOpen,
            Complaint::MemoryShared { tag: second, other: first },
            Complaint::SleepsForEver { ready: 0, min: 1 },
            Complaint::DroppedInFlight { in_flight: 1 },
        ]
    );
}

#[test]
fn deadline_ends_a_wait_and_a_wake_prevents_it() {
    let mut bench = Bench::new(SimConfig::calm(1), FileSpec::direct(4096));
    let deadline_ns = bench.ring.now_ns() + 1_000_000;
    bench.ring.enter(Wait { min: 1, deadline_ns: Some(deadline_ns) }).unwrap();
    assert_eq!(bench.ring.control().now_ns(), deadline_ns);
    bench.ring.waker().wake();
    bench.ring.enter(Wait::at_least(1)).unwrap();
    assert_eq!(bench.ring.control().complaints(), []);
}

#[test]
fn power_loss_tears_running_writes_and_ends_every_op() {
    let mut torn = 0;
    for seed in 0..64 {
        let mut bench = Bench::new(SimConfig::calm(seed), FileSpec::buffered(8192));
        let mut memory = Memory::new(8192, 5);
        bench.write(0, &mut memory, false);
        bench.ring.enter(Wait::NONE).unwrap();
        bench.ring.control().crash();
        assert_eq!(bench.run(1)[0].result, -(Errno::EIO as i32));
        let mut seen = [0; 8192];
        bench.device.peek(0, 0, &mut seen);
        let survived = seen.chunks(512).filter(|sector| sector[0] == 5).count();
        assert!(seen.chunks(512).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        torn += u32::from(survived > 0 && survived < 16);
    }
    assert!(torn > 32);
}

#[test]
fn equal_seeds_give_equal_traces_and_others_differ() {
    let run = |seed| {
        let mut bench = Bench::new(SimConfig::hostile(seed), FileSpec::buffered(8192));
        let mut memory: Vec<Memory> = (0..32).map(|byte| Memory::new(700, byte)).collect();
        for (at, memory) in (0_u64..).zip(&mut memory) {
            bench.write(at * 100, memory, at % 3 == 0);
        }
        bench.flush();
        bench.run(33);
        bench.ring.control().trace()
    };
    let traces: Vec<u64> = (0..50).map(run).collect();
    assert_eq!(traces, (0..50).map(run).collect::<Vec<_>>());
    let mut distinct = traces;
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 50);
}

#[test]
fn f17_cancelled_read_may_have_moved_nothing_a_part_or_everything_and_move_it_later() {
    let mut seen = [0; 3];
    let mut stats = SimStats::default();
    for seed in 0..300 {
        let mut bench = Bench::new(SimConfig::calm(seed), FileSpec::buffered(4096));
        bench.device.poke(0, 0, &[7; 1000]);
        let mut memory = Memory::new(1000, 0);
        let range = memory.range();
        let tag = bench.push(OpKind::Read, 0, Some(range), false);
        bench.ring.enter(Wait::NONE).unwrap();
        let early = memory.0.iter().filter(|byte| **byte == 7).count();
        assert!(bench.ring.cancel(tag));
        let completions = bench.run(1);
        let moved = memory.0.iter().filter(|byte| **byte == 7).count();
        assert!(moved >= early);
        if completions[0].result == ECANCELED {
            seen[usize::from(moved > 0) + usize::from(moved == 1000)] += 1;
        }
        stats.add(&bench.ring.control().stats());
        assert_eq!(bench.ring.control().complaints(), []);
    }
    assert!(seen.iter().all(|count| *count > 10), "{seen:?}");
    assert!(stats.late_copies > 50 && stats.cancelled_whole > 10 && stats.cancels_missed > 10);
}

#[test]
fn f03_answered_cancel_says_nothing_of_when_the_op_is_over() {
    let (mut at_once, mut much_later) = (0, 0);
    for seed in 0..200 {
        let config = SimConfig { latency_ns_max: 1 << 20, ..SimConfig::calm(seed) };
        let mut bench = Bench::new(config, FileSpec::direct(4096));
        let tag = bench.push(OpKind::Fsync, 0, None, false);
        bench.ring.enter(Wait::NONE).unwrap();
        let asked_ns = bench.ring.control().now_ns();
        assert!(bench.ring.cancel(tag));
        let completions = bench.run(1);
        assert_eq!(completions[0].tag, tag);
        let took_ns = bench.ring.control().now_ns() - asked_ns;
        at_once += u32::from(took_ns < 2048);
        much_later += u32::from(took_ns > 1 << 17);
    }
    assert!(at_once > 20 && much_later > 50, "{at_once} {much_later}");
}

#[test]
fn f21_enter_fails_as_told_with_nothing_and_with_something_in_flight() {
    let mut bench = Bench::new(SimConfig::calm(1), FileSpec::direct(4096));
    let control = bench.ring.control();
    for errno in [Errno::EINTR, Errno::EAGAIN, Errno::EBUSY, Errno::ENOMEM] {
        control.refuse_enter(errno, 0, 2);
        let (first, second) = (bench.flush(), bench.flush());
        assert_eq!(bench.ring.enter(Wait::NONE), Err(errno));
        assert_eq!(bench.ring.enter(Wait::NONE), Err(errno));
        assert_eq!(bench.ring.enter(Wait::NONE), Ok(2), "nothing was lost");
        control.refuse_enter(errno, 0, 1);
        assert_eq!(bench.ring.enter(Wait::NONE), Err(errno));
        let done = bench.run(2);
        assert!([first, second].iter().all(|tag| done.iter().any(|cqe| cqe.tag == *tag)));
    }
    let stats = control.stats();
    let idle = [stats.eintr_idle, stats.eagain_idle, stats.ebusy_idle, stats.enomem_idle];
    let busy = [stats.eintr_busy, stats.eagain_busy, stats.ebusy_busy, stats.enomem_busy];
    assert_eq!((idle, busy), ([2; 4], [1; 4]));
}

#[test]
fn f33_features_can_be_taken_away_and_are_then_named() {
    use crate::buffer::{Arena, ArenaConfig, SizeClass};
    let features = SimFeatures { vectored_fixed: false, registered_quarters: 1, ranges: false };
    let config = SimConfig { features, files_registered_max: 0, ..SimConfig::calm(1) };
    let mut bench = Bench::new(config, FileSpec::direct(4096));
    assert!(matches!(bench.file, FileRef::Plain(_)));
    assert!(!bench.ring.features().vectored_fixed);
    assert_eq!(bench.ring.features().degraded.len(), 1);
    assert!(!bench.ring.supports(OpKind::Discard) && bench.ring.supports(OpKind::Read));
    let arena = Arena::new(&ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 8 }])).unwrap();
    bench.ring.register_buffers(arena.region());
    assert_eq!(arena.region().registered_bytes(), arena.region().len_bytes() / 4);
}

#[test]
fn completions_seen_late_are_seen_once() {
    let late = only(FaultRates { partial_reap: 65535, ..FaultRates::NONE });
    for seed in 0..20 {
        let mut bench = Bench::new(late(seed), FileSpec::direct(4096));
        let tags: Vec<Tag> = (0..8).map(|_| bench.push(OpKind::Nop, 0, None, false)).collect();
        let completions = bench.run(8);
        assert_eq!(completions.len(), 8);
        assert!(tags.iter().all(|tag| completions.iter().any(|cqe| cqe.tag == *tag)));
        assert_eq!(bench.ring.control().in_flight(), 0);
    }
}
