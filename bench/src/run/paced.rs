//! Steps that come when they are due: rates, random arrivals, pauses.
//!
//! Data flow: steps of the generator -> held back until their time -> the worker's loop, which
//! reaps meanwhile. What is due does not depend on what has completed: a stalled device is not
//! asked for less.
//!
//! Not here: waiting itself (`worker`), minimum rates (`conductor`).

use fio_compat::{Pace, ThinkAfter};

use super::flow::Flow;
use super::lane::Lane;
use crate::clock::now_ns;
use crate::generator::{Generator, Step, Steps};
use crate::measure::direction;
use crate::random::Random;

const SECOND_NS: u128 = 1_000_000_000;

/// A generator with a clock.
pub(crate) struct Paced<'a> {
    generator: &'a mut Generator,
    pace: &'a Pace,
    began_ns: u64,
    /// Amounts that were due so far: bytes, or I/Os.
    issued: [u64; 3],
    /// With random arrivals, when the next one is due.
    arrival_ns: [u64; 3],
    random: Random,
    held: Option<Step>,
    /// I/Os since the last pause, and when it ended.
    since_pause: u64,
    paused_ns: u64,
    resumed_ns: u64,
    flow: Flow<'a>,
    ios: u64,
    /// What has completed is published here; more than so many are never in flight.
    lane: &'a Lane,
    depth: u64,
    /// What had completed when the last pause ended; `None` while it goes on.
    completed: Option<u64>,
    /// When the I/O of the last step was due.
    last_due_ns: u64,
    /// `thinkcycles`, and whether they are due.
    spin_ns: u64,
    spins: bool,
}

impl<'a> Paced<'a> {
    /// Begins now.
    pub(crate) fn new(
        generator: &'a mut Generator,
        pace: &'a Pace,
        flow: Flow<'a>,
        (lane, depth): (&'a Lane, u32),
    ) -> Self {
        let began_ns = now_ns();
        Self {
            generator,
            pace,
            began_ns,
            issued: [0; 3],
            arrival_ns: [began_ns; 3],
            random: Random::new(began_ns),
            held: None,
            since_pause: 0,
            paused_ns: 0,
            resumed_ns: began_ns,
            flow,
            ios: 0,
            lane,
            depth: u64::from(depth),
            completed: None,
            last_due_ns: 0,
            spin_ns: cycles_ns(pace.thinkcycles),
            spins: false,
        }
    }

    /// When an I/O of this direction is due.
    fn due_ns(&self, direction: usize) -> u64 {
        let per_second = self.per_second(direction);
        if per_second == 0 {
            return 0;
        }
        if self.pace.poisson {
            return self.arrival_ns[direction];
        }
        let due = u128::from(self.issued[direction]) * SECOND_NS / u128::from(per_second);
        let skipped = if self.pace.rate_ignore_thinktime { self.paused_ns } else { 0 };
        self.began_ns + skipped + u64::try_from(due).unwrap_or(u64::MAX / 2)
    }

    fn per_second(&self, direction: usize) -> u64 {
        self.pace.rate[direction].max(self.pace.rate_iops[direction])
    }

    fn note(&mut self, direction: usize, len_bytes: u32) {
        let by_ios = self.pace.rate_iops[direction] > 0;
        let amount = if by_ios { 1 } else { u64::from(len_bytes) };
        self.issued[direction] += amount;
        self.since_pause += 1;
        self.ios += 1;
        let per_second = self.per_second(direction);
        if self.pace.poisson && per_second > 0 {
            let gap_ns = exponential_ns(&mut self.random, amount, per_second);
            self.arrival_ns[direction] = self.arrival_ns[direction].saturating_add(gap_ns);
        }
    }

    /// Where both directions have a rate, one that is ahead must not hold up the other.
    fn balance(&mut self) -> Option<Step> {
        if !self.generator.is_mixed() || self.per_second(0) == 0 || self.per_second(1) == 0 {
            return None;
        }
        let (read_ns, write_ns, now_ns) = (self.due_ns(0), self.due_ns(1), now_ns());
        match (read_ns <= now_ns, write_ns <= now_ns) {
            (true, true) => {}
            (true, false) => self.generator.force(0),
            (false, true) => self.generator.force(1),
            (false, false) => return Some(Step::Wait { until_ns: read_ns.min(write_ns) }),
        }
        None
    }

    /// The pause that is due after the I/Os so far.
    fn pause(&mut self) -> Option<Step> {
        let pace = self.pace;
        if pace.thinktime_ns == 0 {
            return None;
        }
        let done = match pace.thinktime_after {
            ThinkAfter::Issue => self.since_pause,
            ThinkAfter::Complete => {
                let completed: u64 = self.lane.totals().iter().map(|totals| totals.ios).sum();
                let done = completed - *self.completed.get_or_insert(completed);
                // One that failed is over as well, but not published: a slot is free now, so
                // one less than the depth may be in flight, and all others are over.
                done.max(self.since_pause.saturating_sub(self.depth - 1))
            }
        };
        let counted = pace.thinktime_blocks > 0 && done >= pace.thinktime_blocks;
        let timed = pace.thinktime_iotime_ns > 0
            && now_ns().saturating_sub(self.resumed_ns) >= pace.thinktime_iotime_ns;
        if self.since_pause == 0 || !counted && !timed {
            return None;
        }
        (self.since_pause, self.completed) = (0, None);
        self.paused_ns += pace.thinktime_ns;
        self.resumed_ns = now_ns() + pace.thinktime_ns;
        Some(Step::Think {
            spin_ns: pace.thinktime_spin_ns,
            sleep_ns: pace.thinktime_ns - pace.thinktime_spin_ns,
            drain: pace.thinktime_after == ThinkAfter::Complete,
        })
    }
}

/// How long so many cycles take at the clock rate the machine claims.
fn cycles_ns(cycles: u64) -> u64 {
    if cycles == 0 {
        return 0;
    }
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("cpu MHz"));
    let digits = line.and_then(|line| line.split([':', '.']).nth(1)).unwrap_or_default();
    // Where it claims none, a cycle is a nanosecond.
    let mhz = digits.trim().parse().unwrap_or(1000_u64).max(1);
    u64::try_from(u128::from(cycles) * 1000 / u128::from(mhz)).unwrap_or(u64::MAX)
}

/// The gap to the next of random arrivals that come `per_second / amount` times a second.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a time of at most some seconds, in nanoseconds, is exact enough"
)]
fn exponential_ns(random: &mut Random, amount: u64, per_second: u64) -> u64 {
    let uniform = ((random.next() >> 11) as f64 + 1.0) / (1_u64 << 53) as f64;
    (-uniform.ln() * amount as f64 * 1e9 / per_second as f64) as u64
}

impl Steps for Paced<'_> {
    fn step(&mut self) -> Step {
        if self.spins {
            self.spins = false;
            return Step::Think { spin_ns: self.spin_ns, sleep_ns: 0, drain: false };
        }
        if self.held.is_none()
            && let Some(pause) = self.pause()
        {
            return pause;
        }
        if self.flow.is_shared()
            && let Some(wait_ns) = self.flow.wait_ns(self.ios)
        {
            return Step::Wait { until_ns: now_ns() + wait_ns };
        }
        let step = match self.held.take() {
            Some(step) => step,
            None => {
                if let Some(wait) = self.balance() {
                    return wait;
                }
                self.generator.step()
            }
        };
        let Step::Do { operation, len_bytes, .. } = step else { return step };
        self.last_due_ns = 0;
        if operation.is_sync() {
            return step;
        }
        let direction = direction(operation);
        let due_ns = self.due_ns(direction);
        if due_ns > 0 && now_ns() < due_ns {
            self.held = Some(step);
            return Step::Wait { until_ns: due_ns };
        }
        self.last_due_ns = due_ns;
        self.spins = self.spin_ns > 0;
        self.note(direction, len_bytes);
        step
    }

    fn scheduled_ns(&self) -> u64 {
        self.last_due_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_process_poisson_has_the_mean_and_the_spread_of_random_arrivals() {
        let mut random = Random::new(3);
        let gaps: Vec<u64> = (0..20_000).map(|_| exponential_ns(&mut random, 1, 1000)).collect();
        let mean = gaps.iter().sum::<u64>() / 20_000;
        assert!((980_000..1_020_000).contains(&mean), "{mean}");
        let long = gaps.iter().filter(|gap| **gap > 3_000_000).count();
        assert!((850..1150).contains(&long), "{long}: e^-3 of them are longer than three means");
    }
}
