//! Why a log could not do what it was asked, and what is known of the records.
//!
//! Not here: errors of single ranges (`crate::IoError`).

use std::fmt;
use std::path::PathBuf;

use super::format::Lsn;
use crate::error::{EngineError, IoError};

/// What went wrong with a log. Cheap enough to be handed to every waiter.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WalError {
    /// A limit makes no sense. Nothing was started.
    Config {
        /// Which.
        limit: &'static str,
        /// What it must do: `be 1 to 8`.
        must: &'static str,
    },
    /// The record is longer than a block. Nothing of it was written.
    RecordTooLong {
        /// Its length.
        len_bytes: usize,
        /// What fits.
        max_bytes: usize,
    },
    /// Every segment is in use, and there is no way to have another. Nothing of the record was
    /// written; the log goes on when something has been truncated.
    Full,
    /// There is no room in the open block, and all others are in flight. Nothing of the record
    /// was written; await an append, which waits for room and makes it. A commit does so only
    /// while something is on its way.
    WouldBlock,
    /// Another segment could not be made. Nothing of the record was written, the log goes on,
    /// and the next append that needs a segment tries again.
    Grow(Box<WalError>),
    /// A write or a flush failed, this one or an earlier one. The record was not acknowledged;
    /// whether it is found by the next open is open. What was durable before still is. The log
    /// takes no more records until it is opened anew (F37).
    Poisoned {
        /// The first operation that failed.
        first: Box<IoError>,
        /// Up to where the log is durable.
        durable_lsn: Lsn,
    },
    /// Something that was acknowledged is not there any more, or not as it was written: this is
    /// no torn tail. Nothing was changed.
    Damaged {
        /// The first record that is missing.
        lsn: Lsn,
        /// What showed it.
        evidence: &'static str,
    },
    /// Whoever was shown a record could not do what it asks. Nothing of the log was changed.
    Refused {
        /// The record.
        lsn: Lsn,
        /// Why, in the words of who was shown it.
        why: String,
    },
    /// The segments belong to different logs. Nothing was changed.
    Mixed {
        /// One of the logs.
        log_id: u64,
        /// Another.
        other: u64,
    },
    /// The shard's arena has no buffer free that could hold a block.
    NoBuffer {
        /// Bytes of the block.
        len_bytes: u32,
    },
    /// The directory could not be used, or is in use by another process.
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// A segment could not be opened, read or written while the log was opened.
    Open(Box<IoError>),
}

impl fmt::Display for WalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { limit, must } => write!(f, "configuration: {limit} must {must}"),
            Self::RecordTooLong { len_bytes, max_bytes } => write!(
                f,
                "a record of {len_bytes} bytes does not fit into a block ({max_bytes}): cut it, \
                 or raise block_bytes_max"
            ),
            Self::Full => f.write_str("every segment of the log is in use: truncate it"),
            Self::WouldBlock => f.write_str(
                "all blocks of the log are in flight: await an append, which waits for room",
            ),
            Self::Grow(error) => write!(f, "no further segment could be made: {error}"),
            Self::Poisoned { first, durable_lsn } => write!(
                f,
                "the log is durable up to record {durable_lsn} and takes no more until it is \
                 opened anew, because this failed: {first}"
            ),
            Self::Damaged { lsn, evidence } => write!(
                f,
                "record {lsn} was acknowledged and is not there any more ({evidence}): nothing \
                 was changed; check the device, and restore the log from a copy"
            ),
            Self::Refused { lsn, why } => write!(
                f,
                "record {lsn} could not be redone: {why}; nothing of the log was changed, so it \
                 can be opened again"
            ),
            Self::Mixed { log_id, other } => write!(
                f,
                "segments of two logs ({log_id:016x}, {other:016x}) are mixed: remove those that \
                 do not belong here"
            ),
            Self::NoBuffer { len_bytes } => write!(
                f,
                "the arena has no buffer of {len_bytes} bytes free for a block of the log: add \
                 some to its size classes"
            ),
            Self::Directory { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Open(error) => write!(f, "opening the log: {error}"),
        }
    }
}

impl std::error::Error for WalError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Grow(error) => Some(error),
            Self::Open(error) => Some(error),
            Self::Poisoned { first, .. } => Some(first),
            _ => None,
        }
    }
}

impl WalError {
    pub(super) fn open(error: IoError) -> Self {
        Self::Open(Box::new(error))
    }

    pub(super) fn directory(path: &std::path::Path, error: impl fmt::Display) -> Self {
        Self::Directory { path: path.to_owned(), error: error.to_string() }
    }

    pub(super) fn of_engine(path: &std::path::Path, error: EngineError) -> Self {
        match error {
            EngineError::Io(error) => Self::open(error),
            other => Self::directory(path, other),
        }
    }
}
