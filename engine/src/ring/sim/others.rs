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
