//! Lone ops that are joined by others.

use std::time::Duration;

use super::*;

#[test]
fn op_that_does_not_stay_alone_goes_through_the_ring_with_the_other() {
    let Some(fixture) = settled(100) else { return };
    let counts = fixture.counts(|| {
        let mut reads = vec![fixture.read(1)];
        assert!(fixture.is_taken());
        reads.push(fixture.read(2));
        assert!(!fixture.is_taken());
        reads.push(fixture.read(3));
        while reads.iter().any(|read| !read.is_done()) {
            fixture.shard.turn(Wait::at_least(1)).unwrap();
        }
        for (at, read) in (1..).zip(reads) {
            assert!(read.into_completed().unwrap().into_buffer().iter().all(|&byte| byte == at));
        }
    });
    let [ops, enters, submitted, inline_ops, read_bytes, _] = counts;
    assert_eq!((ops, submitted, inline_ops, read_bytes), (3, 3, 0, 3 * PAGE as u64));
    assert!(enters >= 1);
    // A flush covers the write that was accepted before it, alone or not.
    fixture.open_way();
    let written = fixture.write(4, 44);
    assert!(fixture.is_taken());
    block_on(&fixture.shard, fixture.file.sync(Durability::Data)).unwrap().unwrap();
    assert!(written.is_done());
    drop(written);
    // What somebody else looks after makes it an op like any other, which is alone all the same.
    fixture.open_way();
    let counts = fixture.counts(|| {
        let read = fixture.read(5);
        let _reader = fixture.shard.metrics_reader();
        assert!(!fixture.is_taken() && fixture.shard.in_flight() == 1);
        fixture.shard.turn(Wait::at_least(1)).unwrap();
        assert!(read.is_done());
    });
    assert_eq!(counts, [1, 1, 1, 1, PAGE as u64, 0]);
    fixture.is_over();
}

/// A batch starts ops between two turns, where nothing was in flight.
#[test]
fn op_of_a_batch_is_not_alone_with_one_that_is_sent_after_it() {
    for (pages, in_flight_max) in [(&[5][..], 256), (&[5], 1), (&[5, 7, 8], 256)] {
        let config = Config { in_flight_max, ..Config::new() };
        let Some(fixture) = fixture_with(Path::new("/dev/shm"), &config) else { return };
        fixture.settle(u32::MAX);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut batch = fixture.shard.batch::<4, _>();
        for &page in pages {
            let at = (page * PAGE) as u64;
            assert!(batch.push_read(&fixture.file, at, fixture.page()).is_ok());
        }
        assert!(pin!(batch.run()).poll(cx).is_pending());
        let read = fixture.file.read_exact_at(PAGE as u64, fixture.page());
        let mut read = pin!(read);
        assert!(read.as_mut().poll(cx).is_pending());
        let mut turns = 0;
        while !fixture.shard.is_idle() {
            fixture.shard.turn(Wait::NONE).unwrap();
            crate::sys::pause(Duration::from_millis(1));
            turns += 1;
            assert!(turns < 60_000, "an op is never over");
        }
        assert!(pin!(batch.run()).poll(cx).is_ready());
        let Poll::Ready((result, page)) = read.as_mut().poll(cx) else { panic!("not over") };
        assert!(result.is_ok() && page.iter().all(|byte| *byte == 1));
        for _ in pages {
            assert!(batch.reap().unwrap().result.is_ok());
        }
        drop((batch, page));
        fixture.is_over();
    }
}
