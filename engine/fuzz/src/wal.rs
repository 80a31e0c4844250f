//! Whatever the segments of a log hold: no panic, no read beyond, no record that nobody wrote.
//!
//! Data flow: bytes → a segment, some of it well formed and some of it not → parser, or the
//! whole recovery on the simulated ring → every record that comes out is looked for in what
//! went in, by a second reading of the format.
//!
//! Not here: crashes of a log that was written by us (the tests `wal_sim`).

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::{FileSpec, SimConfig, SimDevice, SimRing};
use mfio_engine::wal::format::{
    Composer, Seal, SegmentHeader, SegmentId, SegmentState, parse_block,
};
use mfio_engine::wal::{Lsn, PremadeSegments, RecordAlign, Wal, WalConfig, WalError};
use mfio_engine::{Config, EngineError, Shard};

use crate::bytes::Bytes;

const BLOCK_MAGIC: &[u8] = b"WBLK";
const BLOCK_HEADER_BYTES: usize = 64;
const RECORD_HEADER_BYTES: usize = 8;
const SEGMENT_BYTES: usize = 16 << 10;
const TURNS_MAX: usize = 10_000;

/// The checksum that everything of one use of a segment begins with.
fn seed(id: &SegmentId) -> u32 {
    [id.log_id, id.sequence, id.salt]
        .iter()
        .fold(0, |crc, number| crc32c::crc32c_append(crc, &number.to_le_bytes()))
}

fn record_crc(lsn: u64, record: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&lsn.to_le_bytes()), record)
}

/// Makes the first block of `bytes`, if its length makes sense, one of `id` with a checksum
/// that is right: nothing else would get past the first comparison.
fn mend_block(bytes: &mut [u8], id: &SegmentId, records_too: bool) {
    let Some(header) = bytes.get(..BLOCK_HEADER_BYTES) else { return };
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let (first, payload, sectors) = (long(24), word(44) as usize, word(52));
    bytes[..4].copy_from_slice(BLOCK_MAGIC);
    bytes[8..16].copy_from_slice(&id.sequence.to_le_bytes());
    bytes[16..24].copy_from_slice(&id.salt.to_le_bytes());
    let Some(used) = payload.checked_add(BLOCK_HEADER_BYTES).filter(|used| *used <= bytes.len())
    else {
        return;
    };
    if records_too {
        let (mut at, mut lsn) = (BLOCK_HEADER_BYTES, first);
        let unit = if sectors == 0 { 1 } else { 512 };
        loop {
            at = at.next_multiple_of(unit);
            if at + RECORD_HEADER_BYTES > used {
                break;
            }
            // Short enough that there are several.
            let len = usize::from(bytes[at]).min(used - at - RECORD_HEADER_BYTES);
            let from = at + RECORD_HEADER_BYTES;
            let crc = record_crc(lsn, &bytes[from..from + len]);
            bytes[at..at + 4].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
            bytes[at + 4..from].copy_from_slice(&crc.to_le_bytes());
            (at, lsn) = (from + len, lsn.wrapping_add(1));
        }
    }
    let crc = crc32c::crc32c_append(seed(id), &bytes[8..used]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// One header and one block.
pub fn wal_block(data: &[u8]) {
    let mut bytes = Bytes(data);
    let how = bytes.u8();
    let id = SegmentId { log_id: bytes.u64(), sequence: bytes.u64(), salt: bytes.u64() };
    let align = 1_usize << (9 + how % 8);
    let mut block = bytes.0.to_vec();
    let _any = SegmentHeader::read(&block);
    if let Some(header) = SegmentHeader::of_sector(&block) {
        let mut again = [0; 512];
        match header.state {
            SegmentState::Live => header.write(&mut again),
            SegmentState::Free => header.write_free_mark(header.start_sequence, &mut again),
        }
        assert_eq!(SegmentHeader::of_sector(&again), Some(header));
    }
    if how & 64 != 0 {
        block.resize(block.len().next_multiple_of(align), 0);
    }
    if how & 128 != 0 {
        mend_block(&mut block, &id, how & 32 != 0);
    }
    let Ok(parsed) = parse_block(&block, &id, align) else { return };
    assert!(parsed.bytes <= block.len() && parsed.bytes % align == 0);
    let payload = u32::from_le_bytes(block[44..48].try_into().unwrap()) as usize;
    let crc = crc32c::crc32c_append(seed(&id), &block[8..BLOCK_HEADER_BYTES + payload]);
    assert_eq!(parsed.crc, crc, "a block counts by its checksum");
    let mut next = parsed.first_lsn.0;
    let mut count = 0;
    for (lsn, record) in parsed.iter() {
        assert_eq!(lsn.0, next);
        assert!(is_in(&block, lsn, record), "a record counts by its checksum");
        (next, count) = (next.wrapping_add(1), count + 1);
    }
    assert_eq!((count, parsed.next_lsn().0), (parsed.records, next));
}

/// Whether `record` stands in `bytes` behind its own length and checksum.
fn is_in(bytes: &[u8], lsn: Lsn, record: &[u8]) -> bool {
    let mut whole = u32::try_from(record.len()).unwrap().to_le_bytes().to_vec();
    whole.extend(record_crc(lsn.0, record).to_le_bytes());
    whole.extend(record);
    bytes.windows(whole.len()).any(|part| part == whole)
}

/// Segments made of pieces: headers, blocks and bytes, each as the input says.
fn segments(bytes: &mut Bytes<'_>, device: &SimDevice, files: usize, unit: usize) {
    let (mut previous_crc, mut lsn) = (0, 1);
    let mut file = 0;
    let mut id = SegmentId { log_id: 7, sequence: 1, salt: 3 };
    let mut at = 0;
    while !bytes.is_empty() {
        match bytes.u8() % 8 {
            0 | 1 => {
                let odd = bytes.u8();
                let mut pick =
                    |bit: u8, usual: u64| if odd & bit == 0 { usual } else { bytes.extreme() };
                file = usize::try_from(pick(1, file as u64)).unwrap_or(0) % files;
                id.sequence = pick(2, id.sequence);
                let header = SegmentHeader {
                    state: if odd & 4 == 0 { SegmentState::Live } else { SegmentState::Free },
                    id,
                    start_sequence: pick(8, 1),
                    first_lsn: Lsn(pick(16, lsn)),
                    durable_lsn: Lsn(pick(32, 0)),
                    previous_crc,
                    align_bytes: unit as u32,
                    block_bytes_max: (pick(64, 4096) as u32) & !(unit as u32 - 1),
                    in_flight_max: pick(128, 2) as u32,
                };
                lsn = header.first_lsn.0;
                let mut sector = vec![0; 512];
                header.write(&mut sector);
                device.poke(file, 0, &sector);
                at = unit;
            }
            // The next segment.
            2 => (file, id.sequence) = ((file + 1) % files, id.sequence.wrapping_add(1)),
            3 | 4 | 5 => {
                let odd = bytes.u8();
                let mut block = vec![0; 4096];
                let align = if odd & 1 == 0 { RecordAlign::Packed } else { RecordAlign::Sector };
                let mut composer = Composer::new(0, align);
                let mut number = Lsn(if odd & 2 == 0 { lsn } else { bytes.extreme() });
                let first_lsn = number;
                for _ in 0..=odd >> 5 {
                    let len = usize::from(bytes.u8());
                    let record = bytes.take(len);
                    if !composer.fits(record.len(), block.len()) || number.0 == u64::MAX {
                        break;
                    }
                    composer.push(&mut block, number, record);
                    number = number.next();
                }
                if composer.records() == 0 {
                    continue;
                }
                let durable = if odd & 4 == 0 { 0 } else { bytes.extreme() };
                let seal = Seal {
                    id,
                    first_lsn,
                    durable_lsn: Lsn(durable),
                    previous_crc: if odd & 8 == 0 { previous_crc } else { bytes.u32() },
                    align_bytes: unit,
                };
                let (end, crc) = composer.seal(&mut block, &seal);
                if at + end > SEGMENT_BYTES {
                    continue;
                }
                device.poke(file, at as u64, &block[..end]);
                if odd & 16 == 0 {
                    (at, lsn, previous_crc) = (at + end, number.0, crc);
                }
            }
            6 => at = (usize::from(bytes.u8()) * unit) % SEGMENT_BYTES,
            _ => {
                let mut raw = bytes.take(96).to_vec();
                if bytes.u8() & 1 == 0 {
                    mend_block(&mut raw, &id, true);
                }
                let start = at.min(SEGMENT_BYTES - raw.len());
                device.poke(file, start as u64, &raw);
            }
        }
    }
}

type Found = Vec<(Lsn, Vec<u8>)>;

/// Opens the log; appends one record to it, if `appends`.
fn open(
    device: &SimDevice,
    files: usize,
    config: &WalConfig,
    appends: bool,
) -> Result<Found, WalError> {
    let ring = SimRing::new(SimConfig::calm(1), device);
    let arena = ArenaConfig::new(vec![
        SizeClass { bytes: 512, count: 4 },
        SizeClass { bytes: config.block_bytes_max, count: 12 },
        SizeClass { bytes: 16 << 10, count: 4 },
    ]);
    let shard = Shard::with_ring(ring, &Config { arena, ..Config::new() }).expect("a shard");
    let segments = (0..files).map(|at| {
        shard.adopt_simulated(&format!("segment {at}"), device.fd(at), device.geometry(at))
    });
    let store = PremadeSegments::new(segments.collect(), 99);
    let found = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&found);
    let work = async {
        let visit = async move |lsn, record: &[u8]| {
            seen.borrow_mut().push((lsn, record.to_vec()));
            Ok(())
        };
        let (wal, _report) = Wal::open(&shard, store, config, visit).await?;
        if appends {
            let _full_or_at_the_end = wal.append(b"one more").await;
        }
        Ok(())
    };
    let mut work = pin!(work);
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done.map(|()| found.take());
        }
        match shard.turn(Wait::at_least(1)) {
            Ok(_) | Err(EngineError::Busy) => {}
            Err(error) => panic!("a turn failed: {error}"),
        }
    }
    panic!("an open never ends");
}

/// A whole log, opened three times.
pub fn wal_recovery(data: &[u8]) {
    let mut bytes = Bytes(data);
    let shape = bytes.u8();
    let files = 1 + usize::from(shape % 3);
    let unit = 512 << (shape >> 2 & 1);
    let size_bytes = u32::try_from(SEGMENT_BYTES).unwrap();
    let align_bytes = if shape & 8 == 0 { 512 } else { 1024 };
    let spec = FileSpec { align_bytes, memory_align_bytes: 512, ..FileSpec::direct(size_bytes) };
    let device = SimDevice::new(&vec![spec; files]);
    segments(&mut bytes, &device, files, unit);
    let mut image = vec![0; SEGMENT_BYTES * files];
    for (file, into) in image.chunks_mut(SEGMENT_BYTES).enumerate() {
        device.peek(file, 0, into);
    }
    let config = WalConfig {
        segment_bytes: SEGMENT_BYTES as u64,
        block_bytes_max: 4096,
        block_align_bytes: 512,
        ..WalConfig::new()
    };
    let Ok(found) = open(&device, files, &config, false) else { return };
    let mut numbers = BTreeSet::new();
    for pair in found.windows(2) {
        assert_eq!(pair[0].0.0 + 1, pair[1].0.0, "records without a gap");
    }
    for (lsn, record) in &found {
        assert!(numbers.insert(*lsn));
        assert!(is_in(&image, *lsn, record), "a record counts by its checksum");
    }
    let again = open(&device, files, &config, true).expect("what was opened is opened again");
    assert_eq!(again, found, "opening twice finds the same");
    let more = open(&device, files, &config, false).expect("what was appended to is opened again");
    assert_eq!(more[..found.len()], found, "appending loses nothing");
    assert!(more.len() <= found.len() + 1);
}
