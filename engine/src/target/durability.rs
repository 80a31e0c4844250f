//! How writes to a target are made durable, and why that way.
//!
//! Data flow: facts of the target, measured times or the caller's word → [`SyncReport`] → the
//! shard asks it with every durable write. Pure: measuring is `shard::calibrate`'s.
//!
//! Not here: flushing (`shard::flush`), the levels a caller asks for (`shard::Durability`).

use nix::errno::Errno;
use nix::libc;

use crate::Durability;

/// How a durable write becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncMethod {
    /// The flush is linked behind the write: one round trip.
    LinkedFlush,
    /// The flush is issued when the write is whole, and shared with whoever waits by then.
    WriteThenFlush,
    /// Each op carries `RWF_DSYNC`: no flush of other writes, and on a device with FUA and a
    /// file whose blocks are written already, none at all. Only with direct I/O: through the
    /// page cache, an error of one write's flush may be reported to another's.
    Dsync,
}

impl SyncMethod {
    /// Every method, in the order in which ties are broken.
    pub const ALL: [Self; 3] = [Self::LinkedFlush, Self::WriteThenFlush, Self::Dsync];

    /// The name in reports: `linked flush`, `write, then flush`, `RWF_DSYNC`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LinkedFlush => "linked flush",
            Self::WriteThenFlush => "write, then flush",
            Self::Dsync => "RWF_DSYNC",
        }
    }
}

/// The flags of `open(2)` that make every write durable when it completes.
pub(super) const fn write_through_flags(durability: Option<Durability>) -> i32 {
    match durability {
        None | Some(Durability::None) => 0,
        Some(Durability::Data | Durability::Fua) => libc::O_DSYNC,
        Some(Durability::Full) => libc::O_SYNC,
    }
}

/// Where the choice of a method comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncSource {
    /// Nothing was measured yet, or nothing could be: what works everywhere.
    Facts,
    /// Measured on scratch space of the same file system or device.
    Measured,
    /// The caller said so.
    Chosen,
}

/// What is known of one method on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MethodReport {
    /// It was not measured.
    Untried,
    /// It took this long for 4 KiB; the chosen one has the lowest median.
    Took {
        /// The median, in nanoseconds.
        p50_ns: u64,
        /// The 99th percentile of the few samples taken, in nanoseconds.
        p99_ns: u64,
    },
    /// The target does not go past the page cache, which [`SyncMethod::Dsync`] needs.
    NeedsDirect,
    /// A write failed so.
    Failed(Errno),
}

/// The method of a target, and what speaks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// What durable writes use.
    pub method: SyncMethod,
    /// Who says so.
    pub source: SyncSource,
    /// What is known of each of [`SyncMethod::ALL`], in that order.
    pub methods: [MethodReport; 3],
    /// Why nothing was measured, where that was tried.
    pub unmeasured: Option<&'static str>,
}

impl SyncReport {
    /// What is used where nothing is known: a linked flush, which every target has.
    pub(crate) const FACTS: Self = Self {
        method: SyncMethod::LinkedFlush,
        source: SyncSource::Facts,
        methods: [MethodReport::Untried; 3],
        unmeasured: None,
    };

    /// Nothing could be measured, for this reason.
    pub(crate) const fn unmeasured(why: &'static str) -> Self {
        Self { unmeasured: Some(why), ..Self::FACTS }
    }

    /// The best of what was measured; a linked flush where all failed.
    pub(crate) fn of(methods: [MethodReport; 3]) -> Self {
        let mut best: Option<(u64, SyncMethod)> = None;
        for (report, method) in methods.iter().zip(SyncMethod::ALL) {
            if let MethodReport::Took { p50_ns, .. } = *report
                && best.is_none_or(|(least_ns, _)| p50_ns < least_ns)
            {
                best = Some((p50_ns, method));
            }
        }
        match best {
            Some((_, method)) => {
                Self { method, source: SyncSource::Measured, methods, unmeasured: None }
            }
            None => Self { methods, ..Self::unmeasured("every method failed on scratch space") },
        }
    }
}

impl MethodReport {
    /// Of the times that were taken.
    pub(crate) fn of(samples_ns: &mut [u64]) -> Self {
        samples_ns.sort_unstable();
        let at = |percent: usize| {
            samples_ns
                .get((samples_ns.len() * percent / 100).min(samples_ns.len().saturating_sub(1)))
        };
        match (at(50), at(99)) {
            (Some(&p50_ns), Some(&p99_ns)) => Self::Took { p50_ns, p99_ns },
            _ => Self::Untried,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(p50_ns: u64) -> MethodReport {
        MethodReport::Took { p50_ns, p99_ns: p50_ns }
    }

    #[test]
    fn lowest_median_wins_and_ties_go_to_the_first() {
        let chosen = |methods| SyncReport::of(methods).method;
        assert_eq!(chosen([took(5), took(4), took(3)]), SyncMethod::Dsync);
        assert_eq!(
            chosen([took(5), took(4), MethodReport::NeedsDirect]),
            SyncMethod::WriteThenFlush
        );
        assert_eq!(chosen([took(4), took(4), took(4)]), SyncMethod::LinkedFlush);
        let none = SyncReport::of([MethodReport::Failed(Errno::EIO); 3]);
        assert_eq!((none.method, none.source), (SyncMethod::LinkedFlush, SyncSource::Facts));
    }

    #[test]
    fn percentiles_are_of_the_samples_taken() {
        let mut samples: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(MethodReport::of(&mut samples), MethodReport::Took { p50_ns: 51, p99_ns: 100 });
        assert_eq!(MethodReport::of(&mut [7]), took(7));
        assert_eq!(MethodReport::of(&mut []), MethodReport::Untried);
    }
}
