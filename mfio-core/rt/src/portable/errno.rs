//! The system's errors in our words.
//!
//! Data flow: `std::io::Error` → [`of`] for operations, [`of_bytes`] for ranges of packets; the
//! errno is kept in both.
//!
//! Not here: which path it was (the caller adds it).

use std::io;

use mfio_core::{Error as ByteError, ErrorKind as ByteKind};

use crate::error::{Error, ErrorKind, Op};

/// What `std` tells apart on every system.
fn portable_kind(error: &io::Error) -> ErrorKind {
    use io::ErrorKind as Std;
    match error.kind() {
        Std::NotFound => ErrorKind::NotFound,
        Std::AlreadyExists => ErrorKind::AlreadyExists,
        Std::NotADirectory => ErrorKind::NotADirectory,
        Std::IsADirectory => ErrorKind::IsADirectory,
        Std::DirectoryNotEmpty => ErrorKind::NotEmpty,
        Std::PermissionDenied => ErrorKind::PermissionDenied,
        Std::InvalidFilename => ErrorKind::NameTooLong,
        Std::CrossesDevices => ErrorKind::Escapes,
        Std::TooManyLinks => ErrorKind::TooManyLinks,
        Std::StorageFull | Std::QuotaExceeded => ErrorKind::NoSpace,
        Std::FileTooLarge => ErrorKind::FileTooLarge,
        Std::InvalidInput => ErrorKind::InvalidInput,
        Std::ReadOnlyFilesystem => ErrorKind::ReadOnly,
        Std::ResourceBusy | Std::ExecutableFileBusy => ErrorKind::Busy,
        Std::WouldBlock => ErrorKind::Locked,
        Std::Unsupported => ErrorKind::Unsupported,
        Std::OutOfMemory => ErrorKind::OutOfMemory,
        Std::TimedOut => ErrorKind::TimedOut,
        Std::ConnectionRefused => ErrorKind::ConnectionRefused,
        Std::ConnectionReset | Std::ConnectionAborted | Std::BrokenPipe => {
            ErrorKind::ConnectionReset
        }
        Std::NotConnected => ErrorKind::NotConnected,
        Std::AddrInUse => ErrorKind::AddressInUse,
        Std::AddrNotAvailable => ErrorKind::AddressNotAvailable,
        Std::HostUnreachable | Std::NetworkUnreachable => ErrorKind::Unreachable,
        Std::UnexpectedEof => ErrorKind::UnexpectedEof,
        Std::InvalidData => ErrorKind::InvalidName,
        _ => ErrorKind::Os,
    }
}

/// What Unix tells apart besides.
#[cfg(unix)]
fn kind(error: &io::Error) -> ErrorKind {
    use rustix::io::Errno;
    match Errno::from_io_error(error) {
        Some(Errno::LOOP) => ErrorKind::LinkLoop,
        Some(Errno::MFILE | Errno::NFILE) => ErrorKind::TooManyOpen,
        Some(Errno::BADF) => ErrorKind::BadHandle,
        Some(Errno::OVERFLOW) => ErrorKind::FileTooLarge,
        Some(Errno::OPNOTSUPP | Errno::NOSYS) => ErrorKind::Unsupported,
        _ => portable_kind(error),
    }
}

#[cfg(not(unix))]
fn kind(error: &io::Error) -> ErrorKind {
    portable_kind(error)
}

/// An operation that failed.
pub(super) fn of(op: Op, error: &io::Error) -> Error {
    Error::new(op, kind(error)).with_errno(error.raw_os_error().unwrap_or(0))
}

/// A range of bytes that failed.
pub(super) fn of_bytes(error: &io::Error) -> ByteError {
    let errno = error.raw_os_error().unwrap_or(0);
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ByteKind::NoSpace,
        io::ErrorKind::FileTooLarge => ByteKind::OutOfRange,
        io::ErrorKind::Unsupported => ByteKind::Unsupported,
        io::ErrorKind::TimedOut => ByteKind::TimedOut,
        _ => ByteKind::Os,
    };
    ByteError::with_errno(kind, errno)
}
