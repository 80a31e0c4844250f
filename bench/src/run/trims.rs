//! Trims a share of what was written, on the way (`trim_percentage`, `trim_backlog`).
//!
//! Data flow: steps of the job -> the same steps, and after every so many writes some trims of
//! earlier ones. The worker waits until a block is written before it trims it.
//!
//! Not here: executing trims (`beside`), what trimmed blocks must read as (`written`).

use std::collections::VecDeque;

use fio_compat::Checking;

use crate::generator::{Step, Steps};
use crate::ioengine::Operation;
use crate::random::Random;

/// What is to be trimmed, over all phases of a pass.
pub(crate) struct TrimBook {
    percent: u64,
    backlog: u64,
    batch: u64,
    random: Random,
    listed: VecDeque<(u32, u64, u32)>,
    writes: u64,
    /// Trims that come before the next step.
    due: u64,
    /// Whether the last step was one of them.
    trims: bool,
}

impl TrimBook {
    /// Empty; `seed` decides which writes are trimmed. `None` where the job trims nothing so.
    pub(crate) fn new(checking: &Checking, seed: u64) -> Option<Self> {
        (checking.trim_percent > 0 && checking.trim_backlog > 0).then(|| Self {
            percent: u64::from(checking.trim_percent),
            backlog: checking.trim_backlog,
            batch: match checking.trim_backlog_batch {
                0 => checking.trim_backlog,
                batch => batch,
            },
            random: Random::new(seed ^ 0x7472_696d),
            listed: VecDeque::new(),
            writes: 0,
            due: 0,
            trims: false,
        })
    }

    fn note(&mut self, file: u32, offset_bytes: u64, len_bytes: u32) {
        if self.random.below(100) < self.percent {
            self.listed.push_back((file, offset_bytes, len_bytes));
        }
        self.writes += 1;
        if self.writes.is_multiple_of(self.backlog) {
            self.due = self.batch;
        }
    }

    fn next(&mut self) -> Option<Step> {
        if self.due == 0 {
            return None;
        }
        self.due -= 1;
        let Some((file, offset_bytes, len_bytes)) = self.listed.pop_front() else {
            self.due = 0;
            return None;
        };
        Some(Step::Do { operation: Operation::Trim, file, offset_bytes, len_bytes })
    }
}

/// Steps with trims between them.
pub(crate) struct Trims<'a> {
    /// The job's own.
    pub(crate) steps: &'a mut dyn Steps,
    /// What to trim.
    pub(crate) book: &'a mut TrimBook,
}

impl Steps for Trims<'_> {
    fn step(&mut self) -> Step {
        let trim = self.book.next();
        self.book.trims = trim.is_some();
        if let Some(trim) = trim {
            return trim;
        }
        let step = self.steps.step();
        if let Step::Do { operation: Operation::Write, file, offset_bytes, len_bytes } = step {
            self.book.note(file, offset_bytes, len_bytes);
        }
        step
    }

    fn scheduled_ns(&self) -> u64 {
        if self.book.trims { 0 } else { self.steps.scheduled_ns() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Writes(u64);

    impl Steps for Writes {
        fn step(&mut self) -> Step {
            if self.0 == 64 {
                return Step::Finished;
            }
            self.0 += 1;
            let offset_bytes = self.0 * 4096;
            Step::Do { operation: Operation::Write, file: 0, offset_bytes, len_bytes: 4096 }
        }

        fn scheduled_ns(&self) -> u64 {
            self.0
        }
    }

    /// The offsets that are trimmed, and after how many writes each.
    fn trims(percent: u8, backlog: u64, batch: u64) -> Vec<(u64, u64)> {
        let checking = Checking {
            trim_percent: percent,
            trim_backlog: backlog,
            trim_backlog_batch: batch,
            ..Checking::default()
        };
        let (mut writes, mut found) = (Writes(0), Vec::new());
        let mut book = TrimBook::new(&checking, 1).unwrap();
        loop {
            let mut steps = Trims { steps: &mut writes, book: &mut book };
            match steps.step() {
                Step::Do { operation: Operation::Trim, offset_bytes, .. } => {
                    assert_eq!(steps.scheduled_ns(), 0, "trims have no time of their own");
                    found.push((offset_bytes / 4096, writes.0));
                }
                Step::Do { .. } => {
                    let due_ns = steps.scheduled_ns();
                    assert_eq!(due_ns, writes.0, "writes keep theirs");
                }
                _ => return found,
            }
        }
    }

    #[test]
    fn trim_percentage_trim_backlog_and_trim_backlog_batch_choose_which_and_when() {
        let all = trims(100, 16, 0);
        assert_eq!(all.len(), 64);
        assert!(all.iter().all(|(block, at)| block <= at && at.is_multiple_of(16)), "{all:?}");
        let few = trims(100, 16, 3);
        assert_eq!(few.len(), 12, "3 after each 16");
        assert_eq!(few[3], (4, 32), "the oldest first");
        let half = trims(50, 8, 0).len();
        assert!((20..=44).contains(&half), "{half}");
        assert!(TrimBook::new(&Checking::default(), 1).is_none());
    }
}
