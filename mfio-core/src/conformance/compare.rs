//! Sends packets the ways the rules want them sent, and compares what came of them with a byte
//! array.
//!
//! Data flow: target and packet → completed packet → assertion about the array's bytes.
//!
//! Not here: the rules.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use super::{GROWTH_MAX, Shape};
use crate::backend::{BackendBusy, BackendHandle, IoBackend, block_on};
use crate::error::{ErrorKind, FailedRange};
use crate::io::{PacketIo, PacketIoExt, Refused};
use crate::layer::Target;
use crate::packet::{Buffer, Completed, CompletionQueue, Packet, Perms, Read, View, Write};

/// How often a rule tries: `many` times, or a few where every step is interpreted.
pub(super) const fn tries(many: u64) -> u64 {
    if cfg!(miri) { many.div_ceil(50) } else { many }
}

/// The lowest eight bits.
pub(super) fn byte(from: u64) -> u8 {
    from.to_le_bytes()[0]
}

pub(super) fn index(from: u64) -> usize {
    usize::try_from(from).expect("targets of a test fit in memory")
}

/// A repeatable choice below `bound`, which is at least 1.
pub(super) fn below(seed: &Cell<u64>, bound: u64) -> u64 {
    let mut next = seed.get();
    next ^= next << 13;
    next ^= next >> 7;
    next ^= next << 17;
    seed.set(next);
    // The low bits of this generator repeat soonest.
    (next >> 16) % bound
}

pub(super) fn driven<F: Future>(target: &impl IoBackend, future: F) -> F::Output {
    block_on(target, future).expect("conformance: nobody else drives the target")
}

/// Drops `future`, after one poll if `polled`.
pub(super) fn leave(future: impl Future, polled: bool) {
    let mut future = pin!(future);
    if polled {
        let _polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
}

pub(super) fn read(target: &impl Target, at: u64, len: u64) -> Completed<Read, Vec<u8>> {
    driven(target, target.io(at, Packet::<Read, _>::new(vec![0xee; index(len)])))
}

pub(super) fn write(target: &impl Target, at: u64, data: Vec<u8>) -> Completed<Write, Vec<u8>> {
    driven(target, target.io(at, Packet::<Write, _>::new(data)))
}

fn check_tiles(rule: &str, failed: &[FailedRange], start: usize, end: usize) {
    let mut at = start as u64;
    for range in failed {
        assert!(range.start == at && range.end > at, "{rule}: {failed:?} from {start} to {end}");
        at = range.end;
    }
    assert_eq!(at, end as u64, "{rule}: {failed:?} from {start} to {end}");
}

/// The packet failed with one of `kinds`, in every range that failed.
pub(super) fn check_error<P, B>(rule: &str, done: &Completed<P, B>, kinds: &[ErrorKind])
where
    P: Perms,
    B: Buffer<P>,
{
    let failed = done.failed_ranges();
    assert!(!failed.is_empty() && !done.is_ok(), "{rule}: success instead of {kinds:?}");
    for range in failed {
        assert!(kinds.contains(&range.error.kind()), "{rule}: {range:?} instead of {kinds:?}");
    }
}

/// The packet is what a target with the bytes of `model` gives for a read at `at`.
pub(super) fn check_read(rule: &str, model: &[u8], at: u64, mut done: Completed<Read, Vec<u8>>) {
    let len = done.buffer_mut().len();
    let start = usize::try_from(at).unwrap_or(usize::MAX).min(model.len());
    let there = len.min(model.len() - start);
    assert_eq!(done.contiguous_bytes(), there as u64, "{rule}: {len} bytes read at {at}");
    assert!(done.bytes() == &model[start..start + there], "{rule}: {len} bytes read at {at}");
    check_tiles(rule, &done.failed_ranges(), there, len);
    if there == len {
        assert!(done.is_ok(), "{rule}: {:?} for {len} bytes at {at}", done.error());
    } else {
        check_error(rule, &done, &[ErrorKind::UnexpectedEof]);
    }
}

/// The packet is what a target with the bytes of `model` makes of a write at `at`; does to
/// `model` what it did.
pub(super) fn check_write(
    rule: &str,
    model: &mut Vec<u8>,
    shape: Shape,
    at: u64,
    mut done: Completed<Write, Vec<u8>>,
) {
    let (start, len) = (index(at), done.buffer_mut().len());
    if shape.grows && len > 0 && start + len > model.len() {
        assert!(at <= shape.len + GROWTH_MAX, "the rules grow targets within bounds");
        model.resize(start + len, 0);
    }
    let fits = len.min(model.len().saturating_sub(start));
    assert_eq!(done.contiguous_bytes(), fits as u64, "{rule}: {len} bytes written at {at}");
    check_tiles(rule, &done.failed_ranges(), fits, len);
    if fits == len {
        assert!(done.is_ok(), "{rule}: {:?} for {len} bytes at {at}", done.error());
    } else {
        check_error(rule, &done, &[ErrorKind::OutOfRange, ErrorKind::NoSpace]);
    }
    if fits > 0 {
        model[start..start + fits].copy_from_slice(&done.into_buffer()[..fits]);
    }
}

/// The target has the bytes of `model` and ends there.
pub(super) fn check_contents(rule: &str, target: &impl Target, model: &[u8], shape: Shape) {
    let len = (model.len() as u64 + 1).next_multiple_of(shape.read_align);
    check_read(rule, model, 0, read(target, 0, len));
}

/// Packets under way together, and where each was sent.
pub(super) struct Flight<P: Perms>
where
    Vec<u8>: Buffer<P>,
{
    pub(super) queue: CompletionQueue<P, Vec<u8>>,
    /// By tag; taken when the packet comes back.
    pub(super) places: Vec<Option<u64>>,
    landed: Vec<(u64, Completed<P, Vec<u8>>)>,
}

impl<P: Perms> Flight<P>
where
    Vec<u8>: Buffer<P>,
{
    pub(super) fn new() -> Self {
        Self { queue: CompletionQueue::new(), places: Vec::new(), landed: Vec::new() }
    }

    /// The tag of the next packet: not its number, so that mixing them up shows.
    pub(super) fn tag(&self) -> u64 {
        !(self.places.len() as u64)
    }

    /// Sends, waiting for earlier packets where there is no room.
    pub(super) fn send<T>(&mut self, target: &T, at: u64, data: Vec<u8>)
    where
        T: PacketIo<P, u64> + IoBackend,
    {
        let (tag, mut packet) = (self.tag(), Packet::new(data));
        while let Err(unsent) = self.queue.send(target, at, packet, tag) {
            assert_eq!(unsent.param, at, "a refused packet comes back as it was sent");
            packet = unsent.packet;
            if self.queue.in_flight() > 0 {
                self.land_one(target);
            } else {
                driven(target, poll_fn(|cx| target.poll_ready(cx)));
            }
        }
        self.places.push(Some(at));
    }

    fn land_one(&mut self, target: &impl IoBackend) {
        let next = driven(target, poll_fn(|cx| self.queue.poll_pop(cx)));
        let (tag, done) = next.expect("packets are in flight");
        let place = self.places.get_mut(index(!tag)).and_then(Option::take);
        let at = place.expect("a packet comes back once, with the tag it was sent with");
        self.landed.push((at, done));
    }

    /// Every packet that was sent, and where to.
    pub(super) fn land(mut self, target: &impl IoBackend) -> Vec<(u64, Completed<P, Vec<u8>>)> {
        while self.queue.in_flight() > 0 {
            self.land_one(target);
        }
        assert_eq!(self.landed.len(), self.places.len(), "every packet comes back");
        self.landed
    }
}

/// Sends every view in up to five parts, the last one first.
pub(super) struct Shredder<'a, T> {
    pub(super) target: &'a T,
    /// What the parts are aligned to.
    pub(super) align: u64,
    pub(super) seed: &'a Cell<u64>,
}

impl<P: Perms, T: PacketIo<P, u64>> PacketIo<P, u64> for Shredder<'_, T> {
    fn send_io(&self, at: u64, view: View<P>) -> Result<(), Refused<P>> {
        // Fewer parts where the target is small; at last a view as it is.
        let Some(room) = [5, 2].into_iter().find(|&parts| self.target.reserve(parts)) else {
            return self.target.send_io(at, view);
        };
        let (mut parts, mut rest, mut from) = (Vec::new(), view, at);
        while parts.len() + 1 < room {
            let cut = below(self.seed, rest.len() / self.align + 1) * self.align;
            let (part, after) = rest.split_at(cut);
            parts.push((from, part));
            (rest, from) = (after, from + cut);
        }
        parts.push((from, rest));
        for (from, part) in parts.into_iter().rev() {
            let sent = self.target.send_io(from, part);
            assert!(sent.is_ok(), "room for {room} views was reserved, and refused");
        }
        Ok(())
    }

    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.target.poll_ready(cx)
    }
}

/// A backend that nobody drives: for packets that come back by themselves.
pub(super) struct Nobody;

impl IoBackend for Nobody {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        Ok(None)
    }
}
