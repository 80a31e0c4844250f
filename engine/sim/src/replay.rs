//! One run of the simulation, or a part of it: which steps are taken, which faults may happen.
//!
//! Data flow: seed, ops, kept steps, faults → [`Replay`] → run → report, and on demand a line
//! for each thing that a step did. Each step draws from a generator of its own, keyed by seed
//! and number, so a step that is left out changes the draws of no other.
//!
//! Not here: which steps are worth keeping (`shrink`).

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use mfio_engine::ring::Plant;

use crate::faults::FaultSet;
use crate::life;
use crate::report::RunReport;
use crate::world::World;

/// Numbers of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepSet(Vec<u32>);

impl StepSet {
    /// These, in any order.
    #[must_use]
    pub fn new(mut steps: Vec<u32>) -> Self {
        steps.sort_unstable();
        steps.dedup();
        Self(steps)
    }

    /// The steps in order.
    #[must_use]
    pub fn steps(&self) -> &[u32] {
        &self.0
    }

    pub(crate) fn contains(&self, step: u32) -> bool {
        self.0.binary_search(&step).is_ok()
    }

    /// Reads what [`Display`](fmt::Display) writes: `3,17,40-44`.
    ///
    /// # Errors
    /// What is no number or range.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut steps = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| {
                text.parse::<u32>().map_err(|_| format!("{part} is no step and no range of steps"))
            };
            let (first, last) = (number(first)?, number(last)?);
            if last < first || last - first > 1 << 24 {
                return Err(format!("{part} is no range of steps"));
            }
            steps.extend(first..=last);
        }
        Ok(Self::new(steps))
    }
}

impl fmt::Display for StepSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut comma = "";
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
            comma = ",";
        }
        Ok(())
    }
}

/// Everything that one run depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Where every draw comes from.
    pub seed: u64,
    /// How many steps the whole run has.
    pub ops: u32,
    /// The deliberate bug.
    pub plant: Option<Plant>,
    /// The steps that are taken; `None` is all of them.
    pub keep: Option<StepSet>,
    /// The faults that may happen, of those that the seed has drawn.
    pub faults: FaultSet,
}

impl Replay {
    /// A whole run.
    #[must_use]
    pub const fn whole(seed: u64, ops: u32, plant: Option<Plant>) -> Self {
        Self { seed, ops, plant, keep: None, faults: FaultSet::ALL }
    }

    /// Runs it. A panic of the engine is a violation like any other.
    #[must_use]
    pub fn run(&self) -> RunReport {
        run_in(World::new(self)).0
    }

    /// Runs it and tells what each step did, a line each.
    #[must_use]
    pub fn explain(&self) -> (RunReport, Vec<String>) {
        let mut world = World::new(self);
        world.story = Some(Vec::new());
        run_in(world)
    }

    /// The command that runs it again.
    #[must_use]
    pub fn command(&self) -> String {
        let mut text = crate::report::reproduction(self.seed, self.ops, self.plant);
        if let Some(keep) = &self.keep {
            text.push_str(&format!(" --keep {keep}"));
        }
        if self.faults != FaultSet::ALL {
            text.push_str(&format!(" --faults {}", self.faults));
        }
        text
    }
}

pub(crate) fn run_in(mut world: World) -> (RunReport, Vec<String>) {
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        while world.goes_on() {
            life::live(&mut world);
        }
    }));
    if let Err(payload) = outcome {
        world.panicked(payload.as_ref());
    }
    let story = world.story.take().unwrap_or_default();
    (world.into_report(), story)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        let steps = StepSet::new(vec![44, 3, 17, 40, 41, 42, 43, 3]);
        assert_eq!(steps.to_string(), "3,17,40-44");
        assert_eq!(StepSet::parse("3,17,40-44"), Ok(steps));
        for nonsense in ["", "x", "4-", "4-3", "1,,2", "0-4294967295"] {
            assert!(StepSet::parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn keeping_every_step_changes_nothing() {
        let whole = Replay::whole(5, 300, None);
        let kept = Replay { keep: Some(StepSet::new((0..300).collect())), ..whole.clone() };
        assert_eq!(whole.run(), kept.run());
    }
}
