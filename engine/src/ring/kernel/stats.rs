//! Counters of a kernel ring.
//!
//! Not here: counting (`kernel`), counters of a shard (`metrics`).

use core::fmt;

use super::KernelRing;

/// What a ring has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct KernelStats {
    /// Calls of `io_uring_enter(2)`.
    pub enters: u64,
    /// Ops that the kernel took, without the ring's own polls and cancels.
    pub submitted: u64,
    /// Wakes seen from other threads; several at once count as one.
    pub wakes: u64,
    /// Ops executed by a plain system call, because they were alone.
    pub inline_ops: u64,
    /// Ops on names, which go by a ring of their own.
    pub names: u64,
}

impl KernelRing {
    /// What the ring has done so far.
    #[must_use]
    pub const fn stats(&self) -> KernelStats {
        self.stats
    }

    /// Whether no op has ever been pushed, taken or not.
    pub(in crate::ring) fn has_no_ops(&self) -> bool {
        let KernelStats { submitted, inline_ops, names, .. } = self.stats;
        // What else is queued is the ring's own.
        let queued = self.queued() as usize != self.internal_at.len() || self.staged.is_some();
        let beside = self.beside.as_ref().is_some_and(|beside| !beside.is_idle());
        submitted == 0 && inline_ops == 0 && names == 0 && !queued && !beside
    }
}

impl fmt::Debug for KernelRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelRing")
            .field("limits", &self.limits)
            .field("stats", &self.stats)
            .field("features", &self.features)
            .finish_non_exhaustive()
    }
}
