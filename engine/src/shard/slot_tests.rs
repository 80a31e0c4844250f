//! The slot table by itself: who is found by which tag, and what leaves with whom.

use std::sync::Arc;

use mfio_core::{CompletionBatch, Error, Packet, Read, Sent, Write};

use super::*;
use crate::Config;
use crate::buffer::{Arena, ArenaConfig, MemRange, SizeClass, quarantined};
use crate::metrics::{Direction, MetricsReader, Published};
use crate::shard::barrier::Barrier;
use crate::shard::body::Body;

fn flush() -> Occupant {
    Occupant::Flush(FlushOp::new(3, false, Behind::Requests(Epoch::default())))
}

fn arena() -> Arena {
    Arena::new(&ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 4 }])).unwrap()
}

/// A plain read of 4 KiB into a buffer of `arena`, with whoever awaits it.
fn read(arena: &Arena) -> (Plain<Read>, Sent<Read, ArenaBuf>) {
    let (sent, view) = Packet::<Read, _>::new(arena.alloc(4096).unwrap()).send();
    let lent = view.try_alloc(1).expect("an arena's buffer is lent");
    let region = Some(arena.region());
    let memory = MemRange::of_raw(lent.as_ptr(), 4096, region).unwrap();
    let at = At { target: 3, extent: memory.extent(), offset_bytes: 512 };
    (Plain { lent, epoch: Epoch::default(), at }, sent)
}

/// Puts `plain` on `target` into a free slot.
fn occupy_plain(slots: &mut Slots, target: u32, plain: Plain<Read>) -> Tag {
    let at = At { target, ..plain.at };
    slots.vacancy().unwrap().fill(Plain { at, ..plain })
}

#[test]
fn f04_tag_finds_its_own_occupant_and_no_later_one() {
    let mut slots = Slots::new(2, None);
    assert_eq!((slots.free(), slots.count(), slots.occupied()), (2, 2, 0));
    let first = slots.occupy(flush());
    assert!(matches!(slots.find(first), Some(Occupant::Flush(_))));
    assert!(slots.transfer(first).is_none(), "it is not a transfer");
    slots.vacate(first);
    assert!(slots.find(first).is_none());
    let second = slots.occupy_other(flush());
    assert_eq!(second.slot, first.slot, "the slot is used again");
    assert!(slots.find(first).is_none() && slots.find(second).is_some());
    assert!(slots.find(Tag { slot: 2, ..second }).is_none(), "beyond the table");
    assert_eq!(slots.iter_mut().map(|(tag, _)| tag).collect::<Vec<_>>(), [second]);
    slots.vacate(second);
}

#[test]
#[should_panic(expected = "vacated by its own tag")]
fn f04_slot_cannot_be_vacated_by_an_earlier_tag() {
    let mut slots = Slots::new(1, None);
    let tag = slots.occupy(flush());
    slots.vacate(tag);
    slots.vacate(tag);
}

#[test]
#[should_panic(expected = "a slot is free")]
fn f19_table_that_is_full_takes_nobody() {
    let mut slots = Slots::new(1, None);
    let _tag = slots.occupy(flush());
    slots.occupy(flush());
}

#[test]
fn f11_whole_transfer_leaves_at_once_and_any_other_stays() {
    let arena = arena();
    let mut slots = Slots::new(2, None);
    let (plain, sent) = read(&arena);
    let tag = occupy_plain(&mut slots, 3, plain);
    for result in [4095, 0, -5, 4097] {
        assert!(slots.take_whole(tag, result).is_none(), "{result}");
    }
    let stale = Tag { generation: tag.generation.wrapping_add(1), ..tag };
    assert!(slots.take_whole(stale, 4096).is_none());
    assert!(slots.take_whole(Tag { slot: 9, ..tag }, 4096).is_none());
    let other = slots.occupy(flush());
    assert!(slots.take_whole(other, 0).is_none(), "a flush moves nothing");
    slots.vacate(other);
    let Some(Whole::Read(lent)) = slots.take_whole(tag, 4096) else { panic!() };
    lent.done();
    assert_eq!(slots.occupied(), 0);
    assert!(sent.is_done());
}

#[test]
fn f04_whole_plain_write_leaves_with_its_target_and_epoch_and_a_looked_at_one_keeps_them() {
    let arena = arena();
    let mut slots = Slots::new(1, None);
    let mut barrier = Barrier::default();
    let _closed = barrier.close_epoch();
    let epoch = barrier.write_started();
    assert_ne!(epoch, Epoch::default());
    for looked_at in [false, true] {
        let (sent, view) = Packet::<Write, _>::new(arena.alloc(4096).unwrap()).send();
        let lent = view.try_alloc(1).expect("an arena's buffer is lent");
        let memory = MemRange::of_raw(lent.as_ptr(), 4096, None).unwrap();
        let at = At { target: 5, extent: memory.extent(), offset_bytes: 512 };
        let tag = slots.vacancy().unwrap().fill(Plain { lent, epoch, at });
        assert!(slots.vacancy().is_none(), "the only slot is occupied");
        if looked_at {
            let transfer = slots.transfer(tag).unwrap();
            assert_eq!((transfer.target, transfer.is_read, transfer.epoch), (5, false, epoch));
            assert_eq!(transfer.memory.addr(), memory.addr());
            assert_eq!(transfer.memory.buf_index(), None);
            transfer.body.take().unwrap().finish_alone();
            slots.vacate(tag);
        } else {
            let whole = slots.take_whole(tag, 4096);
            let Some(Whole::Write(lent, 5, its)) = whole else { panic!("{whole:?}") };
            assert_eq!(its, epoch);
            lent.done();
        }
        assert!(sent.is_done() && slots.vacancy().is_some());
    }
}

#[test]
fn f11_plain_op_is_a_transfer_for_whoever_looks_at_it_and_then_no_longer_plain() {
    let arena = arena();
    let mut slots = Slots::new(1, None);
    let (plain, sent) = read(&arena);
    let tag = occupy_plain(&mut slots, 3, plain);
    let transfer = slots.transfer(tag).unwrap();
    assert_eq!((transfer.target, transfer.offset_bytes, transfer.take_bytes), (3, 512, 4096));
    assert_eq!(
        (transfer.is_read, transfer.linked, transfer.in_flight_bytes()),
        (true, Linked::No, 4096)
    );
    assert!(slots.take_whole(tag, 4096).is_none(), "it is judged as any transfer");
    assert!(
        matches!(slots.iter_mut().next(), Some((found, Occupant::Transfer(_))) if found == tag)
    );
    slots.transfer(tag).unwrap().body.take().unwrap().finish_alone();
    slots.vacate(tag);
    assert!(sent.is_done());
}

#[test]
fn plain_ops_count_as_users_of_their_target_from_when_it_asks() {
    let arena = arena();
    let mut slots = Slots::new(3, None);
    let mut sent = Vec::new();
    for target in [3, 4, 3] {
        let (plain, its) = read(&arena);
        sent.push((occupy_plain(&mut slots, target, plain), its));
    }
    let mut users = Vec::new();
    for _ in 0..2 {
        slots.tell_targets(|target| target == 3, |target| users.push(target));
    }
    assert_eq!(users, [3, 3], "each once");
    assert!(!slots.transfer(sent[1].0).unwrap().keeps_target);
    for (tag, _) in &sent {
        slots.transfer(*tag).unwrap().body.take().unwrap().finish_alone();
        slots.vacate(*tag);
    }
}

#[test]
fn f08_ops_on_a_region_are_those_whose_memory_lies_in_it() {
    let (arena, other) = (arena(), self::arena());
    let mut slots = Slots::new(3, None);
    let (plain, _sent) = read(&arena);
    let tag = occupy_plain(&mut slots, 3, plain);
    let flushing = slots.occupy(flush());
    assert_eq!((slots.ops_on(arena.region()), slots.ops_on(other.region())), (1, 0));
    slots.vacate(flushing);
    let Some(Occupant::Transfer(Transfer { body, .. })) = slots.find(tag) else { panic!() };
    body.take().unwrap().fail(Error::new(mfio_core::ErrorKind::Closed));
    slots.vacate(tag);
    assert_eq!(slots.ops_on(arena.region()), 0);
}

#[test]
fn f02_memory_of_ops_that_did_not_come_back_is_never_freed() {
    let arena = arena();
    let before = quarantined();
    let mut slots = Slots::new(2, None);
    let (plain, sent) = read(&arena);
    let tag = occupy_plain(&mut slots, 3, plain);
    slots.keep_bounce(tag, arena.alloc(4096).unwrap());
    drop(slots);
    assert!(quarantined() > before);
    drop(sent);
    assert_eq!(arena.in_use(), 2, "both buffers are the kernel's");
}

#[test]
fn bounce_buffer_stays_with_its_slot_until_it_is_taken() {
    let arena = arena();
    let mut slots = Slots::new(1, None);
    let tag = slots.occupy(flush());
    assert!(slots.take_bounce(tag).is_none() && slots.take_group(tag).is_none());
    slots.keep_bounce(tag, arena.alloc(4096).unwrap());
    assert_eq!(slots.take_bounce(tag).map(|buf| buf.len()), Some(4096));
    assert!(slots.take_bounce(tag).is_none());
    slots.vacate(tag);
}

#[test]
fn latency_is_that_of_who_left_and_of_nobody_who_was_forgotten() {
    let config = Config { latency: true, ..Config::new() };
    let published = Arc::new(Published::new(&config));
    let reader = MetricsReader::new(&published, &crate::Metrics::default());
    let mut slots = Slots::new(2, Some(Stamps::new(2, published)));
    assert!(slots.is_stamped());
    let counted = |direction| reader.latency(direction).unwrap().count();
    let (flushing, step) = (slots.occupy(flush()), slots.occupy(flush()));
    slots.stamp_pushed(flushing, 100);
    slots.stamp_pushed(step, 100);
    slots.forget_time(step);
    slots.stamps.as_mut().unwrap().reaped(350);
    slots.vacate(flushing);
    slots.vacate(step);
    assert_eq!((counted(Direction::Flush), counted(Direction::Read)), (1, 0));
    let arena = arena();
    let (plain, _sent) = read(&arena);
    let tag = occupy_plain(&mut slots, 3, plain);
    slots.stamp(tag, Some(7));
    assert_eq!(slots.stamp_of(tag), Some(7));
    slots.stamp_pushed(tag, 400);
    let Some(Transfer { body, .. }) = slots.transfer(tag) else { panic!() };
    body.take().unwrap().finish_alone();
    slots.vacate(tag);
    assert_eq!(counted(Direction::Read), 1);
}

#[test]
fn bytes_finish_as_whoever_owns_them_was_told() {
    let arena = arena();
    let (plain, sent) = read(&arena);
    let body = Body::ReadInto(plain.lent);
    body.finish_part(512, Error::new(mfio_core::ErrorKind::Closed));
    let completed = sent.into_completed().unwrap_or_else(|_| panic!("it is done"));
    assert_eq!(completed.contiguous_bytes(), 512);

    let (sent, view) = Packet::<Read, _>::new(vec![0_u8; 100]).send();
    let mut bounced = Body::BouncedRead(view);
    let mut bounce = arena.alloc(4096).unwrap();
    bounce.fill(7);
    bounced.copy_back(&bounce, 8, 58);
    bounced.finish_part(50, Error::new(mfio_core::ErrorKind::Closed));
    let completed = sent.into_completed().unwrap_or_else(|_| panic!("it is done"));
    assert_eq!(completed.bytes(), [7; 50], "what lies beyond is somebody else's (F50)");

    for ends_well in [true, false] {
        let (sent, view) = Packet::<Write, _>::new(vec![1_u8; 100]).send();
        let body = Body::BouncedWrite(view);
        let mut batch = CompletionBatch::default();
        match ends_well {
            true => body.finish(&mut batch),
            false => body.fail(Error::new(mfio_core::ErrorKind::Closed)),
        }
        drop(batch);
        let completed = sent.into_completed().unwrap_or_else(|_| panic!("it is done"));
        assert_eq!(completed.is_ok(), ends_well);
    }
}
