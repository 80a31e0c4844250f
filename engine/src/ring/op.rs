//! The words that a shard and a ring share: an op, what it is on, and what became of it.
//!
//! Data flow: [`Op`] and [`Tag`] → [`Ring::push`](super::Ring::push) → [`Completion`] with the tag.
//!
//! Not here: ops on sockets and names (`socket`, `name`), what a shard keeps of an op (`slot`).

use crate::buffer::MemRange;

/// Names one op in flight: which slot, and which occupant of that slot.
///
/// The generation makes a late or duplicated completion of an earlier occupant recognisable
/// (F04). 64 bits, so it is exactly the `user_data` of an SQE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// Index into the shard's slot table.
    pub slot: u32,
    /// Counts the occupants of the slot; wraps.
    pub generation: u32,
}

impl Tag {
    /// The tag of ring-internal SQEs (cancel requests, wake-ups). Never given to a slot, and
    /// completions that carry it are swallowed by the ring.
    pub const INTERNAL: Self = Self { slot: u32::MAX, generation: u32::MAX };

    /// The 64 bits the kernel hands back in a CQE.
    #[must_use]
    #[inline]
    pub const fn to_user_data(self) -> u64 {
        ((self.generation as u64) << 32) | self.slot as u64
    }

    /// The inverse of [`Tag::to_user_data`].
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the two halves are cut out on purpose")]
    pub const fn from_user_data(user_data: u64) -> Self {
        Self { slot: user_data as u32, generation: (user_data >> 32) as u32 }
    }
}

/// What one SQE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpKind {
    /// Fills the op's memory from the file.
    Read,
    /// Writes the op's memory to the file.
    Write,
    /// Makes all completed writes and the metadata needed to read them durable (`fdatasync(2)`).
    Fdatasync,
    /// As `Fdatasync`, with all metadata (`fsync(2)`).
    Fsync,
    /// Does nothing and succeeds; measures the ring alone.
    Nop,
    /// Gives the range back to the device (`fallocate(2)`, `PUNCH_HOLE | KEEP_SIZE`).
    Discard,
    /// Makes the range read as zeros (`fallocate(2)`, `ZERO_RANGE`).
    WriteZeroes,
    /// Makes sure that the range has space (`fallocate(2)`, mode 0). A file may become longer.
    Allocate,
    /// Takes the range out of a file, which keeps its length (`PUNCH_HOLE | KEEP_SIZE`).
    PunchHole,
    /// Makes the file `len_bytes` long (`ftruncate(2)`).
    Truncate,
    /// As `Read`, into memory in several pieces.
    ReadVectored,
    /// As `Write`, from memory in several pieces.
    WriteVectored,
    /// Tells a block device that nobody needs the range (Linux 6.12); it may read as anything.
    DiscardDevice,
    /// Compares the op's memory with what a namespace holds.
    Compare,
    /// Has a namespace copy `len_bytes` to the op's offset; its memory says from where.
    CopyWithin,
}

impl OpKind {
    /// Whether it changes a range of the file without moving memory; it completes with 0.
    #[must_use]
    #[inline]
    pub const fn is_range(self) -> bool {
        self.fallocate_mode().is_some() || matches!(self, Self::Truncate | Self::DiscardDevice)
    }

    /// The mode of `fallocate(2)` that does it, if that call does.
    #[must_use]
    pub const fn fallocate_mode(self) -> Option<i32> {
        match self {
            Self::Discard | Self::PunchHole => {
                Some(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE)
            }
            Self::WriteZeroes => Some(libc::FALLOC_FL_ZERO_RANGE),
            Self::Allocate => Some(0),
            _ => None,
        }
    }
}

/// How a ring addresses an open file. Handed out by
/// [`Ring::register_file`](super::Ring::register_file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRef {
    /// An index into the ring's registered file table.
    Fixed(u32),
    /// A plain descriptor of this process.
    Plain(i32),
    /// An index into the ring's table of what it serves beside its main queue: by NVMe commands,
    /// or by polling. No op on it is linked to another.
    Beside(u32),
}

/// One SQE's worth of work, in device terms.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// What to do.
    pub kind: OpKind,
    /// On which file.
    pub file: FileRef,
    /// Byte offset in the file; 0 for flushes. Never -1 ("current position", F18).
    pub offset_bytes: u64,
    /// The memory to fill or to write; of reads and writes, and of nothing else. Its length is the
    /// transfer length. The slot named by the tag keeps it alive until the target CQE.
    pub memory: Option<MemRange>,
    /// The next pushed op starts only when this one has succeeded in full (`IOSQE_IO_LINK`).
    pub link: bool,
    /// Go straight to a kernel worker (`IOSQE_ASYNC`): the last retry after EAGAIN.
    pub force_async: bool,
    /// Of an op on a range, and of a copy, how long that is; of [`OpKind::Truncate`], how long the
    /// file is to become. 0 for all others.
    pub len_bytes: u64,
    /// A write completes only when its bytes survive power loss (`RWF_DSYNC`).
    pub dsync: bool,
    /// A write survives power loss as a whole or not at all (`RWF_ATOMIC`); it does not make it
    /// survive.
    pub atomic: bool,
    /// Everything else goes first, as far as the device's scheduler heeds priorities.
    pub background: bool,
}

impl Op {
    /// Moves nothing, unlinked: what a flush and a nop are, and what the others start from.
    #[must_use]
    #[inline]
    pub const fn on(kind: OpKind, file: FileRef) -> Self {
        Self {
            kind,
            file,
            offset_bytes: 0,
            memory: None,
            link: false,
            force_async: false,
            len_bytes: 0,
            dsync: false,
            atomic: false,
            background: false,
        }
    }

    /// Changes `len_bytes` bytes from `offset_bytes` on without moving memory, unlinked.
    #[must_use]
    #[inline]
    pub const fn range(kind: OpKind, file: FileRef, offset_bytes: u64, len_bytes: u64) -> Self {
        Self { offset_bytes, len_bytes, ..Self::on(kind, file) }
    }

    /// Moves all of `memory` from or to byte `offset_bytes` of `file`, unlinked.
    #[must_use]
    #[inline]
    pub const fn transfer(
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
    ) -> Self {
        Self { offset_bytes, memory: Some(memory), ..Self::on(kind, file) }
    }
}

/// What became of one op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The tag it was pushed with.
    pub tag: Tag,
    /// Bytes moved (0 for a flush), or a negated errno.
    pub result: i32,
    /// Another completion with this tag will follow (`IORING_CQE_F_MORE`).
    pub more: bool,
}
