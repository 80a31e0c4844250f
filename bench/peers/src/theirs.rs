//! The packets of the published `mfio` 0.1.0 on a target in memory.
//!
//! There a packet that is filled is a `Write` packet. Every form reuses its packets behind a
//! `BaseArc`, which is the fastest that is documented; only `new packet` makes them anew. No
//! form resets the errors of a packet: there are none.
//!
//! Not here: the loops that wait (`waiting`).
#![allow(unsafe_code, reason = "mfio is at its fastest where it asks for unsafe")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use futures::Stream;
use futures::future::join_all;
use mfio::io::{
    BoundPacketView, Errorable, Packet, PacketIo, PacketIoExt, PacketStore, PacketStream,
    PacketView, Splittable, VecPacket, Write,
};
use mfio::mferr;
use mfio::tarc::BaseArc;
use mfio::traits::IoRead;

use crate::measure::Form;
use crate::waiting::{wait, wait_in_order, waker};
use crate::{DEPTH, MEMORY_BYTES, Mode, offset_of};

/// Bytes that complete a read inside `send_io`, or when driven.
struct Target {
    bytes: Vec<u8>,
    mode: Mode,
    /// Copies into lent bytes, which needs no `unsafe`, and not by `transfer_data`.
    lends: bool,
    queued: RefCell<VecDeque<(u64, BoundPacketView<Write>)>>,
}

impl Target {
    fn new(mode: Mode, lends: bool) -> Self {
        let queued = RefCell::new(VecDeque::with_capacity(DEPTH));
        Self { bytes: vec![7; MEMORY_BYTES], mode, lends, queued }
    }

    fn serve(&self, at: u64, view: BoundPacketView<Write>) {
        let size = self.bytes.len() as u64;
        if at >= size {
            view.error(mferr!(Address, Outside, Backend));
            return;
        }
        let view = match view.len() > size - at {
            true => {
                let (view, beyond) = view.split_at(size - at);
                beyond.error(mferr!(Address, Outside, Backend));
                view
            }
            false => view,
        };
        let start = at as usize;
        let bytes = &self.bytes[start..start + view.len() as usize];
        if self.lends {
            match view.try_alloc() {
                Ok(mut lent) => {
                    lent.write_copy_of_slice(bytes);
                }
                Err(_view) => unreachable!("a simple packet lends its bytes"),
            }
        } else {
            // SAFETY: `bytes` is as long as the view, and initialised.
            drop(unsafe { view.transfer_data(bytes.as_ptr().cast()) });
        }
    }

    fn drive(&self) {
        loop {
            let next = self.queued.borrow_mut().pop_front();
            let Some((at, view)) = next else { return };
            self.serve(at, view);
        }
    }
}

impl PacketIo<Write, u64> for Target {
    fn send_io(&self, at: u64, view: BoundPacketView<Write>) {
        match self.mode {
            Mode::Inline => self.serve(at, view),
            Mode::Polled => self.queued.borrow_mut().push_back((at, view)),
        }
    }
}

type Reading = BaseArc<Packet<Write>>;

fn packet(bytes: usize) -> Reading {
    Packet::<Write>::new_buf(bytes)
}

fn packets(bytes: usize) -> Vec<Reading> {
    (0..DEPTH).map(|_| packet(bytes)).collect()
}

/// One packet, sent again and again.
pub(crate) fn one(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    vec![
        Form { name: "io", run: reused(mode, false, bytes) },
        Form { name: "io, lent", run: reused(mode, true, bytes) },
        Form { name: "bind and send", run: one_bound(mode, bytes) },
    ]
}

fn reused(mode: Mode, lends: bool, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = Target::new(mode, lends);
    let packet = packet(bytes);
    Box::new(move |count| {
        for turn in 0..count {
            let future = target.io(offset_of(turn, bytes), &packet);
            let done = wait(&waker, || target.drive(), future);
            assert!(done.err_any().is_ok());
            black_box(done);
        }
    })
}

/// Sent without a future, then awaited.
fn one_bound(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = Target::new(mode, false);
    let packet = packet(bytes);
    Box::new(move |count| {
        for turn in 0..count {
            let view = PacketView::from_arc_ref(&packet, 0);
            // SAFETY: a counted packet, and no output.
            let view = unsafe { view.bind(None) };
            target.send_io(offset_of(turn, bytes), view);
            if mode == Mode::Polled {
                target.drive();
            }
            wait(&waker, || target.drive(), &*packet);
            assert!(packet.err_any().is_ok());
        }
    })
}

/// A plain value into the caller's own frame.
pub(crate) fn value(mode: Mode, _bytes: usize) -> Vec<Form<'static>> {
    let waker = waker();
    let target = Target::new(mode, false);
    let run = Box::new(move |count| {
        for turn in 0..count {
            let future = target.read::<[u8; 64]>(offset_of(turn, 64));
            black_box(wait(&waker, || target.drive(), future)).expect("inside the target");
        }
    });
    vec![Form { name: "read", run }]
}

/// A new packet for every read, with the buffer that it comes with.
pub(crate) fn new_packet(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    let packed = fresh(mode, bytes, packet, |packet| assert!(packet.err_any().is_ok()));
    let make = |bytes| VecPacket::<Write>::from(vec![0_u8; bytes]);
    let vec = fresh(mode, bytes, make, |packet| {
        assert!(packet.err_any().is_ok());
        black_box(packet.take());
    });
    vec![Form { name: "not initialised", run: packed }, Form { name: "zeroed Vec", run: vec }]
}

fn fresh<P, S>(mode: Mode, bytes: usize, make: fn(usize) -> P, check: fn(S)) -> Box<dyn FnMut(u64)>
where
    P: for<'a> PacketStore<'a, Write, StackReq<'a> = S> + 'static,
    S: 'static,
{
    let waker = waker();
    let target = Target::new(mode, false);
    Box::new(move |count| {
        for turn in 0..count {
            let future = target.io(offset_of(turn, bytes), make(bytes));
            check(wait(&waker, || target.drive(), future));
        }
    })
}

/// `DEPTH` packets under way at a time.
pub(crate) fn many(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    let mut forms = futures(mode, bytes);
    forms.push(Form { name: "bind and send", run: bound(mode, bytes) });
    forms.push(Form { name: "stream each", run: streams(mode, bytes) });
    forms.push(Form { name: "one stream", run: one_stream(mode, bytes) });
    forms
}

/// `DEPTH` packets under way at a time, each awaited by its own future.
pub(crate) fn futures(mode: Mode, bytes: usize) -> Vec<Form<'static>> {
    vec![
        Form { name: "in order", run: awaited(mode, false, bytes) },
        Form { name: "in order, lent", run: awaited(mode, true, bytes) },
        Form { name: "join_all", run: joined(mode, bytes) },
    ]
}

/// What futures in a vector borrow; a closure cannot own both.
fn leaked<T>(value: T) -> &'static T {
    Box::leak(Box::new(value))
}

fn awaited(mode: Mode, lends: bool, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = leaked(Target::new(mode, lends));
    let packets: &'static [Reading] = leaked(packets(bytes));
    let mut futures = Vec::with_capacity(DEPTH);
    Box::new(move |count| {
        for batch in 0..count / DEPTH as u64 {
            for (at, packet) in (0..).zip(packets) {
                futures.push(target.io(offset_of(batch * DEPTH as u64 + at, bytes), packet));
            }
            wait_in_order(
                &waker,
                || target.drive(),
                &mut futures,
                |done| {
                    assert!(done.err_any().is_ok());
                    black_box(done);
                },
            );
        }
    })
}

/// Sent without futures, then awaited one after the other: each is asked once.
fn bound(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = Target::new(mode, false);
    let packets = packets(bytes);
    Box::new(move |count| {
        for batch in 0..count / DEPTH as u64 {
            for (at, packet) in (0..).zip(&packets) {
                let view = PacketView::from_arc_ref(packet, 0);
                let offset = offset_of(batch * DEPTH as u64 + at, bytes);
                // SAFETY: a counted packet, and no output.
                let view = unsafe { view.bind(None) };
                target.send_io(offset, view);
            }
            target.drive();
            for packet in &packets {
                wait(&waker, || target.drive(), &**packet);
                assert!(packet.err_any().is_ok());
            }
        }
    })
}

fn joined(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = Target::new(mode, false);
    let packets = packets(bytes);
    Box::new(move |count| {
        for batch in 0..count / DEPTH as u64 {
            let all = (0..)
                .zip(&packets)
                .map(|(at, packet)| target.io(offset_of(batch * DEPTH as u64 + at, bytes), packet));
            let all = wait(&waker, || target.drive(), join_all(all));
            assert!(all.iter().all(|done| done.err_any().is_ok()));
            black_box(all);
        }
    })
}

/// First in, first out: as a `Vec` it would be the other way round.
type Arrived = VecDeque<mfio::io::Output<'static, Write>>;

/// A stream for every packet, as `io_to_stream` makes it.
fn streams(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = leaked(Target::new(mode, false));
    let packets: &'static [Reading] = leaked(packets(bytes));
    let mut futures = Vec::with_capacity(DEPTH);
    Box::new(move |count| {
        let mut cx = Context::from_waker(&waker);
        for batch in 0..count / DEPTH as u64 {
            for (at, packet) in (0..).zip(packets) {
                let offset = offset_of(batch * DEPTH as u64 + at, bytes);
                futures.push(target.io_to_stream(offset, packet, Arrived::new()));
            }
            for future in &mut futures {
                Pin::new(future).submit();
            }
            target.drive();
            for future in &mut futures {
                let mut stream = &**Pin::new(future).submit();
                let next = pin!(&mut stream).poll_next(&mut cx);
                assert!(matches!(next, Poll::Ready(Some((_, None)))));
            }
            futures.clear();
        }
    })
}

/// One stream for all packets.
fn one_stream(mode: Mode, bytes: usize) -> Box<dyn FnMut(u64)> {
    let waker = waker();
    let target = leaked(Target::new(mode, false));
    let packets: &'static [Reading] = leaked(packets(bytes));
    let stream = BaseArc::new(PacketStream::<Arrived, Write>::new(Arrived::with_capacity(DEPTH)));
    let mut futures = Vec::with_capacity(DEPTH);
    Box::new(move |count| {
        let mut cx = Context::from_waker(&waker);
        for batch in 0..count / DEPTH as u64 {
            for (at, packet) in (0..).zip(packets) {
                let offset = offset_of(batch * DEPTH as u64 + at, bytes);
                let mut future = target.io_to(offset, packet, stream.clone());
                Pin::new(&mut future).submit();
                futures.push(future);
            }
            target.drive();
            let mut arrived = &*stream;
            for _ in 0..DEPTH {
                let next = Pin::new(&mut arrived).poll_next(&mut cx);
                assert!(matches!(next, Poll::Ready(Some((_, None)))));
            }
            futures.clear();
        }
    })
}
