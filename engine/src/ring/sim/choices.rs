//! Enumerates what a simulation would otherwise draw: every run of a small model, once.
//!
//! Data flow: [`Choices`] → [`Random`](super::Random) in script mode → the kernel's decisions,
//! which are noted as they are made → [`Choices::next`] turns the last one that has an
//! alternative, depth first → the same run again, up to there.
//!
//! Two kinds of decisions: *faults* cost one of a few that a run may have, and are not offered
//! any more when those are used up; *coins* (how far a fault goes, which sectors survive) are
//! free. What merely jitters, such as a latency, always comes out the same.
//!
//! Not here: draws from a seed (`random`), the model that is enumerated (package `engine-sim`).

use core::cell::RefCell;
use std::rc::Rc;

use super::random::Random;

/// One decision of a run.
#[derive(Clone, Copy, Debug)]
struct Made {
    chosen: u32,
    alternatives: u32,
}

#[derive(Debug, Default)]
struct Script {
    /// What the decisions of this run are; those beyond are 0.
    prefix: Vec<u32>,
    made: Vec<Made>,
    faults_max: u32,
    faults: u32,
}

impl Script {
    fn decide(&mut self, alternatives: u32) -> u32 {
        if alternatives < 2 {
            return 0;
        }
        let planned = self.prefix.get(self.made.len()).copied().unwrap_or(0);
        let chosen = planned.min(alternatives - 1);
        self.made.push(Made { chosen, alternatives });
        chosen
    }
}

/// The decisions of one run after the other, until there is no other. Clones are the same.
///
/// # Examples
/// ```
/// use mfio_engine::ring::sim::Choices;
///
/// let choices = Choices::new(1);
/// let mut runs = Vec::new();
/// loop {
///     // Two things that may go wrong, at most one of them, and one that is free.
///     runs.push((choices.fault(2), choices.fault(2), choices.coin(2)));
///     if !choices.next() {
///         break;
///     }
/// }
/// assert_eq!(runs, [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1)]);
/// ```
#[derive(Clone, Debug)]
pub struct Choices {
    script: Rc<RefCell<Script>>,
}

impl Choices {
    /// The first run: nothing goes wrong. Of the others, each has at most `faults_max` faults.
    #[must_use]
    pub fn new(faults_max: u32) -> Self {
        Self::replay(faults_max, &[])
    }

    /// The run whose decisions begin with `prefix`, as [`Choices::made`] has told them.
    #[must_use]
    pub fn replay(faults_max: u32, prefix: &[u32]) -> Self {
        let script = Script { prefix: prefix.to_vec(), faults_max, ..Script::default() };
        Self { script: Rc::new(RefCell::new(script)) }
    }

    /// A source for a simulation that asks here instead of drawing.
    #[must_use]
    pub fn random(&self) -> Random {
        Random::scripted(self.clone())
    }

    /// Decides between things that may go wrong; 0 is that nothing does.
    #[must_use]
    pub fn fault(&self, alternatives: u32) -> u32 {
        let mut script = self.script.borrow_mut();
        if script.faults == script.faults_max {
            return 0;
        }
        let chosen = script.decide(alternatives);
        script.faults += u32::from(chosen != 0);
        chosen
    }

    /// Decides between things that cost nothing.
    #[must_use]
    pub fn coin(&self, alternatives: u32) -> u32 {
        self.script.borrow_mut().decide(alternatives)
    }

    /// Whether this is the first run, in which nothing goes wrong.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.script.borrow().prefix.is_empty()
    }

    /// How many faults this run has had so far.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.script.borrow().faults
    }

    /// What was decided in this run so far, without the zeros at the end.
    #[must_use]
    pub fn made(&self) -> Vec<u32> {
        let script = self.script.borrow();
        let mut made: Vec<u32> = script.made.iter().map(|made| made.chosen).collect();
        while made.last() == Some(&0) {
            made.pop();
        }
        made
    }

    /// Begins the next run, or says that there is none.
    #[must_use]
    pub fn next(&self) -> bool {
        let mut script = self.script.borrow_mut();
        let mut made = core::mem::take(&mut script.made);
        script.faults = 0;
        script.prefix.clear();
        while let Some(last) = made.pop() {
            if last.chosen + 1 < last.alternatives {
                script.prefix.extend(made.iter().map(|made| made.chosen));
                script.prefix.push(last.chosen + 1);
                script.made = made;
                script.made.clear();
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_comes_once_and_replays() {
        let choices = Choices::new(2);
        let mut seen = Vec::new();
        loop {
            let mut run = Vec::new();
            for _ in 0..3 {
                run.push(choices.fault(3));
            }
            if run[1] == 2 {
                run.push(choices.coin(4));
            }
            assert!(choices.faults() <= 2);
            let again = Choices::replay(2, &choices.made());
            let repeated: Vec<u32> = (0..3).map(|_| again.fault(3)).collect();
            assert_eq!(repeated, run[..3]);
            seen.push(run);
            if !choices.next() {
                break;
            }
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        // Of 27 runs of three decisions, 8 have three faults; 5 of the others have four ends.
        assert_eq!(count, 27 - 8 + 5 * 3);
    }

    #[test]
    fn scripted_source_decides_what_matters_and_jitters_not() {
        let choices = Choices::new(1);
        let mut random = choices.random();
        assert_eq!((random.below(256), random.below(1000)), (128, 500));
        assert_ne!(random.bits(), random.bits());
        assert!(!random.chance(1) && !random.one_in(2) && random.pick(&[3, 4]) == 3);
        assert_eq!(random.which([1, 0, 1]), None);
        assert_eq!((random.between(1, 9), random.between(4, 4)), (1, 4));
        assert!(choices.next());
        assert!(!random.chance(1) && !random.one_in(2) && random.pick(&[3, 4]) == 3);
        assert_eq!((random.which([1, 0, 1]), random.between(1, 9)), (None, 9));
        let mut chosen = Vec::new();
        while choices.next() {
            let fault = random.chance(1);
            let (_, _) = (random.one_in(2), random.pick(&[3, 4]));
            chosen.push((fault, random.which([1, 0, 1]), random.between(1, 9)));
        }
        assert!(chosen.contains(&(true, None, 9)) && chosen.contains(&(false, Some(2), 1)));
        assert!(!chosen.iter().any(|(fault, which, _)| *fault && which.is_some()));
    }
}
