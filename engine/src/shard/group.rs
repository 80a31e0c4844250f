//! Neighbours of a batch that travel as one op.
//!
//! Data flow: views of a batch, sorted → runs of neighbours → [`Group`], which owns the parts
//! and the array of their addresses until the CQE (F07, F10) → one op → whole: every part is
//! done. Anything else: the parts that the result covers are done, each of the others becomes
//! an ordinary job of its own, so that every part ends exactly as it would have alone.
//!
//! Not here: what users hold of a batch (`batch`).

use mfio_core::{Error, ErrorKind, PacketId, Read, View, Write};
use nix::errno::Errno;

use super::accept::Turn;
use super::barrier::Epoch;
use super::body::Body;
use super::class::Class;
use super::core::{Bytes, Core, Ending, Job};
use super::durable::How;
use super::slot::{Linked, Occupant, Transfer};
use crate::buffer::{IoVecs, PIECES_MAX, Region};
use crate::error::from_errno;
use crate::plan;
use crate::ring::{Knob, Op, OpKind, Plant, Ring, Tag};

/// A view of a batch on its way into the shard.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) target: u32,
    pub(crate) class: Class,
    pub(crate) offset_bytes: u64,
    /// Only of a write, and of one that is not part of a batch.
    pub(crate) how: How,
    pub(crate) view: StagedView,
}

/// The bytes of a [`Staged`].
#[derive(Debug)]
pub(crate) enum StagedView {
    Read(View<Read>),
    Write(View<Write>),
}

impl Staged {
    /// Target, direction and class in one number.
    #[inline]
    pub(super) fn kind(&self) -> u64 {
        u64::from(self.target) << 3 | u64::from(self.is_read()) << 2 | self.class as u64
    }

    /// Neighbours come one behind the other in the order of this.
    pub(crate) fn key(&self) -> (u64, u64) {
        (self.kind(), self.offset_bytes)
    }

    /// Whether the bytes of `next` begin where those of this one end, in the same direction and
    /// class.
    #[inline]
    pub(crate) fn adjoins(&self, next: &Self) -> bool {
        let end = self.offset_bytes.checked_add(self.len_bytes());
        end == Some(next.offset_bytes) && self.kind() == next.kind()
    }

    fn is_read(&self) -> bool {
        matches!(self.view, StagedView::Read(_))
    }

    pub(super) fn len_bytes(&self) -> u64 {
        match &self.view {
            StagedView::Read(view) => view.len(),
            StagedView::Write(view) => view.len(),
        }
    }

    fn address(&self) -> Option<usize> {
        match &self.view {
            StagedView::Read(view) => view.address(),
            StagedView::Write(view) => view.address(),
        }
    }

    /// Nobody wants it any more.
    pub(crate) fn fail(self, error: Error) {
        match self.view {
            StagedView::Read(view) => view.fail(error),
            StagedView::Write(view) => view.fail(error),
        }
    }
}

/// One entry of a batch in a group.
#[derive(Debug)]
struct Part {
    body: Body,
    len_bytes: u32,
    cancelled: bool,
}

/// Up to [`PIECES_MAX`] neighbours in one op.
#[derive(Debug)]
pub(super) struct Group {
    parts: Vec<Part>,
    vectors: IoVecs,
    target: u32,
    offset_bytes: u64,
    len_bytes: u32,
    epoch: Epoch,
    is_read: bool,
    class: Class,
}

impl Group {
    fn new() -> Self {
        Self {
            parts: Vec::with_capacity(PIECES_MAX),
            vectors: IoVecs::new(),
            target: 0,
            offset_bytes: 0,
            len_bytes: 0,
            epoch: Epoch::default(),
            is_read: true,
            class: Class::Foreground,
        }
    }

    /// Marks the parts of `packet`; true if there is one.
    pub(super) fn cancel(&mut self, packet: PacketId) -> bool {
        let mut found = false;
        for part in &mut self.parts {
            let its = part.body.packet_id() == packet;
            part.cancelled |= its;
            found |= its;
        }
        found
    }

    pub(super) const fn len_bytes(&self) -> u32 {
        self.len_bytes
    }
}

impl Group {
    /// Whether any part lies in `region`: how it is addressed was settled when it was accepted.
    pub(super) fn touches(&self, region: &Region) -> bool {
        self.vectors.touches(region)
    }
}

impl<R: Ring> Core<R> {
    /// Groups with memory in `region` that have not started.
    pub(super) fn queued_groups_on(&mut self, region: &Region) -> usize {
        let mut found = 0;
        for class in [Class::Log, Class::Foreground, Class::Background] {
            for at in 0..self.jobs_in(class) {
                let bytes = &self.job_mut(class, at).bytes;
                found += usize::from(matches!(bytes, Bytes::Group(group) if group.touches(region)));
            }
        }
        found
    }

    /// How many entries of `staged`, in the order of `order`, can be one op: at least 1.
    pub(super) fn run_length(&self, staged: &[Option<Staged>], order: &[Turn]) -> usize {
        let entry = |at: usize| {
            let index = order.get(at).map(|turn| turn.index());
            index.and_then(|index| staged[index].as_ref())
        };
        let Some(first) = entry(0) else { return 1 };
        let demands = self.targets.get(first.target).demands;
        let (mut length, mut bytes, mut last) = (0, 0_u64, None::<&Staged>);
        let most = self.ring.knob(Knob::CoalescedParts, PIECES_MAX);
        while length < most
            && let Some(next) = entry(length)
        {
            let neighbour = last.is_none_or(|last| last.adjoins(next));
            let len = next.len_bytes();
            let cut =
                plan::first_cut(next.is_read(), next.offset_bytes, len, next.address(), demands);
            let whole = cut.is_ok_and(|cut| !cut.bounce && u64::from(cut.take_bytes) == len);
            bytes += len;
            if !neighbour || !whole || len == 0 || bytes > u64::from(demands.transfer_bytes_max) {
                break;
            }
            last = Some(next);
            length += 1;
        }
        length.max(1)
    }

    /// Starts an entry that goes alone on credit, if it can be. Nothing has changed where not.
    #[inline(always)]
    pub(super) fn accept_straight(&mut self, entry: &mut Option<Staged>) -> bool {
        if self.credit == 0 {
            self.grant();
        }
        let foreground = entry.as_ref().is_some_and(|entry| entry.class == Class::Foreground);
        if self.credit == 0 || !foreground {
            return false;
        }
        let Some(Staged { target, class, offset_bytes, how, view }) = entry.take() else {
            return false;
        };
        let course = &{ self.targets.get(target).course };
        let back = match view {
            StagedView::Read(view) => {
                let back = self.start_straight(course, offset_bytes, view);
                let back = back.or_else(|view| self.start_unfit(target, offset_bytes, view));
                back.map_err(StagedView::Read)
            }
            StagedView::Write(view) => {
                let back = self.start_straight(course, offset_bytes, view);
                let back = back.or_else(|view| self.start_unfit(target, offset_bytes, view));
                back.map_err(StagedView::Write)
            }
        };
        let Err(view) = back else { return true };
        *entry = Some(Staged { target, class, offset_bytes, how, view });
        false
    }

    /// Accepts one view, of whatever class: the long way of `File::send_read` and its like.
    pub(super) fn accept_single(&mut self, staged: Staged) {
        let Staged { target, class, offset_bytes, how, view } = staged;
        let is_write = matches!(view, StagedView::Write(_));
        if let Some(error) = self.refusal(target, is_write) {
            let staged = Staged { target, class, offset_bytes, how, view };
            return staged.fail_in(&mut self.endings, error);
        }
        let bytes = match view {
            StagedView::Read(view) => Bytes::Read(view),
            StagedView::Write(view) => {
                let epoch = self.targets.get_mut(target).barrier.write_started();
                Bytes::Write { view, epoch, how }
            }
        };
        self.targets.retain(target);
        self.accept_job(class, Job { target, offset_bytes, bytes });
    }

    /// Starts a job, or as much of it as there is room for; the rest waits behind the others
    /// of its class.
    fn accept_job(&mut self, class: Class, job: Job) {
        if self.jobs_in(class) > 0 {
            self.queue_job(class, job, false);
        } else if let Some(rest) = self.issue_job(job, class) {
            self.queue_job(class, rest, true);
        }
    }

    /// Accepts neighbours, which [`Core::run_length`] has found, as one op.
    pub(super) fn accept_group(&mut self, parts: &mut dyn Iterator<Item = Staged>) {
        let mut group = self.groups.pop().unwrap_or_else(|| Box::new(Group::new()));
        group.len_bytes = 0;
        while let Some(staged) = parts.next() {
            if group.parts.is_empty() {
                group.target = staged.target;
                group.offset_bytes = staged.offset_bytes;
                group.is_read = staged.is_read();
                group.class = staged.class;
                if let Some(error) = self.refusal(staged.target, !group.is_read) {
                    staged.fail_in(&mut self.endings, error);
                    parts.for_each(|staged| staged.fail_in(&mut self.endings, error));
                    return self.groups.push(group);
                }
            }
            self.add_part(&mut group, staged.view);
        }
        self.metrics.coalesced += group.parts.len() as u64;
        let group_class = group.class;
        let job = Job {
            target: group.target,
            offset_bytes: group.offset_bytes,
            bytes: Bytes::Group(group),
        };
        self.targets.retain(job.target);
        self.accept_job(group_class, job);
    }

    fn add_part(&mut self, group: &mut Group, view: StagedView) {
        let (body, ptr, len, region) = match view {
            StagedView::Read(view) => {
                let lent = view.try_alloc(1).expect("a part of a run has an address");
                let (ptr, len, region) = (lent.as_ptr(), lent.len(), lent.region());
                (Body::ReadInto(lent), ptr, len, region)
            }
            StagedView::Write(view) => {
                group.epoch = self.targets.get_mut(group.target).barrier.write_started();
                let lent = view.try_alloc(1).expect("a part of a run has an address");
                let (ptr, len, region) = (lent.as_ptr(), lent.len(), lent.region());
                (Body::WriteFrom(lent), ptr, len, region)
            }
        };
        let len_bytes = u32::try_from(len).expect("a part of a run fits in one transfer");
        group.vectors.push(self.memory_of(ptr, len_bytes, region));
        group.len_bytes += len_bytes;
        group.parts.push(Part { body, len_bytes, cancelled: false });
    }

    /// Starts the group if there is room. Its job's hold on the target becomes the op's.
    pub(super) fn issue_group(&mut self, group: Box<Group>) -> Option<Box<Group>> {
        let capped = group.class == Class::Background && self.classes.is_capped();
        if self.slots.free() == 0 || !self.ring.reserve(1) || capped {
            return Some(group);
        }
        let fixed = self.ring.features().vectored_fixed;
        let memory = group.vectors.range(fixed).expect("a group has parts");
        let kind = match (group.is_read, memory.vector_len()) {
            (true, 0) => OpKind::Read,
            (false, 0) => OpKind::Write,
            (true, _) => OpKind::ReadVectored,
            (false, _) => OpKind::WriteVectored,
        };
        let file = self.targets.get(group.target).file;
        let class = group.class;
        let background = class == Class::Background;
        let op = Op { background, ..Op::transfer(kind, file, group.offset_bytes, memory) };
        self.targets.retain(group.target);
        let counted = background || self.classes.is_watching();
        let tag = self.slots.occupy_other(Occupant::Transfer(Transfer {
            body: None,
            memory,
            offset_bytes: group.offset_bytes,
            epoch: group.epoch,
            target: group.target,
            take_bytes: group.len_bytes,
            lead_bytes: 0,
            resumed_at: 0,
            reached: 0,
            linked: Linked::No,
            is_read: group.is_read,
            bounced: false,
            whole: false,
            cancel_requested: false,
            cancel_sent: false,
            force_async: false,
            retries: 0,
            stalls: 0,
            class,
            counted,
            grouped: true,
            keeps_target: true,
            all_metadata: false,
            atomic: false,
        }));
        self.slots.keep_group(tag, group);
        if counted {
            self.count_started(tag, class);
        }
        self.push_seldom(op, tag);
        None
    }

    /// The op of a group has completed.
    #[cold]
    pub(super) fn complete_group(&mut self, tag: Tag, result: i32) {
        let group = self.slots.take_group(tag);
        let group = group.expect("a group stays beside its slot until the completion");
        self.slots.vacate(tag);
        // More than was asked for is not believed.
        let moved = u32::try_from(result).unwrap_or(0);
        let moved = if moved > group.len_bytes { 0 } else { moved };
        let accept_short = moved > 0 && self.ring.plant(Plant::AcceptShort);
        let moved = if accept_short { group.len_bytes } else { moved };
        self.metrics.short_transfers += u64::from(moved > 0 && moved < group.len_bytes);
        self.dissolve(group, moved);
    }

    /// Ends a group, in flight or not: of its bytes, the first `moved` are through. Gives up
    /// its hold on the target.
    #[cold]
    pub(super) fn dissolve(&mut self, mut group: Box<Group>, moved: u32) {
        let (target, is_read, epoch) = (group.target, group.is_read, group.epoch);
        let mut end = group.len_bytes;
        // From the end, so that what is issued again stands in the backlog in its old order.
        while let Some(part) = group.parts.pop() {
            let offset_bytes = group.offset_bytes + u64::from(end - part.len_bytes);
            if end <= moved {
                self.metrics.moved(is_read, part.len_bytes.into());
                self.end_write(is_read, target, epoch);
                self.done.push(part.body);
            } else if part.cancelled || self.closing {
                let error = from_errno(Errno::ECANCELED);
                self.end_write(is_read, target, epoch);
                self.endings.push(Ending::Failed(part.body, error));
            } else if !self.is_usable() {
                self.end_write(is_read, target, epoch);
                self.endings.push(Ending::Failed(part.body, ErrorKind::Closed.into()));
            } else {
                let bytes = part.body.into_bytes(epoch);
                self.targets.retain(target);
                self.queue_job(group.class, Job { target, offset_bytes, bytes }, true);
                self.metrics.uncoalesced += 1;
            }
            end -= part.len_bytes;
        }
        self.targets.release(target, &mut self.ring);
        self.recycle(group);
    }

    /// Fails every part of a group that has not started. The caller releases the target.
    #[cold]
    pub(super) fn fail_group(&mut self, mut group: Box<Group>, error: Error) {
        let (target, is_read, epoch) = (group.target, group.is_read, group.epoch);
        for part in group.parts.drain(..) {
            self.end_write(is_read, target, epoch);
            self.endings.push(Ending::Failed(part.body, error));
        }
        self.recycle(group);
    }

    fn recycle(&mut self, mut group: Box<Group>) {
        group.parts.clear();
        group.vectors.clear();
        self.groups.push(group);
    }
}

impl Staged {
    fn fail_in(self, endings: &mut Vec<Ending>, error: Error) {
        endings.push(match self.view {
            StagedView::Read(view) => Ending::FailedRead(view, error),
            StagedView::Write(view) => Ending::FailedWrite(view, error),
        });
    }
}

impl Body {
    /// The user's bytes as a job again. The body has been lent in place.
    fn into_bytes(self, epoch: Epoch) -> Bytes {
        match self {
            Self::ReadInto(lent) => Bytes::Read(lent.into_view()),
            Self::BouncedRead(view) => Bytes::Read(view),
            Self::WriteFrom(lent) => {
                Bytes::Write { view: lent.into_view(), epoch, how: How::PLAIN }
            }
            Self::BouncedWrite(view) => Bytes::Write { view, epoch, how: How::PLAIN },
        }
    }
}
