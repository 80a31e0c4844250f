//! Each kind of damage is found by each method, and called by its name.

use super::*;

const IDENTITY: Identity = Identity { offset_bytes: 8192, sequence: 3, seed: 99 };
const METHODS: [Verify; 17] = [
    Verify::Crc32c,
    Verify::Md5,
    Verify::Crc64,
    Verify::Crc32,
    Verify::Crc16,
    Verify::Crc7,
    Verify::Sha1,
    Verify::Sha256,
    Verify::Sha512,
    Verify::Sha3_224,
    Verify::Sha3_256,
    Verify::Sha3_384,
    Verify::Sha3_512,
    Verify::Xxhash,
    Verify::Meta,
    Verify::PatternHeader,
    Verify::Pattern,
];

fn scheme(method: Verify) -> Scheme {
    let pattern = matches!(method, Verify::Pattern | Verify::PatternHeader);
    let pattern =
        pattern.then(|| Pattern { bytes: b"\xde\xad\0\0\0\0\0\0\0\0".into(), offsets: vec![2] });
    Scheme { method, header_at: 0, pattern }
}

fn made(scheme: &Scheme, identity: Identity) -> Vec<u8> {
    let mut block = vec![0; 4096];
    fill(scheme, &mut block, identity);
    block
}

fn told(scheme: &Scheme, block: &[u8], offset_bytes: u64) -> String {
    check(scheme, block, offset_bytes).unwrap_err().to_string()
}

#[test]
fn verify_recognises_untouched_blocks_by_every_method() {
    for method in METHODS {
        let scheme = scheme(method);
        let found = check(&scheme, &made(&scheme, IDENTITY), 8192).unwrap();
        assert_eq!(found.is_some(), method != Verify::Pattern, "{method:?}");
        assert!(found.is_none_or(|identity| identity == IDENTITY));
    }
}

#[test]
fn verify_finds_any_flipped_bit() {
    for method in METHODS.into_iter().filter(|method| *method != Verify::Meta) {
        let scheme = scheme(method);
        let whole = made(&scheme, IDENTITY);
        for at in (0..4096).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            let told = told(&scheme, &damaged, 8192);
            let header = at < FIXED_BYTES && scheme.has_header();
            assert!(header || told.contains("a flipped bit: byte"), "{method:?} {at}: {told}");
        }
    }
}

#[test]
fn verify_tells_zeroed_misdirected_and_torn_blocks_apart() {
    for method in METHODS {
        let scheme = scheme(method);
        let whole = made(&scheme, IDENTITY);
        assert_eq!(check(&scheme, &[0; 4096], 8192), Err(Fault::Zeroed), "{method:?}");
        assert!(check(&scheme, &whole, 4096).is_err(), "{method:?}");
        if method != Verify::Pattern {
            assert!(told(&scheme, &whole, 4096).contains("misdirected"), "{method:?}");
        }
        // Where the payload depends on the write, a torn one shows.
        if scheme.pattern.is_none() && method != Verify::Meta {
            let mut torn = made(&scheme, Identity { sequence: 4, ..IDENTITY });
            torn[..1024].copy_from_slice(&whole[..1024]);
            let told = told(&scheme, &torn, 8192);
            assert!(told.contains("a torn block: 3072 bytes from byte 1024"), "{told}");
        }
    }
}

/// A disk that rots, misdirects or loses a write says nothing: the block does, and the
/// report names which of the three it was.
#[test]
fn f41_rotten_misdirected_and_lost_blocks_are_each_reported_by_name() {
    let scheme = scheme(Verify::Crc32c);
    let whole = made(&scheme, IDENTITY);
    let mut rotten = whole.clone();
    rotten[2000] ^= 4;
    assert!(told(&scheme, &rotten, 8192).contains("a flipped bit: byte 2000"));
    rotten[2001] ^= 0xff;
    assert!(told(&scheme, &rotten, 8192).contains("data changed after it was written: 2 bytes"));
    assert!(told(&scheme, &whole, 12_288).contains("8192: a misdirected"));
    // An older write is whole and in its place: the sequence tells, which `written` keeps.
    assert_eq!(check(&scheme, &whole, 8192), Ok(Some(IDENTITY)));
    let lost = Fault::Stale { expected: 4, found: IDENTITY.sequence }.to_string();
    assert!(lost.contains("sequence 3, wanted 4: a stale block"), "{lost}");
    assert!(told(&scheme, &[1; 4096], 0).contains("bad magic header"));
}

#[test]
fn verify_offset_moves_the_header() {
    let scheme = Scheme { header_at: 1000, ..scheme(Verify::Sha256) };
    let block = made(&scheme, IDENTITY);
    assert_eq!(block[1000..1004], MAGIC.to_le_bytes());
    assert_eq!(check(&scheme, &block, 8192), Ok(Some(IDENTITY)));
    let mut damaged = block.clone();
    damaged[5] ^= 1;
    assert!(told(&scheme, &damaged, 8192).contains("a flipped bit: byte 5"));
    assert_eq!(rebuilt(&scheme, &damaged, 8192), Some(block));
}

#[test]
fn verify_pattern_puts_the_offset_where_it_says() {
    let scheme = scheme(Verify::Pattern);
    let block = made(&scheme, IDENTITY);
    assert_eq!(block[..2], [0xde, 0xad]);
    assert_eq!(block[2..10], 8192_u64.to_le_bytes());
    assert_eq!(block[10..12], [0xde, 0xad]);
}

#[test]
fn sequence_changes_the_payload() {
    let scheme = scheme(Verify::Crc32c);
    let other = made(&scheme, Identity { sequence: 4, ..IDENTITY });
    assert_ne!(made(&scheme, IDENTITY)[64..], other[64..]);
}
