//! Fields: values one after another in a body.
//!
//! Data flow: value → [`Field::put`] → bytes → [`Field::take`] → the same value, or an error.
//! A length is compared with what is left before anything is allocated for it.
//!
//! Not here: which fields a message has (`message`).

use alloc::boxed::Box;
use alloc::vec::Vec;

use mfio_core::{Error as ByteError, ErrorKind as ByteKind, FailedRange};
use mfio_rt::{Allocate, DirEntry, Error, ErrorKind, FileKind, Follow, LockKind, Metadata, Op};
use mfio_rt::{OpenOptions, SyncLevel, Times, Timestamp};

use super::{PATH_BYTES_MAX, WireError};

/// What is left of a body.
#[derive(Clone, Debug)]
pub struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// All of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// `Truncated`.
    pub fn bytes(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(WireError::Truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// `Trailing`.
    pub const fn end(&self) -> Result<(), WireError> {
        if self.0.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

/// A value that can stand in a body.
pub trait Field: Sized {
    /// Appends it.
    fn put(&self, to: &mut Vec<u8>);

    /// Takes it.
    ///
    /// # Errors
    /// `Truncated`, `BadValue`, `TooLong`.
    fn take(from: &mut Fields<'_>) -> Result<Self, WireError>;
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Field for $number {
            fn put(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }

            fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
                let bytes = from.bytes(size_of::<Self>())?;
                bytes.try_into().map(Self::from_le_bytes).map_err(|_| WireError::Truncated)
            }
        })*
    };
}

numbers! { u8 u16 u32 u64 i32 i64 }

impl Field for bool {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(*self).put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        match u8::take(from)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::BadValue),
        }
    }
}

/// A name or path.
impl Field for Box<[u8]> {
    fn put(&self, to: &mut Vec<u8>) {
        // A longer one is refused where the frame is made, not cut here.
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(to);
        to.extend_from_slice(self);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let len = u32::take(from)?;
        if len as usize > PATH_BYTES_MAX {
            return Err(WireError::TooLong(len.into()));
        }
        Ok(from.bytes(len as usize)?.into())
    }
}

impl Field for [u8; 32] {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        from.bytes(32)?.try_into().map_err(|_| WireError::Truncated)
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        u32::try_from(self.len()).unwrap_or(u32::MAX).put(to);
        self.iter().for_each(|item| item.put(to));
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let many = u32::take(from)?;
        // Grows with what is really there: the number may be anything.
        let mut items = Self::new();
        for _ in 0..many {
            items.push(T::take(from)?);
        }
        Ok(items)
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        self.is_some().put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        if bool::take(from)? { T::take(from).map(Some) } else { Ok(None) }
    }
}

impl Field for (u64, u64) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok((u64::take(from)?, u64::take(from)?))
    }
}

/// Enums by a number for each variant.
macro_rules! enums {
    ($($name:ident { $($variant:ident = $number:literal),* })*) => {
        $(impl Field for $name {
            fn put(&self, to: &mut Vec<u8>) {
                let number: u8 = match self {
                    $(Self::$variant => $number,)*
                };
                number.put(to);
            }

            fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
                match u8::take(from)? {
                    $($number => Ok(Self::$variant),)*
                    _ => Err(WireError::BadValue),
                }
            }
        })*
    };
}

enums! {
    Follow { Yes = 1, No = 2 }
    SyncLevel { Data = 1, All = 2 }
    Allocate { Extend = 1, KeepSize = 2, PunchHole = 3 }
    LockKind { Shared = 1, Exclusive = 2 }
    FileKind { File = 1, Directory = 2, Symlink = 3, Other = 4, Unknown = 5 }
}

impl Field for OpenOptions {
    fn put(&self, to: &mut Vec<u8>) {
        let bits = [
            self.read,
            self.write,
            self.append,
            self.truncate,
            self.create,
            self.create_new,
            self.direct,
            self.dsync,
            self.nofollow,
        ];
        let bits = (0..).zip(bits).fold(0_u16, |all, (at, bit)| all | u16::from(bit) << at);
        bits.put(to);
        // The field can be set past its setter, to more than there is a form for.
        (self.mode & 0o7777).put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let (bits, mode) = (u16::take(from)?, u32::take(from)?);
        if bits >> 9 != 0 || mode > 0o7777 {
            return Err(WireError::BadValue);
        }
        let bit = |at: u16| bits >> at & 1 == 1;
        let options = Self::new().read(bit(0)).write(bit(1)).append(bit(2)).truncate(bit(3));
        let options = options.create(bit(4)).create_new(bit(5)).direct(bit(6));
        Ok(options.dsync(bit(7)).nofollow(bit(8)).mode(mode))
    }
}

impl Field for Timestamp {
    fn put(&self, to: &mut Vec<u8>) {
        self.secs.put(to);
        self.nanos.put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let (secs, nanos) = (i64::take(from)?, u32::take(from)?);
        if nanos >= 1_000_000_000 { Err(WireError::BadValue) } else { Ok(Self { secs, nanos }) }
    }
}

impl Field for Times {
    fn put(&self, to: &mut Vec<u8>) {
        self.accessed.put(to);
        self.modified.put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        Ok(Self { accessed: Field::take(from)?, modified: Field::take(from)? })
    }
}

impl Field for Metadata {
    fn put(&self, to: &mut Vec<u8>) {
        self.kind.put(to);
        self.len.put(to);
        self.mode.put(to);
        self.links.put(to);
        self.id.put(to);
        self.allocated_bytes.put(to);
        self.accessed.put(to);
        self.modified.put(to);
        self.changed.put(to);
        self.created.put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let kind = FileKind::take(from)?;
        let mut facts = Self::new(kind, u64::take(from)?, u32::take(from)?);
        facts.links = Field::take(from)?;
        facts.id = Field::take(from)?;
        facts.allocated_bytes = Field::take(from)?;
        facts.accessed = Field::take(from)?;
        facts.modified = Field::take(from)?;
        facts.changed = Field::take(from)?;
        facts.created = Field::take(from)?;
        Ok(facts)
    }
}

impl Field for DirEntry {
    fn put(&self, to: &mut Vec<u8>) {
        self.kind.put(to);
        u16::try_from(self.name.len()).unwrap_or(u16::MAX).put(to);
        to.extend_from_slice(&self.name);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let (kind, len) = (FileKind::take(from)?, u16::take(from)?);
        Ok(Self { kind, name: from.bytes(len.into())?.to_vec() })
    }
}

/// Without its path: whoever asked knows that.
impl Field for Error {
    fn put(&self, to: &mut Vec<u8>) {
        self.op().number().put(to);
        self.kind().number().put(to);
        self.errno().unwrap_or(0).put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let (op, kind, errno) = (u8::take(from)?, u8::take(from)?, i32::take(from)?);
        // A kind of a later version is still an error, with its errno.
        let kind = ErrorKind::from_number(kind).unwrap_or(ErrorKind::Os);
        let op = Op::from_number(op).ok_or(WireError::BadValue)?;
        Ok(Self::new(op, kind).with_errno(errno))
    }
}

/// Kinds of errors of bytes, and their numbers.
const BYTE_KINDS: [(ByteKind, u8); 11] = [
    (ByteKind::Aborted, 1),
    (ByteKind::UnexpectedEof, 2),
    (ByteKind::OutOfRange, 3),
    (ByteKind::Misaligned, 4),
    (ByteKind::NoSpace, 5),
    (ByteKind::Cancelled, 6),
    (ByteKind::Poisoned, 7),
    (ByteKind::Unsupported, 8),
    (ByteKind::Closed, 9),
    (ByteKind::Os, 10),
    (ByteKind::TimedOut, 11),
];

impl Field for ByteError {
    fn put(&self, to: &mut Vec<u8>) {
        let known = BYTE_KINDS.iter().find(|(kind, _)| *kind == self.kind());
        known.map_or(10, |(_, number)| *number).put(to);
        self.errno().unwrap_or(0).put(to);
        self.device_status().unwrap_or(0).put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let (number, errno, status) = (u8::take(from)?, i32::take(from)?, u16::take(from)?);
        let known = BYTE_KINDS.iter().find(|(_, known)| *known == number);
        let kind = known.map_or(ByteKind::Os, |(kind, _)| *kind);
        Ok(Self::with_errno(kind, errno).with_device_status(status))
    }
}

impl Field for FailedRange {
    fn put(&self, to: &mut Vec<u8>) {
        self.start.put(to);
        self.end.put(to);
        self.error.put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let (start, end) = (u64::take(from)?, u64::take(from)?);
        if end < start {
            return Err(WireError::BadValue);
        }
        Ok(Self { start, end, error: Field::take(from)? })
    }
}
