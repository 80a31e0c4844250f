//! Schedules in which two features of the shard meet: shared poison and closed handles, classes
//! and refusals, chains and the queues they wait in.

use super::*;
use crate::ring::sim::{FileSpec, SimConfig, SimDevice, SimRing};
use crate::shard::{Class, WriteAt};
use crate::target::Inode;
use mfio_core::{Drive as _, PacketIo, Write};

fn inode(number: u64) -> Inode {
    Inode { device: u64::MAX - 1, number, special: 0 }
}

#[test]
fn f37_poison_of_another_handle_ends_the_requests_of_one_that_was_closed() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 1);
    let closed = shard.adopt_simulated_inode("closed", 4, geometry(1), inode(1));
    let other = shard.adopt_simulated_inode("other", 5, geometry(1), inode(1));
    let mut write = Box::pin(closed.write_all_at(0, vec![1; 64]));
    assert!(poll(write.as_mut(), Waker::noop()).is_pending());
    let mut flush = pin!(other.sync(Durability::Data));
    assert!(poll(flush.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    // Its flush waits for its write; nobody waits for the flush, and the handle goes.
    drop(closed.sync(Durability::Data));
    ring.complete(OpKind::Fdatasync, -(Errno::EIO as i32));
    drop(write);
    drop(closed);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(flush, Waker::noop()), Poll::Ready(Err(_))));
    assert!(shard.is_idle());
}

#[test]
fn f37_handles_of_one_file_have_one_flush_in_flight_between_them() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 1);
    let one = shard.adopt_simulated_inode("one", 4, geometry(1), inode(3));
    let other = shard.adopt_simulated_inode("other", 5, geometry(1), inode(3));
    let flushes = || {
        let script = ring.0.borrow();
        script.running.iter().filter(|(op, _)| op.kind == OpKind::Fdatasync).count()
    };
    let mut first = pin!(one.sync(Durability::Data));
    assert!(poll(first.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let mut second = pin!(other.sync(Durability::Data));
    let mut durable = pin!(other.write_durable_at(0, vec![1; 64]));
    let chain = other.chain().write_at(4096, page(&shard)).sync(Durability::Data);
    let mut chained = pin!(chain.commit());
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    assert!(poll(durable.as_mut(), Waker::noop()).is_pending());
    assert!(poll(chained.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(flushes(), 1, "a second one could succeed because the first has failed");
    ring.complete(OpKind::Fdatasync, 0);
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(first, Waker::noop()), Poll::Ready(Ok(()))));
    ring.complete(OpKind::Write, 64);
    ring.complete(OpKind::Write, 4096);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(flushes(), 1, "it is the turn of the other handle");
    ring.complete(OpKind::Fdatasync, -(Errno::EIO as i32));
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(second, Waker::noop()), Poll::Ready(Err(_))));
    assert!(matches!(poll(durable, Waker::noop()), Poll::Ready((Err(_), _))));
    assert!(matches!(poll(chained, Waker::noop()), Poll::Ready((Err(_), _))));
    assert!(one.is_poisoned() && shard.is_idle());
}

#[test]
fn f37_handle_whose_flushes_never_rest_leaves_the_others_of_the_file_a_turn() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 1);
    let busy = shard.adopt_simulated_inode("busy", 4, geometry(1), inode(5));
    let other = shard.adopt_simulated_inode("other", 5, geometry(1), inode(5));
    let mut syncing = Box::pin(busy.sync(Durability::Data));
    assert!(poll(syncing.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let mut waiting = pin!(other.sync(Durability::Data));
    assert!(poll(waiting.as_mut(), Waker::noop()).is_pending());
    let over = (0..8).any(|_| {
        // There is always one more when one has ended.
        let mut next = Box::pin(busy.sync(Durability::Data));
        assert!(poll(next.as_mut(), Waker::noop()).is_pending());
        ring.complete(OpKind::Fdatasync, 0);
        shard.turn(Wait::NONE).unwrap();
        shard.turn(Wait::NONE).unwrap();
        if poll(syncing.as_mut(), Waker::noop()).is_ready() {
            syncing = next;
        }
        poll(waiting.as_mut(), Waker::noop()).is_ready()
    });
    assert!(over, "one handle keeps the other from ever being flushed");
}

/// Which file a position belongs to is the same question as to whom a flush reports: the open
/// file description, which duplicates share.
#[test]
fn f37_duplicate_that_another_shard_adopts_is_told_of_lost_writes_by_itself() {
    use std::io::{Seek, SeekFrom};
    let (ring, other_ring) = (Scripted::new(), Scripted::new());
    let ((one, _), (other, _)) = (shard(&ring, 1), shard(&other_ring, 1));
    let mut owner = tempfile::tempfile().unwrap();
    let there = one.adopt("there", owner.try_clone().unwrap(), geometry(1));
    let here = other.adopt("here", owner.try_clone().unwrap(), geometry(1));
    owner.seek(SeekFrom::Start(7)).unwrap();
    let position = |shard: &Shard<Scripted>, file: &File<Scripted>| {
        let core = shard.inner.core.borrow();
        let mut opened = core.targets.get(file.target()).opened.as_ref().unwrap();
        opened.stream_position().unwrap()
    };
    assert_eq!((position(&one, &there), position(&other, &here)), (7, 0));
    // Of a pipe there is nothing to be lost, and opening it could take for ever.
    let (reader, _writer) = nix::unistd::pipe().unwrap();
    let pipe = std::fs::File::from(reader);
    let _first = one.adopt("pipe", pipe.try_clone().unwrap(), geometry(1));
    let second = one.adopt("pipe", pipe, geometry(1));
    assert!(one.inner.core.borrow().targets.get(second.target())._lent.is_none());
}

#[test]
fn f37_no_flush_is_in_flight_beside_a_write_that_flushes_itself() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 512);
    let one = shard.adopt_simulated_inode("one", 4, geometry(512), inode(4));
    let other = shard.adopt_simulated_inode("other", 5, geometry(512), inode(4));
    other.set_sync_method(crate::SyncMethod::Dsync).unwrap();
    let running =
        |is: fn(&Op) -> bool| ring.0.borrow().running.iter().filter(|(op, _)| is(op)).count();
    let mut before = pin!(other.write_durable_at(0, page(&shard)));
    assert!(poll(before.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let mut flush = pin!(one.sync(Durability::Data));
    assert!(poll(flush.as_mut(), Waker::noop()).is_pending());
    let mut after = pin!(other.write_durable_at(4096, page(&shard)));
    assert!(poll(after.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(running(|op| op.kind == OpKind::Fdatasync), 0, "it waits for the write");
    assert_eq!(running(|op| op.dsync), 1, "the later write goes behind a flush");
    ring.complete(OpKind::Write, 4096);
    ring.complete(OpKind::Write, 4096);
    for _ in 0..6 {
        shard.turn(Wait::NONE).unwrap();
        assert!(running(|op| op.kind == OpKind::Fdatasync) <= 1);
        if running(|op| op.kind == OpKind::Fdatasync) == 1 {
            ring.complete(OpKind::Fdatasync, 0);
        }
    }
    assert!(matches!(poll(before, Waker::noop()), Poll::Ready((Ok(()), _))));
    assert!(matches!(poll(after, Waker::noop()), Poll::Ready((Ok(()), _))));
    assert!(matches!(poll(flush, Waker::noop()), Poll::Ready(Ok(()))));
}

#[test]
fn f37_flush_that_a_shutdown_cancels_poisons_no_handle_of_another_shard() {
    let (ring, other_ring) = (Scripted::new(), Scripted::new());
    let ((leaving, _), (staying, _)) = (shard(&ring, 1), shard(&other_ring, 1));
    let there = leaving.adopt_simulated_inode("there", 4, geometry(1), inode(2));
    let here = staying.adopt_simulated_inode("here", 4, geometry(1), inode(2));
    let mut flush = pin!(there.sync(Durability::Data));
    assert!(poll(flush.as_mut(), Waker::noop()).is_pending());
    leaving.turn(Wait::NONE).unwrap();
    assert_eq!(ring.0.borrow().running.len(), 1);
    assert_eq!(leaving.shutdown(), 0);
    let Poll::Ready(Err(error)) = poll(flush, Waker::noop()) else { panic!("it was answered") };
    assert_eq!(error.error.kind(), ErrorKind::Closed);
    assert_eq!(leaving.metrics().flush_failures, 0);
    other_ring.answer_all(WHOLE);
    let mut write = pin!(here.write_durable_at(0, vec![1; 64]));
    assert!(poll(write.as_mut(), Waker::noop()).is_pending());
    staying.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(write, Waker::noop()), Poll::Ready((Ok(()), _))));
}

#[test]
fn refused_write_of_a_class_uses_the_room_of_that_class() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let log = file.with_class(Class::Log);
    let mut reads: Vec<_> = (0..16).map(|_| Box::pin(file.read_exact_at(0, vec![0; 8]))).collect();
    for read in &mut reads {
        assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    }
    assert!(!file.has_room() && log.has_room());
    let at = WriteAt::new(0).atomic();
    let (sent, view) = Packet::<Write, _>::new(vec![1_u8; 64]).send();
    assert!(log.send_io(at, view).is_ok(), "there is room in its class");
    assert_eq!(sent.into_completed().unwrap().result().unwrap_err().kind(), ErrorKind::Unsupported);
    drop(reads);
    shard.turn(Wait::NONE).unwrap();
    // What was promised is used up by what it was promised to, and by nothing else.
    let room = shard.inner.core.borrow().room_in(Class::Log);
    assert!(PacketIo::<Write, WriteAt>::reserve(&log, room));
    for _ in 0..room {
        let (_sent, view) = Packet::<Write, _>::new(vec![1_u8; 64]).send();
        assert!(log.send_io(at, view).is_ok());
    }
    assert_eq!(shard.inner.core.borrow().room_in(Class::Log), room);
}

/// Leaves the queue without room, with something in it that is no op of the shard.
fn block_queue(ring: &Scripted) {
    let mut script = ring.0.borrow_mut();
    script.sq_entries = 1;
    script.queued.push_back((Op::on(OpKind::Fsync, FileRef::Plain(9)), Tag::INTERNAL));
}

#[test]
fn f28_work_of_any_kind_gets_past_a_queue_that_is_full_of_cancels() {
    for kind in 0..4 {
        let ring = Scripted::new();
        let (shard, file) = shard(&ring, 1);
        ring.answer_all(WHOLE);
        block_queue(&ring);
        let class = [Class::Log, Class::Background, Class::Foreground][kind % 3];
        let file = file.with_class(class);
        let mut write = pin!(async {
            if kind == 3 {
                return file.sync(Durability::Data).await;
            }
            file.write_all_at(0, vec![1; 64]).await.0
        });
        assert!(poll(write.as_mut(), Waker::noop()).is_pending());
        assert!(shard.inner.core.borrow_mut().owes_a_turn(), "{kind}: a host comes back");
        let over = (0..8).any(|_| {
            shard.turn(Wait::at_least(1)).unwrap();
            poll(write.as_mut(), Waker::noop()).is_ready()
        });
        assert!(over, "{kind}: it waits for a queue that nobody empties");
    }
}

#[test]
fn call_in_place_of_an_op_is_made_where_a_slot_is_left_to_back_off_in() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.0.borrow_mut().old = true;
    let mut reads: Vec<_> = (0..8).map(|_| Box::pin(file.read_exact_at(0, vec![0; 8]))).collect();
    for read in &mut reads {
        assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    }
    let mut discard = pin!(file.discard(0, 512));
    assert!(poll(discard.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    assert!(poll(discard.as_mut(), Waker::noop()).is_pending(), "no slot is free");
    ring.complete(OpKind::Read, 8);
    shard.turn(Wait::NONE).unwrap();
    let Poll::Ready(Err(error)) = poll(discard, Waker::noop()) else { panic!("it is over") };
    assert_eq!(error.error.kind(), ErrorKind::Unsupported);
    drop(reads);
}

#[test]
fn f28_flush_that_a_chain_asks_for_goes_with_the_next_submit() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.0.borrow_mut().old = true;
    // Never completes: nothing may wait for it.
    let mut read = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    let real = shard.adopt("real", tempfile::tempfile().unwrap(), geometry(1));
    let chain = real.chain().range(OpKind::Truncate, 0, 100).sync(Durability::Data);
    let mut commit = pin!(chain.commit());
    assert!(poll(commit.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Fdatasync, 0);
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(commit, Waker::noop()), Poll::Ready((Ok(()), _))));
}

#[test]
fn f28_flush_that_is_due_once_a_call_was_made_on_the_spot_goes_at_once() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.0.borrow_mut().old = true;
    // Seven of them never complete: nothing may wait for those.
    let mut reads: Vec<_> = (0..8).map(|_| Box::pin(file.read_exact_at(0, vec![0; 8]))).collect();
    for read in &mut reads {
        assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    }
    shard.turn(Wait::NONE).unwrap();
    let mut discard = pin!(file.discard(0, 512));
    assert!(poll(discard.as_mut(), Waker::noop()).is_pending(), "no slot is free");
    let mut sync = pin!(file.sync(Durability::Data));
    assert!(poll(sync.as_mut(), Waker::noop()).is_pending());
    ring.complete(OpKind::Read, 8);
    shard.turn(Wait::NONE).unwrap();
    let queued = |op: &Op| op.kind == OpKind::Fdatasync;
    assert!(ring.0.borrow().queued.iter().any(|(op, _)| queued(op)), "the discard is over");
    drop(reads);
}

#[test]
fn f23_op_whose_back_off_is_short_does_not_wait_for_one_whose_is_long() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let again = |kind| ring.complete(kind, -(Errno::EAGAIN as i32));
    let back_off = |kind, times| {
        for _ in 0..times {
            again(kind);
            shard.turn(Wait::NONE).unwrap();
            shard.turn(Wait::at_least(1)).unwrap();
            shard.turn(Wait::NONE).unwrap();
        }
    };
    let mut read = pin!(file.read_exact_at(0, vec![0; 8]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    back_off(OpKind::Read, 6);
    let mut write = pin!(file.write_all_at(0, vec![0; 8]));
    assert!(poll(write.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    back_off(OpKind::Write, 3);
    // The read waits for 128 us from now on, the write for 16.
    again(OpKind::Read);
    again(OpKind::Write);
    shard.turn(Wait::NONE).unwrap();
    let before_ns = ring.0.borrow().now_ns;
    shard.turn(Wait::at_least(1)).unwrap();
    let slept_ns = ring.0.borrow().now_ns - before_ns;
    assert!(slept_ns < 64_000, "{slept_ns}");
}

#[test]
fn f43_halves_of_a_read_that_was_short_before_begin_at_a_block() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 512);
    let mut read = pin!(file.read_exact_at(0, page(&shard)));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    // As where a file ends inside a block.
    ring.complete(OpKind::Read, 700);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Read, -(Errno::EIO as i32));
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    let begun: Vec<u64> = ring.0.borrow().running.iter().map(|(op, _)| op.offset_bytes).collect();
    assert_eq!((begun, shard.metrics().bounced), (vec![512, 2048], 0));
}

#[test]
fn f02_op_that_only_waits_to_be_tried_again_is_freed_with_its_shard() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    ring.answer_all(|_| -(Errno::EAGAIN as i32));
    let arena = shard.arena().clone();
    let mut reads = CompletionQueue::<Read, _>::new();
    reads.send(&file, 0, Packet::new(arena.alloc(4096).unwrap()), 0).unwrap();
    shard.turn(Wait::NONE).unwrap();
    assert_eq!(shard.in_flight(), 0);
    assert!(!shard.is_idle(), "it backs off");
    drop((file, shard));
    assert_eq!(reads.pop().map(|(_, done)| done.is_ok()), Some(false));
    drop(reads);
    assert_eq!(arena.in_use(), 0, "nothing was in flight");
}

#[test]
fn long_chain_gets_its_turn_beside_traffic_that_never_rests() {
    for scarce_queue in [false, true] {
        let ring = Scripted::new();
        let (shard, file) = shard(&ring, 1);
        if scarce_queue {
            ring.0.borrow_mut().sq_entries = 8;
        }
        let log = file.with_class(Class::Log);
        let mut busy = Box::pin(log.read_exact_at(0, vec![0; 8]));
        assert!(poll(busy.as_mut(), Waker::noop()).is_pending());
        shard.turn(Wait::NONE).unwrap();
        let chain = (0..8).fold(file.chain(), |chain, at| {
            let page = shard.arena().alloc(4096).unwrap();
            chain.write_at(at * 4096, page)
        });
        let mut commit = pin!(chain.commit());
        assert!(poll(commit.as_mut(), Waker::noop()).is_pending());
        let over = (0..200).any(|_| {
            // One op of the log is always there, and in the queue before the chain is looked at.
            let mut next = Box::pin(log.read_exact_at(0, vec![0; 8]));
            assert!(poll(next.as_mut(), Waker::noop()).is_pending());
            let is = |kind: OpKind| ring.0.borrow().running.iter().any(|(op, _)| op.kind == kind);
            if is(OpKind::Read) {
                ring.complete(OpKind::Read, 8);
            }
            while is(OpKind::Write) {
                ring.complete(OpKind::Write, 4096);
            }
            shard.turn(Wait::NONE).unwrap();
            if poll(busy.as_mut(), Waker::noop()).is_ready() {
                busy = next;
            }
            poll(commit.as_mut(), Waker::noop()).is_ready()
        });
        assert!(
            over,
            "it waits for ever for {} at once",
            if scarce_queue { "room" } else { "slots" }
        );
    }
}

#[test]
fn f43_damage_behind_a_short_read_is_looked_for_without_a_bounce_buffer() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 512);
    let mut read = pin!(file.read_exact_at(0, page(&shard)));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Read, 1000);
    shard.turn(Wait::NONE).unwrap();
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Read, -(Errno::EIO as i32));
    shard.turn(Wait::NONE).unwrap();
    ring.answer_all(WHOLE);
    for _ in 0..4 {
        shard.turn(Wait::NONE).unwrap();
    }
    // It is gone when it is read again.
    assert!(matches!(poll(read, Waker::noop()), Poll::Ready((Ok(()), _))));
    assert_eq!(shard.metrics().bounced, 0, "the halves are as aligned as the whole");
}

/// A flush that is refused at the start of a turn frees room which no completion tells of, and
/// nobody else either, where the one who asked for it has left.
#[test]
fn f28_message_that_waits_for_room_gets_on_when_a_refused_flush_makes_some() {
    let device = SimDevice::new(&[FileSpec::direct(8192)]);
    let ring = SimRing::new(SimConfig::calm(1), &device);
    let control = ring.control();
    let config = Config { backlog_max: 1, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.adopt_simulated("here", device.fd(0), device.geometry(0));
    let from_afar = shard.adopt_simulated_remote("afar", device.fd(0), device.geometry(0));
    {
        let mut flush = pin!(file.sync(Durability::Data));
        assert!(poll(flush.as_mut(), Waker::noop()).is_pending());
    }
    let mut read = pin!(from_afar.read_exact_at(0, shard.arena().alloc(4096).unwrap()));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    // What a flush of the file on another shard has come to.
    shard.inner.core.borrow().targets.get(file.target()).poison.set(Errno::EIO, 0);
    let mut rounds = 0;
    let (result, _) = loop {
        assert!(rounds < 8, "it waits for room that there is");
        rounds += 1;
        let _pending = shard.get_backend().unwrap().unwrap().park();
        if let Poll::Ready(over) = poll(read.as_mut(), Waker::noop()) {
            break over;
        }
    };
    assert_eq!((result, control.complaints()), (Ok(()), Vec::new()));
}
