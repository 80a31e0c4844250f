//! One op on its way through the simulated kernel.
//!
//! Data flow: consumed op → [`Flight`] → linked, queued, running, copied, done → completion.
//! Each phase ends at `next_at_ns`; the kernel always advances the flight that is due first.
//!
//! Not here: what happens at each step (`kernel`), the bytes (`device`).

use core::ops::Range;

use nix::errno::Errno;

use super::config::FaultRates;
use super::device::{SECTOR_BYTES, SimFile};
use super::random::Random;
use crate::buffer::MemRange;
use crate::ring::{FileRef, OpKind, Tag};

/// How far an op has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for the op before it in its chain.
    Linked,
    /// Consumed, not begun.
    Queued,
    /// Begun; no byte has moved.
    Running,
    /// Bytes have moved; a torn copy has moved half of them.
    Copied,
    /// Finished; its completion is not posted yet.
    Done,
}

/// An op that the kernel has consumed and not yet posted the completion of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flight {
    pub(super) tag: Tag,
    pub(super) kind: OpKind,
    pub(super) file: usize,
    /// How it names the file.
    pub(super) named: FileRef,
    pub(super) offset_bytes: u64,
    pub(super) memory: Option<MemRange>,
    /// Of an op on a range, how long that is; of a truncation, how long the file becomes.
    pub(super) range_bytes: u64,
    /// A write that saves its own bytes before it completes.
    pub(super) dsync: bool,
    /// A write that a crash keeps or loses as a whole.
    pub(super) atomic: bool,
    /// The next op of the chain waits for this one.
    pub(super) link: bool,
    pub(super) force_async: bool,
    /// Counts the ops consumed; breaks ties in time.
    pub(super) sequence: u64,
    /// The sequence of the op before it in its chain.
    pub(super) waits_for: Option<u64>,
    pub(super) phase: Phase,
    pub(super) next_at_ns: u64,
    pub(super) done_at_ns: u64,
    /// What the completion will say.
    pub(super) result: i32,
    /// Bytes that move in any case, also when the op then fails.
    pub(super) moved_bytes: u32,
    /// Where a torn copy pauses; `moved_bytes` when it does not.
    pub(super) pause_bytes: u32,
    /// The step of the device at which the op began.
    pub(super) begun_step: u64,
    /// A request to cancel it has been answered; it goes on all the same.
    pub(super) cancel_answered: bool,
}

impl Flight {
    pub(super) fn len_bytes(&self) -> u32 {
        self.memory.map_or(0, |memory| memory.len_bytes())
    }

    pub(super) const fn is_flush(&self) -> bool {
        matches!(self.kind, OpKind::Fdatasync | OpKind::Fsync)
    }

    /// Whether the next op of the chain may start.
    pub(super) fn is_whole(&self) -> bool {
        u32::try_from(self.result).is_ok_and(|moved| moved == self.len_bytes())
    }

    /// Whether two ops use the same memory in a way that makes the outcome a race.
    pub(super) fn races_with(&self, is_write: bool, memory: &MemRange) -> bool {
        let Some(own) = &self.memory else { return false };
        if self.kind == OpKind::Write && is_write {
            return false;
        }
        own.pieces().any(|own| {
            let a = span(&own);
            memory.pieces().map(|piece| span(&piece)).any(|b| a.start < b.end && b.start < a.end)
        })
    }

    /// Ends the op now with a negated `errno`, without moving anything more.
    pub(super) fn finish(&mut self, errno: Errno, at_ns: u64) {
        self.phase = Phase::Done;
        self.result = negated(errno);
        self.moved_bytes = 0;
        self.pause_bytes = 0;
        self.next_at_ns = at_ns;
        self.done_at_ns = at_ns;
    }

    /// Fails the op with `errno` when its time has come; a random part of it moves before.
    pub(super) fn fail(&mut self, errno: Errno, random: &mut Random) {
        self.result = negated(errno);
        self.moved_bytes = random.below(self.moved_bytes.saturating_add(1));
    }
}

/// The addresses that a range occupies.
fn span(memory: &MemRange) -> Range<usize> {
    let start = memory.addr().addr();
    start..start + memory.len_bytes() as usize
}

pub(super) fn negated(errno: Errno) -> i32 {
    -(errno as i32)
}

/// What a fault has made of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Short,
    Zero,
    Again,
    Interrupted,
    Io,
    NoSpace,
}

/// Draws the fault of one transfer with a single comparison when nothing goes wrong.
#[inline]
pub(super) fn draw_fault(rates: &FaultRates, random: &mut Random) -> Fault {
    if rates.transfer_total() == 0 {
        return Fault::None;
    }
    let FaultRates { short, zero, eagain, interrupted, eio, enospc, .. } = *rates;
    match random.which([short, zero, eagain, interrupted, eio, enospc]) {
        Some(0) => Fault::Short,
        Some(1) => Fault::Zero,
        Some(2) => Fault::Again,
        Some(3) => Fault::Interrupted,
        Some(4) => Fault::Io,
        Some(5) => Fault::NoSpace,
        _ => Fault::None,
    }
}

/// A part of `len_bytes` that is neither nothing nor everything, or `None` when it cannot be
/// divided. A buffered file moves any number of bytes. A direct one moves whole sectors, and
/// reads whole blocks: only the end of the file comes in the middle of a block.
pub(super) fn draw_short(
    file: &SimFile,
    is_read: bool,
    len_bytes: u32,
    random: &mut Random,
) -> Option<u32> {
    let unit = match file.spec.align_bytes {
        1 => 1,
        align if is_read => align,
        _ => SECTOR_BYTES,
    };
    let parts = len_bytes.div_ceil(unit);
    (parts > 1).then(|| unit * random.between(1, parts - 1))
}
