//! The cell that the state of a shard is in, and the credit for going straight.
//!
//! Data flow: a borrow as any other → the state, whose credit is void, because whoever holds it
//! may change anything; [`CoreCell::straight`] → the state with its credit, for those who change
//! nothing but what the credit is counted in. So what a credit was granted on still holds for as
//! long as there is any; and so it is with a turn that may be straight (`turn`), and with the
//! straight way of a lone op (`lone`).
//!
//! Not here: granting it and using it up (`straight`).

use std::cell::{Ref, RefCell, RefMut};

use super::core::Core;
use crate::ring::Ring;

/// The state of a shard.
pub(super) struct CoreCell<R: Ring>(RefCell<Core<R>>);

impl<R: Ring> CoreCell<R> {
    pub(super) fn new(core: Core<R>) -> Self {
        Self(RefCell::new(core))
    }

    #[inline]
    pub(super) fn borrow(&self) -> Ref<'_, Core<R>> {
        self.0.borrow()
    }

    /// As of any cell; the credit is void, and the next turn looks after everything.
    #[inline]
    pub(super) fn borrow_mut(&self) -> RefMut<'_, Core<R>> {
        let mut core = self.0.borrow_mut();
        (core.credit, core.undisturbed) = (0, false);
        if !core.lone.is_closed() {
            core.close_lone();
        }
        core
    }

    /// As [`CoreCell::borrow_mut`], for [`Core::start_straight`] and [`Core::stage_lone`], for
    /// [`Core::turn`], and for taking out what is to be delivered.
    #[inline(always)]
    pub(super) fn straight(&self) -> RefMut<'_, Core<R>> {
        self.0.borrow_mut()
    }

    /// As [`CoreCell::straight`], for [`Core::start_straight`]; `None` where somebody has it, which
    /// is for whoever asks in the general way to complain about.
    #[inline(always)]
    pub(super) fn try_straight(&self) -> Option<RefMut<'_, Core<R>>> {
        self.0.try_borrow_mut().ok()
    }
}
