//! Which I/Os were submitted together, and when: noted once per call and not once per I/O.
//!
//! Data flow: an I/O is queued and belongs to the batch that gathers -> one call submits it, and
//! the batch has its time -> its I/Os leave it, in any order -> its number names another batch.
//!
//! Not here: reading the clock (`worker`), what becomes of the times (`measure`).

/// The number of no batch.
pub(super) const NONE: u32 = u32::MAX;

/// The batches that have I/Os in flight, and the one that gathers. Numbers are used again, so
/// there are never more than one for each slot and one besides.
pub(super) struct Batches {
    issued_ns: Vec<u64>,
    /// I/Os that have not left.
    left: Vec<u32>,
    /// Numbers that name no batch.
    free: Vec<u32>,
    gathering: u32,
}

impl Batches {
    /// Room for as many I/Os in flight.
    pub(super) fn new(depth: u32) -> Self {
        let batches = depth as usize + 1;
        let free = (1..=depth).rev().collect();
        Self { issued_ns: vec![0; batches], left: vec![0; batches], free, gathering: 0 }
    }

    /// The batch of what is queued now.
    #[inline]
    pub(super) const fn gathering(&self) -> u32 {
        self.gathering
    }

    /// The batch that gathers was submitted at that time, and has so many I/Os.
    #[inline]
    pub(super) fn submit(&mut self, count: u32, now_ns: u64) {
        if count == 0 {
            return;
        }
        let batch = self.gathering as usize;
        (self.issued_ns[batch], self.left[batch]) = (now_ns, count);
        self.gathering = self.free.pop().expect("each batch has an I/O in flight");
    }

    /// When a batch was submitted that has I/Os in flight.
    #[inline]
    pub(super) fn issued_ns(&self, batch: u32) -> u64 {
        self.issued_ns[batch as usize]
    }

    /// So many I/Os of it are over. [`NONE`] has none.
    #[inline]
    pub(super) fn leave(&mut self, batch: u32, count: u32) {
        let Some(left) = self.left.get_mut(batch as usize) else { return };
        if *left > 0 {
            *left = left.saturating_sub(count);
            if *left == 0 {
                self.free.push(batch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// I/Os that complete in any order, some of them left behind for long, have the time of the
    /// call that submitted them.
    #[test]
    fn every_io_has_the_time_of_its_own_batch() {
        const DEPTH: u32 = 5;
        let (mut batches, mut random) = (Batches::new(DEPTH), Random::new(7));
        let mut in_flight: Vec<(u32, u64)> = Vec::new();
        for now_ns in 1..5_000 {
            let room = u64::from(DEPTH) - in_flight.len() as u64;
            let count = u32::try_from(random.below(room + 1)).unwrap();
            in_flight.extend((0..count).map(|_| (batches.gathering(), now_ns)));
            batches.submit(count, now_ns);
            // The first one stays for long.
            while in_flight.len() > 1 && random.below(3) > 0 {
                let first = u64::from(random.below(50) > 0);
                let at = first + random.below(in_flight.len() as u64 - first);
                let (batch, issued_ns) = in_flight.remove(usize::try_from(at).unwrap());
                assert_eq!(batches.issued_ns(batch), issued_ns);
                batches.leave(batch, 1);
            }
        }
        assert!(in_flight.iter().all(|(batch, at_ns)| batches.issued_ns(*batch) == *at_ns));
    }
}
