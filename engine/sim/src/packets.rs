//! What was sent, and whether what came back for it may be.
//!
//! Data flow: packet sent → [`Sent`] → completed packet → ranges → model → violations.
//!
//! Not here: sending and polling (`driver`).

use core::ops::Range;

use mfio_core::{Completed, Error, ErrorKind, FailedRange, Read, Write};
use mfio_engine::buffer::ArenaBuf;

use crate::history::{Handle, Moment};
use crate::model::Issued;
use crate::scenario::LONG_BYTES;
use crate::world::World;

/// What a packet or flush under way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A write that is acknowledged when it is durable.
    Durable,
    Flush,
    /// A range that is zeroed without a buffer.
    Zero,
    /// Several steps with one result.
    Chain,
}

/// A packet or flush under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    pub(crate) issued: Moment,
    /// Which bytes; the sequence is that of the write, or 0.
    pub(crate) range: Issued,
    /// Nothing can go wrong with it any more: it was issued when the faults were off.
    pub(crate) calm: bool,
}

/// What the user of a target knows about it besides its bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Knowledge {
    /// When it was told that durability is lost: nothing may be acknowledged as durable now.
    pub(crate) poisoned_at: Option<Moment>,
    /// It was told so in the round under way. What else comes back in that round may have been
    /// acknowledged before, by an earlier turn, and is only looked at later.
    pub(crate) told_at: Option<Moment>,
    /// Durable writes flush themselves: one may have succeeded just before another failed.
    pub(crate) dsync: bool,
}

impl World {
    /// A read has come back.
    pub(crate) fn read_done(&mut self, sent: Sent, mut done: Completed<Read, ArenaBuf>) {
        let failed = if done.is_ok() { Vec::new() } else { done.failed_ranges() };
        self.read_over(sent, done.buffer_mut(), &failed);
    }

    /// A read is over, with these bytes.
    pub(crate) fn read_over(&mut self, sent: Sent, buffer: &[u8], failed: &[FailedRange]) {
        self.note(sent, failed);
        let Issued { offset, len, .. } = sent.range;
        for range in succeeded(failed, len) {
            self.coverage.bytes_checked += range.len() as u64;
            let bytes = &buffer[range.clone()];
            let result = self.model.check_read(sent.issued, offset + range.start, bytes);
            self.require("read", result);
        }
        self.model.end_read(sent.issued);
        self.check_failures(sent, failed);
    }

    /// A write, durable or not, has come back.
    pub(crate) fn write_done(
        &mut self,
        sent: Sent,
        done: &Completed<Write, ArenaBuf>,
        knowledge: &mut Knowledge,
    ) {
        let failed = if done.is_ok() { Vec::new() } else { done.failed_ranges() };
        self.write_over(sent, &failed, knowledge);
    }

    /// A write is over.
    pub(crate) fn write_over(
        &mut self,
        sent: Sent,
        failed: &[FailedRange],
        knowledge: &mut Knowledge,
    ) {
        self.note(sent, failed);
        let ranges: Vec<Range<usize>> = failed.iter().map(range_of).collect();
        let acknowledged = succeeded(failed, sent.range.len).next().is_some();
        let beyond = sent.range.offset + sent.range.len > self.model.size_bytes();
        if failed.iter().any(|range| range.error.kind() == ErrorKind::Misaligned) {
            self.coverage.misaligned_refused += 1;
        }
        self.coverage.long_writes +=
            u64::from(sent.range.len > LONG_BYTES as usize && failed.is_empty());
        if beyond && failed.is_empty() {
            self.violate(format!("a write beyond the end of the file succeeded: {sent:?}"));
        }
        let result = self.model.end_write(sent.range, &ranges, &self.device, 0);
        self.require("write behind a flush", result);
        // Parts of a durable write may have become durable before a flush failed.
        let late = if sent.kind == Kind::Durable { failed.is_empty() } else { acknowledged };
        if let Some(at) = knowledge.poisoned_at
            && late
            && ((sent.kind == Kind::Durable && !knowledge.dsync) || sent.issued > at)
        {
            self.violate(format!("a poisoned target acknowledged {sent:?}"));
        }
        if sent.kind == Kind::Durable && acknowledged {
            self.coverage.durable_acknowledged += 1;
            let result = self.model.save_write(sent.range, &self.device, 0);
            self.require("durable write", result);
        }
        if failed.iter().any(|range| range.error.kind() == ErrorKind::Poisoned) {
            self.poisoned(knowledge);
        }
        self.check_failures(sent, failed);
    }

    /// A flush has come back: acknowledged, or refused because durability is lost.
    pub(crate) fn flush_done(
        &mut self,
        sent: Sent,
        handle: Handle,
        result: Result<(), ErrorKind>,
        knowledge: &mut Knowledge,
    ) {
        self.trace.fold(sent.issued);
        match result {
            Ok(()) => {
                self.trace.fold(1);
                self.coverage.flushes_acknowledged += 1;
                if knowledge.poisoned_at.is_some() {
                    self.violate(format!("a poisoned target acknowledged {sent:?}"));
                }
                let result = self.model.end_flush(sent.issued, handle, &self.device, 0);
                self.require("flush", result);
            }
            Err(ErrorKind::Poisoned) => {
                self.trace.fold(2);
                self.poisoned(knowledge);
            }
            Err(kind) => {
                self.trace.fold(3);
                if sent.calm {
                    self.violate(format!("{sent:?} failed without a fault: {kind:?}"));
                }
            }
        }
    }

    /// An op on a range has come back.
    pub(crate) fn range_done(
        &mut self,
        sent: Sent,
        result: Result<(), Error>,
        knowledge: &mut Knowledge,
    ) {
        self.trace.fold(sent.issued);
        let Issued { offset, len, .. } = sent.range;
        let all = 0..len;
        let failed = if result.is_ok() { &[] } else { core::slice::from_ref(&all) };
        if self.writes_zeros() {
            self.model.accept_write(sent.range);
        }
        let ended = self.model.end_write(sent.range, failed, &self.device, 0);
        self.require("zeros behind a flush", ended);
        let Err(error) = result else {
            self.coverage.ranges_acknowledged += 1;
            if knowledge.poisoned_at.is_some_and(|at| sent.issued > at) {
                self.violate(format!("a poisoned target acknowledged {sent:?}"));
            }
            return;
        };
        self.trace.fold(error.kind() as u64);
        if error.kind() == ErrorKind::Poisoned {
            self.poisoned(knowledge);
        }
        let unsupported = error.kind() == ErrorKind::Unsupported;
        if unsupported && self.writes_zeros() {
            self.coverage.ranges_unsupported += 1;
        } else if !self.is_explained(sent, offset, len, error) {
            self.violate(format!("{sent:?} failed without a reason: {error:?}"));
        }
    }

    pub(crate) fn poisoned(&mut self, knowledge: &mut Knowledge) {
        self.coverage.durability_refused += 1;
        if knowledge.told_at.is_none() {
            knowledge.told_at = Some(self.model.tick());
        }
    }

    fn note(&mut self, sent: Sent, failed: &[FailedRange]) {
        self.trace.fold(sent.issued);
        self.trace.fold(sent.range.offset as u64);
        for range in failed {
            self.trace.fold(range.start ^ (range.end << 24) ^ ((range.error.kind() as u64) << 48));
        }
        self.coverage.failed_packets += u64::from(!failed.is_empty());
    }

    /// Whether every error is one that can be explained.
    fn check_failures(&mut self, sent: Sent, failed: &[FailedRange]) {
        let mut end = 0;
        for range in failed {
            let bytes = range_of(range);
            if bytes.start < end || bytes.end > sent.range.len || bytes.is_empty() {
                self.violate(format!("{sent:?} has odd failed ranges {failed:?}"));
                return;
            }
            end = bytes.end;
            let first = sent.range.offset + bytes.start;
            if !self.is_explained(sent, first, bytes.len(), range.error) {
                self.violate(format!("{sent:?} failed without a reason: {range:?}"));
            }
        }
    }

    /// Whether the ring has no ops on ranges, so that zeros are written where it must be.
    pub(crate) fn writes_zeros(&self) -> bool {
        !self.scenario.ring.features.ranges
    }

    /// Whether a read needs a bounce buffer, which a small arena may not have, and a write must
    /// be refused.
    pub(crate) fn is_misaligned(&self, sent: Sent) -> bool {
        let align = self.scenario.spec.align_bytes as usize;
        !sent.range.offset.is_multiple_of(align) || !sent.range.len.is_multiple_of(align)
    }

    pub(crate) fn is_explained(&self, sent: Sent, first: usize, len: usize, error: Error) -> bool {
        let is_read = sent.kind == Kind::Read;
        let beyond = first + len > self.model.size_bytes();
        let crowded = self.scenario.spec.space_sectors.is_some();
        match error.kind() {
            ErrorKind::UnexpectedEof => is_read && first >= self.model.size_bytes(),
            ErrorKind::NoSpace => !is_read && (beyond || crowded || !sent.calm),
            ErrorKind::Poisoned => !is_read,
            ErrorKind::Os if error.errno() == Some(ENOMEM) => {
                is_read && self.is_misaligned(sent)
                    || sent.kind == Kind::Zero && self.writes_zeros()
            }
            // No request is one that the device would have to refuse (F44).
            ErrorKind::Os => !sent.calm && error.errno() != Some(EINVAL),
            ErrorKind::Misaligned => !is_read && self.is_misaligned(sent),
            // Of a spurious ECANCELED; everything else would mean that the engine lost a view,
            // planned wrongly, or cancelled what nobody asked it to.
            ErrorKind::Cancelled => !sent.calm && error.errno().is_some(),
            _ => false,
        }
    }
}

/// `ENOMEM`, as an errno.
const ENOMEM: i32 = 12;

/// `EINVAL`, as an errno.
const EINVAL: i32 = 22;

fn range_of(failed: &FailedRange) -> Range<usize> {
    let offset = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    offset(failed.start)..offset(failed.end)
}

/// The ranges of `0..len` between those that failed.
fn succeeded(failed: &[FailedRange], len: usize) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut start = 0;
    let mut rest = failed.iter().map(range_of).chain(core::iter::once(len..len));
    core::iter::from_fn(move || {
        loop {
            let gap = rest.next()?;
            let range = start..gap.start.min(len);
            start = gap.end.max(start);
            if range.start < range.end {
                return Some(range);
            }
        }
    })
}
