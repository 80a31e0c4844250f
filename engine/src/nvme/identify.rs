//! Reads what controller and namespace say of themselves.
//!
//! Pure: 4096 bytes in, numbers out; every byte of them comes from the device and may be
//! nonsense, which is refused by name. Offsets are those of the NVM Express Base Specification
//! 2.0, figures 275 and 276, and of the NVM Command Set Specification 1.0, figure 97.
//!
//! Not here: asking for the bytes (`sys`), the geometry made of them (`target`).

use core::fmt;

use super::command::{BLOCKS_MAX, Range};

/// Bytes of either structure.
pub const IDENTIFY_BYTES: usize = 4096;

/// What a controller can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Controller {
    /// What its maker calls it.
    pub model: String,
    /// Its serial number.
    pub serial: String,
    /// The revision of its firmware.
    pub firmware: String,
    /// The longest transfer as a power of two of its least page; `None` for no limit.
    pub transfer_page_exponent: Option<u8>,
    /// Completed writes may still be lost: it has a cache that does not survive power loss, and
    /// flushes and FUA mean something.
    pub volatile_cache: bool,
    /// It can compare.
    pub compare: bool,
    /// It can deallocate ranges (dataset management).
    pub deallocate: bool,
    /// It can write zeroes without being sent them.
    pub write_zeroes: bool,
    /// It can copy ranges by itself.
    pub copy: bool,
    /// Blocks that survive power loss as a whole or not at all; the least over its namespaces.
    pub atomic_blocks: u32,
}

/// One way to format a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LbaFormat {
    /// Bytes of data in a logical block, a power of two of at least 512.
    pub data_bytes: u32,
    /// Bytes of metadata that go with it.
    pub metadata_bytes: u16,
}

/// What a namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Namespace {
    /// How many logical blocks it has.
    pub blocks: u64,
    /// The format in use.
    pub format: LbaFormat,
    /// All the formats it could have, the one in use among them.
    pub formats: Vec<LbaFormat>,
    /// The metadata is interleaved with the data, so that a block takes more bytes of memory.
    pub extended_metadata: bool,
    /// Data is checked against protection information (types 1 to 3).
    pub protection: Option<u8>,
    /// Blocks that survive power loss as a whole or not at all, where it is more than the
    /// controller's word.
    pub atomic_blocks: Option<u32>,
    /// Writes of several blocks are not atomic where they cross a multiple of this many blocks;
    /// 1 where the multiples are counted from elsewhere than block 0.
    pub atomic_boundary_blocks: Option<u32>,
    /// The most blocks of a copy of one range; 0 where it cannot copy.
    pub copy_blocks_max: u32,
}

/// Why the bytes cannot be believed, or the namespace not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentifyError {
    /// The namespace has no blocks: it is not active.
    Empty,
    /// The format in use is none of those that are described.
    Format {
        /// Its index.
        index: u8,
    },
    /// A block of a size that is not a power of two of 512 to 64 KiB.
    BlockBytes {
        /// The exponent of two that is given.
        exponent: u8,
    },
    /// Each block comes with metadata, which packets have no place for.
    Metadata {
        /// Bytes of it.
        bytes: u16,
    },
}

impl fmt::Display for IdentifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the namespace has no blocks: attach and format it first"),
            Self::Format { index } => {
                write!(f, "the namespace uses LBA format {index}, which it does not describe")
            }
            Self::BlockBytes { exponent } => {
                write!(f, "the namespace has blocks of 2^{exponent} bytes; 512 to 65536 are usable")
            }
            Self::Metadata { bytes } => write!(
                f,
                "each block has {bytes} bytes of metadata, which the engine does not carry: use \
                 the block device, or format the namespace without (nvme format --lbaf=N)"
            ),
        }
    }
}

impl std::error::Error for IdentifyError {}

fn u16_at(bytes: &[u8; IDENTIFY_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u64_at(bytes: &[u8; IDENTIFY_BYTES], at: usize) -> u64 {
    core::array::from_fn::<u64, 8, _>(|byte| u64::from(bytes[at + byte]) << (8 * byte)).iter().sum()
}

/// Text as the specification pads it: printable ASCII with spaces behind.
fn text(bytes: &[u8]) -> String {
    let printable = |&byte: &u8| if byte.is_ascii_graphic() { char::from(byte) } else { ' ' };
    bytes.iter().map(printable).collect::<String>().trim().to_owned()
}

impl Controller {
    /// Reads the structure of `CNS` 1.
    #[must_use]
    pub fn parse(bytes: &[u8; IDENTIFY_BYTES]) -> Self {
        let optional = u16_at(bytes, 520);
        Self {
            serial: text(&bytes[4..24]),
            model: text(&bytes[24..64]),
            firmware: text(&bytes[64..72]),
            transfer_page_exponent: Some(bytes[77]).filter(|&exponent| exponent > 0),
            volatile_cache: bytes[525] & 1 != 0,
            compare: optional & 1 != 0,
            deallocate: optional & 1 << 2 != 0,
            write_zeroes: optional & 1 << 3 != 0,
            copy: optional & 1 << 8 != 0,
            // Counted from 0, as all numbers of blocks.
            atomic_blocks: u32::from(u16_at(bytes, 528)) + 1,
        }
    }

    /// The longest transfer in bytes, where the least page has `page_bytes`; `None` for no limit
    /// of its own.
    #[must_use]
    pub fn transfer_bytes_max(&self, page_bytes: u64) -> Option<u64> {
        let exponent = u32::from(self.transfer_page_exponent?);
        Some(page_bytes.checked_shl(exponent).filter(|&bytes| bytes > 0).unwrap_or(u64::MAX))
    }
}

impl Namespace {
    /// Reads the structure of `CNS` 0.
    ///
    /// # Errors
    /// What is wrong with it ([`IdentifyError`]); metadata is not an error here, see
    /// [`Namespace::check_usable`].
    pub fn parse(bytes: &[u8; IDENTIFY_BYTES]) -> Result<Self, IdentifyError> {
        let blocks = u64_at(bytes, 0);
        if blocks == 0 {
            return Err(IdentifyError::Empty);
        }
        // The formats are counted from 0; those beyond 16 came with version 2.0.
        let count = usize::from(bytes[25]).min(63) + 1;
        let index = match count {
            ..=16 => bytes[26] & 0xf,
            _ => bytes[26] & 0xf | bytes[26] >> 1 & 0x30,
        };
        let described = (0..count).map(|format| {
            let at = 128 + 4 * format;
            (bytes[at + 2], u16_at(bytes, at))
        });
        let described: Vec<_> = described.collect();
        let used = described.get(usize::from(index)).ok_or(IdentifyError::Format { index })?;
        let format = format_of(*used).ok_or(IdentifyError::BlockBytes { exponent: used.0 })?;
        let has_own_atomics = bytes[24] & 1 << 1 != 0;
        let boundary = match (u16_at(bytes, 44), u16_at(bytes, 42)) {
            (0, _) => None,
            (blocks, 0) => Some(u32::from(blocks) + 1),
            _ => Some(1),
        };
        Ok(Self {
            blocks,
            format,
            formats: described.into_iter().filter_map(format_of).collect(),
            extended_metadata: bytes[26] & 1 << 4 != 0 && format.metadata_bytes > 0,
            protection: Some(bytes[29] & 7).filter(|&kind| kind > 0),
            atomic_blocks: has_own_atomics.then(|| u32::from(u16_at(bytes, 36)) + 1),
            atomic_boundary_blocks: boundary,
            copy_blocks_max: copy_blocks_max(bytes),
        })
    }

    /// Whether packets can be sent to it: their bytes are data, with no metadata between.
    ///
    /// # Errors
    /// [`IdentifyError::Metadata`].
    pub const fn check_usable(&self) -> Result<(), IdentifyError> {
        match self.format.metadata_bytes {
            0 => Ok(()),
            bytes => Err(IdentifyError::Metadata { bytes }),
        }
    }

    /// The longest write, a power of two of blocks and at a multiple of its length, that survives
    /// power loss as a whole or not at all, where the controller's word is `of_controller` blocks.
    #[must_use]
    pub fn atomic_blocks_max(&self, of_controller: u32) -> u32 {
        let most = self.atomic_blocks.unwrap_or(of_controller).max(1);
        // Aligned powers of two cross no multiple of a greater one; of others they may.
        let boundary = self.atomic_boundary_blocks.unwrap_or(most);
        let boundary = if boundary < most { 1 << boundary.trailing_zeros() } else { most };
        1 << most.min(boundary).ilog2()
    }

    /// Its length in bytes; `u64::MAX` where that is more than 64 bits can say.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.blocks.saturating_mul(u64::from(self.format.data_bytes))
    }

    /// The blocks of `len_bytes` bytes from byte `offset_bytes` on; `None` where they do not
    /// begin and end at blocks, are none or more than one command takes, or end beyond the
    /// namespace.
    #[must_use]
    pub fn range(&self, offset_bytes: u64, len_bytes: u64) -> Option<Range> {
        let block = u64::from(self.format.data_bytes);
        let aligned = offset_bytes.is_multiple_of(block) && len_bytes.is_multiple_of(block);
        let blocks = u32::try_from(len_bytes / block).ok();
        let blocks = blocks.filter(|blocks| aligned && (1..=BLOCKS_MAX).contains(blocks))?;
        let first_lba = offset_bytes / block;
        let end = first_lba.checked_add(u64::from(blocks))?;
        (end <= self.blocks).then_some(Range { first_lba, blocks })
    }
}

/// The least of what it says of one range, and of all ranges of a copy.
fn copy_blocks_max(bytes: &[u8; IDENTIFY_BYTES]) -> u32 {
    let (of_range, of_copy) = (u32::from(u16_at(bytes, 74)), u64_at(bytes, 76) & 0xffff_ffff);
    of_range.min(u32::try_from(of_copy).unwrap_or(0))
}

fn format_of((exponent, metadata_bytes): (u8, u16)) -> Option<LbaFormat> {
    let usable = (9..=16).contains(&exponent);
    usable.then(|| LbaFormat { data_bytes: 1 << exponent, metadata_bytes })
}

impl fmt::Display for LbaFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} B", self.data_bytes)?;
        match self.metadata_bytes {
            0 => Ok(()),
            bytes => write!(f, " + {bytes} B of metadata"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 1000 blocks of `formats[index]`.
    fn namespace(formats: &[(u8, u16)], flbas: u8) -> [u8; IDENTIFY_BYTES] {
        let mut bytes = [0; IDENTIFY_BYTES];
        bytes[..8].copy_from_slice(&1000_u64.to_le_bytes());
        bytes[25] = u8::try_from(formats.len() - 1).unwrap();
        bytes[26] = flbas;
        for (at, (exponent, metadata)) in formats.iter().enumerate() {
            let at = 128 + 4 * at;
            bytes[at..at + 2].copy_from_slice(&metadata.to_le_bytes());
            bytes[at + 2] = *exponent;
        }
        bytes
    }

    #[test]
    fn namespace_tells_blocks_and_formats() {
        let found = Namespace::parse(&namespace(&[(9, 0), (12, 0), (9, 8)], 1)).unwrap();
        assert_eq!(found.format, LbaFormat { data_bytes: 4096, metadata_bytes: 0 });
        assert_eq!((found.formats.len(), found.len_bytes()), (3, 4_096_000));
        assert_eq!(found.check_usable(), Ok(()));
        let found = Namespace::parse(&namespace(&[(9, 0), (12, 0), (9, 8)], 2 | 1 << 4)).unwrap();
        assert!(found.extended_metadata);
        assert_eq!(found.check_usable(), Err(IdentifyError::Metadata { bytes: 8 }));
        // The 33rd format is named by two more bits.
        let mut formats = [(9, 0); 40];
        formats[33] = (12, 0);
        let found = Namespace::parse(&namespace(&formats, 0x41)).unwrap();
        assert_eq!(found.format.data_bytes, 4096);
    }

    #[test]
    fn f48_nonsense_is_refused_by_name() {
        let parse = |bytes: &[u8; IDENTIFY_BYTES]| Namespace::parse(bytes).unwrap_err();
        assert_eq!(parse(&[0; IDENTIFY_BYTES]), IdentifyError::Empty);
        assert_eq!(parse(&namespace(&[(9, 0)], 3)), IdentifyError::Format { index: 3 });
        for exponent in [0, 8, 17, 64, 255] {
            let found = parse(&namespace(&[(exponent, 0)], 0));
            assert_eq!(found, IdentifyError::BlockBytes { exponent });
        }
    }

    #[test]
    fn controller_tells_limits_and_optional_commands() {
        let mut bytes = [0; IDENTIFY_BYTES];
        bytes[4..24].copy_from_slice(b"serial              ");
        bytes[24..64].copy_from_slice(b"QEMU NVMe Ctrl\0\xff                        ");
        bytes[64..72].copy_from_slice(b"10.0.2  ");
        bytes[77] = 7;
        bytes[520..522].copy_from_slice(&0x010d_u16.to_le_bytes());
        bytes[525] = 7;
        let found = Controller::parse(&bytes);
        assert_eq!((found.serial.as_str(), found.model.as_str()), ("serial", "QEMU NVMe Ctrl"));
        assert_eq!(found.firmware, "10.0.2");
        assert_eq!(found.transfer_bytes_max(4096), Some(512 << 10));
        assert!(found.volatile_cache && found.compare && found.deallocate);
        assert!(found.write_zeroes && found.copy);
        assert_eq!(found.atomic_blocks, 1);
        let none = Controller::parse(&[0; IDENTIFY_BYTES]);
        assert_eq!(none.transfer_bytes_max(4096), None);
        assert!(!none.volatile_cache && !none.copy);
        bytes[77] = 255;
        assert_eq!(Controller::parse(&bytes).transfer_bytes_max(4096), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn f48_any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), IDENTIFY_BYTES),
        ) {
            let bytes: [u8; IDENTIFY_BYTES] = bytes.try_into().unwrap();
            let _controller = Controller::parse(&bytes);
            if let Ok(found) = Namespace::parse(&bytes) {
                prop_assert!(found.format.data_bytes.is_power_of_two());
                prop_assert!(found.len_bytes() >= 512);
            }
        }

        #[test]
        fn f48_ranges_lie_in_the_namespace(
            offset: u64,
            len in 0..=(1_u64 << 40),
            blocks in 1..u64::MAX,
        ) {
            let mut bytes = namespace(&[(12, 0)], 0);
            bytes[..8].copy_from_slice(&blocks.to_le_bytes());
            let found = Namespace::parse(&bytes).unwrap();
            match found.range(offset, len) {
                Some(range) => {
                    prop_assert_eq!(range.first_lba * 4096, offset);
                    prop_assert_eq!(u64::from(range.blocks) * 4096, len);
                    prop_assert!(u128::from(range.first_lba) + u128::from(range.blocks)
                        <= u128::from(blocks));
                }
                None => prop_assert!(
                    offset % 4096 != 0 || len % 4096 != 0 || len == 0
                        || len / 4096 > u64::from(BLOCKS_MAX)
                        || u128::from(offset) + u128::from(len) > u128::from(blocks) * 4096
                ),
            }
        }
    }
}
