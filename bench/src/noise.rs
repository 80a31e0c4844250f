//! Buffers whose content has no meaning, but properties: random, compressible, repeated, zero.
//!
//! Data flow: options about buffers -> [`Noise`]; number and offset of a write -> bytes.
//!
//! Not here: blocks that can be checked (`verify`).

use fio_compat::Pattern;

use crate::random::{Random, mix};
use crate::verify::repeat;

/// fio varies its buffers in steps of this size, so that no sector equals another.
const SCRAMBLE_BYTES: usize = 512;

/// What happens to a buffer before each write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Style {
    /// A few bytes per sector change.
    Scramble,
    /// Nothing: it is as it was primed.
    Keep,
    /// It is filled anew.
    Refill { compress_percent: u8, chunk_bytes: usize, dedupe_percent: u8 },
}

/// Fills buffers.
#[derive(Clone, Debug)]
pub(crate) struct Noise {
    style: Style,
    /// Instead of random bytes; empty is zeros.
    pattern: Option<Pattern>,
    random: Random,
    /// Where repeated content comes from.
    repeated_seed: u64,
}

impl Noise {
    /// What the options say; `seed` decides what is drawn.
    pub(crate) fn new(options: &fio_compat::Content, seed: u64) -> Self {
        let compressible = options.compress_percent > 0 || options.dedupe_percent > 0;
        let constant = options.zero_buffers || options.buffer_pattern.is_some();
        let style = if compressible || options.refill_buffers && !constant {
            Style::Refill {
                compress_percent: options.compress_percent.min(100),
                chunk_bytes: usize::try_from(options.compress_chunk_bytes).unwrap_or(512).max(1),
                dedupe_percent: options.dedupe_percent,
            }
        } else if constant || !options.scramble_buffers {
            Style::Keep
        } else {
            Style::Scramble
        };
        let zeros = options.zero_buffers.then(|| Pattern { bytes: vec![0], offsets: Vec::new() });
        let pattern = options.buffer_pattern.clone().or(zeros);
        Self { style, pattern, random: Random::new(seed), repeated_seed: mix(seed) }
    }

    /// Fills a fresh buffer, once.
    pub(crate) fn prime(&mut self, buffer: &mut [u8]) {
        match &self.pattern {
            Some(pattern) => repeat(pattern, buffer, 0),
            None => noise(&mut self.random, buffer),
        }
    }

    /// Prepares the buffer of write number `sequence` to this offset.
    #[inline]
    pub(crate) fn fill(&mut self, sequence: u64, offset_bytes: u64, buffer: &mut [u8]) {
        if self.style == Style::Scramble {
            for sector in buffer.chunks_exact_mut(SCRAMBLE_BYTES) {
                sector[..8].copy_from_slice(&sequence.to_le_bytes());
                sector[8..16].copy_from_slice(&offset_bytes.to_le_bytes());
            }
            return;
        }
        self.refill(buffer);
    }

    #[inline(never)]
    fn refill(&mut self, buffer: &mut [u8]) {
        let Style::Refill { compress_percent, chunk_bytes, dedupe_percent } = self.style else {
            return;
        };
        let repeats = self.random.below(100) < u64::from(dedupe_percent);
        let seed = if repeats { self.repeated_seed } else { self.random.next() };
        let mut random = Random::new(seed);
        for chunk in buffer.chunks_mut(chunk_bytes) {
            let rest = chunk.len() * usize::from(compress_percent) / 100;
            let (fresh, rest) = chunk.split_at_mut(chunk.len() - rest);
            noise(&mut random, fresh);
            match &self.pattern {
                Some(pattern) => repeat(pattern, rest, 0),
                None => rest.fill(0),
            }
        }
    }
}

fn noise(random: &mut Random, buffer: &mut [u8]) {
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&random.next().to_le_bytes()[..chunk.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fio_compat::Content;

    fn writes(options: &Content, count: u64) -> Vec<Vec<u8>> {
        let mut noise = Noise::new(options, 5);
        let mut buffer = vec![9; 4096];
        noise.prime(&mut buffer);
        let write = |sequence| {
            noise.fill(sequence, sequence * 4096, &mut buffer);
            buffer.clone()
        };
        (1..=count).map(write).collect()
    }

    fn equal_bytes(a: &[u8], b: &[u8]) -> usize {
        a.iter().zip(b).filter(|(a, b)| a == b).count()
    }

    #[test]
    fn zero_buffers_and_buffer_pattern_write_what_they_say() {
        let zeros = Content { zero_buffers: true, ..Content::default() };
        assert!(writes(&zeros, 2).iter().flatten().all(|byte| *byte == 0));
        let pattern = Pattern { bytes: vec![1, 2, 3], offsets: Vec::new() };
        let patterned = Content { buffer_pattern: Some(pattern), ..Content::default() };
        let written = writes(&patterned, 2);
        assert_eq!((written[0][..4].to_vec(), &written[0]), (vec![1, 2, 3, 1], &written[1]));
    }

    #[test]
    fn scramble_buffers_changes_a_little_and_refill_buffers_everything() {
        let scrambled = writes(&Content::default(), 2);
        let equal = equal_bytes(&scrambled[0], &scrambled[1]);
        assert!((4096 - 128..4096).contains(&equal), "{equal}");
        let kept = Content { scramble_buffers: false, ..Content::default() };
        let kept = writes(&kept, 2);
        assert_eq!(kept[0], kept[1]);
        let refilled = writes(&Content { refill_buffers: true, ..Content::default() }, 2);
        assert!(equal_bytes(&refilled[0], &refilled[1]) < 64);
    }

    #[test]
    fn buffer_compress_percentage_leaves_that_share_of_each_chunk_empty() {
        let options = Content { compress_percent: 75, ..Content::default() };
        let written = &writes(&options, 1)[0];
        for chunk in written.chunks(512) {
            assert!(chunk[128..].iter().all(|byte| *byte == 0));
            assert!(chunk[..128].iter().filter(|byte| **byte == 0).count() < 8);
        }
        let options = Content { compress_chunk_bytes: 4096, ..options };
        assert!(writes(&options, 1)[0][1024..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn dedupe_percentage_repeats_that_share_of_the_writes() {
        let options = Content { dedupe_percent: 40, ..Content::default() };
        let mut written = writes(&options, 1000);
        written.sort_unstable();
        written.dedup();
        assert!((560..640).contains(&written.len()), "{}", written.len());
    }
}
