//! The workloads of the small model: every sequence of a few ops over four sectors.
//!
//! Data flow: index → [`Workload`]: which ops, which of them wait for those before, and how
//! durable writes become durable. The order is fixed, so an index names a workload for ever.
//!
//! Not here: what goes wrong with them (`exhaust`).

use core::fmt;

use mfio_engine::SyncMethod;

/// One op. Ranges overlap, and of the two handles each has its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SmallOp {
    /// Sectors 0 and 1.
    Read,
    /// Sectors 0 and 1.
    Write,
    /// Sectors 1 and 2, through the second handle.
    WriteSecond,
    /// Sectors 0 and 1.
    Durable,
    /// Sectors 1 and 2, through the second handle.
    DurableSecond,
    Flush,
    /// Through the second handle.
    FlushSecond,
    /// Writes sectors 1 and 2, flushes, writes sector 3.
    Chain,
    /// Zeroes sector 1.
    Zeroes,
    /// Sectors 1 and 2, as two entries of a batch.
    Batch,
}

impl SmallOp {
    const ALL: [Self; 10] = [
        Self::Read,
        Self::Write,
        Self::WriteSecond,
        Self::Durable,
        Self::DurableSecond,
        Self::Flush,
        Self::FlushSecond,
        Self::Chain,
        Self::Zeroes,
        Self::Batch,
    ];

    const fn asks_for_method(self) -> bool {
        matches!(self, Self::Durable | Self::DurableSecond)
    }
}

/// A few ops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Its place in the order of all workloads.
    pub(crate) index: usize,
    /// Each with whether it waits until those before it are over.
    pub(crate) ops: Vec<(SmallOp, bool)>,
    pub(crate) method: SyncMethod,
}

impl Workload {
    /// Every workload of 1 to `ops_max` ops, the shortest first.
    pub(crate) fn all(ops_max: usize) -> Vec<Self> {
        let mut found = Vec::new();
        for len in 1..=ops_max {
            let count = SmallOp::ALL.len().pow(u32::try_from(len).expect("a few ops"));
            for number in 0..count {
                Self::sequences(number, len, &mut found);
            }
        }
        found
    }

    /// The sequence with that number in each order in time, by each method that it asks for.
    fn sequences(number: usize, len: usize, found: &mut Vec<Self>) {
        let mut rest = number;
        let mut letters = Vec::new();
        for _ in 0..len {
            letters.push(SmallOp::ALL[rest % SmallOp::ALL.len()]);
            rest /= SmallOp::ALL.len();
        }
        let asks = letters.iter().any(|op| op.asks_for_method());
        let methods = if asks { &SyncMethod::ALL[..] } else { &SyncMethod::ALL[..1] };
        for method in methods {
            for waits in 0..1_usize << (len - 1) {
                let timed = letters.iter().enumerate();
                let ops = timed.map(|(at, op)| (*op, (waits << 1) >> at & 1 == 1)).collect();
                found.push(Self { index: found.len(), ops, method: *method });
            }
        }
    }
}

/// `Write, then Flush`; a comma alone is "at once".
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (op, waits)) in self.ops.iter().enumerate() {
            let between = match (at, waits) {
                (0, _) => "",
                (_, true) => ", then ",
                (_, false) => ", ",
            };
            write!(f, "{between}{op:?}")?;
        }
        if self.ops.iter().any(|(op, _)| op.asks_for_method()) {
            write!(f, " ({})", self.method.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_comes_once() {
        let all = Workload::all(2);
        let mut texts: Vec<String> = all.iter().map(Workload::to_string).collect();
        assert!(texts.contains(&String::from("Write, then Flush")));
        assert!(texts.contains(&String::from("Durable, Read (RWF_DSYNC)")));
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), all.len());
        // 8 ops alone and 2 by 3 methods; of 100 pairs, 64 ask for no method.
        assert_eq!(all.len(), 8 + 2 * 3 + 2 * (64 + 36 * 3));
    }
}
