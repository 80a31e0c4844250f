//! What is in the buffers a job writes, and how it is checked.
//!
//! Data flow: `options` parses text into these -> the bench fills and checks buffers.
//!
//! Not here: when checks run (`job`).

use crate::error::ParseError;

use super::{Job, Verify};

/// Bytes that repeat, with places for the offset of the block.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pattern {
    /// The bytes; zeros where an offset goes.
    pub bytes: Vec<u8>,
    /// Where the block's offset (8 bytes, little endian) goes, from the pattern's start.
    pub offsets: Vec<usize>,
}

/// Everything about content, for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Write zeros.
    pub zero_buffers: bool,
    /// New data in every write.
    pub refill_buffers: bool,
    /// Change a little in every write.
    pub scramble_buffers: bool,
    /// Write this.
    pub buffer_pattern: Option<Pattern>,
    /// How much of the data a compressor can save.
    pub compress_percent: u8,
    /// In pieces of that size.
    pub compress_chunk_bytes: u64,
    /// Share of writes that repeat the content of another.
    pub dedupe_percent: u8,
    /// Check units of that size; 0 is the block.
    pub verify_interval: u64,
    /// Put the header there in each unit.
    pub verify_offset: u64,
    /// Data between headers, or all of it.
    pub verify_pattern: Option<Pattern>,
    /// Check after every so many writes; 0 is at the end.
    pub verify_backlog: u64,
    /// How many of those to check at a time; 0 is all.
    pub verify_backlog_batch: u64,
    /// Write wrong blocks to files.
    pub verify_dump: bool,
    /// Read and check what an earlier run has written.
    pub verify_only: bool,
}

impl Default for Content {
    fn default() -> Self {
        Self {
            zero_buffers: false,
            refill_buffers: false,
            scramble_buffers: true,
            buffer_pattern: None,
            compress_percent: 0,
            compress_chunk_bytes: 512,
            dedupe_percent: 0,
            verify_interval: 0,
            verify_offset: 0,
            verify_pattern: None,
            verify_backlog: 0,
            verify_backlog_batch: 0,
            verify_dump: false,
            verify_only: false,
        }
    }
}

impl Job {
    /// Refuses content that contradicts itself.
    pub(super) fn check_content(&self) -> Result<(), ParseError> {
        let content = &self.content;
        if self.verify == Verify::Pattern && content.verify_pattern.is_none() {
            let error = self.error("verify", "verify=pattern needs a verify_pattern");
            return Err(error.with_remedy("add verify_pattern=0xdeadbeef, or another"));
        }
        if content.verify_only && self.verify == Verify::None {
            return Err(self.error("verify_only", "verify_only needs verify=METHOD"));
        }
        if content.zero_buffers && content.buffer_pattern.is_some() {
            let message = "zero_buffers and buffer_pattern exclude each other";
            return Err(self.error("zero_buffers", message));
        }
        Ok(())
    }
}
