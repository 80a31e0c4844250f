//! Timers: moments at which somebody is woken, and the future that waits for one.
//!
//! Data flow: [`Sleep`] polled → [`Timers`], a heap by time → the earliest bounds the wait of
//! the ring (`core`) → due after a turn → its waker is delivered with the other endings. A
//! shard that only waits for a timer sleeps in its ring and uses no processor.
//!
//! Not here: what is to be given up when a deadline passes (`bounded`, `batch`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::alarm::Alarm;
use super::bell::Bell;
use super::core::{Core, Ending};
use super::enter::Stop;
use super::{Inner, Shard};
use crate::ring::{Ring, Wait};

/// A moment somebody waits for.
#[derive(Debug)]
struct Timer {
    at_ns: u64,
    /// Timers of the same moment fire in the order in which they were set.
    order: u64,
    /// Where in the heap it is; meaningless once it has fired.
    position: usize,
    fired: bool,
    waker: Option<Waker>,
}

/// All timers of a shard: a binary heap whose entries know where they are, so that one that
/// is no longer needed leaves at once instead of piling up until its time.
#[derive(Debug, Default)]
pub(super) struct Timers {
    table: Vec<Timer>,
    free: Vec<usize>,
    /// Indices into the table, the earliest first.
    heap: Vec<usize>,
    set: u64,
    /// Somebody's event loop drives, which only an alarm can tell of a moment.
    hosted: bool,
    alarm: Option<Alarm>,
}

impl Timers {
    /// When the earliest timer is due.
    #[inline]
    pub(super) fn next_ns(&self) -> Option<u64> {
        self.heap.first().map(|&at| self.table[at].at_ns)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Sets a timer; it is given back with [`Timers::remove`].
    fn set(&mut self, at_ns: u64, waker: Option<Waker>) -> usize {
        self.set += 1;
        let position = self.heap.len();
        let timer = Timer { at_ns, order: self.set, position, fired: false, waker };
        let at = match self.free.pop() {
            Some(at) => {
                self.table[at] = timer;
                at
            }
            None => {
                self.table.push(timer);
                self.table.len() - 1
            }
        };
        self.heap.push(at);
        self.sift_up(position);
        at
    }

    /// Whether the timer has fired; else `waker` takes the place of the last one.
    fn poll(&mut self, at: usize, waker: &mut Option<Waker>) -> bool {
        let timer = &mut self.table[at];
        if !timer.fired {
            std::mem::swap(&mut timer.waker, waker);
        }
        timer.fired
    }

    /// Forgets a timer, fired or not. Its waker is to be dropped when nothing is borrowed.
    fn remove(&mut self, at: usize) -> Option<Waker> {
        if !self.table[at].fired {
            self.leave_heap(self.table[at].position);
        }
        self.free.push(at);
        self.table[at].waker.take()
    }

    /// Fires every timer that is due at `now_ns`.
    fn fire(&mut self, now_ns: u64, endings: &mut Vec<Ending>) {
        while let Some(&at) = self.heap.first()
            && self.table[at].at_ns <= now_ns
        {
            self.leave_heap(0);
            let timer = &mut self.table[at];
            timer.fired = true;
            endings.extend(timer.waker.take().map(Ending::Wake));
        }
    }

    /// Whether a host drives the shard.
    pub(super) const fn is_hosted(&self) -> bool {
        self.hosted
    }

    /// The shard blocks in its ring from now on, bounded by the earliest timer.
    pub(super) fn block(&mut self) {
        self.hosted = false;
    }

    /// A host drives the shard from now on, and has the alarm set for the earliest timer.
    /// False where the host must come back at once: something is due, or there is no alarm.
    pub(super) fn host(&mut self, bell: &Arc<Bell>, now_ns: impl FnOnce() -> u64) -> bool {
        self.hosted = true;
        let Some(at_ns) = self.next_ns() else { return true };
        let now_ns = now_ns();
        if at_ns <= now_ns {
            return false;
        }
        if self.alarm.is_none() {
            self.alarm = Alarm::new(bell);
        }
        self.alarm.as_ref().map(|alarm| alarm.set(at_ns, now_ns)).is_some()
    }

    fn leave_heap(&mut self, position: usize) {
        self.heap.swap_remove(position);
        if let Some(&moved) = self.heap.get(position) {
            self.table[moved].position = position;
            self.sift_up(position);
            self.sift_down(self.table[moved].position);
        }
    }

    fn is_before(&self, a: usize, b: usize) -> bool {
        let key = |position: usize| {
            let timer = &self.table[self.heap[position]];
            (timer.at_ns, timer.order)
        };
        key(a) < key(b)
    }

    fn exchange(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.table[self.heap[a]].position = a;
        self.table[self.heap[b]].position = b;
    }

    fn sift_up(&mut self, mut position: usize) {
        while position > 0 && self.is_before(position, (position - 1) / 2) {
            self.exchange(position, (position - 1) / 2);
            position = (position - 1) / 2;
        }
    }

    fn sift_down(&mut self, mut position: usize) {
        loop {
            let mut first = position;
            for child in [2 * position + 1, 2 * position + 2] {
                if child < self.heap.len() && self.is_before(child, first) {
                    first = child;
                }
            }
            if first == position {
                return;
            }
            self.exchange(position, first);
            position = first;
        }
    }
}

impl<R: Ring> Inner<R> {
    /// Where a host drives: sees to it that the host learns of the earliest timer. False where
    /// it must come back at once.
    fn sets_alarm(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let Core { timers, ring, .. } = &mut *core;
        !timers.hosted || timers.host(self.tasks.bell(), || ring.now_ns())
    }

    /// As `sets_alarm`, at the end of a drive by a host.
    pub(super) fn leaves_to_host(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let Core { timers, ring, .. } = &mut *core;
        timers.host(self.tasks.bell(), || ring.now_ns())
    }
}

impl<R: Ring> Core<R> {
    /// As `enter`, where there may be something else to wait for than completions.
    #[cold]
    #[inline(never)]
    pub(super) fn enter_with_moments(&mut self, wait: Wait) -> Result<(), Stop> {
        // With nothing in flight there are only moments to wait for, retries and timers, and
        // wakes from elsewhere.
        let due_ns = self.due_ns();
        let idles = self.may_idle && self.slots.occupied() == 0 && !self.has_work();
        let asleep = idles || due_ns.is_some();
        let most = self.in_flight.max(u32::from(asleep));
        let mut wait = Wait { min: wait.min.min(most), ..wait };
        if let Some(due) = due_ns
            && wait.min > 0
        {
            wait.deadline_ns = Some(wait.deadline_ns.map_or(due, |other| other.min(due)));
        }
        // Whatever is to be issued may wait for room in a queue where only cancels are left.
        let empty = self.in_flight == 0 && self.ring.reserve(self.ring.limits().sq_entries);
        if empty && !self.watched && (wait.min == 0 || !asleep) {
            return Ok(());
        }
        self.enter_ring(wait)
    }

    /// When there is something to do although no op completes: a retry or a timer.
    #[inline]
    pub(super) fn due_ns(&self) -> Option<u64> {
        // Not in the order of time: one that was refused often waits long.
        let retry_ns = self.retries.iter().map(|retry| retry.not_before_ns).min();
        match (retry_ns, self.timers.next_ns()) {
            (Some(retry_ns), Some(timer_ns)) => Some(retry_ns.min(timer_ns)),
            (retry_ns, timer_ns) => retry_ns.or(timer_ns),
        }
    }

    /// Fires what is due. Looks at the clock only where a timer is set.
    #[cold]
    pub(super) fn fire_timers(&mut self) {
        let now_ns = self.ring.now_ns();
        self.timers.fire(now_ns, &mut self.endings);
    }
}

/// Resolves at a moment of the shard's clock; see [`Shard::sleep_until`].
///
/// # Cancel safety
/// Dropping it forgets the timer at once.
#[must_use = "no time passes before the first poll"]
pub struct Sleep<R: Ring> {
    shard: Shard<R>,
    at_ns: u64,
    timer: Option<usize>,
}

impl<R: Ring> Sleep<R> {
    pub(super) fn new(shard: &Shard<R>, at_ns: u64) -> Self {
        Self { shard: shard.clone(), at_ns, timer: None }
    }

    /// The moment waited for, in nanoseconds of [`Shard::now_ns`].
    #[must_use]
    pub const fn at_ns(&self) -> u64 {
        self.at_ns
    }
}

impl<R: Ring> Future for Sleep<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned before and dropped after the shard is borrowed: either may run anything.
        let mut waker = Some(cx.waker().clone());
        let at_ns = self.at_ns;
        let (timer, fired) = {
            let mut core = self.shard.inner.core.borrow_mut();
            match self.timer {
                Some(at) if core.timers.poll(at, &mut waker) => {
                    // It has no waker any more.
                    let _fired = core.timers.remove(at);
                    (None, true)
                }
                Some(at) => (Some(at), false),
                None if core.ring.now_ns() >= at_ns => (None, true),
                None => (Some(core.timers.set(at_ns, waker.take())), false),
            }
        };
        drop(waker);
        self.timer = timer;
        // The host may have driven already, when there was no such timer yet.
        if !fired && !self.shard.inner.sets_alarm() {
            cx.waker().wake_by_ref();
        }
        if fired { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<R: Ring> Drop for Sleep<R> {
    fn drop(&mut self) {
        if let Some(at) = self.timer {
            let waker = self.shard.inner.core.borrow_mut().timers.remove(at);
            drop(waker);
        }
    }
}

impl<R: Ring> fmt::Debug for Sleep<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("at_ns", &self.at_ns).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the plain definition: a sorted list of what is set.
        #[test]
        fn timers_fire_in_order_and_removed_ones_never(
            steps in prop::collection::vec((0_u8..4, 0_u64..1000), 1..300),
        ) {
            let mut timers = Timers::default();
            let mut set: Vec<(u64, usize)> = Vec::new();
            let mut endings = Vec::new();
            let mut now_ns = 0;
            for (step, value) in steps {
                match step {
                    0 | 1 => set.push((now_ns + value, timers.set(now_ns + value, None))),
                    2 if !set.is_empty() => {
                        let at = usize::try_from(value).unwrap() % set.len();
                        let (_, timer) = set.swap_remove(at);
                        let _waker = timers.remove(timer);
                    }
                    _ => {
                        now_ns += value / 4;
                        timers.fire(now_ns, &mut endings);
                        for (at_ns, timer) in &set {
                            let fired = timers.poll(*timer, &mut None);
                            prop_assert_eq!(fired, *at_ns <= now_ns);
                        }
                        set.retain(|(at_ns, timer)| {
                            let fired = *at_ns <= now_ns;
                            if fired {
                                let _waker = timers.remove(*timer);
                            }
                            !fired
                        });
                    }
                }
                prop_assert_eq!(timers.next_ns(), set.iter().map(|(at_ns, _)| *at_ns).min());
                prop_assert_eq!(timers.heap.len(), set.len());
            }
        }
    }
}
