//! A device that lies: writes that went astray or nowhere, and sectors that rot (F41).
//!
//! Data flow: [`SimDevice::lie`] → the next write is acknowledged and kept as always, and an
//! overlay is laid over what reads see → reads, until the place is written again or the overlay
//! is taken away. Underneath stays what an honest device would hold, so that a lie can be
//! switched off and on again.
//!
//! The engine does not claim to detect any of this, so no sweep has it; a header with offset,
//! sequence and checksum does.
//!
//! Not here: devices that tell what is wrong (`device`, `steps`).

use core::ops::Range;

use super::device::SimDevice;

/// What a device does with a write that it acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It keeps what was there before.
    LostWrite,
    /// It puts the bytes at another place, and keeps what was there before.
    MisdirectedWrite {
        /// Where the write begins instead, in bytes from the start of the file.
        to_bytes: u64,
    },
}

/// Bytes that reads see in place of what is stored.
#[derive(Clone, Debug)]
struct Overlay {
    start: usize,
    shown: Vec<u8>,
}

impl Overlay {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.shown.len()
    }

    /// The part of it that lies in `range`, as an overlay of its own.
    fn part(&self, range: Range<usize>) -> Option<Self> {
        let (start, end) = (range.start.max(self.start), range.end.min(self.range().end));
        let shown = (start < end).then(|| &self.shown[start - self.start..end - self.start])?;
        Some(Self { start, shown: shown.to_vec() })
    }
}

/// The overlays of one file, the latest on top.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    list: Vec<Overlay>,
    hidden: bool,
    /// What is to become of the next write.
    next: Option<Lie>,
}

impl Overlays {
    /// Whether reads see what is stored, and nothing else is to be done about writes.
    pub(super) fn is_honest(&self) -> bool {
        self.list.is_empty() && self.next.is_none()
    }

    /// Lays what is to be seen over `seen`, which was read at `start`.
    pub(super) fn cover(&self, start: usize, seen: &mut [u8]) {
        if self.hidden {
            return;
        }
        let end = start + seen.len();
        for part in self.list.iter().filter_map(|overlay| overlay.part(start..end)) {
            let from = part.start - start;
            seen[from..from + part.shown.len()].copy_from_slice(&part.shown);
        }
    }

    /// `new` was written at `start` of a file of `size` bytes, in place of `old`.
    pub(super) fn written(&mut self, start: usize, old: &[u8], new: &[u8], size: usize) {
        let lie = self.next.take();
        let mut before = old.to_vec();
        self.cover(start, &mut before);
        self.uncover(start..start + new.len());
        let Some(lie) = lie else { return };
        self.list.push(Overlay { start, shown: before });
        if let Lie::MisdirectedWrite { to_bytes } = lie {
            let to = usize::try_from(to_bytes).unwrap_or(usize::MAX).min(size);
            let shown = new[..new.len().min(size - to)].to_vec();
            self.list.push(Overlay { start: to, shown });
        }
    }

    /// Nothing lies over `range` any more.
    fn uncover(&mut self, range: Range<usize>) {
        let list = core::mem::take(&mut self.list);
        for overlay in list {
            self.list.extend(overlay.part(0..range.start));
            self.list.extend(overlay.part(range.end..usize::MAX));
        }
    }
}

impl SimDevice {
    /// The next write to `file` is acknowledged, and dealt with as `lie` says.
    pub fn lie(&self, file: usize, lie: Lie) {
        self.with(file, |file| file.overlays.next = Some(lie));
    }

    /// One bit of every byte of `bytes` of `file` changes, and nobody is told.
    ///
    /// # Panics
    /// When the range reaches beyond the end.
    pub fn rot(&self, file: usize, bytes: Range<u64>) {
        let len = usize::try_from(bytes.end - bytes.start).expect("a file is smaller than memory");
        let mut shown = vec![0; len];
        self.peek(file, bytes.start, &mut shown);
        shown.iter_mut().for_each(|byte| *byte ^= 0x10);
        let start = usize::try_from(bytes.start).expect("a file is smaller than memory");
        self.with(file, |file| file.overlays.list.push(Overlay { start, shown }));
    }

    /// Whether reads of `file` see the lies, as they do at first, or what an honest device
    /// would hold.
    pub fn show_lies(&self, file: usize, shown: bool) {
        self.with(file, |file| file.overlays.hidden = !shown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::sim::FileSpec;

    fn sector(byte: u8, device: &SimDevice, at: u64) -> bool {
        let mut seen = [0; 512];
        device.peek(0, at, &mut seen);
        seen == [byte; 512]
    }

    #[test]
    fn f41_lies_are_seen_until_the_place_is_written_again_and_can_be_hidden() {
        let device = SimDevice::new(&[FileSpec::direct(4096)]);
        let write = |at: u64, byte: u8| device.write_now(0, at, &[byte; 512]);
        write(0, 1);
        device.lie(0, Lie::LostWrite);
        write(0, 2);
        assert!(sector(1, &device, 0));
        device.lie(0, Lie::MisdirectedWrite { to_bytes: 1024 });
        write(512, 3);
        assert!(sector(0, &device, 512) && sector(3, &device, 1024));
        device.rot(0, 2048..2049);
        assert!(!sector(0, &device, 2048));
        device.show_lies(0, false);
        for (at, byte) in [(0, 2), (512, 3), (1024, 0), (2048, 0)] {
            assert!(sector(byte, &device, at), "what an honest device holds at {at}");
        }
        device.show_lies(0, true);
        write(1024, 4);
        write(2048, 5);
        assert!(sector(4, &device, 1024) && sector(5, &device, 2048));
        assert!(sector(1, &device, 0), "a lie elsewhere stays");
    }

    #[test]
    fn partly_overwritten_lie_keeps_its_rest() {
        let device = SimDevice::new(&[FileSpec::buffered(4096)]);
        device.lie(0, Lie::LostWrite);
        device.write_now(0, 0, &[7; 100]);
        device.write_now(0, 40, &[8; 20]);
        let mut seen = [9; 100];
        device.peek(0, 0, &mut seen);
        assert_eq!(seen[..40], [0; 40]);
        assert_eq!(seen[40..60], [8; 20]);
        assert_eq!(seen[60..], [0; 40]);
    }
}
