//! Why an operation on names or sockets failed: which operation, on what, and what it means.
//!
//! Data flow: an implementation finds a reason → [`Error`] → the caller, who matches the
//! [`ErrorKind`] or shows the message.
//!
//! Not here: ranges of bytes, which carry an [`mfio_core::Error`] each.

use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;
use core::fmt;

/// Declares an enum of unit variants, each with a number of its own, a text, and its
/// documentation.
macro_rules! named {
    (
        $(#[$about:meta])* $name:ident:
        $($(#[$doc:meta])* $variant:ident = $number:literal, $text:literal;)*
    ) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[repr(u8)]
        pub enum $name {
            $($(#[$doc])* $variant = $number,)*
        }

        impl $name {
            /// Its number, which never changes: for wires and logs.
            #[must_use]
            pub const fn number(self) -> u8 {
                self as u8
            }

            /// That which has this number, if there is one.
            #[must_use]
            pub const fn from_number(number: u8) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// As words of a message.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

named! {
    /// What was attempted.
    Op:
    /// A file was opened or created.
    Open = 1, "open";
    /// A directory was opened.
    OpenDir = 2, "open the directory";
    /// A directory was created.
    CreateDir = 3, "create the directory";
    /// A name that is no directory was removed.
    RemoveFile = 4, "remove";
    /// A directory was removed.
    RemoveDir = 5, "remove the directory";
    /// A name was moved.
    Rename = 6, "rename";
    /// A second name was given.
    HardLink = 7, "link";
    /// A symbolic link was made.
    Symlink = 8, "make the symbolic link";
    /// The target of a symbolic link was asked for.
    ReadLink = 9, "read the symbolic link";
    /// Facts were asked for.
    Metadata = 10, "look at";
    /// Permissions were changed.
    SetPermissions = 11, "change the permissions of";
    /// Times were changed.
    SetTimes = 12, "change the times of";
    /// Entries were listed.
    ReadDir = 13, "list";
    /// A file or directory was made durable.
    Sync = 14, "sync";
    /// A file was made longer or shorter.
    SetLen = 15, "change the length of";
    /// Space was set aside or given back.
    Allocate = 16, "allocate";
    /// A lock was asked for.
    Lock = 17, "lock";
    /// Bytes were read.
    Read = 18, "read";
    /// Bytes were written.
    Write = 19, "write";
    /// A connection was made.
    Connect = 20, "connect";
    /// An address was listened on.
    Bind = 21, "bind";
    /// A connection was taken.
    Accept = 22, "accept";
    /// One or both directions of a connection were ended.
    Shutdown = 23, "shut down";
    /// A socket was asked something, or told how to behave.
    Socket = 24, "configure the socket";
    /// A host name was looked up.
    Resolve = 25, "resolve";
    /// A runtime was started.
    Start = 26, "start the runtime";
}

named! {
    /// What went wrong.
    ErrorKind:
    /// There is nothing of that name.
    NotFound = 1, "there is no such name";
    /// There is something of that name already.
    AlreadyExists = 2, "the name exists already";
    /// Something that is no directory stands where a directory must be.
    NotADirectory = 3, "it is not a directory";
    /// A directory stands where something else must be.
    IsADirectory = 4, "it is a directory";
    /// The directory has entries: remove those first.
    NotEmpty = 5, "the directory is not empty: remove what is in it first";
    /// The system does not allow it to this user, or not at all.
    PermissionDenied = 6, "not permitted: look at owner, mode and mount";
    /// More symbolic links than are followed: most likely a circle.
    LinkLoop = 7, "too many symbolic links, perhaps a circle of them";
    /// A name is longer than 255 bytes, or a path longer than the system takes.
    NameTooLong = 8, "the name is too long";
    /// A name that cannot be: with a zero byte, or not of the system's encoding.
    InvalidName = 9, "no name can have these bytes";
    /// The path leaves the directory that the handle is confined to.
    Escapes = 10, "the path leads out of the directory it is confined to, or of its file system";
    /// No name can be given to more files than this one has names.
    TooManyLinks = 11, "the file has as many names as it can have";
    /// No descriptor or slot is free.
    TooManyOpen = 12, "too many are open: close some, or raise the limit";
    /// The file system is full, or the user's share of it.
    NoSpace = 13, "no space is left";
    /// A file cannot become that long.
    FileTooLarge = 14, "files cannot be that long";
    /// The arguments contradict each other or the state of the object.
    InvalidInput = 15, "the arguments make no sense together, or not for this object";
    /// The file system accepts no changes.
    ReadOnly = 16, "the file system is read-only";
    /// Somebody else uses it: a mount, a program, the kernel.
    Busy = 17, "it is in use";
    /// Somebody else holds the lock.
    Locked = 18, "somebody else holds the lock";
    /// This target, system or file system cannot do that.
    Unsupported = 19, "not supported here";
    /// The backend has been shut down.
    Closed = 20, "the backend has been shut down";
    /// Memory has run out.
    OutOfMemory = 21, "out of memory";
    /// Not done by its deadline.
    TimedOut = 22, "timed out";
    /// Nobody listens there.
    ConnectionRefused = 23, "nobody listens there";
    /// The other side broke the connection.
    ConnectionReset = 24, "the connection was broken by the other side";
    /// There is no connection.
    NotConnected = 25, "not connected";
    /// Something else listens there.
    AddressInUse = 26, "the address is in use";
    /// The address is not one of this machine.
    AddressNotAvailable = 27, "the address is not of this machine";
    /// There is no way to the network or the host.
    Unreachable = 28, "there is no way to that network or host";
    /// Both ends of the transfer ended before all bytes were through.
    UnexpectedEof = 29, "the end came too early";
    /// The descriptor does not allow this: a handle for reading was written to, or the like.
    BadHandle = 30, "the handle was not opened for this";
    /// The operation was cancelled before it was done.
    Cancelled = 31, "cancelled";
    /// The system refused with an errno that has no kind here.
    Os = 32, "the system refused";
}

/// Why an operation failed: what was attempted, on which path, what went wrong, and the
/// system's own number for it where there was one.
///
/// ```
/// use mfio_rt::{Error, ErrorKind, Op};
/// let error = Error::new(Op::RemoveDir, ErrorKind::NotEmpty).with_errno(39).at("logs");
/// assert_eq!(
///     error.to_string(),
///     "cannot remove the directory \"logs\": the directory is not empty: \
///      remove what is in it first (errno 39)"
/// );
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    op: Op,
    kind: ErrorKind,
    errno: i32,
    path: Option<Box<[u8]>>,
}

impl Error {
    /// An error without a path and without an errno.
    #[must_use]
    pub const fn new(op: Op, kind: ErrorKind) -> Self {
        Self { op, kind, errno: 0, path: None }
    }

    /// The same, with the (positive) number that the system has for it.
    #[must_use]
    pub fn with_errno(self, errno: i32) -> Self {
        Self { errno, ..self }
    }

    /// The same, about `path`. Of a long path the end is kept.
    #[must_use]
    pub fn at(self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let kept = &path[path.len().saturating_sub(PATH_BYTES_KEPT)..];
        Self { path: Some(kept.into()), ..self }
    }

    /// What became of a packet, as the error of an operation.
    #[must_use]
    pub fn of_bytes(op: Op, error: mfio_core::Error) -> Self {
        use mfio_core::ErrorKind as Bytes;
        let kind = match error.kind() {
            Bytes::UnexpectedEof => ErrorKind::UnexpectedEof,
            Bytes::OutOfRange => ErrorKind::FileTooLarge,
            Bytes::Misaligned => ErrorKind::InvalidInput,
            Bytes::NoSpace => ErrorKind::NoSpace,
            Bytes::Cancelled | Bytes::Aborted => ErrorKind::Cancelled,
            Bytes::Unsupported => ErrorKind::Unsupported,
            Bytes::Closed => ErrorKind::Closed,
            Bytes::TimedOut => ErrorKind::TimedOut,
            _ => ErrorKind::Os,
        };
        Self::new(op, kind).with_errno(error.errno().unwrap_or(0))
    }

    /// What was attempted.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The system's positive number, if the system reported one.
    #[must_use]
    pub const fn errno(&self) -> Option<i32> {
        if self.errno == 0 { None } else { Some(self.errno) }
    }

    /// The path it is about, as it was given; at most its last 4096 bytes.
    #[must_use]
    pub fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }
}

const PATH_BYTES_KEPT: usize = 4096;

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.op)?;
        if let Some(path) = &self.path {
            write!(f, " {:?}", String::from_utf8_lossy(path).into_owned())?;
        }
        write!(f, ": {}", self.kind)?;
        if self.errno != 0 {
            write!(f, " (errno {})", self.errno)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("op", &self.op)
            .field("kind", &self.kind)
            .field("errno", &self.errno())
            .field("path", &self.path().map(|path| String::from_utf8_lossy(path).into_owned()))
            .finish()
    }
}

impl core::error::Error for Error {}

/// The bytes of a name as text, with marks where they are no UTF-8: for messages.
#[must_use]
pub(crate) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).as_ref().to_owned()
}
