//! Whatever is done to the views of a packet, in whatever order, by whom and how often they are
//! forwarded: every byte gets exactly one result, and it is the result of what was done to it.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use mfio_core::layer::map::{Extent, Map};
use mfio_core::mem::Mem;
use mfio_core::{
    Absorbed, Buffer, Error, ErrorKind, FailedRange, Fragment, Generated, IoBackend, Packet,
    PacketId, PacketIo, PacketIoExt, Perms, Read, ReadWrite, Refused, Relay, View, Write,
    output_fn,
};
use proptest::prelude::*;

const LEN_MAX: usize = if cfg!(miri) { 30 } else { 64 };
const TAG: u64 = 77;
/// Of packets that stand in for views of the first.
const INNER_TAG: u64 = 5;

/// Takes every view and keeps it, so that a test decides what becomes of it.
struct Keeper<P: Perms> {
    views: RefCell<Vec<View<P>>>,
    abandoned: RefCell<Vec<PacketId>>,
}

impl<P: Perms> Default for Keeper<P> {
    fn default() -> Self {
        Self { views: RefCell::default(), abandoned: RefCell::default() }
    }
}

impl<P: Perms> PacketIo<P, ()> for Keeper<P> {
    fn send_io(&self, (): (), view: View<P>) -> Result<(), Refused<P, ()>> {
        self.views.borrow_mut().push(view);
        Ok(())
    }

    fn abandon(&self, packet: PacketId) {
        self.abandoned.borrow_mut().push(packet);
    }
}

/// A view that another packet stands in for: resolves when that one has its results.
type StandIn<'a, P> = Pin<Box<dyn Future<Output = (Vec<FailedRange>, View<P>)> + 'a>>;

/// What differs between the directions.
trait Way: Perms {
    const PAST_END: ErrorKind;

    /// Transfers the first bytes of the view without any target and gives back the rest.
    fn by_hand(view: View<Self>, bytes: &mut [u8]) -> Option<View<Self>>;

    /// Makes a packet of its own of the view, `copied` or in the same memory.
    fn stand_in(
        keeper: &Keeper<Self>,
        view: View<Self>,
        copied: bool,
    ) -> Result<StandIn<'_, Self>, View<Self>>;
}

impl Way for Read {
    const PAST_END: ErrorKind = ErrorKind::UnexpectedEof;

    fn by_hand(view: View<Self>, bytes: &mut [u8]) -> Option<View<Self>> {
        view.fill_from(bytes)
    }

    fn stand_in(
        keeper: &Keeper<Self>,
        view: View<Self>,
        copied: bool,
    ) -> Result<StandIn<'_, Self>, View<Self>> {
        if copied {
            let packet = Packet::<Self, _>::new(Absorbed(Relay::new(view)));
            return Ok(through(keeper, packet, |relay| relay.0.into_view()));
        }
        let packet = Packet::<Self, _>::new(view.try_alloc(1)?);
        Ok(through(keeper, packet, mfio_core::Lent::into_view))
    }
}

impl Way for Write {
    const PAST_END: ErrorKind = ErrorKind::OutOfRange;

    fn by_hand(view: View<Self>, bytes: &mut [u8]) -> Option<View<Self>> {
        let (part, rest) = view.split_at(bytes.len() as u64);
        part.read_at(0, bytes).unwrap();
        part.written();
        Some(rest)
    }

    fn stand_in(
        keeper: &Keeper<Self>,
        view: View<Self>,
        copied: bool,
    ) -> Result<StandIn<'_, Self>, View<Self>> {
        if copied {
            let packet = Packet::<Self, _>::new(Generated(Relay::new(view)));
            return Ok(through(keeper, packet, |relay| relay.0.into_view()));
        }
        let packet = Packet::<Self, _>::new(view.try_alloc(1)?);
        Ok(through(keeper, packet, mfio_core::Lent::into_view))
    }
}

impl Way for ReadWrite {
    const PAST_END: ErrorKind = ErrorKind::OutOfRange;

    fn by_hand(view: View<Self>, bytes: &mut [u8]) -> Option<View<Self>> {
        let (mut part, rest) = view.split_at(bytes.len() as u64);
        part.exchange_at(0, bytes).unwrap();
        part.exchanged();
        Some(rest)
    }

    /// Copied: by a buffer that is exchanged back, so that bytes that failed in it return where
    /// they were.
    fn stand_in(
        keeper: &Keeper<Self>,
        mut view: View<Self>,
        copied: bool,
    ) -> Result<StandIn<'_, Self>, View<Self>> {
        if !copied {
            let packet = Packet::<Self, _>::new(view.try_alloc(1)?);
            return Ok(through(keeper, packet, mfio_core::Lent::into_view));
        }
        let mut bytes = vec![0; usize::try_from(view.len()).unwrap()];
        view.exchange_at(0, &mut bytes).unwrap();
        let mut packet = Packet::<Self, _>::new(bytes);
        packet.set_tag(INNER_TAG);
        let mut sent = keeper.io((), packet);
        let _pending = poll_once(Pin::new(&mut sent));
        Ok(Box::pin(async {
            let done = sent.await;
            let failed = done.failed_ranges();
            view.exchange_at(0, &mut done.into_buffer()).unwrap();
            (failed, view)
        }))
    }
}

fn through<'a, P: Perms, B: Buffer<P>>(
    keeper: &'a Keeper<P>,
    mut packet: Packet<P, B>,
    into_view: fn(B) -> View<P>,
) -> StandIn<'a, P> {
    packet.set_tag(INNER_TAG);
    let mut sent = keeper.io((), packet);
    let _pending = poll_once(Pin::new(&mut sent));
    Box::pin(async move {
        let done = sent.await;
        let failed = done.failed_ranges();
        (failed, into_view(done.into_buffer()))
    })
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What is done to a view.
#[derive(Clone, Debug)]
enum Act {
    Split(usize),
    Extract(usize, usize),
    /// Transfers some of the first bytes.
    Transfer(usize),
    Fail,
    FailAfter(usize),
    Drop,
    /// Sends the view itself through a layer with holes.
    Layer,
    /// Sends the view itself to a target that is shorter.
    Other,
    /// Sends another packet in its place, whose views are then in everybody's hands too.
    StandIn {
        copied: bool,
    },
    /// Drops the future of a packet that stands in, with its views anywhere.
    Leave,
    /// Asks for the whole packet to be cancelled.
    Cancel,
    /// Lets the targets work.
    Drive,
}

/// Chosen by a number, the simplest first: cheaper than `prop_oneof`, which counts where every
/// step is interpreted.
fn act() -> impl Strategy<Value = Act> {
    (0..22_u8, 0..LEN_MAX, 0..LEN_MAX).prop_map(|(kind, at, len)| match kind {
        0 => Act::Drop,
        1 => Act::Fail,
        2 => Act::FailAfter(at),
        3..=4 => Act::Transfer(at),
        5..=6 => Act::Layer,
        7..=8 => Act::Other,
        9..=12 => Act::Split(at),
        13..=14 => Act::Extract(at, len),
        15..=18 => Act::StandIn { copied: len % 2 == 1 },
        19 => Act::Leave,
        20 => Act::Cancel,
        _ => Act::Drive,
    })
}

#[derive(Clone, Debug)]
struct Case {
    len: usize,
    /// How many views the targets take before they are driven; 0 completes at once.
    depth: usize,
    has_output: bool,
    /// After how many steps the caller leaves.
    leaves_after: Option<usize>,
    /// Which view, and what is done to it.
    steps: Vec<(usize, Act)>,
}

fn case() -> impl Strategy<Value = Case> {
    let steps_max = if cfg!(miri) { 20 } else { 40 };
    let leaves_after = (0..100_usize).prop_map(|step| (step < 25).then_some(step));
    let steps = prop::collection::vec((0..8_usize, act()), 0..steps_max);
    (0..LEN_MAX, 0..4_usize, any::<bool>(), leaves_after, steps).prop_map(
        |(len, depth, has_output, leaves_after, steps)| Case {
            len,
            depth,
            has_output,
            leaves_after,
            steps,
        },
    )
}

/// The places a byte can be transferred from and to: nobody's memory, the target below the
/// layer, the shorter target.
const HAND: usize = 0;
const LAYER: usize = 1;
const OTHER: usize = 2;

/// What each place has at first. No two places have the same byte at the same offset.
fn contents(place: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at + place * LEN_MAX).unwrap()).collect()
}

/// What the packet has at first, unlike any place.
fn payload(len: usize) -> Vec<u8> {
    contents(3, len)
}

/// The place that a byte was transferred with, or why it was not.
type Outcome = Result<usize, Error>;

struct Held<P: Perms> {
    view: View<P>,
    /// Where the packet that it is a view of begins in the first packet.
    base: usize,
    /// Of its packet.
    tag: u64,
}

struct Run<'a, P: Way> {
    keeper: &'a Keeper<P>,
    layer: &'a Map<Mem>,
    other: &'a Mem,
    hand: Vec<u8>,
    views: VecDeque<Held<P>>,
    stand_ins: Vec<(StandIn<'a, P>, Range<usize>)>,
    /// By byte of the packet.
    results: Vec<Option<Outcome>>,
    /// Of stand-ins that were left: whatever became of the bytes, nobody has heard of it.
    left: Vec<Range<usize>>,
}

/// Sends, driving the target while it has no room.
fn send<P: Perms>(target: &(impl PacketIo<P, u64> + IoBackend), at: usize, view: View<P>) {
    let mut refused = target.send_io(at as u64, view).err();
    while let Some(Refused { param, view }) = refused {
        assert_eq!(param, at as u64);
        drive(target);
        refused = target.send_io(param, view).err();
    }
}

fn drive(target: &impl IoBackend) {
    if let Some(backend) = target.get_backend().unwrap() {
        backend.drive().poll_drive(&mut Context::from_waker(Waker::noop()));
    }
}

/// Holes of the layer: two bytes in every eleven.
fn is_hole(at: usize) -> bool {
    at % 11 < 2
}

fn layer(len: usize, depth: usize) -> Map<Mem> {
    let starts = (0..len as u64).step_by(11).map(|start| start + 2);
    let extents = starts.map(|from| Extent { from, len: 9, to: from });
    // The last extent may reach behind the end of the target; no packet does.
    Map::new(mem(contents(LAYER, len), depth), extents.collect()).unwrap()
}

fn mem(bytes: Vec<u8>, depth: usize) -> Mem {
    if depth == 0 { Mem::from(bytes) } else { Mem::polled(bytes, depth) }
}

impl<'a, P: Way> Run<'a, P>
where
    Mem: PacketIo<P, u64>,
    Map<Mem>: PacketIo<P, u64>,
{
    fn note(&mut self, range: Range<usize>, result: impl Fn(usize) -> Outcome) {
        for at in range {
            assert_eq!(self.results[at], None, "the test does two things to byte {at}");
            self.results[at] = Some(result(at));
        }
    }

    /// Does one thing to the view of this number.
    fn act(&mut self, number: usize, act: &Act) {
        let number = number % self.views.len();
        let Held { view, base, tag } = self.views.remove(number).unwrap();
        let start = base + usize::try_from(view.start()).unwrap();
        let len = usize::try_from(view.len()).unwrap();
        assert_eq!(view.tag(), tag);
        let within = |at: usize| at % (len + 1);
        let mut keep = |view| self.views.push_back(Held { view, base, tag });
        match *act {
            Act::Split(at) => {
                let (left, right) = view.split_at(within(at) as u64);
                keep(left);
                keep(right);
            }
            Act::Extract(at, len) => {
                let at = within(at);
                let len = within(len).min(usize::try_from(view.len()).unwrap() - at);
                let (before, middle, after) = view.extract(at as u64, len as u64);
                keep(middle);
                keep(before);
                keep(after);
            }
            Act::Transfer(some) => {
                let range = start..start + within(some);
                let rest = P::by_hand(view, &mut self.hand[range.clone()]);
                rest.into_iter().for_each(keep);
                self.note(range, |_| Ok(HAND));
            }
            Act::Fail => {
                view.fail(Error::os(5));
                self.note(start..start + len, |_| Err(Error::os(5)));
            }
            Act::FailAfter(some) => {
                keep(view.fail_after(within(some) as u64, Error::os(6)));
                self.note(start + within(some)..start + len, |_| Err(Error::os(6)));
            }
            Act::Drop => {
                drop(view);
                self.note(start..start + len, |_| Err(ErrorKind::Aborted.into()));
            }
            Act::Layer => {
                send(self.layer, start, view);
                let hole = Err(ErrorKind::OutOfRange.into());
                self.note(start..start + len, |at| if is_hole(at) { hole } else { Ok(LAYER) });
            }
            Act::Other => {
                let end = self.other.snapshot().len();
                send(self.other, start, view);
                let past = Err(P::PAST_END.into());
                self.note(start..start + len, |at| if at < end { Ok(OTHER) } else { past });
            }
            Act::StandIn { copied } => match P::stand_in(self.keeper, view, copied) {
                Ok(stand_in) => {
                    self.stand_ins.push((stand_in, start..start + len));
                    let view = self.keeper.views.borrow_mut().pop().expect("it was sent");
                    self.views.push_back(Held { view, base: start, tag: INNER_TAG });
                }
                Err(view) => keep(view),
            },
            Act::Leave | Act::Cancel | Act::Drive => keep(view),
        }
    }

    /// Hands back what has stood in and is complete, the last first.
    fn settle(&mut self) {
        loop {
            let before = self.stand_ins.len();
            for number in (0..before).rev() {
                if let Poll::Ready((failed, view)) = poll_once(self.stand_ins[number].0.as_mut()) {
                    drop(self.stand_ins.remove(number));
                    view.settle(&failed);
                }
            }
            if self.stand_ins.len() == before {
                return;
            }
        }
    }

    /// Whether the first packet may be complete: views that are left are perhaps of stand-ins
    /// that nobody waits for.
    fn is_over(&self) -> bool {
        self.views.is_empty() || !self.left.is_empty()
    }

    /// The results as the caller is to see them.
    fn expected(&self) -> Vec<Outcome> {
        let aborted = Err(Error::new(ErrorKind::Aborted));
        // What the test still held when it ended was dropped.
        let mut expected: Vec<_> =
            self.results.iter().map(|result| result.unwrap_or(aborted)).collect();
        for range in &self.left {
            expected[range.clone()].fill(aborted);
        }
        expected
    }
}

fn run<P: Way>(case: &Case) -> Result<(), TestCaseError>
where
    Vec<u8>: Buffer<P>,
    Mem: PacketIo<P, u64>,
    Map<Mem>: PacketIo<P, u64>,
{
    let Case { len, depth, has_output, leaves_after, ref steps } = *case;
    let (layer, other) = (layer(len, depth), mem(contents(OTHER, len * 2 / 3), depth));
    let keeper = Keeper::<P>::default();
    let ended = Arc::new(Mutex::new(Vec::new()));
    let mut packet = Packet::<P, _>::new(payload(len));
    packet.set_tag(TAG);
    if has_output {
        let ended = Arc::clone(&ended);
        packet.set_output(Some(output_fn(move |fragment| ended.lock().unwrap().push(fragment))));
    }
    let mut future = Some(keeper.io((), packet));
    prop_assert!(poll_once(Pin::new(future.as_mut().unwrap())).is_pending());
    let view = keeper.views.borrow_mut().pop().unwrap();
    let id = view.packet_id();
    let mut run = Run {
        keeper: &keeper,
        layer: &layer,
        other: &other,
        hand: contents(HAND, len),
        views: VecDeque::from([Held { view, base: 0, tag: TAG }]),
        stand_ins: Vec::new(),
        results: vec![None; len],
        left: Vec::new(),
    };
    for (step, (number, act)) in steps.iter().enumerate() {
        if run.views.is_empty() {
            break;
        }
        if leaves_after == Some(step) {
            future = None;
            prop_assert!(run.is_over() || keeper.abandoned.borrow().contains(&id));
        }
        run.act(*number, act);
        match act {
            Act::Leave if !run.stand_ins.is_empty() => {
                let number = *number % run.stand_ins.len();
                let (stand_in, range) = run.stand_ins.remove(number);
                drop(stand_in);
                run.left.push(range);
            }
            Act::Cancel => {
                if let Some(future) = &mut future {
                    future.cancel();
                    prop_assert!(run.is_over() || keeper.abandoned.borrow().contains(&id));
                }
            }
            Act::Drive => {
                drive(&layer);
                drive(&other);
            }
            _ => {}
        }
        run.settle();
        if !run.is_over()
            && let Some(future) = &mut future
        {
            prop_assert!(poll_once(Pin::new(future)).is_pending(), "there are views left");
        }
    }
    run.views.clear();
    run.settle();
    let mut done = None;
    let rounds = if depth == 0 { 1 } else { 2 * LEN_MAX };
    for _ in 0..rounds {
        if done.is_none()
            && let Some(future) = &mut future
            && let Poll::Ready(ready) = poll_once(Pin::new(future))
        {
            done = Some(ready);
        }
        if done.is_some() && run.stand_ins.is_empty() {
            break;
        }
        drive(&layer);
        drive(&other);
        run.settle();
    }
    prop_assert!(run.stand_ins.is_empty(), "no view is left that they could wait for");
    let expected = run.expected();
    let hand = run.hand;
    if has_output {
        check_fragments(&ended.lock().unwrap(), &expected)?;
    }
    prop_assert!(future.is_none() || done.is_some(), "no view is left, and it is pending");
    if let Some(done) = done {
        check_failed(&done.failed_ranges(), &expected)?;
        let prefix = expected.iter().take_while(|result| result.is_ok()).count();
        prop_assert_eq!(done.contiguous_bytes(), prefix as u64);
        let places = [hand, layer.targets()[0].snapshot(), other.snapshot()];
        check_bytes::<P>(&done.into_buffer(), &places, &expected)?;
    }
    Ok(())
}

fn check_failed(failed: &[FailedRange], expected: &[Outcome]) -> Result<(), TestCaseError> {
    let mut found = vec![None; expected.len()];
    for range in failed {
        for byte in range.start..range.end {
            let result = &mut found[usize::try_from(byte).unwrap()];
            prop_assert_eq!(*result, None, "two results for byte {}", byte);
            *result = Some(range.error);
        }
    }
    let expected: Vec<_> = expected.iter().map(|result| result.err()).collect();
    prop_assert_eq!(found, expected);
    Ok(())
}

fn check_fragments(ended: &[Fragment], expected: &[Outcome]) -> Result<(), TestCaseError> {
    let mut found = vec![None; expected.len()];
    for fragment in ended {
        prop_assert_eq!((fragment.tag, fragment.packet_bytes), (TAG, expected.len() as u64));
        for byte in fragment.start..fragment.end {
            let result = &mut found[usize::try_from(byte).unwrap()];
            prop_assert_eq!(*result, None, "byte {} was reported twice", byte);
            *result = Some(fragment.error);
        }
    }
    let expected: Vec<_> = expected.iter().map(|result| Some(result.err())).collect();
    prop_assert_eq!(found, expected);
    Ok(())
}

/// Bytes that were transferred are where their direction takes them.
fn check_bytes<P: Way>(
    packet: &[u8],
    places: &[Vec<u8>; 3],
    expected: &[Outcome],
) -> Result<(), TestCaseError> {
    let before = payload(packet.len());
    let at_first = [HAND, LAYER, OTHER].map(|place| contents(place, packet.len()));
    let (fills, takes) = (P::NAME != Write::NAME, P::NAME != Read::NAME);
    for (at, result) in expected.iter().enumerate() {
        let &Ok(place) = result else { continue };
        let brought = if fills { at_first[place][at] } else { before[at] };
        prop_assert_eq!(packet[at], brought, "byte {} of the packet", at);
        let kept = if takes { before[at] } else { at_first[place][at] };
        prop_assert_eq!(places[place][at], kept, "byte {} of place {}", at, place);
    }
    Ok(())
}

proptest! {
    #[test]
    fn reads_tile_whatever_is_done_to_them(case in case()) {
        run::<Read>(&case)?;
    }

    #[test]
    fn writes_tile_whatever_is_done_to_them(case in case()) {
        run::<Write>(&case)?;
    }

    #[test]
    fn exchanges_tile_whatever_is_done_to_them(case in case()) {
        run::<ReadWrite>(&case)?;
    }
}
