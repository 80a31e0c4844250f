//! One small error for one byte range: what kind, and the errno where there was one.
//!
//! Data flow: a backend fails a view with an [`Error`] → the packet records it with the range.
//!
//! Not here: which device and which operation; the handle that was asked adds those.

use core::fmt;

/// What went wrong with a range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The view was dropped by its backend before it was completed: the bytes' fate is unknown.
    Aborted = 1,
    /// The target ended before this range. Nothing of the range exists.
    UnexpectedEof,
    /// The range is outside the target's address space; nothing was attempted.
    OutOfRange,
    /// The range or the memory does not satisfy the target's alignment; nothing was attempted.
    Misaligned,
    /// The device or file system is full; nothing of this range was written.
    NoSpace,
    /// The operation was cancelled; what became of the bytes is unknown.
    Cancelled,
    /// An earlier flush of the target failed, so nothing further is accepted until reopen.
    Poisoned,
    /// The target does not support the operation.
    Unsupported,
    /// The backend was shut down before the operation was started.
    Closed,
    /// The kernel refused with the errno beside this kind.
    Os,
    /// Not done by its deadline, and cancelled then; what became of the bytes is unknown.
    TimedOut,
}

/// Why a range of bytes failed. Eight bytes and `Copy`, so that every range can carry its own.
///
/// ```
/// use mfio_core::{Error, ErrorKind};
/// let error = Error::os(5);
/// assert_eq!(error.kind(), ErrorKind::Os);
/// assert_eq!(error.errno(), Some(5));
/// assert_eq!(error.to_string(), "the system reported errno 5");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Error {
    kind: ErrorKind,
    device_status: u16,
    errno: i32,
}

// Each range of a packet carries one.
const _: () = assert!(size_of::<Error>() == 8);

impl Error {
    /// An error that has no errno.
    #[must_use]
    pub const fn new(kind: ErrorKind) -> Self {
        Self::with_errno(kind, 0)
    }

    /// An error of a known kind together with the (positive) errno that showed it.
    #[must_use]
    pub const fn with_errno(kind: ErrorKind, errno: i32) -> Self {
        Self { kind, device_status: 0, errno }
    }

    /// A (positive) errno that has no kind of its own.
    #[must_use]
    pub const fn os(errno: i32) -> Self {
        Self::with_errno(ErrorKind::Os, errno)
    }

    /// The same, with what the device itself has answered: a number of its own that says more
    /// than the errno, such as the status field of an NVMe completion. 0 for none.
    #[must_use]
    pub const fn with_device_status(self, device_status: u16) -> Self {
        Self { device_status, ..self }
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        self.kind
    }

    /// The positive errno, if the system reported one.
    #[must_use]
    pub const fn errno(self) -> Option<i32> {
        if self.errno == 0 { None } else { Some(self.errno) }
    }

    /// What the device itself has answered, if that is known: see
    /// [`Error::with_device_status`].
    #[must_use]
    pub const fn device_status(self) -> Option<u16> {
        if self.device_status == 0 { None } else { Some(self.device_status) }
    }
}

impl Error {
    fn fmt_status(self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device_status() {
            None => Ok(()),
            Some(status) => write!(f, ", the device status {status:#06x}"),
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            ErrorKind::Aborted => "the backend dropped the request, the bytes' fate is unknown",
            ErrorKind::UnexpectedEof => "the target ended before these bytes",
            ErrorKind::OutOfRange => "the range lies outside the target",
            ErrorKind::Misaligned => "the range or memory is not aligned as the target needs",
            ErrorKind::NoSpace => "no space left for these bytes",
            ErrorKind::Cancelled => "cancelled, the bytes' fate is unknown",
            ErrorKind::Poisoned => "an earlier flush failed: reopen the target to continue",
            ErrorKind::Unsupported => "the target does not support this operation",
            ErrorKind::Closed => "the backend was shut down before this was started",
            ErrorKind::TimedOut => "not done by its deadline, the bytes' fate is unknown",
            ErrorKind::Os => {
                write!(f, "the system reported errno {}", self.errno)?;
                return self.fmt_status(f);
            }
        })?;
        if self.errno != 0 {
            write!(f, " (errno {})", self.errno)?;
        }
        self.fmt_status(f)
    }
}

impl core::error::Error for Error {}

/// A range of a packet that failed, in bytes from the packet's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FailedRange {
    /// First failed byte.
    pub start: u64,
    /// One past the last failed byte; equal to `start` for an empty view that failed.
    pub end: u64,
    /// Why.
    pub error: Error,
}
