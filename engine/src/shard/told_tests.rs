//! Wakers of other threads' futures that panic: who is told behind them is told all the same.

use super::*;
use crate::answer::ask;
use crate::process::Process;
use crate::route::Errand;

/// Drives `shard` a few times, whoever panics.
fn drive(shard: &Shard<Scripted>) {
    for _ in 0..4 {
        let driven = AssertUnwindSafe(|| {
            let backend = shard.get_backend().unwrap().unwrap();
            backend.drive().poll_drive(&mut Context::from_waker(Waker::noop()));
        });
        let _panicked = catch_unwind(driven);
    }
}

#[test]
fn waker_that_panics_keeps_no_flush_from_being_told() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 1);
    let remote = shard.adopt_simulated_remote("remote", 5, geometry(1));
    let mut first = Box::pin(remote.sync(Durability::Data));
    let mut second = Box::pin(remote.sync(Durability::Data));
    assert!(poll(first.as_mut(), &on_wake(|| panic!("a waker"))).is_pending());
    let told = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&told);
    let waker = on_wake(move || {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    assert!(poll(second.as_mut(), &waker).is_pending());
    drive(&shard);
    ring.complete(OpKind::Fdatasync, 0);
    drive(&shard);
    assert_eq!(told.load(Ordering::Relaxed), 1);
    assert!(matches!(poll(second.as_mut(), Waker::noop()), Poll::Ready(Ok(()))));
    assert!(matches!(poll(first.as_mut(), Waker::noop()), Poll::Ready(Ok(()))));
}

#[test]
fn waker_that_panics_keeps_no_open_from_its_shard() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 1);
    let directory = tempfile::tempdir().unwrap();
    let mut asked = Vec::new();
    for number in 0..3 {
        let path = directory.path().join(number.to_string());
        let options = crate::OpenOptions::new().write(true).create(true);
        let opened = Box::new(crate::target::open(&path, &options).unwrap());
        let (teller, mut open) = ask(|| Err(EngineError::Closed));
        let waker = if number == 0 { on_wake(|| panic!("a waker")) } else { Waker::noop().clone() };
        assert!(poll(Pin::new(&mut open), &waker).is_pending());
        let name = path.display().to_string();
        shard.mailbox().send_errand(Errand::Adopt { opened, name, teller, sync_method: None });
        asked.push(open);
    }
    drive(&shard);
    for mut open in asked {
        let Poll::Ready(opened) = poll(Pin::new(&mut open), Waker::noop()) else { panic!("lost") };
        opened.unwrap();
    }
}

#[test]
fn waker_that_panics_keeps_no_packet_from_being_refused() {
    let ring = Scripted::new();
    let (shard, _file) = shard(&ring, 1);
    let remote = shard.adopt_simulated_remote("remote", 5, geometry(1));
    let mut reads: Vec<_> =
        (0..3).map(|_| Box::pin(remote.read_exact_at(0, vec![0; 64]))).collect();
    for (number, read) in reads.iter_mut().enumerate() {
        let waker = if number == 0 { on_wake(|| panic!("a waker")) } else { Waker::noop().clone() };
        assert!(poll(read.as_mut(), &waker).is_pending());
    }
    let _panicked = catch_unwind(AssertUnwindSafe(|| shard.shutdown()));
    for mut read in reads {
        let Poll::Ready((read, _)) = poll(read.as_mut(), Waker::noop()) else { panic!("lost") };
        assert_eq!(read.unwrap_err().error.kind(), ErrorKind::Closed);
    }
}

/// Writes and a flush behind them that were taken in, and a flush that was not, as a forked child
/// inherits them (F26): whoever sent them is told by the parent.
#[test]
fn shard_of_another_process_tells_no_senders() {
    let ring = Scripted::new();
    let (shard, file) = shard(&ring, 1);
    let remote = shard.adopt_simulated_remote("remote", 5, geometry(1));
    let told = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&told);
    let waker = on_wake(move || {
        seen.fetch_add(1, Ordering::Relaxed);
    });
    let mut writes = Vec::new();
    for _ in 0..16 {
        let mut write = Box::pin(remote.write_all_at(0, vec![0; 512]));
        assert!(poll(write.as_mut(), &waker).is_pending());
        writes.push(write);
    }
    let mut sync = Box::pin(remote.sync(Durability::Data));
    assert!(poll(sync.as_mut(), &waker).is_pending());
    drive(&shard);
    let mut late = Box::pin(remote.sync(Durability::Data));
    assert!(poll(late.as_mut(), &waker).is_pending());
    shard.inner.core.borrow_mut().process = Process::another();
    drop((file, shard));
    assert_eq!(told.load(Ordering::Relaxed), 0);
}
