//! Rules for files: bytes, ends, errors, cancellation, durability.
//!
//! Data flow: see [`conformance`](super).
//!
//! Not here: names (`names`).

use alloc::boxed::Box;
use alloc::format;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

use mfio_core::stream::ReadToEnd;
use mfio_core::{Absorbed, Generated, Packet, PacketIo, PacketIoExt, Read, Sink, Source, Write};
use mfio_core::{ErrorKind as ByteKind, IoRead, IoWrite};

use super::{Boxed, EMPTY_DIRS, all, bytes_of, fixtures, get, populate, put, refused};
use crate::error::ErrorKind;
use crate::fs::{DirHandle, FileHandle, Fs};
use crate::lock::Lock;
use crate::options::{Allocate, Follow, LockKind, OpenOptions, SyncLevel};
use crate::tree::DirHandleExt;

const READ: OpenOptions = OpenOptions::new().read(true);
const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// Every file reads as it was written.
pub async fn files_equal<F: Fs>(fs: &F) {
    populate(fs).await;
    for (path, bytes) in fixtures() {
        assert!(get(fs.current_dir(), &path).await == bytes, "{path}");
    }
}

/// The same by the directory that it is in, byte for byte and to the end.
pub async fn files_equal_rel<F: Fs>(fs: &F) {
    populate(fs).await;
    for (path, bytes) in fixtures() {
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", &path));
        let parent = fs.current_dir().open_dir(parent).await.expect("its directory opens");
        let found = get(&parent, name).await;
        assert_eq!(found.len(), bytes.len(), "{path}");
        assert!(found == bytes, "{path}");
    }
}

/// What is written through one handle is read through another, when the first has gone.
pub async fn writes_equal<F: Fs>(fs: &F) {
    for (path, bytes) in fixtures() {
        let path = format!("out/{path}");
        let (parent, _) = path.rsplit_once('/').expect("a prefix was added");
        fs.current_dir().create_dir_all(parent, 0o755).await.expect("a path is made");
        put(fs.current_dir(), &path, bytes.clone()).await;
        assert!(get(fs.current_dir(), &path).await == bytes, "{path}");
    }
}

/// The same by the directory that it is in.
pub async fn writes_equal_rel<F: Fs>(fs: &F) {
    for (path, bytes) in fixtures() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("top", &path));
        fs.current_dir().create_dir_all(parent, 0o755).await.expect("a path is made");
        let parent = fs.current_dir().open_dir(parent).await.expect("its directory opens");
        put(&parent, name, bytes.clone()).await;
        assert!(get(&parent, name).await == bytes, "{path}");
    }
}

/// Readers and writers at the same time, on the same directories.
pub async fn all_rules_run_side_by_side<F: Fs>(fs: &F) {
    populate(fs).await;
    let mut running: Vec<Boxed<'_, ()>> = Vec::new();
    for _ in 0..4 {
        for (path, bytes) in fixtures() {
            running.push(Box::pin(async move {
                assert!(get(fs.current_dir(), &path).await == bytes, "{path}");
            }));
        }
    }
    for empty in EMPTY_DIRS {
        running.push(Box::pin(async move {
            let found = fs.current_dir().metadata(empty, Follow::Yes).await;
            assert!(found.expect("it was made").is_dir());
        }));
    }
    running.push(Box::pin(writes_equal(fs)));
    running.push(Box::pin(writes_equal_rel_beside(fs)));
    all(running).await;
}

async fn writes_equal_rel_beside<F: Fs>(fs: &F) {
    let beside = fs.current_dir().create_dir("beside", 0o755).await;
    beside.expect("a directory is made");
    let dir = fs.current_dir().open_dir("beside").await.expect("what was made opens");
    for number in 0..20 {
        let bytes = bytes_of(number, 3000);
        put(&dir, format!("file{number}"), bytes.clone()).await;
        assert!(get(&dir, format!("file{number}")).await == bytes, "file{number}");
    }
}

/// The end is where it is, for whole reads and for parts.
pub async fn reading_past_the_end_gives_what_exists<F: Fs>(fs: &F) {
    put(fs.current_dir(), "file", bytes_of(1, 1000)).await;
    let file = fs.open("file", &READ).await.expect("what was made opens");
    let (result, _) = file.read_exact(990, vec![0; 20]).await;
    assert_eq!(result.map_err(|error| error.kind()), Err(ByteKind::UnexpectedEof));
    let (read, error, bytes) = file.read_some(990, vec![0; 20]).await;
    assert_eq!((read, error), (10, None), "ten bytes exist");
    assert!(bytes[..10] == bytes_of(1, 1000)[990..]);
    for behind in [1000, 1001, 1 << 40, u64::MAX - 1] {
        let (read, error, _) = file.read_some(behind, vec![0; 20]).await;
        assert_eq!((read, error), (0, None), "nothing is at {behind}");
        let done = file.io(behind, Packet::<Read, _>::new(vec![0; 20])).await;
        let kind = done.error().map(|error| error.kind());
        assert_eq!(kind, Some(ByteKind::UnexpectedEof), "nothing is at {behind}");
    }
    // Where room was made beforehand, and where none was.
    for from in [0, 1, 999, 1000, 5000] {
        let (read, bytes) = file.read_to_end(from).await;
        let rest = 1000_u64.saturating_sub(from);
        assert_eq!((read, bytes.len() as u64), (Ok(rest), rest), "from {from} on");
    }
}

/// A packet without bytes succeeds, wherever it is sent, and changes nothing.
pub async fn empty_packets_succeed<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    for at in [0, 1, 1 << 40] {
        assert_eq!(file.write_exact(at, Vec::new()).await.0, Ok(()), "writing at {at}");
        assert_eq!(file.read_exact(at, Vec::new()).await.0, Ok(()), "reading at {at}");
    }
    assert_eq!(file.metadata().await.expect("an open file has facts").len, 0);
}

/// A handle for reading does not write, and the other way round; neither counts as the end.
pub async fn handles_refuse_what_they_were_not_opened_for<F: Fs>(fs: &F) {
    put(fs.current_dir(), "file", vec![1; 10]).await;
    let reader = fs.open("file", &READ).await.expect("it opens for reading");
    let writer = OpenOptions::new().write(true);
    let writer = fs.open("file", &writer).await.expect("it opens for writing");
    let (read, error, _) = writer.read_some(0, vec![0; 4]).await;
    assert!(read == 0 && error.is_some(), "a writer does not read: {error:?}");
    assert!(writer.read_to_end(0).await.0.is_err(), "an error is not the end");
    assert!(reader.write_exact(0, vec![2; 4]).await.0.is_err(), "a reader does not write");
    assert!(reader.set_len(0).await.is_err(), "a reader does not cut");
    refused(reader.set_len(u64::MAX).await, ErrorKind::FileTooLarge, "nor is this a length");
    assert_eq!(get(fs.current_dir(), "file").await, [1; 10]);
}

/// Options that contradict each other open nothing and create nothing.
pub async fn options_must_go_together<F: Fs>(fs: &F) {
    let none = OpenOptions::new();
    let wrong = [none, none.create(true), none.read(true).truncate(true).create_new(true)];
    for options in wrong.into_iter().chain([none.append(true).truncate(true)]) {
        refused(fs.open("file", &options).await, ErrorKind::InvalidInput, "options");
    }
    assert!(!fs.current_dir().exists("file").await.expect("it can be asked"));
}

/// `create`, `create_new`, `truncate` and `append` do what they say.
pub async fn created_emptied_and_appended_as_asked<F: Fs>(fs: &F) {
    let none = OpenOptions::new();
    refused(fs.open("file", &READ).await, ErrorKind::NotFound, "nothing was made");
    fs.open("file", &none.write(true).create_new(true)).await.expect("it is new");
    let again = fs.open("file", &none.write(true).create_new(true)).await;
    refused(again, ErrorKind::AlreadyExists, "it is not new any more");
    put(fs.current_dir(), "file", vec![1; 100]).await;
    fs.open("file", &BOTH).await.expect("it may exist");
    assert_eq!(get(fs.current_dir(), "file").await, [1; 100], "only opened");
    let end = fs.open("file", &none.append(true)).await.expect("it opens");
    assert_eq!(end.write_exact(0, vec![2; 3]).await.0, Ok(()));
    assert_eq!(end.write_exact(1 << 30, vec![3; 3]).await.0, Ok(()));
    let found = get(fs.current_dir(), "file").await;
    assert_eq!(found[99..], [1, 2, 2, 2, 3, 3, 3], "at the end, whatever was named");
    fs.open("file", &none.write(true).truncate(true)).await.expect("it opens");
    assert!(get(fs.current_dir(), "file").await.is_empty());
}

/// What was never written is zeros, and takes part in the length.
pub async fn holes_read_as_zeros_and_lengths_follow<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    assert_eq!(file.write_exact(100_000, vec![7; 10]).await.0, Ok(()));
    assert_eq!(file.metadata().await.expect("facts").len, 100_010);
    assert_eq!(file.read_exact(50_000, vec![9; 100]).await, (Ok(()), vec![0; 100]));
    file.set_len(100_005).await.expect("it is cut");
    file.set_len(200_000).await.expect("it grows");
    let (result, bytes) = file.read_exact(100_000, vec![9; 10]).await;
    assert_eq!((result, bytes), (Ok(()), vec![7, 7, 7, 7, 7, 0, 0, 0, 0, 0]), "cut is gone");
    assert_eq!(file.metadata().await.expect("facts").len, 200_000);
    refused(file.set_len(u64::MAX).await, ErrorKind::FileTooLarge, "longer than anything");
    let done = file.io(u64::MAX - 1, Packet::<Write, _>::new(vec![1; 8])).await;
    let kind = done.error().map(|error| error.kind());
    assert_eq!(kind, Some(ByteKind::OutOfRange), "no file reaches there");
    assert_eq!(file.metadata().await.expect("facts").len, 200_000);
}

/// Space is set aside with and without the length, and punched out again; or it is said that
/// this cannot be done here.
pub async fn space_is_set_aside_and_given_back<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    match file.allocate(0, 8192, Allocate::KeepSize).await {
        Err(error) if error.kind() == ErrorKind::Unsupported => return,
        done => done.expect("space is set aside"),
    }
    assert_eq!(file.metadata().await.expect("facts").len, 0, "the length stays");
    file.allocate(0, 8192, Allocate::Extend).await.expect("space is set aside");
    assert_eq!(file.metadata().await.expect("facts").len, 8192);
    assert_eq!(file.write_exact(0, vec![5; 8192]).await.0, Ok(()));
    file.allocate(100, 5000, Allocate::PunchHole).await.expect("space is given back");
    let (_, bytes) = file.read_exact(0, vec![0; 8192]).await;
    let zeros = bytes.iter().filter(|&&byte| byte == 0).count();
    assert_eq!((zeros, bytes[99], bytes[100], bytes[5100]), (5000, 5, 0, 5));
    refused(file.allocate(0, 0, Allocate::Extend).await, ErrorKind::InvalidInput, "nothing");
}

/// One writer alone, or readers together; a lock goes with its handle.
pub async fn locks_keep_others_out<F: Fs>(fs: &F) {
    let open = async || fs.open("file", &BOTH).await.expect("it opens");
    let (one, two) = (open().await, open().await);
    one.try_lock(LockKind::Shared).await.expect("nobody has it");
    two.try_lock(LockKind::Shared).await.expect("readers share");
    refused(two.try_lock(LockKind::Exclusive).await, ErrorKind::Locked, "there is a reader");
    one.unlock().await.expect("it was locked");
    two.try_lock(LockKind::Exclusive).await.expect("alone now");
    refused(one.try_lock(LockKind::Shared).await, ErrorKind::Locked, "there is a writer");
    let waiting: Vec<Boxed<'_, ()>> = vec![
        Box::pin(async { one.lock(LockKind::Shared).await.expect("it is waited for") }),
        Box::pin(async move { drop(two) }),
    ];
    all(waiting).await;
    refused(open().await.try_lock(LockKind::Exclusive).await, ErrorKind::Locked, "it has it");
}

/// A change that is refused, or waits, leaves its handle with no lock: two that share one and
/// both want it alone do not wait for each other.
pub async fn a_refused_change_of_a_lock_gives_it_up<F: Fs>(fs: &F) {
    let open = async || fs.open("file", &BOTH).await.expect("it opens");
    let (one, two) = (open().await, open().await);
    one.try_lock(LockKind::Shared).await.expect("nobody has it");
    two.try_lock(LockKind::Shared).await.expect("readers share");
    refused(two.try_lock(LockKind::Exclusive).await, ErrorKind::Locked, "there is a reader");
    one.try_lock(LockKind::Exclusive).await.expect("there was one reader, and it gave up");
    one.try_lock(LockKind::Shared).await.expect("it is its own");
    two.try_lock(LockKind::Shared).await.expect("readers share");
    let upgraded = [&one, &two].into_iter().map(|file| -> Boxed<'_, ()> {
        Box::pin(async move {
            file.lock(LockKind::Exclusive).await.expect("it is waited for");
            file.unlock().await.expect("it was locked");
        })
    });
    all(upgraded.collect()).await;
    one.try_lock(LockKind::Exclusive).await.expect("both have given it back");
}

/// Whoever stops waiting for a lock keeps what it takes afterwards.
pub async fn a_dropped_wait_for_a_lock_takes_none_back<F: Fs>(fs: &F) {
    let open = async || fs.open("file", &BOTH).await.expect("it opens");
    let (one, two, three) = (open().await, open().await, open().await);
    for round in 0..5 {
        one.try_lock(LockKind::Shared).await.expect("nobody has it alone");
        {
            let mut waiting = pin!(two.lock(LockKind::Exclusive));
            for _ in 0..round {
                let begun = poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending()));
                assert!(begun.await, "another has it");
                one.metadata().await.expect("an open file has facts");
            }
        }
        two.try_lock(LockKind::Shared).await.expect("readers share");
        one.unlock().await.expect("it was locked");
        for _ in 0..20 {
            refused(three.try_lock(LockKind::Exclusive).await, ErrorKind::Locked, "it has it");
        }
        two.unlock().await.expect("it was locked");
    }
}

/// Whoever stops waiting for a lock does not get it.
pub async fn a_dropped_wait_for_a_lock_holds_nothing<F: Fs>(fs: &F) {
    let open = async || fs.open("file", &BOTH).await.expect("it opens");
    let (one, two, three) = (open().await, open().await, open().await);
    one.try_lock(LockKind::Exclusive).await.expect("nobody has it");
    {
        let mut waiting = pin!(two.lock(LockKind::Exclusive));
        let mut polls = 0;
        poll_fn(|cx| {
            assert!(waiting.as_mut().poll(cx).is_pending(), "another has it");
            polls += 1;
            if polls < 3 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
    one.unlock().await.expect("it was locked");
    three.lock(LockKind::Exclusive).await.expect("nobody else wants it");
}

/// A transfer that nobody waits for any more goes to its file or nowhere (R1, R3).
pub async fn dropped_transfers_reach_no_other_file<F: Fs>(fs: &F) {
    for round in 0..20_u8 {
        let doomed = fs.open("doomed", &BOTH).await.expect("a file is made");
        for at in 0..8_u64 {
            let packet = Packet::<Write, _>::new(vec![0xdd; 4096]);
            let mut write = pin!(doomed.io(at * 4096, packet));
            poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_ready())).await;
        }
        drop(doomed);
        let name = format!("other{round}");
        put(fs.current_dir(), &name, vec![round; 512]).await;
        assert_eq!(get(fs.current_dir(), &name).await, vec![round; 512], "round {round}");
        let doomed = get(fs.current_dir(), "doomed").await;
        assert!(doomed.iter().all(|&byte| byte == 0xdd || byte == 0), "round {round}");
    }
}

/// A packet that was cancelled comes back with its buffer, done or not.
pub async fn cancelled_packets_give_their_buffers_back<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    for _ in 0..50 {
        let mut write = file.io(0, Packet::<Write, _>::new(vec![1; 10_000]));
        let first = poll_fn(|cx| {
            Poll::Ready(match core::pin::Pin::new(&mut write).poll(cx) {
                Poll::Ready(done) => Some(done),
                Poll::Pending => None,
            })
        });
        let done = match first.await {
            Some(done) => done,
            None => {
                write.cancel();
                write.await
            }
        };
        let kind = done.error().map(|error| error.kind());
        assert!(matches!(kind, None | Some(ByteKind::Cancelled)), "{kind:?}");
        assert_eq!(done.into_buffer(), vec![1; 10_000]);
    }
    assert_eq!(file.write_exact(0, vec![2; 10]).await.0, Ok(()), "it works on");
}

/// More transfers than any queue has room for, and every one has its own result.
pub async fn many_transfers_are_under_way_at_once<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    let file = &file;
    let writes = (0..1500_u16).map(|number| -> Boxed<'_, ()> {
        Box::pin(async move {
            let bytes = number.to_le_bytes().repeat(50);
            assert_eq!(file.write_exact(u64::from(number) * 100, bytes).await.0, Ok(()));
        })
    });
    all(writes.collect()).await;
    let reads = (0..1500_u16).map(|number| -> Boxed<'_, ()> {
        Box::pin(async move {
            let (result, bytes) = file.read_exact(u64::from(number) * 100, vec![0; 100]).await;
            assert_eq!((result, bytes), (Ok(()), number.to_le_bytes().repeat(50)));
        })
    });
    all(reads.collect()).await;
}

/// A view that is cut, its parts sent to different places in another order (C6).
pub async fn pieces_of_a_packet_land_where_they_belong<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    let (mut sent, view) = Packet::<Write, _>::new(bytes_of(3, 300)).send();
    let (first, rest) = view.split_at(100);
    let (second, third) = rest.split_at(100);
    for (at, part) in [(0, third), (200, first), (100, second)] {
        let mut part = Some((at, part));
        poll_fn(|cx| {
            while let Some((at, view)) = part.take() {
                match file.send_io(at, view) {
                    Ok(()) => break,
                    Err(refused) => part = Some((refused.param, refused.view)),
                }
                if PacketIo::<Write, u64>::poll_ready(&file, cx).is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(())
        })
        .await;
    }
    poll_fn(|cx| sent.poll_done(cx)).await;
    let (original, found) = (bytes_of(3, 300), get(fs.current_dir(), "file").await);
    assert!(found[..100] == original[200..] && found[200..] == original[..100]);
    assert!(found[100..200] == original[100..200]);
}

struct Squares(u64);

impl Source for Squares {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, at: u64, to: &mut [u8]) {
        for (byte, at) in to.iter_mut().zip(at..) {
            *byte = (at * at).to_le_bytes()[0];
        }
    }
}

struct Collected(u64, Arc<Lock<Vec<u8>>>);

impl Sink for Collected {
    fn len(&self) -> u64 {
        self.0
    }

    fn write_at(&self, at: u64, from: &[u8]) {
        let at = usize::try_from(at).expect("it fits in memory");
        self.1.with(|bytes| bytes[at..at + from.len()].copy_from_slice(from));
    }
}

/// Packets without a buffer go through whole, and nothing of an earlier one shows (R14, R15).
pub async fn bytes_that_are_made_up_are_written_whole<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    for len in [200_000, 1000, 1, 0] {
        let done = file.io(0, Packet::<Write, _>::new(Generated(Squares(len)))).await;
        assert_eq!(done.result(), Ok(()));
    }
    assert_eq!(file.metadata().await.expect("facts").len, 200_000);
    let bytes = Arc::new(Lock::new(vec![0; 200_000]));
    let sink = Absorbed(Collected(200_000, Arc::clone(&bytes)));
    assert_eq!(file.io(0, Packet::<Read, _>::new(sink)).await.result(), Ok(()));
    let mut expected = vec![0; 200_000];
    Squares(200_000).read_at(0, &mut expected);
    assert!(bytes.with(|bytes| *bytes == expected));
    // Beyond the end nothing is absorbed.
    let sink = Absorbed(Collected(10, Arc::clone(&bytes)));
    let done = file.io(200_000 - 4, Packet::<Read, _>::new(sink)).await;
    assert_eq!(done.contiguous_bytes(), 4);
}

/// Only what was read is shown, whatever the buffer held (F50).
pub async fn what_is_read_is_never_stale<F: Fs>(fs: &F) {
    put(fs.current_dir(), "file", bytes_of(5, 777)).await;
    let file = fs.open("file", &READ).await.expect("it opens");
    for at in [0, 700, 776, 777, 10_000] {
        let done = file.io(at, Packet::<Read, _>::new(vec![0xee; 100])).await;
        let rest = usize::try_from(777_u64.saturating_sub(at)).unwrap_or(0).min(100);
        let at = usize::try_from(at).unwrap_or(0).min(777);
        assert!(done.bytes() == &bytes_of(5, 777)[at..at + rest], "at {at}");
    }
}

/// No table of a few hundred runs full (R2).
pub async fn more_than_a_thousand_files_are_open<F: Fs>(fs: &F) {
    let mut open = Vec::new();
    for number in 0..1100_u64 {
        match fs.open(format!("file{number}"), &BOTH).await {
            Ok(file) => open.push(file),
            // A limit of the system is an error, not a panic, and the others work on.
            Err(error) if error.kind() == ErrorKind::TooManyOpen && number > 800 => break,
            Err(error) => panic!("file {number}: {error}"),
        }
    }
    for (number, file) in (0_u64..).zip(&open) {
        assert_eq!(file.write_value(0, number).await, Ok(()));
    }
    for (number, file) in (0_u64..).zip(&open) {
        assert_eq!(file.read_value::<u64>(0).await, Ok(number));
    }
}

/// Syncing files and directories succeeds; what was synced is what others find.
pub async fn synced_files_and_names_are_there_for_others<F: Fs>(fs: &F) {
    let dsync = fs.open("durable", &BOTH.dsync(true)).await;
    if let Ok(file) = &dsync {
        assert_eq!(file.write_exact(0, vec![1; 5000]).await.0, Ok(()));
    } else {
        refused(dsync.map(|_| ()), ErrorKind::Unsupported, "or it is not to be had");
    }
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    assert_eq!(file.write_exact(0, vec![2; 5000]).await.0, Ok(()));
    file.sync(SyncLevel::Data).await.expect("bytes are made durable");
    file.sync(SyncLevel::All).await.expect("facts are made durable");
    match fs.current_dir().sync().await {
        Err(error) if error.kind() == ErrorKind::Unsupported => {}
        done => done.expect("names are made durable"),
    }
    drop(file);
    assert_eq!(get(fs.current_dir(), "file").await, [2; 5000]);
}
