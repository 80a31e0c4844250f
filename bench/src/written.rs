//! Remembers which blocks a job wrote last with which write, and plans the reading back.
//!
//! Writes go in as they are started; afterwards every written block comes out once, by
//! ascending offset, and each block read back is compared with what was remembered. A write
//! that never arrived is found although the old block is perfectly valid.
//!
//! Not here: the blocks' content (`verify`).

use crate::generator::{Region, Step, Steps};
use crate::ioengine::Operation;

/// The last write of every block. 4 bytes per block of the job's regions.
pub(crate) struct Written {
    regions: Vec<Region>,
    block_bytes: u32,
    /// Per file and block: the low 32 bits of the write's number; 0 is never written, or not
    /// known, and [`TRIMMED`] is none.
    sequences: Vec<Vec<u32>>,
    /// Written and not yet read back, where that is done in parts.
    fresh: Option<Vec<(u32, u64)>>,
}

/// The block was trimmed and must read as zeros.
pub(crate) const TRIMMED: u32 = u32::MAX;

/// The low half of a write's number, never 0 nor [`TRIMMED`].
pub(crate) fn brief(sequence: u64) -> u32 {
    let low = u32::try_from(sequence & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    low.clamp(1, TRIMMED - 1)
}

impl Written {
    /// Nothing was written yet.
    pub(crate) fn new(regions: &[Region], block_bytes: u32) -> Self {
        let blocks = |region: &Region| region.len_bytes / u64::from(block_bytes.max(1));
        let count = |region: &Region| usize::try_from(blocks(region)).unwrap_or(usize::MAX);
        let sequences = regions.iter().map(|region| vec![0; count(region)]).collect();
        Self { regions: regions.to_vec(), block_bytes, sequences, fresh: None }
    }

    fn index(&self, file: u32, offset_bytes: u64) -> (usize, usize) {
        let file = file as usize;
        let relative = offset_bytes - self.regions[file].start_bytes;
        let block = relative / u64::from(self.block_bytes);
        (file, usize::try_from(block).unwrap_or(usize::MAX))
    }

    /// Remembers from now on which blocks are new since the last reading back.
    pub(crate) fn in_parts(mut self) -> Self {
        self.fresh = Some(Vec::new());
        self
    }

    /// The blocks that are new, up to `most`; they are new no longer.
    pub(crate) fn read_back_fresh(&mut self, most: usize) -> Option<ReadBack> {
        let fresh = self.fresh.as_mut()?;
        let mut reads: Vec<_> = fresh.drain(..most.min(fresh.len())).collect();
        reads.sort_unstable();
        reads.dedup();
        // Trimmed meanwhile, or never written because of an error.
        reads.retain(|(file, offset_bytes)| self.last_write(*file, *offset_bytes) != 0);
        Some(ReadBack { reads, next: 0, len_bytes: self.block_bytes })
    }

    /// Notes that write number `sequence` goes to the block at `offset_bytes`.
    pub(crate) fn note(&mut self, file: u32, offset_bytes: u64, sequence: u64) {
        let (file, block) = self.index(file, offset_bytes);
        self.sequences[file][block] = brief(sequence);
        if let (Some(fresh), Ok(file)) = (&mut self.fresh, u32::try_from(file)) {
            fresh.push((file, offset_bytes));
        }
    }

    /// What is known of the block: the number of its last write, 0 for nothing, or [`TRIMMED`].
    pub(crate) fn last_write(&self, file: u32, offset_bytes: u64) -> u32 {
        let (file, block) = self.index(file, offset_bytes);
        self.sequences[file][block]
    }

    /// Notes that the blocks of a range were trimmed, if they are to be checked, or that nothing
    /// is known of them.
    pub(crate) fn unwrite(&mut self, file: u32, offset_bytes: u64, len_bytes: u32, zeroed: bool) {
        let (file, first) = self.index(file, offset_bytes);
        let count = (len_bytes / self.block_bytes.max(1)) as usize;
        let blocks = self.sequences[file].iter_mut().skip(first).take(count);
        blocks.for_each(|sequence| *sequence = if zeroed { TRIMMED } else { 0 });
    }

    /// The regions and the block size, in a line each.
    pub(crate) fn describe(&self) -> String {
        let mut text = format!("block {}\n", self.block_bytes);
        for Region { start_bytes, len_bytes } in &self.regions {
            text.push_str(&format!("file {start_bytes} {len_bytes}\n"));
        }
        text
    }

    /// What is known, in runs of blocks that were written one after another: file, first block,
    /// number of blocks, first number.
    pub(crate) fn runs(&self) -> Vec<(u64, u64, u64, u64)> {
        let mut runs: Vec<(u64, u64, u64, u64)> = Vec::new();
        for (blocks, file) in self.sequences.iter().zip(0_u64..) {
            for (sequence, block) in blocks.iter().zip(0_u64..).filter(|(known, _)| **known != 0) {
                let sequence = u64::from(*sequence);
                match runs.last_mut() {
                    Some((last, first, count, begin))
                        if *last == file
                            && *first + *count == block
                            && *begin + *count == sequence =>
                    {
                        *count += 1;
                    }
                    _ => runs.push((file, block, 1, sequence)),
                }
            }
        }
        runs
    }

    /// Takes a run over; `None` if there are no such blocks.
    pub(crate) fn restore(&mut self, file: u64, block: u64, count: u64, first: u64) -> Option<()> {
        let blocks = self.sequences.get_mut(usize::try_from(file).ok()?)?;
        let from = usize::try_from(block).ok()?;
        let to = from.checked_add(usize::try_from(count).ok()?)?;
        for (known, sequence) in blocks.get_mut(from..to)?.iter_mut().zip(first..) {
            *known = u32::try_from(sequence).ok()?;
        }
        Some(())
    }

    /// Forgets everything, for another pass.
    pub(crate) fn clear(&mut self) {
        self.sequences.iter_mut().for_each(|blocks| blocks.fill(0));
        if let Some(fresh) = &mut self.fresh {
            fresh.clear();
        }
    }

    /// The reads that visit every written block once.
    pub(crate) fn read_back(&self) -> ReadBack {
        let mut reads = Vec::new();
        for ((region, blocks), file) in self.regions.iter().zip(&self.sequences).zip(0..) {
            for (sequence, block) in blocks.iter().zip(0_u64..) {
                if *sequence != 0 {
                    let offset = region.start_bytes + block * u64::from(self.block_bytes);
                    reads.push((file, offset));
                }
            }
        }
        ReadBack { reads, next: 0, len_bytes: self.block_bytes }
    }
}

/// The plan of the verify phase.
pub(crate) struct ReadBack {
    reads: Vec<(u32, u64)>,
    next: usize,
    len_bytes: u32,
}

impl Steps for ReadBack {
    #[inline]
    fn step(&mut self) -> Step {
        let Some((file, offset_bytes)) = self.reads.get(self.next).copied() else {
            return Step::Finished;
        };
        self.next += 1;
        Step::Do { operation: Operation::Read, file, offset_bytes, len_bytes: self.len_bytes }
    }

    #[inline(always)]
    fn scheduled_ns(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_blocks_come_back_once_in_order_and_know_their_last_write() {
        let regions = [Region { start_bytes: 8192, len_bytes: 16384 }];
        let mut written = Written::new(&regions, 4096);
        for (offset, sequence) in [(16384, 1), (8192, 2), (16384, 3)] {
            written.note(0, offset, sequence);
        }
        assert_eq!(written.last_write(0, 16384), 3);
        let mut plan = written.read_back();
        let mut seen = Vec::new();
        while let Step::Do { offset_bytes, .. } = plan.step() {
            seen.push(offset_bytes);
        }
        assert_eq!(seen, [8192, 16384]);
        let mut copy = Written::new(&regions, 4096);
        for (file, block, count, first) in written.runs() {
            copy.restore(file, block, count, first).unwrap();
        }
        assert_eq!((copy.runs(), copy.describe()), (written.runs(), written.describe()));
        assert_eq!(copy.restore(0, 3, 2, 1), None);
        written.unwrite(0, 8192, 4096, true);
        written.unwrite(0, 16384, 4096, false);
        assert_eq!((written.last_write(0, 8192), written.last_write(0, 16384)), (TRIMMED, 0));
        written.clear();
        assert_eq!(written.read_back().step(), Step::Finished);
    }
}
