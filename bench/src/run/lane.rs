//! What one worker and the conductor tell each other, and nothing else is shared between them.
//!
//! The conductor orders (record, time is up, abort); the worker reports where it is and what it
//! has done so far. One relaxed load per I/O or batch of them on one side, two relaxed stores per
//! batch on the other; no lock.
//!
//! Not here: who decides what when (`conductor`).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::live::Snapshot;

/// What a worker is told. Only ever increases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// Do I/O, record nothing yet.
    WarmUp = 0,
    /// Do I/O and record it.
    Record = 1,
    /// End the main phase; what was written is still verified.
    TimeUp = 2,
    /// End everything.
    Abort = 3,
}

/// The bits of a word that hold the order.
const ORDER_MASK: u32 = 0xff;

/// The clock of the main phases stands still.
const STANDS: u64 = 1 << 63;

/// Where a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Opening and preparing.
    Starting = 0,
    /// In the main phase.
    Running = 1,
    /// Flushing at the end.
    Syncing = 2,
    /// Reading back.
    Verifying = 3,
    /// Done.
    Ended = 4,
}

/// Totals of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// I/Os completed.
    pub(crate) ios: u64,
    /// Bytes transferred.
    pub(crate) bytes: u64,
}

/// The shared state of one worker. Aligned so that two workers never share a cache line.
#[repr(align(128))]
pub(crate) struct Lane {
    /// The order in the lowest byte; above it, how often results so far were asked for.
    word: AtomicU32,
    /// Those results; locked only where they are asked for.
    snapshot: Mutex<Option<Box<Snapshot>>>,
    /// The word at the time of the last delivery.
    answered: AtomicU32,
    stage: AtomicU32,
    started_ns: AtomicU64,
    /// The clock of the main phases: how far it is behind, or with [`STANDS`] what it shows.
    running_clock: AtomicU64,
    /// The job ended with an error.
    failed: AtomicU32,
    /// Reads, writes, trims.
    totals: [(AtomicU64, AtomicU64); 3],
    /// The sum of latencies in nanoseconds, and of how many; only where somebody wants it.
    latency: (AtomicU64, AtomicU64),
    /// The worker has forgotten what it recorded, and the conductor does not know yet.
    restarted: AtomicBool,
}

impl Lane {
    /// A worker that has not started; `warm_up` when it has a ramp time.
    pub(crate) fn new(warm_up: bool) -> Self {
        let order = if warm_up { Order::WarmUp } else { Order::Record };
        Self {
            word: AtomicU32::new(order as u32),
            snapshot: Mutex::new(None),
            answered: AtomicU32::new(0),
            stage: AtomicU32::new(Stage::Starting as u32),
            started_ns: AtomicU64::new(0),
            running_clock: AtomicU64::new(0),
            failed: AtomicU32::new(0),
            totals: Default::default(),
            latency: Default::default(),
            restarted: AtomicBool::new(false),
        }
    }

    /// Whether nothing new was said since `known` was read: one load and one comparison.
    #[inline]
    pub(crate) fn is_still(&self, known: u32) -> bool {
        self.word.load(Relaxed) == known
    }

    /// What was said so far, for [`Lane::is_still`] and [`Lane::asks_since`].
    pub(crate) fn word(&self) -> u32 {
        self.word.load(Relaxed)
    }

    /// Whether results were asked for between two words.
    pub(crate) const fn asks_since(earlier: u32, now: u32) -> bool {
        (earlier ^ now) & !ORDER_MASK != 0
    }

    /// The order in force.
    pub(crate) fn order(&self) -> Order {
        match self.word.load(Relaxed) & ORDER_MASK {
            0 => Order::WarmUp,
            1 => Order::Record,
            2 => Order::TimeUp,
            _ => Order::Abort,
        }
    }

    /// Gives an order; an earlier, stronger one stays in force.
    pub(crate) fn give(&self, order: Order) {
        let mut word = self.word.load(Relaxed);
        while word & ORDER_MASK < order as u32 {
            let stronger = (word & !ORDER_MASK) | order as u32;
            match self.word.compare_exchange_weak(word, stronger, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(newer) => word = newer,
            }
        }
    }

    /// Asks for the results so far; the worker delivers when it next looks.
    pub(crate) fn ask(&self) {
        self.word.fetch_add(ORDER_MASK + 1, Relaxed);
    }

    /// Delivers results so far.
    pub(crate) fn deliver(&self, snapshot: Snapshot) {
        let mut delivered = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        *delivered = Some(Box::new(snapshot));
        self.answered.store(self.word(), Relaxed);
    }

    /// Whether results were delivered since they were asked for last, or the worker has ended.
    pub(crate) fn has_answered(&self) -> bool {
        let answered = self.answered.load(Relaxed);
        self.stage() == Stage::Ended || !Self::asks_since(answered, self.word())
    }

    /// The results delivered last.
    pub(crate) fn snapshot(&self) -> Option<Box<Snapshot>> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the worker is.
    pub(crate) fn stage(&self) -> Stage {
        match self.stage.load(Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Running,
            2 => Stage::Syncing,
            3 => Stage::Verifying,
            _ => Stage::Ended,
        }
    }

    /// Notes where the worker is, which is the only one to do so.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.store(stage as u32, Relaxed);
        let (clock, now_ns) = (self.running_clock.load(Relaxed), crate::clock::now_ns());
        match (clock & STANDS != 0, stage <= Stage::Running) {
            (true, true) => self.running_clock.store(now_ns - (clock & !STANDS), Relaxed),
            (false, false) => self.running_clock.store(STANDS | (now_ns - clock), Relaxed),
            _ => {}
        }
    }

    /// `now_ns` by a clock that goes in main phases only; `None` where it stands still.
    pub(crate) fn running_ns(&self, now_ns: u64) -> Option<u64> {
        let clock = self.running_clock.load(Relaxed);
        (clock & STANDS == 0).then(|| now_ns.saturating_sub(clock))
    }

    /// When the main phase began; `None` before that.
    pub(crate) fn started_ns(&self) -> Option<u64> {
        Some(self.started_ns.load(Relaxed)).filter(|started| *started != 0)
    }

    /// Notes when the main phase began.
    pub(crate) fn start(&self, now_ns: u64) {
        self.started_ns.store(now_ns.max(1), Relaxed);
    }

    /// Notes that the job failed.
    pub(crate) fn fail(&self) {
        self.failed.store(1, Relaxed);
    }

    /// Notes that the job is slower than it has to be, which ends it.
    pub(crate) fn fail_slow(&self) {
        self.failed.store(2, Relaxed);
        self.give(Order::Abort);
    }

    /// Whether that was noted.
    pub(crate) fn is_slow(&self) -> bool {
        self.failed.load(Relaxed) == 2
    }

    /// Whether the job failed.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed) != 0
    }

    /// Publishes what was done since the start, ramp time included.
    #[inline]
    pub(crate) fn publish(&self, totals: &[Totals; 3]) {
        for (shared, own) in self.totals.iter().zip(totals) {
            shared.0.store(own.ios, Relaxed);
            shared.1.store(own.bytes, Relaxed);
        }
    }

    /// Publishes the sum of latencies since the start, and of how many I/Os.
    pub(crate) fn publish_latency(&self, sum_ns: u64, count: u64) {
        self.latency.0.store(sum_ns, Relaxed);
        self.latency.1.store(count, Relaxed);
    }

    /// That sum, and that number.
    pub(crate) fn latency(&self) -> (u64, u64) {
        (self.latency.0.load(Relaxed), self.latency.1.load(Relaxed))
    }

    /// Notes that recording has begun anew.
    pub(crate) fn note_restart(&self) {
        self.restarted.store(true, Relaxed);
    }

    /// Whether it has since this was asked last.
    pub(crate) fn take_restart(&self) -> bool {
        self.restarted.load(Relaxed) && self.restarted.swap(false, Relaxed)
    }

    /// What was done since the start: reads, writes, trims.
    pub(crate) fn totals(&self) -> [Totals; 3] {
        let load = |index: usize| {
            let shared: &(AtomicU64, AtomicU64) = &self.totals[index];
            Totals { ios: shared.0.load(Relaxed), bytes: shared.1.load(Relaxed) }
        };
        [load(0), load(1), load(2)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_that_were_asked_for_leave_the_order_alone() {
        let lane = Lane::new(false);
        let before = lane.word();
        assert!(lane.is_still(before));
        lane.ask();
        let asked = lane.word();
        assert!(Lane::asks_since(before, asked) && !lane.is_still(before));
        lane.give(Order::TimeUp);
        assert!(!Lane::asks_since(asked, lane.word()) && !lane.is_still(asked));
        assert_eq!(lane.order(), Order::TimeUp);
    }

    #[test]
    fn clock_of_main_phases_stands_still_outside_them() {
        let lane = Lane::new(false);
        let shows = || lane.running_ns(crate::clock::now_ns());
        lane.enter(Stage::Running);
        let before = shows().unwrap();
        lane.enter(Stage::Verifying);
        assert_eq!(shows(), None);
        let left_ns = crate::clock::now_ns();
        while crate::clock::now_ns() < left_ns + 5_000_000 {}
        lane.enter(Stage::Syncing);
        lane.enter(Stage::Running);
        let behind_ns = crate::clock::now_ns() - shows().unwrap();
        assert!(shows().unwrap() >= before && behind_ns >= 5_000_000, "{behind_ns}");
    }

    #[test]
    fn stronger_order_stays_in_force() {
        let lane = Lane::new(true);
        assert_eq!(lane.order(), Order::WarmUp);
        lane.give(Order::Abort);
        lane.give(Order::TimeUp);
        assert_eq!(lane.order(), Order::Abort);
    }
}
