//! From accepted views to pushed ops.
//!
//! Data flow: view → [`plan::first_cut`] → slot → ring, or backlog; retries and flushes first.
//!
//! Not here: completions (`reap`), which flushes are due (`flush`), trying again (`retry`).

use mfio_core::{Error, ErrorKind, RegionId, View};
use nix::errno::Errno;

use super::barrier::Epoch;
use super::body::Body;
use super::class::Class;
use super::core::{Bytes, Core, Job};
use super::direction::Direction;
use super::durable::{self, How, Promise};
use super::slot::{Behind, FlushOp, Linked, Occupant, Transfer};
use crate::buffer::{ArenaBuf, MemRange};
use crate::plan::{self, Cut};
use crate::ring::{FileRef, Knob, Op, OpKind, Plant, Ring, Tag};
use crate::target::SyncMethod;

/// What a write carries besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WriteTerms {
    pub(super) epoch: Epoch,
    pub(super) how: How,
    pub(super) class: Class,
    /// It is counted, or timed: see `class`.
    pub(super) counted: bool,
    /// Latencies are wanted.
    pub(super) stamped: bool,
}

impl WriteTerms {
    #[inline]
    const fn noted(&self) -> bool {
        self.counted || self.stamped
    }

    /// Whether an op of these terms that uses the view's own memory is plain.
    #[inline]
    fn are_plain(&self) -> bool {
        self.how == How::PLAIN && self.class == Class::Foreground && !self.noted()
    }
}

/// What became of the first piece of a view.
enum Piece<D: Direction> {
    /// Started; the rest begins at that offset.
    More(u64, View<D>),
    /// Nothing was started: there is no memory at the moment.
    Later(View<D>),
    /// The view is used up.
    Over,
}

impl<R: Ring> Core<R> {
    /// Whether earlier views wait already, so that a new one has to wait behind them.
    #[inline]
    pub(super) fn must_queue(&self) -> bool {
        !self.backlog.is_empty()
    }

    #[cold]
    pub(super) fn queue_rest(&mut self, target: u32, offset_bytes: u64, bytes: Bytes) {
        self.targets.retain(target);
        self.backlog.push_back(Job { target, offset_bytes, bytes });
    }

    /// Starts as much of the view as the ring has room for; the rest, if any, comes back with
    /// its offset.
    pub(super) fn advance<D: Direction>(
        &mut self,
        target: u32,
        mut offset: u64,
        mut view: View<D>,
        terms: WriteTerms,
    ) -> Option<(u64, View<D>)> {
        loop {
            if self.slots.free() == 0 || !self.ring.reserve(1) {
                return Some((offset, view));
            }
            if terms.class == Class::Background && self.classes.is_capped() {
                return Some((offset, view));
            }
            let mut len = view.len();
            if self.ring.plant(Plant::TruncatingCast) {
                len &= u64::from(u16::MAX);
            }
            if len == 0 {
                return self.nothing_to_start(target, view, terms, None);
            }
            let entry = self.targets.get_mut(target);
            let cut = match plan::first_cut(D::IS_READ, offset, len, view.address(), entry.demands)
            {
                Ok(cut) => cut,
                Err(kind) => return self.nothing_to_start(target, view, terms, Some(kind)),
            };
            if u64::from(cut.take_bytes) == len && !cut.bounce {
                let lent = view.try_alloc(1).expect("a cut in place has an address");
                let memory = self.memory_of(lent.as_ptr(), cut.op_bytes, lent.region());
                if terms.are_plain() && self.can_be_plain(target) {
                    self.push_plain::<D>(target, lent, offset, memory, terms.epoch);
                    return None;
                }
                let _tag = self.start::<D>(target, cut, D::lent(lent), memory, terms, true);
                return None;
            }
            match self.start_piece(target, offset, view, terms, cut) {
                Piece::More(next, rest) => (offset, view) = (next, rest),
                Piece::Later(view) => return Some((offset, view)),
                Piece::Over => return None,
            }
        }
    }

    /// Nothing to do, or nothing that can be done: the view ends here.
    #[cold]
    fn nothing_to_start<D: Direction>(
        &mut self,
        target: u32,
        view: View<D>,
        terms: WriteTerms,
        refused: Option<ErrorKind>,
    ) -> Option<(u64, View<D>)> {
        self.end_write(D::IS_READ, target, terms.epoch);
        match refused {
            Some(kind) => self.endings.push(D::failed(view, kind.into())),
            None => self.done.push(D::plain(view)),
        }
        None
    }

    /// Starts an op that covers a part of the view, or goes through a bounce buffer.
    #[cold]
    fn start_piece<D: Direction>(
        &mut self,
        target: u32,
        offset: u64,
        view: View<D>,
        terms: WriteTerms,
        cut: Cut,
    ) -> Piece<D> {
        if terms.how.atomic {
            let _nothing_left =
                self.nothing_to_start(target, view, terms, Some(ErrorKind::Misaligned));
            return Piece::Over;
        }
        let empty = cut.bounce && self.in_flight > 0 && self.ring.knob(Knob::EmptyPool, 0) != 0;
        if empty {
            return Piece::Later(view);
        }
        let bounce = cut.bounce.then(|| self.arena.alloc(cut.op_bytes as usize));
        if matches!(bounce, Some(None)) {
            if self.soon_back() > 0 {
                // Ops in flight hold the memory and will give it back.
                return Piece::Later(view);
            }
            self.end_write(D::IS_READ, target, terms.epoch);
            self.endings.push(D::failed(view, Error::os(Errno::ENOMEM as i32)));
            return Piece::Over;
        }
        let taken = u64::from(cut.take_bytes);
        let (head, rest) = view.split_at(taken);
        let last = rest.is_empty();
        if !last && !D::IS_READ {
            self.targets.get_mut(target).barrier.write_cut(terms.epoch);
        }
        match bounce.flatten() {
            Some(bounce) => self.start_bounced(target, head, terms, cut, bounce, last),
            None => {
                let lent = head.try_alloc(1).expect("a cut in place has an address");
                let memory = self.memory_of(lent.as_ptr(), cut.op_bytes, lent.region());
                let _tag = self.start::<D>(target, cut, D::lent(lent), memory, terms, last);
            }
        }
        if last {
            self.done.push(D::plain(rest));
            return Piece::Over;
        }
        Piece::More(offset + taken, rest)
    }

    fn start_bounced<D: Direction>(
        &mut self,
        target: u32,
        head: View<D>,
        terms: WriteTerms,
        cut: Cut,
        mut bounce: ArenaBuf,
        last_piece: bool,
    ) {
        self.metrics.bounced += 1;
        match D::bounced(head, &mut bounce) {
            Ok(body) => {
                let memory = bounce.mem_range().sub(0, cut.op_bytes);
                let tag = self.start::<D>(target, cut, body, memory, terms, last_piece);
                self.slots.keep_bounce(tag, bounce);
            }
            Err(ending) => {
                self.end_write(D::IS_READ, target, terms.epoch);
                self.endings.push(ending);
            }
        }
    }

    pub(super) fn memory_of(
        &self,
        ptr: *mut u8,
        op_bytes: u32,
        region: Option<RegionId>,
    ) -> MemRange {
        let own = match region {
            Some(id) if id == self.arena_id => Some(self.arena.region()),
            Some(id) => return self.regions.memory_of(ptr, op_bytes, id),
            None => None,
        };
        MemRange::of_raw(ptr, op_bytes, own).expect("a cut is neither empty nor too long")
    }

    fn start<D: Direction>(
        &mut self,
        target: u32,
        cut: Cut,
        body: Body,
        memory: MemRange,
        terms: WriteTerms,
        last_piece: bool,
    ) -> Tag {
        let entry = self.targets.get_mut(target);
        entry.users += 1;
        let file = entry.file;
        self.start_on::<D>(target, file, cut, body, memory, terms, last_piece)
    }

    /// As `start`, for a target that has been told of its user.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "what an op is made of, each in a register")]
    pub(super) fn start_on<D: Direction>(
        &mut self,
        target: u32,
        file: FileRef,
        cut: Cut,
        body: Body,
        memory: MemRange,
        mut terms: WriteTerms,
        last_piece: bool,
    ) -> Tag {
        if terms.how.promise == Promise::Dsync {
            terms.how.promise = self.dsync_or_flush(target);
        }
        let tag = self.slots.occupy(Occupant::Transfer(Transfer {
            body: Some(body),
            memory,
            offset_bytes: cut.op_offset,
            epoch: terms.epoch,
            target,
            take_bytes: cut.take_bytes,
            lead_bytes: cut.lead_bytes,
            resumed_at: 0,
            reached: 0,
            linked: terms.how.linked(),
            is_read: D::IS_READ,
            bounced: cut.bounce,
            class: terms.class,
            counted: terms.counted,
            grouped: false,
            keeps_target: true,
            whole: false,
            cancel_requested: false,
            cancel_sent: false,
            force_async: false,
            retries: 0,
            stalls: 0,
            all_metadata: terms.how.all_metadata(),
            atomic: terms.how.atomic,
        }));
        if terms.counted {
            self.count_started(tag, terms.class);
        }
        let flushed = matches!(terms.how.promise, Promise::Flushed { .. });
        let link = flushed && last_piece && self.can_link(target);
        if !self.may_be_lone() || !self.start_lone(tag) {
            let op = Op {
                link: link && !self.ring.plant(Plant::FlushEarly),
                dsync: terms.how.promise == Promise::Dsync,
                atomic: terms.how.atomic,
                background: terms.class == Class::Background,
                ..Op::transfer(D::KIND, file, cut.op_offset, memory)
            };
            self.push_beside(op, tag, terms.stamped);
        }
        if link {
            self.link_flush(target, tag, terms.how.all_metadata());
        }
        tag
    }

    /// A piece of a write is over, whatever came of it.
    #[inline]
    pub(super) fn end_write(&mut self, is_read: bool, target: u32, epoch: Epoch) {
        if !is_read {
            self.targets.get_mut(target).barrier.write_ended(epoch);
        }
    }

    /// A flush may be linked only where none is in flight, and with room for both.
    fn can_link(&mut self, target: u32) -> bool {
        let entry = self.targets.get(target);
        let wanted = entry.sync.method != SyncMethod::WriteThenFlush
            && !entry.poison.is_set()
            && entry.can_link()
            && self.ring.knob(Knob::Unlinked, 0) == 0;
        let free = wanted && !durable::must_wait(&self.targets, &mut self.slots, target);
        free && self.slots.free() > 0 && self.ring.reserve(2)
    }

    fn link_flush(&mut self, target: u32, write: Tag, all_metadata: bool) {
        self.targets.retain(target);
        let entry = self.targets.get_mut(target);
        entry.flush_in_flight = true;
        let flush = FlushOp::new(target, all_metadata, Behind::Write(write));
        let tag = self.slots.occupy_other(Occupant::Flush(flush));
        let transfer = self.slots.transfer(write).expect("occupied just now");
        transfer.linked = Linked::Pending(tag);
        self.push_flush(target, all_metadata, tag);
    }

    pub(super) fn push_flush(&mut self, target: u32, all_metadata: bool, tag: Tag) {
        let entry = self.targets.get(target);
        let (file, counts) = (entry.file, !entry.scratch);
        self.metrics.flushes += u64::from(counts);
        let kind = if all_metadata { OpKind::Fsync } else { OpKind::Fdatasync };
        self.push_seldom(Op::on(kind, file), tag);
    }

    /// As `push`, out of the way of reads and writes: one copy of the code for all of those, so
    /// that it stays inlined where it is hot.
    #[cold]
    #[inline(never)]
    pub(super) fn push_seldom(&mut self, op: Op, tag: Tag) {
        self.ring.unstage();
        self.push_beside(op, tag, self.slots.is_stamped());
    }

    /// Pushes where nothing is staged.
    #[inline(always)]
    fn push_beside(&mut self, op: Op, tag: Tag, stamped: bool) {
        self.ring.push(op, tag);
        if stamped {
            self.slots.stamp_pushed(tag, self.ring.now_ns());
        }
        self.in_flight += 1;
        self.metrics.ops += 1;
    }

    /// Starts whatever can be started.
    #[inline]
    pub(super) fn issue(&mut self) {
        let waiting = self.targets.waiting_for_flush() + self.retries.len();
        let queued = self.backlog.len() + self.classes.queued;
        if (waiting > 0 || queued > 0) && self.is_usable() {
            self.issue_waiting();
        }
    }

    #[inline(never)]
    fn issue_waiting(&mut self) {
        if !self.retries.is_empty() {
            self.issue_retries();
        }
        if self.targets.waiting_for_flush() > 0 {
            self.issue_flushes();
        }
        self.issue_classes();
        if self.targets.waiting_for_flush() > 0 {
            // A chain has come to a flush, or what one waited for is over: nothing else starts it.
            self.issue_flushes();
        }
    }

    /// An op that is counted is about to start.
    #[cold]
    pub(super) fn count_started(&mut self, tag: Tag, class: Class) {
        let stamp_ns = self.classes.times(class).then(|| self.ring.now_ns());
        self.slots.stamp(tag, stamp_ns);
        self.classes.op_started(class);
    }

    /// It has completed.
    #[cold]
    pub(super) fn count_ended(&mut self, tag: Tag, class: Class) {
        let stamp_ns = self.slots.stamp_of(tag);
        let took_ns = stamp_ns.map(|stamp_ns| self.ring.now_ns().saturating_sub(stamp_ns));
        self.classes.op_ended(class, took_ns);
    }

    pub(super) fn issue_job(&mut self, job: Job, class: Class) -> Option<Job> {
        let counted = class == Class::Background || self.classes.is_watching();
        let stamped = self.slots.is_stamped();
        let terms = WriteTerms { class, counted, stamped, ..WriteTerms::default() };
        let Job { target, offset_bytes, bytes } = job;
        let rest = match bytes {
            Bytes::Chain(id) => {
                let launched = self.launch(id);
                return (!launched).then_some(Job { target, offset_bytes, bytes });
            }
            Bytes::Socket(id, way) => {
                let served = self.serve_queued(id, way);
                return (!served).then_some(Job { target, offset_bytes, bytes });
            }
            Bytes::Group(group) => {
                self.issue_group(group).map(|group| (offset_bytes, Bytes::Group(group)))
            }
            Bytes::Read(view) => {
                let rest = self.advance(target, offset_bytes, view, terms);
                rest.map(|(offset, view)| (offset, Bytes::Read(view)))
            }
            Bytes::Write { view, epoch, how } => {
                let terms = WriteTerms { epoch, how, ..terms };
                let rest = self.advance(target, offset_bytes, view, terms);
                rest.map(|(offset, view)| (offset, Bytes::Write { view, epoch, how }))
            }
        };
        if rest.is_none() {
            self.targets.release(target, &mut self.ring);
        }
        rest.map(|(offset_bytes, bytes)| Job { target, offset_bytes, bytes })
    }
}
