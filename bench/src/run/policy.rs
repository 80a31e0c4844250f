//! Which errors end a job and which do not.
//!
//! Data flow: options of the job -> [`Policy`]; a failed I/O -> [`Verdict`].
//!
//! Not here: what an error looks like in a report (`failure`).

use fio_compat::{Direction, Job};
use nix::libc;

use super::failure::Failure;
use crate::ioengine::Operation;
use crate::measure::direction;

/// What a failed I/O means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The job ends with it.
    Fatal,
    /// The target is full, which is what the job was for.
    Full,
    /// It is counted and reported, and the job goes on.
    Counted,
    /// It is as if nothing had happened.
    Ignored,
}

/// The options about errors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policy {
    /// By direction, trims last.
    continues: [bool; 3],
    /// Whether wrong blocks do not end the job.
    pub(crate) continues_after_mismatch: bool,
    ignored: [Vec<i32>; 3],
    /// Whether ignored errors are printed.
    dumped: bool,
    fills: bool,
    /// `EAGAIN` is an answer.
    nowait: bool,
}

impl Policy {
    /// What `job` says about errors.
    pub(crate) fn of(job: &Job) -> Self {
        let go_on = job.control.continue_on_error;
        Self {
            continues: [go_on.read, go_on.write, go_on.write],
            continues_after_mismatch: go_on.verify,
            ignored: [Direction::Read, Direction::Write, Direction::Verify]
                .map(|direction| job.control.ignored_errors(direction).to_vec()),
            dumped: job.control.error_dump,
            fills: job.workload.fill_device,
            nowait: job.engine.nowait,
        }
    }

    /// What this errno of this operation means.
    pub(crate) fn judge(&self, operation: Operation, errno: i32) -> Verdict {
        let full = errno == libc::ENOSPC || errno == libc::EDQUOT;
        if self.fills && full && operation == Operation::Write {
            return Verdict::Full;
        }
        let direction = direction(operation);
        if direction < 2 && self.ignored[direction].contains(&errno) {
            return if self.dumped { Verdict::Counted } else { Verdict::Ignored };
        }
        if self.continues[direction] { Verdict::Counted } else { Verdict::Fatal }
    }

    /// Whether the same I/O is to be asked for once more.
    pub(crate) const fn asks_again(&self, errno: i32) -> bool {
        errno == libc::EINTR || errno == libc::EAGAIN && !self.nowait
    }

    /// Whether a wrong block is as if nothing had happened.
    pub(crate) fn ignores_mismatch(&self) -> bool {
        self.ignored[2].contains(&fio_compat::report::EILSEQ)
    }
}

/// Errors that did not end the job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Errors {
    /// How many.
    pub(crate) total: u64,
    /// The first one.
    pub(crate) first: Option<Failure>,
    /// Those that `ignore_error` takes for nothing.
    pub(crate) ignored: u64,
}

impl Errors {
    /// Counts one more.
    pub(crate) fn note(&mut self, failure: Failure) {
        self.total += 1;
        self.first.get_or_insert(failure);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_device_ends_without_an_error_when_the_target_is_full() {
        let mut job = Job::new("a");
        assert_eq!(Policy::of(&job).judge(Operation::Write, libc::ENOSPC), Verdict::Fatal);
        job.workload.fill_device = true;
        assert_eq!(Policy::of(&job).judge(Operation::Write, libc::ENOSPC), Verdict::Full);
        assert_eq!(Policy::of(&job).judge(Operation::Write, libc::EIO), Verdict::Fatal);
    }

    #[test]
    fn continue_on_error_and_ignore_error_decide_by_direction() {
        let mut job = Job::new("a");
        job.control.continue_on_error.read = true;
        job.control.ignore_error[1] = vec![libc::EIO];
        let policy = Policy::of(&job);
        assert_eq!(policy.judge(Operation::Read, libc::EIO), Verdict::Counted);
        assert_eq!(policy.judge(Operation::Write, libc::EIO), Verdict::Ignored);
        assert_eq!(policy.judge(Operation::Write, libc::ENOSPC), Verdict::Fatal);
    }
}
