//! Backends that are wrong in every way that safe code can be, and callers whose code panics: a
//! blocking call over borrowed bytes does not end before nobody can reach them any more, and
//! nobody's packet is lost because of another's.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::backend::Turn;
use mfio_core::layer::concat::Concat;
use mfio_core::mem::Mem;
use mfio_core::wakers::tell_all;
use mfio_core::{
    Absorbed, BackendBusy, BackendHandle, BlockingError, BlockingRead, CompletionBatch,
    CompletionQueue, Drive, IoBackend, Lent, Packet, PacketIo, Read, Refused, Relay, Sent, Sink,
    View,
};

/// What the backend does when it is asked who drives it for the second time, or driven.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(miri, allow(dead_code, reason = "one of them takes a process of its own"))]
enum Then {
    PanicWhenDriven,
    PanicWhenAskedAgain,
    BusyWhenAskedAgain,
}

/// Keeps what it is sent, or a part of that, refuses what is left or another view, and has no room
/// for it afterwards. What it has kept is completed by another thread.
struct Hostile {
    keep: Sender<View<Read>>,
    kept_bytes: u64,
    /// Refused in place of nothing.
    other: Mutex<Option<View<Read>>>,
    then: Then,
    asked: Cell<u32>,
    claimed: Cell<bool>,
}

impl PacketIo<Read, u64> for Hostile {
    fn send_io(&self, param: u64, view: View<Read>) -> Result<(), Refused<Read, u64>> {
        if let Some(other) = self.other.lock().unwrap().take() {
            self.keep.send(view).unwrap();
            return Err(Refused { param, view: other });
        }
        let (kept, view) = view.split_at(self.kept_bytes);
        self.keep.send(kept).unwrap();
        if view.is_empty() { Ok(()) } else { Err(Refused { param, view }) }
    }

    fn poll_ready(&self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

impl Drive for Hostile {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        if self.asked.replace(100) < 100 {
            panic!("nobody drives me");
        }
    }
}

impl IoBackend for Hostile {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        let asked = self.asked.replace(self.asked.get() + 1);
        match self.then {
            Then::PanicWhenDriven => BackendHandle::acquire(self, &self.claimed).map(Some),
            Then::BusyWhenAskedAgain | Then::PanicWhenAskedAgain if asked == 0 => Err(BackendBusy),
            Then::BusyWhenAskedAgain if asked > 2 => Ok(None),
            Then::PanicWhenAskedAgain if asked > 1 => panic!("asked for a third time"),
            _ => Err(BackendBusy),
        }
    }

    fn poll_backend(
        &self,
        _cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        if self.then == Then::PanicWhenDriven || self.asked.replace(self.asked.get() + 1) > 1 {
            return Poll::Ready(Err(BackendBusy));
        }
        Poll::Pending
    }
}

/// A call on `hostile`; once it has ended, nothing that it sent is under way.
fn read_with(hostile: &Hostile, kept: Receiver<View<Read>>) {
    let through = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&through);
    let (_sender, never) = channel::<()>();
    let completer = thread::spawn(move || {
        for mut view in kept {
            // Long after a call that does not wait has returned.
            let _timeout =
                never.recv_timeout(Duration::from_millis(if cfg!(miri) { 1 } else { 50 }));
            let (at, len) = (view.start(), view.len());
            let bytes = vec![7; usize::try_from(len).unwrap()];
            view.write_at(0, &bytes);
            *seen.lock().unwrap() += len;
            view.filled();
            assert_eq!(at, 0);
        }
    });
    let (read, through_at_end) = {
        let mut bytes = vec![0_u8; 8];
        let read = catch_unwind(AssertUnwindSafe(|| hostile.blocking_read_exact(0, &mut bytes)));
        let through = *through.lock().unwrap();
        (read, through)
    };
    match hostile.then {
        Then::PanicWhenDriven => drop(read.unwrap_err()),
        _ => assert_eq!(read.unwrap(), Err(BlockingError::Busy)),
    }
    let kept_bytes = hostile.kept_bytes;
    assert_eq!(through_at_end, kept_bytes, "a view outlived the call that lent its bytes");
    // The thread ends with the sender, which is its caller's.
    drop(completer);
}

fn hostile(
    then: Then,
    kept_bytes: u64,
    other: Option<View<Read>>,
) -> (Hostile, Receiver<View<Read>>) {
    let (keep, kept) = channel();
    let (asked, claimed) = (Cell::new(0), Cell::new(false));
    (Hostile { keep, kept_bytes, other: Mutex::new(other), then, asked, claimed }, kept)
}

#[test]
fn call_that_panics_waits_for_the_part_that_was_not_refused() {
    let (hostile, kept) = hostile(Then::PanicWhenDriven, 5, None);
    read_with(&hostile, kept);
}

#[test]
fn call_that_panics_waits_for_its_packet_where_another_was_refused() {
    let (sent, other) = Packet::<Read, _>::new(vec![0; 3]).send();
    let (hostile, kept) = hostile(Then::PanicWhenDriven, 8, Some(other));
    read_with(&hostile, kept);
    assert!(sent.is_done(), "what was refused in the place of another has its result");
}

#[test]
fn call_that_finds_the_backend_busy_waits_for_the_part_that_was_not_refused() {
    let (hostile, kept) = hostile(Then::BusyWhenAskedAgain, 5, None);
    read_with(&hostile, kept);
}

/// Not under Miri, which has no processes.
#[test]
#[cfg(all(unix, not(miri)))]
fn backend_that_panics_while_a_call_waits_for_its_bytes_ends_the_process() {
    use std::os::unix::process::ExitStatusExt;
    const CHILD: &str = "MFIO_HOSTILE_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let (hostile, kept) = hostile(Then::PanicWhenAskedAgain, 8, None);
        read_with(&hostile, kept);
        return;
    }
    let name = "backend_that_panics_while_a_call_waits_for_its_bytes_ends_the_process";
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    // SIGABRT.
    assert_eq!(child.status.signal(), Some(6), "{}", String::from_utf8_lossy(&child.stderr));
}

/// Keeps every view.
#[derive(Default)]
struct Keeper(Mutex<Vec<View<Read>>>);

impl PacketIo<Read, u64> for Keeper {
    fn send_io(&self, _param: u64, view: View<Read>) -> Result<(), Refused<Read, u64>> {
        self.0.lock().unwrap().push(view);
        Ok(())
    }
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker");
    }
}

type Lenders = Vec<Sent<Read, Vec<u8>>>;

/// Three packets, one of them awaited by a waker that panics, and their bytes as buffers of others.
fn lent(panicking: usize) -> (Lenders, Vec<Lent<Read>>) {
    let mut pairs: Vec<_> = (0..3).map(|_| Packet::<Read, _>::new(vec![0; 4]).send()).collect();
    let waker = Waker::from(Arc::new(Panics));
    assert!(pairs[panicking].0.poll_done(&mut Context::from_waker(&waker)).is_pending());
    pairs.into_iter().map(|(sent, view)| (sent, view.try_alloc(1).unwrap())).unzip()
}

/// Whether each has its result, whoever panics.
fn all_end(sent: &[Sent<Read, Vec<u8>>], act: impl FnOnce()) {
    assert!(catch_unwind(AssertUnwindSafe(act)).is_err(), "a waker panics");
    let ended: Vec<_> = sent.iter().map(Sent::is_done).collect();
    assert_eq!(ended, [true; 3], "what is freed behind one that panics is freed all the same");
}

fn queued(keeper: &Keeper, lent: Vec<Lent<Read>>) -> CompletionQueue<Read, Lent<Read>> {
    let mut queue = CompletionQueue::new();
    for (tag, lent) in (0..).zip(lent) {
        queue.send(keeper, 0, Packet::<Read, _>::new(lent), tag).unwrap();
    }
    queue
}

#[test]
fn queue_that_is_dropped_frees_all_that_have_arrived() {
    let keeper = Keeper::default();
    let (sent, lent) = lent(2);
    let queue = queued(&keeper, lent);
    keeper.0.lock().unwrap().drain(..).for_each(View::filled);
    all_end(&sent, || drop(queue));
}

#[test]
fn queue_that_is_dropped_frees_all_that_were_taken_out() {
    let keeper = Keeper::default();
    let (sent, lent) = lent(0);
    let (other, view) = Packet::<Read, _>::new(vec![0; 4]).send();
    let mut queue = queued(&keeper, vec![view.try_alloc(1).unwrap()]);
    for (tag, lent) in (0..).zip(lent) {
        queue.send(&keeper, 0, Packet::<Read, _>::new(lent), tag).unwrap();
    }
    keeper.0.lock().unwrap().drain(..).for_each(View::filled);
    drop(queue.pop().unwrap());
    assert!(other.is_done());
    all_end(&sent, || drop(queue));
}

#[test]
fn batch_for_a_queue_that_has_gone_frees_all_of_its_packets() {
    let keeper = Keeper::default();
    let (sent, lent) = lent(2);
    drop(queued(&keeper, lent));
    let mut batch = CompletionBatch::new();
    for view in keeper.0.lock().unwrap().drain(..) {
        view.try_alloc(1).unwrap().done_in(&mut batch);
    }
    all_end(&sent, || drop(batch));
}

#[test]
fn packet_arrives_although_the_waker_of_another_queue_panics() {
    let keeper = Keeper::default();
    let (mut one, mut other) = (CompletionQueue::new(), CompletionQueue::new());
    one.send(&keeper, 0, Packet::<Read, _>::new(vec![0; 4]), 1).unwrap();
    other.send(&keeper, 0, Packet::<Read, _>::new(vec![0; 4]), 2).unwrap();
    let waker = Waker::from(Arc::new(Panics));
    assert!(one.poll_pop(&mut Context::from_waker(&waker)).is_pending());
    let told = catch_unwind(AssertUnwindSafe(|| {
        let mut batch = CompletionBatch::new();
        for view in keeper.0.lock().unwrap().drain(..) {
            view.try_alloc(1).unwrap().done_in(&mut batch);
        }
    }));
    assert!(told.is_err(), "the waker of the first queue panics");
    assert_eq!(one.pop().map(|(tag, _)| tag), Some(1));
    assert_eq!(other.pop().map(|(tag, _)| tag), Some(2));
}

#[derive(Default)]
struct Counts(AtomicU32);

impl Wake for Counts {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// One that panics and one that counts; `wait` is called with the first before the second, `act`
/// ends both waits.
fn both_are_woken(mut wait: impl FnMut(&mut Context<'_>), act: impl FnOnce()) {
    let counts = Arc::new(Counts::default());
    for waker in [Waker::from(Arc::new(Panics)), Waker::from(Arc::clone(&counts))] {
        wait(&mut Context::from_waker(&waker));
    }
    assert!(catch_unwind(AssertUnwindSafe(act)).is_err(), "the first waker panics");
    assert_eq!(counts.0.load(Ordering::Relaxed), 1);
}

#[test]
fn room_is_told_to_all_who_wait_for_it() {
    let target = Mem::polled(vec![0; 64], 1);
    let (_sent, view) = Packet::<Read, _>::new(vec![0; 4]).send();
    target.send_io(0, view).unwrap();
    let wait = |cx: &mut Context<'_>| {
        assert!(PacketIo::<Read, u64>::poll_ready(&target, cx).is_pending());
    };
    both_are_woken(wait, || target.poll_drive(&mut Context::from_waker(Waker::noop())));
}

#[test]
fn room_of_a_layer_is_told_to_all_who_wait_for_it() {
    let layer = Concat::new([(32, Mem::polled(vec![0; 32], 1)), (32, Mem::polled(vec![0; 32], 1))]);
    let (mut sents, mut packet) = (Vec::new(), None);
    // The second has to wait for the room of its first piece.
    for _ in 0..2 {
        let (sent, view) = Packet::<Read, _>::new(vec![0; 64]).send();
        packet = Some(sent.packet_id());
        sents.push(sent);
        assert!(layer.reserve_read());
        layer.send_io(0, view).unwrap();
    }
    let wait = |cx: &mut Context<'_>| {
        assert!(PacketIo::<Read, u64>::poll_ready(&layer, cx).is_pending());
    };
    both_are_woken(wait, || PacketIo::<Read, u64>::abandon(&layer, packet.unwrap()));
}

trait ReserveRead {
    fn reserve_read(&self) -> bool;
}

impl<T: PacketIo<Read, u64>> ReserveRead for T {
    fn reserve_read(&self) -> bool {
        self.reserve(1)
    }
}

#[test]
fn turn_that_ends_is_told_to_all_who_wait_for_theirs() {
    struct Nothing;
    impl Drive for Nothing {
        fn poll_drive(&self, _cx: &mut Context<'_>) {}
    }
    let turn = Turn::new();
    thread::scope(|scope| {
        let (held, wait_held) = channel();
        let (go, wait_go) = channel::<()>();
        let turn = &turn;
        let holder = scope.spawn(move || {
            let handle = BackendHandle::acquire(&Nothing, turn).unwrap();
            held.send(()).unwrap();
            wait_go.recv().unwrap();
            let _panics = catch_unwind(AssertUnwindSafe(|| drop(handle)));
            panic!("whatever it was");
        });
        wait_held.recv().unwrap();
        let wait = |cx: &mut Context<'_>| assert!(turn.poll_acquire(&Nothing, cx).is_pending());
        both_are_woken(wait, || {
            go.send(()).unwrap();
            holder.join().unwrap();
        });
    });
}

#[test]
fn all_are_told_whichever_panic_and_the_first_panic_goes_on() {
    let mut told = Vec::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        tell_all(0..6, |number| {
            told.push(number);
            assert!(number % 2 == 0, "number {number}");
        });
    }));
    assert_eq!(told, [0, 1, 2, 3, 4, 5]);
    assert_eq!(panicked.unwrap_err().downcast_ref::<String>().unwrap(), "number 1");
    tell_all(0..3, |number| told.push(number));
    assert_eq!(told.len(), 9);
}

/// What a guard does when it goes, which may be because of a panic.
#[test]
fn all_are_told_by_a_drop_during_a_panic_and_that_panic_goes_on() {
    struct Guard<'a>(&'a Mutex<Vec<u32>>);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            tell_all(0..4, |number| {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).push(number);
                assert!(number % 2 == 0, "number {number}");
            });
        }
    }
    let told = Mutex::default();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = Guard(&told);
        panic!("the first");
    }));
    assert_eq!(*told.lock().unwrap(), [0, 1, 2, 3]);
    assert_eq!(*panicked.unwrap_err().downcast::<&str>().unwrap(), "the first");
}

/// A sink that, told of its first bytes, sends more into what it was told by.
#[derive(Default)]
struct Returning {
    relay: OnceLock<Weak<Relay<Read>>>,
    seen: Mutex<Vec<(u64, Vec<u8>)>>,
    panics: bool,
}

#[derive(Clone)]
struct Shared(Arc<Returning>);

impl Sink for Shared {
    fn len(&self) -> u64 {
        8
    }

    fn write_at(&self, at: u64, from: &[u8]) {
        self.0.seen.lock().unwrap().push((at, from.to_vec()));
        if at == 0 {
            let relay = self.0.relay.get().unwrap().upgrade().unwrap();
            relay.write_at(4, b"5678");
            relay.write_at(2, b"34");
            assert!(!self.0.panics, "a sink");
        }
    }
}

#[test]
fn sink_behind_a_relay_may_come_back_to_it_and_loses_no_order() {
    for panics in [false, true] {
        let sink = Shared(Arc::new(Returning { panics, ..Returning::default() }));
        let (sent, view) = Packet::<Read, _>::new(Absorbed(sink.clone())).send();
        let relay = Arc::new(Relay::new(view));
        sink.0.relay.set(Arc::downgrade(&relay)).unwrap();
        let told = catch_unwind(AssertUnwindSafe(|| relay.write_at(0, b"12")));
        assert_eq!(told.is_err(), panics);
        Arc::into_inner(relay).unwrap().into_view().filled();
        assert!(sent.is_done());
        let seen = sink.0.seen.lock().unwrap();
        let expected: [(u64, &[u8]); 3] = [(0, b"12"), (4, b"5678"), (2, b"34")];
        assert_eq!(*seen, expected.map(|(at, bytes)| (at, bytes.to_vec())));
    }
}
