//! Cases of the failure catalogue that take a ring in the hands of the test: completions of
//! nobody, refusals at any call, submits in parts, and more pieces than an op can have.

use mfio_core::AlignedBuf;
use proptest::prelude::*;

use super::*;
use crate::complete::{EnterVerdict, enter_error};
use crate::shard::barrier::Epoch;
use crate::shard::slot::{Behind, FlushOp, Occupant, Slots};

const EIO: i32 = -(Errno::EIO as i32);

impl Scripted {
    fn post(&self, tag: Tag, result: i32, more: bool) {
        self.0.borrow_mut().done.push(Completion { tag, result, more });
    }

    /// The tag of the only op that runs.
    fn only_tag(&self) -> Tag {
        let script = self.0.borrow();
        let [(_, tag)] = script.running[..] else { panic!("{} ops run", script.running.len()) };
        tag
    }
}

#[test]
fn f04_late_and_repeated_completions_change_nothing() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let mut first = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(first.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let old = ring.only_tag();
    ring.complete(OpKind::Read, 8);
    shard.turn(Wait::NONE).unwrap();
    assert!(poll(first, Waker::noop()).is_ready());
    let mut second = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let new = ring.only_tag();
    assert_eq!(old.slot, new.slot, "the slot is used again");
    assert_ne!(old.generation, new.generation);
    // Of the earlier occupant, in every shape; of no slot at all.
    for result in [8, 3, 0, EIO, CANCELED] {
        ring.post(old, result, false);
        ring.post(old, result, true);
    }
    ring.post(Tag { slot: 4096, generation: 0 }, 8, false);
    // Of this one, which says that another follows: the slot is not free before that.
    ring.post(new, 8, true);
    ring.post(new, 3, true);
    shard.turn(Wait::NONE).unwrap();
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    assert_eq!((shard.in_flight(), shard.metrics().stale_completions), (1, 11));
    ring.complete(OpKind::Read, 8);
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(second, Waker::noop()), Poll::Ready((Ok(()), _))));
    assert!(shard.is_idle());
}

proptest! {
    /// Whatever is occupied and vacated, in whatever order: a tag finds what it was made for,
    /// until that leaves, and nothing afterwards.
    #[test]
    fn f04_tag_finds_its_own_occupant_or_nobody(
        steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 1..300),
    ) {
        let mut slots = Slots::new(6, None);
        let (mut live, mut gone) = (Vec::<(Tag, u32)>::new(), Vec::<Tag>::new());
        for (number, (enters, which)) in (0_u32..).zip(steps) {
            if enters && slots.free() > 0 {
                let flush = FlushOp::new(number, false, Behind::Requests(Epoch::default()));
                live.push((slots.occupy(Occupant::Flush(flush)), number));
            } else if !live.is_empty() {
                let (tag, _) = live.swap_remove(which.index(live.len()));
                slots.vacate(tag);
                gone.push(tag);
            }
            prop_assert_eq!(slots.occupied(), live.len());
            for &(tag, number) in &live {
                let found = slots.find(tag);
                prop_assert!(matches!(found, Some(Occupant::Flush(op)) if op.target == number));
            }
            for &tag in &gone {
                prop_assert!(slots.find(tag).is_none(), "{tag:?} is stale");
            }
        }
        live.into_iter().for_each(|(tag, _)| slots.vacate(tag));
    }
}

const TRANSIENT: [Errno; 4] = [Errno::EINTR, Errno::EAGAIN, Errno::EBUSY, Errno::ENOMEM];

/// Whatever `enter` says, at whatever call, and whether or not it has taken something first: no
/// slot is freed by it, and what the kernel has taken may complete.
#[test]
fn f05_no_errno_of_enter_at_any_call_frees_a_slot() {
    let fatal = [
        Errno::EBADF,
        Errno::EBADFD,
        Errno::EFAULT,
        Errno::EINVAL,
        Errno::ENXIO,
        Errno::EEXIST,
        Errno::EOPNOTSUPP,
        Errno::EOVERFLOW,
    ];
    for errno in TRANSIENT.into_iter().chain(fatal) {
        for (call, takes) in (0..6).flat_map(|call| [(call, false), (call, true)]) {
            let ring = Scripted::new();
            let (shard, file) = shard(&ring, 1);
            let arena = shard.arena().clone();
            ring.0.borrow_mut().consumes = 1;
            let mut reads = CompletionQueue::<Read, _>::new();
            for at in 0..4 {
                reads.send(&file, at * 4096, Packet::new(arena.alloc(4096).unwrap()), at).unwrap();
            }
            for turn in 0..6 {
                ring.0.borrow_mut().enter_fails = (turn == call).then_some(errno);
                ring.0.borrow_mut().fails_late = takes;
                let _said = shard.turn(Wait::NONE);
                assert_eq!((arena.in_use(), shard.in_flight()), (4, 4), "{errno} at call {call}");
                assert!(reads.pop().is_none(), "{errno} at call {call} ended an op");
            }
            ring.0.borrow_mut().enter_fails = None;
            ring.0.borrow_mut().consumes = usize::MAX;
            let broken = shard.turn(Wait::NONE).is_err();
            assert_eq!(broken, !TRANSIENT.contains(&errno), "{errno}");
            let taken = ring.0.borrow().running.len();
            assert!(broken || taken == 4, "{errno}: everything is submitted in the end, once");
            while !ring.0.borrow().running.is_empty() {
                ring.complete(OpKind::Read, 4096);
            }
            let _said = shard.turn(Wait::NONE);
            let done = std::iter::from_fn(|| reads.pop()).filter(|(_, done)| done.is_ok()).count();
            assert_eq!(done, taken, "{errno} at call {call}: exactly what was taken completes");
            drop((reads, file, shard));
            assert_eq!(arena.in_use(), 4 - taken, "what may still be written to is kept");
        }
    }
}

#[test]
fn f21_every_refusal_of_enter_with_and_without_ops_in_flight() {
    for in_flight in [0, 1, 4096] {
        let verdict = |errno| enter_error(errno, in_flight);
        assert_eq!(verdict(Errno::EINTR), EnterVerdict::Again);
        assert_eq!(verdict(Errno::EBUSY), EnterVerdict::ReapThenAgain);
        // Waiting for completions that cannot come would be for ever.
        let expected =
            if in_flight > 0 { EnterVerdict::ReapThenAgain } else { EnterVerdict::BackOff };
        assert_eq!(verdict(Errno::EAGAIN), expected);
        assert_eq!(verdict(Errno::ENOMEM), EnterVerdict::BackOff);
        for errno in [Errno::EBADF, Errno::EINVAL, Errno::EEXIST] {
            assert_eq!(verdict(errno), EnterVerdict::Fatal(errno));
        }
    }
}

#[test]
fn f22_rest_of_a_partial_submit_is_neither_lost_nor_submitted_twice() {
    for consumes in 1..=8 {
        let ring = Scripted::new();
        let (shard, file) = shard(&ring, 1);
        ring.0.borrow_mut().consumes = consumes;
        let mut reads: Vec<_> =
            (0..8).map(|at| Box::pin(file.read_exact_at(at * 4096, vec![0; 64]))).collect();
        for read in &mut reads {
            assert!(poll(read.as_mut(), Waker::noop()).is_pending());
        }
        for turn in 1..=8 {
            shard.turn(Wait::NONE).unwrap();
            let (running, queued) = (ring.0.borrow().running.len(), ring.0.borrow().queued.len());
            assert_eq!((running, running + queued), (8.min(turn * consumes), 8));
            assert_eq!(shard.metrics().submitted, running as u64);
            let unsubmitted = shard.inner.core.borrow_mut().has_unsubmitted();
            assert_eq!(unsubmitted, queued > 0, "a host comes back for the rest");
        }
        let mut offsets: Vec<_> =
            ring.0.borrow().running.iter().map(|(op, _)| op.offset_bytes).collect();
        offsets.dedup();
        assert!(offsets.iter().copied().eq((0..8).map(|at| at * 4096)), "each once, in order");
        (0..8).for_each(|_| ring.complete(OpKind::Read, 64));
        shard.turn(Wait::NONE).unwrap();
        for read in reads {
            assert!(matches!(poll(pin!(read), Waker::noop()), Poll::Ready((Ok(()), _))));
        }
        assert_eq!(shard.metrics().ops, 8);
    }
}

// `UIO_MAXIOV`, which is what the kernel takes.
const _: () = assert!(crate::buffer::PIECES_MAX <= 1024);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// However many neighbours of a batch become one op: it has no more pieces than a slot has
    /// room for, which is far below what the kernel takes, and the ops tile what was asked for.
    #[test]
    fn f10_joined_ops_have_few_pieces_and_tile_the_batch(
        lens in prop::collection::vec(1_usize..3000, 1..64),
    ) {
        let ring = Scripted::new();
        let classes = vec![SizeClass { bytes: 4096, count: 4 }];
        let config = Config {
            in_flight_max: 64,
            backlog_max: 64,
            arena: ArenaConfig::new(classes),
            bypass: crate::BypassMode::Off,
            ..Config::new()
        };
        let shard = Shard::with_ring(ring.clone(), &config).unwrap();
        let file = shard.adopt_simulated("scripted", 3, geometry(1));
        let mut batch = shard.batch::<64, AlignedBuf>();
        let mut end = 0;
        for &len in &lens {
            // Every other byte of memory is somebody else's: pieces never touch.
            prop_assert!(batch.push_read(&file, end, AlignedBuf::new(len, 64)).is_ok());
            end += len as u64;
        }
        prop_assert_eq!(batch.submit().unwrap(), lens.len());
        while shard.inner.core.borrow_mut().has_unsubmitted() || shard.has_work() {
            shard.turn(Wait::NONE).unwrap();
        }
        let mut ops: Vec<_> = ring.0.borrow().running.clone();
        ops.sort_by_key(|(op, _)| op.offset_bytes);
        let mut at = 0;
        for (op, tag) in &ops {
            let memory = op.memory.unwrap();
            let pieces = memory.pieces().count();
            prop_assert!(pieces <= crate::buffer::PIECES_MAX);
            let together: u32 = memory.pieces().map(|piece| piece.len_bytes()).sum();
            prop_assert_eq!(together, memory.len_bytes());
            prop_assert_eq!(op.offset_bytes, at);
            at += u64::from(memory.len_bytes());
            ring.post(*tag, i32::try_from(memory.len_bytes()).unwrap(), false);
        }
        prop_assert_eq!(at, end);
        ring.0.borrow_mut().running.clear();
        shard.turn(Wait::NONE).unwrap();
        let mut done = 0;
        while let Some(reaped) = batch.reap() {
            prop_assert_eq!(reaped.result, Ok(()));
            done += 1;
        }
        prop_assert_eq!(done, lens.len());
    }
}
