//! Properties of the bytes: what was written is read, and anything else is refused.

use proptest::prelude::*;

use super::*;

const ALIGN: usize = 512;
const ID: SegmentId = SegmentId { log_id: 7, sequence: 3, salt: 0x1234_5678_9abc_def0 };

fn header() -> SegmentHeader {
    SegmentHeader {
        state: SegmentState::Live,
        id: ID,
        start_sequence: 2,
        first_lsn: Lsn(41),
        durable_lsn: Lsn(40),
        previous_crc: 99,
        align_bytes: 512,
        block_bytes_max: 4096,
        in_flight_max: 2,
    }
}

fn seal() -> Seal {
    let (first_lsn, durable_lsn) = (Lsn(41), Lsn(40));
    Seal { id: ID, first_lsn, durable_lsn, previous_crc: 99, align_bytes: ALIGN }
}

fn sealed(records: &[Vec<u8>], align: RecordAlign) -> Vec<u8> {
    let mut buffer = vec![0xaa; 1 << 16];
    let mut composer = Composer::new(0, align);
    for (lsn, record) in (41..).zip(records) {
        assert!(composer.fits(record.len(), buffer.len()));
        composer.push(&mut buffer, Lsn(lsn), record);
    }
    let (bytes, _crc) = composer.seal(&mut buffer, &seal());
    buffer.truncate(bytes);
    buffer
}

fn some_records() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 0..700), 1..20)
}

fn any_align() -> impl Strategy<Value = RecordAlign> {
    prop::sample::select(vec![RecordAlign::Packed, RecordAlign::Sector])
}

#[test]
fn header_of_another_length_or_state_is_told_apart() {
    let mut bytes = [0xff; 512];
    header().write(&mut bytes);
    assert_eq!(SegmentHeader::read(&bytes), Some(header()));
    assert_eq!(SegmentHeader::read(&bytes[..SEGMENT_HEADER_BYTES - 1]), None);
    let free = SegmentHeader { state: SegmentState::Free, ..header() };
    free.write(&mut bytes);
    assert_eq!(SegmentHeader::read(&bytes), Some(free));
}

#[test]
fn f40_mark_that_is_cut_short_leaves_one_state_or_the_other() {
    let mut live = [0; 512];
    header().write(&mut live);
    let mut free = live;
    header().write_free_mark(5, &mut free);
    let marked = SegmentHeader::of_sector(&free).unwrap();
    assert_eq!((marked.state, marked.start_sequence), (SegmentState::Free, 5));
    // Begun anew, with another identity.
    let mut again = [0; 512];
    let next = SegmentHeader { id: SegmentId { sequence: 9, salt: 1, ..ID }, ..header() };
    next.write(&mut again);
    for cut in 0..=512 {
        let mut sector = live;
        sector[..cut].copy_from_slice(&free[..cut]);
        let read = SegmentHeader::of_sector(&sector).unwrap();
        assert!(read == header() || read == marked, "cut at {cut}");
        let mut sector = free;
        sector[..cut].copy_from_slice(&again[..cut]);
        let read = SegmentHeader::of_sector(&sector).unwrap();
        assert!(read == next || read == marked, "cut at {cut}");
    }
}

#[test]
fn block_of_another_use_of_the_segment_is_nothing() {
    let bytes = sealed(&[vec![1, 2, 3]], RecordAlign::Packed);
    assert!(parse_block(&bytes, &ID, ALIGN).is_ok());
    for other in [
        SegmentId { sequence: 4, ..ID },
        SegmentId { salt: 0, ..ID },
        SegmentId { log_id: 8, ..ID },
    ] {
        assert!(parse_block(&bytes, &other, ALIGN).is_err());
    }
}

#[test]
fn block_that_is_cut_off_says_how_long_it_is() {
    let bytes = sealed(&[vec![5; 600]], RecordAlign::Packed);
    let cut = parse_block(&bytes[..512], &ID, ALIGN);
    assert_eq!(cut.unwrap_err(), NotABlock::Longer { bytes: bytes.len() });
}

proptest! {
    #[test]
    fn records_come_back_as_they_were(records in some_records(), align in any_align()) {
        let bytes = sealed(&records, align);
        prop_assert_eq!(bytes.len() % ALIGN, 0);
        let block = parse_block(&bytes, &ID, ALIGN).unwrap();
        prop_assert_eq!((block.first_lsn, block.durable_lsn), (Lsn(41), Lsn(40)));
        prop_assert_eq!((block.previous_crc, block.bytes), (99, bytes.len()));
        let read: Vec<_> = block.iter().collect();
        prop_assert_eq!(read.len(), records.len());
        for ((at, (lsn, read)), wrote) in (41..).zip(read).zip(&records) {
            prop_assert_eq!((lsn, read), (Lsn(at), &wrote[..]));
        }
    }

    /// Whatever single bit is wrong, nothing of the block is believed. Padding is not part of
    /// it: there, a flipped bit changes nothing that is read.
    #[test]
    fn f40_flipped_bit_is_found(
        records in some_records(), align in any_align(), at in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sealed(&records, align);
        let whole: Vec<Vec<u8>> =
            parse_block(&bytes, &ID, ALIGN).unwrap().iter().map(|(_, r)| r.to_vec()).collect();
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(block) = parse_block(&bytes, &ID, ALIGN) {
            let read: Vec<Vec<u8>> = block.iter().map(|(_, r)| r.to_vec()).collect();
            prop_assert_eq!(read, whole);
            let used = BLOCK_HEADER_BYTES + block.payload.len();
            prop_assert!(bit / 8 >= used, "bit {} of {} used bytes", bit, used);
        }
    }

    /// A block in which any sector is an older one is unreadable, or one of the two.
    #[test]
    fn f40_torn_block_is_found(
        records in some_records(), old in some_records(), at in any::<prop::sample::Index>(),
    ) {
        let new = sealed(&records, RecordAlign::Packed);
        let mut old = sealed(&old, RecordAlign::Packed);
        old.resize(new.len(), 0);
        let mut bytes = new.clone();
        let sector = at.index(new.len() / 512) * 512;
        bytes[sector..sector + 512].copy_from_slice(&old[sector..sector + 512]);
        // What differs may be padding, or nothing at all.
        if let Ok(block) = parse_block(&bytes, &ID, ALIGN) {
            let is = |whole: &[u8]| {
                parse_block(whole, &ID, ALIGN).is_ok_and(|whole| whole.iter().eq(block.iter()))
            };
            prop_assert!(is(&new) || is(&old));
        }
    }

    #[test]
    fn f49_arbitrary_bytes_never_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..2048), plausible: bool,
    ) {
        if plausible && bytes.len() >= 24 {
            bytes[..4].copy_from_slice(&BLOCK_MAGIC.to_le_bytes());
            bytes[8..16].copy_from_slice(&ID.sequence.to_le_bytes());
            bytes[16..24].copy_from_slice(&ID.salt.to_le_bytes());
            // With the right checksum, lengths and counts are what is left to lie about.
            if let Some(len) = bytes.get(44..48) {
                let len = u32::from_le_bytes(len.try_into().unwrap()) as usize % 1024;
                let used = (BLOCK_HEADER_BYTES + len).min(bytes.len());
                let len = u32::try_from(used.saturating_sub(BLOCK_HEADER_BYTES)).unwrap();
                bytes[44..48].copy_from_slice(&len.to_le_bytes());
                let crc = crc32c::crc32c_append(ID.seed(), &bytes[8..used]);
                bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let read = parse_block(&bytes, &ID, ALIGN).map(|block| block.iter().count());
        prop_assert!(read.is_err() || plausible);
        prop_assert!(SegmentHeader::read(&bytes).is_none());
    }

    #[test]
    fn flipped_bit_of_a_segment_header_is_found(bit in 0..SEGMENT_HEADER_BYTES * 8) {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        header().write(&mut bytes);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let read = SegmentHeader::read(&bytes);
        // The last four bytes are padding.
        prop_assert!(read.is_none() || bit / 8 >= SEGMENT_HEADER_BYTES - 4);
    }
}

/// Checksums are no signature: anybody can write a block with any numbers in it.
#[test]
fn f49_records_numbered_at_the_end_of_all_numbers_are_no_block() {
    let mut buffer = vec![0; 4096];
    let mut composer = Composer::new(0, RecordAlign::Packed);
    let first_lsn = Lsn(u64::MAX - 1);
    for lsn in [u64::MAX - 1, u64::MAX, 0] {
        composer.push(&mut buffer, Lsn(lsn), b"forged");
    }
    let (bytes, _crc) = composer.seal(&mut buffer, &Seal { first_lsn, ..seal() });
    // The header says one record, and there are three.
    buffer[48..52].copy_from_slice(&1_u32.to_le_bytes());
    let used = BLOCK_HEADER_BYTES + 3 * (RECORD_HEADER_BYTES + b"forged".len());
    let crc = crc32c::crc32c_append(ID.seed(), &buffer[8..used]);
    buffer[4..8].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(parse_block(&buffer[..bytes], &ID, ALIGN).unwrap_err(), NotABlock::Torn);
    let forged = SegmentHeader { first_lsn, ..header() };
    forged.write(&mut buffer);
    assert_eq!(SegmentHeader::read(&buffer), None);
}
