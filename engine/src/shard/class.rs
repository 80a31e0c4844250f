//! Which traffic goes first, and how much of the rest is let in beside it.
//!
//! Data flow: view → queue of its class, each with room of its own → log first, then
//! foreground and background by their shares → ops. Background ops in flight are limited to a
//! number that follows what they do to the latency of foreground ops: a little more as long
//! as it does not suffer, a good part less once it does. Only while there is background work
//! are foreground ops timed, so a shard without any pays one comparison per view.
//!
//! Not here: cutting and pushing (`issue`); what a scheduler below makes of priorities.

use std::collections::VecDeque;
use std::task::Waker;

use mfio_core::{Read, Refused, View, Write};

use super::core::{Bytes, Core, Ending, Job};
use super::durable::How;
use super::file::File;
use super::governor::Governor;
use super::group::{Staged, StagedView};
use crate::config::ClassLimits;
use crate::ring::{Knob, Ring};

/// What an op is for, and so how long it may be kept waiting. A property of the handle, see
/// [`File::with_class`], or of one packet: [`AsLog`], [`AsBackground`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// Commits wait for it: before everything else.
    Log,
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// Nobody waits for it: scans, compaction, write-back.
    Background,
}

/// A byte offset for a packet of [`Class::Log`], whatever the class of the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsLog(pub u64);

/// A byte offset for a packet of [`Class::Background`], whatever the class of the handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsBackground(pub u64);

/// What one unit of a share is worth, in bytes.
const SHARE_BYTES: i64 = 16 << 10;

/// What an op costs besides its bytes.
const OP_COST_BYTES: i64 = 4 << 10;

/// The queues of the classes besides foreground, whose queue is the shard's backlog.
#[derive(Debug)]
pub(super) struct Classes {
    log: Lane,
    background: Lane,
    /// Views in both.
    pub(super) queued: usize,
    pub(super) background_in_flight: u32,
    /// There is background work: foreground ops are timed.
    watching: bool,
    governor: Governor,
    shares: [i64; 2],
    credits: [i64; 2],
}

#[derive(Debug)]
struct Lane {
    queue: VecDeque<Job>,
    room_max: usize,
    reserved: usize,
    waiting: Vec<Waker>,
}

impl Lane {
    fn new(room_max: u32) -> Self {
        let queue = VecDeque::with_capacity(room_max as usize);
        Self { queue, room_max: room_max as usize, reserved: 0, waiting: Vec::new() }
    }

    fn room(&self) -> usize {
        self.room_max.saturating_sub(self.queue.len() + self.reserved)
    }
}

impl Classes {
    pub(super) fn new(limits: &ClassLimits, slots: u32) -> Self {
        // Some slots stay free for foreground ops, whatever happens.
        let kept = (slots / 4).max(1);
        let most = limits.background_in_flight_max.min(slots.saturating_sub(kept)).max(1);
        Self {
            log: Lane::new(limits.log_backlog_max),
            background: Lane::new(limits.background_backlog_max),
            queued: 0,
            background_in_flight: 0,
            watching: false,
            governor: Governor::new(most, limits.adaptive),
            shares: [limits.foreground_share.into(), limits.background_share.into()],
            credits: [0; 2],
        }
    }

    /// Whether foreground ops are to be timed.
    #[inline]
    pub(super) const fn is_watching(&self) -> bool {
        self.watching
    }

    /// Whether somebody waits for room in one of the two queues.
    #[inline]
    pub(super) const fn somebody_waits(&self) -> bool {
        self.log.waiting.len() | self.background.waiting.len() != 0
    }

    /// Whether no more background ops are to be started.
    pub(super) fn is_capped(&self) -> bool {
        self.background_in_flight >= self.governor.limit()
    }

    /// Background ops that may be in flight at the moment.
    pub(super) fn background_limit(&self) -> u32 {
        self.governor.limit()
    }

    /// Everything that somebody else waits for in either queue, which are empty then.
    pub(super) fn take_queued(&mut self) -> [(VecDeque<Job>, Vec<Waker>); 2] {
        self.queued = 0;
        let lanes = [&mut self.log, &mut self.background];
        lanes.map(|lane| (std::mem::take(&mut lane.queue), std::mem::take(&mut lane.waiting)))
    }

    fn look_again(&mut self) {
        self.watching = self.background_in_flight > 0 || !self.background.queue.is_empty();
    }

    /// Whether some job could be started, slots permitting.
    pub(super) fn can_issue(&self) -> bool {
        let background = !self.background.queue.is_empty() && !self.is_capped();
        !self.log.queue.is_empty() || background
    }

    /// Whether an op that starts now is to be timed. Not where background ops that were let in
    /// before are still in its way although it is to be seen how long it takes without.
    pub(super) fn times(&self, class: Class) -> bool {
        let disturbed = self.governor.probing && self.background_in_flight > 1;
        class != Class::Background && self.governor.adaptive && !disturbed
    }

    /// An op that is counted has started.
    pub(super) fn op_started(&mut self, class: Class) {
        if class == Class::Background {
            self.background_in_flight += 1;
            self.watching = true;
        } else {
            self.governor.background_alone = 0;
        }
    }

    /// An op that is counted has completed, for the first time; `took_ns` if it was timed.
    pub(super) fn op_ended(&mut self, class: Class, took_ns: Option<u64>) {
        if class == Class::Background {
            self.background_in_flight -= 1;
            self.governor.background_alone = self.governor.background_alone.saturating_add(1);
            self.look_again();
        } else if let Some(took_ns) = took_ns {
            self.governor.sample(took_ns);
        }
    }
}

impl<R: Ring> Core<R> {
    /// Room for views of `class`.
    pub(super) fn room_in(&self, class: Class) -> usize {
        match class {
            Class::Log => self.classes.log.room(),
            Class::Foreground => self.unreserved_room(),
            Class::Background => self.classes.background.room(),
        }
    }

    /// Whether another view of `class` is accepted.
    pub(super) fn has_room_in(&self, class: Class) -> bool {
        match class {
            Class::Log => self.classes.log.reserved > 0 || self.classes.log.room() > 0,
            Class::Foreground => self.has_room(),
            Class::Background => {
                let lane = &self.classes.background;
                lane.reserved > 0 || lane.room() > 0
            }
        }
    }

    /// As [`Core::reserve`].
    pub(super) fn reserve_in(&mut self, class: Class, views: usize) -> bool {
        let lane = match class {
            Class::Log => &mut self.classes.log,
            Class::Foreground => return self.reserve(views),
            Class::Background => &mut self.classes.background,
        };
        let fits = views <= lane.room();
        lane.reserved += if fits { views } else { 0 };
        fits
    }

    /// As [`Core::unreserve`].
    pub(super) fn unreserve_in(&mut self, class: Class, views: usize) {
        match class {
            Class::Log => {
                self.classes.log.reserved = self.classes.log.reserved.saturating_sub(views);
            }
            Class::Foreground => self.unreserve(views),
            Class::Background => {
                let lane = &mut self.classes.background;
                lane.reserved = lane.reserved.saturating_sub(views);
            }
        }
    }

    /// Who waits for room for views of `class`.
    pub(super) fn waiting_in(&mut self, class: Class) -> &mut Vec<Waker> {
        match class {
            Class::Log => &mut self.classes.log.waiting,
            Class::Foreground => &mut self.waiting,
            Class::Background => &mut self.classes.background.waiting,
        }
    }

    /// Tells those who wait for room in the queues that have some.
    #[cold]
    pub(super) fn wake_classes(&mut self) {
        while let Some(class) = self.class_to_wake() {
            let mut waiting = std::mem::take(self.waiting_in(class));
            self.endings.extend(waiting.drain(..).map(Ending::Wake));
            *self.waiting_in(class) = waiting;
        }
    }

    /// The next class of which somebody waits although there is room.
    fn class_to_wake(&mut self) -> Option<Class> {
        let classes = [Class::Log, Class::Background];
        classes
            .into_iter()
            .find(|&class| !self.waiting_in(class).is_empty() && self.has_room_in(class))
    }

    fn queue_of(&mut self, class: Class) -> &mut VecDeque<Job> {
        match class {
            Class::Log => &mut self.classes.log.queue,
            Class::Foreground => &mut self.backlog,
            Class::Background => &mut self.classes.background.queue,
        }
    }

    pub(super) fn jobs_in(&self, class: Class) -> usize {
        match class {
            Class::Log => self.classes.log.queue.len(),
            Class::Foreground => self.backlog.len(),
            Class::Background => self.classes.background.queue.len(),
        }
    }

    pub(super) fn job_mut(&mut self, class: Class, at: usize) -> &mut Job {
        &mut self.queue_of(class)[at]
    }

    pub(super) fn remove_job(&mut self, class: Class, at: usize) -> Option<Job> {
        let job = self.queue_of(class).remove(at);
        self.classes.queued -= usize::from(job.is_some() && class != Class::Foreground);
        self.classes.look_again();
        job
    }

    /// Takes the oldest job of `class`.
    pub(super) fn pop_job(&mut self, class: Class) -> Option<Job> {
        let job = self.queue_of(class).pop_front();
        self.classes.queued -= usize::from(job.is_some() && class != Class::Foreground);
        if class == Class::Background {
            self.classes.look_again();
        }
        job
    }

    /// Queues a job of `class`, in front of the others or behind them.
    pub(super) fn queue_job(&mut self, class: Class, job: Job, in_front: bool) {
        let queue = self.queue_of(class);
        if in_front {
            queue.push_front(job);
        } else {
            queue.push_back(job);
        }
        self.classes.queued += usize::from(class != Class::Foreground);
        self.classes.watching |= class == Class::Background;
    }

    /// Starts jobs: all of the log, then the others in proportion.
    pub(super) fn issue_classes(&mut self) {
        while let Some(class) = self.next_class() {
            if self.in_flight > 0 && self.ring.knob(Knob::StopIssuing, 0) != 0 {
                return;
            }
            let Some(job) = self.pop_job(class) else { return };
            let before = job.bytes.len_bytes();
            let rest = self.issue_job(job, class);
            let left = rest.as_ref().map_or(0, |rest| rest.bytes.len_bytes());
            let cost = i64::try_from(before - left.min(before)).unwrap_or(i64::MAX / 2);
            self.charge(class, cost.saturating_add(OP_COST_BYTES));
            if let Some(rest) = rest {
                self.queue_job(class, rest, true);
                if class != Class::Background || !self.classes.is_capped() {
                    return;
                }
            }
        }
    }

    /// Whose turn it is, of those that have something to start.
    fn next_class(&mut self) -> Option<Class> {
        if !self.classes.log.queue.is_empty() {
            return Some(Class::Log);
        }
        let foreground = !self.backlog.is_empty();
        let background = !self.classes.background.queue.is_empty() && !self.classes.is_capped();
        match (foreground, background) {
            (false, false) => None,
            (true, false) => Some(Class::Foreground),
            (false, true) => Some(Class::Background),
            (true, true) => Some(match self.next_by_share() {
                usual if self.ring.knob(Knob::OtherClass, 0) == 0 => usual,
                Class::Foreground => Class::Background,
                _ => Class::Foreground,
            }),
        }
    }

    fn next_by_share(&mut self) -> Class {
        let Classes { credits, shares, .. } = &mut self.classes;
        while credits.iter().all(|&credit| credit <= 0) {
            for (credit, share) in credits.iter_mut().zip(shares.iter()) {
                *credit += share * SHARE_BYTES;
            }
        }
        if credits[0] > 0 { Class::Foreground } else { Class::Background }
    }

    fn charge(&mut self, class: Class, cost_bytes: i64) {
        let at = match class {
            Class::Log => return,
            Class::Foreground => 0,
            Class::Background => 1,
        };
        let most = self.classes.shares[at] * SHARE_BYTES * 64;
        let credit = &mut self.classes.credits[at];
        *credit = credit.saturating_sub(cost_bytes).max(-most);
    }
}

impl Bytes {
    fn len_bytes(&self) -> u64 {
        match self {
            Self::Read(view) => view.len(),
            Self::Write { view, .. } => view.len(),
            Self::Group(group) => u64::from(group.len_bytes()),
            // Its steps are few and its turn is its chance to launch: no bytes are charged.
            Self::Chain(_) | Self::Socket(..) => 0,
        }
    }
}

impl<R: Ring> File<R> {
    /// Whether the next packet of this handle's class is accepted now. Where it is not,
    /// [`PacketIo::send_io`](mfio_core::PacketIo::send_io) and a completion queue give it
    /// back at once, and a future waits; other classes have room of their own.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.shard().inner.core.borrow().has_room_in(self.class())
    }

    /// Sends a view that is not the usual case: of another class than foreground, or timed.
    #[cold]
    pub(super) fn send_in_class(&self, staged: Staged) -> Option<StagedView> {
        let shard = self.shard();
        let class = staged.class;
        let mut core = shard.inner.core.borrow_mut();
        if !core.has_room_in(class) {
            return Some(staged.view);
        }
        core.unreserve_in(class, 1);
        core.accept_single(staged);
        let deliver = core.has_news();
        drop(core);
        if deliver {
            shard.inner.deliver();
        }
        None
    }

    #[cold]
    pub(super) fn send_read_in_class(&self, offset: u64, view: View<Read>) -> Option<View<Read>> {
        let staged = self.staged(offset, StagedView::Read(view), How::PLAIN);
        match self.send_in_class(staged)? {
            StagedView::Read(view) => Some(view),
            StagedView::Write(_) => unreachable!("what comes back is what was sent"),
        }
    }

    #[cold]
    pub(super) fn send_write_in_class(
        &self,
        offset: u64,
        how: How,
        view: View<Write>,
    ) -> Option<View<Write>> {
        let staged = self.staged(offset, StagedView::Write(view), how);
        match self.send_in_class(staged)? {
            StagedView::Write(view) => Some(view),
            StagedView::Read(_) => unreachable!("what comes back is what was sent"),
        }
    }

    pub(super) fn staged(&self, offset_bytes: u64, view: StagedView, how: How) -> Staged {
        Staged { target: self.target(), class: self.class(), offset_bytes, how, view }
    }
}

/// The class of one packet goes with its offset.
macro_rules! in_class {
    ($param:ident, $class:expr, $perms:ident, $send:expr) => {
        impl<R: Ring> mfio_core::PacketIo<$perms, $param> for File<R> {
            fn send_io(
                &self,
                param: $param,
                view: View<$perms>,
            ) -> Result<(), Refused<$perms, $param>> {
                let send: fn(&Self, u64, View<$perms>) -> Option<View<$perms>> = $send;
                send(&self.with_class($class), param.0, view)
                    .map_or(Ok(()), |view| Err(Refused { param, view }))
            }

            fn poll_ready(&self, cx: &mut std::task::Context<'_>) -> std::task::Poll<()> {
                self.with_class($class).poll_room(cx)
            }

            fn reserve(&self, views: usize) -> bool {
                self.shard().inner.core.borrow_mut().reserve_in($class, views)
            }

            fn release(&self, views: usize) {
                self.shard().inner.core.borrow_mut().unreserve_in($class, views);
            }

            fn abandon(&self, packet: mfio_core::PacketId) {
                <Self as mfio_core::PacketIo<$perms, u64>>::abandon(self, packet);
            }
        }
    };
}

in_class!(AsLog, Class::Log, Read, Self::send_read_in_class);
in_class!(AsLog, Class::Log, Write, |file, at, view| file.send_write_in_class(
    at,
    How::PLAIN,
    view
));
in_class!(AsBackground, Class::Background, Read, Self::send_read_in_class);
in_class!(AsBackground, Class::Background, Write, |file, at, view| {
    file.send_write_in_class(at, How::PLAIN, view)
});
