//! What can go wrong, and what is known of the bytes when it does.
//!
//! Not here: the error of one byte range inside a packet (`mfio_core::Error`).

use std::fmt;

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use crate::buffer::ArenaError;
use crate::target::OpenError;

/// Why the engine could not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// A limit makes no sense. Nothing was started.
    Config {
        /// Which.
        limit: &'static str,
        /// What it must do: `be at least 1`.
        must: &'static str,
    },
    /// The arena could not be made. Nothing was started.
    Arena(ArenaError),
    /// The target could not be opened. Nothing was read or written.
    Open(OpenError),
    /// The ring broke. Ops in flight keep their memory; no further op is started.
    Ring {
        /// What `io_uring_enter` answered.
        errno: Errno,
    },
    /// The kernel was out of resources several times in a row. Nothing was lost: try again.
    Busy,
    /// One operation on one target failed.
    Io(IoError),
}

/// One failed operation, as an operator needs it: where, what, how far, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// `read`, `write`, `durable write`, `atomic write`, `fdatasync`, `fsync`, `discard`,
    /// `write zeroes`, `preallocate`, `punch hole`, `set length`, `copy`, `chain`.
    pub op: &'static str,
    /// The name under which the target was opened.
    pub target: String,
    /// First byte of the range on the target; 0 for flushes.
    pub offset_bytes: u64,
    /// Bytes asked for; 0 for flushes.
    pub len_bytes: u64,
    /// Bytes from the start of the range that were transferred. Of a failed write these are
    /// written and not durable; of a failed flush nothing is known.
    pub done_bytes: u64,
    /// Why, with the errno where there was one.
    pub error: Error,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.op, self.target)?;
        if self.len_bytes > 0 {
            write!(f, " at {} for {} bytes", self.offset_bytes, self.len_bytes)?;
            write!(f, ", {} bytes done", self.done_bytes)?;
        }
        match (self.error.kind(), self.error.errno()) {
            (ErrorKind::Os, Some(errno)) => write!(f, ": {}", Errno::from_raw(errno)),
            _ => write!(f, ": {}", self.error),
        }
    }
}

impl std::error::Error for IoError {}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { limit, must } => write!(f, "configuration: {limit} must {must}"),
            Self::Arena(error) => write!(f, "{error}"),
            Self::Open(error) => write!(f, "{error}"),
            Self::Ring { errno } => write!(f, "the ring broke ({errno}): open a new shard"),
            Self::Busy => f.write_str("the kernel is out of resources for I/O: try again later"),
            Self::Io(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Arena(error) => Some(error),
            Self::Open(error) => Some(error),
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl From<IoError> for EngineError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl From<OpenError> for EngineError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

/// The packet error for an errno of a read or a write.
pub(crate) fn from_errno(errno: Errno) -> Error {
    let raw = errno as i32;
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG => Error::with_errno(ErrorKind::NoSpace, raw),
        Errno::ECANCELED => Error::with_errno(ErrorKind::Cancelled, raw),
        Errno::EOPNOTSUPP => Error::with_errno(ErrorKind::Unsupported, raw),
        _ => Error::os(raw),
    }
}
