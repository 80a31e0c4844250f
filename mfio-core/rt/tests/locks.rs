//! Waits for locks that are given up: nothing of them is left.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::block_on;
use mfio_rt::portable::{Portable, PortableConfig};
use mfio_rt::virt::VirtFs;
use mfio_rt::{ErrorKind, FileHandle, Fs, LockKind, OpenOptions};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

fn now<T>(fs: &impl Fs, future: impl Future<Output = T>) -> T {
    block_on(fs, future).unwrap()
}

fn waits(millis: u64) {
    thread::park_timeout(Duration::from_millis(millis));
}

/// Begins to wait for a lock, for so long that it is at it, and gives it up.
fn give_a_wait_up(file: &impl FileHandle) {
    let mut waiting = pin!(file.lock(LockKind::Exclusive));
    for _ in 0..5 {
        assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        waits(20);
    }
}

#[test]
fn wait_given_up_takes_no_lock_from_its_handle() {
    let temp = tempfile::tempdir().unwrap();
    let fs = Portable::at(temp.path()).unwrap();
    let open = || now(&fs, fs.open("file", &BOTH)).unwrap();
    let (one, two, three) = (open(), open(), open());
    now(&fs, one.try_lock(LockKind::Shared)).unwrap();
    give_a_wait_up(&two);
    now(&fs, two.try_lock(LockKind::Shared)).unwrap();
    now(&fs, one.unlock()).unwrap();
    waits(100);
    let refused = now(&fs, three.try_lock(LockKind::Exclusive)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Locked, "the second has it");
}

#[test]
fn wait_given_up_makes_room_for_another() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = PortableConfig::default();
    config.lock_waits_max = 1;
    let fs = Portable::with_config(temp.path(), &config).unwrap();
    let open = |name: &str| now(&fs, fs.open(name, &BOTH)).unwrap();
    let (held, given_up, other) = (open("a"), open("a"), open("b"));
    now(&fs, held.try_lock(LockKind::Exclusive)).unwrap();
    now(&fs, other.try_lock(LockKind::Exclusive)).unwrap();
    give_a_wait_up(&given_up);
    let waiter = open("b");
    let mut waiting = pin!(waiter.lock(LockKind::Shared));
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..5 {
        assert!(waiting.as_mut().poll(&mut cx).is_pending(), "there is room to wait");
        waits(20);
    }
    // Of those that do wait there are as many as there may be.
    let refused = now(&fs, given_up.lock(LockKind::Exclusive)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::TooManyOpen);
    drop(other);
    now(&fs, waiting).unwrap();
}

/// What another process has locked, it gives back without a word.
#[cfg(unix)]
#[test]
fn lock_given_back_by_somebody_else_is_noticed() {
    let temp = tempfile::tempdir().unwrap();
    let fs = Portable::at(temp.path()).unwrap();
    let file = now(&fs, fs.open("file", &BOTH)).unwrap();
    let foreign = std::fs::File::open(temp.path().join("file")).unwrap();
    foreign.lock().unwrap();
    let holder = thread::spawn(move || {
        waits(200);
        drop(foreign);
    });
    now(&fs, file.lock(LockKind::Exclusive)).unwrap();
    let again = std::fs::File::open(temp.path().join("file")).unwrap();
    assert!(again.try_lock_shared().is_err(), "it has the lock");
    holder.join().unwrap();
}

/// Files whose locks are waited for can be closed: nothing keeps them open.
#[cfg(target_os = "linux")]
#[test]
fn wait_given_up_keeps_no_file_open() {
    let temp = tempfile::tempdir().unwrap();
    let fs = Portable::at(temp.path()).unwrap();
    let open = || now(&fs, fs.open("file", &BOTH)).unwrap();
    let (held, given_up) = (open(), open());
    now(&fs, held.try_lock(LockKind::Exclusive)).unwrap();
    give_a_wait_up(&given_up);
    drop(given_up);
    let path = std::fs::canonicalize(temp.path().join("file")).unwrap();
    let is_open = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| std::fs::read_link(entry.path()).is_ok_and(|to| to == path))
    };
    for _ in 0..100 {
        let open = std::fs::read_dir("/proc/self/fd").unwrap().map(is_open);
        if open.filter(|&open| open).count() == 1 {
            return;
        }
        waits(20);
    }
    panic!("the file of a wait that was given up is still open");
}

struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn virtual_wait_given_up_leaves_nothing_behind() {
    let fs = VirtFs::new();
    let open = || now(&fs, fs.open("file", &BOTH)).unwrap();
    let (one, two) = (open(), open());
    now(&fs, one.try_lock(LockKind::Exclusive)).unwrap();
    let counted = Arc::new(Counted);
    for _ in 0..10 {
        let waker = Waker::from(Arc::clone(&counted));
        let mut waiting = pin!(two.lock(LockKind::Shared));
        for _ in 0..3 {
            assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert!(Arc::strong_count(&counted) > 2, "it waits");
    }
    assert_eq!(Arc::strong_count(&counted), 1, "nobody waits");
    now(&fs, one.unlock()).unwrap();
    now(&fs, two.try_lock(LockKind::Exclusive)).unwrap();
}
