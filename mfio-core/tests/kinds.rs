//! Every kind of packet and every way to hear of its parts.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::cell::RefCell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use mfio_core::mem::Mem;
use mfio_core::{
    Absorbed, AlignedBuf, BlockingError, BlockingRead, BlockingWrite, Completed, Error, ErrorKind,
    FailedRange, Fragment, Fragments, Generated, Inline, Packet, PacketIo, PacketIoExt, Perms,
    Read, ReadWrite, Refused, Relay, Sink, Source, View, Write, block_on, output_fn,
};
use proptest::prelude::*;

/// Takes every view and keeps it, so that a test decides what becomes of it.
struct Keeper<P: Perms>(RefCell<Vec<View<P>>>);

impl<P: Perms> Default for Keeper<P> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<P: Perms> PacketIo<P, ()> for Keeper<P> {
    fn send_io(&self, (): (), view: View<P>) -> Result<(), Refused<P, ()>> {
        self.0.borrow_mut().push(view);
        Ok(())
    }
}

impl<P: Perms> Keeper<P> {
    fn take(&self) -> View<P> {
        self.0.borrow_mut().pop().expect("a view was sent")
    }
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Bytes that know where they are.
struct Counting(u64);

impl Source for Counting {
    fn len(&self) -> u64 {
        self.0
    }
    fn read_at(&self, at: u64, to: &mut [u8]) {
        for (byte, at) in to.iter_mut().zip(at..) {
            *byte = u8::try_from(at % 251).unwrap();
        }
    }
}

/// Takes bytes into shards of seven.
struct Shards(Mutex<Vec<[u8; 7]>>);

impl Sink for Shards {
    fn len(&self) -> u64 {
        self.0.lock().unwrap().len() as u64 * 7
    }
    fn write_at(&self, at: u64, from: &[u8]) {
        let mut shards = self.0.lock().unwrap();
        for (at, byte) in (usize::try_from(at).unwrap()..).zip(from) {
            shards[at / 7][at % 7] = *byte;
        }
    }
}

#[test]
fn generated_bytes_are_written_and_sharded_bytes_are_read() {
    let target = Mem::from(vec![0; 700]);
    let packet = Packet::<Write, _>::new(Generated(Counting(700)));
    assert!(block_on(&target, target.io(0, packet)).unwrap().is_ok());
    let expected: Vec<u8> = (0..700_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    assert_eq!(target.snapshot(), expected);
    let sink = Absorbed(Shards(Mutex::new(vec![[0; 7]; 10])));
    let done = block_on(&target, target.io(100, Packet::<Read, _>::new(sink))).unwrap();
    let shards = done.into_buffer().0.0.into_inner().unwrap();
    assert_eq!(shards.concat(), expected[100..170]);
}

#[test]
fn complex_packets_have_no_address_and_can_be_split() {
    let keeper = Keeper::<Write>::default();
    let mut future = pin!(keeper.io((), Packet::<Write, _>::new(Generated(Counting(10)))));
    assert!(poll_once(future.as_mut()).is_pending());
    let view = keeper.take().try_alloc(1).expect_err("nothing to lend");
    let (left, right) = view.split_at(4);
    let mut bytes = [0; 3];
    right.read_at(2, &mut bytes).unwrap();
    assert_eq!(bytes, [6, 7, 8]);
    right.fail(Error::os(5));
    left.written();
    let Poll::Ready(done) = poll_once(future) else { panic!("both parts are over") };
    assert_eq!(done.contiguous_bytes(), 4);
}

#[test]
fn exchange_swaps_packet_and_target() {
    let target = Mem::from((0..=255).collect::<Vec<u8>>().repeat(4));
    let packet = Packet::<ReadWrite, _>::new(vec![0xff; 900]);
    let done = block_on(&target, target.io(100, packet)).unwrap();
    assert!(done.is_ok());
    let before: Vec<u8> = (0..=255).collect::<Vec<u8>>().repeat(4);
    assert_eq!(done.into_buffer(), before[100..1000]);
    let after = target.snapshot();
    assert_eq!((&after[..100], &after[100..1000]), (&before[..100], &[0xff; 900][..]));
}

/// Short values are in the header, where others write while the packet is under way.
#[test]
fn short_inline_values_are_filled_written_and_exchanged_in_place() {
    for target in [Mem::from(vec![9; 16]), Mem::polled(vec![9; 16], 2)] {
        let packet = Packet::<Read, _>::new(Inline(0_u64));
        let done = block_on(&target, target.io(0, packet)).unwrap();
        assert_eq!(done.into_buffer(), Inline(0x0909_0909_0909_0909));
        let packet = Packet::<Write, _>::new(Inline([1_u8, 2]));
        assert!(block_on(&target, target.io(2, packet)).unwrap().is_ok());
        let packet = Packet::<ReadWrite, _>::new(Inline([7_u8; 3]));
        let done = block_on(&target, target.io(1, packet)).unwrap();
        assert_eq!(done.into_buffer(), Inline([9, 1, 2]));
        assert_eq!(target.snapshot()[..5], [9, 7, 7, 7, 9]);
    }
}

#[test]
fn large_inline_values_are_boxed_and_aligned_buffers_are_aligned() {
    let target = Mem::from(vec![9; 256]);
    let packet = Packet::<Read, _>::new(Inline([0_u8; 200]));
    let done = block_on(&target, target.io(0, packet)).unwrap();
    assert_eq!(done.into_buffer().0, [9; 200]);
    for align in [1, 512, 4096, 65_536] {
        let packet = Packet::<Read, _>::new(AlignedBuf::new(200, align));
        let buffer = block_on(&target, target.io(0, packet)).unwrap().into_buffer();
        assert_eq!((buffer.as_ptr().addr() % align, &buffer[..]), (0, &[9; 200][..]));
    }
}

/// C24: sizes are checked, not wrapped.
#[test]
#[should_panic(expected = "the size overflows")]
fn c24_buffer_size_that_overflows_is_refused() {
    drop(AlignedBuf::new(usize::MAX, 4096));
}

/// C5: bytes that no read has brought are not shown.
#[test]
fn c05_only_the_prefix_that_was_read_is_shown() {
    let target = Mem::from(vec![1; 3]);
    let packet = Packet::<Read, _>::new(vec![0xee; 8]);
    let done = block_on(&target, target.io(0, packet)).unwrap();
    assert_eq!(done.bytes(), [1; 3]);
}

/// C8: a packet that is not under way is ready at once.
#[test]
fn c08_empty_packet_is_complete_and_awaiting_it_ends() {
    let target = Mem::from(vec![1; 3]);
    let done = block_on(&target, target.io(0, Packet::<Read, _>::new(vec![]))).unwrap();
    assert!(done.is_ok() && done.bytes().is_empty());
}

/// C10: who hears of a range hears of it before the packet is complete.
#[test]
fn c10_output_is_told_before_the_packet_is_complete() {
    let keeper = Keeper::<Read>::default();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let ended = Arc::clone(&seen);
    let mut packet = Packet::<Read, _>::new(vec![0; 8]);
    packet.set_tag(7);
    packet.set_output(Some(output_fn(move |fragment| ended.lock().unwrap().push(fragment))));
    let mut future = pin!(keeper.io((), packet));
    assert!(poll_once(future.as_mut()).is_pending());
    let view = keeper.take();
    assert_eq!(view.tag(), 7);
    let (before, middle, after) = view.extract(2, 3);
    middle.fail(Error::os(5));
    assert!(poll_once(future.as_mut()).is_pending());
    before.filled();
    drop(after);
    let ends = seen.lock().unwrap().clone();
    assert!(poll_once(future).is_ready());
    let part = |start, end, error| Fragment { tag: 7, start, end, packet_bytes: 8, error };
    let aborted = Some(Error::new(ErrorKind::Aborted));
    assert_eq!(ends, [part(2, 5, Some(Error::os(5))), part(0, 2, None), part(5, 8, aborted)]);
}

/// C11: first ended, first out, and the end only after the last.
#[test]
fn c11_fragments_come_in_order_and_none_is_lost() {
    let keeper = Keeper::<Read>::default();
    let fragments = Fragments::new();
    let mut futures: Vec<_> = (0..4)
        .map(|tag| {
            let mut packet = Packet::<Read, _>::new(vec![0; 6]);
            packet.set_tag(tag);
            packet.set_output(Some(fragments.output()));
            Box::pin(keeper.io((), packet))
        })
        .collect();
    for future in &mut futures {
        assert!(poll_once(future.as_mut()).is_pending());
    }
    let mut cx = Context::from_waker(Waker::noop());
    assert!(fragments.poll_next(&mut cx).is_pending());
    let views = keeper.0.take();
    let worker = std::thread::spawn(move || {
        for view in views {
            let (left, right) = view.split_at(2);
            right.filled();
            left.filled();
        }
    });
    let mut ended = Vec::new();
    let none = Mem::default();
    while let Some(fragment) =
        block_on(&none, std::future::poll_fn(|cx| fragments.poll_next(cx))).unwrap()
    {
        ended.push((fragment.tag, fragment.start));
        let mut batch = Vec::new();
        fragments.take_all(&mut batch);
        ended.extend(batch.iter().map(|fragment| (fragment.tag, fragment.start)));
    }
    worker.join().unwrap();
    let expected: Vec<_> = (0..4).flat_map(|tag| [(tag, 2), (tag, 0)]).collect();
    assert_eq!(ended, expected);
}

proptest! {
    /// C12: through another backend and back, every byte has exactly the result it had there.
    #[test]
    fn c12_rebound_view_settles_every_byte_once(
        len in 0_u64..40,
        cuts in prop::collection::vec((0_u64..50, 0_u64..50), 0..4),
        copied: bool,
    ) {
        let mut failed: Vec<FailedRange> = Vec::new();
        for (start, size) in cuts {
            let after = failed.last().map_or(0, |range: &FailedRange| range.end);
            let (start, end) = ((after + start).min(len), (after + start + size).min(len));
            failed.push(FailedRange { start, end, error: Error::os(5) });
        }
        let keeper = Keeper::<Read>::default();
        let packet = Packet::<Read, _>::new(vec![0; usize::try_from(len).unwrap()]);
        let mut future = pin!(keeper.io((), packet));
        prop_assert!(poll_once(future.as_mut()).is_pending());
        let view = keeper.take();
        let target = Mem::from(vec![3; usize::try_from(len).unwrap()]);
        let view = if copied {
            let other = Packet::<Read, _>::new(Absorbed(Relay::new(view)));
            let done = block_on(&target, target.io(0, other)).unwrap();
            done.into_buffer().0.into_view()
        } else {
            let other = Packet::<Read, _>::new(view.try_alloc(1).unwrap());
            block_on(&target, target.io(0, other)).unwrap().into_buffer().into_view()
        };
        view.settle(&failed);
        let Poll::Ready(done) = poll_once(future) else { panic!("settled") };
        let bytes = |ranges: &[FailedRange]| {
            ranges.iter().flat_map(|range| range.start..range.end).collect::<Vec<_>>()
        };
        prop_assert_eq!(bytes(&done.failed_ranges()), bytes(&failed));
        prop_assert_eq!(done.into_buffer(), vec![3; usize::try_from(len).unwrap()]);
    }
}

#[test]
fn cancelled_packet_gives_its_buffer_back_with_what_happened() {
    let keeper = Keeper::<Read>::default();
    let mut future = keeper.io((), Packet::<Read, _>::new(vec![1; 8]));
    assert!(poll_once(Pin::new(&mut future)).is_pending());
    future.cancel();
    assert!(poll_once(Pin::new(&mut future)).is_pending(), "the backend still has it");
    keeper.take().fail(ErrorKind::Cancelled);
    let Poll::Ready(done) = poll_once(Pin::new(&mut future)) else { panic!("it is over") };
    assert_eq!(done.error(), Some(Error::new(ErrorKind::Cancelled)));
    assert_eq!(done.into_buffer(), [1; 8]);
}

/// C19, C21: blocking calls work on any handle, and an error is never a count of 0.
#[test]
fn c21_blocking_twins_read_and_write_the_callers_own_bytes() {
    for target in [Mem::from(vec![0; 16]), Mem::polled(vec![0; 16], 4)] {
        target.blocking_write_exact(4, b"hello").unwrap();
        target.blocking_write_value(12, 0x0102_0304_u32).unwrap();
        let mut bytes = [0; 5];
        target.blocking_read_exact(4, &mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        assert_eq!(target.blocking_read_value::<u32>(12), Ok(0x0102_0304));
        assert_eq!(target.blocking_read_some(14, &mut bytes), Ok(2));
        assert_eq!(target.blocking_read_some(16, &mut bytes), Ok(0));
        let error = Error::new(ErrorKind::UnexpectedEof);
        assert_eq!(
            target.blocking_read_exact(14, &mut bytes),
            Err(BlockingError::Failed { done_bytes: 2, error })
        );
        assert!(target.blocking_write_exact(20, b"x").is_err());
        let busy = block_on(&target, async { target.blocking_read_value::<u8>(0) }).unwrap();
        assert!(busy == Ok(0) || busy == Err(BlockingError::Busy));
    }
}

#[test]
fn blocking_call_waits_for_a_backend_that_needs_no_driving() {
    struct Slow(Mutex<Vec<std::thread::JoinHandle<()>>>);
    impl PacketIo<Read, ()> for Slow {
        fn send_io(&self, (): (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
            let worker = std::thread::spawn(move || {
                std::thread::yield_now();
                drop(view.fill_from(&[5; 4]));
            });
            self.0.lock().unwrap().push(worker);
            Ok(())
        }
    }
    impl mfio_core::IoBackend for Slow {
        fn get_backend(
            &self,
        ) -> Result<Option<mfio_core::BackendHandle<'_>>, mfio_core::BackendBusy> {
            Ok(None)
        }
    }
    let slow = Slow(Mutex::default());
    let mut bytes = [0; 4];
    slow.blocking_read_exact((), &mut bytes).unwrap();
    assert_eq!(bytes, [5; 4]);
    for worker in slow.0.into_inner().unwrap() {
        worker.join().unwrap();
    }
}

fn _packets_of_every_kind_are_send() {
    fn is_send<T: Send>() {}
    is_send::<Packet<Read, Vec<u8>>>();
    is_send::<Packet<Write, Generated<Counting>>>();
    is_send::<Completed<ReadWrite, Inline<u64>>>();
    is_send::<View<Read>>();
}

/// The ends of such views do not fit in the word that the others keep them in.
#[test]
fn views_of_a_packet_of_a_tebibyte_have_exact_ends_at_every_split() {
    struct Endless;
    impl Sink for Endless {
        fn len(&self) -> u64 {
            1 << 40
        }
        fn write_at(&self, _: u64, _: &[u8]) {}
    }
    const NARROW: u64 = 1 << 31;
    let keeper = Keeper::default();
    let mut packet = Packet::<Read, _>::new(Absorbed(Endless));
    for _ in 0..2 {
        let mut future = pin!(keeper.io((), packet));
        assert!(poll_once(future.as_mut()).is_pending());
        let (left, right) = keeper.take().split_at(NARROW - 1);
        let (low, middle) = left.split_at(NARROW / 2);
        let (high, last) = right.split_at(3);
        let ends = [&low, &middle, &high, &last].map(|view| (view.start(), view.len()));
        assert_eq!(ends[..2], [(0, NARROW / 2), (NARROW / 2, NARROW / 2 - 1)]);
        assert_eq!(ends[2..], [(NARROW - 1, 3), (NARROW + 2, (1 << 40) - NARROW - 2)]);
        high.fail(ErrorKind::OutOfRange);
        for view in [low, middle, last] {
            view.filled();
        }
        let Poll::Ready(done) = poll_once(future) else { panic!("every view is gone") };
        let failed = done.failed_ranges();
        assert_eq!((failed.len(), failed[0].start, failed[0].end), (1, NARROW - 1, NARROW + 2));
        packet = done.into_packet();
    }
}
