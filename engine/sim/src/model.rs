//! The reference: what one file may legally hold, sector by sector.
//!
//! Data flow: the workload reports what it issues and what it is told → [`Model`] → every byte
//! that a read returns, that a flush saves and that a crash leaves is held against it.
//!
//! The model knows nothing of rings, faults or planted bugs: only what a user of the engine
//! was promised.
//!
//! Not here: the versions of one sector (`history`), driving the engine (`life`).

use core::ops::Range;

use mfio_engine::ring::sim::SimDevice;

use crate::history::{Flushed, Handle, History, Look, Moment, NEVER, identify};
use crate::stamp::{SECTOR_BYTES, for_sectors, writer_of};

/// A write that was issued and has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issued {
    pub(crate) sequence: u32,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

/// What one file may hold.
#[derive(Debug)]
pub(crate) struct Model {
    sectors: Vec<History>,
    /// The bytes that the file held when it was opened last.
    baseline: Vec<u8>,
    /// Issue moments of the reads under way.
    reads: Vec<Moment>,
    /// Writes nobody waits for any more: they may land until the ring is idle.
    abandoned: Vec<Issued>,
    flushed: Flushed,
    clock: Moment,
    next_sequence: u32,
}

impl Model {
    /// A file of `size_bytes` zeroes.
    pub(crate) fn new(size_bytes: usize) -> Self {
        let mut sectors = vec![History::default(); size_bytes / SECTOR_BYTES];
        sectors.iter_mut().for_each(History::reset);
        Self {
            sectors,
            baseline: vec![0; size_bytes],
            reads: Vec::new(),
            abandoned: Vec::new(),
            flushed: Flushed::default(),
            clock: 1,
            next_sequence: 1,
        }
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.baseline.len()
    }

    /// The next moment.
    pub(crate) fn tick(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    /// The number of the next write, for its stamps.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.next_sequence += 1;
        self.next_sequence
    }

    /// A write is handed to the engine. Bytes beyond the end of the file exist nowhere.
    pub(crate) fn issue_write(&mut self, write: Issued) -> Moment {
        let now = self.tick();
        let len = self.clip(write.offset, write.len);
        for_sectors(write.offset, len, |sector, within, _| {
            self.sectors[sector].issue(write.sequence, &within, now);
        });
        now
    }

    /// The engine has taken a write over: flushes asked for from now on cover it.
    pub(crate) fn accept_write(&mut self, write: Issued) {
        self.accept_write_through(write, Handle::First);
    }

    /// As [`Model::accept_write`], through that handle.
    pub(crate) fn accept_write_through(&mut self, write: Issued, handle: Handle) {
        let now = self.tick();
        let len = self.clip(write.offset, write.len);
        for_sectors(write.offset, len, |sector, _, _| {
            self.sectors[sector].accept(write.sequence, handle, now);
        });
    }

    /// A write has its result: the ranges in `failed` (from the start of the write) failed. The
    /// flush that covers the others may have been acknowledged before.
    ///
    /// # Errors
    /// What `device` holds of them if so, in words.
    pub(crate) fn end_write(
        &mut self,
        write: Issued,
        failed: &[Range<usize>],
        device: &SimDevice,
        file: usize,
    ) -> Result<(), String> {
        let now = self.tick();
        let oldest = self.oldest_read();
        let len = self.clip(write.offset, write.len);
        let mut found = Ok(());
        for_sectors(write.offset, len, |sector, _, part| {
            let overlaps = |range: &Range<usize>| range.start < part.end && part.start < range.end;
            let whole = !failed.iter().any(overlaps);
            self.sectors[sector].end(write.sequence, whole, now);
            let news = self.sectors[sector].flushed(&self.flushed);
            self.sectors[sector].prune(oldest);
            if news && found.is_ok() {
                found = self.check_saved(sector, device, file);
            }
        });
        found
    }

    /// A write that has ended was acknowledged as durable: it must be on `device` now.
    ///
    /// # Errors
    /// What is there instead, in words.
    pub(crate) fn save_write(
        &mut self,
        write: Issued,
        device: &SimDevice,
        file: usize,
    ) -> Result<(), String> {
        let oldest = self.oldest_read();
        let len = self.clip(write.offset, write.len);
        let mut found = Ok(());
        for_sectors(write.offset, len, |sector, _, _| {
            self.sectors[sector].saved(write.sequence);
            self.sectors[sector].prune(oldest);
            if found.is_ok() {
                found = self.check_saved(sector, device, file);
            }
        });
        found
    }

    /// Nobody waits for the write any more; it is under way nevertheless.
    pub(crate) fn abandon_write(&mut self, write: Issued) {
        self.abandoned.push(write);
    }

    /// Nothing is in flight below the engine: abandoned writes have landed, or never will.
    pub(crate) fn settle(&mut self) {
        let now = self.tick();
        let abandoned = core::mem::take(&mut self.abandoned);
        for write in &abandoned {
            let len = self.clip(write.offset, write.len);
            for_sectors(write.offset, len, |sector, _, _| {
                self.sectors[sector].end(write.sequence, false, now);
            });
        }
        self.abandoned = abandoned;
        self.abandoned.clear();
    }

    pub(crate) fn issue_read(&mut self) -> Moment {
        let now = self.tick();
        self.reads.push(now);
        now
    }

    /// A read issued at `issued` is over; its bytes were checked, or are nobody's concern.
    pub(crate) fn end_read(&mut self, issued: Moment) {
        if let Some(at) = self.reads.iter().position(|read| *read == issued) {
            self.reads.swap_remove(at);
        }
    }

    /// Holds the bytes that a read of `offset` returned against what they may be.
    ///
    /// # Errors
    /// What was seen instead, in words.
    pub(crate) fn check_read(
        &self,
        issued: Moment,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), String> {
        if offset + bytes.len() > self.size_bytes() {
            return Err(format!("{} bytes read at {offset} reach beyond the end", bytes.len()));
        }
        self.check(offset, bytes, Look::Read(issued))
    }

    /// A flush issued at `issued` through `handle` was acknowledged: what it covers must be on
    /// `device` now.
    ///
    /// # Errors
    /// What is there instead, in words.
    pub(crate) fn end_flush(
        &mut self,
        issued: Moment,
        handle: Handle,
        device: &SimDevice,
        file: usize,
    ) -> Result<(), String> {
        let oldest = self.oldest_read();
        let flushed = Flushed::by(handle, issued);
        self.flushed.add(flushed);
        for sector in 0..self.sectors.len() {
            if self.sectors[sector].flushed(&flushed) {
                self.sectors[sector].prune(oldest);
                self.check_saved(sector, device, file)?;
            }
        }
        Ok(())
    }

    /// Holds what would survive of one sector against what must.
    fn check_saved(&self, sector: usize, device: &SimDevice, file: usize) -> Result<(), String> {
        let mut bytes = [0; SECTOR_BYTES];
        let offset = sector * SECTOR_BYTES;
        device.peek_durable(file, offset as u64, &mut bytes);
        self.check(offset, &bytes, Look::Durable)
    }

    /// A flush has failed, so no later one proves anything about what was written before.
    pub(crate) fn forfeit(&mut self) {
        self.sectors.iter_mut().for_each(History::forfeit);
    }

    /// The power was lost: checks what is left, and takes it as the new beginning.
    ///
    /// # Errors
    /// What is there that must not be, in words.
    pub(crate) fn crash(&mut self, device: &SimDevice, file: usize) -> Result<(), String> {
        let mut left = vec![0; self.size_bytes()];
        device.peek(file, 0, &mut left);
        let result = self.check(0, &left, Look::Durable);
        self.begin_with(left);
        result
    }

    /// An open has flushed the file before anything of it is read, and that succeeded: what is
    /// there is what was told before, and is durable, whoever wrote it.
    ///
    /// # Errors
    /// What is there instead, in words.
    pub(crate) fn open(&mut self, device: &SimDevice, file: usize) -> Result<(), String> {
        self.check_image(device, file)?;
        let mut image = vec![0; self.size_bytes()];
        device.peek(file, 0, &mut image);
        self.begin_with(image);
        (0..self.sectors.len()).try_for_each(|sector| self.check_saved(sector, device, file))
    }

    /// The file holds `image`, and nothing is under way.
    fn begin_with(&mut self, image: Vec<u8>) {
        self.baseline = image;
        self.sectors.iter_mut().for_each(History::reset);
        self.reads.clear();
        self.abandoned.clear();
    }

    /// Holds what a power cut could leave of one sector against what must survive.
    ///
    /// # Errors
    /// What it is instead, in words.
    pub(crate) fn check_survivor(&self, sector: usize, bytes: &[u8]) -> Result<(), String> {
        self.check(sector * SECTOR_BYTES, bytes, Look::Durable)
    }

    /// Nothing is under way: what reads would see now is what the user was told.
    ///
    /// # Errors
    /// What is there instead, in words.
    pub(crate) fn check_image(&mut self, device: &SimDevice, file: usize) -> Result<(), String> {
        let now = self.tick();
        let mut image = vec![0; self.size_bytes()];
        device.peek(file, 0, &mut image);
        self.check(0, &image, Look::Read(now))
    }

    fn check(&self, offset: usize, bytes: &[u8], look: Look) -> Result<(), String> {
        let mut found = Ok(());
        for_sectors(offset, bytes.len(), |sector, within, part| {
            if found.is_err() {
                return;
            }
            let start = sector * SECTOR_BYTES;
            let baseline = &self.baseline[start..start + SECTOR_BYTES];
            let number = u32::try_from(sector).expect("a simulated file has few sectors");
            let (history, seen) = (&self.sectors[sector], &bytes[part]);
            if !history.allows(seen, &within, number, baseline, look) {
                found = Err(format!(
                    "sector {sector}, bytes {within:?}: {} by {look:?}; legal:{}",
                    self.explain(seen, &within, number),
                    history.describe(),
                ));
            }
        });
        found
    }

    fn explain(&self, seen: &[u8], within: &Range<usize>, sector: u32) -> String {
        let start = sector as usize * SECTOR_BYTES;
        if let Some(sequence) = identify(seen, within, sector, self.next_sequence + 1) {
            format!("write #{sequence} seen")
        } else if self.baseline[start + within.start..start + within.end] == *seen {
            String::from("what was there at the last opening seen")
        } else {
            let seen: Option<&[u8; SECTOR_BYTES]> = seen.try_into().ok();
            match seen.and_then(writer_of) {
                Some((sequence, place)) => format!("write #{sequence} for sector {place} seen"),
                None => String::from("a mixture, or bytes that nobody wrote there, seen"),
            }
        }
    }

    fn clip(&self, offset: usize, len: usize) -> usize {
        self.size_bytes().saturating_sub(offset).min(len)
    }

    fn oldest_read(&self) -> Moment {
        self.reads.iter().copied().min().unwrap_or(NEVER - 1)
    }
}
