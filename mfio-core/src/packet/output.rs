//! Hearing of each range of a packet as it ends, before the packet is complete.
//!
//! Data flow: view done or failed → [`Output::fragment`] → a callback, or a [`Fragments`] queue
//! that is polled one by one or emptied in batches.
//!
//! Not here: the results of a packet as a whole (`packet`).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::task::{Context, Poll, Waker};

use super::raw::SpinLock;
use crate::error::Error;

/// One range of one packet, and what became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The packet's tag ([`Packet::set_tag`](crate::Packet::set_tag), or the tag of the
    /// completion queue it was sent through).
    pub tag: u64,
    /// First byte, from the start of the packet.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Length of the whole packet in bytes.
    pub packet_bytes: u64,
    /// Why it failed; `None` if it was transferred.
    pub error: Option<Error>,
}

/// Hears of every range that ends, exactly once, from whatever thread ends it.
///
/// Calls come before the packet is complete, so a byte of the range may be looked at only
/// after that. They should be short, and must not block on the packet.
pub trait Output: Send + Sync + 'static {
    /// A packet of `len` bytes is being sent.
    fn begin(&self, len: u64) {
        let _ = len;
    }

    /// A range has ended.
    fn fragment(&self, fragment: Fragment);
}

/// An [`Output`] that calls a function.
///
/// ```
/// use mfio_core::{Packet, PacketIoExt, Read, block_on, mem::Mem, output_fn};
/// let (sender, ended) = std::sync::mpsc::channel();
/// let mut packet = Packet::<Read, _>::new(vec![0; 8]);
/// packet.set_output(Some(output_fn(move |fragment| sender.send(fragment).unwrap())));
/// let target = Mem::from(vec![1; 5]);
/// block_on(&target, target.io(0, packet)).unwrap().result().unwrap_err();
/// let ranges: Vec<_> = ended.iter().map(|f| (f.start, f.end, f.error.is_some())).collect();
/// assert_eq!(ranges, [(0, 5, false), (5, 8, true)]);
/// ```
#[must_use]
pub fn output_fn(call: impl Fn(Fragment) + Send + Sync + 'static) -> Arc<dyn Output> {
    struct Call<F>(F);
    impl<F: Fn(Fragment) + Send + Sync + 'static> Output for Call<F> {
        fn fragment(&self, fragment: Fragment) {
            (self.0)(fragment);
        }
    }
    Arc::new(Call(call))
}

#[derive(Default)]
struct Queued {
    ready: VecDeque<Fragment>,
    /// What has been sent and not ended: bytes, and one for each empty packet.
    outstanding: u64,
    waker: Option<Waker>,
}

/// An [`Output`] that queues the fragments of any number of packets, first ended first out.
#[derive(Clone, Default)]
pub struct Fragments {
    queued: Arc<SpinLock<Queued>>,
}

impl Fragments {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// To be given to packets.
    #[must_use]
    pub fn output(&self) -> Arc<dyn Output> {
        Arc::new(self.clone())
    }

    /// The fragment that ended first; `Ready(None)` when everything sent has ended and been
    /// taken; else `cx` is woken by the next.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Fragment>> {
        // Cloned before and dropped after the lock: either may run anything.
        let mut waker = Some(cx.waker().clone());
        let next = self.queued.with(|queued| match queued.ready.pop_front() {
            Some(fragment) => Poll::Ready(Some(fragment)),
            None if queued.outstanding == 0 => Poll::Ready(None),
            None => {
                core::mem::swap(&mut queued.waker, &mut waker);
                Poll::Pending
            }
        });
        drop(waker);
        next
    }

    /// Moves everything that has ended to the end of `into`, first ended first: one lock for
    /// the whole batch. Allocates only where `into` has no room.
    pub fn take_all(&self, into: &mut Vec<Fragment>) {
        // Room is made outside the lock.
        into.reserve(self.queued.with(|queued| queued.ready.len()));
        let room = into.capacity() - into.len();
        self.queued.with(|queued| {
            let count = queued.ready.len().min(room);
            into.extend(queued.ready.drain(..count));
        });
    }
}

impl Output for Fragments {
    fn begin(&self, len: u64) {
        self.queued.with(|queued| queued.outstanding += len.max(1));
    }

    fn fragment(&self, fragment: Fragment) {
        let ended = fragment.end - fragment.start;
        let waker = self.queued.with(|queued| {
            // An empty packet counts as one; an empty part of a larger one as nothing.
            let empty_packet = u64::from(fragment.packet_bytes == 0);
            queued.outstanding = queued.outstanding.saturating_sub(ended.max(empty_packet));
            queued.ready.push_back(fragment);
            queued.waker.take()
        });
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl fmt::Debug for Fragments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ready, outstanding) = self.queued.with(|q| (q.ready.len(), q.outstanding));
        f.debug_struct("Fragments")
            .field("ready", &ready)
            .field("outstanding", &outstanding)
            .finish()
    }
}
