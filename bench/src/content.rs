//! What is in the buffers that are written, and whether what was read is right.
//!
//! Data flow: (file, offset, number of the write) -> bytes; bytes -> `Ok` or a [`Mismatch`].
//!
//! Not here: the format of a verifiable block (`verify`), content of no meaning (`noise`).

use crate::ioengine::Io;
use crate::noise::Noise;
use crate::verify::{self, Fault, Identity, Scheme};
use crate::written::Written;

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
    pub(crate) checksums: (String, String),
    /// The block as it is and, where it says so, as it should be; only if they are dumped.
    pub(crate) dump: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

/// What verifiable blocks are made of.
pub(crate) struct Blocks {
    /// Bytes per verifiable block.
    pub(crate) bytes: u32,
    /// How they are made.
    pub(crate) scheme: Scheme,
    /// Wrong blocks are kept.
    pub(crate) dumped: bool,
}

/// Makes and checks content for one worker.
pub(crate) struct Content {
    noise: Noise,
    blocks: Option<Blocks>,
    seed: u64,
    sequence: u64,
    written: Option<Written>,
    /// Whether reads of the main phase are checked (`rw=read` with `verify`).
    pub(crate) check_reads: bool,
}

impl Content {
    /// Content without meaning.
    pub(crate) fn noise(noise: Noise, seed: u64) -> Self {
        Self { noise, blocks: None, seed, sequence: 0, written: None, check_reads: false }
    }

    /// Verifiable blocks. `written` remembers them where this worker is their only writer.
    pub(crate) fn verifiable(
        noise: Noise,
        blocks: Blocks,
        seed: u64,
        written: Option<Written>,
    ) -> Self {
        Self { blocks: Some(blocks), written, ..Self::noise(noise, seed) }
    }

    /// Whether content is verifiable, so that writes to one block must not overtake each other.
    pub(crate) fn is_verifiable(&self) -> bool {
        self.blocks.is_some()
    }

    /// What was written, if it is remembered.
    pub(crate) fn written_mut(&mut self) -> Option<&mut Written> {
        self.written.as_mut()
    }

    /// Forgets what was written, for another pass.
    pub(crate) fn forget(&mut self) {
        if let Some(written) = &mut self.written {
            written.clear();
        }
    }

    /// Fills a fresh buffer, once.
    pub(crate) fn prime(&mut self, buffer: &mut [u8]) {
        self.noise.prime(buffer);
    }

    /// Prepares the buffer of a write.
    #[inline]
    pub(crate) fn fill(&mut self, io: Io, buffer: &mut [u8]) {
        self.sequence += 1;
        if self.blocks.is_none() {
            return self.noise.fill(self.sequence, io.offset_bytes, buffer);
        }
        self.fill_blocks(io, buffer);
    }

    fn fill_blocks(&mut self, io: Io, buffer: &mut [u8]) {
        let Some(blocks) = &self.blocks else { return };
        let offsets = (io.offset_bytes..).step_by(blocks.bytes as usize);
        for (block, offset_bytes) in buffer.chunks_exact_mut(blocks.bytes as usize).zip(offsets) {
            let identity = Identity { offset_bytes, sequence: self.sequence, seed: self.seed };
            verify::fill(&blocks.scheme, block, identity);
            if let Some(written) = &mut self.written {
                written.note(io.file, offset_bytes, self.sequence);
            }
        }
    }

    /// Checks what was read. `remembered` compares with this worker's own writes as well.
    ///
    /// # Errors
    /// The first block that is wrong.
    pub(crate) fn check(&self, io: Io, data: &[u8], remembered: bool) -> Result<(), Box<Mismatch>> {
        let Some(blocks) = &self.blocks else { return Ok(()) };
        let offsets = (io.offset_bytes..).step_by(blocks.bytes as usize);
        for (block, offset_bytes) in data.chunks_exact(blocks.bytes as usize).zip(offsets) {
            let verdict = verify::check(&blocks.scheme, block, offset_bytes)
                .and_then(|identity| self.compare(io.file, identity, remembered));
            if let Err(fault) = verdict {
                let rebuilt = || verify::rebuilt(&blocks.scheme, block, offset_bytes);
                return Err(Box::new(Mismatch {
                    file: io.file,
                    offset_bytes,
                    len_bytes: blocks.bytes,
                    fault,
                    checksums: verify::checksums(&blocks.scheme, block),
                    dump: blocks.dumped.then(|| (block.to_vec(), rebuilt())),
                }));
            }
        }
        Ok(())
    }

    fn compare(&self, file: u32, found: Option<Identity>, remembered: bool) -> Result<(), Fault> {
        let (Some(found), Some(written)) = (found, self.written.as_ref().filter(|_| remembered))
        else {
            return Ok(());
        };
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
