//! A write-ahead log: records are appended, acknowledged when they survive power loss, and
//! found again, in order and without a gap, by the next open.
//!
//! Appends share blocks: as long as blocks are in flight, records gather in the next one, so
//! one flush acknowledges as many as there is demand for, without a timer to be tuned. Data
//! flow: [`Wal::append`] → open block (registered memory) → durable write → acknowledgement in
//! the order of the records.
//!
//! ```
//! use mfio_core::block_on;
//! use mfio_engine::Shard;
//! use mfio_engine::wal::{SegmentDir, Wal, WalConfig, WalError};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("log");
//! let config = WalConfig { segment_bytes: 1 << 20, ..WalConfig::new() };
//! let shard = Shard::new(64)?;
//! let life = async |entry: &[u8]| {
//!     let mut seen = Vec::new();
//!     // What a record asks is redone here; it may wait for I/O, and fail.
//!     let redo = async |_lsn, record: &[u8]| {
//!         seen.push(record.to_vec());
//!         Ok(())
//!     };
//!     let (wal, _report) = Wal::open(&shard, SegmentDir::new(&path), &config, redo).await?;
//!     wal.append(entry).await?;
//!     Ok::<_, WalError>(seen)
//! };
//! assert!(block_on(&shard, life(b"debit 5"))??.is_empty());
//! assert_eq!(block_on(&shard, life(b"credit 5"))??, [b"debit 5"]);
//! # Ok(())
//! # }
//! ```
//!
//! Not here: what records mean, and where the log may be truncated: its owner knows.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use mfio_core::{BackendBusy, BackendHandle, IoBackend};

use crate::ring::Ring;
use crate::shard::{File, Shard};

mod commit;
mod config;
mod error;
pub mod format;
mod header;
mod recover;
mod relay;
mod segment;
mod shared;
mod sync;
mod waiters;

pub use self::config::{IN_FLIGHT_MAX, WalConfig};
pub use self::error::WalError;
pub use self::format::{Lsn, RecordAlign};
pub use self::recover::{Recovery, Visited};
pub use self::segment::{Growing, PremadeSegments, SegmentDir, SegmentStore};

use self::commit::{Blocked, Ready};
use self::format::SegmentId;
use self::shared::{Shared, Truncation};
use self::waiters::{For, WaiterId};

/// An open log of one shard. A cheap handle; clones are the same log.
///
/// # Cancel safety
/// Dropping the last handle leaves blocks in flight to the shard, which writes them; records
/// that no commit was awaited for are lost.
pub struct Wal<R: Ring> {
    shared: Rc<Shared<R>>,
}

impl<R: Ring> Clone for Wal<R> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<R: Ring> Wal<R> {
    /// Opens the log that the segments of `store` hold, or begins one. Awaits `visit` with each
    /// record, the oldest first, then makes sure that what comes after the last one can never be
    /// read again. Opening twice finds the same; a crash while opening does no harm.
    ///
    /// # Errors
    /// - [`WalError::Config`], [`WalError::NoBuffer`]: limits, of the log or of the arena.
    /// - [`WalError::Directory`], [`WalError::Open`], [`WalError::Mixed`]: of the segments.
    /// - [`WalError::Damaged`]: records are missing that were acknowledged.
    /// - [`WalError::Refused`]: `visit` has failed. Until then nothing is changed.
    ///
    /// # Cancel safety
    /// As a crash while opening.
    pub async fn open(
        shard: &Shard<R>,
        store: impl SegmentStore<R> + 'static,
        config: &WalConfig,
        mut visit: impl AsyncFnMut(Lsn, &[u8]) -> Visited,
    ) -> Result<(Self, Recovery), WalError>
    where
        R: 'static,
    {
        config.validate()?;
        let mut store: Box<dyn SegmentStore<R>> = Box::new(store);
        let (mut state, report) = recover::recover(shard, &mut *store, config, &mut visit).await?;
        // With one segment in reserve from the start, appends find the next one made.
        let reserve = state.config.segments_ready.max(1) + u32::from(state.tail.is_none());
        while state.ready.len() < reserve as usize
            && let Some(making) = store.grow(shard, config.segment_bytes)
        {
            let file = making.await?;
            state.config = recover::aligned(&state.config, std::iter::once(&file))?;
            let salt = store.draw();
            state.ready.push(Ready { file, salt });
        }
        for _ in 0..=state.config.in_flight_max {
            let buffer = recover::buffer(shard, state.config.block_bytes_max)?;
            state.spare.push(mfio_core::Packet::new(buffer));
        }
        state.choose_sync_method().await;
        let shared = Rc::new(Shared::new(shard.clone(), state, store));
        // Without one, where there are no more tasks, leaders must be polled on.
        drop(shard.spawn(relay::stand_by(Rc::downgrade(&shared))));
        Ok((Self { shared }, report))
    }

    /// Appends `record` and resolves to its number when it survives power loss. Records are
    /// numbered in the order in which their futures are first polled.
    ///
    /// # Errors
    /// - [`WalError::RecordTooLong`], [`WalError::Full`], [`WalError::Grow`]: nothing of the
    ///   record was written.
    /// - [`WalError::Poisoned`]: it was not acknowledged and may or may not be found again.
    ///
    /// # Cancel safety
    /// Before the first poll nothing has happened. Dropped later, the record may or may not be
    /// in the log. One that was polled and then is neither polled nor dropped keeps its place in
    /// the queue for room, if it waits there. Where the shard runs no tasks, as [`Shard::turn`]
    /// does not, it may also be the one that works for the others.
    #[must_use = "nothing is appended before the first poll"]
    pub fn append<'a>(&'a self, record: &'a [u8]) -> Append<'a, R> {
        Append { wal: self, record, stage: Stage::New }
    }

    /// Puts `record` into the open block and returns its number, without waiting. It is on its
    /// way when somebody awaits it, or a later one, by [`Wal::commit`] or [`Wal::append`].
    ///
    /// # Errors
    /// As [`Wal::append`], and [`WalError::WouldBlock`]; nothing of the record was written.
    pub fn append_no_wait(&self, record: &[u8]) -> Result<Lsn, WalError> {
        self.check(record)?;
        let mut pushed = self.shared.state.borrow_mut().push(record, None);
        if matches!(pushed, Err(Blocked::Room)) {
            self.shared.reap(None);
            pushed = self.shared.state.borrow_mut().push(record, None);
        }
        // What is left over goes with the next.
        let _all_sent = self.shared.send_sealed();
        self.shared.nudge();
        self.shared.call_wakers();
        pushed.map_err(|blocked| match blocked {
            Blocked::Room => WalError::WouldBlock,
            Blocked::Error(error) => error,
        })
    }

    /// Resolves when every record appended so far survives power loss.
    ///
    /// # Errors
    /// [`WalError::Poisoned`].
    ///
    /// # Cancel safety
    /// As [`Wal::append`].
    #[must_use = "a commit that is not awaited promises nothing"]
    pub fn commit(&self) -> Commit<'_, R> {
        let last = self.shared.state.borrow().next_lsn.previous();
        self.durable(last)
    }

    /// Resolves when record `lsn` and all before it survive power loss. A number that has not
    /// been given out is waited for until it is.
    ///
    /// # Errors
    /// [`WalError::Poisoned`].
    ///
    /// # Cancel safety
    /// As [`Wal::append`].
    #[must_use = "a commit that is not awaited promises nothing"]
    pub fn durable(&self, lsn: Lsn) -> Commit<'_, R> {
        Commit { wal: self, lsn, waiter: None }
    }

    /// The newest record that survives power loss; 0 when there is none.
    #[must_use]
    pub fn durable_lsn(&self) -> Lsn {
        self.shared.state.borrow().durable_lsn
    }

    /// The number of the next record.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.shared.state.borrow().next_lsn
    }

    /// The oldest record that is still there, or would be.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        let state = self.shared.state.borrow();
        let oldest = state.live.front().or(state.tail.as_ref().map(|tail| &tail.segment));
        oldest.map_or(state.next_lsn, |segment| segment.first_lsn)
    }

    /// The longest record in bytes.
    #[must_use]
    pub fn record_bytes_max(&self) -> usize {
        self.shared.state.borrow().config.record_bytes_max()
    }

    /// Blocks sealed since the log was opened: appends divided by this is how many shared one
    /// flush.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.shared.state.borrow().blocks
    }

    /// Why the log takes no more records, if so.
    #[must_use]
    pub fn failure(&self) -> Option<WalError> {
        self.shared.state.borrow().failed.clone()
    }

    /// Gives back the segments in which every record is older than `lsn`: the next open does
    /// not find them, and their files are used again. Never the segment that is appended to,
    /// and none whose successor holds nothing durable. Returns the oldest record left.
    ///
    /// Only one call is at work at a time; another returns at once.
    ///
    /// # Errors
    /// [`WalError::Open`]: a segment could not be marked; it and those after it stay.
    ///
    /// # Cancel safety
    /// A segment is given back whole or not at all; the next call ends what was begun.
    pub async fn truncate_before(&self, lsn: Lsn) -> Result<Lsn, WalError>
    where
        R: 'static,
    {
        let shared = &self.shared;
        if shared.truncating.replace(true) {
            return Ok(self.first_lsn());
        }
        let _ended = Truncation(shared);
        loop {
            let Some((file, id)) = self.retired(lsn) else {
                return Ok(self.first_lsn());
            };
            // Durable before the next one is touched, and before the file is used again: the
            // log on the device has no gap at any time.
            let reusable = shared.mark_free(&file, id).await?;
            let salt = shared.workshop.borrow_mut().store.draw();
            let mut state = shared.state.borrow_mut();
            state.start_sequence = id.sequence + 1;
            let _retired = state.live.pop_front();
            shared.spoilt.set(false);
            if reusable && state.config.fits_into(file.geometry().len_bytes) {
                state.ready.push(Ready { file, salt });
            }
            state.wake_for_room();
            drop(state);
            shared.call_wakers();
        }
    }

    /// The oldest segment, if everything in it is older than `lsn`.
    fn retired(&self, lsn: Lsn) -> Option<(File<R>, SegmentId)> {
        let state = self.shared.state.borrow();
        let oldest = state.live.front()?;
        let next = state.live.get(1).or(state.tail.as_ref().map(|tail| &tail.segment))?;
        if next.first_lsn > lsn || next.first_lsn > state.durable_lsn {
            return None;
        }
        Some((oldest.file.clone(), oldest.id))
    }

    fn check(&self, record: &[u8]) -> Result<(), WalError> {
        let (len_bytes, max_bytes) = (record.len(), self.record_bytes_max());
        if len_bytes > max_bytes {
            return Err(WalError::RecordTooLong { len_bytes, max_bytes });
        }
        Ok(())
    }

    /// One poll of a waiter whose record is in a block.
    fn poll_durable(
        &self,
        id: WaiterId,
        lsn: Lsn,
        arrives: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Lsn, WalError>> {
        let shared = &self.shared;
        if let Some(outcome) = shared.state.borrow().outcome(lsn) {
            return Poll::Ready(outcome.map(|()| lsn));
        }
        shared.attend(id, arrives, cx);
        if let Some(outcome) = shared.state.borrow().outcome(lsn) {
            return Poll::Ready(outcome.map(|()| lsn));
        }
        self.wait(id, cx)
    }

    /// Keeps the waker, if it is not there already.
    fn wait<T>(&self, id: WaiterId, cx: &Context<'_>) -> Poll<T> {
        let shared = &self.shared;
        if !shared.state.borrow().waiters.would_wake(id, cx.waker()) {
            // Cloned and dropped while nothing is borrowed: either may run anything.
            let waker = cx.waker().clone();
            let before = shared.state.borrow_mut().waiters.set_waker(id, waker);
            drop(before);
        }
        Poll::Pending
    }

    /// A waiter is being polled: nobody needs to wake it.
    fn hush(&self, id: WaiterId) {
        let waker = self.shared.state.borrow_mut().waiters.hush(id);
        drop(waker);
    }
}

impl<R: Ring> IoBackend for Wal<R> {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.shared.shard.get_backend()
    }
}

impl<R: Ring> fmt::Debug for Wal<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.state.borrow();
        f.debug_struct("Wal")
            .field("durable_lsn", &state.durable_lsn)
            .field("next_lsn", &state.next_lsn)
            .finish_non_exhaustive()
    }
}

/// How far an append has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    New,
    /// Waits for room.
    Room(WaiterId),
    /// Its record is in a block.
    Durable(WaiterId, Lsn),
    Over,
}

/// The future of [`Wal::append`].
#[must_use = "nothing is appended before the first poll"]
pub struct Append<'a, R: Ring> {
    wal: &'a Wal<R>,
    record: &'a [u8],
    stage: Stage,
}

impl<R: Ring> Append<'_, R> {
    /// Tries to put the record into a block. Ready when there is no point in waiting.
    fn poll_push(&mut self, cx: &mut Context<'_>) -> Poll<Result<Lsn, WalError>> {
        let (wal, record) = (self.wal, self.record);
        let shared = &wal.shared;
        if matches!(self.stage, Stage::New)
            && let Err(error) = wal.check(record)
        {
            return Poll::Ready(Err(error));
        }
        let mut attempts = 0;
        loop {
            let waiter = if let Stage::Room(id) = self.stage { Some(id) } else { None };
            let pushed = shared.state.borrow_mut().push(record, waiter);
            // What is left over is sent by whoever leads.
            let _all_sent = shared.send_sealed();
            let wants = match pushed {
                Ok(lsn) => For::Durable(lsn),
                Err(Blocked::Room) => For::Room(record.len()),
                Err(Blocked::Error(error)) => return Poll::Ready(Err(error)),
            };
            let id = match self.stage {
                Stage::Room(id) => {
                    let mut state = shared.state.borrow_mut();
                    if matches!(wants, For::Durable(_)) {
                        state.waiters.turn_to(id, wants);
                        // It is the next one's turn.
                        state.wake_for_room();
                    }
                    id
                }
                _ => {
                    let waker = cx.waker().clone();
                    shared.state.borrow_mut().waiters.add(wants, waker)
                }
            };
            if let For::Durable(lsn) = wants {
                self.stage = Stage::Durable(id, lsn);
                shared.call_wakers();
                return wal.poll_durable(id, lsn, true, cx);
            }
            self.stage = Stage::Room(id);
            attempts += 1;
            if attempts > 2 {
                return wal.wait(id, cx);
            }
            // Whoever leads may make room by it.
            shared.attend(id, false, cx);
        }
    }

    fn leave(&mut self) {
        if let Stage::Room(id) | Stage::Durable(id, _) = self.stage {
            self.wal.shared.leave(id);
        }
        self.stage = Stage::Over;
    }
}

impl<R: Ring> Future for Append<'_, R> {
    type Output = Result<Lsn, WalError>;

    /// # Panics
    /// When it was ready before.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Stage::Room(id) | Stage::Durable(id, _) = self.stage {
            self.wal.hush(id);
        }
        let polled = match self.stage {
            Stage::New | Stage::Room(_) => self.poll_push(cx),
            Stage::Durable(id, lsn) => self.wal.poll_durable(id, lsn, false, cx),
            Stage::Over => panic!("an append was polled after it was ready"),
        };
        if polled.is_ready() {
            self.leave();
        }
        polled
    }
}

impl<R: Ring> Drop for Append<'_, R> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// The future of [`Wal::commit`] and [`Wal::durable`].
#[must_use = "a commit that is not awaited promises nothing"]
pub struct Commit<'a, R: Ring> {
    wal: &'a Wal<R>,
    lsn: Lsn,
    waiter: Option<WaiterId>,
}

impl<R: Ring> Future for Commit<'_, R> {
    type Output = Result<Lsn, WalError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (wal, lsn) = (self.wal, self.lsn);
        let polled = if let Some(id) = self.waiter {
            wal.hush(id);
            wal.poll_durable(id, lsn, false, cx)
        } else if let Some(outcome) = wal.shared.state.borrow().outcome(lsn) {
            return Poll::Ready(outcome.map(|()| lsn));
        } else {
            let waker = cx.waker().clone();
            let id = wal.shared.state.borrow_mut().waiters.add(For::Durable(lsn), waker);
            self.waiter = Some(id);
            wal.poll_durable(id, lsn, true, cx)
        };
        if polled.is_ready() {
            self.leave();
        }
        polled
    }
}

impl<R: Ring> Commit<'_, R> {
    fn leave(&mut self) {
        if let Some(id) = self.waiter.take() {
            self.wal.shared.leave(id);
        }
    }
}

impl<R: Ring> Drop for Commit<'_, R> {
    fn drop(&mut self) {
        self.leave();
    }
}
