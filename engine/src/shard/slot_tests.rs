//! The slot table by itself: who is found by which tag, and what leaves with whom.

use std::sync::Arc;

use mfio_core::{CompletionBatch, Error, Packet, Read, Sent, Write};

use super::*;
use crate::Config;
use crate::buffer::{Arena, ArenaConfig, SizeClass, quarantined};
use crate::metrics::{MetricsReader, Published};

fn flush() -> Occupant {
    Occupant::Flush(FlushOp::new(3, false, Behind::Requests(Epoch::default())))
}

fn arena() -> Arena {
    Arena::new(&ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 4 }])).unwrap()
}

/// A plain read of 4 KiB into a buffer of `arena`, with whoever awaits it.
fn read(arena: &Arena) -> (Transfer, Sent<Read, ArenaBuf>) {
    let (sent, view) = Packet::<Read, _>::new(arena.alloc(4096).unwrap()).send();
    let lent = view.try_alloc(1).expect("an arena's buffer is lent");
    let region = Some(arena.region());
    let memory = MemRange::of_raw(lent.as_ptr(), 4096, region).unwrap();
    let transfer = Transfer {
        body: Some(Body::ReadInto(lent)),
        memory,
        offset_bytes: 0,
        epoch: Epoch::default(),
        target: 3,
        take_bytes: 4096,
        lead_bytes: 0,
        resumed_at: 0,
        reached: 0,
        linked: Linked::No,
        is_read: true,
        bounced: false,
        plain: true,
        whole: false,
        cancel_requested: false,
        cancel_sent: false,
        force_async: false,
        retries: 0,
        stalls: 0,
        all_metadata: false,
        atomic: false,
        class: Class::Foreground,
        counted: false,
        grouped: false,
    };
    (transfer, sent)
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
    let (transfer, sent) = read(&arena);
    let tag = slots.occupy(Occupant::Transfer(transfer));
    for result in [4095, 0, -5, 4097] {
        assert!(slots.take_whole(tag, result, |_| unreachable!()).is_none(), "{result}");
    }
    let stale = Tag { generation: tag.generation.wrapping_add(1), ..tag };
    assert!(slots.take_whole(stale, 4096, |_| unreachable!()).is_none());
    assert!(slots.take_whole(Tag { slot: 9, ..tag }, 4096, |_| unreachable!()).is_none());
    assert!(slots.transfer(tag).is_some(), "nothing has changed");
    let other = slots.occupy(flush());
    assert!(slots.take_whole(other, 0, |_| unreachable!()).is_none(), "a flush moves nothing");
    slots.vacate(other);
    let whole = slots.take_whole(tag, 4096, Body::finish_alone).unwrap();
    assert_eq!((whole.target, whole.take_bytes, whole.write), (3, 4096, None));
    assert_eq!(slots.occupied(), 0);
    assert!(sent.is_done());
}

#[test]
fn f08_ops_on_a_region_are_those_whose_memory_lies_in_it() {
    let (arena, other) = (arena(), self::arena());
    let mut slots = Slots::new(3, None);
    let (transfer, _sent) = read(&arena);
    let tag = slots.occupy(Occupant::Transfer(transfer));
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
    let (transfer, sent) = read(&arena);
    let tag = slots.occupy(Occupant::Transfer(transfer));
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
    let (transfer, _sent) = read(&arena);
    let tag = slots.occupy(Occupant::Transfer(transfer));
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
    let (transfer, sent) = read(&arena);
    let body = transfer.body.unwrap();
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
