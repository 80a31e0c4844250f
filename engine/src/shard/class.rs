//! Which traffic goes first.
//!
//! Not here: whose turn it is (`issue`).

/// What an op is for, and so how long it may be kept waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Class {
    /// Commits wait for it: before everything else.
    Log,
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// Nobody waits for it: scans, compaction, write-back.
    Background,
}
