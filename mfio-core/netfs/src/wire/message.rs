//! Messages: what a client asks, what a server answers.
//!
//! Data flow: [`Request`] or [`Reply`] → kind and body → the same again.
//!
//! Not here: headers (`wire`), how fields look (`field`).

use alloc::boxed::Box;
use alloc::vec::Vec;

use mfio_core::{Error as ByteError, FailedRange};
use mfio_rt::{
    Allocate, DirEntry, Error, Follow, LockKind, Metadata, OpenOptions, SyncLevel, Times,
};

use super::{Field, Fields, WireError, body_of};

/// Declares an enum of messages: each with a number and fields, which are sent in their order.
macro_rules! messages {
    (
        $(#[$about:meta])* $name:ident:
        $($(#[$doc:meta])* $variant:ident = $kind:literal { $($field:ident: $ty:ty),* })*
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$doc])* $variant {
                $(#[doc = concat!("Field `", stringify!($field), "`.")] $field: $ty,)*
            },)*
        }

        impl $name {
            /// Its number on the wire.
            #[must_use]
            pub const fn kind(&self) -> u8 {
                match self {
                    $(Self::$variant { .. } => $kind,)*
                }
            }

            /// Its fields on the wire.
            #[must_use]
            pub fn body(&self) -> Vec<u8> {
                body_of(|_to| match self {
                    $(Self::$variant { $($field),* } => { $($field.put(_to);)* })*
                })
            }

            /// From number and fields.
            ///
            /// # Errors
            /// Any [`WireError`] of a field, `UnknownKind`, `Trailing`.
            pub fn decode(kind: u8, body: &[u8]) -> Result<Self, WireError> {
                let mut _from = Fields::new(body);
                let message = match kind {
                    $($kind => Self::$variant { $($field: Field::take(&mut _from)?),* },)*
                    _ => return Err(WireError::UnknownKind(kind)),
                };
                _from.end()?;
                Ok(message)
            }
        }
    };
}

messages! {
    /// What a client asks. Each but `Close`, `Cancel` and `Proof` has exactly one last reply.
    /// Directory 0 is the one that is exported.
    Request:
    /// Answered by `Opened`.
    OpenFile = 1 { dir: u64, path: Box<[u8]>, options: OpenOptions }
    /// Answered by `Opened`.
    OpenDir = 2 { dir: u64, path: Box<[u8]> }
    /// The directory once more, with no way out of it. Answered by `Opened`.
    Confined = 3 { dir: u64 }
    /// A listing. Answered by `Opened`.
    ReadDir = 4 { dir: u64 }
    /// Some more names. Answered by `Entries`.
    NextEntries = 5 { listing: u64, entries_max: u32 }
    /// Answered by `Done`.
    CreateDir = 6 { dir: u64, path: Box<[u8]>, mode: u32 }
    /// Answered by `Done`.
    RemoveFile = 7 { dir: u64, path: Box<[u8]> }
    /// Answered by `Done`.
    RemoveDir = 8 { dir: u64, path: Box<[u8]> }
    /// Answered by `Done`.
    Rename = 9 { dir: u64, path: Box<[u8]>, to: u64, to_path: Box<[u8]> }
    /// Answered by `Done`.
    HardLink = 10 { dir: u64, path: Box<[u8]>, to: u64, to_path: Box<[u8]> }
    /// Answered by `Done`.
    Symlink = 11 { dir: u64, target: Box<[u8]>, path: Box<[u8]> }
    /// Answered by `Target`.
    ReadLink = 12 { dir: u64, path: Box<[u8]> }
    /// Answered by `Facts`.
    Metadata = 13 { dir: u64, path: Box<[u8]>, follow: Follow }
    /// Answered by `Done`.
    SetPermissions = 14 { dir: u64, path: Box<[u8]>, mode: u32 }
    /// Answered by `Done`.
    SetTimes = 15 { dir: u64, path: Box<[u8]>, times: Times, follow: Follow }
    /// Answered by `Done`.
    SyncDir = 16 { dir: u64 }
    /// Answered by `Data` and `Missing` until every byte has its answer.
    Read = 20 { file: u64, at: u64, len: u64 }
    /// With the bytes behind it. Answered by `Written`.
    Write = 21 { file: u64, at: u64 }
    /// Answered by `Facts`.
    FileMetadata = 22 { file: u64 }
    /// Answered by `Done`.
    SyncFile = 23 { file: u64, level: SyncLevel }
    /// Answered by `Done`.
    SetLen = 24 { file: u64, len: u64 }
    /// Answered by `Done`.
    Allocate = 25 { file: u64, at: u64, len: u64, how: Allocate }
    /// Answered by `Done`.
    SetFilePermissions = 26 { file: u64, mode: u32 }
    /// Answered by `Done`.
    SetFileTimes = 27 { file: u64, times: Times }
    /// Answered by `Done`, when the lock is there if `wait`.
    Lock = 28 { file: u64, kind: LockKind, wait: bool }
    /// Answered by `Done`.
    Unlock = 29 { file: u64 }
    /// A handle is not needed any more. Not answered.
    Close = 30 { handle: u64 }
    /// The answer to a request is not needed any more: waiting for a lock ends. Not answered.
    Cancel = 31 { request: u64 }
    /// Answered by `Done`.
    Ping = 32 {}
    /// The client knows the secret.
    Proof = 40 { code: [u8; 32] }
}

messages! {
    /// What a server answers.
    Reply:
    /// It is done.
    Done = 64 {}
    /// It is not done.
    Failed = 65 { error: Error }
    /// The number of a handle. No number is given out twice.
    Opened = 66 { handle: u64 }
    /// Names, and whether they were the last.
    Entries = 67 { ended: bool, entries: Vec<DirEntry> }
    /// Where a link points to.
    Target = 68 { path: Box<[u8]> }
    /// Facts.
    Facts = 69 { facts: Metadata }
    /// Bytes that were read, behind this; their place in the request is in the header.
    Data = 70 {}
    /// Bytes that were not read.
    Missing = 71 { at: u64, len: u64, error: ByteError }
    /// What of the bytes was not written, sorted and apart.
    Written = 72 { failed: Vec<FailedRange> }
    /// The server knows the secret too.
    Proven = 80 { code: [u8; 32] }
    /// The connection ends.
    Goodbye = 81 { reason: Reason }
}

/// Why a server ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The secret is not the same, or the client has none.
    Secret,
    /// Nothing came for too long.
    Idle,
    /// There are as many connections as there may be.
    Crowded,
    /// The client broke the rules of the protocol.
    Protocol,
    /// The server stops.
    Stopped,
}

const REASONS: [(Reason, u8, &str); 5] = [
    (Reason::Secret, 1, "the secret is not the same on both sides, or one side has none"),
    (Reason::Idle, 2, "the connection was silent for too long"),
    (Reason::Crowded, 3, "the server has as many connections as it may have: try again later"),
    (Reason::Protocol, 4, "the server could not make sense of what it was sent"),
    (Reason::Stopped, 5, "the server stops"),
];

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let known = REASONS.iter().find(|(reason, ..)| reason == self);
        f.write_str(known.map_or("the server ends the connection", |(.., text)| text))
    }
}

impl Field for Reason {
    fn put(&self, to: &mut Vec<u8>) {
        let known = REASONS.iter().find(|(reason, ..)| reason == self);
        known.map_or(5, |(_, number, _)| *number).put(to);
    }

    fn take(from: &mut Fields<'_>) -> Result<Self, WireError> {
        let number = u8::take(from)?;
        let known = REASONS.iter().find(|(_, known, _)| *known == number);
        known.map(|(reason, ..)| *reason).ok_or(WireError::BadValue)
    }
}
