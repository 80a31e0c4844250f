//! The run queue of a shard: places of tasks, in the order in which they were woken.
//!
//! Data flow: wake on the shard's own thread → [`Ready::push`] → [`Ready::pop`] → polled. Wakers
//! reach it and may be shared with any thread, hence atomics; but only the shard's own thread
//! looks, so that loads and stores are all there is: nothing locks a cache line.
//!
//! Not here: who may look, and that a place is in here at most once (`tasks`).

use std::sync::atomic::{AtomicU32, Ordering};

/// A ring of as many places as there are, rounded up to a power of two: it cannot be full.
#[derive(Debug)]
pub(super) struct Ready {
    places: Box<[AtomicU32]>,
    /// One less than there are places.
    mask: u32,
    /// Where the oldest is, and where the next one goes, modulo 2^32.
    head: AtomicU32,
    tail: AtomicU32,
}

impl Ready {
    /// Room for `most` places.
    pub(super) fn new(most: usize) -> Self {
        let places: Box<[_]> = (0..most.next_power_of_two()).map(|_| AtomicU32::new(0)).collect();
        let mask = u32::try_from(places.len() - 1).expect("places are named by 32 bits");
        Self { places, mask, head: AtomicU32::new(0), tail: AtomicU32::new(0) }
    }

    #[inline]
    fn at(&self, index: u32) -> &AtomicU32 {
        &self.places[(index & self.mask) as usize]
    }

    #[inline]
    pub(super) fn push(&self, place: u32) {
        let tail = self.tail.load(Ordering::Relaxed);
        self.at(tail).store(place, Ordering::Relaxed);
        self.tail.store(tail.wrapping_add(1), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn pop(&self) -> Option<u32> {
        let head = self.head.load(Ordering::Relaxed);
        if head == self.tail.load(Ordering::Relaxed) {
            return None;
        }
        self.head.store(head.wrapping_add(1), Ordering::Relaxed);
        Some(self.at(head).load(Ordering::Relaxed))
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == self.tail.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_come_out_in_the_order_in_which_they_went_in_also_around_the_end() {
        let ready = Ready::new(3);
        assert!(ready.is_empty());
        for round in 0..100 {
            let places = [round, round + 1, round + 2];
            places.iter().for_each(|&place| ready.push(place));
            assert!(!ready.is_empty());
            assert_eq!([ready.pop(), ready.pop(), ready.pop()], places.map(Some));
            assert_eq!(ready.pop(), None);
        }
    }
}
