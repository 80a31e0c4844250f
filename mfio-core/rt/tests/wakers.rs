//! Wakers, outputs and sinks are anybody's code: one that panics, or comes back here, is in
//! nobody's way.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::Future;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::{
    Absorbed, IoRead, Output, Packet, PacketIo, PacketIoExt, Sink, Write, block_on, output_fn,
};
use mfio_rt::conformance::defects;
use mfio_rt::portable::{Portable, PortableConfig, PortableStream};
use mfio_rt::virt::VirtFs;
use mfio_rt::{FileHandle, Fs, ListenOptions, ListenerHandle, LockKind, OpenOptions, Tcp, Whole};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

fn now<T>(fs: &impl Fs, future: impl Future<Output = T>) -> T {
    block_on(fs, future).unwrap()
}

/// Counts, and panics where it is told to.
#[derive(Default)]
struct Told {
    times: AtomicUsize,
    panics: bool,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.times.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "a waker: this panic belongs to the test");
    }
}

/// Three who wait, of whom the second panics when it is woken.
fn three() -> [Arc<Told>; 3] {
    [false, true, false].map(|panics| Arc::new(Told { panics, ..Told::default() }))
}

fn waker(told: &Arc<Told>) -> Waker {
    Waker::from(Arc::clone(told))
}

fn pending<F: Future + ?Sized>(future: Pin<&mut F>, told: &Arc<Told>) {
    assert!(future.poll(&mut Context::from_waker(&waker(told))).is_pending());
}

/// Others wake them, soon.
fn all_are_woken(all: &[Arc<Told>]) {
    for _ in 0..60_000 {
        if all.iter().all(|told| told.times.load(Ordering::SeqCst) > 0) {
            return;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    panic!("{:?}", Vec::from_iter(all.iter().map(|told| &told.times)));
}

#[test]
fn all_who_wait_for_a_lock_in_memory_are_woken_whichever_panics() {
    let fs = VirtFs::new();
    let open = || now(&fs, fs.open("file", &BOTH)).unwrap();
    let holder = open();
    now(&fs, holder.lock(LockKind::Exclusive)).unwrap();
    let (all, files) = (three(), [open(), open(), open()]);
    let mut waits: Vec<_> =
        files.iter().map(|file| Box::pin(file.lock(LockKind::Exclusive))).collect();
    for (wait, told) in waits.iter_mut().zip(&all) {
        pending(wait.as_mut(), told);
    }
    let unlock = AssertUnwindSafe(|| now(&fs, holder.unlock()));
    assert!(catch_unwind(unlock).is_err());
    all_are_woken(&all);
}

#[test]
fn all_who_wait_for_a_lock_of_a_file_are_woken_whichever_panics() {
    let temp = tempfile::tempdir().unwrap();
    let fs = Portable::at(temp.path()).unwrap();
    let open = || now(&fs, fs.open("file", &BOTH)).unwrap();
    let holder = open();
    now(&fs, holder.lock(LockKind::Exclusive)).unwrap();
    for _ in 0..20 {
        let (all, files) = (three(), [open(), open(), open()]);
        let mut waits: Vec<_> =
            files.iter().map(|file| Box::pin(file.lock(LockKind::Exclusive))).collect();
        // Once more when they have been refused: from then on they wait for an unlock.
        for _ in 0..2 {
            for (wait, told) in waits.iter_mut().zip(&all) {
                pending(wait.as_mut(), told);
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        // Whose panic is nothing to the one who unlocks.
        now(&fs, holder.unlock()).unwrap();
        all_are_woken(&all);
        drop(waits);
        now(&fs, holder.lock(LockKind::Exclusive)).unwrap();
    }
    now(&fs, open().metadata()).unwrap();
}

/// The thread that takes a job out of the queue wakes those who wait for its room.
#[test]
fn waker_that_panics_costs_the_pool_no_thread_and_nobody_his_room() {
    let temp = tempfile::tempdir().unwrap();
    let mut config = PortableConfig::default();
    config.threads = NonZeroUsize::MIN;
    config.queued_max = NonZeroUsize::MIN;
    let fs = Portable::with_config(temp.path(), &config).unwrap();
    let busy = now(&fs, fs.open("busy", &BOTH)).unwrap();
    let release = defects::occupy(&busy);
    // The queue is full now.
    let mut queued = Box::pin(busy.io(0, Packet::<Write, _>::new(vec![1; 10])));
    let first = Arc::new(Told::default());
    pending(queued.as_mut(), &first);
    let all = three();
    for told in &all {
        let waker = waker(told);
        let mut cx = Context::from_waker(&waker);
        assert!(PacketIo::<Write, u64>::poll_ready(&busy, &mut cx).is_pending());
    }
    drop(release);
    all_are_woken(&all);
    assert!(now(&fs, queued).error().is_none());
    assert_eq!(now(&fs, busy.read_exact(0, vec![0; 10])).1, [1; 10], "the only thread works on");
}

#[test]
fn all_who_wait_for_a_connection_are_woken_whichever_panics() {
    let fs = Portable::new().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = now(&fs, fs.bind(any, &ListenOptions::new())).unwrap();
    let all = three();
    let mut waits: Vec<_> = all.iter().map(|_| Box::pin(listener.accept())).collect();
    for (wait, told) in waits.iter_mut().zip(&all) {
        pending(wait.as_mut(), told);
    }
    let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    all_are_woken(&all);
}

#[test]
fn all_who_wait_for_room_on_a_connection_are_woken_whichever_panics() {
    let fs = Portable::new().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let stream = fs.adopt(listener.accept().unwrap().0).unwrap();
    let mut reads: Vec<_> =
        (0..64).map(|_| Box::pin(stream.read_exact(Whole, vec![0; 1]))).collect();
    for read in &mut reads {
        pending(read.as_mut(), &Arc::new(Told::default()));
    }
    let all = three();
    for told in &all {
        let waker = waker(told);
        let ready = PacketIo::<mfio_core::Read, Whole>::poll_ready;
        assert!(ready(&stream, &mut Context::from_waker(&waker)).is_pending());
    }
    std::io::Write::write_all(&mut theirs, &[7; 64]).unwrap();
    all_are_woken(&all);
    for read in reads {
        assert_eq!(now(&fs, pin!(read)).1, [7]);
    }
}

/// A connection of the runtime's, and its other end.
fn connection(fs: &Portable) -> (PortableStream, TcpStream) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let ours = listener.accept().unwrap().0;
    // So that a long packet goes in parts.
    socket2::SockRef::from(&ours).set_send_buffer_size(4 << 10).unwrap();
    (fs.adopt(ours).unwrap(), theirs)
}

/// Sends, and returns what becomes of it; whoever sends may hear of the panic, or others.
fn sent<B: mfio_core::packet::Buffer<Write>>(
    fs: &Portable,
    stream: &PortableStream,
    packet: Packet<Write, B>,
) -> bool {
    let write = AssertUnwindSafe(|| now(fs, stream.io((), packet)).is_ok());
    catch_unwind(write).unwrap_or(false)
}

/// An output that panics at the first range that ends.
fn panics_once() -> Arc<dyn Output> {
    let panicked = AtomicBool::new(false);
    output_fn(move |_| {
        let again = panicked.swap(true, Ordering::SeqCst);
        assert!(again, "an output: this panic belongs to the test");
    })
}

#[test]
fn nothing_follows_a_packet_that_a_panic_has_cut_off() {
    let fs = Portable::new().unwrap();
    let (stream, mut theirs) = connection(&fs);
    let mut first = Packet::<Write, _>::new(vec![1; 8 << 20]);
    first.set_output(Some(panics_once()));
    let peer = thread::spawn(move || {
        let mut all = Vec::new();
        // An error is as good as the end.
        let _ended = std::io::Read::read_to_end(&mut theirs, &mut all);
        all
    });
    assert!(!sent(&fs, &stream, first), "a part of it is not sent");
    assert!(!sent(&fs, &stream, Packet::new(vec![2; 10])));
    drop(stream);
    let all = peer.join().unwrap();
    assert!(all.iter().all(|&byte| byte == 1));
}

#[test]
fn packet_that_is_through_when_its_output_panics_is_followed_by_others() {
    let fs = Portable::new().unwrap();
    let (stream, mut theirs) = connection(&fs);
    let mut first = Packet::<Write, _>::new(vec![1; 10]);
    first.set_output(Some(panics_once()));
    let _panicked = sent(&fs, &stream, first);
    assert!(sent(&fs, &stream, Packet::new(vec![2; 10])));
    drop(stream);
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut theirs, &mut all).unwrap();
    assert_eq!(all, [[1; 10], [2; 10]].concat());
}

struct Panics;

impl Sink for Panics {
    fn len(&self) -> u64 {
        10
    }

    fn write_at(&self, _at: u64, _from: &[u8]) {
        panic!("a sink: this panic belongs to the test");
    }
}

#[test]
fn nothing_is_read_after_bytes_that_a_panic_has_lost() {
    let fs = Portable::new().unwrap();
    let (stream, mut theirs) = connection(&fs);
    std::io::Write::write_all(&mut theirs, &[[1; 10], [2; 10]].concat()).unwrap();
    let read = AssertUnwindSafe(|| {
        let packet = Packet::<mfio_core::Read, _>::new(Absorbed(Panics));
        now(&fs, stream.io(Whole, packet)).is_ok()
    });
    assert!(!catch_unwind(read).unwrap_or(false));
    assert!(now(&fs, stream.read_exact(Whole, vec![0; 10])).0.is_err());
}
