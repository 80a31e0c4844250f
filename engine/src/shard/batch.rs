//! Reads and writes of many buffers, handed to the shard together.
//!
//! Data flow: [`Batch::push_read`], [`Batch::push_write`] → views, staged → [`Batch::submit`]
//! or a poll: sorted, neighbours joined, accepted as far as there is room → one `enter` →
//! [`Batch::reap`], or awaited as a whole → result and buffer of each entry. The storage is
//! the value itself: no heap, and the headers of packets are recycled.
//!
//! Not here: what a group of neighbours is (`group`).

use std::array::from_fn;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mfio_core::{Buffer, Completed, Error, ErrorKind, Packet, PacketIo, Perms, Read, Sent, Write};

use super::Shard;
use super::class::Class;
use super::durable::How;
use super::file::{Durable, File};
use super::group::{Staged, StagedView, Turn};
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
    op: &'static str,
    offset_bytes: u64,
    len_bytes: u64,
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
    const FITS: () = assert!(N > 0 && N <= 1 << 15, "a batch has 1 to 32768 entries");

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
        let (sent, view) = Packet::<Read, _>::new(buffer).send();
        let len = view.len();
        self.enter(index, file, "read", offset, len, Under::Read(sent));
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
        let (sent, view) = Packet::<Write, _>::new(buffer).send();
        let len = view.len();
        self.enter(index, file, "write", offset, len, Under::Write(sent));
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
        let (sent, view) = Packet::<Write, _>::new(buffer).send();
        let len = view.len();
        self.enter(index, file, "durable write", offset, len, Under::Write(sent));
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

    fn enter(
        &mut self,
        index: usize,
        file: &File<R>,
        op: &'static str,
        offset_bytes: u64,
        len_bytes: u64,
        under: Under<B>,
    ) {
        let file = file.clone();
        self.entries[index] = Some(Entry { under, file, op, offset_bytes, len_bytes });
        self.waits_at = self.waits_at.min(index);
    }

    fn stage(&mut self, index: usize, file: &File<R>, offset_bytes: u64, view: StagedView) {
        let staged = file.staged(offset_bytes, view, How::PLAIN);
        let index_of = u16::try_from(index).unwrap_or(0);
        self.order[self.staged_len] = Turn { key: staged.key(), index: index_of };
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
        let Self { staged, order, staged_len, shard, .. } = self;
        let before = *staged_len;
        let order = &mut order[..before];
        order.sort_unstable_by_key(|turn| turn.key);
        *staged_len = shard.inner.accept(staged, order);
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
        let Entry { under, file, op, offset_bytes, len_bytes } = entry;
        let at = (op, offset_bytes, len_bytes);
        let (result, buffer) = match under {
            Under::Read(sent) => outcome(&file, at, self.timed_out, sent),
            Under::Write(sent) => outcome(&file, at, self.timed_out, sent),
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

/// What an entry comes to.
fn outcome<P: Perms, B: Buffer<P>, R: Ring>(
    file: &File<R>,
    (op, offset_bytes, len_bytes): (&'static str, u64, u64),
    timed_out: bool,
    sent: Sent<P, B>,
) -> (Result<(), IoError>, B) {
    let done: Completed<P, B> = sent.into_completed().expect("seen to be over");
    let result = done.result().map_err(|error| {
        let late = timed_out && error.kind() == ErrorKind::Cancelled;
        let why = error.errno().unwrap_or(0);
        let error = if late { Error::with_errno(ErrorKind::TimedOut, why) } else { error };
        file.io_error(op, offset_bytes, len_bytes, done.contiguous_bytes(), error)
    });
    (result, done.into_buffer())
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

impl<R: Ring> super::Inner<R> {
    /// Accepts what `order` names, sorted, of `staged`, as far as there is room; returns how
    /// many are left, which `order` then begins with.
    fn accept(&self, staged: &mut [Option<Staged>], order: &mut [Turn]) -> usize {
        let mut core = self.core.borrow_mut();
        let (mut at, mut left) = (0, 0);
        while at < order.len() {
            let first = &mut staged[usize::from(order[at].index)];
            let next = order.get(at + 1);
            let adjoins = |first: &Staged| next.is_some_and(|next| first.adjoins(next.key));
            let alone = !core.coalesce || !first.as_ref().is_some_and(adjoins);
            if alone && core.accept_straight(first) {
                at += 1;
                continue;
            }
            // What follows may change anything.
            core.credit = 0;
            let room = core.room_in(first.as_ref().map_or(Class::default(), |first| first.class));
            if room == 0 {
                order[left] = order[at];
                (at, left) = (at + 1, left + 1);
                continue;
            }
            let run = if alone { 1 } else { core.run_length(staged, &order[at..]).min(room) };
            let turns = &order[at..at + run];
            let mut parts = turns.iter().filter_map(|turn| staged[usize::from(turn.index)].take());
            if run > 1 {
                core.accept_group(&mut parts);
            } else if let Some(single) = parts.next() {
                core.accept_single(single);
            }
            at += run;
        }
        let news = core.has_news();
        drop(core);
        if news {
            self.deliver();
        }
        left
    }
}
