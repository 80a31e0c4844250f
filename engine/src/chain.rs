//! What a chain consists of, and what the completions of one launch of it mean.
//!
//! A launch is a run of linked SQEs. The kernel starts each step when the one before was whole;
//! the first that is not whole ends the launch, and the completion of a later one then says
//! nothing. So every completion is waited for, and they are judged in the order of the steps.
//! `IOSQE_CQE_SKIP_SUCCESS` is not used: after a short step it keeps back the very completions
//! (`ECANCELED`) by which one learns that nothing behind it will run.
//!
//! Pure: no ring, no state of a shard. Data flow: [`Step`] and a result → [`Verdict`] →
//! `shard::chain` goes on, launches again, or ends the chain.
//!
//! Not here: launching and ending (`shard::chain`), what users see (`shard::commit`).

use crate::buffer::{ArenaBuf, MemRange};
use crate::complete::{self, Attempt, Verdict};
use crate::plan::{self, Demands};
use crate::ring::{OpKind, Tag};
use crate::shard::Epoch;

/// The most steps of one chain.
pub const STEPS_MAX: usize = 8;

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Read,
    Write,
    /// Writes what the step before has read.
    WritePrevious,
    Sync {
        all_metadata: bool,
    },
    /// Changes a range without moving memory.
    Range(OpKind),
    /// Compares the buffer with what a namespace holds.
    Compare,
    /// A namespace copies so many bytes; the buffer says from where.
    CopyWithin {
        len_bytes: u64,
    },
}

impl What {
    /// The name in messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::WritePrevious | Self::CopyWithin { .. } => "copy",
            Self::Compare => "compare",
            Self::Sync { all_metadata: false } => "fdatasync",
            Self::Sync { all_metadata: true } => "fsync",
            Self::Range(OpKind::Discard | OpKind::DiscardDevice) => "discard",
            Self::Range(OpKind::WriteZeroes) => "write zeroes",
            Self::Range(OpKind::Allocate) => "preallocate",
            Self::Range(OpKind::PunchHole) => "punch hole",
            Self::Range(_) => "set length",
        }
    }

    pub(crate) const fn kind(self) -> OpKind {
        match self {
            Self::Read => OpKind::Read,
            Self::Write | Self::WritePrevious => OpKind::Write,
            Self::Sync { all_metadata: false } => OpKind::Fdatasync,
            Self::Sync { all_metadata: true } => OpKind::Fsync,
            Self::Range(kind) => kind,
            Self::Compare => OpKind::Compare,
            Self::CopyWithin { .. } => OpKind::CopyWithin,
        }
    }

    /// Whether it leaves the target as it is.
    pub(crate) const fn only_reads(self) -> bool {
        matches!(self, Self::Read | Self::Compare)
    }

    pub(crate) const fn is_sync(self) -> bool {
        matches!(self, Self::Sync { .. })
    }

    /// Whether a flush must come after it.
    pub(crate) const fn modifies(self) -> bool {
        matches!(self, Self::Write | Self::WritePrevious | Self::Range(_) | Self::CopyWithin { .. })
    }
}

/// One step, and how far it has come.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) what: What,
    pub(crate) target: u32,
    pub(crate) offset_bytes: u64,
    pub(crate) len_bytes: u64,
    pub(crate) buffer: Option<ArenaBuf>,
    /// Of a transfer: what it moves. Its own buffer, or that of the step before.
    pub(crate) memory: Option<MemRange>,
    /// The write is under way in its target's barrier.
    pub(crate) epoch: Option<Epoch>,
    /// The slot of the op in flight.
    pub(crate) tag: Option<Tag>,
    /// What the latest launch of it came to.
    pub(crate) result: i32,
    /// Bytes of the memory that are through, and where the next launch starts (F11).
    pub(crate) reached: u32,
    pub(crate) resumed_at: u32,
    pub(crate) retries: u8,
    pub(crate) stalls: u8,
    pub(crate) force_async: bool,
}

impl Step {
    /// Whether it is a command to a block device.
    pub(crate) fn discards(&self) -> bool {
        self.what == What::Range(OpKind::DiscardDevice)
    }

    pub(crate) const fn new(what: What, target: u32, offset_bytes: u64, len_bytes: u64) -> Self {
        Self {
            what,
            target,
            offset_bytes,
            len_bytes,
            buffer: None,
            memory: None,
            epoch: None,
            tag: None,
            result: 0,
            reached: 0,
            resumed_at: 0,
            retries: 0,
            stalls: 0,
            force_async: false,
        }
    }

    /// Bytes that the op in flight moves.
    pub(crate) fn in_flight_bytes(&self) -> u32 {
        self.memory.map_or(0, |memory| memory.len_bytes() - self.resumed_at)
    }

    /// What `result` means. `is_follower`: it was linked behind another, which was whole.
    pub(crate) fn judge(&self, is_follower: bool, cancelled: bool, accept_short: bool) -> Verdict {
        let attempt = Attempt {
            is_read: self.what == What::Read,
            // The one before was whole: an ECANCELED is not its fault, and is tried again.
            is_follower: false,
            cancel_requested: cancelled,
            len_bytes: self.in_flight_bytes(),
            retries: self.retries,
            stalls: self.stalls,
        };
        if self.what.is_sync() {
            return match complete::flush(self.result, is_follower) {
                Verdict::ChainBroken | Verdict::Retry { .. } => {
                    complete::range(-libc::EAGAIN, attempt)
                }
                verdict => verdict,
            };
        }
        match self.what {
            What::Range(_) => complete::range(self.result, attempt),
            _ => complete::transfer(self.result, attempt, accept_short),
        }
    }

    /// The latest launch moved `done_bytes`, which is not all. Returns whether it got anywhere.
    /// `unaligned`: see [`plan::resume_at`].
    pub(crate) fn advance(&mut self, done_bytes: u32, demands: Demands, unaligned: bool) -> bool {
        let reached = self.resumed_at + done_bytes;
        let got_on = reached > self.reached;
        if got_on {
            self.reached = reached;
            self.stalls = 0;
            self.retries = 0;
        } else {
            self.stalls += 1;
        }
        self.resumed_at = plan::resume_at(self.reached, demands, unaligned);
        got_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    fn write() -> Step {
        let mut bytes = [0_u8; 1024];
        let memory = MemRange::of_raw(bytes.as_mut_ptr(), 1024, None);
        Step { memory, ..Step::new(What::Write, 0, 0, 1024) }
    }

    fn judged(mut step: Step, result: i32) -> Verdict {
        step.result = result;
        step.judge(true, false, false)
    }

    #[test]
    fn f14_only_a_whole_step_lets_the_next_one_count() {
        assert_eq!(judged(write(), 1024), Verdict::Done);
        assert_eq!(judged(write(), 512), Verdict::Rest { done_bytes: 512 });
        assert_eq!(judged(write(), -(Errno::EIO as i32)), Verdict::Fail(Errno::EIO));
    }

    #[test]
    fn f16_cancelled_follower_of_a_whole_step_is_tried_again_and_never_blamed() {
        let again = Verdict::Retry { force_async: false };
        assert_eq!(judged(write(), -(Errno::ECANCELED as i32)), again);
        let sync = || Step::new(What::Sync { all_metadata: false }, 0, 0, 0);
        assert_eq!(judged(sync(), -(Errno::ECANCELED as i32)), again);
        assert_eq!(judged(sync(), -(Errno::EIO as i32)), Verdict::Fail(Errno::EIO));
    }

    #[test]
    fn f11_rest_starts_at_an_aligned_point_and_must_get_on() {
        let demands = Demands {
            offset_align: 512,
            mem_align: 512,
            transfer_bytes_max: 4096,
            bounce_bytes_max: 4096,
        };
        let mut step = write();
        assert!(step.advance(700, demands, false));
        assert_eq!((step.reached, step.resumed_at, step.in_flight_bytes()), (700, 512, 512));
        assert!(!step.advance(100, demands, false));
        assert_eq!(step.stalls, 1);
    }
}
