//! All whose bytes have moved, or never will, are told so, whatever their wakers do.

use alloc::boxed::Box;
use alloc::task::Wake;
use alloc::vec;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind};

use mfio_core::{IoRead, Packet, PacketIoExt};

use super::*;

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("a waker: this panic belongs to the test");
    }
}

fn poll<F: Future>(future: &mut Pin<Box<F>>, waker: &Waker) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(waker))
}

#[test]
fn reads_that_are_filled_have_their_bytes_whichever_waker_panics() {
    let (one, two) = Duplex::pair(100);
    let mut reads = [(), ()].map(|()| Box::pin(two.read_exact(Whole, vec![0; 4])));
    assert!(poll(&mut reads[0], &Waker::from(Arc::new(Panics))).is_pending());
    assert!(poll(&mut reads[1], Waker::noop()).is_pending());
    let mut write = Box::pin(one.io((), Packet::<Write, _>::new(vec![7; 8])));
    let written = AssertUnwindSafe(|| poll(&mut write, Waker::noop()).is_ready());
    assert!(catch_unwind(written).is_err());
    for read in &mut reads {
        assert_eq!(poll(read, Waker::noop()), Poll::Ready((Ok(()), vec![7; 4])));
    }
    assert!(matches!(poll(&mut write, Waker::noop()), Poll::Ready(done) if done.is_ok()));
}

/// A cable that is pulled, and an end that goes.
#[test]
fn both_directions_end_whichever_waker_panics() {
    for pulled in [true, false] {
        let (one, two) = Duplex::pair(100);
        let pipes = one.breaker();
        // Whoever reads at that end outlives its handle.
        let (own, there) = (&pipes.0[0], &two);
        let (mut ours, view) = Packet::<Read, _>::new(vec![0; 4]).send();
        own.change(|state| state.reads.push_back((view, true)));
        assert!(
            ours.poll_done(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending()
        );
        let mut theirs = Box::pin(there.read_exact(Whole, vec![0; 4]));
        assert!(poll(&mut theirs, Waker::noop()).is_pending());
        let mut one = Some(one);
        let ends = AssertUnwindSafe(|| if pulled { pipes.cut() } else { drop(one.take()) });
        assert!(catch_unwind(ends).is_err());
        assert!(matches!(poll(&mut theirs, Waker::noop()), Poll::Ready((Err(_), _))));
    }
}
