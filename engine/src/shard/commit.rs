//! Chains as users build and await them: ordered steps, one result, all buffers back.
//!
//! Data flow: [`File::chain`] → [`Chain`] → [`Chain::commit`] → [`Commit`] → the shard's core →
//! result and [`ChainBuffers`]. Everything lives in the builder and the future: no allocation.
//!
//! Not here: how a chain runs (`chain`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mfio_core::{Error, ErrorKind};

use super::chain_table::{ChainId, Failure, Steps};
use super::file::{Durability, File};
use crate::buffer::ArenaBuf;
use crate::chain::{STEPS_MAX, Step, What};
use crate::error::IoError;
use crate::ring::{OpKind, Ring};

/// Up to [`STEPS_MAX`] steps, each of which starts when the one before is whole. Made by
/// [`File::chain`].
///
/// The steps go down as linked SQEs, so that the kernel goes from one to the next by itself.
/// That saves round trips and is never the proof of anything: a step counts when it and all
/// before it were whole. Where one is short or interrupted, its rest and everything behind it
/// are launched again, also what had succeeded. A chain longer than the submission queue is
/// launched in pieces. A flush is linked only where no other flush of its target is under way,
/// else it shares the next one.
///
/// No completion is kept back (`IOSQE_CQE_SKIP_SUCCESS`): behind a short step, the kernel would
/// keep back those by which one learns that nothing more will run.
///
/// Writes before the first flush of the chain count as sent when the chain is; those behind it
/// when it has succeeded: a [`File::sync`] covers them from then on.
///
/// A submit that the kernel takes only in part (it lacks memory) can start a later step beside
/// an earlier one. The engine notices, trusts none of it and does it again one by one; but until
/// then a power loss may leave a later step without an earlier one.
/// ```
/// # use mfio_core::block_on;
/// # use mfio_engine::{Config, Durability, OpenOptions, Shard, ring::threads::ThreadRing};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let shard = Shard::with_ring(ThreadRing::new(2, 64)?, &Config::new())?;
/// # let options = OpenOptions::new().write(true).create(true);
/// # let file = shard.open(&dir.path().join("data"), &options)?;
/// let mut record = shard.arena().alloc(4096).ok_or("the arena is in use")?;
/// let mut commit_mark = shard.arena().alloc(4096).ok_or("the arena is in use")?;
/// record.fill(7);
/// commit_mark.fill(1);
/// // The mark is written when the record is durable.
/// let chain = file.chain().write_at(4096, record).sync(Durability::Data);
/// let chain = chain.write_at(0, commit_mark).sync(Durability::Data);
/// let (result, mut buffers) = block_on(&shard, chain.commit())?;
/// result?;
/// assert!(buffers.take(0).is_some());
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing happens before the chain is committed and awaited"]
pub struct Chain<R: Ring> {
    file: File<R>,
    steps: Steps,
    count: usize,
    refused: Option<ErrorKind>,
}

impl<R: Ring> File<R> {
    /// Begins a chain of steps on this target.
    #[inline]
    pub fn chain(&self) -> Chain<R> {
        Chain { file: self.clone(), steps: Steps::default(), count: 0, refused: None }
    }
}

impl<R: Ring> Chain<R> {
    fn add(&mut self, what: What, offset_bytes: u64, buffer: Option<ArenaBuf>, len: u64) {
        if self.count == STEPS_MAX {
            self.refused = Some(ErrorKind::OutOfRange);
            return;
        }
        let mut step = Step::new(what, self.file.target(), offset_bytes, len);
        step.buffer = buffer;
        self.steps[self.count] = Some(step);
        self.count += 1;
    }

    /// The following steps go to `file`, which is of the same shard.
    pub fn on(mut self, file: &File<R>) -> Self {
        if !std::rc::Rc::ptr_eq(&self.file.shard().inner, &file.shard().inner) {
            self.refused = Some(ErrorKind::Unsupported);
        }
        self.file = file.clone();
        self
    }

    /// Writes all of `buffer` from byte `offset` on.
    #[inline(always)]
    pub fn write_at(mut self, offset: u64, buffer: ArenaBuf) -> Self {
        let len = buffer.len() as u64;
        self.add(What::Write, offset, Some(buffer), len);
        self
    }

    /// Fills all of `buffer` from byte `offset` on.
    #[inline(always)]
    pub fn read_at(mut self, offset: u64, buffer: ArenaBuf) -> Self {
        let len = buffer.len() as u64;
        self.add(What::Read, offset, Some(buffer), len);
        self
    }

    /// Writes what the step before, a [`Chain::read_at`], has read to byte `offset`.
    pub fn write_from_previous(mut self, offset: u64) -> Self {
        let before = self.count.checked_sub(1).and_then(|at| self.steps[at].as_ref());
        let Some(len) = before.filter(|step| step.what == What::Read).map(|step| step.len_bytes)
        else {
            self.refused = Some(ErrorKind::Unsupported);
            return self;
        };
        self.add(What::WritePrevious, offset, None, len);
        self
    }

    /// Makes the steps before it on this target durable. [`Durability::None`] adds no step.
    #[inline]
    pub fn sync(mut self, durability: Durability) -> Self {
        if durability != Durability::None {
            let all_metadata = durability == Durability::Full;
            self.add(What::Sync { all_metadata }, 0, None, 0);
        }
        self
    }

    /// A step that changes a range without moving memory.
    pub(super) fn range(mut self, kind: OpKind, offset_bytes: u64, len_bytes: u64) -> Self {
        self.add(What::Range(kind), offset_bytes, None, len_bytes);
        self
    }

    /// A step that only a namespace does, with a buffer.
    pub(super) fn command(mut self, what: What, offset_bytes: u64, buffer: ArenaBuf) -> Self {
        self.add(what, offset_bytes, Some(buffer), 0);
        self
    }

    /// Hands the chain over when it is first polled.
    ///
    /// # Errors
    /// Resolves to `(Err, buffers)` with the first step that was not done and why; those before
    /// it were done, of those behind it nothing is known: nothing of them was acknowledged.
    /// Refused before anything is issued: more than [`STEPS_MAX`] steps (`OutOfRange`; buffers of
    /// steps beyond go back to their arena), another
    /// shard's file or a copy without a read (`Unsupported`), a range or memory that the target
    /// does not take (`Misaligned`, `OutOfRange`). A failed flush poisons its target (F37).
    ///
    /// # Cancel safety
    /// Dropping the future cancels what has not started. What has started may or may not be
    /// done. The buffers go back to their arena when the kernel is through with them.
    #[inline]
    pub fn commit(self) -> Commit<R> {
        let Self { file, steps, count, refused } = self;
        Commit { file, steps, count, refused, id: None }
    }
}

impl<R: Ring> fmt::Debug for Chain<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("steps", &self.count).finish_non_exhaustive()
    }
}

/// Which step of a chain failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainError {
    /// The step, counted from 0.
    pub step: usize,
    /// How many steps were done: all before `step`, or none when the chain was refused before
    /// anything of it was issued.
    pub done_steps: usize,
    /// What it was, where, how far it came and why it failed.
    pub io: IoError,
}

impl fmt::Display for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {} of a chain: {}", self.step, self.io)
    }
}

impl std::error::Error for ChainError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.io)
    }
}

/// The buffers of a chain that is over, by step.
#[derive(Debug, Default)]
pub struct ChainBuffers([Option<ArenaBuf>; STEPS_MAX]);

impl ChainBuffers {
    /// Those of `steps`, which are used up.
    fn of(steps: &mut [Option<Step>]) -> Self {
        let mut buffers = Self::default();
        for (buffer, step) in buffers.0.iter_mut().zip(steps) {
            *buffer = step.take().and_then(|step| step.buffer);
        }
        buffers
    }

    /// The buffer of step `step`, counted from 0; `None` when it had none or it was taken.
    pub fn take(&mut self, step: usize) -> Option<ArenaBuf> {
        self.0.get_mut(step)?.take()
    }
}

/// The future of [`Chain::commit`].
#[must_use = "a chain does nothing before it is awaited"]
pub struct Commit<R: Ring> {
    file: File<R>,
    steps: Steps,
    count: usize,
    refused: Option<ErrorKind>,
    id: Option<ChainId>,
}

impl<R: Ring> Commit<R> {
    #[cold]
    fn explain(&self, failure: Failure) -> ChainError {
        let Failure { step: at, done_steps, error, target } = failure;
        let (op, offset_bytes, len_bytes, done_bytes) =
            self.steps.get(at).and_then(Option::as_ref).map_or(("chain", 0, 0, 0), |step| {
                (step.what.name(), step.offset_bytes, step.len_bytes, u64::from(step.reached))
            });
        let io = IoError { op, target, offset_bytes, len_bytes, done_bytes, error };
        ChainError { step: at, done_steps, io }
    }

    /// Hands the chain over, once. Ready with what speaks against it.
    fn send(&mut self, cx: &Context<'_>) -> Poll<Option<Failure>> {
        if let Some(kind) = self.refused {
            let io = self.file.io_error("chain", 0, 0, 0, Error::new(kind));
            let step = self.count.saturating_sub(1);
            return Poll::Ready(Some(Failure {
                step,
                done_steps: 0,
                error: io.error,
                target: io.target,
            }));
        }
        // Cloned while nothing is borrowed: that may run anything.
        let waker = cx.waker().clone();
        let shard = &self.file.shard().inner;
        let mut core = shard.core.borrow_mut();
        let accepted = core.accept_chain(&mut self.steps, self.count);
        let full = matches!(accepted, Ok(None));
        if full && !core.waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
            core.waiting.push(waker);
        }
        let deliver = core.has_news();
        drop(core);
        if deliver {
            shard.deliver();
        }
        match accepted {
            Ok(None) => Poll::Pending,
            Ok(Some(id)) => {
                self.id = Some(id);
                Poll::Ready(None)
            }
            Err(failure) => Poll::Ready(Some(failure)),
        }
    }
}

impl<R: Ring> Future for Commit<R> {
    type Output = (Result<(), ChainError>, ChainBuffers);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.id.is_none() {
            if this.count == 0 && this.refused.is_none() {
                return Poll::Ready((Ok(()), ChainBuffers::default()));
            }
            match this.send(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => {}
                Poll::Ready(Some(failure)) => {
                    let error = this.explain(failure);
                    return Poll::Ready((Err(error), ChainBuffers::of(&mut this.steps)));
                }
            }
        }
        let Some(id) = this.id else { return Poll::Pending };
        // Cloned before and dropped after the shard is borrowed: either may run anything.
        let mut waker = Some(cx.waker().clone());
        let core = &this.file.shard().inner.core;
        let polled = core.borrow_mut().poll_chain(id, &mut waker, &mut this.steps);
        drop(waker);
        let Poll::Ready(result) = polled else { return Poll::Pending };
        this.id = None;
        let result = result.map_err(|failure| this.explain(failure));
        // Polled again, it does nothing: it has no steps left.
        let count = core::mem::take(&mut this.count);
        Poll::Ready((result, ChainBuffers::of(&mut this.steps[..count])))
    }
}

impl<R: Ring> Unpin for Commit<R> {}

impl<R: Ring> Drop for Commit<R> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            let shard = &self.file.shard().inner;
            let waker = shard.core.borrow_mut().abandon_chain(id);
            drop(waker);
            shard.deliver();
        }
    }
}

impl<R: Ring> fmt::Debug for Commit<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commit").field("steps", &self.count).finish_non_exhaustive()
    }
}
