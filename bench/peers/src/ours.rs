//! This project's packets on a target in memory.
//!
//! The target is the peer's, word for word (`theirs`): a vector of bytes, and a queue where it
//! completes when polled. Our own reference target, `Mem`, is measured beside it.
//!
//! Not here: the loops that wait (`waiting`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::task::{Context, Waker};

use futures::future::join_all;
use mfio_core::mem::Mem;
use mfio_core::{
    CompletionBatch, CompletionQueue, Drive, ErrorKind, IoRead, Packet, PacketIo, PacketIoExt,
    Read, Refused, View,
};

use crate::measure::Form;
use crate::waiting::{wait, wait_in_order, waker};
use crate::{DEPTH, MEMORY_BYTES, Mode, offset_of};

/// Bytes that complete a read inside `send_io`, or when driven.
struct Target {
    bytes: Vec<u8>,
    mode: Mode,
    queued: RefCell<VecDeque<(u64, View<Read>)>>,
}

impl Target {
    fn new(mode: Mode) -> Self {
        let queued = RefCell::new(VecDeque::with_capacity(DEPTH));
        Self { bytes: vec![7; MEMORY_BYTES], mode, queued }
    }

    /// Queues are told when `batch` ends, as by any backend that reaps many at once.
    fn serve(&self, at: u64, view: View<Read>, batch: Option<&mut CompletionBatch>) {
        let size = self.bytes.len() as u64;
        if at >= size {
            view.fail(ErrorKind::OutOfRange);
            return;
        }
        let view = match view.len() > size - at {
            true => view.fail_after(size - at, ErrorKind::OutOfRange),
            false => view,
        };
        let start = at as usize;
        let bytes = &self.bytes[start..start + view.len() as usize];
        match view.try_alloc(1) {
            Ok(mut lent) => {
                lent.as_mut_slice().copy_from_slice(bytes);
                match batch {
                    Some(batch) => lent.done_in(batch),
                    None => lent.done(),
                }
            }
            // A value on a stack has no address to lend.
            Err(view) => {
                let rest = view.fill_from(bytes);
                debug_assert!(rest.is_none(), "as long as the view");
            }
        }
    }

    fn drive(&self) {
        let mut batch = CompletionBatch::new();
        loop {
            let next = self.queued.borrow_mut().pop_front();
            let Some((at, view)) = next else { return };
            self.serve(at, view, Some(&mut batch));
        }
    }
}

impl PacketIo<Read, u64> for Target {
    fn send_io(&self, at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        match self.mode {
            Mode::Inline => self.serve(at, view, None),
            Mode::Polled => self.queued.borrow_mut().push_back((at, view)),
        }
        Ok(())
    }
}

/// What the forms need of a target, so that `Mem` is measured by the same code.
trait Driven: PacketIo<Read, u64> {
    fn drive(&self);
}

impl Driven for Target {
    fn drive(&self) {
        Target::drive(self);
    }
}

impl Driven for Mem {
    fn drive(&self) {
        self.poll_drive(&mut Context::from_waker(Waker::noop()));
    }
}

fn mem(mode: Mode) -> Mem {
    match mode {
        Mode::Inline => Mem::from(vec![7; MEMORY_BYTES]),
        Mode::Polled => Mem::polled(vec![7; MEMORY_BYTES], DEPTH),
    }
}

type Reading = Packet<Read, Vec<u8>>;

fn packet(bytes: usize) -> Reading {
    Packet::new(vec![0; bytes])
}

/// One packet, sent again and again.
pub(crate) fn one(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    vec![
        Form { name: "io", run: reused(Target::new(mode), bytes) },
        Form { name: "io, Mem", run: reused(mem(mode), bytes) },
    ]
}

fn reused(target: impl Driven + 'static, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let mut kept = Some(packet(bytes));
    Box::new(move |count| {
        for turn in 0..count {
            let packet = kept.take().expect("put back below");
            let future = target.io(offset_of(turn, bytes), packet);
            let done = wait(&waker, || target.drive(), future);
            assert!(done.is_ok());
            kept = Some(black_box(done.into_packet()));
        }
    })
}

/// A plain value into the caller's own frame: no packet in sight.
pub(crate) fn value(mode: Mode, _bytes: usize) -> Vec<Form<'static>> {
    let waker = waker();
    let target = Target::new(mode);
    let run = Box::new(move |count| {
        for turn in 0..count {
            let future = target.read_value::<[u8; 64]>(offset_of(turn, 64));
            black_box(wait(&waker, || target.drive(), future)).expect("inside the target");
        }
    });
    vec![Form { name: "read_value", run }]
}

/// A new packet for every read, with the buffer that it comes with.
pub(crate) fn new_packet(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    let waker = waker();
    let target = Target::new(mode);
    let run = Box::new(move |count| {
        for turn in 0..count {
            let future = target.io(offset_of(turn, bytes), packet(bytes));
            let done = wait(&waker, || target.drive(), future);
            assert!(done.is_ok());
            black_box(done.into_packet().into_buffer());
        }
    });
    vec![Form { name: "zeroed Vec", run }]
}

/// `DEPTH` packets under way at a time.
pub(crate) fn many(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    vec![
        Form { name: "queue", run: queued(Target::new(mode), bytes) },
        Form { name: "queue, Mem", run: queued(mem(mode), bytes) },
    ]
}

/// `DEPTH` packets under way at a time, each awaited by its own future.
pub(crate) fn futures(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    vec![
        Form { name: "in order", run: awaited(mode, bytes) },
        Form { name: "join_all", run: joined(mode, bytes) },
    ]
}

fn queued(target: impl Driven + 'static, bytes: usize) -> Box<dyn FnMut(u64)> {
    let mut queue = CompletionQueue::<Read, Vec<u8>>::new();
    let mut packets: Vec<Reading> = (0..DEPTH).map(|_| packet(bytes)).collect();
    Box::new(move |count| {
        for batch in 0..count / DEPTH as u64 {
            for at in 0..DEPTH as u64 {
                let packet = packets.pop().expect("as many as the depth");
                let offset = offset_of(batch * DEPTH as u64 + at, bytes);
                queue.send(&target, offset, packet, at).expect("there is room");
            }
            target.drive();
            while let Some((tag, done)) = queue.pop() {
                assert!(done.is_ok());
                black_box(tag);
                packets.push(done.into_packet());
            }
        }
    })
}

fn awaited(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    // Outlives the closure's futures, which borrow it; a vector cannot hold them otherwise.
    let target: &'static Target = Box::leak(Box::new(Target::new(mode)));
    let mut packets: Vec<Reading> = (0..DEPTH).map(|_| packet(bytes)).collect();
    let mut futures = Vec::with_capacity(DEPTH);
    Box::new(move |count| {
        for batch in 0..count / DEPTH as u64 {
            for (at, packet) in (0..).zip(packets.drain(..)) {
                futures.push(target.io(offset_of(batch * DEPTH as u64 + at, bytes), packet));
            }
            wait_in_order(
                &waker,
                || target.drive(),
                &mut futures,
                |done| {
                    assert!(done.is_ok());
                    packets.push(done.into_packet());
                },
            );
        }
    })
}

fn joined(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = Target::new(mode);
    let mut packets: Vec<Reading> = (0..DEPTH).map(|_| packet(bytes)).collect();
    Box::new(move |count| {
        for batch in 0..count / DEPTH as u64 {
            let all = (0..)
                .zip(packets.drain(..))
                .map(|(at, packet)| target.io(offset_of(batch * DEPTH as u64 + at, bytes), packet));
            let all = wait(&waker, || target.drive(), join_all(all));
            packets.extend(all.into_iter().map(|done| {
                assert!(done.is_ok());
                done.into_packet()
            }));
        }
    })
}
