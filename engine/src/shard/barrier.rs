//! The rule that a flush covers exactly the writes completed before it was issued.
//!
//! Pure. Writes carry the epoch in which they were accepted; asking for a flush closes the
//! epoch; the flush may start when no write of that epoch or an earlier one is under way.
//! Data flow: write accepted → epoch → write whole → [`Barrier::is_clear`] → flush issued.
//!
//! Not here: issuing flushes (`flush`), what a failed one means (`target`).

use std::collections::VecDeque;

/// Counts the flushes asked for on one target. 64 bits: it never wraps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

/// Which writes of one target are under way.
#[derive(Debug, Default)]
pub struct Barrier {
    current: Epoch,
    /// Epochs with writes under way and how many, oldest first. Short: one entry for each
    /// flush that waits, and one for the current epoch.
    under_way: VecDeque<(Epoch, u32)>,
}

impl Barrier {
    /// A write was accepted; it ends with [`Barrier::write_ended`], once.
    #[inline]
    pub fn write_started(&mut self) -> Epoch {
        match self.under_way.back_mut() {
            Some((epoch, count)) if *epoch == self.current => *count += 1,
            _ => self.under_way.push_back((self.current, 1)),
        }
        self.current
    }

    /// A write under way in `epoch` was cut in two, each of which ends by itself.
    ///
    /// # Panics
    /// When no write of that epoch is under way.
    pub fn write_cut(&mut self, epoch: Epoch) {
        let entry = self.under_way.iter_mut().find(|(other, _)| *other == epoch);
        entry.expect("the write that is cut is under way").1 += 1;
    }

    /// A write accepted in `epoch` is whole, or has failed and will not be tried again.
    ///
    /// # Panics
    /// When no write of that epoch is under way: it was ended twice.
    #[inline]
    pub fn write_ended(&mut self, epoch: Epoch) {
        match self.under_way.back_mut() {
            // Nearly always: one of several in the current epoch.
            Some((current, count)) if *current == epoch && *count > 1 => *count -= 1,
            _ => self.write_ended_elsewhere(epoch),
        }
    }

    #[cold]
    fn write_ended_elsewhere(&mut self, epoch: Epoch) {
        let at = self.under_way.iter().position(|(other, _)| *other == epoch);
        let at = at.expect("a write ends once, in the epoch it was accepted in");
        self.under_way[at].1 -= 1;
        if self.under_way[at].1 == 0 {
            let _ended = self.under_way.remove(at);
        }
    }

    /// A flush was asked for: it covers everything accepted so far and nothing later.
    pub fn close_epoch(&mut self) -> Epoch {
        let closed = self.current;
        self.current = Epoch(closed.0 + 1);
        closed
    }

    /// Whether no write of `epoch` or before is under way.
    #[must_use]
    pub fn is_clear(&self, epoch: Epoch) -> bool {
        self.under_way.front().is_none_or(|(oldest, _)| *oldest > epoch)
    }

    /// Writes accepted and not ended.
    #[must_use]
    pub fn writes_under_way(&self) -> u32 {
        self.under_way.iter().map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn f14_flush_waits_for_earlier_writes_and_not_for_later_ones() {
        let mut barrier = Barrier::default();
        let early = barrier.write_started();
        let flush = barrier.close_epoch();
        let late = barrier.write_started();
        assert!(!barrier.is_clear(flush));
        barrier.write_ended(early);
        assert!(barrier.is_clear(flush));
        barrier.write_ended(late);
        assert_eq!(barrier.writes_under_way(), 0);
    }

    #[test]
    #[should_panic(expected = "a write ends once")]
    fn write_ended_twice_panics() {
        let mut barrier = Barrier::default();
        let epoch = barrier.write_started();
        barrier.write_ended(epoch);
        barrier.write_ended(epoch);
    }

    #[test]
    fn f14_write_that_is_cut_holds_the_flush_until_each_part_has_ended() {
        let mut barrier = Barrier::default();
        let early = barrier.write_started();
        let flush = barrier.close_epoch();
        let late = barrier.write_started();
        barrier.write_cut(early);
        barrier.write_cut(late);
        assert_eq!(barrier.writes_under_way(), 4);
        barrier.write_ended(early);
        assert!(!barrier.is_clear(flush));
        barrier.write_ended(early);
        assert!(barrier.is_clear(flush));
    }

    #[test]
    #[should_panic(expected = "is under way")]
    fn write_that_has_ended_cannot_be_cut() {
        let mut barrier = Barrier::default();
        let epoch = barrier.write_started();
        barrier.write_ended(epoch);
        barrier.write_cut(epoch);
    }

    proptest! {
        /// Against the plain definition: a list of all writes and when they were accepted.
        #[test]
        fn barrier_agrees_with_a_list_of_writes(steps in prop::collection::vec(0_u8..4, 1..200)) {
            let mut barrier = Barrier::default();
            let mut writes: Vec<(usize, Epoch)> = Vec::new();
            let mut flushes: Vec<(usize, Epoch)> = Vec::new();
            for (now, step) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => writes.push((now, barrier.write_started())),
                    2 => flushes.push((now, barrier.close_epoch())),
                    _ if writes.is_empty() => {}
                    _ => barrier.write_ended(writes.swap_remove(now % writes.len()).1),
                }
                for (asked, epoch) in &flushes {
                    let clear = writes.iter().all(|(accepted, _)| accepted > asked);
                    prop_assert_eq!(barrier.is_clear(*epoch), clear);
                }
            }
        }
    }
}
