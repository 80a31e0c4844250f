//! What outlives the lives of a shard in one run: the device, the model and the findings.
//!
//! Data flow: [`Scenario`] → [`World`] → lives → counters, trace and violations → report.
//!
//! Not here: a life (`life`).

use mfio_engine::ring::Plant;
use mfio_engine::ring::sim::Trace;
use mfio_engine::ring::sim::{FileSpec, KnobCounts, Random, SimControl, SimDevice, SimStats};

use crate::model::Model;
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
    pub(crate) knobs: KnobCounts,
    violations: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, ops_max: u32, plant: Option<Plant>) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random, plant);
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
            knobs: KnobCounts::default(),
            violations: Vec::new(),
        }
    }

    /// Whether there is anything left to do.
    pub(crate) fn goes_on(&self) -> bool {
        self.ops_done < self.ops_max && self.is_clean()
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
            hash: self.trace.value(),
            stats: self.stats,
            coverage: self.coverage,
            knobs: self.knobs,
            violations: self.violations,
        }
    }
}
