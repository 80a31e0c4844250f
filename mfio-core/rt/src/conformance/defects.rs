//! Rules that pin what runtimes got wrong before (R1 to R20), on any file system.
//!
//! Data flow: see [`conformance`](super).
//!
//! Not here: rules that are there for their own sake and pin some of it as well (`files`,
//! `names`, `streams`).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::sync::atomic::{AtomicU64, Ordering};
use core::task::Poll;

use mfio_core::{Absorbed, Generated, Packet, PacketIoExt, Read, Sink, Source, Write};
use mfio_core::{IoRead, IoWrite};
#[cfg(feature = "std")]
use mfio_core::{PacketIo, output_fn};

use super::{bytes_of, get, put};
use crate::fs::{FileHandle, Fs};
use crate::options::OpenOptions;

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// Keeps one thread of a portable runtime busy, with `file`, until the sender goes; returns when
/// it is.
///
/// # Panics
/// When the runtime refuses a write.
#[cfg(feature = "std")]
pub fn occupy(file: &crate::portable::PortableFile) -> std::sync::mpsc::Sender<()> {
    use std::sync::{Mutex, mpsc};

    let (release, wait) = mpsc::channel::<()>();
    let (begun, started) = mpsc::channel();
    let wait = Mutex::new(wait);
    let mut packet = Packet::<Write, _>::new(vec![1; 16]);
    packet.set_output(Some(output_fn(move |_| {
        begun.send(()).expect("who occupies waits for it");
        // Ends when the sender is dropped.
        let _gone = wait.lock().map(|wait| wait.recv());
    })));
    let (sent, view) = packet.send();
    assert!(file.send_io(0, view).is_ok(), "there is room");
    started.recv().expect("the write has begun");
    drop(sent);
    release
}

/// A hundred transfers are cancelled with some in flight, fifty times, and what follows is done
/// (R3).
pub async fn work_goes_on_after_everything_was_cancelled<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    for _ in 0..50 {
        let write = |at: u64| file.io(at * 512, Packet::<Write, _>::new(vec![1; 512]));
        let mut writes: Vec<_> = (0..100).map(write).collect();
        poll_fn(|cx| {
            for write in &mut writes {
                let _begun = Pin::new(write).poll(cx);
            }
            Poll::Ready(())
        })
        .await;
        drop(writes);
        assert_eq!(file.write_exact(0, vec![2; 512]).await.0, Ok(()));
    }
}

/// Takes bytes and keeps only how many.
struct Count(u64, Arc<AtomicU64>);

impl Sink for Count {
    fn len(&self) -> u64 {
        self.0
    }

    fn write_at(&self, _at: u64, from: &[u8]) {
        self.1.fetch_add(from.len() as u64, Ordering::Relaxed);
    }
}

/// A packet of exactly 4 GiB is read whole, whose length is 0 where it is cut to 32 bits (R6).
/// `file` is longer than that by ten bytes at least, or has no end; it is in no suite, for few
/// files are.
pub async fn four_gigabytes_are_read_whole<H: FileHandle>(file: &H) {
    let counted = Arc::new(AtomicU64::new(0));
    let sink = Absorbed(Count(4 << 30, Arc::clone(&counted)));
    let done = file.io(10, Packet::<Read, _>::new(sink)).await;
    assert_eq!((done.result(), counted.load(Ordering::Relaxed)), (Ok(()), 4 << 30));
}

/// What is longer than any single transfer is written and read to its end (R6). It is in no
/// suite: 40 MiB take a while.
pub async fn short_transfers_are_continued<F: Fs>(fs: &F) {
    put(fs.current_dir(), "file", bytes_of(1, 40 << 20)).await;
    assert!(get(fs.current_dir(), "file").await == bytes_of(1, 40 << 20));
}

struct Ones(u64);

impl Source for Ones {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _at: u64, to: &mut [u8]) {
        to.fill(1);
    }
}

/// Of made-up bytes as many are written as there are, and no tail of what was there before
/// (R15).
pub async fn nothing_of_an_earlier_packet_is_written<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    for len in [100_000, 10, 65_537, 1] {
        file.set_len(0).await.expect("it is cut");
        let done = file.io(0, Packet::<Write, _>::new(Generated(Ones(len)))).await;
        assert_eq!(done.result(), Ok(()));
        let found = get(fs.current_dir(), "file").await;
        assert!(found.len() as u64 == len && found.iter().all(|&byte| byte == 1), "{len}");
    }
}

/// A read that is done at once, where reads are, still sees what was written before, to the end
/// and no further (R16).
pub async fn what_is_read_at_once_is_what_is_there<F: Fs>(fs: &F) {
    let file = fs.open("file", &BOTH).await.expect("a file is made");
    for len in [1, 4095, 4096, 4097, 262_144, 262_145] {
        let bytes = bytes_of(len as u64, len);
        assert_eq!(file.write_exact(0, bytes.clone()).await.0, Ok(()));
        file.set_len(len as u64).await.expect("it is cut");
        for at in [0, 1, len / 2, len - 1, len, len + 1] {
            let rest = &bytes[at.min(len)..];
            let (read, error, found) = file.read_some(at as u64, vec![0xee; len + 1]).await;
            assert_eq!((read, error), (rest.len() as u64, None), "{at} of {len}");
            assert!(found[..rest.len()] == *rest, "{at} of {len}");
            assert!(found[rest.len()..].iter().all(|&byte| byte == 0xee), "{at} of {len}");
        }
    }
}
