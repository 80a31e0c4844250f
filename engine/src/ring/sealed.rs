//! Which rings there are, and what a shard asks of one before it trusts its completions.
//!
//! Data flow: a ring, before a shard is made on it → whether anything was pushed to it.
//!
//! Not here: what a ring does for a shard (`ring`).

/// Only the rings of this crate are rings.
pub trait Sealed {
    /// Whether no op has ever been pushed. The tags of a shard's first ops are known, so the
    /// completions of others' could be taken for theirs, while the kernel still writes.
    fn is_unused(&self) -> bool;
}

impl Sealed for super::kernel::KernelRing {
    fn is_unused(&self) -> bool {
        self.has_no_ops()
    }
}

impl Sealed for super::threads::ThreadRing {
    fn is_unused(&self) -> bool {
        self.has_no_ops()
    }
}

impl Sealed for super::auto::AutoRing {
    fn is_unused(&self) -> bool {
        match self {
            Self::Kernel(ring) => ring.is_unused(),
            Self::Threads(ring) => ring.is_unused(),
        }
    }
}

#[cfg(any(test, feature = "sim"))]
impl Sealed for super::sim::SimRing {
    fn is_unused(&self) -> bool {
        self.has_no_ops()
    }
}

#[cfg(any(test, feature = "sim"))]
impl<R: super::Ring> Sealed for super::Planted<R> {
    fn is_unused(&self) -> bool {
        self.0.is_unused()
    }
}
