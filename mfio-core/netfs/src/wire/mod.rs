//! The wire format: what every byte between client and server means.
//!
//! Data flow: message → [`Header`], body, data → bytes; bytes → header, whose lengths are
//! checked against the caps before anything is read or allocated → message.
//!
//! A connection starts with a [`Hello`] from each side (fixed length, magic, version). Then come
//! frames: a header of [`HEADER_BYTES`], a body of at most [`BODY_BYTES_MAX`], and data of at
//! most [`DATA_BYTES_MAX`]. All numbers are little-endian, nothing is padded, and reserved bits
//! must be zero. A frame's checksum, if its flag is set, is the CRC-32C of header (with zeros in
//! the checksum's place), body and data.
//!
//! Pure, `no_std`. Not here: reading and writing connections (`client`, `server`), proofs of
//! the secret (`auth`).

use alloc::vec::Vec;
use core::fmt;

mod field;
mod hello;
mod message;

pub use field::{Field, Fields};
pub use hello::{Flags, Hello, Limits};
pub use message::{Reason, Reply, Request};

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a [`Hello`].
pub const HELLO_BYTES: usize = 64;
/// The longest body, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;
/// The most data in one frame, in bytes.
pub const DATA_BYTES_MAX: usize = 1 << 20;
/// The longest path or link target, in bytes; two fit into a body.
pub const PATH_BYTES_MAX: usize = 30 << 10;
/// The version of the protocol that this is.
pub const VERSION: u16 = 1;
/// What a connection starts with.
pub const MAGIC: [u8; 8] = *b"mfioNFS\n";

/// Bit of [`Header::flags`]: the checksum is meant.
pub const CHECKED: u8 = 1;

/// Why bytes are no frame. The connection they came by is closed, and no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// The other side does not speak this protocol.
    Magic,
    /// It speaks another version: this one.
    Version(u16),
    /// A length is beyond its cap: this many bytes.
    TooLong(u64),
    /// The body ended inside a field.
    Truncated,
    /// The body has bytes behind its last field.
    Trailing,
    /// There is no message of this number, or none that this side may send.
    UnknownKind(u8),
    /// A field has a value that it cannot have, or reserved bits are set.
    BadValue,
    /// The bytes were changed on the way.
    Checksum,
    /// A reply to what was not asked, or of the wrong shape.
    Unasked,
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("the other side does not speak the protocol of mfio-netfs"),
            Self::Version(version) => write!(
                f,
                "the other side speaks version {version} of the protocol, this is {VERSION}: \
                 use the same release on both"
            ),
            Self::TooLong(len) => write!(f, "a frame announces {len} bytes, more than it may have"),
            Self::Truncated => f.write_str("a frame ends inside a field"),
            Self::Trailing => f.write_str("a frame has bytes behind its last field"),
            Self::UnknownKind(kind) => write!(f, "a frame is of the unknown kind {kind}"),
            Self::BadValue => f.write_str("a frame has a value that cannot be"),
            Self::Checksum => f.write_str("a checksum is wrong: bytes were changed on the way"),
            Self::Unasked => f.write_str("a reply came to what was not asked"),
        }
    }
}

impl core::error::Error for WireError {}

/// What stands before every body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the body.
    pub body_len: u32,
    /// Bytes of data behind the body.
    pub data_len: u32,
    /// Which message it is.
    pub kind: u8,
    /// [`CHECKED`] or nothing.
    pub flags: u8,
    /// CRC-32C, where the flag says so.
    pub checksum: u32,
    /// Which request this is or belongs to. Chosen by the client, never used twice.
    pub id: u64,
    /// Of `Data`: where in the request its bytes belong. 0 in all others.
    pub place: u64,
}

impl Header {
    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.data_len.to_le_bytes());
        bytes[8] = self.kind;
        bytes[9] = self.flags;
        bytes[12..16].copy_from_slice(&self.checksum.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.place.to_le_bytes());
        bytes
    }

    /// From bytes, with lengths inside their caps.
    ///
    /// # Errors
    /// `TooLong`, `BadValue` for reserved bits.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, WireError> {
        let mut fields = Fields::new(bytes);
        let (body_len, data_len) = (u32::take(&mut fields)?, u32::take(&mut fields)?);
        let (kind, flags) = (u8::take(&mut fields)?, u8::take(&mut fields)?);
        let reserved = u16::take(&mut fields)?;
        let checksum = u32::take(&mut fields)?;
        let id = u64::take(&mut fields)?;
        let place = u64::take(&mut fields)?;
        if body_len as usize > BODY_BYTES_MAX {
            return Err(WireError::TooLong(body_len.into()));
        }
        if data_len as usize > DATA_BYTES_MAX {
            return Err(WireError::TooLong(data_len.into()));
        }
        if reserved != 0 || flags & !CHECKED != 0 {
            return Err(WireError::BadValue);
        }
        Ok(Self { body_len, data_len, kind, flags, checksum, id, place })
    }
}

/// A message as a header and a body; data of `data_len` bytes is to follow.
///
/// # Errors
/// `TooLong` where the body or the data is beyond its cap: nothing is cut silently.
pub fn frame(kind: u8, id: u64, body: &[u8], data_len: u64) -> Result<Header, WireError> {
    let body_len = body.len() as u64;
    if body_len > BODY_BYTES_MAX as u64 {
        return Err(WireError::TooLong(body_len));
    }
    if data_len > DATA_BYTES_MAX as u64 {
        return Err(WireError::TooLong(data_len));
    }
    let narrow = |len| u32::try_from(len).map_err(|_| WireError::TooLong(len));
    let (body_len, data_len) = (narrow(body_len)?, narrow(data_len)?);
    Ok(Header { body_len, data_len, kind, id, ..Header::default() })
}

/// The body of a message.
pub(crate) fn body_of(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body);
    body
}
