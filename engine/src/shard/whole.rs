//! One buffer to or from a target, whole or failed: what [`File::read_exact_at`] resolves to.
//!
//! Data flow: buffer → packet, of what an earlier one has left if there is any → target → buffer
//! and result; the rest of the packet is kept for the next buffer, with the waker of the task that
//! is likely to send it. So a task that reads again and again neither looks for a packet nor
//! clones its waker.
//!
//! Not here: packets on their way (`file`), what becomes of many (`batch`).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use mfio_core::{Buffer, Completed, IoFut, Packet, PacketIo, PacketIoExt, Perms, Spare};

use super::Inner;
use super::file::File;
use crate::error::IoError;
use crate::ring::Ring;

/// What packets of a shard's tasks have left.
pub(super) struct Spares {
    /// The one that was kept last: a task that goes on at once takes it again.
    last: Cell<Option<Spare>>,
    /// Those before.
    kept: RefCell<Vec<Spare>>,
}

impl Spares {
    /// Room for `most` of them.
    pub(super) fn new(most: usize) -> Self {
        Self { last: Cell::new(None), kept: RefCell::new(Vec::with_capacity(most)) }
    }

    #[inline(always)]
    fn take(&self) -> Option<Spare> {
        self.last.take().or_else(|| self.kept.borrow_mut().pop())
    }

    #[inline(always)]
    fn keep(&self, spare: Spare) {
        if let Some(spare) = self.last.replace(Some(spare)) {
            self.keep_one_more(spare);
        }
    }

    #[inline(never)]
    fn keep_one_more(&self, spare: Spare) {
        let mut kept = self.kept.borrow_mut();
        // Never grown, so that keeping one allocates nothing.
        if kept.len() < kept.capacity() {
            kept.push(spare);
        }
    }
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").field("kept", &self.kept.borrow().len()).finish_non_exhaustive()
    }
}

impl<R: Ring> Inner<R> {
    /// Keeps what a packet has left that `waker` has just been told of. Not where that is anybody
    /// else's than a task's of the shard: kept wakers keep alive what they wake.
    #[inline(always)]
    fn keep_spare(&self, spare: Spare, waker: &Waker) {
        if self.tasks.is_place(waker) {
            self.spares.keep(spare);
        }
    }
}

impl<R: Ring> File<R> {
    /// Moves all of `buffer`, from byte `offset_bytes` on.
    #[inline(always)]
    pub(super) fn whole<P: Perms, B: Buffer<P>>(
        &self,
        op: &'static str,
        offset_bytes: u64,
        buffer: B,
    ) -> Whole<'_, R, P, B>
    where
        Self: PacketIo<P, u64>,
    {
        let len_bytes = buffer.byte_len();
        let packet = match self.shard().inner.spares.take() {
            Some(spare) => spare.fill(buffer),
            None => Packet::new(buffer),
        };
        Whole { io: self.io(offset_bytes, packet), file: self, op, offset_bytes, len_bytes }
    }
}

/// The future of one buffer.
pub(super) struct Whole<'a, R: Ring, P: Perms, B: Buffer<P>>
where
    File<R>: PacketIo<P, u64>,
{
    io: IoFut<'a, File<R>, P, B, u64>,
    file: &'a File<R>,
    op: &'static str,
    offset_bytes: u64,
    len_bytes: u64,
}

impl<R: Ring, P: Perms, B: Buffer<P>> Whole<'_, R, P, B>
where
    File<R>: PacketIo<P, u64>,
{
    #[cold]
    #[inline(never)]
    fn failed(&self, done: Completed<P, B>) -> (Result<(), IoError>, B) {
        self.file.explain(self.op, self.offset_bytes, self.len_bytes, done)
    }
}

impl<R: Ring, P: Perms, B: Buffer<P>> Future for Whole<'_, R, P, B>
where
    File<R>: PacketIo<P, u64>,
{
    type Output = (Result<(), IoError>, B);

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(done) = Pin::new(&mut this.io).poll(cx) else { return Poll::Pending };
        if !done.is_ok() {
            return Poll::Ready(this.failed(done));
        }
        let (buffer, spare) = done.take_apart();
        this.file.shard().inner.keep_spare(spare, cx.waker());
        Poll::Ready((Ok(()), buffer))
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::config::Config;
    use crate::ring::Wait;
    use crate::ring::threads::ThreadRing;
    use crate::shard::Shard;
    use crate::{DirectMode, OpenOptions};

    #[test]
    fn spares_of_tasks_are_kept_and_those_of_strangers_are_not() {
        let shard = Shard::with_ring(ThreadRing::new(1, 4).unwrap(), &Config::new()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let options = OpenOptions::new().write(true).create(true).direct(DirectMode::Buffered);
        let file = shard.open(&directory.path().join("file"), &options).unwrap();
        let kept = || {
            let spares = &shard.inner.spares;
            let last = spares.last.take();
            let count = spares.kept.borrow().len() + usize::from(last.is_some());
            spares.last.set(last);
            count
        };
        {
            let mut stranger = pin!(file.write_all_at(0, vec![3; 64]));
            let mut cx = Context::from_waker(Waker::noop());
            let (result, buffer) = loop {
                if let Poll::Ready(done) = stranger.as_mut().poll(&mut cx) {
                    break done;
                }
                shard.turn(Wait::at_least(1)).unwrap();
            };
            assert!(result.is_ok() && buffer == [3; 64]);
        }
        assert_eq!(kept(), 0);
        for round in 0..3 {
            let read = shard.block_on(file.read_exact_at(16, vec![round; 32])).unwrap();
            assert!(read.0.is_ok() && read.1 == [3; 32]);
            assert_eq!(kept(), 1, "the one that was kept before is in use");
        }
        // A failure has its range, and keeps nothing.
        let (failed, buffer) = shard.block_on(file.read_exact_at(48, vec![9; 32])).unwrap();
        let error = failed.unwrap_err();
        assert_eq!((error.offset_bytes, error.len_bytes, error.done_bytes), (48, 32, 16));
        assert_eq!((kept(), buffer.len()), (0, 32));
        // Two at a time have one each; one that nobody has polled takes its buffer with it.
        let both = async {
            let one = file.read_exact_at(0, vec![0; 8]);
            let other = file.read_exact_at(8, vec![0; 8]);
            drop(file.read_exact_at(0, vec![0; 8]));
            (one.await.0.is_ok(), other.await.0.is_ok())
        };
        assert!(matches!(shard.block_on(both), Ok((true, true))));
        assert_eq!(kept(), 2);
    }
}
