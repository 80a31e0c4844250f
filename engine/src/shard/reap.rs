//! From completions to endings.
//!
//! Data flow: completion → slot → [`complete::transfer`] → verdict → ending, rest or retry.
//!
//! Not here: the verdicts themselves (`complete`), flushes (`flush`).

use std::task::Waker;

use mfio_core::{CompletionBatch, Error, ErrorKind, Lent, Perms};

use super::barrier::Epoch;
use super::body::Body;
use super::core::{Core, Ending, Retry};
use super::plain::Whole;
use super::slot::{Linked, Occupant, Slots, Transfer};
use super::tasks::PlaceWakers;
use crate::complete::{self, Attempt, STALLS_MAX, Verdict};
use crate::error::from_errno;
use crate::metrics::Metrics;
use crate::plan;
use crate::ring::{Completion, NAME_SLOTS_FROM, Plant, Ring, SOCKET_SLOTS_FROM, Tag};
use crate::target::Targets;

impl<R: Ring> Core<R> {
    /// Takes completions out of the ring. Plain ops that are whole, which is what nearly all of
    /// them are, end on the spot; the others are left in `completions`. Returns how many ended.
    ///
    /// A function of its own, so that the loop has the registers to itself.
    #[inline(never)]
    pub(super) fn reap_plain(&mut self) -> u32 {
        let Self { ring, slots, targets, told, done, endings, metrics, .. } = self;
        let tasks = self.place_wakers;
        let ended = ring.reap_rest(&mut self.completions, |completion| {
            let mut telling = Telling { tasks, told, done, endings };
            end_plain(completion, slots, targets, metrics, &mut telling)
        });
        self.in_flight -= ended;
        ended
    }

    #[cold]
    #[inline(never)]
    pub(super) fn complete(&mut self, completion: Completion) {
        let Self { slots, targets, told, done, endings, metrics, place_wakers, .. } = self;
        let mut telling = Telling { tasks: *place_wakers, told, done, endings };
        if end_plain(completion, slots, targets, metrics, &mut telling) {
            self.in_flight -= 1;
            return;
        }
        let Completion { mut tag, result, more } = completion;
        if self.ring.plant(Plant::NoGeneration) {
            tag = self.any_generation(tag);
        }
        if tag.slot >= SOCKET_SLOTS_FROM {
            return self.complete_socket(tag, result, more);
        }
        if tag.slot >= NAME_SLOTS_FROM {
            return self.complete_name(tag);
        }
        let Some(occupant) = self.slots.find(tag) else {
            self.metrics.stale_completions += 1;
            return;
        };
        if more {
            // Every op is single-shot: the completion that counts is still to come.
            return;
        }
        self.in_flight -= 1;
        let is_transfer = matches!(occupant, Occupant::Transfer(_));
        let status = if result < 0 { self.ring.device_status(tag) } else { None };
        self.device_status = status.unwrap_or(0);
        if !is_transfer {
            return self.complete_other(tag, result);
        }
        self.judge_transfer(tag, result);
    }

    /// Whatever is not a plain transfer that has become whole at once.
    pub(super) fn judge_transfer(&mut self, tag: Tag, result: i32) {
        self.keep_target(tag);
        let Some(transfer) = self.slots.transfer(tag) else { return };
        if std::mem::take(&mut transfer.counted) {
            let class = transfer.class;
            self.count_ended(tag, class);
        }
        let Some(transfer) = self.slots.transfer(tag) else { return };
        if transfer.grouped {
            return self.complete_group(tag, result);
        }
        if self.ring.plant(Plant::RetryForever) {
            (transfer.retries, transfer.stalls) = (0, 0);
        }
        let accept_short = self.ring.plant(Plant::AcceptShort);
        match complete::transfer(result, attempt(transfer), accept_short) {
            Verdict::Done => self.transfer_whole(tag),
            Verdict::Retry { .. } if self.is_answer(tag, result) => {
                self.transfer_not_whole(tag, Verdict::Fail(nix::errno::Errno::EAGAIN));
            }
            other => self.transfer_not_whole(tag, other),
        }
    }

    /// Has the target of a transfer count it as its user, if it does not: whoever ends it says
    /// that there is one fewer.
    pub(super) fn keep_target(&mut self, tag: Tag) {
        let Some(transfer) = self.slots.transfer(tag) else { return };
        if !std::mem::replace(&mut transfer.keeps_target, true) {
            let target = transfer.target;
            self.targets.retain(target);
        }
    }

    /// The handle of the target has gone; ops in flight keep it until they are over.
    #[cold]
    pub(super) fn close_target(&mut self, target: u32) {
        if !self.process.is_current() {
            // The ring, in which it may be registered, is the parent's (F26).
            return;
        }
        let Self { slots, targets, ring, .. } = self;
        slots.tell_targets(|other| other == target, |target| targets.retain(target));
        targets.close(target, ring);
    }

    /// Whether it was asked that a transfer which would have to wait be told so.
    fn is_answer(&mut self, tag: Tag, result: i32) -> bool {
        let target = self.slots.transfer(tag).map(|transfer| transfer.target);
        let nowait = target.is_some_and(|target| self.targets.get(target).nowait);
        nowait && result == -(nix::errno::Errno::EAGAIN as i32)
    }

    /// The error of the op that is being judged.
    pub(super) fn error_of(&self, errno: nix::errno::Errno) -> Error {
        from_errno(errno).with_device_status(self.device_status)
    }

    fn end_whole(&mut self, tag: Tag, target: u32, write: Option<Epoch>, body: Option<Body>) {
        self.slots.vacate(tag);
        self.targets.release_op(target, write, &mut self.ring);
        // Nothing is left to be told where a caller's leaving was answered already.
        if let Some(body) = body {
            self.done.push(body);
        }
    }

    /// Every byte of the op is through.
    #[cold]
    pub(super) fn transfer_whole(&mut self, tag: Tag) {
        let transfer = self.slots.transfer(tag).expect("found by this tag before");
        let (target, is_read, moved) = (transfer.target, transfer.is_read, transfer.take_bytes);
        self.count_moved(tag, target, is_read, moved);
        let Some(transfer) = self.slots.transfer(tag) else { return };
        if transfer.linked != Linked::No {
            return self.durable_write_whole(tag);
        }
        transfer.reached = transfer.lead_bytes + transfer.take_bytes;
        if transfer.bounced {
            self.copy_back(tag);
        }
        let Some(transfer) = self.slots.transfer(tag) else { return };
        let (target, is_read, epoch) = (transfer.target, transfer.is_read, transfer.epoch);
        let body = transfer.body.take();
        self.end_whole(tag, target, (!is_read).then_some(epoch), body);
    }

    /// Counts what an op that is over has moved, except on scratch space, where not even its
    /// time is taken.
    fn count_moved(&mut self, tag: Tag, target: u32, is_read: bool, bytes: u32) {
        if self.targets.get(target).scratch {
            self.slots.forget_time(tag);
        } else {
            self.metrics.moved(is_read, bytes.into());
        }
    }

    /// Copies what a bounced read has brought to where the user wants it, and frees the
    /// bounce buffer. A packet that does not take it has failed.
    #[cold]
    fn copy_back(&mut self, tag: Tag) {
        let bounce = self.slots.take_bounce(tag);
        let Some(transfer) = self.slots.transfer(tag) else { return };
        let (lead_bytes, reached) = (transfer.lead_bytes, transfer.reached);
        if let (Some(bounce), Some(body)) = (bounce, &mut transfer.body)
            && !body.copy_back(&bounce, lead_bytes, reached)
        {
            let body = transfer.body.take();
            self.endings.extend(body.map(|body| Ending::Failed(body, ErrorKind::Aborted.into())));
        }
    }

    #[cold]
    fn transfer_not_whole(&mut self, tag: Tag, verdict: Verdict) {
        let verdict = self.said_by_device(verdict);
        self.break_chain(tag);
        let unserved = verdict == Verdict::Fail(nix::errno::Errno::ECANCELED);
        if unserved && self.transfer_in_place(tag) {
            return;
        }
        let Some(transfer) = self.slots.transfer(tag) else { return };
        match verdict {
            Verdict::Rest { done_bytes } => self.transfer_short(tag, done_bytes),
            Verdict::Retry { force_async } => {
                transfer.retries = transfer.retries.saturating_add(1);
                transfer.force_async = force_async;
                self.metrics.retries += 1;
                let retries = transfer.retries;
                let not_before_ns = self.ring.now_ns() + self.back_off_ns(retries);
                self.retries.push_back(Retry { tag, not_before_ns });
            }
            Verdict::Stalled => {
                transfer.stalls += 1;
                self.retries.push_back(Retry { tag, not_before_ns: 0 });
            }
            Verdict::EndOfFile { .. } => {
                self.fail_transfer(tag, ErrorKind::UnexpectedEof.into());
            }
            Verdict::Cancelled | Verdict::ChainBroken => {
                let errno = nix::errno::Errno::ECANCELED;
                self.fail_transfer(tag, from_errno(errno));
            }
            Verdict::Fail(errno) if transfer.linked == Linked::Dsync => {
                self.dsync_failed(tag, errno);
            }
            Verdict::Fail(errno) if transfer.is_read && self.bisects(tag, errno) => {}
            Verdict::Fail(errno) => self.fail_transfer(tag, self.error_of(errno)),
            Verdict::Done => unreachable!("a whole transfer is handled by the caller"),
        }
    }

    /// The op moved `done_bytes`, which is not all: the rest is issued, from an aligned point.
    fn transfer_short(&mut self, tag: Tag, done_bytes: u32) {
        self.metrics.short_transfers += 1;
        let Some(transfer) = self.slots.transfer(tag) else { return };
        if transfer.atomic {
            // The kernel promises all or nothing; a rest would not be part of it.
            return self.fail_transfer(tag, Error::os(nix::errno::Errno::EIO as i32));
        }
        let reached = transfer.resumed_at + done_bytes;
        if reached >= transfer.lead_bytes + transfer.take_bytes {
            // What is missing was rounded out beyond the user's bytes.
            return self.transfer_whole(tag);
        }
        if reached <= transfer.reached {
            // The rest was issued and moved nothing new.
            if transfer.is_read {
                return self.fail_transfer(tag, ErrorKind::UnexpectedEof.into());
            }
            transfer.stalls += 1;
            if transfer.stalls >= STALLS_MAX {
                return self.fail_transfer(tag, Error::os(nix::errno::Errno::EIO as i32));
            }
        } else {
            transfer.reached = reached;
            transfer.stalls = 0;
            transfer.retries = 0;
        }
        let demands = self.targets.get(transfer.target).demands;
        let unaligned = self.ring.plant(Plant::UnalignedRest);
        transfer.resumed_at = plan::resume_at(transfer.reached, demands, unaligned);
        self.retries.push_back(Retry { tag, not_before_ns: 0 });
    }

    /// The op is over; what it reached before counts, the rest fails.
    pub(super) fn fail_transfer(&mut self, tag: Tag, error: Error) {
        self.copy_back(tag);
        let Some(transfer) = self.slots.transfer(tag) else { return };
        let (target, is_read, epoch) = (transfer.target, transfer.is_read, transfer.epoch);
        let failed_at = transfer.offset_bytes + u64::from(transfer.reached);
        let error = self.targets.get(target).explain_end(failed_at, error);
        let Some(transfer) = self.slots.transfer(tag) else { return };
        // A durable write that is not durable as a whole promises nothing of its parts.
        let reached = if transfer.linked == Linked::No { transfer.reached } else { 0 };
        let done = reached.saturating_sub(transfer.lead_bytes).min(transfer.take_bytes);
        if let Some(body) = transfer.body.take() {
            self.endings.push(Ending::Part(body, done.into(), error));
        }
        self.count_moved(tag, target, is_read, done);
        self.slots.vacate(tag);
        self.end_write(is_read, target, epoch);
        self.targets.release(target, &mut self.ring);
    }

    /// The write was not whole at once, so the flush linked behind it proves nothing (F14).
    fn break_chain(&mut self, tag: Tag) {
        let Some(transfer) = self.slots.transfer(tag) else { return };
        if matches!(transfer.linked, Linked::Pending(_) | Linked::Flushed) {
            transfer.linked = Linked::Unlinked;
            self.metrics.chains_broken += 1;
        }
    }
}

/// Who hears of what is over: at once, or when nothing is borrowed any more.
struct Telling<'a> {
    tasks: PlaceWakers,
    told: &'a mut CompletionBatch,
    done: &'a mut Vec<Body>,
    endings: &'a mut Vec<Ending>,
}

impl Telling<'_> {
    /// Ends what is whole: at once where that calls nobody but tasks of the shard, which run
    /// later, or a waker; else later.
    #[inline(always)]
    fn finish<P: Perms>(&mut self, lent: Lent<P>, body: impl FnOnce(Lent<P>) -> Body) {
        let tasks = self.tasks;
        match lent.try_done_in(self.told, |waker: &Waker| tasks.wake_here(waker)) {
            Ok(None) => {}
            Ok(Some(waker)) => self.endings.push(Ending::Wake(waker)),
            Err(lent) => self.done.push(body(lent)),
        }
    }
}

/// Ends the op that has completed if it is a plain one, and whole; else nothing has changed.
#[inline(always)]
fn end_plain(
    Completion { tag, result, more }: Completion,
    slots: &mut Slots,
    targets: &mut Targets,
    metrics: &mut Metrics,
    telling: &mut Telling<'_>,
) -> bool {
    if more {
        return false;
    }
    match slots.take_whole(tag, result) {
        None => return false,
        Some(Whole::Read(lent)) => {
            metrics.moved(true, result.cast_unsigned().into());
            telling.finish(lent, Body::ReadInto);
        }
        Some(Whole::Write(lent, target, epoch)) => {
            metrics.moved(false, result.cast_unsigned().into());
            targets.get_mut(target).barrier.write_ended(epoch);
            telling.finish(lent, Body::WriteFrom);
        }
    }
    true
}

#[inline]
fn attempt(transfer: &Transfer) -> Attempt {
    Attempt {
        is_read: transfer.is_read,
        is_follower: false,
        cancel_requested: transfer.cancel_requested,
        len_bytes: transfer.in_flight_bytes(),
        retries: transfer.retries,
        stalls: transfer.stalls,
    }
}
