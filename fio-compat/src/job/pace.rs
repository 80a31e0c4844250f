//! How fast a job goes: rates and pauses.
//!
//! Data flow: `options` parses text into these -> the bench's pacing follows them.
//!
//! Not here: how long a job runs (`job`), the depth (`job`).

use crate::error::ParseError;

use super::Job;

/// What thinktime_blocks counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThinkAfter {
    /// Completed I/Os.
    #[default]
    Complete,
    /// I/Os that were started.
    Issue,
}

/// Everything about speed, for one job. Triples are reads, writes, trims; 0 is no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pace {
    /// At most so many bytes per second.
    pub rate: [u64; 3],
    /// At most so many I/Os per second.
    pub rate_iops: [u64; 3],
    /// Fail below so many bytes per second.
    pub rate_min: [u64; 3],
    /// Fail below so many I/Os per second.
    pub rate_iops_min: [u64; 3],
    /// The time over which those are judged.
    pub rate_cycle_ns: u64,
    /// Exponential instead of equal gaps.
    pub poisson: bool,
    /// A pause does not have to be caught up with.
    pub rate_ignore_thinktime: bool,
    /// Pause after a number of I/Os.
    pub thinktime_ns: u64,
    /// Part of the pause that is spent spinning.
    pub thinktime_spin_ns: u64,
    /// I/Os before a pause; 0 where only `thinktime_iotime_ns` counts.
    pub thinktime_blocks: u64,
    /// What those are.
    pub thinktime_after: ThinkAfter,
    /// Time of I/O before a pause; 0 counts I/Os alone.
    pub thinktime_iotime_ns: u64,
    /// CPU cycles to spin after each I/O.
    pub thinkcycles: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: [0; 3],
            rate_iops: [0; 3],
            rate_min: [0; 3],
            rate_iops_min: [0; 3],
            rate_cycle_ns: 1_000_000_000,
            poisson: false,
            rate_ignore_thinktime: false,
            thinktime_ns: 0,
            thinktime_spin_ns: 0,
            thinktime_blocks: 1,
            thinktime_after: ThinkAfter::default(),
            thinktime_iotime_ns: 0,
            thinkcycles: 0,
        }
    }
}

impl Pace {
    /// Whether I/Os have a schedule.
    #[must_use]
    pub fn has_rate(&self) -> bool {
        self.rate != [0; 3] || self.rate_iops != [0; 3]
    }

    /// Whether the time of an I/O's start is a matter of the clock.
    #[must_use]
    pub fn is_paced(&self) -> bool {
        self.has_rate() || self.thinktime_ns > 0 || self.thinkcycles > 0
    }
}

impl Job {
    /// Settles what pauses come after, and refuses rates that contradict one another.
    pub(super) fn check_pace(&mut self) -> Result<(), ParseError> {
        if self.pace.thinktime_iotime_ns > 0 && !self.is_set("thinktime_blocks") {
            // The default of one I/O would always come first.
            self.pace.thinktime_blocks = 0;
        }
        let pace = &self.pace;
        for direction in 0..3 {
            if pace.rate[direction] > 0 && pace.rate_iops[direction] > 0 {
                let error = self.error("rate_iops", "rate and rate_iops exclude each other");
                return Err(error.with_remedy("give one of them"));
            }
            let (rate, least) = (pace.rate[direction], pace.rate_min[direction]);
            if rate > 0 && least > rate {
                return Err(self.error("rate_min", "rate_min is above rate"));
            }
            let (rate, least) = (pace.rate_iops[direction], pace.rate_iops_min[direction]);
            if rate > 0 && least > rate {
                return Err(self.error("rate_iops_min", "rate_iops_min is above rate_iops"));
            }
        }
        let parts = self.content.verify_backlog > 0 || self.content.verify_only;
        if parts && (pace.is_paced() || self.control.flow > 0) {
            let message = "rates, thinktime and flow do not go with verify_backlog or verify_only";
            let option = ["rate", "rate_iops", "thinktime", "flow"].into_iter();
            let option = option.into_iter().find(|option| self.is_set(option)).unwrap_or("rate");
            return Err(self.error(option, message).with_remedy("verify in a job of its own"));
        }
        let flushes = [self.fsync, self.fdatasync, self.durability.sync_file_range.every];
        if flushes.iter().filter(|every| **every > 0).count() > 1 {
            let message = "fsync, fdatasync and sync_file_range exclude one another";
            return Err(self.error("fsync", message).with_remedy("give one of them"));
        }
        if pace.thinktime_spin_ns > pace.thinktime_ns {
            return Err(self.error("thinktime_spin", "thinktime_spin is longer than thinktime"));
        }
        Ok(())
    }
}
