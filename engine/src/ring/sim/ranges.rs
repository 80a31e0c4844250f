//! Ops that are more than moving bytes: ranges that are zeroed, writes that save themselves.
//!
//! Data flow: flight of such an op → start (outcome drawn) → finish (the file's two images).
//!
//! Not here: plain transfers and flushes (`steps`), the images (`device`).

use nix::errno::Errno;

use super::flight::{Flight, negated};
use super::kernel::Kernel;
use crate::ring::OpKind;

impl Kernel {
    /// Decides how an op on a range ends.
    pub(super) fn start_range(&mut self, at: usize) {
        let Self { flights, random, config, stats, device, .. } = self;
        let flight = &mut flights[at];
        let faults = &config.faults;
        let size = device.with(flight.file, |file| u64::from(file.spec.size_bytes));
        let truncates = flight.kind == OpKind::Truncate;
        let start = if truncates { flight.range_bytes } else { flight.offset_bytes };
        let end =
            if truncates { size } else { flight.offset_bytes.saturating_add(flight.range_bytes) };
        if end > size || start > size {
            flight.result = negated(Errno::EFBIG);
            return;
        }
        flight.moved_bytes = u32::try_from(end - start).unwrap_or(u32::MAX);
        if random.chance(faults.eio) {
            stats.eio += 1;
            flight.fail(Errno::EIO, random);
        } else if random.chance(faults.interrupted) {
            stats.eagain += 1;
            flight.fail(random.pick(&[Errno::EINTR, Errno::ECANCELED]), random);
        } else if !flight.force_async && random.chance(faults.eagain) {
            stats.eagain += 1;
            flight.moved_bytes = 0;
            flight.result = negated(Errno::EAGAIN);
        }
    }

    /// Zeroes what the op has come to. It is as volatile as a write.
    pub(super) fn finish_range(&mut self, flight: &Flight) {
        self.stats.ranges += u64::from(flight.result == 0);
        if self.dead || flight.kind == OpKind::Allocate {
            return;
        }
        let truncates = flight.kind == OpKind::Truncate;
        let start = if truncates { flight.range_bytes } else { flight.offset_bytes };
        let step = self.device.next_step();
        self.device.with(flight.file, |file| {
            file.zero(start, flight.moved_bytes);
            if flight.result == 0 {
                file.settle(start, flight.moved_bytes, step);
            }
        });
    }

    /// A write with `RWF_DSYNC` has moved its bytes: they are saved before it completes, or the
    /// flush fails, of which the write tells in place of its count.
    pub(super) fn finish_dsync(&mut self, flight: &Flight) {
        if self.dead {
            return;
        }
        if flight.atomic {
            // It is in the cache as a whole, and must not leave it by the sector.
            self.device.with(flight.file, |file| {
                file.save_range(flight.offset_bytes, flight.moved_bytes);
            });
        }
        if !flight.dsync {
            return;
        }
        let fails = self.random.chance(self.config.faults.flush_fail);
        // Space was taken when the write began: what is left to fail is the device.
        let errno = Errno::EIO;
        let Self { device, random, stats, flights, .. } = self;
        device.with(flight.file, |file| {
            if fails {
                stats.flush_failures += 1;
                file.fail_range(flight.offset_bytes, flight.moved_bytes, random);
            } else {
                stats.dsync_writes += 1;
                file.save_range(flight.offset_bytes, flight.moved_bytes);
            }
        });
        if fails
            && let Some(flight) = flights.iter_mut().find(|other| other.sequence == flight.sequence)
        {
            flight.result = negated(errno);
        }
    }

    /// A write with `RWF_DSYNC` that failed: whether its flush had failed cannot be told, so
    /// the worst is done.
    pub(super) fn lose_dsync(&mut self, flight: &Flight) {
        let interrupted =
            [negated(Errno::EAGAIN), negated(Errno::EINTR), negated(Errno::ECANCELED)];
        if self.dead || flight.moved_bytes == 0 || interrupted.contains(&flight.result) {
            return;
        }
        let Self { device, random, stats, .. } = self;
        stats.flush_failures += 1;
        device.with(flight.file, |file| {
            file.fail_range(flight.offset_bytes, flight.moved_bytes, random);
        });
    }
}
