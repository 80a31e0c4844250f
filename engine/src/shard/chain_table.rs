//! The chains of a shard: pooled, named by generation, owners of their buffers.
//!
//! Data flow: [`Steps`] → [`Chains::open`] → entry → [`Chains::close`] → steps, buffers and all.
//!
//! Not here: what happens to an entry in between (`chain`).

use std::task::Waker;

use mfio_core::Error;

use crate::buffer::{Region, quarantine};
use crate::chain::{STEPS_MAX, Step};

/// The steps of a chain; the first `None` ends it.
pub(super) type Steps = [Option<Step>; STEPS_MAX];

/// Names one chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChainId {
    at: u32,
    generation: u32,
}

/// The step that failed, why, and the target's name.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: usize,
    pub(super) done_steps: usize,
    pub(super) error: Error,
    pub(super) target: String,
}

#[derive(Debug)]
pub(super) enum Phase {
    Free,
    /// In the backlog, or backing off in a slot.
    Queued,
    /// So many of its ops have not completed.
    Launched(u32),
    /// Its next step is a flush that was asked for.
    Flushing,
    Ended(Result<(), Failure>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) steps: Steps,
    pub(super) count: usize,
    /// Steps before this one are done for good.
    pub(super) first: usize,
    pub(super) launched_to: usize,
    /// The latest launch may have been cut in two by a partial submit (F15).
    pub(super) cut: bool,
    /// Nothing is linked any more.
    pub(super) single: bool,
    /// A step was short: for the planted bug that then forgets the steps behind it.
    pub(super) relaunched: bool,
    pub(super) abandoned: bool,
    pub(super) waker: Option<Waker>,
    /// How often in a row there was no room for all that can be linked.
    pub(super) passed_over: u8,
}

/// The chains of a shard.
///
/// Dropped with ops in flight, it keeps their memory for ever (F02).
#[derive(Debug, Default)]
pub(super) struct Chains {
    table: Vec<Entry>,
    free: Vec<u32>,
}

impl Chains {
    /// Takes over the first `count` of `steps`, one by one: most chains are short, and an array
    /// of steps is more than a thousand bytes.
    pub(super) fn open(&mut self, steps: &mut Steps, count: usize) -> ChainId {
        let at = self.free.pop().unwrap_or_else(|| {
            self.table.push(Entry {
                generation: 0,
                phase: Phase::Free,
                steps: Steps::default(),
                count: 0,
                first: 0,
                launched_to: 0,
                cut: false,
                single: false,
                relaunched: false,
                abandoned: false,
                waker: None,
                passed_over: 0,
            });
            u32::try_from(self.table.len() - 1).expect("fewer chains than views")
        });
        let entry = &mut self.table[at as usize];
        for (own, step) in entry.steps.iter_mut().zip(&mut steps[..count]) {
            *own = step.take();
        }
        entry.phase = Phase::Queued;
        entry.count = count;
        (entry.first, entry.launched_to, entry.passed_over) = (0, 0, 0);
        (entry.cut, entry.single) = (false, false);
        (entry.relaunched, entry.abandoned) = (false, false);
        entry.waker = None;
        ChainId { at, generation: entry.generation }
    }

    pub(super) fn get(&mut self, id: ChainId) -> &mut Entry {
        let entry = &mut self.table[id.at as usize];
        assert_eq!(entry.generation, id.generation, "a chain is kept until it has ended");
        entry
    }

    pub(super) fn step(&mut self, id: ChainId, at: usize) -> &mut Step {
        self.get(id).steps[at].as_mut().expect("a chain has as many steps as it counts")
    }

    /// Gives the steps back to where they came from.
    pub(super) fn close(&mut self, id: ChainId, steps: &mut Steps) {
        let entry = self.get(id);
        for (step, own) in steps.iter_mut().zip(&mut entry.steps[..entry.count]) {
            *step = own.take();
        }
        self.free_entry(id);
    }

    /// Drops the steps, buffers and all: nobody waits for them.
    #[cold]
    pub(super) fn discard(&mut self, id: ChainId) {
        self.get(id).steps = Steps::default();
        self.free_entry(id);
    }

    fn free_entry(&mut self, id: ChainId) {
        let entry = self.get(id);
        entry.phase = Phase::Free;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(id.at);
    }

    /// Steps of chains that have not ended whose memory lies in `region`.
    pub(super) fn steps_on(&self, region: &Region) -> usize {
        let steps = self.table.iter().flat_map(|entry| entry.steps.iter().flatten());
        steps.filter(|step| step.memory.is_some_and(|memory| memory.touches(region))).count()
    }

    /// Nothing that is in flight behind a link is trusted to have run in order.
    #[cold]
    pub(super) fn distrust(&mut self) {
        for entry in &mut self.table {
            entry.cut |= matches!(entry.phase, Phase::Launched(_));
        }
    }
}

impl Drop for Chains {
    fn drop(&mut self) {
        let in_flight = |entry: &&Entry| matches!(entry.phase, Phase::Launched(1..));
        let count = self.table.iter().filter(in_flight).count();
        if count > 0 {
            let table = core::mem::take(&mut self.table);
            quarantine(table, "chains that did not come back before the shard was dropped", count);
        }
    }
}
