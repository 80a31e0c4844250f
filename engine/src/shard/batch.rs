//! Reads and writes of many buffers, handed to the shard together.
//!
//! Data flow: [`Batch::push_read`], [`Batch::push_write`] → views, staged → [`Batch::submit`]
//! or a poll: sorted, neighbours joined, accepted as far as there is room → one `enter` →
//! [`Batch::reap`], or awaited as a whole → result and buffer of each entry. The storage is
//! the value itself: no heap, and the headers of packets are recycled.
//!
//! Not here: the order of a batch (`accept`), what a group of neighbours is (`group`).

use std::array::from_fn;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mfio_core::{
    Buffer, Completed, Error, ErrorKind, Packet, PacketIo, Perms, Read, Sent, Spare, Write,
};

use super::Shard;
use super::accept::Turn;
use super::durable::How;
use super::file::{Durable, File};
use super::group::{Staged, StagedView};
use super::timer::Sleep;
use crate::error::{EngineError, IoError};
use crate::ring::{Ring, Wait};

/// An entry that a full [`Batch`] did not take: its buffer.
#[derive(Debug, PartialEq, Eq)]
pub struct Full<B>(pub B);

/// One entry of a [`Batch`] that is over.
#[derive(Debug)]
#[must_use = "an entry may have failed"]
pub struct Reaped<B> {
    /// What the push that made it has returned; free for another push from now on.
    pub index: usize,
    /// Whether every byte was transferred, and else which were (`done_bytes`).
    pub result: Result<(), IoError>,
    /// The buffer that was pushed.
    pub buffer: B,
}

/// The side of an entry that gets the buffer back.
enum Under<B: Buffer<Read> + Buffer<Write>> {
    Read(Sent<Read, B>),
    Write(Sent<Write, B>),
}

struct Entry<B: Buffer<Read> + Buffer<Write>, R: Ring> {
    under: Under<B>,
    file: File<R>,
    offset_bytes: u64,
    durable: bool,
}

impl<B: Buffer<Read> + Buffer<Write>, R: Ring> Entry<B, R> {
    fn is_done(&self) -> bool {
        match &self.under {
            Under::Read(sent) => sent.is_done(),
            Under::Write(sent) => sent.is_done(),
        }
    }

    fn poll_done(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.under {
            Under::Read(sent) => sent.poll_done(cx),
            Under::Write(sent) => sent.poll_done(cx),
        }
    }

    fn abandon(&self) {
        match &self.under {
            Under::Read(sent) if !sent.is_done() => {
                PacketIo::<Read, u64>::abandon(&self.file, sent.packet_id());
            }
            Under::Write(sent) if !sent.is_done() => {
                PacketIo::<Write, u64>::abandon(&self.file, sent.packet_id());
            }
            Under::Read(_) | Under::Write(_) => {}
        }
    }
}

/// Up to `N` reads and writes of owned buffers, on any files of one shard.
///
/// Entries of a batch have no order among themselves: neighbours are joined into one op, and
/// of writes that overlap either may come last. The steps (push, submit, reap) can be mixed as
/// one likes, or be one call: [`Batch::run`], or awaiting `&mut batch`.
///
/// ```
/// # use mfio_core::block_on;
/// # use mfio_engine::{Config, OpenOptions, Shard, ring::threads::ThreadRing};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("pages");
/// # std::fs::write(&path, vec![7; 64 << 10])?;
/// # let shard = Shard::with_ring(ThreadRing::new(2, 64)?, &Config::new())?;
/// # let file = shard.open(&path, &OpenOptions::default())?;
/// let mut batch = shard.batch::<16, _>();
/// for page in [3, 4, 5, 11] {
///     let buffer = shard.arena().alloc(4096).ok_or("the arena is in use")?;
///     batch.push_read(&file, page * 4096, buffer).map_err(|_| "full")?;
/// }
/// block_on(&shard, batch.run())?;
/// while let Some(page) = batch.reap() {
///     page.result?;
///     assert!(page.buffer.iter().all(|&byte| byte == 7));
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// Dropping a batch asks for what is in flight to be stopped; each buffer is freed, or goes
/// back to its arena, when the kernel is through with it. Dropping the future of a batch loses
/// nothing: poll it again.
#[must_use = "nothing is sent before it is submitted or polled"]
pub struct Batch<const N: usize, B: Buffer<Read> + Buffer<Write>, R: Ring> {
    // Dropped before the entries: what was not accepted ends there.
    staged: [Option<Staged>; N],
    entries: [Option<Entry<B, R>>; N],
    /// Where nothing is, the last first.
    free: [u16; N],
    free_len: usize,
    order: [Turn; N],
    staged_len: usize,
    /// The order of the turns is the right one.
    orderly: bool,
    /// Packets without buffers, for the next entries of the same places.
    spares: [Option<Spare>; N],
    /// No entry before it is under way.
    waits_at: usize,
    /// Where the next finished entry is looked for.
    reap_at: usize,
    deadline_ns: Option<u64>,
    sleep: Option<Sleep<R>>,
    timed_out: bool,
    shard: Shard<R>,
}

impl<const N: usize, B: Buffer<Read> + Buffer<Write>, R: Ring> Batch<N, B, R> {
    const FITS: () = assert!(N > 0 && N <= Turn::ENTRIES_MAX, "a batch has 1 to 32768 entries");

    /// An empty batch for the files of `shard`. Allocates nothing.
    pub fn new(shard: &Shard<R>) -> Self {
        const { Self::FITS };
        Self {
            staged: from_fn(|_| None),
            entries: from_fn(|_| None),
            free: from_fn(|at| u16::try_from(N - 1 - at).unwrap_or(0)),
            free_len: N,
            order: [Turn::default(); N],
            staged_len: 0,
            orderly: true,
            spares: from_fn(|_| None),
            waits_at: 0,
            reap_at: 0,
            deadline_ns: None,
            sleep: None,
            timed_out: false,
            shard: shard.clone(),
        }
    }

    /// Entries pushed and not reaped.
    #[must_use]
    pub const fn len(&self) -> usize {
        N - self.free_len
    }

    /// Whether every entry has been reaped.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries pushed and not handed to the shard yet.
    #[must_use]
    pub const fn unsubmitted(&self) -> usize {
        self.staged_len
    }

    /// Entries that are over and not reaped.
    #[must_use]
    pub fn ready(&self) -> usize {
        self.entries.iter().flatten().filter(|entry| entry.is_done()).count()
    }

    /// Stops everything that is not done at `at_ns` of [`Shard::now_ns`], until it is set
    /// again: entries that lose fail as `TimedOut`. Heeded by polls, [`Batch::submit`] and
    /// [`Batch::reap`].
    pub fn set_deadline(&mut self, at_ns: Option<u64>) {
        self.deadline_ns = at_ns;
        self.sleep = None;
        self.timed_out = false;
    }

    /// Adds a read that fills all of `buffer` from byte `offset` of `file` on.
    ///
    /// # Errors
    /// [`Full`] with the buffer: reap first.
    ///
    /// # Panics
    /// When the file is another shard's.
    pub fn push_read(&mut self, file: &File<R>, offset: u64, buffer: B) -> Result<usize, Full<B>> {
        let Some(index) = self.reserve(file) else { return Err(Full(buffer)) };
        let (sent, view) = self.packet::<Read>(index, buffer).send();
        self.enter(index, file, offset, Under::Read(sent), false);
        self.stage(index, file, offset, StagedView::Read(view));
        Ok(index)
    }

    /// Adds a write of all of `buffer` to byte `offset` of `file` on. Not durable before a
    /// [`File::sync`].
    ///
    /// # Errors
    /// [`Full`] with the buffer: reap first.
    ///
    /// # Panics
    /// When the file is another shard's.
    pub fn push_write(&mut self, file: &File<R>, offset: u64, buffer: B) -> Result<usize, Full<B>> {
        let Some(index) = self.reserve(file) else { return Err(Full(buffer)) };
        let (sent, view) = self.packet::<Write>(index, buffer).send();
        self.enter(index, file, offset, Under::Write(sent), false);
        self.stage(index, file, offset, StagedView::Write(view));
        Ok(index)
    }

    /// Adds a write that is over only when it survives power loss. It is never joined with
    /// others, and is handed to the shard at once; the system call is the batch's.
    ///
    /// # Errors
    /// [`Full`] with the buffer: reap first. An entry that the shard has no room for fails as
    /// `Closed` where the shard was shut down, else it is `Full` too.
    ///
    /// # Panics
    /// When the file is another shard's.
    pub fn push_durable_write(
        &mut self,
        file: &File<R>,
        offset: u64,
        buffer: B,
    ) -> Result<usize, Full<B>> {
        if !self.shard.inner.core.borrow().has_room_in(file.class()) {
            return Err(Full(buffer));
        }
        let Some(index) = self.reserve(file) else { return Err(Full(buffer)) };
        let (sent, view) = self.packet::<Write>(index, buffer).send();
        self.enter(index, file, offset, Under::Write(sent), true);
        // There is room, so it is not refused; if it were, its dropped view would say so.
        drop(file.send_io(Durable(offset), view));
        Ok(index)
    }

    fn reserve(&mut self, file: &File<R>) -> Option<usize> {
        let ours = Rc::ptr_eq(&self.shard.inner, &file.shard().inner);
        assert!(ours, "a batch takes files of its own shard");
        self.free_len = self.free_len.checked_sub(1)?;
        Some(usize::from(self.free[self.free_len]))
    }

    /// A packet over `buffer`, for the entry of `index`.
    #[inline]
    fn packet<P: Perms>(&mut self, index: usize, buffer: B) -> Packet<P, B>
    where
        B: Buffer<P>,
    {
        match self.spares[index].take() {
            Some(spare) => spare.fill(buffer),
            None => Packet::new(buffer),
        }
    }

    fn enter(
        &mut self,
        index: usize,
        file: &File<R>,
        offset_bytes: u64,
        under: Under<B>,
        durable: bool,
    ) {
        let file = file.clone();
        self.entries[index] = Some(Entry { under, file, offset_bytes, durable });
        self.waits_at = self.waits_at.min(index);
    }

    fn stage(&mut self, index: usize, file: &File<R>, offset_bytes: u64, view: StagedView) {
        let staged = file.staged(offset_bytes, view, How::PLAIN);
        let (turn, orderly) = Turn::of(&staged, u16::try_from(index).unwrap_or(0));
        self.order[self.staged_len] = turn;
        self.orderly &= orderly;
        self.staged[index] = Some(staged);
        self.staged_len += 1;
    }

    /// Hands every entry to the shard and submits, with one `enter`. Returns how many the
    /// shard has taken over; those it has no room for go with the next call, or poll.
    ///
    /// # Errors
    /// As [`Shard::turn`]; the entries are in the shard's hands all the same.
    pub fn submit(&mut self) -> Result<usize, EngineError> {
        let taken = self.hand_over();
        self.shard.turn(Wait::NONE)?;
        self.check_deadline(&mut Context::from_waker(Waker::noop()));
        Ok(taken)
    }

    /// Lets the shard take over what it has room for.
    fn hand_over(&mut self) -> usize {
        if self.staged_len == 0 {
            return 0;
        }
        let Self { staged, order, staged_len, orderly, shard, .. } = self;
        let before = *staged_len;
        let order = &mut order[..before];
        if *orderly {
            order.sort_unstable();
        } else {
            order.sort_unstable_by_key(|turn| staged[turn.index()].as_ref().map(Staged::key));
        }
        *staged_len = shard.inner.accept(staged, order);
        *orderly |= *staged_len == 0;
        before - *staged_len
    }

    /// Asks for everything that is under way to be stopped, and sends nothing that was not
    /// submitted. Every entry still ends with its own result: done, or `Cancelled`.
    pub fn cancel(&mut self) {
        for staged in &mut self.staged {
            if let Some(staged) = staged.take() {
                staged.fail(ErrorKind::Cancelled.into());
            }
        }
        self.staged_len = 0;
        self.orderly = true;
        for entry in self.entries.iter().flatten() {
            entry.abandon();
        }
    }

    /// Cancels once the deadline has passed.
    fn check_deadline(&mut self, cx: &mut Context<'_>) {
        let Some(at_ns) = self.deadline_ns.filter(|_| !self.timed_out) else { return };
        let Self { sleep, shard, .. } = self;
        let sleep = sleep.get_or_insert_with(|| shard.sleep_until(at_ns));
        if Pin::new(sleep).poll(cx).is_ready() {
            self.sleep = None;
            self.timed_out = true;
            self.cancel();
        }
    }

    /// Takes out an entry that is over, if there is one: without waiting, and without a system
    /// call. Whoever does not await turns the shard meanwhile.
    pub fn reap(&mut self) -> Option<Reaped<B>> {
        if self.deadline_ns.is_some() {
            self.check_deadline(&mut Context::from_waker(Waker::noop()));
        }
        for _ in 0..N {
            let index = self.reap_at;
            self.reap_at = if index + 1 == N { 0 } else { index + 1 };
            if let Some(reaped) = self.take(index) {
                return Some(reaped);
            }
        }
        None
    }

    /// Takes out the entry of `index` if it is over.
    pub fn take(&mut self, index: usize) -> Option<Reaped<B>> {
        let slot = self.entries.get_mut(index)?;
        let entry = slot.take_if(|entry| entry.is_done())?;
        self.free[self.free_len] = u16::try_from(index).unwrap_or(0);
        self.free_len += 1;
        let Entry { under, file, offset_bytes, durable } = entry;
        let spare = &mut self.spares[index];
        let (result, buffer) = match under {
            Under::Read(sent) => outcome(&file, "read", offset_bytes, self.timed_out, sent, spare),
            Under::Write(sent) => {
                let op = if durable { "durable write" } else { "write" };
                outcome(&file, op, offset_bytes, self.timed_out, sent, spare)
            }
        };
        Some(Reaped { index, result, buffer })
    }

    /// Submits everything and waits until every entry is over; [`Batch::reap`] then has the
    /// results. The same as awaiting `&mut batch`.
    pub async fn run(&mut self) {
        self.await;
    }

    fn poll_all(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.check_deadline(cx);
        while self.staged_len > 0 {
            let taken = self.hand_over();
            let blocked = self.staged.iter().position(Option::is_some);
            let Some(entry) = blocked.and_then(|at| self.entries[at].as_ref()) else { break };
            if entry.file.poll_room(cx).is_pending() {
                break;
            }
            if taken == 0 {
                // The room is promised to somebody who has not used it yet.
                cx.waker().wake_by_ref();
                break;
            }
        }
        // Only one entry has a waker, the first that is not over: no wake-ups for nothing.
        while let Some(entry) = self.entries.get_mut(self.waits_at) {
            if let Some(entry) = entry
                && entry.poll_done(cx).is_pending()
            {
                return Poll::Pending;
            }
            self.waits_at += 1;
        }
        self.sleep = None;
        Poll::Ready(())
    }
}

/// What an entry comes to; what is left of its packet goes to `spare`.
#[inline]
fn outcome<P: Perms, B: Buffer<P>, R: Ring>(
    file: &File<R>,
    op: &'static str,
    offset_bytes: u64,
    timed_out: bool,
    sent: Sent<P, B>,
    spare: &mut Option<Spare>,
) -> (Result<(), IoError>, B) {
    let done: Completed<P, B> = sent.into_completed().expect("seen to be over");
    let failed = done.error().map(|error| (error, done.contiguous_bytes()));
    let (buffer, rest) = done.take_apart();
    *spare = Some(rest);
    let Some((error, done_bytes)) = failed else { return (Ok(()), buffer) };
    let late = timed_out && error.kind() == ErrorKind::Cancelled;
    let why = error.errno().unwrap_or(0);
    let error = if late { Error::with_errno(ErrorKind::TimedOut, why) } else { error };
    let len_bytes = buffer.byte_len();
    (Err(file.io_error(op, offset_bytes, len_bytes, done_bytes, error)), buffer)
}

/// Ready when every entry is over. Polling again later is fine.
impl<const N: usize, B: Buffer<Read> + Buffer<Write>, R: Ring> Future for Batch<N, B, R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_all(cx)
    }
}

impl<const N: usize, B: Buffer<Read> + Buffer<Write>, R: Ring> Drop for Batch<N, B, R> {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl<const N: usize, B: Buffer<Read> + Buffer<Write>, R: Ring> fmt::Debug for Batch<N, B, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("len", &self.len())
            .field("unsubmitted", &self.unsubmitted())
            .finish_non_exhaustive()
    }
}

impl<R: Ring> Shard<R> {
    /// An empty batch of up to `N` reads and writes for the files of this shard.
    pub fn batch<const N: usize, B: Buffer<Read> + Buffer<Write>>(&self) -> Batch<N, B, R> {
        Batch::new(self)
    }
}
