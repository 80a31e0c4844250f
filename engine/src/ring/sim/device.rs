//! Turns transfers and flushes into two images per file: what reads see, and what survives.
//!
//! Data flow: write → cache image, its 512-byte sectors dirty → flush → durable image →
//! crash → cache image. Until a flush that *started after* a write had completed, each of its
//! sectors survives a crash by the toss of a coin (F40); a flush that fails forgets which
//! sectors were dirty, so that the next one succeeds and saves nothing (F37).
//!
//! Not here: when a transfer happens, and how much of it (`kernel`).

use core::cell::{Cell, RefCell};
use core::ops::Range;
use std::rc::Rc;

use super::overlay::Overlays;
use super::random::Random;
use crate::buffer::MemRange;
use crate::target::{Facts, FileSystem, Geometry, TargetKind};

/// Bytes of a sector: the unit that a crash keeps or loses whole.
pub const SECTOR_BYTES: u32 = 512;

/// Descriptors of simulated files start here, far above those of the process, so that a real
/// system call on one fails instead of touching a stranger's file.
pub const FD_BASE: i32 = 1 << 24;

/// The longest op that a simulated file recommends.
const TRANSFER_BYTES_MAX: u32 = 1 << 20;

/// One file of a [`SimDevice`].
#[derive(Clone, Copy, Debug)]
pub struct FileSpec {
    /// Its size, a multiple of [`SECTOR_BYTES`]. Reads end there, writes beyond find no space.
    pub size_bytes: u32,
    /// Offsets and lengths must be multiples of this; 1 is a buffered file.
    pub align_bytes: u32,
    /// Memory must be aligned to this.
    pub memory_align_bytes: u32,
    /// How many sectors can be written for the first time before the device is full; `None`
    /// is all of them.
    pub space_sectors: Option<u32>,
}

impl FileSpec {
    /// A direct file of `size_bytes` with sectors of 512 bytes.
    #[must_use]
    pub const fn direct(size_bytes: u32) -> Self {
        Self {
            size_bytes,
            align_bytes: SECTOR_BYTES,
            memory_align_bytes: SECTOR_BYTES,
            space_sectors: None,
        }
    }

    /// A buffered file of `size_bytes`.
    #[must_use]
    pub const fn buffered(size_bytes: u32) -> Self {
        Self { size_bytes, align_bytes: 1, memory_align_bytes: 1, space_sectors: None }
    }
}

/// What is known of one sector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sector {
    /// The cache holds something that no flush has saved.
    pub(super) dirty: bool,
    /// It was written before, so it needs no further space.
    allocated: bool,
    /// The step at which the first write to it that no flush has covered completed.
    settled_at: u64,
}

impl Sector {
    const UNSETTLED: u64 = u64::MAX;
    const NEW: Self = Self { dirty: false, allocated: false, settled_at: Self::UNSETTLED };

    fn clean(&mut self) {
        self.dirty = false;
        self.settled_at = Self::UNSETTLED;
    }
}

/// A file of the device, in use by the kernel.
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) spec: FileSpec,
    pub(super) cache: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) sectors: Vec<Sector>,
    space_sectors: u32,
    /// Transfers that touch these bytes fail with `EIO`.
    bad_bytes: Range<u64>,
    /// What reads see instead (F41).
    pub(super) overlays: Overlays,
}

impl SimFile {
    fn new(spec: FileSpec) -> Self {
        assert!(spec.size_bytes.is_multiple_of(SECTOR_BYTES), "a file has whole sectors");
        let count = spec.size_bytes / SECTOR_BYTES;
        Self {
            spec,
            cache: vec![0; spec.size_bytes as usize],
            durable: vec![0; spec.size_bytes as usize],
            sectors: vec![Sector::NEW; count as usize],
            space_sectors: spec.space_sectors.unwrap_or(count),
            bad_bytes: 0..0,
            overlays: Overlays::default(),
        }
    }

    /// Whether a transfer of this shape is refused with `EINVAL`.
    pub(super) fn is_misaligned(&self, offset_bytes: u64, memory: &MemRange) -> bool {
        let align = u64::from(self.spec.align_bytes);
        !offset_bytes.is_multiple_of(align)
            || !u64::from(memory.len_bytes()).is_multiple_of(align)
            || memory.pieces().any(|piece| self.is_misplaced(&piece))
    }

    /// Whether a transfer touches what cannot be read or written.
    pub(super) fn is_bad(&self, offset_bytes: u64, len_bytes: u32) -> bool {
        let end = offset_bytes + u64::from(len_bytes);
        offset_bytes < self.bad_bytes.end && self.bad_bytes.start < end
    }

    fn is_misplaced(&self, piece: &MemRange) -> bool {
        !piece.addr().addr().is_multiple_of(self.spec.memory_align_bytes as usize)
            || !piece.len_bytes().is_multiple_of(self.spec.align_bytes)
    }

    /// How many of `len_bytes` from `offset_bytes` lie before the end of the file.
    pub(super) fn bytes_before_end(&self, offset_bytes: u64, len_bytes: u32) -> u32 {
        let left = u64::from(self.spec.size_bytes).saturating_sub(offset_bytes);
        u32::try_from(left).unwrap_or(u32::MAX).min(len_bytes)
    }

    /// Claims space for the sectors of a write, from its start on, as far as there is any.
    /// Returns how many bytes can be written; the kernel's allocation is not undone by a
    /// failure later on.
    pub(super) fn claim_space(&mut self, offset_bytes: u64, len_bytes: u32) -> u32 {
        let mut possible = self.bytes_before_end(offset_bytes, len_bytes);
        if possible < len_bytes {
            possible -= possible % self.spec.align_bytes;
        }
        let start = self.position(offset_bytes);
        let end = start + possible as usize;
        let whole = sectors_of(start..end);
        let first = whole.start;
        for (at, sector) in self.sectors[whole].iter_mut().enumerate() {
            if sector.allocated {
                continue;
            }
            if self.space_sectors == 0 {
                let full_at = ((first + at) * SECTOR_BYTES as usize).max(start);
                let room = length(full_at - start);
                // Space comes in blocks, and a direct transfer is made of whole ones.
                return room - room % self.spec.align_bytes;
            }
            self.space_sectors -= 1;
            sector.allocated = true;
        }
        possible
    }

    /// Moves `part` of a read into memory.
    pub(super) fn read_into(&self, offset_bytes: u64, memory: &MemRange, part: Range<u32>) {
        let start = self.position(offset_bytes + u64::from(part.start));
        let end = start + part.len();
        if self.overlays.is_honest() {
            return memory.scatter(part.start, &self.cache[start..end]);
        }
        let mut seen = self.cache[start..end].to_vec();
        self.overlays.cover(start, &mut seen);
        memory.scatter(part.start, &seen);
    }

    /// Moves `part` of a write from memory into the cache.
    pub(super) fn write_from(&mut self, offset_bytes: u64, memory: &MemRange, part: Range<u32>) {
        if part.is_empty() {
            return;
        }
        let start = self.position(offset_bytes + u64::from(part.start));
        let end = start + part.len();
        let honest = self.overlays.is_honest();
        let old = if honest { Vec::new() } else { self.cache[start..end].to_vec() };
        memory.gather(part.start, &mut self.cache[start..end]);
        if !honest {
            let size = self.cache.len();
            self.overlays.written(start, &old, &self.cache[start..end], size);
        }
        for sector in &mut self.sectors[sectors_of(start..end)] {
            if !sector.dirty {
                // What completed before is saved already; this write has not completed.
                sector.settled_at = Sector::UNSETTLED;
            }
            sector.dirty = true;
            sector.allocated = true;
        }
    }

    /// Notes that a write of `len_bytes` has completed at `step`: flushes that start later
    /// must save it.
    pub(super) fn settle(&mut self, offset_bytes: u64, len_bytes: u32, step: u64) {
        let start = self.position(offset_bytes);
        let end = start + len_bytes as usize;
        for sector in &mut self.sectors[sectors_of(start..end)] {
            sector.settled_at = sector.settled_at.min(step);
        }
    }

    /// Zeroes `len_bytes` bytes, as volatile as a write of zeros.
    pub(super) fn zero(&mut self, offset_bytes: u64, len_bytes: u32) {
        if len_bytes == 0 {
            return;
        }
        let start = self.position(offset_bytes);
        let end = start + len_bytes as usize;
        self.cache[start..end].fill(0);
        for sector in &mut self.sectors[sectors_of(start..end)] {
            if !sector.dirty {
                sector.settled_at = Sector::UNSETTLED;
            }
            sector.dirty = true;
        }
    }

    /// Saves every sector of a range.
    pub(super) fn save_range(&mut self, offset_bytes: u64, len_bytes: u32) {
        let start = self.position(offset_bytes);
        for at in sectors_of(start..start + len_bytes as usize) {
            self.save(at);
        }
    }

    /// Saves a random half of a range and forgets about the rest (F37).
    pub(super) fn fail_range(&mut self, offset_bytes: u64, len_bytes: u32, random: &mut Random) {
        let start = self.position(offset_bytes);
        for at in sectors_of(start..start + len_bytes as usize) {
            if self.sectors[at].dirty && random.one_in(2) {
                self.save(at);
            }
            self.sectors[at].clean();
        }
    }

    /// Saves every sector that completed before the flush started at step `from`; of the other
    /// dirty ones, some.
    pub(super) fn flush(&mut self, from: u64, random: &mut Random) {
        let mut coins = 0_u64;
        for at in 0..self.sectors.len() {
            if !self.sectors[at].dirty {
                // A failed flush marked it clean, or it was saved while its write ran.
                self.sectors[at].settled_at = Sector::UNSETTLED;
                continue;
            }
            if coins <= 1 {
                coins = random.bits() | (1 << 63);
            }
            let lucky = coins & 1 == 1;
            coins >>= 1;
            if self.sectors[at].settled_at <= from || lucky {
                self.save(at);
            }
        }
    }

    /// Saves a random half of the dirty sectors and forgets about the rest (F37).
    pub(super) fn fail_flush(&mut self, random: &mut Random) {
        for at in 0..self.sectors.len() {
            if self.sectors[at].dirty && random.one_in(2) {
                self.save(at);
            }
            self.sectors[at].clean();
        }
    }

    /// Saves some sectors and keeps the rest dirty: a flush that was cancelled half way.
    pub(super) fn flush_partly(&mut self, random: &mut Random) {
        for at in 0..self.sectors.len() {
            if self.sectors[at].dirty && random.one_in(2) {
                self.save(at);
            }
        }
    }

    fn save(&mut self, at: usize) {
        let bytes = at * SECTOR_BYTES as usize..(at + 1) * SECTOR_BYTES as usize;
        self.durable[bytes.clone()].copy_from_slice(&self.cache[bytes]);
        self.sectors[at].clean();
    }

    fn crash(&mut self, random: &mut Random) {
        self.flush_partly(random);
        self.cache.copy_from_slice(&self.durable);
        for sector in &mut self.sectors {
            sector.clean();
        }
    }

    fn position(&self, offset_bytes: u64) -> usize {
        let end = u64::from(self.spec.size_bytes);
        usize::try_from(offset_bytes.min(end)).expect("a file is smaller than memory")
    }
}

fn sectors_of(bytes: Range<usize>) -> Range<usize> {
    if bytes.is_empty() {
        return 0..0;
    }
    bytes.start / SECTOR_BYTES as usize..bytes.end.div_ceil(SECTOR_BYTES as usize)
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a transfer is shorter than 4 GiB")
}

/// The storage under a simulated kernel: a few files that outlive the rings which use them.
///
/// A cheap handle; clones are the same device.
#[derive(Clone, Debug)]
pub struct SimDevice {
    files: Rc<RefCell<Vec<SimFile>>>,
    /// Orders writes and flushes, also those of different rings.
    steps: Rc<Cell<u64>>,
}

impl SimDevice {
    /// A device with these files, all zeroes.
    ///
    /// # Panics
    /// When a size is not a multiple of [`SECTOR_BYTES`].
    #[must_use]
    pub fn new(files: &[FileSpec]) -> Self {
        let files = files.iter().copied().map(SimFile::new).collect();
        Self { files: Rc::new(RefCell::new(files)), steps: Rc::new(Cell::new(0)) }
    }

    /// The descriptor under which a ring on this device knows `file`.
    ///
    /// # Panics
    /// When there are 2^31 files.
    #[must_use]
    pub fn fd(&self, file: usize) -> i32 {
        FD_BASE + i32::try_from(file).expect("a device has few files")
    }

    /// What [`Geometry::of`] would find out about `file`.
    #[must_use]
    pub fn geometry(&self, file: usize) -> Geometry {
        let FileSpec { size_bytes, align_bytes, memory_align_bytes, .. } = self.spec(file);
        Geometry {
            kind: TargetKind::File,
            len_bytes: u64::from(size_bytes),
            direct: align_bytes > 1,
            mem_align: memory_align_bytes.max(align_bytes),
            offset_align: align_bytes,
            transfer_bytes_max: TRANSFER_BYTES_MAX,
            file_system: FileSystem::NONE,
            facts: Facts::UNKNOWN,
        }
    }

    /// What `file` was made with.
    #[must_use]
    pub fn spec(&self, file: usize) -> FileSpec {
        self.files.borrow()[file].spec
    }

    /// Copies what a read of `file` would see now.
    ///
    /// # Panics
    /// When the range reaches beyond the end.
    pub fn peek(&self, file: usize, offset_bytes: u64, into: &mut [u8]) {
        let files = self.files.borrow();
        let start = files[file].position(offset_bytes);
        into.copy_from_slice(&files[file].cache[start..start + into.len()]);
        files[file].overlays.cover(start, into);
    }

    /// Copies what would certainly survive a crash now.
    ///
    /// # Panics
    /// When the range reaches beyond the end.
    pub fn peek_durable(&self, file: usize, offset_bytes: u64, into: &mut [u8]) {
        let files = self.files.borrow();
        let start = files[file].position(offset_bytes);
        into.copy_from_slice(&files[file].durable[start..start + into.len()]);
    }

    /// Puts `bytes` into both images behind everybody's back.
    ///
    /// # Panics
    /// When the range reaches beyond the end.
    pub fn poke(&self, file: usize, offset_bytes: u64, bytes: &[u8]) {
        let mut files = self.files.borrow_mut();
        let start = files[file].position(offset_bytes);
        files[file].cache[start..start + bytes.len()].copy_from_slice(bytes);
        files[file].durable[start..start + bytes.len()].copy_from_slice(bytes);
    }

    /// From now on every transfer that touches `bytes` of `file` fails with `EIO`.
    pub fn damage(&self, file: usize, bytes: Range<u64>) {
        self.files.borrow_mut()[file].bad_bytes = bytes;
    }

    /// Makes room for `sectors` more sectors of `file`, as if something had been deleted.
    pub fn add_space(&self, file: usize, sectors: u32) {
        let space = &mut self.files.borrow_mut()[file].space_sectors;
        *space = space.saturating_add(sectors);
    }

    /// Loses power: of the dirty sectors a random half survives, and reads see what survived.
    /// Writes in flight are the ring's to tear first: `SimControl::crash` does both.
    pub(super) fn crash(&self, random: &mut Random) {
        for file in self.files.borrow_mut().iter_mut() {
            file.crash(random);
        }
    }

    /// The number of the next step: higher than all before.
    pub(super) fn next_step(&self) -> u64 {
        self.steps.set(self.steps.get() + 1);
        self.steps.get()
    }

    /// The index of the file that `fd` names.
    pub(super) fn file_of_fd(&self, fd: i32) -> Option<usize> {
        let file = usize::try_from(fd.checked_sub(FD_BASE)?).ok()?;
        (file < self.files.borrow().len()).then_some(file)
    }

    /// Lets the kernel at `file`.
    #[inline]
    pub(super) fn with<R>(&self, file: usize, act: impl FnOnce(&mut SimFile) -> R) -> R {
        act(&mut self.files.borrow_mut()[file])
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
