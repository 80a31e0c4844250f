//! Deliberate bugs by which a simulation proves that its checker can see.
//!
//! Data flow: [`Ring::plant`] answers `true` → one branch of the shard goes wrong → what users
//! and kernels were promised is broken → the checker, which does not look here.
//!
//! Not here: the branches (`shard`), the checker (package `engine-sim`).
//!
//! [`Ring::plant`]: super::Ring::plant

/// Deliberate bugs, each changing one branch of the production shard, by which the simulation
/// proves that its checker can see. No ring but a test's answers `true` to
/// [`Ring::plant`](super::Ring::plant).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Plant {
    /// A short transfer counts as a whole one (F11).
    AcceptShort,
    /// A flush is issued before the writes it covers have completed whole (F14).
    FlushEarly,
    /// Dropping a future frees the buffer while the op is in flight (F01).
    FreeOnDrop,
    /// The rest of a chain's short step is launched again without the steps behind it (F14).
    ForgetFollowers,
    /// A durable write is acknowledged when it is whole, before its flush has succeeded (F14).
    AckBeforeFlush,
    /// An op leaves its slot when the request to cancel it has gone through (F03).
    RetireOnCancel,
    /// A completion counts for whoever is in the slot now, whatever its generation (F04).
    NoGeneration,
    /// What is queued leaves its slots when `enter` fails (F05).
    FreeAfterFailedEnter,
    /// Nobody counts how often an op is tried again (F13, F23).
    RetryForever,
    /// Nobody looks whether a submit has cut a chain in two (F15).
    ChainSplit,
    /// More is in flight than the completion queue holds (F20).
    IgnoreOverflow,
    /// Nobody looks again at what has arrived, once the shard has said that it sleeps (F28).
    ParkWithoutRecheck,
    /// A flush that has failed is tried again, and its second answer believed (F37).
    FsyncRetry,
    /// An open trusts what it finds without a flush (F38).
    NoFsyncOnOpen,
    /// A failed flush poisons the handle that it was of, and no other of the file (F37).
    PoisonOneHandle,
    /// The length of a view is cut to 16 bits before it is cut into ops (F09).
    TruncatingCast,
    /// Every direct target is taken to have sectors of 512 bytes (F44).
    Assume512,
    /// The rest of a short transfer starts where that stopped, aligned or not (F11, F44).
    UnalignedRest,
}

impl Plant {
    /// Every planted bug, in the order in which they came.
    pub const ALL: [Self; 18] = [
        Self::AcceptShort,
        Self::FlushEarly,
        Self::FreeOnDrop,
        Self::ForgetFollowers,
        Self::AckBeforeFlush,
        Self::RetireOnCancel,
        Self::NoGeneration,
        Self::FreeAfterFailedEnter,
        Self::RetryForever,
        Self::ChainSplit,
        Self::IgnoreOverflow,
        Self::ParkWithoutRecheck,
        Self::FsyncRetry,
        Self::NoFsyncOnOpen,
        Self::PoisonOneHandle,
        Self::TruncatingCast,
        Self::Assume512,
        Self::UnalignedRest,
    ];

    /// The name used on command lines: `accept-short`, `flush-early`, `free-on-drop`, ….
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AcceptShort => "accept-short",
            Self::FlushEarly => "flush-early",
            Self::FreeOnDrop => "free-on-drop",
            Self::ForgetFollowers => "forget-followers",
            Self::AckBeforeFlush => "ack-before-flush",
            Self::RetireOnCancel => "retire-on-cancel",
            Self::NoGeneration => "no-generation",
            Self::FreeAfterFailedEnter => "free-after-failed-enter",
            Self::RetryForever => "retry-forever",
            Self::ChainSplit => "chain-split",
            Self::IgnoreOverflow => "ignore-overflow",
            Self::ParkWithoutRecheck => "park-without-recheck",
            Self::FsyncRetry => "fsync-retry",
            Self::NoFsyncOnOpen => "no-fsync-on-open",
            Self::PoisonOneHandle => "poison-one-handle",
            Self::TruncatingCast => "truncating-cast",
            Self::Assume512 => "assume-512",
            Self::UnalignedRest => "unaligned-rest",
        }
    }
}
