//! How what is under way ends: forgotten, or drained until nothing is and the books balance.
//!
//! Data flow: [`Driver`] → turns, or drops → model and image at rest → checker.
//!
//! Not here: single completions and drops (`driver`).

use mfio_core::CompletionQueue;
use mfio_engine::ring::Wait;

use super::Driver;
use crate::chains::{Link, Linked};
use crate::world::World;

impl Driver<'_> {
    /// Drops everything that is waited for, in a random order.
    pub(crate) fn forget_all(&mut self) {
        while !self.futures.is_empty() {
            let count = u32::try_from(self.futures.len()).expect("a few futures");
            let at = self.world.random.below(count) as usize;
            self.drop_future(at);
        }
        for at in 0..self.sent.len() {
            if let Some(sent) = self.sent[at].take() {
                self.forget(sent);
            }
        }
        self.reads = CompletionQueue::new();
        self.writes = CompletionQueue::new();
        self.forget_batches();
        self.forget_elsewhere();
    }

    /// Nothing is in flight: the books must balance.
    pub(crate) fn idle(&mut self) {
        self.world.model.settle();
        let copies = |step: &Linked| step.link == Link::Copy;
        self.copying = self.futures.iter().any(|waiting| waiting.steps.iter().any(copies));
        self.check_released();
    }

    fn check_released(&mut self) {
        let released = self.shard.arena().verify_released();
        self.world.coverage.released_checked += released.ranges;
        if !released.changed_at_bytes.is_empty() {
            let at = released.changed_at_bytes;
            self.world.violate(format!("released memory was written to, at bytes {at:?}"));
        }
    }

    /// Lets everything under way finish. It must, within a number of turns.
    pub(crate) fn drain(&mut self) {
        let mut turns = 64 + 64 * (self.under_way() + self.control.in_flight());
        if !self.calm {
            // Refused enters, retries and delays take turns, too.
            turns *= 16;
        }
        self.collect();
        while (self.under_way() > 0 || !self.shard.is_idle()) && self.world.is_clean() {
            if turns == 0 {
                let (left, ops) = (self.under_way(), self.control.in_flight());
                self.world.violate(format!(
                    "{left} packets never finish; {ops} ops in flight, futures: {}",
                    self.describe_futures()
                ));
                return;
            }
            turns -= 1;
            self.turn(Wait::at_least(1));
        }
        if self.world.is_clean() {
            self.idle();
            let World { model, device, .. } = &mut *self.world;
            let result = model.check_image(device, 0);
            self.world.require("at rest", result);
        }
    }

    fn describe_futures(&self) -> String {
        let kinds: Vec<_> = self.futures.iter().map(|waiting| waiting.sent).collect();
        format!("{kinds:?}")
    }
}
