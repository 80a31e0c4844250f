//! Makes blocks that can be recognised, and recognises them.
//!
//! Writing: offset, sequence and seed go in, a header and a payload that follows from them come
//! out. Reading: bytes and the place they were read from go in, `Ok` or exactly what is wrong
//! comes out. The header guards itself, so a block whose payload is wrong still says what it
//! should have been: the payload is made again and compared, which tells a flipped bit from a
//! torn write.
//!
//! Not here: which blocks to expect (`written`), names of faults (`fault`), the phases (`run`).

use fio_compat::{Pattern, Verify};

use crate::digest;
use crate::random::mix;

pub(crate) use fault::Fault;

mod fault;
#[cfg(test)]
mod tests;

/// Bytes of the header without a digest.
const FIXED_BYTES: usize = 36;
const HEADER_CRC_AT: usize = 32;
const MAGIC: u32 = 0x6f69_666d;

/// How blocks are made and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scheme {
    /// The method.
    pub(crate) method: Verify,
    /// Where the header begins in a block.
    pub(crate) header_at: usize,
    /// The payload, instead of noise.
    pub(crate) pattern: Option<Pattern>,
}

impl Scheme {
    /// Bytes of the header and its digest; 0 where there is no header.
    pub(crate) const fn header_bytes(&self) -> usize {
        match self.method {
            Verify::Pattern | Verify::Null | Verify::None => 0,
            method => FIXED_BYTES + digest::len(method),
        }
    }

    /// The smallest block that can be verified.
    pub(crate) const fn block_bytes_min(&self) -> usize {
        self.header_at + self.header_bytes()
    }

    /// Whether a block names its write.
    const fn has_header(&self) -> bool {
        self.header_bytes() > 0
    }
}

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

fn word<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&block[at..at + N]);
    bytes
}

/// Fills all of `block` with what follows from `identity`; the header is put over it.
fn payload(scheme: &Scheme, block: &mut [u8], identity: Identity) {
    if let Some(pattern) = &scheme.pattern {
        return repeat(pattern, block, identity.offset_bytes);
    }
    let mut state = mix(identity.seed ^ mix(identity.offset_bytes ^ mix(identity.sequence)));
    for chunk in block.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Fills `block` with a pattern; the block's offset goes where the pattern says so.
pub(crate) fn repeat(pattern: &Pattern, block: &mut [u8], offset_bytes: u64) {
    if pattern.bytes.is_empty() {
        return;
    }
    for piece in block.chunks_mut(pattern.bytes.len()) {
        let len = piece.len();
        piece.copy_from_slice(&pattern.bytes[..len]);
        for at in &pattern.offsets {
            let room = len.saturating_sub(*at).min(8);
            if room > 0 {
                piece[*at..at + room].copy_from_slice(&offset_bytes.to_le_bytes()[..room]);
            }
        }
    }
}

/// The digest of everything but the digest itself.
fn digest_of(scheme: &Scheme, block: &[u8]) -> digest::DigestBytes {
    let from = scheme.header_at + FIXED_BYTES;
    let to = scheme.header_at + scheme.header_bytes();
    digest::of(scheme.method, &[&block[..from], &block[to..]])
}

/// Fills `block` with a header and the payload that follows from `identity`.
///
/// # Panics
/// When the block is shorter than a header: the job was validated.
pub(crate) fn fill(scheme: &Scheme, block: &mut [u8], identity: Identity) {
    assert!(block.len() >= scheme.block_bytes_min(), "validated: a block holds a header");
    payload(scheme, block, identity);
    if !scheme.has_header() {
        return;
    }
    let len = u32::try_from(block.len()).unwrap_or(u32::MAX);
    let header = &mut block[scheme.header_at..];
    header[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    header[4..8].copy_from_slice(&len.to_le_bytes());
    header[8..16].copy_from_slice(&identity.offset_bytes.to_le_bytes());
    header[16..24].copy_from_slice(&identity.sequence.to_le_bytes());
    header[24..32].copy_from_slice(&identity.seed.to_le_bytes());
    let crc = crc32c::crc32c(&header[..HEADER_CRC_AT]);
    header[HEADER_CRC_AT..FIXED_BYTES].copy_from_slice(&crc.to_le_bytes());
    let digest = digest_of(scheme, block);
    let (from, len) = (scheme.header_at + FIXED_BYTES, digest::len(scheme.method));
    block[from..from + len].copy_from_slice(&digest[..len]);
}

/// Checks that `block` is whole and belongs to `offset_bytes`; says who wrote it, if it does.
///
/// # Errors
/// What is wrong with it, by its name.
pub(crate) fn check(
    scheme: &Scheme,
    block: &[u8],
    offset_bytes: u64,
) -> Result<Option<Identity>, Fault> {
    match scheme.method {
        Verify::Null | Verify::None => return Ok(None),
        Verify::Pattern => return check_pattern(scheme, block, offset_bytes).map(|()| None),
        _ => {}
    }
    let header = &block[scheme.header_at..];
    let magic = u32::from_le_bytes(word(header, 0));
    if magic != MAGIC && block.iter().all(|byte| *byte == 0) {
        return Err(Fault::Zeroed);
    }
    let expected = u32::from_le_bytes(word(header, HEADER_CRC_AT));
    let received = crc32c::crc32c(&header[..HEADER_CRC_AT]);
    if magic != MAGIC && expected != received {
        return Err(Fault::Magic { found: magic });
    }
    if expected != received {
        return Err(Fault::Header { expected, received });
    }
    let identity = Identity {
        offset_bytes: u64::from_le_bytes(word(header, 8)),
        sequence: u64::from_le_bytes(word(header, 16)),
        seed: u64::from_le_bytes(word(header, 24)),
    };
    let len = u32::from_le_bytes(word(header, 4));
    if usize::try_from(len).ok() != Some(block.len()) {
        return Err(Fault::Length { found: len });
    }
    let (from, count) = (scheme.header_at + FIXED_BYTES, digest::len(scheme.method));
    let damaged = block[from..from + count] != digest_of(scheme, block)[..count];
    if damaged || scheme.method == Verify::PatternHeader {
        let mut whole = vec![0; block.len()];
        fill(scheme, &mut whole, identity);
        if let Some(fault) = fault::difference(&whole, block) {
            return Err(fault);
        }
    }
    if identity.offset_bytes != offset_bytes {
        return Err(Fault::Offset { found: identity.offset_bytes });
    }
    Ok(Some(identity))
}

fn check_pattern(scheme: &Scheme, block: &[u8], offset_bytes: u64) -> Result<(), Fault> {
    let mut whole = vec![0; block.len()];
    payload(scheme, &mut whole, Identity { offset_bytes, sequence: 0, seed: 0 });
    if block != whole && block.iter().all(|byte| *byte == 0) {
        return Err(Fault::Zeroed);
    }
    fault::difference(&whole, block).map_or(Ok(()), Err)
}

/// What `block` should have been, as far as it says so itself.
pub(crate) fn rebuilt(scheme: &Scheme, block: &[u8], offset_bytes: u64) -> Option<Vec<u8>> {
    let mut whole = vec![0; block.len()];
    if !scheme.has_header() {
        payload(scheme, &mut whole, Identity { offset_bytes, sequence: 0, seed: 0 });
        return Some(whole);
    }
    let header = &block[scheme.header_at..];
    let crc = u32::from_le_bytes(word(header, HEADER_CRC_AT));
    let identity = Identity {
        offset_bytes: u64::from_le_bytes(word(header, 8)),
        sequence: u64::from_le_bytes(word(header, 16)),
        seed: u64::from_le_bytes(word(header, 24)),
    };
    fill(scheme, &mut whole, identity);
    (crc == crc32c::crc32c(&header[..HEADER_CRC_AT])).then_some(whole)
}

/// The digests of a block, for the report: stored and computed, the first 8 bytes of each.
pub(crate) fn checksums(scheme: &Scheme, block: &[u8]) -> (String, String) {
    let hex = |bytes: &[u8]| bytes.iter().rev().map(|byte| format!("{byte:02x}")).collect();
    let count = digest::len(scheme.method);
    if count == 0 || !scheme.has_header() {
        return (String::from("-"), String::from("-"));
    }
    let from = scheme.header_at + FIXED_BYTES;
    (hex(&block[from..from + count]), hex(&digest_of(scheme, block)[..count]))
}
