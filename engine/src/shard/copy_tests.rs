//! Packets whose bytes are made up or taken by code of their own, which panics when it is called.

use super::*;
use crate::net::ShardNet;
use mfio_core::{Absorbed, Generated, IoRead, IoWrite, Sink, Source, Write};

struct Panics(u64);

impl Sink for Panics {
    fn len(&self) -> u64 {
        self.0
    }
    fn write_at(&self, _at: u64, _from: &[u8]) {
        panic!("takes nothing");
    }
}

impl Source for Panics {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_at(&self, _at: u64, _to: &mut [u8]) {
        panic!("makes nothing up");
    }
}

/// Calls `act`; whether that panics is not what is looked at.
fn calmly<T>(act: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(act)).ok()
}

#[test]
fn sink_that_panics_takes_no_result_from_others() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let mut bad = Box::pin(file.io(0, Packet::<Read, _>::new(Absorbed(Panics(64)))));
    let mut good = Box::pin(file.read_exact_at(4096, page(&shard)));
    assert!(poll(bad.as_mut(), Waker::noop()).is_pending());
    assert!(poll(good.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    for bytes in [64, 4096] {
        let (_, tag) = ring.0.borrow_mut().running.remove(0);
        ring.0.borrow_mut().done.push(Completion { tag, result: bytes, more: false });
    }
    calmly(|| shard.turn(Wait::NONE).unwrap());
    shard.turn(Wait::NONE).unwrap();
    let Poll::Ready((read, _page)) = poll(good.as_mut(), Waker::noop()) else { panic!("lost") };
    read.unwrap();
    let Poll::Ready(failed) = poll(bad.as_mut(), Waker::noop()) else { panic!("lost") };
    assert_eq!(failed.error().map(|error| error.kind()), Some(ErrorKind::Aborted));
    assert!(shard.is_idle(), "{shard:?}");
}

#[test]
fn source_that_panics_keeps_no_flush_from_its_target() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let mut bad = Box::pin(file.io(0, Packet::<Write, _>::new(Generated(Panics(64)))));
    let polled = calmly(|| poll(bad.as_mut(), Waker::noop()));
    let polled = polled.unwrap_or_else(|| poll(bad.as_mut(), Waker::noop()));
    let Poll::Ready(failed) = polled else { panic!("lost") };
    assert_eq!(failed.error().map(|error| error.kind()), Some(ErrorKind::Aborted));
    let mut sync = Box::pin(file.sync(Durability::Data));
    assert!(poll(sync.as_mut(), Waker::noop()).is_pending());
    shard.turn(Wait::NONE).unwrap();
    ring.complete(OpKind::Fdatasync, 0);
    shard.turn(Wait::NONE).unwrap();
    assert!(matches!(poll(sync.as_mut(), Waker::noop()), Poll::Ready(Ok(()))));
    assert!(shard.is_idle(), "{shard:?}");
}

#[test]
fn sink_and_source_that_panic_leave_a_connection_that_answers() {
    let ring = Scripted::new();
    ring.0.borrow_mut().networked = true;
    let shard = Shard::with_ring(ring.clone(), &Config::new()).unwrap();
    let net = ShardNet::new(&shard).unwrap();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = net.adopt(ours).unwrap();
    let reply = |result| {
        let (_, tag) = ring.0.borrow_mut().sockets.pop().expect("an op waits in the ring");
        ring.0.borrow_mut().done.push(Completion { tag, result, more: false });
        calmly(|| shard.turn(Wait::NONE).unwrap());
        shard.turn(Wait::NONE).unwrap();
    };
    let mut bad = Box::pin(stream.io((), Packet::<Read, _>::new(Absorbed(Panics(4)))));
    let mut good = Box::pin(stream.read_exact((), vec![0; 4]));
    assert!(poll(bad.as_mut(), Waker::noop()).is_pending());
    assert!(poll(good.as_mut(), Waker::noop()).is_pending());
    reply(4);
    let Poll::Ready(failed) = poll(bad.as_mut(), Waker::noop()) else { panic!("lost") };
    assert_eq!(failed.error().map(|error| error.kind()), Some(ErrorKind::Aborted));
    reply(4);
    assert!(matches!(poll(good.as_mut(), Waker::noop()), Poll::Ready((Ok(()), _))));
    // What is to be sent and cannot be made up ends the stream, as where its bytes have gone.
    let mut bad = Box::pin(stream.io((), Packet::<Write, _>::new(Generated(Panics(4)))));
    let polled = calmly(|| poll(bad.as_mut(), Waker::noop()));
    let polled = polled.unwrap_or_else(|| poll(bad.as_mut(), Waker::noop()));
    assert!(matches!(polled, Poll::Ready(failed) if !failed.is_ok()));
    let mut next = Box::pin(stream.write_exact((), vec![0; 4]));
    assert!(matches!(poll(next.as_mut(), Waker::noop()), Poll::Ready((Err(_), _))));
    assert!(shard.is_idle(), "{shard:?}");
}
