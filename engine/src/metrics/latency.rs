//! How long ops took, in buckets that are there before the first op.
//!
//! Data flow: slot occupied → start of the op in `Stamps` → slot vacated → bucket of a
//! `Cells` table → [`Histogram`], a copy for whoever asks, on any thread.
//!
//! A bucket spans 1/32 of its power of two, so a percentile is at most 3.2 % too high.
//!
//! Not here: who may read (`publish`), what fio calls a latency (package `mfio-bench`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::publish::Published;

/// Each power of two is divided into `2^SUB_BITS` buckets.
const SUB_BITS: u32 = 5;
const SUB: usize = 1 << SUB_BITS;
/// Latencies from 2^41 ns, about 37 minutes, on share the last bucket.
const TOP_BITS: u32 = 41;
const BUCKETS: usize = (TOP_BITS - SUB_BITS + 1) as usize * SUB;

/// Which way an op moved bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// From the target.
    Read,
    /// To the target. Of a durable write whose flush was linked to it, that flush included.
    Write,
    /// Neither: flushes, and whatever else has a slot and no bytes.
    Flush,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::Read, Self::Write, Self::Flush];

    /// That of a transfer.
    pub(crate) const fn of(is_read: bool) -> Self {
        if is_read { Self::Read } else { Self::Write }
    }

    /// `read`, `write`, `flush`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
        }
    }
}

/// The bucket of a latency.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "a sum of small numbers")]
const fn bucket(ns: u64) -> usize {
    if ns < SUB as u64 {
        return ns as usize;
    }
    let top = 63 - ns.leading_zeros();
    if top >= TOP_BITS {
        return BUCKETS - 1;
    }
    let within = (ns >> (top - SUB_BITS)) as usize & (SUB - 1);
    ((top - SUB_BITS + 1) as usize) * SUB + within
}

/// The greatest latency of a bucket, in nanoseconds.
const fn upper_edge_ns(bucket: usize) -> u64 {
    if bucket < SUB {
        return bucket as u64;
    }
    let shift = bucket / SUB - 1;
    let first = (SUB + bucket % SUB) as u64;
    ((first + 1) << shift) - 1
}

/// A histogram that one thread writes and any thread reads, without either waiting.
#[derive(Debug)]
pub(crate) struct Cells {
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    max_ns: AtomicU64,
}

impl Cells {
    pub(super) fn new() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, sum_ns: AtomicU64::new(0), max_ns: AtomicU64::new(0) }
    }

    /// Counts one latency. Called by one thread only, so plain loads and stores do.
    fn record(&self, ns: u64) {
        let add = |cell: &AtomicU64, more: u64| {
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        };
        add(&self.buckets[bucket(ns)], 1);
        add(&self.sum_ns, ns);
        if ns > self.max_ns.load(Relaxed) {
            self.max_ns.store(ns, Relaxed);
        }
    }

    pub(super) fn add_to(&self, histogram: &mut Histogram) {
        for (to, cell) in histogram.buckets.iter_mut().zip(&self.buckets) {
            let count = cell.load(Relaxed);
            *to += count;
            histogram.count += count;
        }
        histogram.sum_ns = histogram.sum_ns.wrapping_add(self.sum_ns.load(Relaxed));
        histogram.max_ns = histogram.max_ns.max(self.max_ns.load(Relaxed));
    }
}

/// Latencies of ops, as they were when it was asked for. In nanoseconds, from the first push
/// of an op until it left its slot, whatever came of it, retries and rests included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl Histogram {
    pub(super) fn empty() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, sum_ns: 0, max_ns: 0 }
    }

    /// How many ops.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest, exactly; 0 of none.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The average, rounded down; 0 of none.
    #[must_use]
    pub fn mean_ns(&self) -> u64 {
        self.sum_ns.checked_div(self.count).unwrap_or(0)
    }

    /// The latency that `per_mille` of 1000 ops did not exceed: 500 is the median, 999 the
    /// 99.9th percentile. At most 3.2 % too high, never too low; 0 of no ops.
    #[must_use]
    pub fn percentile_ns(&self, per_mille: u32) -> u64 {
        let wanted = u128::from(self.count) * u128::from(per_mille.min(1000));
        let wanted = u64::try_from(wanted.div_ceil(1000)).unwrap_or(u64::MAX).max(1);
        let mut seen = 0;
        for (at, &count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_edge_ns(at).min(self.max_ns);
            }
        }
        self.max_ns
    }

    /// The buckets that are not empty: their upper edge in nanoseconds and their count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> {
        let edges = self.buckets.iter().enumerate();
        edges.filter(|&(_, &count)| count > 0).map(|(at, &count)| (upper_edge_ns(at), count))
    }
}

/// When the occupants of a slot table started, and where their latencies go.
#[derive(Debug)]
pub(crate) struct Stamps {
    /// By slot; 0 where the occupant has not been pushed.
    started_ns: Vec<u64>,
    /// When the completions that are being judged were reaped: one clock read for all.
    now_ns: u64,
    sink: Arc<Published>,
}

impl Stamps {
    pub(crate) fn new(slots: u32, sink: Arc<Published>) -> Self {
        Self { started_ns: vec![0; slots as usize], now_ns: 0, sink }
    }

    /// Completions have been reaped.
    pub(crate) fn reaped(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// An op was pushed; a retry does not start it again.
    pub(crate) fn pushed(&mut self, slot: u32, now_ns: u64) {
        let started = &mut self.started_ns[slot as usize];
        if *started == 0 {
            *started = now_ns.max(1);
        }
    }

    /// The latency of what is in a slot is not wanted.
    pub(crate) fn forget(&mut self, slot: u32) {
        self.started_ns[slot as usize] = 0;
    }

    /// The occupant of a slot has left it.
    pub(crate) fn left(&mut self, slot: u32, class: usize, direction: Direction) {
        let started_ns = std::mem::take(&mut self.started_ns[slot as usize]);
        if started_ns > 0
            && let Some(cells) = self.sink.latency(class, direction)
        {
            cells.record(self.now_ns.saturating_sub(started_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(latencies: &[u64]) -> Histogram {
        let cells = Cells::new();
        latencies.iter().for_each(|&ns| cells.record(ns));
        let mut histogram = Histogram::empty();
        cells.add_to(&mut histogram);
        histogram
    }

    #[test]
    fn percentiles_are_those_of_the_latencies() {
        let histogram = of(&(1..=1000).map(|us| us * 1000).collect::<Vec<_>>());
        assert_eq!((histogram.count(), histogram.max_ns()), (1000, 1_000_000));
        assert_eq!(histogram.mean_ns(), 500_500);
        for (per_mille, exact) in [(500, 500_000), (990, 990_000), (999, 999_000), (1, 1000)] {
            let found = histogram.percentile_ns(per_mille);
            assert!(found >= exact && found <= exact + exact / 31, "{per_mille}: {found}");
        }
        assert_eq!(histogram.percentile_ns(1000), 1_000_000);
        assert_eq!(histogram.percentile_ns(5000), 1_000_000);
        let nothing = of(&[]);
        assert_eq!((nothing.percentile_ns(500), nothing.mean_ns(), nothing.max_ns()), (0, 0, 0));
    }

    #[test]
    fn endless_op_lands_in_the_last_bucket_and_keeps_its_maximum() {
        let histogram = of(&[u64::MAX, 1 << TOP_BITS]);
        assert_eq!((histogram.count(), histogram.max_ns()), (2, u64::MAX));
        assert_eq!(histogram.buckets().count(), 1);
    }

    proptest! {
        #[test]
        fn every_latency_is_in_its_bucket_and_at_most_a_thirtieth_below_its_edge(
            ns in 0_u64..1 << TOP_BITS,
        ) {
            let at = bucket(ns);
            let edge = upper_edge_ns(at);
            prop_assert!(at < BUCKETS && ns <= edge);
            prop_assert!(edge - ns <= ns / 32, "{} is called {}", ns, edge);
            prop_assert!(at == 0 || upper_edge_ns(at - 1) < ns);
        }
    }
}
