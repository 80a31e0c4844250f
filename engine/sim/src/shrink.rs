//! Makes a failing run small: fewer steps, fewer faults, the same kind of end.
//!
//! Data flow: failing report → runs with steps left out and faults switched off, as long as
//! something is violated (delta debugging) → [`Shrunk`], with the command that shows it and a
//! line for each thing that is left to happen.
//!
//! Not here: how a run leaves steps out (`replay`).

use mfio_engine::ring::Plant;

use crate::faults::FaultSet;
use crate::replay::{Replay, StepSet};
use crate::report::RunReport;

/// The most runs that one failure is tried to be made smaller with.
const RUNS_MAX: u32 = 2000;

/// A failure, made small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk {
    /// What to run to see it.
    pub replay: Replay,
    /// What is seen then.
    pub report: RunReport,
    /// What happens, a line each.
    pub story: Vec<String>,
    /// How many runs it took to find out.
    pub runs: u32,
}

/// One failure on its way to a smaller one.
struct Search {
    replay: Replay,
    report: RunReport,
    runs: u32,
}

impl Search {
    /// Takes `smaller` if it fails, too.
    fn take(&mut self, smaller: Replay) -> bool {
        if self.runs == RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let report = smaller.run();
        let fails = !report.violations.is_empty();
        if fails {
            (self.replay, self.report) = (smaller, report);
        }
        fails
    }

    fn kept(&self) -> Vec<u32> {
        self.replay.keep.as_ref().map_or(Vec::new(), |keep| keep.steps().to_vec())
    }

    fn take_steps(&mut self, steps: Vec<u32>) -> bool {
        self.take(Replay { keep: Some(StepSet::new(steps)), ..self.replay.clone() })
    }

    /// Leaves out ever smaller runs of neighbouring steps.
    fn fewer_steps(&mut self) {
        let mut chunk = self.kept().len().div_ceil(2);
        while chunk > 0 {
            // From the end: what happened last has least behind it.
            let mut end = self.kept().len();
            while end > 0 {
                let mut steps = self.kept();
                let start = end.saturating_sub(chunk);
                steps.drain(start..end.min(steps.len()));
                if self.take_steps(steps) {
                    // A violation may have come earlier; what is behind it is of no use.
                    end = start.min(self.cut());
                } else {
                    end = start;
                }
            }
            chunk /= 2;
        }
    }

    /// Leaves out what comes after the violation. Returns how many steps are left.
    fn cut(&mut self) -> usize {
        let mut steps = self.kept();
        let before = steps.len();
        steps.retain(|step| *step < self.report.steps);
        if steps.len() < before {
            self.take_steps(steps);
        }
        self.kept().len()
    }

    fn fewer_faults(&mut self) {
        if self.replay.faults == FaultSet::NONE
            || self.take(Replay { faults: FaultSet::NONE, ..self.replay.clone() })
        {
            return;
        }
        // One after the other: what was switched off stays off.
        let mut tried = self.replay.faults;
        while let Some(fewer) = tried.each_without().next() {
            let dropped = tried.minus(fewer);
            self.take(Replay { faults: self.replay.faults.minus(dropped), ..self.replay.clone() });
            tried = fewer;
        }
    }
}

/// The same failure with as few steps and faults as can be found in a bounded number of runs.
/// The same report is shrunk to the same end, always.
#[must_use]
pub fn shrink(failure: &RunReport, plant: Option<Plant>) -> Shrunk {
    let replay = Replay::whole(failure.seed, failure.ops, plant);
    let mut search = Search { replay, report: failure.clone(), runs: 0 };
    // What came after the violation is of no use; where it showed at the very end, all is kept.
    if !search.take_steps((0..failure.steps).collect()) {
        search.replay.keep = Some(StepSet::new((0..failure.ops).collect()));
    }
    loop {
        let before = search.replay.clone();
        search.fewer_faults();
        search.fewer_steps();
        if search.replay == before || search.runs == RUNS_MAX {
            break;
        }
    }
    let (report, story) = search.replay.explain();
    Shrunk { replay: search.replay, report, story, runs: search.runs + 1 }
}
