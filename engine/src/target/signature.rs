//! Finds what a device carries: file systems, partition tables, members of volumes.
//!
//! Data flow: the few ranges of a device where formats leave their marks → [`Windows`] → a table
//! of marks → [`Signature`]s. Looking is all it does; a device is empty when nothing is found.
//!
//! The table follows the on-disk formats' own descriptions. It errs on the side of finding: a
//! mark that wiping left behind counts.
//!
//! Not here: reading the device and what follows (`guard`).

use core::fmt;
use core::ops::Range;

use super::facts::Bytes;

/// The mark of a format on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// The format: `ext2/3/4`, `GPT`, `LVM2 member`.
    pub what: &'static str,
    /// Where its mark begins, in bytes from the start of the device.
    pub offset_bytes: u64,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.what, Bytes(self.offset_bytes))
    }
}

/// All ranges begin and end at multiples of this, or at the end of the device: direct I/O on
/// any device can read them.
pub(super) const WINDOW_ALIGN: u64 = 4096;

/// The front: the first two labels of ZFS, and all superblocks but copies.
const FRONT_BYTES: u64 = 512 << 10;

/// The back: the last two labels of ZFS, which are aligned to 256 KiB.
const BACK_BYTES: u64 = 1 << 20;

/// Where copies of superblocks stand between front and back.
const BETWEEN: [u64; 4] = [1 << 20, 2 << 20, 4 << 20, 64 << 20];

/// The ranges of a device of `len_bytes` in which marks stand. They may overlap.
pub(super) fn ranges(len_bytes: u64) -> Vec<Range<u64>> {
    let back = len_bytes.saturating_sub(BACK_BYTES) / WINDOW_ALIGN * WINDOW_ALIGN;
    let between = BETWEEN.map(|at| at..(at + WINDOW_ALIGN).min(len_bytes));
    let all = [0..FRONT_BYTES.min(len_bytes), back..len_bytes].into_iter().chain(between);
    all.filter(|range| range.start < range.end).collect()
}

/// What stands in the ranges of a device.
#[derive(Debug)]
pub(super) struct Windows {
    pub(super) len_bytes: u64,
    pub(super) parts: Vec<(u64, Vec<u8>)>,
}

impl Windows {
    /// The bytes from `at` on; `None` where they were not read.
    fn get(&self, at: u64, len: usize) -> Option<&[u8]> {
        self.parts.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(from..from.checked_add(len)?)
        })
    }

    fn u32_at(&self, at: u64) -> Option<u32> {
        let bytes = self.get(at, 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }

    /// Everything that is found, each mark once, from the front to the back.
    pub(super) fn signatures(&self) -> Vec<Signature> {
        let mut found = Vec::new();
        for (what, place, magic) in MARKS {
            let at = place.on(self.len_bytes);
            let stands = |&at: &u64| self.get(at, magic.len()) == Some(magic);
            if let Some(offset_bytes) = at.filter(stands) {
                found.push(Signature { what, offset_bytes });
            }
        }
        found.extend([self.ext(), self.mbr()].into_iter().flatten());
        found.extend(self.zfs());
        found.sort_by_key(|signature| (signature.offset_bytes, signature.what));
        found.dedup();
        found
    }

    /// The mark alone has two bytes, which random data has, too: the block size must make sense.
    fn ext(&self) -> Option<Signature> {
        let (magic, log_block) = (self.get(1024 + 56, 2)?, self.u32_at(1024 + 24)?);
        let found = magic == [0x53, 0xef] && log_block <= 6;
        found.then_some(Signature { what: "ext2/3/4", offset_bytes: 1024 + 56 })
    }

    /// As with `ext`, the four entries must be possible ones: active or not, and nothing else.
    fn mbr(&self) -> Option<Signature> {
        let sector = self.get(0, 512)?;
        let entries = sector.get(446..510)?;
        let possible = entries.chunks_exact(16).all(|entry| matches!(entry[0], 0 | 0x80));
        let found = sector.get(510..) == Some(&[0x55, 0xaa]) && possible;
        found.then_some(Signature { what: "MBR or boot sector", offset_bytes: 510 })
    }

    /// A pool member has four labels, each with a ring of uberblocks in its second half; a slot
    /// of the ring has 1 KiB or more.
    fn zfs(&self) -> Option<Signature> {
        const LABEL: u64 = 256 << 10;
        const MAGIC: u64 = 0x00ba_b10c;
        let end = self.len_bytes / LABEL * LABEL;
        let labels = [Some(0), Some(LABEL), end.checked_sub(2 * LABEL), end.checked_sub(LABEL)];
        let slots = labels.into_iter().flatten();
        let mut slots = slots.flat_map(|label| (128..256).map(move |slot| label + slot * 1024));
        let is_uberblock = |&at: &u64| {
            let magic = self.get(at, 8);
            magic == Some(&MAGIC.to_le_bytes()) || magic == Some(&MAGIC.to_be_bytes())
        };
        let offset_bytes = slots.find(is_uberblock)?;
        Some(Signature { what: "ZFS member", offset_bytes })
    }
}

/// Where a mark begins.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many bytes behind the start.
    Start(u64),
    /// So many bytes before the end, after the size was rounded down to a multiple of the first.
    End { unit: u64, back: u64 },
}

impl Place {
    fn on(self, len_bytes: u64) -> Option<u64> {
        match self {
            Self::Start(at) => Some(at),
            Self::End { unit, back } => (len_bytes / unit * unit).checked_sub(back),
        }
    }
}

const fn end(unit: u64, back: u64) -> Place {
    Place::End { unit, back }
}

use Place::Start;

/// A format, where its mark stands, and the mark.
type Mark = (&'static str, Place, &'static [u8]);

/// What is told by its mark alone.
const MARKS: &[Mark] = &[
    // Partition tables.
    ("GPT", Start(512), b"EFI PART"),
    ("GPT", Start(4096), b"EFI PART"),
    ("GPT copy", end(512, 512), b"EFI PART"),
    ("GPT copy", end(512, 4096), b"EFI PART"),
    ("BSD disklabel", Start(0), &[0x57, 0x45, 0x56, 0x82]),
    ("BSD disklabel", Start(512), &[0x57, 0x45, 0x56, 0x82]),
    ("SGI disklabel", Start(0), &[0x0b, 0xe5, 0xa9, 0x41]),
    ("Apple partition map", Start(512), b"PM\0\0"),
    // Encryption and verification.
    ("LUKS", Start(0), b"LUKS\xba\xbe"),
    ("LUKS2 copy", Start(0x4000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x8000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x1_0000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x2_0000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x4_0000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x10_0000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x20_0000), b"SKUL\xba\xbe"),
    ("LUKS2 copy", Start(0x40_0000), b"SKUL\xba\xbe"),
    ("BitLocker", Start(3), b"-FVE-FS-"),
    ("dm-integrity", Start(0), b"integrt\0"),
    ("dm-verity", Start(0), b"verity\0\0"),
    // Members of volumes and arrays.
    ("LVM2 member", Start(0), b"LABELONE"),
    ("LVM2 member", Start(512), b"LABELONE"),
    ("LVM2 member", Start(1024), b"LABELONE"),
    ("LVM2 member", Start(1536), b"LABELONE"),
    ("MD RAID member (1.1)", Start(0), &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("MD RAID member (1.2)", Start(4096), &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("MD RAID member (1.0)", end(4096, 8192), &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("MD RAID member (0.90)", end(65536, 65536), &[0xfc, 0x4e, 0x2b, 0xa9]),
    ("MD RAID member (0.90)", end(65536, 65536), &[0xa9, 0x2b, 0x4e, 0xfc]),
    ("DDF RAID member", end(512, 512), &[0xde, 0x11, 0xde, 0x11]),
    ("DDF RAID member", end(4096, 4096), &[0xde, 0x11, 0xde, 0x11]),
    ("Intel RAID member", end(512, 1024), b"Intel Raid ISM Cfg Sig. "),
    ("Intel RAID member", end(4096, 8192), b"Intel Raid ISM Cfg Sig. "),
    ("DRBD", end(4096, 4036), &[0x83, 0x74, 0x02, 0x6b]),
    ("DRBD", end(4096, 4036), &[0x83, 0x74, 0x02, 0x6c]),
    ("DRBD", end(4096, 4036), &[0x83, 0x74, 0x02, 0x6d]),
    (
        "bcache",
        Start(4096 + 24),
        b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81",
    ),
    (
        "bcachefs",
        Start(4096 + 24),
        b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef",
    ),
    ("Stratis", Start(512 + 4), b"!Stra0tis\x86\xff\x02^\x41rh"),
    ("VDO", Start(0), b"dmvdo001"),
    ("Ceph BlueStore", Start(0), b"bluestore block device"),
    ("Oracle ASM", Start(32), b"ORCLDISK"),
    ("VMFS", Start(0x10_0000), &[0x0d, 0xd0, 0x01, 0xc0]),
    ("VMFS", Start(0x20_0000), &[0x5e, 0xf1, 0xab, 0x2f]),
    // Swap, of pages of 4, 8, 16, 32 and 64 KiB, and sleeping systems in it.
    ("swap", Start(0x0ff6), b"SWAPSPACE2"),
    ("swap", Start(0x1ff6), b"SWAPSPACE2"),
    ("swap", Start(0x3ff6), b"SWAPSPACE2"),
    ("swap", Start(0x7ff6), b"SWAPSPACE2"),
    ("swap", Start(0xfff6), b"SWAPSPACE2"),
    ("swap", Start(0x0ff6), b"SWAP-SPACE"),
    ("suspended system", Start(0x0ff6), b"S1SUSPEND"),
    ("suspended system", Start(0x0ff6), b"S2SUSPEND"),
    ("suspended system", Start(0x0ff6), b"ULSUSPEND"),
    ("suspended system", Start(0x0ff6), b"LINHIB0001"),
    // File systems.
    ("xfs", Start(0), b"XFSB"),
    ("xfs log", Start(0), &[0xfe, 0xed, 0xba, 0xbe]),
    ("btrfs", Start(0x1_0040), b"_BHRfS_M"),
    ("btrfs copy", Start(0x400_0040), b"_BHRfS_M"),
    ("f2fs", Start(1024), &[0x10, 0x20, 0xf5, 0xf2]),
    ("f2fs copy", Start(4096 + 1024), &[0x10, 0x20, 0xf5, 0xf2]),
    ("zonefs", Start(0), b"SFOZ"),
    ("NTFS", Start(3), b"NTFS    "),
    ("exFAT", Start(3), b"EXFAT   "),
    ("ReFS", Start(3), b"ReFS\0"),
    ("FAT", Start(0x36), b"FAT12   "),
    ("FAT", Start(0x36), b"FAT16   "),
    ("FAT", Start(0x52), b"FAT32   "),
    ("reiserfs", Start(0x1_0034), b"ReIsEr"),
    ("reiser4", Start(0x1_0000), b"ReIsEr4"),
    ("JFS", Start(0x8000), b"JFS1"),
    ("OCFS2", Start(0x0800), b"OCFSV2"),
    ("OCFS2", Start(0x1000), b"OCFSV2"),
    ("OCFS2", Start(0x2000), b"OCFSV2"),
    ("GFS2", Start(0x1_0000), &[0x01, 0x16, 0x19, 0x70]),
    ("erofs", Start(1024), &[0xe2, 0xe1, 0xf5, 0xe0]),
    ("squashfs", Start(0), b"hsqs"),
    ("cramfs", Start(0), &[0x45, 0x3d, 0xcd, 0x28]),
    ("UBI", Start(0), b"UBI#"),
    ("APFS", Start(32), b"NXSB"),
    ("HFS+", Start(1024), b"H+\0\x04"),
    ("HFS+", Start(1024), b"HX\0\x05"),
    ("ISO 9660", Start(0x8001), b"CD001"),
    ("UDF", Start(0x8001), b"BEA01"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEN: u64 = (65 << 20) + 4096;

    /// A device of zeroes but for `bytes` at `at`.
    fn planted(len_bytes: u64, at: u64, bytes: &[u8]) -> Windows {
        let parts = ranges(len_bytes).into_iter().map(|range| {
            let in_range = |at| usize::try_from(at).unwrap();
            let mut part = vec![0; in_range(range.end - range.start)];
            for (byte, at) in bytes.iter().zip(at..) {
                if range.contains(&at) {
                    part[in_range(at - range.start)] = *byte;
                }
            }
            (range.start, part)
        });
        Windows { len_bytes, parts: parts.collect() }
    }

    #[test]
    fn every_mark_is_found_where_it_stands_and_nothing_else_is() {
        for (what, place, magic) in MARKS {
            let offset_bytes = place.on(LEN).unwrap();
            let found = planted(LEN, offset_bytes, magic).signatures();
            assert_eq!(found[0], Signature { what, offset_bytes }, "{found:?}");
            // Two formats may share a place and a mark, but no two names.
            assert!(found.iter().all(|other| other.offset_bytes == offset_bytes), "{found:?}");
            let mut spoilt = magic.to_vec();
            spoilt[magic.len() - 1] ^= 0xff;
            assert_eq!(planted(LEN, offset_bytes, &spoilt).signatures(), [], "{what}");
        }
    }

    #[test]
    fn marks_with_conditions_are_found_and_named() {
        let found = |at, bytes: &[u8]| planted(LEN, at, bytes).signatures();
        let mut superblock = [0; 1024];
        superblock[24] = 2;
        superblock[56..58].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(found(1024, &superblock), [Signature { what: "ext2/3/4", offset_bytes: 1080 }]);
        superblock[24] = 7;
        assert_eq!(found(1024, &superblock), []);
        let mut sector = [0; 512];
        sector[446 + 16] = 0x80;
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let expected = Signature { what: "MBR or boot sector", offset_bytes: 510 };
        assert_eq!(found(0, &sector), [expected]);
        sector[446] = 0x81;
        assert_eq!(found(0, &sector), []);
        for label in [0, 256 << 10, (64 << 20) + (512 << 10), (64 << 20) + (768 << 10)] {
            let at = label + (128 << 10) + 8 * 4096;
            for magic in [0x00ba_b10c_u64.to_le_bytes(), 0x00ba_b10c_u64.to_be_bytes()] {
                let zfs = Signature { what: "ZFS member", offset_bytes: at };
                assert_eq!(found(at, &magic), [zfs]);
            }
        }
        assert_eq!(found(0, &[]), []);
        assert_eq!(expected.to_string(), "MBR or boot sector at 510 B");
    }

    #[test]
    fn windows_of_any_device_are_aligned_and_on_it() {
        for len in [0, 512, 4096, 100 << 10, 512 << 10, (1 << 20) + 512, LEN, 1 << 50] {
            for range in ranges(len) {
                assert_eq!(range.start % WINDOW_ALIGN, 0);
                assert!(range.start < range.end && range.end <= len);
            }
            assert_eq!(ranges(len).is_empty(), len == 0);
            if len < LEN {
                assert_eq!(planted(len, 0, &[]).signatures(), []);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// What a benchmark has written does not keep the next one from writing.
        #[test]
        fn noise_is_no_signature(seed: u64) {
            let mut state = seed | 1;
            let parts = ranges(LEN).into_iter().map(|range| {
                let word = |_| {
                    state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    (state ^ (state >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()
                };
                let words = (range.end - range.start).div_ceil(8);
                (range.start, (0..words).flat_map(word).collect())
            });
            let windows = Windows { len_bytes: LEN, parts: parts.collect() };
            prop_assert_eq!(windows.signatures(), []);
        }
    }
}
