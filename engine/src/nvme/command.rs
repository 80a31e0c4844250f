//! Says an op on a namespace in the words of the NVM command set.
//!
//! Pure: no allocation, no system call; every builder is a table test. Data flow: what to do and
//! where, in blocks → [`Command`] → the bytes that the kernel reads behind an SQE
//! (`struct nvme_uring_cmd` of `<linux/nvme_ioctl.h>`), or with an ioctl.
//!
//! Command words are those of the NVM Command Set Specification 1.0, section 3.
//!
//! Not here: whether the range lies in the namespace (`identify`), the ring (`ring::kernel`).

/// Opcodes of the NVM command set.
const FLUSH: u8 = 0x00;
const WRITE: u8 = 0x01;
const READ: u8 = 0x02;
const COMPARE: u8 = 0x05;
const WRITE_ZEROES: u8 = 0x08;
const DATASET_MANAGEMENT: u8 = 0x09;
const COPY: u8 = 0x19;

/// Of the admin command set: the only one that is sent.
const IDENTIFY: u8 = 0x06;

/// Force unit access: the command completes when its data is on the medium.
const FUA: u32 = 1 << 30;
/// Write zeroes may deallocate the blocks.
const DEALLOCATE_ZEROED: u32 = 1 << 25;
/// Dataset management: deallocate.
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;

/// The most blocks of one read, write, compare, copy source or write zeroes: the field has 16
/// bits and counts from 0.
pub const BLOCKS_MAX: u32 = 1 << 16;

/// The most ranges of one dataset management command.
pub const RANGES_MAX: usize = 256;

/// A run of logical blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first block.
    pub first_lba: u64,
    /// How many; 1 to [`BLOCKS_MAX`] for all but dataset management, which takes any.
    pub blocks: u32,
}

impl Range {
    /// The number of blocks less one, as the commands count.
    ///
    /// # Panics
    /// When it is empty, or longer than the field can say: the caller cuts it first.
    fn blocks_from_0(self) -> u32 {
        assert!((1..=BLOCKS_MAX).contains(&self.blocks), "a command takes 1 to 65536 blocks");
        self.blocks - 1
    }
}

/// The memory of a command, as the kernel takes it. Only numbers: who owns the memory keeps it
/// until the completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// Address of the bytes, or of an array of `iovec`.
    pub addr: u64,
    /// Length in bytes, or pieces of the array.
    pub len: u32,
}

/// One command: `struct nvme_uring_cmd` and `struct nvme_passthru_cmd`, which differ in their
/// last word only, a result that is not used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Command {
    opcode: u8,
    nsid: u32,
    data: Data,
    /// Command words 10 to 15.
    words: [u32; 6],
}

impl Command {
    /// Bytes of the kernel's structure.
    pub const BYTES: usize = 72;

    const fn new(opcode: u8, nsid: u32) -> Self {
        Self { opcode, nsid, data: Data { addr: 0, len: 0 }, words: [0; 6] }
    }

    fn on(opcode: u8, nsid: u32, range: Range) -> Self {
        let mut this = Self::new(opcode, nsid);
        (this.words[0], this.words[1]) = halves(range.first_lba);
        this.words[2] = range.blocks_from_0();
        this
    }

    /// Fills `data` from `range` of namespace `nsid`.
    ///
    /// # Panics
    /// When `range` has no blocks, or more than [`BLOCKS_MAX`]; so do all that take a range.
    #[must_use]
    pub fn read(nsid: u32, range: Range, data: Data) -> Self {
        Self { data, ..Self::on(READ, nsid, range) }
    }

    /// Writes `data` to `range`. With `fua` it completes when the data is on the medium.
    ///
    /// # Panics
    /// As [`Command::read`].
    #[must_use]
    pub fn write(nsid: u32, range: Range, data: Data, fua: bool) -> Self {
        Self { data, ..Self::on(WRITE, nsid, range) }.with_fua(fua)
    }

    /// Compares `data` with what `range` holds; fails with
    /// [`Cause::Miscompare`](super::Cause::Miscompare) where they differ.
    ///
    /// # Panics
    /// As [`Command::read`].
    #[must_use]
    pub fn compare(nsid: u32, range: Range, data: Data) -> Self {
        Self { data, ..Self::on(COMPARE, nsid, range) }
    }

    /// Makes `range` read as zeros, without data. With `deallocate` the device may give the
    /// blocks back.
    ///
    /// # Panics
    /// As [`Command::read`].
    #[must_use]
    pub fn write_zeroes(nsid: u32, range: Range, deallocate: bool, fua: bool) -> Self {
        let mut this = Self::on(WRITE_ZEROES, nsid, range);
        this.words[2] |= if deallocate { DEALLOCATE_ZEROED } else { 0 };
        this.with_fua(fua)
    }

    /// Makes everything that has completed durable.
    #[must_use]
    pub const fn flush(nsid: u32) -> Self {
        Self::new(FLUSH, nsid)
    }

    /// Tells the device that `count` ranges, described by `data`
    /// ([`deallocate_range`] each), are no longer needed.
    ///
    /// # Panics
    /// When `count` is 0 or above [`RANGES_MAX`].
    #[must_use]
    pub fn deallocate(nsid: u32, count: usize, data: Data) -> Self {
        assert!((1..=RANGES_MAX).contains(&count), "a command takes 1 to 256 ranges");
        let mut this = Self::new(DATASET_MANAGEMENT, nsid);
        this.words[0] = u32::try_from(count - 1).expect("at most 255");
        this.words[1] = ATTRIBUTE_DEALLOCATE;
        Self { data, ..this }
    }

    /// Copies the one source range that `data` describes ([`copy_source`]) to `to_lba`.
    #[must_use]
    pub fn copy(nsid: u32, to_lba: u64, data: Data) -> Self {
        let mut this = Self::new(COPY, nsid);
        (this.words[0], this.words[1]) = halves(to_lba);
        // One range, counted from 0, of descriptor format 0.
        Self { data, ..this }
    }

    /// Asks what a controller (`cns` 1) or a namespace (`cns` 0) is; 4096 bytes. An admin command.
    #[must_use]
    pub const fn identify(nsid: u32, cns: u8, data: Data) -> Self {
        let mut this = Self::new(IDENTIFY, nsid);
        this.words[0] = cns as u32;
        this.data = data;
        this
    }

    /// The memory that it names; an address of 0 for none.
    #[must_use]
    pub const fn data(&self) -> Data {
        self.data
    }

    /// The same, on other memory.
    #[must_use]
    pub const fn with_data(self, data: Data) -> Self {
        Self { data, ..self }
    }

    #[cfg(test)]
    pub(crate) const fn has_fua(&self) -> bool {
        self.words[2] & FUA != 0
    }

    pub(crate) const fn with_fua(mut self, fua: bool) -> Self {
        if fua {
            self.words[2] |= FUA;
        }
        self
    }

    /// The bytes in the order of the kernel's structure, in the byte order of this machine.
    #[must_use]
    #[inline]
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[0] = self.opcode;
        bytes[4..8].copy_from_slice(&self.nsid.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.data.addr.to_ne_bytes());
        bytes[36..40].copy_from_slice(&self.data.len.to_ne_bytes());
        for (place, word) in bytes[40..64].chunks_exact_mut(4).zip(self.words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        bytes
    }
}

/// The low and the high half of a block address.
#[allow(clippy::cast_possible_truncation, reason = "the halves are cut out on purpose")]
const fn halves(lba: u64) -> (u32, u32) {
    (lba as u32, (lba >> 32) as u32)
}

/// One range of a dataset management command, as the device reads it (little endian).
#[must_use]
pub fn deallocate_range(range: Range) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&range.blocks.to_le_bytes());
    bytes[8..16].copy_from_slice(&range.first_lba.to_le_bytes());
    bytes
}

/// The source range of a copy, descriptor format 0, as the device reads it (little endian).
///
/// # Panics
/// As [`Command::read`].
#[must_use]
pub fn copy_source(range: Range) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[8..16].copy_from_slice(&range.first_lba.to_le_bytes());
    bytes[16..20].copy_from_slice(&range.blocks_from_0().to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANGE: Range = Range { first_lba: 0x0102_0304_0506_0708, blocks: 8 };
    const DATA: Data = Data { addr: 0x7f00_1000, len: 4096 };

    /// Command words 10 to 15 of the kernel's structure.
    fn words(command: &Command) -> [u32; 6] {
        let bytes = command.to_bytes();
        core::array::from_fn(|at| {
            let at = 40 + 4 * at;
            u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
        })
    }

    #[test]
    fn reads_and_writes_name_blocks_and_memory() {
        let read = Command::read(3, RANGE, DATA);
        let bytes = read.to_bytes();
        assert_eq!(bytes[0], 0x02);
        assert_eq!(bytes[1..4], [0; 3], "flags and padding");
        assert_eq!(bytes[4..8], 3_u32.to_ne_bytes());
        assert_eq!(bytes[24..32], 0x7f00_1000_u64.to_ne_bytes());
        assert_eq!(bytes[32..36], [0; 4], "no metadata");
        assert_eq!(bytes[36..40], 4096_u32.to_ne_bytes());
        assert_eq!(words(&read), [0x0506_0708, 0x0102_0304, 7, 0, 0, 0]);
        assert_eq!(bytes[64..], [0; 8], "the driver's own timeout");
        let write = Command::write(3, RANGE, DATA, true);
        assert_eq!(write.to_bytes()[0], 0x01);
        assert_eq!(words(&write)[2], 7 | 1 << 30);
        assert_eq!(words(&Command::write(3, RANGE, DATA, false))[2], 7);
        assert_eq!(Command::compare(3, RANGE, DATA).to_bytes()[0], 0x05);
    }

    #[test]
    fn what_moves_no_memory_names_none() {
        let flush = Command::flush(9);
        let mut expected = [0; Command::BYTES];
        expected[4..8].copy_from_slice(&9_u32.to_ne_bytes());
        assert_eq!(flush.to_bytes(), expected);
        let zeroes = Command::write_zeroes(1, RANGE, true, true);
        assert_eq!(zeroes.to_bytes()[0], 0x08);
        assert_eq!(words(&zeroes)[2], 7 | 1 << 25 | 1 << 30);
        assert_eq!(zeroes.to_bytes()[24..40], [0; 16]);
    }

    #[test]
    fn ranges_go_as_data() {
        let trim = Command::deallocate(1, 2, Data { addr: 64, len: 32 });
        assert_eq!(trim.to_bytes()[0], 0x09);
        assert_eq!(words(&trim), [1, 4, 0, 0, 0, 0]);
        let range = deallocate_range(Range { first_lba: 2, blocks: 0x0102 });
        assert_eq!(range, [0, 0, 0, 0, 2, 1, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        let copy = Command::copy(1, 1 << 33, Data { addr: 64, len: 32 });
        assert_eq!((copy.to_bytes()[0], words(&copy)), (0x19, [0, 2, 0, 0, 0, 0]));
        let source = copy_source(Range { first_lba: 5, blocks: 4 });
        assert_eq!((source[8], source[16], source[17]), (5, 3, 0));
    }

    #[test]
    fn f48_counts_that_the_field_cannot_say_are_refused() {
        for blocks in [0, BLOCKS_MAX + 1, u32::MAX] {
            let range = Range { first_lba: 0, blocks };
            let built = std::panic::catch_unwind(|| Command::read(1, range, DATA));
            assert!(built.is_err(), "{blocks} blocks");
        }
        let most = Range { first_lba: 0, blocks: BLOCKS_MAX };
        assert_eq!(words(&Command::read(1, most, DATA))[2], 0xffff);
    }
}
