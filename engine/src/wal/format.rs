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

/// Bytes of a block's header.
pub const BLOCK_HEADER_BYTES: usize = 64;

/// Bytes in front of each record.
pub const RECORD_HEADER_BYTES: usize = 8;

/// Bytes of a segment's header. It lies in one sector, which survives whole or not at all.
pub const SEGMENT_HEADER_BYTES: usize = 96;

/// Where in the sector of its header a segment is marked as free. Not over the header: the
/// mark is written with the header unchanged in front of it, so that a write which is cut
/// short anywhere leaves one of the two states, and the mark outlives a header that is cut.
const FREE_MARK_AT: usize = 256;

/// The unit of [`RecordAlign::Sector`].
pub const SECTOR_BYTES: usize = 512;

const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"WBLK");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"MFIO-WAL");
const VERSION: u32 = 1;

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

/// Which use of which segment of which log. Part of every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentId {
    /// The log.
    pub log_id: u64,
    /// The position of the segment in the log, from 1 on; never used twice for good.
    pub sequence: u64,
    /// Drawn anew whenever a segment is begun.
    pub salt: u64,
}

impl SegmentId {
    fn seed(&self) -> u32 {
        let crc = crc32c::crc32c(&self.log_id.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &self.sequence.to_le_bytes());
        crc32c::crc32c_append(crc, &self.salt.to_le_bytes())
    }
}

/// What a segment's header says of the rest of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentState {
    /// It holds a part of the log.
    Live,
    /// Nothing in it counts.
    Free,
}

/// The beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whether what follows counts.
    pub state: SegmentState,
    /// Which use of the segment this is.
    pub id: SegmentId,
    /// The oldest segment of the log when this was written. Everything before is retired.
    pub start_sequence: u64,
    /// The number of its first record.
    pub first_lsn: Lsn,
    /// Up to where the log was durable when this was written.
    pub durable_lsn: Lsn,
    /// The checksum of the block before, in the segment before; 0 at the start of the log.
    pub previous_crc: u32,
    /// The unit of blocks in bytes; also the room that the header takes.
    pub align_bytes: u32,
    /// No block of the segment is longer.
    pub block_bytes_max: u32,
    /// No more blocks were in flight at a time.
    pub in_flight_max: u32,
}

impl SegmentHeader {
    /// Writes the header into the first [`SEGMENT_HEADER_BYTES`] of `into`.
    ///
    /// # Panics
    /// When `into` is shorter.
    pub fn write(&self, into: &mut [u8]) {
        let mut put = Put { into: &mut *into, at: 0 };
        put.u64(SEGMENT_MAGIC);
        put.u32(VERSION);
        put.u32(u32::from(self.state == SegmentState::Live));
        put.u64(self.id.log_id);
        put.u64(self.id.sequence);
        put.u64(self.id.salt);
        put.u64(self.start_sequence);
        put.u64(self.first_lsn.0);
        put.u64(self.durable_lsn.0);
        put.u32(self.previous_crc);
        put.u32(self.align_bytes);
        put.u32(self.block_bytes_max);
        put.u32(self.in_flight_max);
        put.u64(0);
        let at = put.at;
        let crc = crc32c::crc32c(&into[..at]);
        into[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        into[at + 4..SEGMENT_HEADER_BYTES].fill(0);
    }

    /// Marks the segment whose first sector is in `sector` as free.
    ///
    /// # Panics
    /// When `sector` is shorter than one.
    pub fn write_free_mark(&self, start_sequence: u64, sector: &mut [u8]) {
        let free = Self { state: SegmentState::Free, start_sequence, ..*self };
        free.write(&mut sector[FREE_MARK_AT..]);
    }

    /// Reads the first sector of a segment: its header, or its mark as free where that
    /// belongs to the header or the header is damaged.
    #[must_use]
    pub fn of_sector(sector: &[u8]) -> Option<Self> {
        let header = Self::read(sector).filter(|header| header.state == SegmentState::Live);
        let mark = sector.get(FREE_MARK_AT..).and_then(Self::read);
        let mark = mark.filter(|mark| mark.state == SegmentState::Free);
        match (header, mark) {
            (Some(header), Some(mark)) if header.id == mark.id => Some(mark),
            (Some(header), _) => Some(header),
            (None, mark) => mark,
        }
    }

    /// Reads a header; `None` for anything that was not written by [`SegmentHeader::write`] of
    /// this version.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..SEGMENT_HEADER_BYTES)?;
        let covered = SEGMENT_HEADER_BYTES - 8;
        let crc = Take { bytes: &bytes[covered..], at: 0 }.u32();
        let mut take = Take { bytes, at: 0 };
        if take.u64() != SEGMENT_MAGIC || take.u32() != VERSION {
            return None;
        }
        if crc != crc32c::crc32c(&bytes[..covered]) {
            return None;
        }
        let state = if take.u32() == 1 { SegmentState::Live } else { SegmentState::Free };
        let id = SegmentId { log_id: take.u64(), sequence: take.u64(), salt: take.u64() };
        let start_sequence = take.u64();
        let first_lsn = Lsn(take.u64());
        let durable_lsn = Lsn(take.u64());
        let previous_crc = take.u32();
        let align_bytes = take.u32();
        let block_bytes_max = take.u32();
        let in_flight_max = take.u32();
        let sane = align_bytes.is_power_of_two()
            && (512..=1 << 16).contains(&align_bytes)
            && block_bytes_max.is_multiple_of(align_bytes)
            && (1..=1 << 30).contains(&block_bytes_max)
            && (1..=64).contains(&in_flight_max)
            && (1..u64::MAX).contains(&first_lsn.0)
            && (1..u64::MAX).contains(&id.sequence);
        sane.then_some(Self {
            state,
            id,
            start_sequence,
            first_lsn,
            durable_lsn,
            previous_crc,
            align_bytes,
            block_bytes_max,
            in_flight_max,
        })
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
    let numbered = first_lsn.0 >= 1 && first_lsn.0.checked_add(u64::from(records)).is_some();
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

struct Put<'a> {
    into: &'a mut [u8],
    at: usize,
}

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.into[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
}

/// Reads numbers; zeroes beyond the end, which the callers have ruled out.
struct Take<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Take<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        if let Some(bytes) = self.bytes.get(self.at..self.at + N) {
            array.copy_from_slice(bytes);
        }
        self.at += N;
        array
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
