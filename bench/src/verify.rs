//! Makes blocks that can be recognised, and recognises them.
//!
//! Writing: offset, sequence and seed go in, a header and a payload that follows from them come
//! out. Reading: bytes and the place they were read from go in, `Ok` or exactly what is wrong
//! comes out. The checksum covers header and payload, so one flipped bit anywhere is found; the
//! offset and the sequence find whole blocks that went to the wrong place or never arrived.
//!
//! Not here: which blocks to expect (`written`), the phases (`run`).

use std::fmt;

use crate::random::mix;

/// Bytes of the header; the smallest block that can be verified.
pub(crate) const HEADER_BYTES: usize = 40;
const MAGIC: u32 = 0x6f69_666d;
const CRC_AT: usize = 36;

/// What a block says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Where it belongs, in bytes from the start of the file.
    pub(crate) offset_bytes: u64,
    /// The number of the write that made it; never 0.
    pub(crate) sequence: u64,
    /// Names the run that made it.
    pub(crate) seed: u64,
}

/// Why a block is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No header of ours.
    Magic { found: u32 },
    /// A header whose length is not the block's.
    Length { found: u32 },
    /// Header and payload do not match their checksum.
    Checksum { expected: u32, received: u32 },
    /// A valid block that belongs elsewhere.
    Offset { found: u64 },
    /// A valid block of another write: an older one survived, or a foreign one.
    Stale { expected: u64, found: u64 },
    /// A valid block of another run.
    Seed { expected: u64, found: u64 },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic { found } => write!(f, "bad magic header {found:x}, wanted {MAGIC:x}"),
            Self::Length { found } => write!(f, "bad header length {found}"),
            Self::Checksum { .. } => f.write_str("header or data changed after it was written"),
            Self::Offset { found } => write!(f, "bad header offset {found}: a misplaced block"),
            Self::Stale { expected, found } => {
                write!(f, "bad header sequence {found}, wanted {expected}: a lost write")
            }
            Self::Seed { expected, found } => {
                write!(f, "bad header seed {found:016x}, wanted {expected:016x}: a lost write")
            }
        }
    }
}

fn word<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

fn checksum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..CRC_AT]), &block[HEADER_BYTES..])
}

/// Fills `block` with a header and the payload that follows from `identity`.
///
/// # Panics
/// When the block is shorter than a header: the job was validated.
pub(crate) fn fill(block: &mut [u8], identity: Identity) {
    assert!(block.len() >= HEADER_BYTES, "validated: a block holds a header");
    let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
    let mut state = mix(identity.seed ^ mix(identity.offset_bytes ^ mix(identity.sequence)));
    for chunk in block[HEADER_BYTES..].chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
    block[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    block[4..8].copy_from_slice(&len.to_le_bytes());
    block[8..16].copy_from_slice(&identity.offset_bytes.to_le_bytes());
    block[16..24].copy_from_slice(&identity.sequence.to_le_bytes());
    block[24..32].copy_from_slice(&identity.seed.to_le_bytes());
    block[32..CRC_AT].fill(0);
    let crc = checksum(block);
    block[CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// Checks that `block` is whole and belongs to `offset_bytes`; says who wrote it.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn check(block: &[u8], offset_bytes: u64) -> Result<Identity, Fault> {
    let magic = u32::from_le_bytes(word(block, 0));
    let len = u32::from_le_bytes(word(block, 4));
    let expected = u32::from_le_bytes(word(block, CRC_AT));
    let received = checksum(block);
    // A header with damage in one field and a wrong checksum is damage, not another block.
    if received != expected && magic == MAGIC {
        return Err(Fault::Checksum { expected, received });
    }
    if magic != MAGIC {
        return Err(Fault::Magic { found: magic });
    }
    if usize::try_from(len).ok() != Some(block.len()) {
        return Err(Fault::Length { found: len });
    }
    let identity = Identity {
        offset_bytes: u64::from_le_bytes(word(block, 8)),
        sequence: u64::from_le_bytes(word(block, 16)),
        seed: u64::from_le_bytes(word(block, 24)),
    };
    if identity.offset_bytes != offset_bytes {
        return Err(Fault::Offset { found: identity.offset_bytes });
    }
    Ok(identity)
}

/// The checksums of a block, for the report: stored and computed.
pub(crate) fn checksums(block: &[u8]) -> (u32, u32) {
    (u32::from_le_bytes(word(block, CRC_AT)), checksum(block))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDENTITY: Identity = Identity { offset_bytes: 8192, sequence: 3, seed: 99 };

    fn block() -> Vec<u8> {
        let mut block = vec![0; 4096];
        fill(&mut block, IDENTITY);
        block
    }

    #[test]
    fn untouched_block_is_recognised() {
        assert_eq!(check(&block(), 8192), Ok(IDENTITY));
    }

    #[test]
    fn any_flipped_bit_is_found() {
        for at in 0..4096 {
            let mut damaged = block();
            damaged[at] ^= 1 << (at % 8);
            assert!(check(&damaged, 8192).is_err(), "byte {at}");
        }
    }

    #[test]
    fn misplaced_block_and_zeros_are_told_apart() {
        assert_eq!(check(&block(), 4096), Err(Fault::Offset { found: 8192 }));
        assert_eq!(check(&[0; 4096], 0), Err(Fault::Magic { found: 0 }));
    }

    /// A disk that rots, misdirects or loses a write says nothing: the block does, and the
    /// report names which of the three it was.
    #[test]
    fn f41_rotten_misdirected_and_lost_blocks_are_each_reported_by_name() {
        let whole = block();
        let mut rotten = whole.clone();
        rotten[2000] ^= 4;
        let mut torn = vec![0; 4096];
        fill(&mut torn, Identity { sequence: 4, ..IDENTITY });
        torn[..512].copy_from_slice(&whole[..512]);
        for damaged in [&rotten, &torn] {
            let told = check(damaged, 8192).unwrap_err().to_string();
            assert!(told.contains("changed after it was written"), "{told}");
        }
        let told = check(&whole, 12_288).unwrap_err().to_string();
        assert!(told.contains("8192: a misplaced block"), "{told}");
        // An older write is whole and in its place: the sequence tells, which `written` keeps.
        assert_eq!(check(&whole, 8192), Ok(IDENTITY));
        let lost = Fault::Stale { expected: 4, found: IDENTITY.sequence }.to_string();
        assert!(lost.contains("sequence 3, wanted 4: a lost write"), "{lost}");
        let told = check(&[0; 4096], 0).unwrap_err().to_string();
        assert!(told.contains("bad magic header"), "{told}");
    }

    #[test]
    fn sequence_changes_the_payload() {
        let mut other = vec![0; 4096];
        fill(&mut other, Identity { sequence: 4, ..IDENTITY });
        assert_ne!(block()[HEADER_BYTES..], other[HEADER_BYTES..]);
    }
}
