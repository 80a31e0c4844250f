//! One `enter` of a turn: what it takes, what it refuses, and what follows from that.
//!
//! Data flow: how long to wait → ring → ops taken, or [`Stop`]; after an error that nothing can
//! be done about, everything that has not started is told so.
//!
//! Not here: what an errno means (`complete`), waits that timers end (`timer`).

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use super::class::Class;
use super::core::Core;
use crate::complete::{self, EAGAIN_RETRIES_MAX, EnterVerdict};
use crate::error::EngineError;
use crate::ring::{Plant, Ring, Wait};

/// Why a turn came to nothing; small, because there is one result per turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// [`EngineError::Busy`].
    Busy,
    /// [`EngineError::Ring`].
    Ring(Errno),
}

impl From<Stop> for EngineError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Busy => Self::Busy,
            Stop::Ring(errno) => Self::Ring { errno },
        }
    }
}

impl<R: Ring> Core<R> {
    #[inline]
    pub(super) fn enter(&mut self, wait: Wait) -> Result<(), Stop> {
        if let Some(errno) = self.broken {
            return Err(Stop::Ring(errno));
        }
        if self.in_flight > 0 && self.retries.is_empty() && self.timers.is_empty() {
            return self.enter_ring(Wait { min: wait.min.min(self.in_flight), ..wait });
        }
        self.enter_with_moments(wait)
    }

    /// As `enter`, of a turn that has nothing to look after but the queue.
    #[inline(always)]
    pub(super) fn enter_straight(&mut self, min: u32) -> Result<(), Stop> {
        self.metrics.enters += 1;
        match self.ring.enter_straight(min) {
            Ok(taken) => {
                self.note_taken(taken);
                Ok(())
            }
            Err(errno) => self.enter_again(Wait::at_least(min), errno),
        }
    }

    #[inline]
    pub(super) fn enter_ring(&mut self, wait: Wait) -> Result<(), Stop> {
        self.metrics.enters += 1;
        match self.ring.enter(wait) {
            Ok(taken) => {
                self.note_taken(taken);
                Ok(())
            }
            Err(errno) => self.enter_again(wait, errno),
        }
    }

    #[inline]
    fn note_taken(&mut self, taken: u32) {
        self.metrics.submitted += u64::from(taken);
        self.check_partial_submit();
    }

    /// What follows when the ring could not be entered.
    #[cold]
    #[inline(never)]
    fn enter_again(&mut self, wait: Wait, mut errno: Errno) -> Result<(), Stop> {
        for again in 0.. {
            self.metrics.enter_errors += 1;
            if self.ring.plant(Plant::FreeAfterFailedEnter) {
                self.free_queued(errno);
            }
            match complete::enter_error(errno, self.in_flight) {
                EnterVerdict::Again | EnterVerdict::BackOff => {}
                EnterVerdict::ReapThenAgain => return Ok(()),
                EnterVerdict::Fatal(errno) => {
                    self.break_down(errno);
                    return Err(Stop::Ring(errno));
                }
            }
            if again == EAGAIN_RETRIES_MAX {
                break;
            }
            self.metrics.enters += 1;
            match self.ring.enter(wait) {
                Ok(taken) => {
                    self.note_taken(taken);
                    return Ok(());
                }
                Err(now) => errno = now,
            }
        }
        Err(Stop::Busy)
    }

    /// A submit that leaves ops in the queue may have cut a chain in two (F15): its follower
    /// then runs beside its head and proves nothing. Which one is not told, so none is trusted.
    #[inline]
    fn check_partial_submit(&mut self) {
        let whole = self.ring.reserve(self.ring.limits().sq_entries);
        if !whole {
            self.submitted_in_part();
        }
    }

    #[cold]
    #[inline(never)]
    fn submitted_in_part(&mut self) {
        if !self.ring.plant(Plant::ChainSplit) {
            self.distrust_chains();
        }
    }

    /// The ring takes no more calls: nothing is started any more, and what has not been
    /// started is told so. Ops in flight keep their memory.
    #[cold]
    pub(super) fn break_down(&mut self, errno: Errno) {
        self.broken = Some(errno);
        self.refuses = true;
        self.fail_queued();
        self.end_sockets();
        self.end_names();
    }

    /// Tells everything that has not been started that it will not be.
    pub(super) fn fail_queued(&mut self) {
        for class in [Class::Log, Class::Foreground, Class::Background] {
            while let Some(job) = self.pop_job(class) {
                self.fail_job(job, Error::new(ErrorKind::Closed));
            }
        }
    }
}
