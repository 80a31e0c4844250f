//! What a packet costs, whatever it is used for: reads from memory, where nothing else happens.
//!
//! Data flow: packets → the in-memory target, which completes at once or when driven → time per
//! read. Quick unless `--measurement-time` says otherwise.
//!
//! Not here: other implementations (`bench/peers`), devices (`mfio-bench run`).
#![allow(missing_docs, reason = "a program, not a library")]

use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use mfio_core::mem::Mem;
use mfio_core::{
    CompletionQueue, Drive, IoRead, Packet, PacketIo, PacketIoExt, Read, Refused, View, block_on,
};

/// Packets under way in the benches with many.
const DEPTH: u64 = 256;
/// Fits in the second-level cache, so that memory does not decide.
const TARGET_BYTES: u64 = 64 * 1024;
const READ_BYTES: [usize; 2] = [64, 4096];

type Reading = Packet<Read, Vec<u8>>;

/// What a real waker costs: counted, and called through a table.
struct Called(AtomicBool);

impl Wake for Called {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Polls a future, driving in between, as an executor does.
fn wait<F: Future + Unpin>(target: &Mem, cx: &mut Context<'_>, mut future: F) -> F::Output {
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(cx) {
            return output;
        }
        target.poll_drive(cx);
    }
}

/// Where read number `turn` begins: at every alignment in turn.
fn offset_of(turn: u64, bytes: usize) -> u64 {
    turn * (bytes as u64 + 192) % (TARGET_BYTES - bytes as u64 + 1)
}

fn target(polled: bool) -> Mem {
    let bytes = vec![7; usize::try_from(TARGET_BYTES).expect("a small target")];
    let depth = usize::try_from(DEPTH).expect("a small depth");
    if polled { Mem::polled(bytes, depth) } else { Mem::from(bytes) }
}

fn packet(bytes: usize) -> Reading {
    Packet::new(vec![0; bytes])
}

fn packets(bytes: usize) -> Vec<Reading> {
    (0..DEPTH).map(|_| packet(bytes)).collect()
}

/// One packet, sent again and again.
fn one(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, target: &Mem, bytes: usize) {
    let waker = Waker::from(Arc::new(Called(AtomicBool::new(false))));
    let mut cx = Context::from_waker(&waker);
    let mut kept = Some(packet(bytes));
    let mut turn = 0;
    group.bench_function(format!("{name}/one"), |bencher| {
        bencher.iter(|| {
            turn += 1;
            let sent = target.io(offset_of(turn, bytes), kept.take().expect("put back below"));
            let done = wait(target, &mut cx, sent);
            assert!(done.is_ok());
            kept = Some(done.into_packet());
        });
    });
}

/// `DEPTH` packets through one completion queue; time per batch.
fn queue(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, target: &Mem, bytes: usize) {
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let mut packets = packets(bytes);
    let mut cx = Context::from_waker(Waker::noop());
    group.bench_function(format!("{name}/queue of {DEPTH}"), |bencher| {
        bencher.iter(|| {
            for (turn, packet) in (0..).zip(packets.drain(..)) {
                queue.send(target, offset_of(turn, bytes), packet, turn).expect("there is room");
            }
            target.poll_drive(&mut cx);
            while let Some((tag, done)) = queue.pop() {
                assert!(done.is_ok());
                black_box(tag);
                packets.push(done.into_packet());
            }
        });
    });
}

/// `DEPTH` packets, each awaited by its own future; time per batch.
fn futures(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, target: &Mem, bytes: usize) {
    let waker = Waker::from(Arc::new(Called(AtomicBool::new(false))));
    let mut cx = Context::from_waker(&waker);
    let mut packets = packets(bytes);
    let (mut sent, mut done) = (Vec::with_capacity(packets.len()), Vec::new());
    group.bench_function(format!("{name}/{DEPTH} futures"), |bencher| {
        bencher.iter(|| {
            for (turn, packet) in (0..).zip(packets.drain(..)) {
                sent.push(target.io(offset_of(turn, bytes), packet));
            }
            while !sent.is_empty() {
                sent.retain_mut(|future| match Pin::new(future).poll(&mut cx) {
                    Poll::Ready(completed) => {
                        done.push(completed);
                        false
                    }
                    Poll::Pending => true,
                });
                target.poll_drive(&mut cx);
            }
            for completed in done.drain(..) {
                assert!(completed.is_ok());
                packets.push(completed.into_packet());
            }
        });
    });
}

/// A plain value into the caller's own frame, by a blocking call.
fn value(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, target: &Mem) {
    let mut turn = 0;
    group.bench_function(format!("{name}/value, blocking"), |bencher| {
        bencher.iter(|| {
            turn += 1;
            let value = block_on(target, target.read_value::<[u8; 64]>(offset_of(turn, 64)));
            value.expect("nobody else drives").expect("inside the target")
        });
    });
}

/// Half a view to each of two completions: what a split costs.
fn halves(group: &mut BenchmarkGroup<'_, WallTime>, bytes: usize) {
    let halved = Halved(target(false));
    let mut cx = Context::from_waker(Waker::noop());
    let mut kept = Some(packet(bytes));
    let mut turn = 0;
    group.bench_function("inline/one, split", |bencher| {
        bencher.iter(|| {
            turn += 1;
            let sent = halved.io(offset_of(turn, bytes), kept.take().expect("put back below"));
            let done = wait(&halved.0, &mut cx, sent);
            assert!(done.is_ok());
            kept = Some(done.into_packet());
        });
    });
}

/// Sends the two halves of every view on.
struct Halved(Mem);

impl PacketIo<Read, u64> for Halved {
    fn send_io(&self, at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        let middle = view.len() / 2;
        let (left, right) = view.split_at(middle);
        self.0.send_io(at, left)?;
        self.0.send_io(at + middle, right)
    }
}

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    for bytes in READ_BYTES {
        let mut group = criterion.benchmark_group(format!("{bytes} B"));
        for (name, polled) in [("inline", false), ("polled", true)] {
            let target = target(polled);
            group.throughput(Throughput::Elements(1));
            one(&mut group, name, &target, bytes);
            if bytes == READ_BYTES[0] {
                value(&mut group, name, &target);
            }
            group.throughput(Throughput::Elements(DEPTH));
            queue(&mut group, name, &target, bytes);
            futures(&mut group, name, &target, bytes);
        }
        group.throughput(Throughput::Elements(1));
        halves(&mut group, bytes);
        group.finish();
    }
    criterion.final_summary();
}
