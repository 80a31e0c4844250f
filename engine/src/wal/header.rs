//! The header of a segment, and its mark as free.
//!
//! Pure, as `format` is. Data flow: [`SegmentHeader`] ⇄ the first sector of a segment. Both
//! states can be told apart after a write of either was cut short at any byte.
//!
//! Not here: blocks and records (`format`).

use super::format::{Lsn, NUMBERS_END};

/// Bytes of a segment's header. It lies in one sector, which survives whole or not at all.
pub const SEGMENT_HEADER_BYTES: usize = 96;

/// Where in the sector of its header a segment is marked as free. Not over the header: the
/// mark is written with the header unchanged in front of it, so that a write which is cut
/// short anywhere leaves one of the two states, and the mark outlives a header that is cut.
const FREE_MARK_AT: usize = 256;

const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"MFIO-WAL");
const VERSION: u32 = 1;

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
    pub(super) fn seed(&self) -> u32 {
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
            && (1..NUMBERS_END).contains(&first_lsn.0)
            && (1..NUMBERS_END).contains(&id.sequence)
            && start_sequence < NUMBERS_END;
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

/// Writes numbers, one behind the other.
pub(super) struct Put<'a> {
    pub(super) into: &'a mut [u8],
    pub(super) at: usize,
}

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.into[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
}

/// Reads numbers; zeroes beyond the end, which the callers have ruled out.
pub(super) struct Take<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
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

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}
