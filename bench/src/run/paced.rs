//! Steps that come when they are due: rates, random arrivals, pauses.
//!
//! Data flow: steps of the generator -> held back until their time -> the worker's loop, which
//! reaps meanwhile. What is due does not depend on what has completed: a stalled device is not
//! asked for less.
//!
//! Not here: waiting itself (`worker`), minimum rates (`conductor`).

use fio_compat::{Pace, ThinkAfter};

use super::flow::Flow;
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
}

impl<'a> Paced<'a> {
    /// Begins now.
    pub(crate) fn new(generator: &'a mut Generator, pace: &'a Pace, flow: Flow<'a>) -> Self {
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
        let counted = self.since_pause >= pace.thinktime_blocks;
        let timed = pace.thinktime_iotime_ns == 0
            || now_ns().saturating_sub(self.resumed_ns) >= pace.thinktime_iotime_ns;
        let due = if pace.thinktime_iotime_ns > 0 { timed } else { counted };
        if pace.thinktime_ns == 0 || self.since_pause == 0 || !due {
            return None;
        }
        self.since_pause = 0;
        self.paused_ns += pace.thinktime_ns;
        self.resumed_ns = now_ns() + pace.thinktime_ns;
        Some(Step::Think {
            spin_ns: pace.thinktime_spin_ns,
            sleep_ns: pace.thinktime_ns - pace.thinktime_spin_ns,
            drain: pace.thinktime_after == ThinkAfter::Complete,
        })
    }
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
        if operation.is_sync() {
            return step;
        }
        let direction = direction(operation);
        let due_ns = self.due_ns(direction);
        if due_ns > 0 && now_ns() < due_ns {
            self.held = Some(step);
            return Step::Wait { until_ns: due_ns };
        }
        self.note(direction, len_bytes);
        step
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
