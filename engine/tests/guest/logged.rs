//! Reads what the device-mapper target log-writes has recorded of a device.
//!
//! Data flow: log device → superblock → entries, each a sector that describes a write, and
//! behind it the written data → applied to an image, whole or in part. The format is that of
//! `Documentation/admin-guide/device-mapper/log-writes.rst` and of `drivers/md/dm-log-writes.c`
//! in Linux: little-endian 64-bit numbers. Writes are recorded in the order in which they
//! became durable: those that a flush covered stand before it.

use std::ops::Range;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One thing that happened to the device.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Where, in bytes of the device.
    pub(crate) at: Range<usize>,
    flags: u64,
    /// What `dmsetup message … mark` said.
    pub(crate) mark: Option<String>,
    /// Where its data is, in bytes of the log.
    data: usize,
}

impl Entry {
    /// Everything up to here was durable when it ended.
    pub(crate) const fn is_durable(&self) -> bool {
        self.flags & (FLUSH | FUA) != 0
    }

    /// Its data reached the device only when all before it was durable.
    pub(crate) const fn flushes_first(&self) -> bool {
        self.flags & FLUSH != 0
    }
}

/// A whole log, in memory.
pub(crate) struct Log {
    bytes: Vec<u8>,
    pub(crate) entries: Vec<Entry>,
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn size(bytes: &[u8], at: usize) -> usize {
    usize::try_from(number(bytes, at)).unwrap()
}

impl Log {
    /// `None` where it goes on behind `bytes`.
    pub(crate) fn parse(bytes: Vec<u8>) -> Option<Self> {
        assert_eq!((number(&bytes, 0), number(&bytes, 8)), (MAGIC, VERSION), "no log here");
        let sector = u32::from_le_bytes(bytes[24..28].try_into().unwrap()) as usize;
        let (mut at, mut entries) = (sector, Vec::new());
        for _ in 0..number(&bytes, 16) {
            bytes.get(at..at + sector)?;
            let (start, sectors) = (size(&bytes, at), size(&bytes, at + 8));
            let (flags, inline) = (number(&bytes, at + 16), size(&bytes, at + 24));
            let text = bytes[at + 32..at + 32 + inline].to_vec();
            let mark = (flags & MARK != 0).then(|| String::from_utf8(text).unwrap());
            let range = start * sector..(start + sectors) * sector;
            let carried = if flags & (DISCARD | MARK) == 0 { range.len() } else { 0 };
            entries.push(Entry { at: range, flags, mark, data: at + sector });
            at += sector + carried;
        }
        (at <= bytes.len()).then_some(Self { bytes, entries })
    }

    /// Does to `image` what `entry` did to the device, as far as `reaches` says so of the
    /// 512 bytes from each offset on. Discarded bytes are taken to be zeroes.
    pub(crate) fn apply(
        &self,
        entry: &Entry,
        image: &mut [u8],
        mut reaches: impl FnMut(usize) -> bool,
    ) {
        if entry.flags & MARK != 0 {
            return;
        }
        let zeroes = [0; 512];
        for at in entry.at.clone().step_by(512) {
            if reaches(at) {
                let data = entry.data + (at - entry.at.start);
                let written = if entry.flags & DISCARD == 0 {
                    &self.bytes[data..data + 512]
                } else {
                    &zeroes
                };
                image[at..at + 512].copy_from_slice(written);
            }
        }
    }
}

#[test]
fn log_of_two_writes_a_mark_and_a_discard_is_read_and_applied() {
    let mut bytes = Vec::new();
    let mut sector = |words: &[u64], text: &[u8]| {
        let from = bytes.len();
        bytes.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(text);
        bytes.resize(from + 512, 0);
    };
    sector(&[MAGIC, VERSION, 5, 512], b"");
    sector(&[2, 2, 0, 0], b"");
    sector(&[], &[1; 512]);
    sector(&[], &[2; 512]);
    sector(&[0, 0, FLUSH, 0], b"");
    sector(&[0, 0, MARK, 5], b"acked");
    sector(&[3, 1, FUA, 0], b"");
    sector(&[], &[3; 512]);
    sector(&[2, 1, DISCARD, 0], b"");
    for end in (512..bytes.len()).step_by(512) {
        assert!(Log::parse(bytes[..end].to_vec()).is_none(), "cut at {end}");
    }
    let log = Log::parse(bytes).unwrap();
    assert_eq!(log.entries.len(), 5);
    let durable: Vec<_> = log.entries.iter().map(Entry::is_durable).collect();
    assert_eq!(durable, [false, true, false, true, false]);
    assert_eq!(log.entries[2].mark.as_deref(), Some("acked"));
    let mut image = vec![9; 4 * 512];
    let applied = |image: &[u8]| [image[512], image[1024], image[1536]];
    log.apply(&log.entries[0], &mut image, |_| true);
    assert_eq!(applied(&image), [9, 1, 2]);
    let mut first = true;
    log.apply(&log.entries[3], &mut image, |_| std::mem::take(&mut first));
    assert_eq!(applied(&image), [9, 1, 3]);
    log.apply(&log.entries[4], &mut image, |_| true);
    assert_eq!(applied(&image), [9, 0, 3]);
}
