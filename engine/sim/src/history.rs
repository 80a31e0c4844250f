//! What one sector of a file may legally hold: now, and after a crash.
//!
//! Data flow: a write is issued → a [`Version`] → it ends → it may supersede older ones, in
//! what reads may see (it was acknowledged) and in what a crash may leave (it was acknowledged
//! as durable). Bytes seen are held against the versions that are left.
//!
//! A write that failed, was cancelled or whose future was dropped may have landed or not; it
//! supersedes nothing, and nothing supersedes it before it is known to have ended.
//!
//! Not here: ranges of several sectors and the clock (`model`).

use core::ops::Range;

use crate::stamp::{SECTOR_BYTES, matches, sector_of};

/// A moment on the checker's clock. Later events have higher numbers.
pub(crate) type Moment = u64;

/// "Not yet", or "may still happen".
pub(crate) const NEVER: Moment = Moment::MAX;

/// The sequence of what a sector held when the file was opened.
pub(crate) const BASELINE: u32 = 0;

/// Which handle of the file. A flush waits for the writes of its own handle; of another's, it
/// covers what had ended before it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handle {
    First,
    Twin,
}

/// The latest moment at which an acknowledged flush was asked for, through each handle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flushed([Moment; 2]);

impl Flushed {
    pub(crate) fn by(handle: Handle, issued: Moment) -> Self {
        let mut flushed = Self::default();
        flushed.0[handle as usize] = issued;
        flushed
    }

    pub(crate) fn add(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = theirs.max(*mine);
        }
    }

    fn covers(&self, version: &Version) -> bool {
        let before = |handle: Handle| self.0[handle as usize];
        let other = if version.handle == Handle::First { Handle::Twin } else { Handle::First };
        version.accepted < before(version.handle) || version.ended < before(other)
    }
}

/// What one write has done to a range of one sector.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Version {
    pub(crate) sequence: u32,
    from: u16,
    to: u16,
    issued: Moment,
    /// When the engine took it over: flushes asked for later must cover it.
    accepted: Moment,
    /// When the checker learnt that it cannot land any more.
    ended: Moment,
    /// It was acknowledged as a whole.
    whole: bool,
    /// An acknowledged flush covers it.
    durable: bool,
    /// When a later write to the range was acknowledged.
    superseded: Moment,
    /// A later write to the range was acknowledged as durable: no crash may bring this back.
    lost: bool,
    /// The handle of the file that it was accepted by.
    handle: Handle,
}

impl Version {
    fn range(&self) -> Range<usize> {
        usize::from(self.from)..usize::from(self.to)
    }
}

/// The versions of one sector that somebody may still see.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    versions: Vec<Version>,
}

/// Who looks at a sector, and thus which versions are legal.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// A read issued at that moment, which has just completed.
    Read(Moment),
    /// What must survive a crash now.
    Durable,
}

impl History {
    /// Forgets everything: the sector holds the baseline.
    pub(crate) fn reset(&mut self) {
        self.versions.clear();
        self.versions.push(Version {
            sequence: BASELINE,
            from: 0,
            to: u16::try_from(SECTOR_BYTES).expect("a sector is small"),
            issued: 0,
            accepted: 0,
            ended: 0,
            whole: true,
            durable: true,
            superseded: NEVER,
            lost: false,
            handle: Handle::First,
        });
    }

    pub(crate) fn issue(&mut self, sequence: u32, within: &Range<usize>, now: Moment) {
        self.versions.push(Version {
            sequence,
            from: u16::try_from(within.start).expect("a sector is small"),
            to: u16::try_from(within.end).expect("a sector is small"),
            issued: now,
            accepted: NEVER,
            ended: NEVER,
            whole: false,
            durable: false,
            superseded: NEVER,
            lost: false,
            handle: Handle::First,
        });
    }

    /// The engine has taken the write over, through `handle`.
    pub(crate) fn accept(&mut self, sequence: u32, handle: Handle, now: Moment) {
        for version in self.versions.iter_mut().filter(|version| version.sequence == sequence) {
            version.accepted = version.accepted.min(now);
            version.handle = handle;
        }
    }

    /// The write has ended; `whole` when its part of this sector was acknowledged.
    pub(crate) fn end(&mut self, sequence: u32, whole: bool, now: Moment) {
        for at in 0..self.versions.len() {
            let version = &mut self.versions[at];
            if version.sequence != sequence || version.ended != NEVER {
                continue;
            }
            version.ended = now;
            version.whole = whole;
            if whole {
                let (issued, range) = (version.issued, version.range());
                self.supersede(&range, issued, |old| old.superseded = old.superseded.min(now));
            }
        }
    }

    /// An acknowledged flush covers every whole write that the engine had taken over, or that
    /// had ended, before it was asked for. Returns whether that is news for this sector.
    pub(crate) fn flushed(&mut self, before: &Flushed) -> bool {
        let mut news = false;
        let mut at = 0;
        // Superseding cuts versions, which makes the list longer.
        while at < self.versions.len() {
            let version = &mut self.versions[at];
            if version.whole && !version.durable && before.covers(version) {
                version.durable = true;
                news = true;
                let (issued, range) = (version.issued, version.range());
                self.supersede(&range, issued, |old| old.lost = true);
            }
            at += 1;
        }
        news
    }

    /// The write was acknowledged as durable on its own.
    pub(crate) fn saved(&mut self, sequence: u32) {
        for at in 0..self.versions.len() {
            let version = &mut self.versions[at];
            if version.sequence == sequence && version.whole && !version.durable {
                version.durable = true;
                let (issued, range) = (version.issued, version.range());
                self.supersede(&range, issued, |old| old.lost = true);
            }
        }
    }

    /// What is not durable yet never counts as durable, though reads may rely on it.
    pub(crate) fn forfeit(&mut self) {
        for version in &mut self.versions {
            version.whole &= version.durable;
        }
    }

    /// Applies `mark` to the parts in `range` of all versions that had ended before `issued`,
    /// cutting versions that reach beyond.
    fn supersede(&mut self, range: &Range<usize>, issued: Moment, mark: impl Fn(&mut Version)) {
        for at in 0..self.versions.len() {
            let old = self.versions[at];
            let from = old.from.max(u16::try_from(range.start).expect("a sector is small"));
            let to = old.to.min(u16::try_from(range.end).expect("a sector is small"));
            if old.ended >= issued || from >= to {
                continue;
            }
            if old.from < from {
                self.versions.push(Version { to: from, ..old });
            }
            if to < old.to {
                self.versions.push(Version { from: to, ..old });
            }
            let covered = &mut self.versions[at];
            covered.from = from;
            covered.to = to;
            mark(covered);
        }
    }

    /// Drops versions that neither a read issued at `oldest_read` or later nor a crash may
    /// show.
    pub(crate) fn prune(&mut self, oldest_read: Moment) {
        self.versions.retain(|version| !version.lost || version.superseded > oldest_read);
    }

    /// Whether every byte of `seen`, which is the range `within` of sector `sector`, comes from
    /// a legal version.
    pub(crate) fn allows(
        &self,
        seen: &[u8],
        within: &Range<usize>,
        sector: u32,
        baseline: &[u8],
        look: Look,
    ) -> bool {
        let legal = |version: &&Version| match look {
            Look::Read(issued) => version.superseded > issued,
            Look::Durable => !version.lost,
        };
        // One version that explains everything is by far the most frequent case; a newer one
        // is more likely.
        for version in self.versions.iter().rev().filter(legal) {
            if version.from as usize <= within.start
                && within.end <= version.to as usize
                && same(version.sequence, sector, baseline, within, seen)
            {
                return true;
            }
        }
        let mut explained = [false; SECTOR_BYTES];
        for version in self.versions.iter().filter(legal) {
            let (start, end) = (version.range().start, version.range().end);
            let range = start.max(within.start)..end.min(within.end);
            let stamped = stamped(version.sequence, sector, baseline);
            for at in range {
                explained[at] |= stamped[at] == seen[at - within.start];
            }
        }
        explained[within.clone()].iter().all(|byte| *byte)
    }

    /// The sequences of all versions that are kept, for a message.
    pub(crate) fn describe(&self) -> String {
        let mut text = String::new();
        for version in &self.versions {
            let state = match (version.ended, version.whole, version.durable) {
                (NEVER, ..) => "in flight",
                (_, false, _) => "failed",
                (_, true, false) => "acknowledged",
                (_, true, true) => "durable",
            };
            text.push_str(&format!(
                " #{}[{}..{}] {state}{}{}",
                version.sequence,
                version.from,
                version.to,
                if version.superseded == NEVER { "" } else { ", superseded" },
                if version.lost { ", durably" } else { "" },
            ));
        }
        text
    }
}

/// The sequence of the write before `end` that `seen` comes from, if one explains all of it.
pub(crate) fn identify(seen: &[u8], within: &Range<usize>, sector: u32, end: u32) -> Option<u32> {
    (1..end).find(|sequence| matches(*sequence, sector, within, seen))
}

fn stamped(sequence: u32, sector: u32, baseline: &[u8]) -> [u8; SECTOR_BYTES] {
    if sequence == BASELINE {
        baseline.try_into().expect("a baseline is one sector")
    } else {
        sector_of(sequence, sector)
    }
}

#[inline]
fn same(sequence: u32, sector: u32, baseline: &[u8], within: &Range<usize>, seen: &[u8]) -> bool {
    if sequence == BASELINE {
        baseline[within.clone()] == *seen
    } else {
        matches(sequence, sector, within, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Range<usize> = 0..SECTOR_BYTES;
    const ZERO: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

    fn fresh() -> History {
        let mut history = History::default();
        history.reset();
        history
    }

    fn sees(history: &History, sequence: u32, look: Look) -> bool {
        let bytes = if sequence == BASELINE { ZERO } else { sector_of(sequence, 0) };
        history.allows(&bytes, &ALL, 0, &ZERO, look)
    }

    #[test]
    fn running_write_may_be_seen_or_not() {
        let mut history = fresh();
        history.issue(1, &ALL, 10);
        assert!(sees(&history, 0, Look::Read(11)));
        assert!(sees(&history, 1, Look::Read(11)));
        assert!(!sees(&history, 2, Look::Read(11)));
    }

    #[test]
    fn acknowledged_write_hides_the_old_bytes_from_later_reads_only() {
        let mut history = fresh();
        history.issue(1, &ALL, 10);
        history.end(1, true, 20);
        assert!(sees(&history, 0, Look::Read(15)));
        assert!(!sees(&history, 0, Look::Read(20)));
        assert!(sees(&history, 0, Look::Durable), "no flush covers it yet");
    }

    #[test]
    fn flush_covers_what_was_accepted_before_it_was_asked_for() {
        let mut history = fresh();
        history.issue(1, &ALL, 10);
        history.accept(1, Handle::First, 11);
        assert!(!history.flushed(&Flushed::by(Handle::First, 12)), "it has not ended yet");
        history.end(1, true, 20);
        assert!(!history.flushed(&Flushed::by(Handle::First, 11)));
        assert!(sees(&history, 0, Look::Durable));
        assert!(history.flushed(&Flushed::by(Handle::First, 12)));
        assert!(!sees(&history, 0, Look::Durable));
        history.prune(30);
        assert!(!sees(&history, 0, Look::Read(1)));
    }

    #[test]
    fn concurrent_writes_may_end_in_either_order() {
        let mut history = fresh();
        history.issue(1, &ALL, 10);
        history.issue(2, &ALL, 11);
        history.accept(1, Handle::First, 12);
        history.accept(2, Handle::First, 12);
        history.end(2, true, 20);
        history.end(1, true, 21);
        assert!(history.flushed(&Flushed::by(Handle::First, 22)));
        assert!(sees(&history, 1, Look::Durable) && sees(&history, 2, Look::Durable));
        assert!(!sees(&history, 0, Look::Durable));
    }

    #[test]
    fn write_that_failed_supersedes_nothing() {
        let mut history = fresh();
        history.issue(1, &ALL, 10);
        history.end(1, false, 20);
        assert!(sees(&history, 0, Look::Read(30)) && sees(&history, 1, Look::Read(30)));
        history.issue(2, &ALL, 30);
        history.end(2, true, 40);
        assert!(!sees(&history, 1, Look::Read(50)));
    }

    #[test]
    fn partial_overwrite_leaves_the_rest() {
        let mut history = fresh();
        history.issue(1, &(100..200), 10);
        history.end(1, true, 20);
        let mut bytes = ZERO;
        bytes[100..200].copy_from_slice(&sector_of(1, 0)[100..200]);
        assert!(history.allows(&bytes, &ALL, 0, &ZERO, Look::Read(30)));
        bytes[150] ^= 1;
        assert!(!history.allows(&bytes, &ALL, 0, &ZERO, Look::Read(30)));
        assert!(!sees(&history, 0, Look::Read(30)));
        assert!(!sees(&history, 1, Look::Read(30)));
    }

    #[test]
    fn flush_of_one_handle_covers_of_the_other_what_had_ended() {
        let mut history = fresh();
        history.issue(1, &ALL, 10);
        history.accept(1, Handle::Twin, 11);
        history.end(1, true, 20);
        assert!(!history.flushed(&Flushed::by(Handle::First, 20)));
        assert!(sees(&history, 0, Look::Durable));
        assert!(history.flushed(&Flushed::by(Handle::First, 21)));
        assert!(!sees(&history, 0, Look::Durable));
    }
}
