//! The checksums of fio's `verify` methods, all through one function.
//!
//! Data flow: method and pieces of a block -> digest.
//!
//! Not here: where a digest stands in a block (`verify`).

use crc::{CRC_7_MMC, CRC_16_ARC, CRC_32_ISO_HDLC, CRC_64_XZ, Crc};
use fio_compat::Verify;
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use sha3::{Sha3_224, Sha3_256, Sha3_384, Sha3_512};
use xxhash_rust::xxh32::Xxh32;

/// The longest digest.
pub(crate) const DIGEST_BYTES_MAX: usize = 64;

static CRC7: Crc<u8> = Crc::<u8>::new(&CRC_7_MMC);
static CRC16: Crc<u16> = Crc::<u16>::new(&CRC_16_ARC);
static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);
static CRC64: Crc<u64> = Crc::<u64>::new(&CRC_64_XZ);

/// A digest, padded with zeros.
pub(crate) type DigestBytes = [u8; DIGEST_BYTES_MAX];

/// How many bytes of it count; 0 for methods without one.
pub(crate) const fn len(method: Verify) -> usize {
    match method {
        Verify::Crc7 => 1,
        Verify::Crc16 => 2,
        Verify::Crc32c | Verify::Crc32 | Verify::Xxhash => 4,
        Verify::Crc64 => 8,
        Verify::Md5 => 16,
        Verify::Sha1 => 20,
        Verify::Sha3_224 => 28,
        Verify::Sha256 | Verify::Sha3_256 => 32,
        Verify::Sha3_384 => 48,
        Verify::Sha512 | Verify::Sha3_512 => 64,
        _ => 0,
    }
}

fn padded(bytes: &[u8]) -> DigestBytes {
    let mut digest = [0; DIGEST_BYTES_MAX];
    digest[..bytes.len()].copy_from_slice(bytes);
    digest
}

fn hashed<D: Digest>(pieces: &[&[u8]]) -> DigestBytes {
    let mut hash = D::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    padded(&hash.finalize())
}

/// The digest of the pieces, one after another.
pub(crate) fn of(method: Verify, pieces: &[&[u8]]) -> DigestBytes {
    macro_rules! cyclic {
        ($crc:expr) => {{
            let mut digest = $crc.digest();
            pieces.iter().for_each(|piece| digest.update(piece));
            padded(&digest.finalize().to_le_bytes())
        }};
    }
    match method {
        Verify::Crc32c => {
            let fold = |crc, piece: &&[u8]| crc32c::crc32c_append(crc, piece);
            padded(&pieces.iter().fold(0, fold).to_le_bytes())
        }
        Verify::Crc7 => cyclic!(CRC7),
        Verify::Crc16 => cyclic!(CRC16),
        Verify::Crc32 => cyclic!(CRC32),
        Verify::Crc64 => cyclic!(CRC64),
        Verify::Xxhash => {
            let mut hash = Xxh32::new(0);
            pieces.iter().for_each(|piece| hash.update(piece));
            padded(&hash.digest().to_le_bytes())
        }
        Verify::Md5 => hashed::<Md5>(pieces),
        Verify::Sha1 => hashed::<Sha1>(pieces),
        Verify::Sha256 => hashed::<Sha256>(pieces),
        Verify::Sha512 => hashed::<Sha512>(pieces),
        Verify::Sha3_224 => hashed::<Sha3_224>(pieces),
        Verify::Sha3_256 => hashed::<Sha3_256>(pieces),
        Verify::Sha3_384 => hashed::<Sha3_384>(pieces),
        Verify::Sha3_512 => hashed::<Sha3_512>(pieces),
        _ => [0; DIGEST_BYTES_MAX],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(method: Verify) -> String {
        let digest = of(method, &[b"1234", b"56789"]);
        digest[..len(method)].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The check values of the published catalogues.
    #[test]
    fn verify_methods_compute_their_published_check_values() {
        assert_eq!(hex(Verify::Crc7), "75");
        assert_eq!(hex(Verify::Crc16), "3dbb");
        assert_eq!(hex(Verify::Crc32), "2639f4cb");
        assert_eq!(hex(Verify::Crc32c), "839206e3");
        assert_eq!(hex(Verify::Crc64), "fa3919dfbbc95d99");
        assert_eq!(hex(Verify::Md5), "25f9e794323b453885f5181f1b624d0b");
        assert_eq!(hex(Verify::Sha1), "f7c3bc1d808e04732adf679965ccc34ca7ae3441");
        assert!(hex(Verify::Sha256).starts_with("15e2b0d3c33891eb"));
        for method in [Verify::Sha512, Verify::Sha3_224, Verify::Sha3_256, Verify::Sha3_384] {
            assert_eq!(hex(method).len(), 2 * len(method));
        }
        assert_eq!(hex(Verify::Xxhash).len(), 8);
        assert_eq!(hex(Verify::Sha3_512).len(), 128);
    }
}
