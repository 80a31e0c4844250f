//! A worker whose I/Os are judged: limits, goals, schedules.
//!
//! Data flow: a completed I/O -> `Judge` -> the job fails, ends, or uses other slots.
//!
//! Not here: what is judged (`judge`), the search for a depth (`depth_search`).

use crate::clock::Baseline;
use crate::ioengine::{Io, IoEngine};
use crate::measure::{Times, direction};
use crate::run::depth_search::Next;
use crate::run::failure::Failure;
use crate::run::judge::Judge;

use super::Worker;

impl<E: IoEngine> Worker<'_, E> {
    /// Judges from now on.
    pub(crate) fn judge_by(&mut self, judge: Box<Judge>) {
        self.recorder.depth_found = judge.goal.as_ref().map(|goal| goal.depth());
        self.judge = Some(judge);
        self.settle_slots();
    }

    /// Notes that the I/O in this slot has a time; when it begins.
    #[inline(never)]
    pub(super) fn begins_ns(&mut self, slot: u32, due_ns: u64, now_ns: u64) -> u64 {
        let Some(judge) = &mut self.judge else { return now_ns };
        judge.due_ns[slot as usize] = due_ns;
        if judge.scheduled { due_ns.min(now_ns) } else { now_ns }
    }

    /// An I/O is over, its slot free; `counts` unless it failed.
    #[inline(never)]
    pub(super) fn judged(&mut self, io: Io, times: Times, counts: bool) {
        let Some(judge) = &mut self.judge else { return };
        let due_ns = std::mem::take(&mut judge.due_ns[io.slot as usize]);
        if counts && !io.operation.is_sync() {
            let took_ns = times.complete_ns.saturating_sub(times.start_ns);
            let direction = direction(io.operation);
            if due_ns > 0 {
                self.recorder.time_intended(direction, times.complete_ns.saturating_sub(due_ns));
            }
            if let Some((sum_ns, count)) = &mut judge.sums {
                *sum_ns = sum_ns.saturating_add(took_ns);
                *count += 1;
                self.lane.publish_latency(*sum_ns, *count);
            }
            let next = judge.goal.as_mut().and_then(|goal| goal.note(took_ns, times.complete_ns));
            if took_ns > judge.most_ns[direction] {
                let most_ns = judge.most_ns[direction];
                self.fail(Failure::late(io, took_ns, most_ns));
            }
            if let Some(next) = next {
                self.follow(next);
            }
        }
        if self.judge.as_ref().is_some_and(|judge| judge.goal.is_some()) {
            self.settle_slots();
        }
    }

    #[cold]
    fn follow(&mut self, next: Next) {
        match next {
            Next::Stay => {}
            Next::Depth(depth) => self.recorder.depth_found = Some(depth),
            Next::Measure => {
                self.recorder.restart();
                self.baseline = Baseline::now();
                self.span.1 = self.baseline.now_ns;
                self.lane.note_restart();
            }
            Next::Found => {
                self.stopping = true;
                // What follows, a flush, has nothing to search for.
                let goal = self.judge.as_mut().and_then(|judge| judge.goal.take());
                self.free.extend(goal.into_iter().flat_map(|goal| goal.withheld));
            }
            Next::Hopeless => {
                let goal = self.judge.as_ref().and_then(|judge| judge.goal.as_ref());
                let why = goal.map(|goal| goal.complaint()).unwrap_or_default();
                self.fail(Failure::hopeless(why));
            }
        }
    }

    /// Withholds as many slots as the depth of the goal leaves over, or gives them back.
    fn settle_slots(&mut self) {
        let Some(goal) = self.judge.as_mut().and_then(|judge| judge.goal.as_mut()) else { return };
        let home = self.free.len() + goal.withheld.len();
        if goal.draining && home < self.slots.len() {
            goal.withheld.append(&mut self.free);
            return;
        }
        goal.draining = false;
        let in_use = self.slots.len() - home;
        let room = (goal.depth() as usize).saturating_sub(in_use);
        while self.free.len() > room {
            goal.withheld.extend(self.free.pop());
        }
        while self.free.len() < room
            && let Some(slot) = goal.withheld.pop()
        {
            self.free.push(slot);
        }
    }
}
