//! What one run, and what many runs, have found.
//!
//! Data flow: run of one seed → [`RunReport`] → [`Summary`] of all seeds → lines for people.
//!
//! Not here: running anything (`life`, `sweep`).

use core::fmt;

use mfio_engine::ring::Plant;
use mfio_engine::ring::sim::{KnobCounts, SimStats};

/// How many counters [`Coverage`] has.
const FIELDS: usize = 36;

/// What the workload did, counted by the checker's side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Coverage {
    /// Packets and flushes handed to the engine.
    pub ops: u64,
    /// Packets that the engine refused because it was full.
    pub refused: u64,
    /// Futures dropped before they were polled.
    pub dropped_unpolled: u64,
    /// Futures dropped while their op was under way.
    pub dropped_in_flight: u64,
    /// Bytes of reads held against the model.
    pub bytes_checked: u64,
    /// Packets that failed, in part or as a whole.
    pub failed_packets: u64,
    /// Flushes acknowledged.
    pub flushes_acknowledged: u64,
    /// Durable writes acknowledged.
    pub durable_acknowledged: u64,
    /// Flushes and durable writes that were told that durability is lost.
    pub durability_refused: u64,
    /// Released buffers compared with the pattern they were left with.
    pub released_checked: u64,
    /// Times the target was opened.
    pub opens: u64,
    /// Chains of which every step was done.
    pub chains_acknowledged: u64,
    /// Chains that ended at a step that was not.
    pub chains_failed: u64,
    /// Chained writes acknowledged behind a flush of their chain.
    pub chained_durable: u64,
    /// Launches of chains beyond the first of each.
    pub chains_relaunched: u64,
    /// Ranges zeroed without a buffer.
    pub ranges_acknowledged: u64,
    /// Steps of chains that wrote what the step before had read.
    pub chained_copies: u64,
    /// Batches handed to the engine.
    pub batches: u64,
    /// Their entries.
    pub batch_entries: u64,
    /// Entries that were under way when their batch was dropped.
    pub dropped_in_batches: u64,
    /// Entries that went in one op with their neighbours.
    pub coalesced: u64,
    /// Of those, the ones issued again by themselves.
    pub uncoalesced: u64,
    /// Packets of another class than foreground.
    pub in_class: u64,
    /// Packets sent by another thread while the shard went to sleep.
    pub from_elsewhere: u64,
    /// Packets and flushes through the other handle of the file.
    pub through_twin: u64,
    /// Opens that were told of data that an earlier life had lost.
    pub opens_lost: u64,
    /// Writes refused because they are not aligned.
    pub misaligned_refused: u64,
    /// Writes of more than 64 KiB that were done.
    pub long_writes: u64,
    /// Times the books of the shard were held against each other.
    pub audits: u64,
    /// Of those, how many also looked for work that waits without a reason.
    pub strict_audits: u64,
    /// Times that a full device got room again.
    pub space_returned: u64,
    /// Lives on a ring without vectored ops on registered memory.
    pub without_vectored_fixed: u64,
    /// Lives on a ring with nothing, or not all of the arena, registered.
    pub without_fixed_buffers: u64,
    /// Lives on a ring without registered files.
    pub without_fixed_files: u64,
    /// Lives on a ring without ops on ranges.
    pub without_ranges: u64,
    /// Ranges that such a ring refused.
    pub ranges_unsupported: u64,
}

impl Coverage {
    /// Adds the counters of another run.
    pub fn add(&mut self, other: &Self) {
        for ((_, mine), (_, theirs)) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs;
        }
    }

    /// Every counter with its name, in a fixed order.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, u64); FIELDS] {
        let mut copy = *self;
        copy.fields_mut().map(|(name, value)| (name, *value))
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); FIELDS] {
        [
            ("packets and flushes", &mut self.ops),
            ("refused", &mut self.refused),
            ("dropped unpolled", &mut self.dropped_unpolled),
            ("dropped in flight", &mut self.dropped_in_flight),
            ("bytes checked", &mut self.bytes_checked),
            ("failed packets", &mut self.failed_packets),
            ("flushes acknowledged", &mut self.flushes_acknowledged),
            ("durable writes acknowledged", &mut self.durable_acknowledged),
            ("durability refused", &mut self.durability_refused),
            ("released buffers checked", &mut self.released_checked),
            ("opens", &mut self.opens),
            ("chains acknowledged", &mut self.chains_acknowledged),
            ("chains failed", &mut self.chains_failed),
            ("chained durable writes", &mut self.chained_durable),
            ("chains relaunched", &mut self.chains_relaunched),
            ("ranges acknowledged", &mut self.ranges_acknowledged),
            ("chained copies", &mut self.chained_copies),
            ("batches", &mut self.batches),
            ("batch entries", &mut self.batch_entries),
            ("dropped in batches", &mut self.dropped_in_batches),
            ("coalesced", &mut self.coalesced),
            ("uncoalesced", &mut self.uncoalesced),
            ("log and background", &mut self.in_class),
            ("from elsewhere", &mut self.from_elsewhere),
            ("through another handle", &mut self.through_twin),
            ("opens told of lost data", &mut self.opens_lost),
            ("misaligned writes refused", &mut self.misaligned_refused),
            ("writes above 64 KiB", &mut self.long_writes),
            ("audits", &mut self.audits),
            ("strict audits", &mut self.strict_audits),
            ("space returned", &mut self.space_returned),
            ("without READV_FIXED", &mut self.without_vectored_fixed),
            ("without fixed buffers", &mut self.without_fixed_buffers),
            ("without fixed files", &mut self.without_fixed_files),
            ("without ops on ranges", &mut self.without_ranges),
            ("ranges unsupported", &mut self.ranges_unsupported),
        ]
    }
}

/// The outcome of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunReport {
    /// The seed.
    pub seed: u64,
    /// How many ops were asked for.
    pub ops: u32,
    /// How many steps were taken or left out until it ended.
    pub steps: u32,
    /// A hash of everything that happened, in order: equal for two runs of one seed.
    pub hash: u64,
    /// What the simulated kernel did.
    pub stats: SimStats,
    /// What the workload did.
    pub coverage: Coverage,
    /// Which choices of the engine's own were made otherwise.
    pub knobs: KnobCounts,
    /// What must not be, in words; empty is a pass.
    pub violations: Vec<String>,
}

/// Shows a failure and how to see it again.
impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} with {} ops: {} violations", self.seed, self.ops, {
            self.violations.len()
        })?;
        for violation in &self.violations {
            writeln!(f, "  {violation}")?;
        }
        Ok(())
    }
}

/// The command that runs one seed again.
#[must_use]
pub fn reproduction(seed: u64, ops: u32, plant: Option<Plant>) -> String {
    let plant = plant.map_or(String::new(), |plant| format!(" --plant {}", plant.name()));
    format!("cargo run --release -p engine-sim -- --seed {seed} --ops {ops}{plant}")
}

/// The outcome of many seeds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Seeds run.
    pub seeds: u64,
    /// What all simulated kernels did.
    pub stats: SimStats,
    /// What all workloads did.
    pub coverage: Coverage,
    /// Which choices of the engine's own were made otherwise.
    pub knobs: KnobCounts,
    /// The hash of every seed, in the order of the seeds.
    pub hashes: Vec<(u64, u64)>,
    /// Seeds that failed, the lowest first.
    pub failures: Vec<RunReport>,
}

impl Summary {
    /// Every counter of workloads, kernels and knobs, with its name.
    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let kernel = self.coverage.fields().into_iter().chain(self.stats.fields());
        kernel.chain(self.knobs.fields())
    }

    pub(crate) fn take(&mut self, report: RunReport) {
        self.seeds += 1;
        self.stats.add(&report.stats);
        self.coverage.add(&report.coverage);
        self.knobs.add(&report.knobs);
        self.hashes.push((report.seed, report.hash));
        if !report.violations.is_empty() {
            self.failures.push(report);
        }
    }

    pub(crate) fn merge(&mut self, mut other: Self) {
        self.seeds += other.seeds;
        self.stats.add(&other.stats);
        self.coverage.add(&other.coverage);
        self.knobs.add(&other.knobs);
        self.hashes.append(&mut other.hashes);
        self.failures.append(&mut other.failures);
        self.hashes.sort_unstable();
        self.failures.sort_by_key(|report| report.seed);
    }
}

/// Every counter on a line of its own.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>28} {}", "seeds", self.seeds)?;
        for (name, value) in self.counters() {
            writeln!(f, "{name:>28} {value}")?;
        }
        Ok(())
    }
}
