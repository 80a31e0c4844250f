//! What a ring is, what it can do, and how much fits in it.
//!
//! Data flow: a ring, once it is made → [`Features`] and [`Limits`] → the shard and `doctor`.
//!
//! Not here: what a target can do (`target`).

use core::fmt;

/// Which of the three implementations a ring is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingKind {
    /// io_uring.
    Kernel,
    /// Blocking system calls on a small thread pool.
    Threads,
    /// A deterministic simulation.
    Sim,
}

impl fmt::Display for RingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "io_uring",
            Self::Threads => "threads",
            Self::Sim => "sim",
        })
    }
}

/// What a ring was found able to do. Probed, never assumed from a kernel version.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Features {
    /// Which implementation this is.
    pub kind: RingKind,
    /// The names of what is in use, for people: `SINGLE_ISSUER`, `DEFER_TASKRUN`, ….
    pub in_use: Vec<&'static str>,
    /// What was wanted and refused, each a sentence that says why and how to change it.
    pub degraded: Vec<String>,
    /// Vectored ops take registered memory (`IORING_OP_READV_FIXED`, Linux 6.15).
    pub vectored_fixed: bool,
}

impl Features {
    /// Nothing in use, nothing refused.
    #[must_use]
    pub const fn new(kind: RingKind) -> Self {
        Self { kind, in_use: Vec::new(), degraded: Vec::new(), vectored_fixed: false }
    }
}

/// Sizes that a shard must respect. Constant for the life of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Submission queue entries: the longest chain, and the most ops of one `enter`.
    pub sq_entries: u32,
    /// Completion queue entries: the most ops in flight (F20).
    pub cq_entries: u32,
    /// The longest single transfer in bytes that is worth asking for.
    pub transfer_bytes_max: u32,
}
