//! What a caller says of a file beforehand: how to open it, what to set aside, what to lock.
//!
//! Data flow: builder → [`OpenOptions::check`] → an implementation of the traits.
//!
//! Not here: what a file says of itself (`metadata`).

use crate::error::{Error, ErrorKind, Op};

/// How to open a file. Nothing is on at first but the mode of new files, 0o666.
///
/// ```
/// use mfio_rt::OpenOptions;
/// let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600);
/// assert!(options.check().is_ok());
/// assert!(OpenOptions::new().create(true).check().is_err(), "neither read nor written");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct OpenOptions {
    /// May be read.
    pub read: bool,
    /// May be written.
    pub write: bool,
    /// May be written, and every write goes to the end, whatever offset it names.
    pub append: bool,
    /// Made empty when opened.
    pub truncate: bool,
    /// Made where there is none.
    pub create: bool,
    /// Made, and refused where there is one, even a dangling symbolic link.
    pub create_new: bool,
    /// Past the page cache. Offsets, lengths and memory must be aligned as the device wants.
    pub direct: bool,
    /// A write is complete when its bytes would survive power loss.
    pub dsync: bool,
    /// A symbolic link at the end of the path is an error, not followed.
    pub nofollow: bool,
    /// Permission bits of a new file, before the process's umask.
    pub mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The setters differ only in the field.
macro_rules! setters {
    ($($field:ident)*) => {
        $(
            #[doc = concat!("Sets [`OpenOptions::", stringify!($field), "`](field@Self::",
                stringify!($field), ").")]
            pub const fn $field(mut self, $field: bool) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}

impl OpenOptions {
    /// Nothing on.
    pub const fn new() -> Self {
        Self {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            direct: false,
            dsync: false,
            nofollow: false,
            mode: 0o666,
        }
    }

    setters! { read write append truncate create create_new direct dsync nofollow }

    /// Sets [`OpenOptions::mode`](field@Self::mode); bits beyond 0o7777 are dropped.
    pub const fn mode(mut self, mode: u32) -> Self {
        self.mode = mode & 0o7777;
        self
    }

    /// Whether bytes may be written.
    #[must_use]
    pub const fn writes(&self) -> bool {
        self.write || self.append
    }

    /// Whether the options go together. Every implementation asks this first, so that all
    /// refuse the same.
    ///
    /// # Errors
    /// `InvalidInput` where the file is neither to be read nor written, where it is to be
    /// created or emptied but not written, or emptied and appended to.
    pub const fn check(&self) -> Result<(), Error> {
        let accessed = self.read || self.writes();
        let unwritable = (self.create || self.create_new || self.truncate) && !self.writes();
        if !accessed || unwritable || (self.truncate && self.append) {
            return Err(Error::new(Op::Open, ErrorKind::InvalidInput));
        }
        Ok(())
    }
}

/// How much of a file a sync covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncLevel {
    /// Its bytes, and what is needed to find them (its length).
    Data,
    /// Its times, mode and the rest, too.
    All,
}

/// What to do with the space of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocate {
    /// Set it aside, and make the file as long as the range reaches.
    Extend,
    /// Set it aside; the length stays.
    KeepSize,
    /// Give it back: it reads as zeros. The length stays.
    PunchHole,
}

/// Who else may hold a lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Others that share.
    Shared,
    /// Nobody.
    Exclusive,
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// What it points to is meant.
    Yes,
    /// The link itself is meant.
    No,
}
