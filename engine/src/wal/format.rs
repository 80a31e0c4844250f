//! Bytes of a log: segment headers, blocks and records, and nothing but bytes.
//!
//! Pure: no I/O, no allocation. Data flow: records → [`Composer`] → a sealed block → device →
//! [`parse_block`] → records. Every checksum (CRC-32C) covers the log, the segment's sequence
//! and the salt of this very use of the segment, so that what an earlier use, another log or
//! an interrupted write has left behind is never taken for a block.
//!
//! ```text
//! segment: | header, one alignment unit | block | block | … | (zeroes, or what was before) |
//! block:   | header 64 B | len, crc, record | len, crc, record | … | zeroes to the unit |
//! ```
//!
//! All numbers are little-endian.
//!
//! Not here: where blocks go (`commit`), which of them count (`recover`).

use core::fmt;

use super::header::{Put, Take};

pub use super::header::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentId, SegmentState};

/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 64;

/// Bytes in front of each record.
pub const RECORD_HEADER_BYTES: usize = 8;

/// The unit of [`RecordAlign::Sector`].
pub const SECTOR_BYTES: usize = 512;

/// Records and segments are numbered below this: one of each every nanosecond takes 292 years.
/// What claims more is not a log, and its numbers are never counted on.
pub(super) const NUMBERS_END: u64 = 1 << 63;

const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"WBLK");

/// The number of a record: 1 for the first one of a log, and one more for each that follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The first record of a log.
    pub const FIRST: Self = Self(1);

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The number before this one; 0, which no record has, before the first.
    #[must_use]
    pub const fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where records begin inside a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RecordAlign {
    /// One directly behind the other: the least space.
    #[default]
    Packed,
    /// Each header at a multiple of 512 bytes, so that no two records share a sector.
    Sector,
}

impl RecordAlign {
    const fn unit_bytes(self) -> usize {
        match self {
            Self::Packed => 1,
            Self::Sector => SECTOR_BYTES,
        }
    }
}

/// Why bytes are not a block of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotABlock {
    /// No block begins here, or one of another use of the segment.
    Nothing,
    /// A block seems to begin here, and it is longer than what was given.
    Longer {
        /// How many bytes it would have.
        bytes: usize,
    },
    /// A block began here, and some of it is not as it was written.
    Torn,
}

/// One whole block.
#[derive(Clone, Copy, Debug)]
pub struct Block<'a> {
    /// The number of its first record.
    pub first_lsn: Lsn,
    /// How many records it has; at least one.
    pub records: u32,
    /// Up to where the log was durable when it was sealed.
    pub durable_lsn: Lsn,
    /// The checksum of the block before it.
    pub previous_crc: u32,
    /// Its own checksum.
    pub crc: u32,
    /// Its length on the device, a multiple of the unit.
    pub bytes: usize,
    align: RecordAlign,
    payload: &'a [u8],
}

impl<'a> Block<'a> {
    /// The number after its last record.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0.saturating_add(u64::from(self.records)))
    }

    /// Its records in order.
    #[must_use]
    pub fn iter(&self) -> Records<'a> {
        Records { payload: self.payload, at: 0, lsn: self.first_lsn, align: self.align }
    }
}

/// The records of a block, each with its number. Ends early where one is damaged, which
/// [`parse_block`] has ruled out.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    payload: &'a [u8],
    at: usize,
    lsn: Lsn,
    align: RecordAlign,
}

impl<'a> Iterator for Records<'a> {
    type Item = (Lsn, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let start = record_start(self.at, self.align)?;
        let header = self.payload.get(start..start.checked_add(RECORD_HEADER_BYTES)?)?;
        let mut take = Take { bytes: header, at: 0 };
        let (len, crc) = (take.u32() as usize, take.u32());
        let from = start + RECORD_HEADER_BYTES;
        let record = self.payload.get(from..from.checked_add(len)?)?;
        if crc != record_crc(self.lsn, record) {
            return None;
        }
        let lsn = self.lsn;
        self.at = from + len;
        self.lsn = lsn.next();
        Some((lsn, record))
    }
}

/// Where in the payload a record may begin, at or after `at`.
fn record_start(at: usize, align: RecordAlign) -> Option<usize> {
    let unit = align.unit_bytes();
    let in_block = at.checked_add(BLOCK_HEADER_BYTES)?.checked_next_multiple_of(unit)?;
    Some(in_block - BLOCK_HEADER_BYTES)
}

fn record_crc(lsn: Lsn, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&lsn.0.to_le_bytes()), record)
}

/// Reads the block of segment `id` that begins with the first of `bytes`, with all its records.
/// Never panics and never looks beyond `bytes`, whatever they are.
///
/// # Errors
/// [`NotABlock`]; nothing of a damaged block is given out.
pub fn parse_block<'a>(
    bytes: &'a [u8],
    id: &SegmentId,
    align_bytes: usize,
) -> Result<Block<'a>, NotABlock> {
    let header = bytes.get(..BLOCK_HEADER_BYTES).ok_or(NotABlock::Nothing)?;
    let mut take = Take { bytes: header, at: 0 };
    let (magic, crc) = (take.u32(), take.u32());
    let (sequence, salt) = (take.u64(), take.u64());
    if magic != BLOCK_MAGIC || sequence != id.sequence || salt != id.salt {
        return Err(NotABlock::Nothing);
    }
    let (first_lsn, durable_lsn) = (Lsn(take.u64()), Lsn(take.u64()));
    let (previous_crc, payload_len) = (take.u32(), take.u32() as usize);
    let (records, sectors) = (take.u32(), take.u32());
    let used = BLOCK_HEADER_BYTES.checked_add(payload_len).ok_or(NotABlock::Torn)?;
    let block_bytes = used.checked_next_multiple_of(align_bytes).ok_or(NotABlock::Torn)?;
    if block_bytes > bytes.len() {
        return Err(NotABlock::Longer { bytes: block_bytes });
    }
    if crc != crc32c::crc32c_append(id.seed(), &bytes[8..used]) {
        return Err(NotABlock::Torn);
    }
    let align = if sectors == 0 { RecordAlign::Packed } else { RecordAlign::Sector };
    let payload = &bytes[BLOCK_HEADER_BYTES..used];
    let block = Block {
        first_lsn,
        records,
        durable_lsn,
        previous_crc,
        crc,
        bytes: block_bytes,
        align,
        payload,
    };
    let numbered = (1..NUMBERS_END).contains(&first_lsn.0);
    let count = if numbered { block.iter().count() } else { 0 };
    if records == 0 || count as u64 != u64::from(records) {
        return Err(NotABlock::Torn);
    }
    Ok(block)
}

/// Fills the buffer of the block that is open. Knows lengths only, so that it can stand beside
/// a buffer that others own.
#[derive(Clone, Copy, Debug)]
pub struct Composer {
    /// Where the block begins in the buffer: behind the segment's header, if that goes along.
    start: usize,
    /// Bytes of the buffer that are used.
    used: usize,
    records: u32,
    align: RecordAlign,
}

/// What a block is sealed with.
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// The segment that it goes to.
    pub id: SegmentId,
    /// The number of its first record.
    pub first_lsn: Lsn,
    /// Up to where the log is durable.
    pub durable_lsn: Lsn,
    /// The checksum of the block before.
    pub previous_crc: u32,
    /// The unit of blocks.
    pub align_bytes: usize,
}

impl Composer {
    /// An empty block that begins at byte `start` of its buffer.
    #[must_use]
    pub const fn new(start: usize, align: RecordAlign) -> Self {
        Self { start, used: start + BLOCK_HEADER_BYTES, records: 0, align }
    }

    /// Records so far.
    #[must_use]
    pub const fn records(&self) -> u32 {
        self.records
    }

    /// Whether a record of `len` bytes fits into a buffer of `capacity` bytes.
    #[must_use]
    pub fn fits(&self, len: usize, capacity: usize) -> bool {
        let end = self.next_start().checked_add(RECORD_HEADER_BYTES + len);
        end.is_some_and(|end| end <= capacity)
    }

    fn next_start(&self) -> usize {
        self.start + (self.used - self.start).next_multiple_of(self.align.unit_bytes())
    }

    /// Appends a record, which must fit.
    ///
    /// # Panics
    /// When it does not fit into `buffer`.
    pub fn push(&mut self, buffer: &mut [u8], lsn: Lsn, record: &[u8]) {
        let at = self.next_start();
        buffer[self.used..at].fill(0);
        let len = u32::try_from(record.len()).expect("a record is shorter than its block");
        let from = at + RECORD_HEADER_BYTES;
        buffer[at..at + 4].copy_from_slice(&len.to_le_bytes());
        buffer[at + 4..from].copy_from_slice(&record_crc(lsn, record).to_le_bytes());
        buffer[from..from + record.len()].copy_from_slice(record);
        self.used = from + record.len();
        self.records += 1;
    }

    /// Completes the block. Returns how many bytes of the buffer are to be written, and the
    /// block's checksum.
    ///
    /// # Panics
    /// When the buffer does not end at a unit, or the block is empty.
    pub fn seal(&self, buffer: &mut [u8], seal: &Seal) -> (usize, u32) {
        assert!(self.records > 0, "an empty block is not written");
        let end = self.used.next_multiple_of(seal.align_bytes);
        // What was in the buffer before is nobody's to read (F50).
        buffer[self.used..end].fill(0);
        let payload = self.used - self.start - BLOCK_HEADER_BYTES;
        let block = &mut buffer[self.start..self.used];
        let mut put = Put { into: &mut *block, at: 0 };
        put.u32(BLOCK_MAGIC);
        put.u32(0);
        put.u64(seal.id.sequence);
        put.u64(seal.id.salt);
        put.u64(seal.first_lsn.0);
        put.u64(seal.durable_lsn.0);
        put.u32(seal.previous_crc);
        put.u32(u32::try_from(payload).expect("a block is shorter than 4 GiB"));
        put.u32(self.records);
        put.u32(u32::from(self.align == RecordAlign::Sector));
        put.u64(0);
        let crc = crc32c::crc32c_append(seal.id.seed(), &block[8..]);
        block[4..8].copy_from_slice(&crc.to_le_bytes());
        (end, crc)
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
