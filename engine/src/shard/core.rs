//! The state of a shard.
//!
//! Data flow: jobs → backlog → slots and ring → completions → endings, which are delivered by
//! [`super::Shard`] when the state is no longer borrowed: completing wakes, and the woken may
//! send again.
//!
//! Not here: one turn of it (`turn`), cutting and pushing (`issue`), judging completions (`reap`),
//! flushes (`flush`).

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use mfio_core::{CompletionBatch, Error, ErrorKind, Read, RegionId, View, Write};
use nix::errno::Errno;

use super::barrier::Epoch;
use super::body::Body;
use super::bypass::{BypassMode, Timed};
use super::chain_table::{ChainId, Chains};
use super::class::Classes;
use super::durable::How;
use super::flush::Tickets;
use super::group::Group;
use super::lanes::{SocketId, SocketTable, Way};
use super::lone::LoneWay;
use super::names::NameTable;
use super::regions::Regions;
use super::rest::{self, Rest};
use super::slot::{Occupant, Slots};
use super::tasks::PlaceWakers;
use super::timer::Timers;
use crate::buffer::{Arena, Pieces};
use crate::config::Config;
use crate::metrics::{Metrics, Published, Stamps};
use crate::process::Process;
use crate::ring::{Completion, Plant, Ring, Tag};
use crate::target::Targets;

/// A view that has been accepted and not been cut into ops to its end.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) target: u32,
    pub(super) offset_bytes: u64,
    pub(super) bytes: Bytes,
}

/// The rest of an accepted view.
#[derive(Debug)]
pub(super) enum Bytes {
    Read(View<Read>),
    Write {
        view: View<Write>,
        epoch: Epoch,
        how: How,
    },
    /// A chain that waits for room. It keeps its targets by itself.
    Chain(ChainId),
    /// Neighbours that go as one op.
    Group(Box<Group>),
    /// A direction of a connection, or a wait for one.
    Socket(SocketId, Way),
}

/// A result on its way out of the shard that is not plain success.
#[derive(Debug)]
pub(super) enum Ending {
    Part(Body, u64, Error),
    Failed(Body, Error),
    FailedRead(View<Read>, Error),
    FailedWrite(View<Write>, Error),
    Wake(Waker),
}

impl Ending {
    #[cold]
    pub(super) fn deliver(self) {
        match self {
            Self::Part(body, bytes, error) => body.finish_part(bytes, error),
            Self::Failed(body, error) => body.fail(error),
            Self::FailedRead(view, error) => view.fail(error),
            Self::FailedWrite(view, error) => view.fail(error),
            Self::Wake(waker) => waker.wake(),
        }
    }
}

/// An op that is to be pushed again, not before its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub(super) tag: Tag,
    pub(super) not_before_ns: u64,
}

pub(super) struct Core<R: Ring> {
    pub(super) ring: R,
    pub(super) slots: Slots,
    pub(super) targets: Targets,
    pub(super) arena: Arena,
    pub(super) arena_id: RegionId,
    /// The arena's, if all of it is registered; else nobody's: see `straight`.
    pub(super) fixed_id: RegionId,
    pub(super) arena_pieces: Pieces,
    /// What is not registered of the arena, because its pages are not there yet.
    pub(super) rest: Option<Rest>,
    /// How many foreground views may start with nothing looked at but themselves: see `cell`.
    pub(super) credit: u32,
    /// Since the last turn nothing has happened but views starting on credit: see `turn`.
    pub(super) undisturbed: bool,
    pub(super) backlog: VecDeque<Job>,
    backlog_max: usize,
    /// Room in the backlog that is promised to somebody.
    pub(super) reserved: usize,
    pub(super) retries: VecDeque<Retry>,
    pub(super) tickets: Tickets,
    /// What has been transferred in full and is to be delivered.
    pub(super) done: Vec<Body>,
    /// Whom to tell on the spot that an op is over.
    pub(super) place_wakers: PlaceWakers,
    /// What this turn has delivered to queues that are to be told.
    pub(super) told: CompletionBatch,
    pub(super) endings: Vec<Ending>,
    /// Who waits for room in the backlog.
    pub(super) waiting: Vec<Waker>,
    /// Ops handed to the ring and not reaped.
    pub(super) in_flight: u32,
    pub(super) completions: Vec<Completion>,
    pub(super) metrics: Metrics,
    /// Where other threads read the metrics.
    pub(super) published: Arc<Published>,
    pub(super) closing: bool,
    /// Closing, or broken: nothing is accepted.
    pub(super) refuses: bool,
    /// Some op is to be cancelled, and the ring had no room to be asked.
    pub(super) cancels_owed: bool,
    pub(super) drain_ns: u64,
    /// A wait with nothing in flight is for a wake from elsewhere.
    pub(super) may_idle: bool,
    /// A host watches the ring's descriptor, so the ring is looked at even with nothing in
    /// flight.
    pub(super) watched: bool,
    /// Why the ring takes no more calls, once that is so.
    pub(super) broken: Option<Errno>,
    /// What is registered besides the arena.
    pub(super) regions: Regions,
    pub(super) chains: Chains,
    /// Apart, so that it is in nobody's way who has none.
    pub(super) sockets: Box<SocketTable>,
    pub(super) names: Box<NameTable>,
    pub(super) bypass: BypassMode,
    /// Some target's lone ops have, or had, another way than the ring.
    pub(super) lone_ways: bool,
    /// The straight way of a lone op: see `lone`.
    pub(super) lone: LoneWay,
    /// The lone op that is being timed.
    pub(super) timed: Option<Timed>,
    pub(super) timers: Timers,
    /// Groups that are not in use, for the next ones.
    #[allow(clippy::vec_box, reason = "a slot holds a pointer to one, to stay small")]
    pub(super) groups: Vec<Box<Group>>,
    pub(super) coalesce: bool,
    pub(super) bisect_reads: bool,
    /// What a device has said of the op that is being judged; 0 for nothing.
    pub(super) device_status: u16,
    pub(super) classes: Classes,
    /// Whose ring this is: a forked child leaves it alone (F26).
    pub(super) process: Process,
}

impl<R: Ring> Core<R> {
    pub(super) fn new(mut ring: R, arena: Arena, config: &Config) -> Self {
        let rest = rest::register(&mut ring, &arena);
        let limits = ring.limits();
        let slots = match ring.plant(Plant::IgnoreOverflow) {
            false => config.in_flight_max.min(limits.cq_entries),
            true => config.in_flight_max,
        };
        let published = Arc::new(Published::new(config));
        let stamps = config.latency.then(|| Stamps::new(slots, Arc::clone(&published)));
        Self {
            slots: Slots::new(slots, stamps),
            targets: Targets::default(),
            arena_id: arena.id(),
            fixed_id: rest::fixed_id(&arena),
            arena_pieces: arena.region().pieces(),
            rest,
            credit: 0,
            undisturbed: false,
            arena,
            // A chain that is launched again goes to the front, room or not.
            backlog: VecDeque::with_capacity(config.backlog_max as usize + slots as usize),
            backlog_max: config.backlog_max as usize,
            reserved: 0,
            retries: VecDeque::with_capacity(slots as usize),
            tickets: Tickets::default(),
            place_wakers: PlaceWakers::NONE,
            told: CompletionBatch::new(),
            done: Vec::with_capacity(slots as usize + config.backlog_max as usize),
            endings: Vec::with_capacity(slots as usize + config.backlog_max as usize),
            waiting: Vec::new(),
            in_flight: 0,
            completions: Vec::with_capacity(limits.cq_entries as usize),
            metrics: Metrics::default(),
            published,
            closing: false,
            refuses: false,
            cancels_owed: false,
            drain_ns: config.drain_ns,
            may_idle: false,
            watched: false,
            broken: None,
            regions: Regions::default(),
            chains: Chains::default(),
            sockets: Box::default(),
            names: Box::default(),
            bypass: config.bypass,
            lone_ways: false,
            lone: LoneWay::Closed,
            timed: None,
            timers: Timers::default(),
            groups: Vec::new(),
            coalesce: config.coalesce,
            bisect_reads: config.bisect_reads,
            device_status: 0,
            classes: Classes::new(&config.classes, slots),
            process: Process::current(),
            ring,
        }
    }

    /// Whether something waits to be delivered.
    #[inline]
    pub(super) fn has_news(&self) -> bool {
        !self.done.is_empty() || !self.endings.is_empty()
    }

    /// Whether another view is accepted.
    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.reserved > 0 || self.unreserved_room() > 0
    }

    #[inline]
    pub(super) fn unreserved_room(&self) -> usize {
        let taken = self.backlog.len() + self.targets.waiting_for_flush() + self.reserved;
        self.backlog_max.saturating_sub(taken)
    }

    /// Promises room for `views` views, or not.
    pub(super) fn reserve(&mut self, views: usize) -> bool {
        let fits = views <= self.unreserved_room();
        if fits {
            self.reserved += views;
        }
        fits
    }

    /// A promise was used or given back.
    #[inline]
    pub(super) fn unreserve(&mut self, views: usize) {
        self.reserved = self.reserved.saturating_sub(views);
    }

    /// Why nothing is accepted for reading from, or writing to, `target`, if so.
    #[inline]
    pub(super) fn refusal(&self, target: u32, is_write: bool) -> Option<Error> {
        if self.refuses {
            return Some(ErrorKind::Closed.into());
        }
        if !is_write {
            return None;
        }
        self.targets.get(target).poison_error()
    }

    /// Whether something waits for room in a queue that this turn empties. What fills it may
    /// wait for peers, so no completion would come by which the rest gets there.
    #[cold]
    pub(super) fn is_starved(&mut self) -> bool {
        let queued = self.backlog.len() + self.classes.queued + self.targets.waiting_for_flush();
        let waits = self.cancels_owed || queued > 0 || !self.retries.is_empty();
        waits && !self.ring.reserve(1)
    }

    /// Ends what did not end on the spot; returns how many that were.
    #[cold]
    #[inline(never)]
    pub(super) fn complete_rest(&mut self) -> u32 {
        if let Some(stamps) = &mut self.slots.stamps {
            stamps.reaped(self.ring.now_ns());
        }
        let mut completions = std::mem::take(&mut self.completions);
        for completion in &completions {
            self.complete(*completion);
        }
        let ended = u32::try_from(completions.len()).unwrap_or(u32::MAX);
        completions.clear();
        self.completions = completions;
        if let Some(waker) = self.told.tell() {
            self.endings.push(Ending::Wake(waker));
        }
        ended
    }

    /// Whether ops can be handed to the ring.
    #[inline]
    pub(super) fn is_usable(&self) -> bool {
        self.broken.is_none()
    }

    /// Tells those who wait for room in the backlog that there is some. Room comes from
    /// completions, but also from jobs that were refused or abandoned without one.
    #[inline]
    pub(super) fn wake_waiting(&mut self) {
        if !self.waiting.is_empty() && self.has_room() {
            self.endings.extend(self.waiting.drain(..).map(Ending::Wake));
        }
        if self.classes.somebody_waits() {
            self.wake_classes();
        }
    }

    /// Whether a turn could do something without waiting for a completion first (F28).
    pub(super) fn has_work(&self) -> bool {
        let queued = self.backlog.len() + self.targets.waiting_for_flush();
        let can_issue = (queued > 0 || self.classes.can_issue()) && self.slots.free() > 0;
        can_issue || (self.soon_back() == 0 && !self.retries.is_empty())
    }

    /// Ops in flight that wait for no peer, and have a slot to give back.
    pub(super) fn soon_back(&self) -> usize {
        self.in_flight as usize - self.sockets.in_flight - self.names.in_flight
    }

    /// Whether the ring has ops that no `enter` has taken.
    pub(super) fn has_unsubmitted(&mut self) -> bool {
        let empty = self.ring.limits().sq_entries;
        self.in_flight > 0 && self.is_usable() && !self.ring.reserve(empty)
    }

    /// Whether a turn is due although no completion and no wake would tell: ops whose time
    /// comes, or that could not be queued.
    pub(super) fn owes_a_turn(&mut self) -> bool {
        let queued = self.backlog.len() + self.classes.queued + self.targets.waiting_for_flush();
        let stuck = self.soon_back() == 0 && queued > 0;
        let owed = !self.retries.is_empty() || self.cancels_owed || stuck;
        self.is_usable() && (owed || self.has_unsubmitted())
    }

    /// Whether nothing is accepted, in flight or waiting.
    pub(super) fn is_idle(&self) -> bool {
        let waiting = self.targets.waiting_for_flush() + self.tickets.pending();
        let queued = self.backlog.len() + self.classes.queued;
        let in_ring = self.slots.occupied() + self.sockets.in_flight + self.names.in_flight;
        in_ring == 0 && queued == 0 && waiting == 0 && !self.lone.is_taken()
    }

    /// Ends a job that has not started, or the part of it that has not.
    pub(super) fn fail_job(&mut self, job: Job, error: Error) {
        match job.bytes {
            Bytes::Read(view) => self.endings.push(Ending::FailedRead(view, error)),
            Bytes::Write { view, epoch, .. } => {
                self.targets.get_mut(job.target).barrier.write_ended(epoch);
                self.endings.push(Ending::FailedWrite(view, error));
            }
            Bytes::Chain(id) => return self.end_chain(id, Err(error)),
            // Its packets are its own, and fail with it.
            Bytes::Socket(..) => return,
            Bytes::Group(group) => self.fail_group(group, error),
        }
        self.targets.release(job.target, &mut self.ring);
    }

    /// Accepts nothing more, fails what has not started, and asks the rest to stop.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.refuses = true;
        self.fail_queued();
        for (_, occupant) in self.slots.iter_mut() {
            if let Occupant::Transfer(transfer) = occupant {
                transfer.cancel_requested = true;
            }
        }
        self.end_sockets();
        self.end_names();
        self.send_cancels();
    }
}
