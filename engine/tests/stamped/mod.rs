//! Blocks that say where they belong and which write made them, for tests that lose things.
//!
//! Data flow: offset and sequence → [`stamp`] → a block with a checksum over all of it → the
//! engine → [`sequence_of`] → the sequence, or what is wrong with the block.

/// The smallest thing that is recognised, in bytes; also what writes are aligned to.
pub(crate) const BLOCK: usize = 4096;

/// Checksum of the rest, then a word that only our blocks have, offset and sequence.
const HEADER: usize = 24;
const MAGIC: u32 = 0x7074_6d73;

/// Fills each block of `bytes`, which write `sequence` puts at `offset`.
pub(crate) fn stamp(bytes: &mut [u8], offset: u64, sequence: u64) {
    assert!(bytes.len().is_multiple_of(BLOCK));
    for (block, at) in bytes.chunks_exact_mut(BLOCK).zip((offset..).step_by(BLOCK)) {
        let mut word = (at ^ sequence.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for chunk in block[HEADER..].chunks_exact_mut(8) {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        block[4..8].copy_from_slice(&MAGIC.to_le_bytes());
        block[8..16].copy_from_slice(&at.to_le_bytes());
        block[16..24].copy_from_slice(&sequence.to_le_bytes());
        let sum = crc32c::crc32c(&block[4..]);
        block[..4].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Which write made this block, which was read at `offset`.
pub(crate) fn sequence_of(block: &[u8], offset: u64) -> Result<u64, String> {
    assert_eq!(block.len(), BLOCK);
    let word = |at: usize| u64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"));
    if block[4..8] != MAGIC.to_le_bytes() {
        return Err(format!("block at {offset}: no header, {:02x?}", &block[..16]));
    }
    if block[..4] != crc32c::crc32c(&block[4..]).to_le_bytes() {
        return Err(format!("block at {offset}: wrong checksum, write {}", word(16)));
    }
    if word(8) != offset {
        return Err(format!("block at {offset} belongs at {}, write {}", word(8), word(16)));
    }
    Ok(word(16))
}
