//! Other threads, as far as a simulation of one thread has any.
//!
//! Data flow: a workload sets what another thread does → the ring calls it at the places where
//! one could come in → messages, wakes.
//!
//! Not here: where those places are (`shard::run`, [`SimRing`](super::SimRing)).

use core::cell::RefCell;
use core::fmt;
use std::rc::Rc;

type Action = Box<dyn FnMut()>;

/// What other threads do; a clone is the same.
#[derive(Clone, Default)]
pub(super) struct Others(Rc<RefCell<Option<Action>>>);

impl Others {
    /// The last action is dropped with nothing borrowed: that may run anything.
    pub(super) fn set(&self, action: Option<Action>) {
        let last = self.0.replace(action);
        drop(last);
    }

    /// Lets them run. One that comes back here by itself finds nobody.
    pub(super) fn run(&self) {
        let Some(mut action) = self.0.take() else { return };
        action();
        // What it has set meanwhile stays.
        self.0.borrow_mut().get_or_insert(action);
    }
}

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Others")
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::super::{FaultRates, SimConfig, SimDevice, SimRing};
    use super::*;
    use crate::ring::{Ring, RingWaker, Wait};

    #[test]
    fn others_come_in_at_each_place_until_they_are_told_off() {
        let ring = SimRing::new(SimConfig::calm(1), &SimDevice::new(&[]));
        let (control, times) = (ring.control(), Rc::new(Cell::new(0)));
        let (seen, again) = (Rc::clone(&times), control.clone());
        control.interleave(Some(Box::new(move || {
            seen.set(seen.get() + 1);
            if seen.get() == 2 {
                again.interleave(Some(Box::new(|| {})));
            }
        })));
        for _ in 0..4 {
            ring.interleave();
        }
        assert_eq!(times.get(), 2, "what it has set meanwhile takes its place");
    }

    /// A shard calls `enter` again when that was interrupted, and must not sleep then.
    #[test]
    fn f28_wake_outlives_an_enter_that_fails() {
        let faults = FaultRates { enter_eintr: u16::MAX, ..FaultRates::NONE };
        let config = SimConfig { faults, ..SimConfig::calm(1) };
        let mut ring = SimRing::new(config, &SimDevice::new(&[]));
        ring.waker().wake();
        assert!(ring.enter(Wait::at_least(1)).is_err());
        ring.control().calm();
        assert_eq!(ring.enter(Wait::at_least(1)), Ok(0));
        assert_eq!(ring.control().complaints(), []);
    }
}
