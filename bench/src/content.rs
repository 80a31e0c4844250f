//! What is in the buffers that are written, and whether what was read is right.
//!
//! Data flow: (file, offset, number of the write) -> bytes; bytes -> `Ok` or a [`Mismatch`].
//!
//! Not here: the format of a verifiable block (`verify`).

use crate::ioengine::Io;
use crate::random::Random;
use crate::verify::{self, Fault, Identity};
use crate::written::Written;

/// fio varies its buffers in steps of this size, so that no sector equals another.
const SCRAMBLE_BYTES: usize = 512;

/// A block that is not what it should be.
#[derive(Clone, Debug)]
pub(crate) struct Mismatch {
    /// Index of the file.
    pub(crate) file: u32,
    /// Where the block begins.
    pub(crate) offset_bytes: u64,
    /// How long it is.
    pub(crate) len_bytes: u32,
    /// What is wrong.
    pub(crate) fault: Fault,
    /// The checksum in the header, and the one computed.
    pub(crate) checksums: (u32, u32),
}

/// Makes and checks content for one worker.
pub(crate) struct Content {
    random: Random,
    /// Bytes per verifiable block; `None` writes noise.
    block_bytes: Option<u32>,
    seed: u64,
    sequence: u64,
    written: Option<Written>,
    /// Whether reads of the main phase are checked (`rw=read` with `verify`).
    pub(crate) check_reads: bool,
}

impl Content {
    /// Noise, different in every write.
    pub(crate) fn noise(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            block_bytes: None,
            seed,
            sequence: 0,
            written: None,
            check_reads: false,
        }
    }

    /// Verifiable blocks. `written` remembers them where this worker is their only writer.
    pub(crate) fn verifiable(block_bytes: u32, seed: u64, written: Option<Written>) -> Self {
        Self { block_bytes: Some(block_bytes), written, ..Self::noise(seed) }
    }

    /// Whether content is verifiable, so that writes to one block must not overtake each other.
    pub(crate) fn is_verifiable(&self) -> bool {
        self.block_bytes.is_some()
    }

    /// What was written, if it is remembered.
    pub(crate) fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }

    /// Forgets what was written, for another pass.
    pub(crate) fn forget(&mut self) {
        if let Some(written) = &mut self.written {
            written.clear();
        }
    }

    /// Fills a fresh buffer with noise, once.
    pub(crate) fn prime(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&self.random.next().to_le_bytes()[..chunk.len()]);
        }
    }

    /// Prepares the buffer of a write.
    #[inline]
    pub(crate) fn fill(&mut self, io: Io, buffer: &mut [u8]) {
        self.sequence += 1;
        let Some(block_bytes) = self.block_bytes else {
            for sector in buffer.chunks_exact_mut(SCRAMBLE_BYTES) {
                sector[..8].copy_from_slice(&self.sequence.to_le_bytes());
                sector[8..16].copy_from_slice(&io.offset_bytes.to_le_bytes());
            }
            return;
        };
        self.fill_blocks(io, buffer, block_bytes);
    }

    fn fill_blocks(&mut self, io: Io, buffer: &mut [u8], block_bytes: u32) {
        let offsets = (io.offset_bytes..).step_by(block_bytes as usize);
        for (block, offset_bytes) in buffer.chunks_exact_mut(block_bytes as usize).zip(offsets) {
            let identity = Identity { offset_bytes, sequence: self.sequence, seed: self.seed };
            verify::fill(block, identity);
            if let Some(written) = &mut self.written {
                written.note(io.file, offset_bytes, self.sequence);
            }
        }
    }

    /// Checks what was read. `remembered` compares with this worker's own writes as well.
    ///
    /// # Errors
    /// The first block that is wrong.
    pub(crate) fn check(&self, io: Io, data: &[u8], remembered: bool) -> Result<(), Mismatch> {
        let Some(block_bytes) = self.block_bytes else { return Ok(()) };
        let offsets = (io.offset_bytes..).step_by(block_bytes as usize);
        for (block, offset_bytes) in data.chunks_exact(block_bytes as usize).zip(offsets) {
            let verdict = verify::check(block, offset_bytes)
                .and_then(|identity| self.compare(io.file, identity, remembered));
            if let Err(fault) = verdict {
                return Err(Mismatch {
                    file: io.file,
                    offset_bytes,
                    len_bytes: block_bytes,
                    fault,
                    checksums: verify::checksums(block),
                });
            }
        }
        Ok(())
    }

    fn compare(&self, file: u32, found: Identity, remembered: bool) -> Result<(), Fault> {
        let Some(written) = self.written.as_ref().filter(|_| remembered) else { return Ok(()) };
        if found.seed != self.seed {
            return Err(Fault::Seed { expected: self.seed, found: found.seed });
        }
        if !written.matches(file, found.offset_bytes, found.sequence) {
            let expected = written.expected(file, found.offset_bytes);
            return Err(Fault::Stale { expected, found: found.sequence });
        }
        Ok(())
    }
}
