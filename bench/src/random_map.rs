//! Remembers which blocks of a pass were touched, so that random I/O covers each exactly once.
//!
//! A wanted block goes in, the next free one above it (wrapping) comes out and is taken. Levels
//! of 64-bit words, each bit of a level saying "that word of the level below is full", keep the
//! search logarithmic when the map is nearly full.
//!
//! Not here: drawing the wanted block (`generator`).

/// One bit per block, over summaries.
pub(crate) struct RandomMap {
    blocks: u64,
    free: u64,
    /// `levels[0]` has a bit per block; the last level is one word.
    levels: Vec<Vec<u64>>,
}

fn word_of(bit: u64) -> usize {
    usize::try_from(bit / 64).unwrap_or(usize::MAX)
}

impl RandomMap {
    /// A map of `blocks` free blocks.
    pub(crate) fn new(blocks: u64) -> Self {
        let mut levels = Vec::new();
        let mut bits = blocks;
        loop {
            let words = bits.div_ceil(64).max(1);
            let mut level = vec![0_u64; usize::try_from(words).unwrap_or(usize::MAX)];
            // Bits beyond the end count as taken, so that no search ever finds them.
            if let Some(last) = level.last_mut() {
                let used = bits - (words - 1) * 64;
                *last = if used == 64 { 0 } else { u64::MAX << used };
            }
            levels.push(level);
            if words == 1 {
                return Self { blocks, free: blocks, levels };
            }
            bits = words;
        }
    }

    /// Takes the first free block at or above `wanted`, wrapping, and as many of the blocks
    /// after it as are free, up to `count`. A full map starts over.
    pub(crate) fn take(&mut self, wanted: u64, count: u64) -> (u64, u64) {
        if self.free == 0 {
            *self = Self::new(self.blocks);
        }
        let first = self.next_free(wanted).or_else(|| self.next_free(0));
        let first = first.expect("a map that is not full has a free block");
        let mut taken = 0;
        while taken < count && first + taken < self.blocks && !self.is_taken(first + taken) {
            self.set(first + taken);
            taken += 1;
        }
        (first, taken)
    }

    fn is_taken(&self, block: u64) -> bool {
        self.levels[0][word_of(block)] & (1 << (block % 64)) != 0
    }

    fn set(&mut self, block: u64) {
        self.free -= 1;
        let mut bit = block;
        for level in &mut self.levels {
            let word = &mut level[word_of(bit)];
            *word |= 1 << (bit % 64);
            if *word != u64::MAX {
                return;
            }
            bit /= 64;
        }
    }

    /// Climbs until a word has a free bit at or above the position, then descends to it.
    fn next_free(&self, from: u64) -> Option<u64> {
        let mut bit = from;
        let mut depth = 0;
        loop {
            let level = self.levels.get(depth)?;
            let word = level.get(word_of(bit))?;
            let free = !word & (u64::MAX << (bit % 64));
            if free == 0 {
                bit = bit / 64 + 1;
                depth += 1;
                continue;
            }
            bit = bit / 64 * 64 + u64::from(free.trailing_zeros());
            if depth == 0 {
                return Some(bit);
            }
            depth -= 1;
            bit *= 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_covered_exactly_once_and_starts_over() {
        for blocks in [1, 2, 63, 64, 65, 127, 4095, 4096, 4097, 300_000] {
            let mut map = RandomMap::new(blocks);
            let mut random = crate::random::Random::new(blocks);
            let mut seen = vec![false; usize::try_from(blocks).unwrap()];
            for _ in 0..blocks {
                let (block, count) = map.take(random.below(blocks), 1);
                assert_eq!(count, 1);
                let entry = &mut seen[usize::try_from(block).unwrap()];
                assert!(!*entry, "block {block} of {blocks} came twice");
                *entry = true;
            }
            assert_eq!(map.free, 0);
            assert_eq!(map.take(0, 1), (0, 1));
        }
    }

    #[test]
    fn long_takes_stop_at_taken_blocks_and_at_the_end() {
        let mut map = RandomMap::new(10);
        assert_eq!(map.take(4, 1), (4, 1));
        assert_eq!(map.take(2, 4), (2, 2));
        assert_eq!(map.take(8, 4), (8, 2));
        assert_eq!(map.take(8, 4), (0, 2));
    }
}
