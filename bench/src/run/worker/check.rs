//! Checks the blocks that a phase reads, here or on threads of their own.
//!
//! Data flow: slot of a completed read -> `Content`, or `Checkers` -> wrong blocks and the end of
//! the job.
//!
//! Not here: what is wrong with a block (`content`, `verify`).

use crate::ioengine::{Io, IoEngine};

use crate::content::Mismatch;
use crate::run::failure::Failure;

use super::{MISMATCHES_KEPT, Rules, Worker};

impl<E: IoEngine> Worker<'_, E> {
    #[inline(never)]
    pub(super) fn check(&mut self, io: Io, rules: Rules) {
        self.checked_count += 1;
        let len = (io.skip_bytes + io.len_bytes) as usize;
        let whole = Io {
            offset_bytes: io.offset_bytes - u64::from(io.skip_bytes),
            skip_bytes: 0,
            len_bytes: io.skip_bytes + io.len_bytes,
            ..io
        };
        let data = &self.engine.buffer(io.slot)[..len];
        if let (Some(checkers), Some(blocks)) = (&mut self.checkers, self.content.blocks()) {
            let offsets = (whole.offset_bytes..).step_by(blocks.bytes as usize);
            let offsets = offsets.take(len / blocks.bytes as usize);
            let wanted = |offset| self.content.wanted(whole.file, offset, rules.remembered);
            checkers.give(whole, data, offsets.map(wanted));
            return self.collect(rules, false);
        }
        if let Err(mismatch) = self.content.check(whole, data, rules.remembered) {
            self.condemn(*mismatch, rules);
        }
    }

    /// Takes the verdicts of the threads that check: those that are there, or all.
    #[cold]
    pub(super) fn collect(&mut self, rules: Rules, all: bool) {
        while let Some(verdict) = self.checkers.as_mut().and_then(|some| some.verdict(all)) {
            if let Err(mismatch) = verdict {
                self.condemn(*mismatch, rules);
            }
        }
    }

    /// A block is wrong.
    #[cold]
    fn condemn(&mut self, mismatch: Mismatch, rules: Rules) {
        self.mismatch_count += 1;
        if self.mismatches.len() < MISMATCHES_KEPT {
            self.mismatches.push(mismatch);
        }
        if self.policy.continues_after_mismatch {
            self.errors.note(Failure::verify());
        }
        if rules.fatal {
            self.fail(Failure::verify());
        }
    }
}
