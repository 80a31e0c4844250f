//! What a file or directory says of itself.
//!
//! Data flow: an implementation asks its system → [`Metadata`], [`DirEntry`] → the caller.
//!
//! Not here: how to open (`options`).

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::error::{Error, ErrorKind, Op};

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FileKind {
    /// Bytes.
    File,
    /// Names.
    Directory,
    /// Another path.
    Symlink,
    /// A device, pipe or socket.
    Other,
    /// Not told: ask for its metadata.
    Unknown,
}

/// A point in time, counted from the start of 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down; negative before 1970.
    pub secs: i64,
    /// Nanoseconds after that, below 1,000,000,000.
    pub nanos: u32,
}

/// Facts about a file, directory or symbolic link. `None` is what the system does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// What it is.
    pub kind: FileKind,
    /// Bytes in a file, bytes of the path in a symbolic link; for a directory whatever the file
    /// system says.
    pub len: u64,
    /// Permission bits, at most 0o7777. Where a system has only "read-only": 0o666 or 0o444.
    pub mode: u32,
    /// How many names it has. 0: it is unlinked and lives on in open handles.
    pub links: Option<u64>,
    /// Numbers of the file system and of the file in it: together they name the file.
    pub id: Option<(u64, u64)>,
    /// Bytes of storage that it takes.
    pub allocated_bytes: Option<u64>,
    /// When it was last read, as far as the file system keeps count.
    pub accessed: Option<Timestamp>,
    /// When its bytes or names last changed.
    pub modified: Option<Timestamp>,
    /// When anything of it last changed, its name count and mode included.
    pub changed: Option<Timestamp>,
    /// When it was made.
    pub created: Option<Timestamp>,
}

impl Metadata {
    /// Of `kind` and `len`, with everything else unknown.
    #[must_use]
    pub const fn new(kind: FileKind, len: u64, mode: u32) -> Self {
        Self {
            kind,
            len,
            mode,
            links: None,
            id: None,
            allocated_bytes: None,
            accessed: None,
            modified: None,
            changed: None,
            created: None,
        }
    }

    /// Whether it is a file of bytes.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }
}

/// Times to be set; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When it was last read.
    pub accessed: Option<Timestamp>,
    /// When its bytes last changed.
    pub modified: Option<Timestamp>,
}

impl Times {
    /// Whether these are points in time. Every implementation asks this first, so that all
    /// refuse the same: beyond a second, systems have meanings of their own for numbers.
    ///
    /// ```
    /// use mfio_rt::{Times, Timestamp};
    /// let never = Timestamp { secs: 0, nanos: 1_000_000_000 };
    /// assert!(Times::default().check().is_ok());
    /// assert!(Times { accessed: Some(never), modified: None }.check().is_err());
    /// ```
    ///
    /// # Errors
    /// `InvalidInput` where nanoseconds are a second or more.
    pub const fn check(&self) -> Result<(), Error> {
        let (accessed, modified) = (&self.accessed, &self.modified);
        if is_time(accessed) && is_time(modified) {
            return Ok(());
        }
        Err(Error::new(Op::SetTimes, ErrorKind::InvalidInput))
    }
}

const fn is_time(time: &Option<Timestamp>) -> bool {
    match time {
        Some(time) => time.nanos < 1_000_000_000,
        None => true,
    }
}

/// One name in a directory. `.` and `..` are never listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name, byte for byte.
    pub name: Vec<u8>,
    /// What stands behind it, if that can be said without asking.
    pub kind: FileKind,
}

impl DirEntry {
    /// The name as text, with marks where it is no UTF-8. Not for opening it.
    #[must_use]
    pub fn name_lossy(&self) -> String {
        crate::error::lossy(&self.name)
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({:?})", self.name_lossy(), self.kind)
    }
}
