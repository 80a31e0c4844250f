//! What is in the buffers that are written, and whether what was read is right.
//!
//! Data flow: (file, offset, number of the write) -> bytes; bytes -> `Ok` or a [`Mismatch`].
//!
//! Not here: the format of a verifiable block (`verify`), content of no meaning (`noise`).

use crate::ioengine::Io;
use crate::noise::Noise;
use crate::verify::{self, Fault, Identity, Scheme};
use crate::written::{TRIMMED, Written, brief};

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

/// What a block must be beside whole and in its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of this run.
    seed: Option<u64>,
    /// Of the write whose number is this in its low half.
    sequence: Option<u32>,
    /// Nothing but zeros instead.
    trimmed: bool,
}

/// What verifiable blocks are made of.
#[derive(Clone)]
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
    /// Whether blocks must be of the last write to their place, and of the last run.
    pub(crate) strict: (bool, bool),
    /// Whether trimmed blocks are read back.
    pub(crate) trims_checked: bool,
    /// Whether reads of the main phase are checked (`rw=read` with `verify`).
    pub(crate) check_reads: bool,
}

impl Content {
    /// Content without meaning.
    pub(crate) fn noise(noise: Noise, seed: u64) -> Self {
        Self {
            noise,
            blocks: None,
            seed,
            sequence: 0,
            written: None,
            strict: (true, true),
            trims_checked: false,
            check_reads: false,
        }
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

    /// What blocks are made of, if they are verifiable.
    pub(crate) const fn blocks(&self) -> Option<&Blocks> {
        self.blocks.as_ref()
    }

    /// How many writes were prepared so far.
    pub(crate) const fn writes(&self) -> u64 {
        self.sequence
    }

    /// What was written, if it is remembered, and the seed of the run that wrote it.
    pub(crate) fn written(&self) -> Option<(&Written, u64)> {
        self.written.as_ref().map(|written| (written, self.seed))
    }

    /// Nothing is known any more of what an I/O concerns; `trimmed` if it is zeros now.
    pub(crate) fn unwrite(&mut self, io: Io, trimmed: bool) {
        let zeroed = trimmed && self.trims_checked;
        if let Some(written) = &mut self.written {
            let from = io.offset_bytes - u64::from(io.skip_bytes);
            written.unwrite(io.file, from, io.skip_bytes + io.len_bytes, zeroed);
        }
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

    /// What the block at `offset_bytes` must be. `remembered` is whether it was written by this
    /// worker, or by the run whose state it has loaded.
    #[inline]
    pub(crate) fn wanted(&self, file: u32, offset_bytes: u64, remembered: bool) -> Wanted {
        if !remembered {
            return Wanted::default();
        }
        let seed = self.strict.1.then_some(self.seed);
        match self.written.as_ref().map(|written| written.last_write(file, offset_bytes)) {
            Some(TRIMMED) => Wanted { trimmed: true, ..Wanted::default() },
            None | Some(0) => Wanted { seed, ..Wanted::default() },
            Some(last) => Wanted { seed, sequence: self.strict.0.then_some(last), trimmed: false },
        }
    }

    /// Checks what was read.
    ///
    /// # Errors
    /// The first block that is wrong.
    pub(crate) fn check(&self, io: Io, data: &[u8], remembered: bool) -> Result<(), Box<Mismatch>> {
        let Some(blocks) = &self.blocks else { return Ok(()) };
        check_blocks(blocks, io, data, |_, offset| self.wanted(io.file, offset, remembered))
    }
}

/// Checks blocks that were read, each against what it must be: by its index and its offset.
///
/// # Errors
/// The first block that is wrong.
pub(crate) fn check_blocks(
    blocks: &Blocks,
    io: Io,
    data: &[u8],
    wanted: impl Fn(usize, u64) -> Wanted,
) -> Result<(), Box<Mismatch>> {
    let offsets = (io.offset_bytes..).step_by(blocks.bytes as usize);
    let pieces = data.chunks_exact(blocks.bytes as usize).zip(offsets).enumerate();
    for (index, (block, offset_bytes)) in pieces {
        let wanted = wanted(index, offset_bytes);
        let Err(fault) = check_block(&blocks.scheme, block, offset_bytes, wanted) else { continue };
        let rebuilt = || match wanted.trimmed {
            true => Some(vec![0; block.len()]),
            false => verify::rebuilt(&blocks.scheme, block, offset_bytes),
        };
        return Err(Box::new(Mismatch {
            file: io.file,
            offset_bytes,
            len_bytes: blocks.bytes,
            fault,
            checksums: verify::checksums(&blocks.scheme, block),
            dump: blocks.dumped.then(|| (block.to_vec(), rebuilt())),
        }));
    }
    Ok(())
}

fn check_block(
    scheme: &Scheme,
    block: &[u8],
    offset_bytes: u64,
    wanted: Wanted,
) -> Result<(), Fault> {
    if wanted.trimmed {
        let other = block.iter().position(|byte| *byte != 0);
        return other.map_or(Ok(()), |at| Err(Fault::NotTrimmed { at, found: block[at] }));
    }
    let Some(found) = verify::check(scheme, block, offset_bytes)? else { return Ok(()) };
    if let Some(expected) = wanted.seed.filter(|seed| *seed != found.seed) {
        return Err(Fault::Seed { expected, found: found.seed });
    }
    match wanted.sequence.filter(|sequence| *sequence != brief(found.sequence)) {
        Some(expected) => {
            Err(Fault::Stale { expected: u64::from(expected), found: found.sequence })
        }
        None => Ok(()),
    }
}
