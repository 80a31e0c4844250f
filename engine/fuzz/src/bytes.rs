//! Takes numbers off the fuzzer's bytes; zeroes where there are no more.
//!
//! Not here: what they stand for.

/// What is left of the input.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl<'a> Bytes<'a> {
    /// The next `len` bytes, or what is left.
    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let taken = self.take(N);
        array[..taken.len()].copy_from_slice(taken);
        array
    }

    pub(crate) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// A number near one end of its range, where arithmetic breaks, or anywhere in it.
    pub(crate) fn extreme(&mut self) -> u64 {
        let (how, near) = (self.u8(), u64::from(self.u16()));
        match how % 5 {
            0 => near,
            1 => u64::MAX - near,
            2 => (1 << 63) - 1 - near,
            3 => (1 << 32) + near - 32_768,
            _ => self.u64(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
