//! What a kernel may expect of the shard above it, named so that a checker can report it.
//!
//! Data flow: `kernel` finds a broken expectation → [`Complaint`] → the checker's violations.
//! Complaints instead of panics, so that a planted bug shows all it does.
//!
//! Not here: expectations about data and durability (the checker above knows those).

use core::fmt;

use crate::ring::{FileRef, Tag};

/// Something the shard must never do to a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Complaint {
    /// The last op of a batch is linked to nothing (F15).
    LinkLeftOpen,
    /// Two ops in flight use the same memory, and one of them fills it (F08).
    MemoryShared {
        /// The op that came second.
        tag: Tag,
        /// The op that was in flight.
        other: Tag,
    },
    /// A tag was pushed while an op with that tag was in flight (F04).
    TagInUse {
        /// The tag.
        tag: Tag,
    },
    /// A transfer without memory, or memory on an op that transfers nothing.
    WrongMemory {
        /// The tag of the op.
        tag: Tag,
    },
    /// More ops in flight than the completion queue has entries (F20).
    InFlightAboveCq {
        /// Ops in flight.
        in_flight: usize,
    },
    /// `enter` waits without a deadline for completions that can never come (F28).
    SleepsForEver {
        /// Completions that are ready.
        ready: usize,
        /// Completions that were asked for.
        min: u32,
    },
    /// A descriptor was registered that is no file of the device.
    BadFile {
        /// The descriptor.
        fd: i32,
    },
    /// An op names a file that is not registered.
    NoSuchFile {
        /// How it named it.
        file: FileRef,
    },
    /// A file was unregistered while ops on it were in flight.
    FileForgottenInFlight,
    /// The ring was dropped while ops were in flight (F02).
    DroppedInFlight {
        /// Ops in flight.
        in_flight: usize,
    },
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::LinkLeftOpen => f.write_str("a chain was left open at the end of a batch"),
            Self::MemoryShared { tag, other } => {
                write!(f, "op {tag:?} uses memory that op {other:?} in flight uses")
            }
            Self::TagInUse { tag } => write!(f, "tag {tag:?} was pushed while it was in flight"),
            Self::WrongMemory { tag } => {
                write!(f, "op {tag:?} has no memory, or memory it cannot use")
            }
            Self::InFlightAboveCq { in_flight } => {
                write!(f, "{in_flight} ops in flight do not fit into the completion queue")
            }
            Self::SleepsForEver { ready, min } => {
                write!(f, "enter waits for {min} completions, {ready} are ready, no more can come")
            }
            Self::BadFile { fd } => write!(f, "descriptor {fd} is no file of the device"),
            Self::NoSuchFile { file } => write!(f, "an op names {file:?}, which is no file"),
            Self::FileForgottenInFlight => {
                f.write_str("a file was unregistered while ops on it were in flight")
            }
            Self::DroppedInFlight { in_flight } => {
                write!(f, "the ring was dropped with {in_flight} ops in flight")
            }
        }
    }
}
