//! Flushes: when one is due, whom its success acknowledges, and what its failure poisons.
//!
//! At most one flush per file is in flight on a shard, and requests that come meanwhile share the
//! next one. Data flow: request → barrier clear → flush op → completion → requests answered.
//!
//! Not here: the barrier's counting (`barrier`), linking a flush to a write (`issue`).

use std::task::{Poll, Waker};

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use super::barrier::Epoch;
use super::body::Body;
use super::chain_table::ChainId;
use super::core::{Core, Ending};
use super::durable;
use super::slot::{Behind, FlushOp, Linked, Occupant, Transfer};
use crate::complete::{self, EAGAIN_RETRIES_MAX, Verdict};
use crate::ring::{Knob, Plant, Ring, Tag};

/// Somebody waits for a flush that covers everything up to `epoch`.
#[derive(Debug)]
pub(crate) struct FlushRequest {
    pub(crate) epoch: Epoch,
    pub(crate) all_metadata: bool,
    pub(crate) waiter: Waiter,
}

/// Who waits for a flush.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A call of `File::sync`.
    Ticket(TicketId),
    /// A durable write, written and not yet acknowledged.
    Write(WrittenBody),
    /// A step of a chain.
    Chain(ChainId),
}

/// The user's bytes of a durable write that is whole.
#[derive(Debug)]
pub(crate) struct WrittenBody(pub(super) Option<Body>);

/// What a call of `File::sync` comes to.
type SyncPoll = Poll<Result<(), Error>>;

/// Names one call of `File::sync`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TicketId {
    at: usize,
    generation: u32,
}

#[derive(Debug)]
enum Ticket {
    Free,
    Pending(Option<Waker>),
    Answered(Result<(), Error>),
}

/// The calls of `File::sync` whose answer somebody waits for.
///
/// Wakers that are replaced or no longer needed are handed out, to be dropped when nothing is
/// borrowed: dropping one may run anything.
#[derive(Debug, Default)]
pub(super) struct Tickets {
    table: Vec<(u32, Ticket)>,
    free: Vec<usize>,
    pending: usize,
}

impl Tickets {
    pub(super) fn open(&mut self) -> TicketId {
        self.pending += 1;
        let at = self.free.pop().unwrap_or_else(|| {
            self.table.push((0, Ticket::Free));
            self.table.len() - 1
        });
        self.table[at].1 = Ticket::Pending(None);
        TicketId { at, generation: self.table[at].0 }
    }

    fn find(&mut self, id: TicketId) -> Option<&mut Ticket> {
        let (generation, ticket) = self.table.get_mut(id.at)?;
        (*generation == id.generation).then_some(ticket)
    }

    fn close(&mut self, id: TicketId) {
        self.table[id.at] = (id.generation.wrapping_add(1), Ticket::Free);
        self.free.push(id.at);
    }

    /// Calls that have not been answered.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// Whether somebody waits for the answer.
    fn is_awaited(&mut self, id: TicketId) -> bool {
        self.find(id).is_some()
    }

    fn answer(&mut self, id: TicketId, result: Result<(), Error>) -> Option<Waker> {
        match std::mem::replace(self.find(id)?, Ticket::Answered(result)) {
            Ticket::Pending(waker) => {
                self.pending -= 1;
                waker
            }
            Ticket::Free | Ticket::Answered(_) => unreachable!("a request is answered once"),
        }
    }

    /// The answer; or `waker`, which is called when there is one, is exchanged for the last.
    pub(super) fn poll(&mut self, id: TicketId, waker: &mut Option<Waker>) -> SyncPoll {
        let closed = Err(Error::new(ErrorKind::Closed));
        let Some(ticket) = self.find(id) else { return Poll::Ready(closed) };
        match ticket {
            Ticket::Answered(result) => {
                let result = *result;
                self.close(id);
                Poll::Ready(result)
            }
            Ticket::Pending(waiting) => {
                std::mem::swap(waiting, waker);
                Poll::Pending
            }
            Ticket::Free => Poll::Ready(closed),
        }
    }

    /// The caller has gone; the flush itself goes on.
    pub(super) fn abandon(&mut self, id: TicketId) -> Option<Waker> {
        let ticket = std::mem::replace(self.find(id)?, Ticket::Free);
        self.close(id);
        let Ticket::Pending(waker) = ticket else { return None };
        self.pending -= 1;
        waker
    }
}

impl<R: Ring> Core<R> {
    /// Asks for a flush that covers everything accepted so far.
    pub(super) fn request_flush(&mut self, target: u32, all_metadata: bool, waiter: Waiter) {
        let entry = self.targets.get_mut(target);
        if let Some(error) = entry.poison_error() {
            return self.answer(target, waiter, Err(error));
        }
        let epoch = entry.barrier.close_epoch();
        self.drop_unawaited_requests(target);
        self.targets.push_request(target, FlushRequest { epoch, all_metadata, waiter });
    }

    /// Calls whose callers have left need no flush of their own where a later one is asked
    /// for: without this, dropping many would fill the shard.
    fn drop_unawaited_requests(&mut self, target: u32) {
        while let Some(request) = self.targets.get(target).requests.back()
            && let Waiter::Ticket(id) = request.waiter
            && !self.tickets.is_awaited(id)
        {
            self.targets.drop_last_request(target, &mut self.ring);
        }
    }

    pub(super) fn answer(&mut self, target: u32, waiter: Waiter, result: Result<(), Error>) {
        // After a failure, the target may have gone.
        let counts = result.is_ok() && !self.targets.get(target).scratch;
        self.metrics.durable_acknowledged += u64::from(counts);
        match (waiter, result) {
            (Waiter::Ticket(id), result) => {
                self.endings.extend(self.tickets.answer(id, result).map(Ending::Wake));
            }
            (Waiter::Chain(id), result) => self.chain_flushed(id, result),
            (Waiter::Write(WrittenBody(body)), Ok(())) => {
                self.done.extend(body);
            }
            (Waiter::Write(WrittenBody(body)), Err(error)) => {
                self.endings.extend(body.map(|body| Ending::Failed(body, error)));
            }
        }
    }

    /// Issues every flush whose writes are whole. Begins behind the target that had the last
    /// one: of two handles of a file, neither can keep the other from being flushed.
    #[cold]
    pub(super) fn issue_flushes(&mut self) {
        for target in self.targets.in_turn() {
            if self.slots.free() == 0 {
                return;
            }
            if self.targets.exists(target) {
                self.issue_flush(target);
            }
        }
    }

    fn issue_flush(&mut self, target: u32) {
        let early = self.ring.plant(Plant::FlushEarly);
        if durable::must_wait(&self.targets, &mut self.slots, target) {
            return;
        }
        let entry = self.targets.get(target);
        if let Some(error) = entry.poison_error() {
            // By a flush of another handle.
            if entry.requests.is_empty() {
                return;
            }
            self.refuse_flushes(target, error);
            // Room has appeared, of which no completion tells, and nobody else where those who
            // asked have left. A shard that has news does not sleep before it has looked at the
            // messages that wait for room (F28).
            return self.endings.push(Ending::Wake(Waker::noop().clone()));
        }
        if self.in_flight > 0 && self.ring.knob(Knob::HoldFlush, 0) != 0 {
            return;
        }
        let most = self.ring.knob(Knob::SharedFlush, usize::MAX);
        let due = |request: &&FlushRequest| early || entry.barrier.is_clear(request.epoch);
        let mut all_metadata = false;
        let mut covered = None;
        for request in entry.requests.iter().take(most).take_while(due) {
            all_metadata |= request.all_metadata;
            covered = Some(request.epoch);
        }
        let (Some(epoch), true) = (covered, self.ring.reserve(1)) else { return };
        self.targets.retain(target);
        self.targets.flushed_last = target;
        let entry = self.targets.get_mut(target);
        entry.flush_in_flight = true;
        let behind = Behind::Requests(epoch);
        let flush = FlushOp::new(target, all_metadata, behind);
        let tag = self.slots.occupy_other(Occupant::Flush(flush));
        self.push_flush(target, all_metadata, tag);
    }

    #[cold]
    pub(super) fn complete_flush(&mut self, tag: Tag, result: i32) {
        let Some(Occupant::Flush(flush)) = self.slots.find(tag) else { return };
        let (target, behind, retries) = (flush.target, flush.behind, flush.retries);
        let all_metadata = flush.all_metadata;
        let is_follower = !matches!(behind, Behind::Requests(_));
        let mut verdict = complete::flush(result, is_follower);
        let retries_failed =
            matches!(verdict, Verdict::Fail(_)) && self.ring.plant(Plant::FsyncRetry);
        if verdict == Verdict::Fail(Errno::ECANCELED) || retries_failed {
            // Cancelled before it started, by a shutdown or a signal: nothing was flushed.
            verdict = Verdict::Retry { force_async: false };
        }
        if matches!(verdict, Verdict::Retry { .. }) && matches!(behind, Behind::Requests(_)) {
            if retries < EAGAIN_RETRIES_MAX && !self.closing {
                flush.retries += 1;
                self.metrics.retries += 1;
                return self.issue_flush_again(tag);
            }
            if self.closing {
                return self.flush_stopped(tag, target);
            }
            verdict = if result == -(Errno::ECANCELED as i32) {
                self.flush_in_place(target, all_metadata)
            } else {
                Verdict::Fail(Errno::EAGAIN)
            };
        }
        let entry = self.targets.get_mut(target);
        entry.flush_in_flight = false;
        if entry.scratch {
            self.slots.forget_time(tag);
        }
        self.slots.vacate(tag);
        match verdict {
            Verdict::Done => self.flush_succeeded(target, behind, tag),
            Verdict::Fail(errno) => self.flush_failed(target, behind, tag, errno),
            _ => self.flush_did_not_run(behind, tag),
        }
        self.targets.release(target, &mut self.ring);
    }

    /// The shard closes, and its flush was stopped before it started. Nothing has failed that
    /// other handles of the file would have to know of.
    fn flush_stopped(&mut self, tag: Tag, target: u32) {
        self.slots.vacate(tag);
        self.targets.get_mut(target).flush_in_flight = false;
        self.refuse_flushes(target, ErrorKind::Closed.into());
        self.targets.release(target, &mut self.ring);
    }

    fn issue_flush_again(&mut self, tag: Tag) {
        let Some(Occupant::Flush(flush)) = self.slots.find(tag) else { return };
        let (target, all_metadata) = (flush.target, flush.all_metadata);
        if self.ring.reserve(1) {
            return self.push_flush(target, all_metadata, tag);
        }
        // No room at the moment: the requests are still queued, so another flush will come.
        self.slots.vacate(tag);
        self.targets.get_mut(target).flush_in_flight = false;
        self.targets.release(target, &mut self.ring);
    }

    fn flush_succeeded(&mut self, target: u32, behind: Behind, tag: Tag) {
        match behind {
            Behind::Requests(epoch) => {
                let covered = |core: &Self| {
                    let first = core.targets.get(target).requests.front();
                    first.is_some_and(|request| request.epoch <= epoch)
                };
                // Another handle of the file may have been told of a failure that this flush
                // was not told of.
                let poison = self.targets.get(target).poison_error();
                while covered(self)
                    && let Some(request) = self.targets.pop_request(target, &mut self.ring)
                {
                    self.answer(target, request.waiter, poison.map_or(Ok(()), Err));
                }
            }
            Behind::Write(_) => {
                let Some((write, transfer)) = self.linked_write(behind, tag) else { return };
                transfer.linked = Linked::Flushed;
                if transfer.whole {
                    self.acknowledge(write);
                }
            }
        }
    }

    /// The first failed flush poisons the target: whatever it covered may be lost, and a
    /// second flush would succeed without writing it (F37).
    fn flush_failed(&mut self, target: u32, behind: Behind, tag: Tag, errno: Errno) {
        self.metrics.flush_failures += 1;
        let error = self.targets.get(target).poison.set(errno, self.device_status);
        self.refuse_flushes(target, error);
        if let Some((write, transfer)) = self.linked_write(behind, tag) {
            transfer.linked = Linked::Unlinked;
            if transfer.whole {
                self.fail_written(write, error);
            }
        }
    }

    /// Answers everybody who waits for a flush of `target` with `error`.
    #[cold]
    pub(super) fn refuse_flushes(&mut self, target: u32, error: Error) {
        // A handle that has gone may leave nothing but its requests to keep the target.
        self.targets.retain(target);
        while let Some(request) = self.targets.pop_request(target, &mut self.ring) {
            self.answer(target, request.waiter, Err(error));
        }
        self.targets.release(target, &mut self.ring);
    }

    /// No flush in flight is trusted to have run after the write it was linked to: another is
    /// due once that write is whole.
    #[cold]
    pub(super) fn distrust_chains(&mut self) {
        for (_, occupant) in self.slots.iter_mut() {
            if let Occupant::Transfer(transfer) = occupant
                && matches!(transfer.linked, Linked::Pending(_))
                && !transfer.whole
            {
                transfer.linked = Linked::Unlinked;
                self.metrics.chains_broken += 1;
            }
        }
        self.chains.distrust();
    }

    /// The durable write that the flush of `tag` is linked to, if it still is: a write that
    /// was not whole at once is on its own (F14).
    fn linked_write(&mut self, behind: Behind, tag: Tag) -> Option<(Tag, &mut Transfer)> {
        let Behind::Write(write) = behind else { return None };
        let transfer = self.slots.transfer(write)?;
        (transfer.linked == Linked::Pending(tag)).then_some((write, transfer))
    }

    /// The linked flush was cancelled with its chain; once the write is whole, another is due.
    fn flush_did_not_run(&mut self, behind: Behind, tag: Tag) {
        let Some((write, transfer)) = self.linked_write(behind, tag) else { return };
        transfer.linked = Linked::Unlinked;
        let whole = transfer.whole;
        self.metrics.chains_broken += 1;
        if whole {
            self.wait_for_flush(write);
        }
    }

    /// A durable write has been written in full.
    #[cold]
    pub(super) fn durable_write_whole(&mut self, tag: Tag) {
        let transfer = self.slots.transfer(tag).expect("found by this tag before");
        transfer.whole = true;
        let (target, epoch, linked) = (transfer.target, transfer.epoch, transfer.linked);
        self.end_write(false, target, epoch);
        match linked {
            _ if self.ring.plant(Plant::AckBeforeFlush) => self.acknowledge(tag),
            Linked::Flushed | Linked::Dsync => self.acknowledge(tag),
            Linked::Unlinked => self.wait_for_flush(tag),
            Linked::Pending(_) | Linked::No => {}
        }
    }

    /// Moves a written body out of its slot to where flushes are waited for.
    fn wait_for_flush(&mut self, tag: Tag) {
        let all_metadata = self.slots.transfer(tag).is_some_and(|write| write.all_metadata);
        let (target, body) = self.leave_slot(tag);
        self.request_flush(target, all_metadata, Waiter::Write(WrittenBody(body)));
        self.targets.release(target, &mut self.ring);
    }

    /// Whole, and a flush issued after that has succeeded.
    fn acknowledge(&mut self, tag: Tag) {
        let (target, body) = self.leave_slot(tag);
        let poison = self.targets.get(target).poison_error();
        self.answer(target, Waiter::Write(WrittenBody(body)), poison.map_or(Ok(()), Err));
        self.targets.release(target, &mut self.ring);
    }

    fn fail_written(&mut self, tag: Tag, error: Error) {
        let (target, body) = self.leave_slot(tag);
        self.answer(target, Waiter::Write(WrittenBody(body)), Err(error));
        self.targets.release(target, &mut self.ring);
    }

    fn leave_slot(&mut self, tag: Tag) -> (u32, Option<Body>) {
        let transfer = self.slots.transfer(tag).expect("found by this tag before");
        let left = (transfer.target, transfer.body.take());
        drop(self.slots.take_bounce(tag));
        self.slots.vacate(tag);
        left
    }
}
