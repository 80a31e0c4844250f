//! What outlives the lives of a shard in one run: the device, the model and the findings.
//!
//! Data flow: [`Scenario`] → [`World`] → lives → counters, trace and violations → report.
//!
//! Not here: a life (`life`).

use core::any::Any;

use mfio_engine::ring::sim::Trace;
use mfio_engine::ring::sim::{FileSpec, KnobCounts, Random, SimControl, SimDevice, SimStats};

use crate::model::Model;
use crate::replay::{Replay, StepSet};
use crate::report::{Coverage, RunReport};
use crate::scenario::Scenario;

/// The most violations that one run reports; one bug causes many.
const VIOLATIONS_MAX: usize = 5;

/// The state of one run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) ops_max: u32,
    pub(crate) ops_done: u32,
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    pub(crate) device: SimDevice,
    pub(crate) model: Model,
    pub(crate) trace: Trace,
    pub(crate) stats: SimStats,
    pub(crate) coverage: Coverage,
    /// What happens, in words, for whoever wants to read it.
    pub(crate) story: Option<Vec<String>>,
    keep: Option<StepSet>,
    /// A flush has failed since the power was last lost: what reads see may never be durable,
    /// whatever an open or a flush says.
    pub(crate) doubtful: bool,
    pub(crate) knobs: KnobCounts,
    violations: Vec<String>,
    /// What the steps are drawn from, one after the other, where somebody else decides them;
    /// `None` where the seed does.
    steps: Option<Vec<u16>>,
}

impl World {
    pub(crate) fn new(replay: &Replay) -> Self {
        let Replay { seed, ops, plant, ref keep, faults } = *replay;
        let mut random = Random::new(seed);
        let mut scenario = Scenario::draw(&mut random, plant);
        faults.apply(&mut scenario.ring.faults);
        Self { keep: keep.clone(), ..Self::with_scenario(seed, ops, random, scenario) }
    }

    pub(crate) fn with_scenario(
        seed: u64,
        ops_max: u32,
        random: Random,
        scenario: Scenario,
    ) -> Self {
        let device =
            SimDevice::new(&[scenario.spec, FileSpec { space_sectors: None, ..scenario.spec }]);
        let mut trace = Trace::new();
        trace.fold(u64::from(ops_max));
        Self {
            seed,
            ops_max,
            ops_done: 0,
            random,
            scenario,
            device,
            model: Model::new(scenario.spec.size_bytes as usize),
            trace,
            stats: SimStats::default(),
            coverage: Coverage::default(),
            story: None,
            keep: None,
            doubtful: false,
            knobs: KnobCounts::default(),
            violations: Vec::new(),
            steps: None,
        }
    }

    /// As [`World::new`], with each step drawn from a number of its own.
    pub(crate) fn with_steps(seed: u64, steps: &[u16]) -> Self {
        let ops_max = u32::try_from(steps.len()).unwrap_or(u32::MAX);
        let replay = Replay::whole(seed, ops_max, None);
        Self { steps: Some(steps.to_vec()), ..Self::new(&replay) }
    }

    /// Whether there is anything left to do.
    pub(crate) fn goes_on(&self) -> bool {
        self.ops_done < self.ops_max && self.is_clean()
    }

    /// Begins the next step, or leaves it out. From here on the workload draws from a generator
    /// of the step's own; what is returned is where the kernel shall draw from.
    pub(crate) fn begin_step(&mut self) -> Option<u64> {
        let step = self.ops_done;
        self.ops_done += 1;
        if let Some(keep) = &self.keep {
            if keep.steps().last().is_none_or(|last| *last < step) {
                self.ops_done = self.ops_max;
            }
            if !keep.contains(step) {
                return None;
            }
        }
        let given = self.steps.as_ref().and_then(|steps| steps.get(step as usize));
        let key = given.map_or(u64::from(step) << 32, |&given| u64::from(given) << 16);
        let mut mixed = Random::new(self.seed ^ key);
        self.random = mixed.fork();
        Some(mixed.bits())
    }

    /// Tells what happens, where somebody wants to know.
    #[inline]
    pub(crate) fn tell(&mut self, text: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:>6} {}", self.ops_done.saturating_sub(1), text()));
        }
    }

    /// The engine has panicked, which it must never.
    pub(crate) fn panicked(&mut self, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        self.violate(format!("the engine panicked: {text}"));
    }

    /// For the last fifth of a run nothing goes wrong, so that everything must finish.
    pub(crate) fn is_calm(&self) -> bool {
        u64::from(self.ops_done) * 5 >= u64::from(self.ops_max) * 4
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }

    pub(crate) fn violate(&mut self, text: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(format!("after {} ops: {text}", self.ops_done));
        }
    }

    /// Records `result` if it is a violation.
    pub(crate) fn require(&mut self, what: &str, result: Result<(), String>) {
        if let Err(text) = result {
            self.violate(format!("{what}: {text}"));
        }
    }

    /// Takes over what the kernel of a finished life has seen.
    pub(crate) fn take_kernel(&mut self, control: &SimControl) {
        self.stats.add(&control.stats());
        self.knobs.add(&control.knobs());
        self.trace.fold(control.trace());
        for complaint in control.complaints() {
            self.violate(format!("the kernel complains: {complaint}"));
        }
    }

    pub(crate) fn into_report(mut self) -> RunReport {
        for (_, value) in self.coverage.fields().into_iter().chain(self.stats.fields()) {
            self.trace.fold(value);
        }
        RunReport {
            seed: self.seed,
            ops: self.ops_max,
            steps: self.ops_done,
            hash: self.trace.value(),
            stats: self.stats,
            coverage: self.coverage,
            knobs: self.knobs,
            violations: self.violations,
        }
    }
}
