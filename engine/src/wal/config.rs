//! The limits of a log, with names, checked once.
//!
//! Not here: limits of the shard (`crate::Config`), whose arena must have room for blocks.

use super::error::WalError;
use super::format::{
    BLOCK_HEADER_BYTES, RECORD_HEADER_BYTES, RecordAlign, SECTOR_BYTES, SEGMENT_HEADER_BYTES,
};
use crate::target::SyncMethod;

/// The most blocks that a log has in flight.
pub const IN_FLIGHT_MAX: u32 = 8;

/// The limits of a log.
#[derive(Clone, Copy, Debug)]
pub struct WalConfig {
    /// Bytes of a segment that is made. Segments that exist keep their size.
    pub segment_bytes: u64,
    /// How many segments beyond the current one are kept ready.
    pub segments_ready: u32,
    /// The longest block in bytes, a multiple of `block_align_bytes`. The shard's arena must
    /// have `in_flight_max + 1` buffers of this size, and one more while the log is opened.
    pub block_bytes_max: u32,
    /// Blocks begin and end at a multiple of this many bytes, a power of two, 512 to 4096. A
    /// block never shares one of these units with another, so a torn write of one cannot harm
    /// its neighbour. Raised to what the segments demand.
    pub block_align_bytes: u32,
    /// How many blocks are in flight at a time: 1 to [`IN_FLIGHT_MAX`].
    pub in_flight_max: u32,
    /// Where records begin.
    pub record_align: RecordAlign,
    /// How blocks become durable. `None`: as [`File::calibrate`](crate::File::calibrate) finds
    /// out when the log is opened, on a nameless file beside the segments; what was chosen for
    /// a segment by its owner stays. A method that a segment cannot have is not used there.
    pub sync_method: Option<SyncMethod>,
}

impl WalConfig {
    /// Segments of 64 MiB with one ready, blocks of up to 128 KiB in units of 512 bytes, two in
    /// flight, packed records.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segments_ready: 1,
            block_bytes_max: 128 << 10,
            block_align_bytes: 512,
            in_flight_max: 2,
            record_align: RecordAlign::Packed,
            sync_method: None,
        }
    }

    /// The longest record in bytes: what fits into one block. A longer one is refused before
    /// anything is written; a caller who needs more cuts it into several.
    #[must_use]
    pub const fn record_bytes_max(&self) -> usize {
        let first = match self.record_align {
            RecordAlign::Packed => BLOCK_HEADER_BYTES,
            RecordAlign::Sector => SECTOR_BYTES,
        };
        // The first block of a segment carries the segment's header, of one unit.
        let room = (self.block_bytes_max as usize).saturating_sub(self.block_align_bytes as usize);
        room.saturating_sub(first + RECORD_HEADER_BYTES)
    }

    /// Whether a segment of `len_bytes` has room for the longest block. One that has not is left
    /// alone: a record that fits into a block must fit into a segment that is begun for it.
    pub(super) fn fits_into(&self, len_bytes: u64) -> bool {
        len_bytes >= u64::from(self.block_bytes_max)
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// [`WalError::Config`] naming the limit and what it must be.
    pub fn validate(&self) -> Result<(), WalError> {
        let wrong = |limit, must| Err(WalError::Config { limit, must });
        let align = self.block_align_bytes;
        if !align.is_power_of_two() || !(512..=4096).contains(&align) {
            return wrong("block_align_bytes", "be 512, 1024, 2048 or 4096");
        }
        if !self.block_bytes_max.is_multiple_of(align) || self.record_bytes_max() == 0 {
            return wrong("block_bytes_max", "be a multiple of the unit, and at least four of it");
        }
        if self.block_bytes_max > 1 << 20 {
            return wrong("block_bytes_max", "be at most 1 MiB, the longest single transfer");
        }
        if !self.segment_bytes.is_multiple_of(4096)
            || self.segment_bytes < u64::from(self.block_bytes_max)
            || self.segment_bytes > i64::MAX as u64 / 2
        {
            return wrong("segment_bytes", "be a multiple of 4096 and hold the longest block");
        }
        if !(1..=IN_FLIGHT_MAX).contains(&self.in_flight_max) {
            return wrong("in_flight_max", "be 1 to 8");
        }
        Ok(())
    }
}

impl Default for WalConfig {
    fn default() -> Self {
        Self::new()
    }
}

const _: () = assert!(SEGMENT_HEADER_BYTES <= SECTOR_BYTES);
