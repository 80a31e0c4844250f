//! One job section, fully typed, with every dependent default worked out.
//!
//! Data flow: defaults -> options applied in order -> `validate` settles what depends on what ->
//! the bench clones it `numjobs` times and runs it.
//!
//! Not here: option syntax (`options`), the order of sections (`assemble`), clones and threads.

mod checking;
mod content;
mod control;
mod durability;
pub(crate) mod engine_options;
mod layout;
mod memory;
mod pace;
mod replay;
mod reporting;
mod steering;
mod validate;
mod values;
mod workload;

use crate::error::Place;
use crate::options;

pub use checking::Checking;
pub use content::{Content, Pattern};
pub use control::{ContinueOnError, Control, CpusPolicy, Direction, ExitWhat};
pub use durability::{Durability, SyncFileRange, SyncIo};
pub use engine_options::EngineOptions;
pub use layout::{Fallocate, FileAdvice, Layout, WriteLife};
pub use memory::{Memory, MemoryKind};
pub use pace::{Pace, ThinkAfter};
pub use replay::{Replay, ReplaySkip};
pub use reporting::{LogOptions, LogPrefix, Reporting, Unified, Units, WindowValue};
pub use steering::Steering;
pub use values::{BlockSizes, Extent, IoEngine, Rw, Verify};
pub use workload::{
    BlockShare, Distribution, FileService, RandomGenerator, Sequencer, Strided, Workload, Zone,
};

/// fio's default `percentile_list`.
const PERCENTILES: [f64; 17] = [
    1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95,
    99.99,
];

/// fio's default `randseed`.
const RAND_SEED: u64 = 0x89;

/// One job as the bench runs it. `numjobs` is a field: the bench makes the clones.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Job {
    /// Name of the section, or of `--name`.
    pub name: String,
    /// Free text printed in reports.
    pub description: Option<String>,
    /// Number of the reporting group, from 0.
    pub group_id: u32,
    /// Direction and pattern.
    pub rw: Rw,
    /// Block size by direction.
    pub bs: BlockSizes,
    /// Share of reads in a mixed job, 0 to 100.
    pub rwmixread_percent: u8,
    /// Targets; empty means names made of the job's name.
    pub filenames: Vec<String>,
    /// Directories for such names, spread over clones; empty means the current one.
    pub directories: Vec<String>,
    /// Region and amount; `None` means all of the target.
    pub size: Option<Extent>,
    /// Amount to do if it differs from the region.
    pub io_size: Option<Extent>,
    /// Start of the region.
    pub offset: Extent,
    /// Stop after that many I/Os.
    pub number_ios: Option<u64>,
    /// How often to run the job.
    pub loops: u64,
    /// Whether a missing file may be created.
    pub allow_file_create: bool,
    /// Whether to drop the page cache of the target first.
    pub invalidate: bool,
    /// Whether to delete the files at the end.
    pub unlink: bool,
    /// The engine that runs the job.
    pub ioengine: IoEngine,
    /// The engine's name as the user gave it (`libaio`), for reports.
    pub ioengine_requested: String,
    /// I/Os kept in flight; a synchronous engine runs at 1 whatever this says.
    pub iodepth: u32,
    /// Submit when that many are queued.
    pub iodepth_batch: u32,
    /// Reap at least that many when the queue is full; 0 polls.
    pub iodepth_batch_complete_min: u32,
    /// Reap at most that many at a time.
    pub iodepth_batch_complete_max: u32,
    /// Reap until no more than that many are in flight.
    pub iodepth_low: u32,
    /// O_DIRECT.
    pub direct: bool,
    /// Registered buffers (io_uring only).
    pub fixedbufs: bool,
    /// Registered files (io_uring only).
    pub registerfiles: bool,
    /// Upper limit on the time of I/O, or its duration if `time_based`.
    pub runtime_ns: Option<u64>,
    /// Start over until `runtime_ns` has passed. Implies that `runtime_ns` is some.
    pub time_based: bool,
    /// Run that long before recording; comes on top of `runtime_ns`.
    pub ramp_time_ns: u64,
    /// Random offsets may repeat before every block was touched.
    pub norandommap: bool,
    /// Same seed on each run.
    pub randrepeat: bool,
    /// The seed; given explicitly it overrides `randrepeat`.
    pub randseed: u64,
    /// How written data is checked.
    pub verify: Verify,
    /// Whether the check runs after the writes.
    pub do_verify: bool,
    /// Whether the first mismatch ends the job.
    pub verify_fatal: bool,
    /// fsync after every that many writes; 0 is never.
    pub fsync: u32,
    /// fdatasync after every that many writes; 0 is never.
    pub fdatasync: u32,
    /// fsync at the end of the writes.
    pub end_fsync: bool,
    /// Number of clones.
    pub numjobs: u32,
    /// fio's threads instead of processes; we always use threads.
    pub thread: bool,
    /// One report for all jobs of the group.
    pub group_reporting: bool,
    /// Wait for all earlier jobs, and start a new group.
    pub stonewall: bool,
    /// Start a new group without waiting.
    pub new_group: bool,
    /// CPUs the job may run on, ascending; empty means any.
    pub cpus_allowed: Vec<u32>,
    /// Fewer clock readings: switches all four measurements below off.
    pub gtod_reduce: bool,
    /// Do not measure total latency.
    pub disable_lat: bool,
    /// Do not measure completion latency.
    pub disable_clat: bool,
    /// Do not measure submission latency.
    pub disable_slat: bool,
    /// Do not sample bandwidth and IOPS.
    pub disable_bw_measurement: bool,
    /// Percentiles to report, ascending.
    pub percentile_list: Vec<f64>,
    /// Report percentiles of completion latency.
    pub clat_percentiles: bool,
    /// Report percentiles of total latency.
    pub lat_percentiles: bool,
    /// Permission to write a device that is mounted.
    pub allow_mounted_write: bool,
    /// Permission to write a device that carries a file system or the like.
    pub overwrite_device: bool,
    /// Poll for completions (io_uring only).
    pub hipri: bool,
    /// A kernel thread polls for submissions (io_uring only).
    pub sqthread_poll: bool,
    /// One piece of memory per I/O was asked for in so many words; it is so in any case.
    pub nonvectored: bool,
    /// How results are reported.
    pub reporting: Reporting,
    /// Logs of single I/Os or of intervals.
    pub logs: LogOptions,
    /// Sizes, places and files in detail.
    pub workload: Workload,
    /// Starting, waiting, ending and errors.
    pub control: Control,
    /// Rates, pauses and limits of latency.
    pub pace: Pace,
    /// Limits that end a job, and how its I/Os are started.
    pub steering: Steering,
    /// What is written, and how it is checked.
    pub content: Content,
    /// What verification does beside its reads, and trims on the way.
    pub checking: Checking,
    /// The memory of buffers.
    pub memory: Memory,
    /// When writes become durable.
    pub durability: Durability,
    /// Traces that are followed or written.
    pub replay: Replay,
    /// How files are made, opened and left behind.
    pub layout: Layout,
    /// Flags of transfers that only some engines have.
    pub engine: EngineOptions,
    /// Options set for this job alone: canonical name, text as written, "" for flags.
    pub job_options: Vec<(String, String)>,
    /// Where each option that is not at its default was set; the last assignment counts.
    pub(crate) set_at: Vec<(&'static str, Place)>,
}

/// One row of the effective configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Canonical option name.
    pub option: &'static str,
    /// Value in force, in plain units (bytes, seconds or fractions, 0 and 1).
    pub value: String,
    /// Why it has that value.
    pub origin: Origin,
}

/// Why an option has its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// Nobody set it, and another option gave it a value that is not the default.
    Derived,
    /// It was set there.
    Set(Place),
}

impl Job {
    /// A job with fio's defaults.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            group_id: 0,
            rw: Rw::Read,
            bs: BlockSizes { read_bytes: 4096, write_bytes: 4096, trim_bytes: 4096 },
            rwmixread_percent: 50,
            filenames: Vec::new(),
            directories: Vec::new(),
            size: None,
            io_size: None,
            offset: Extent::Bytes(0),
            number_ios: None,
            loops: 1,
            allow_file_create: true,
            invalidate: true,
            unlink: false,
            ioengine: IoEngine::Psync,
            ioengine_requested: "psync".to_owned(),
            iodepth: 1,
            iodepth_batch: 1,
            iodepth_batch_complete_min: 1,
            iodepth_batch_complete_max: 1,
            iodepth_low: 1,
            direct: false,
            fixedbufs: false,
            registerfiles: false,
            runtime_ns: None,
            time_based: false,
            ramp_time_ns: 0,
            norandommap: false,
            randrepeat: true,
            randseed: RAND_SEED,
            verify: Verify::None,
            do_verify: true,
            verify_fatal: false,
            fsync: 0,
            fdatasync: 0,
            end_fsync: false,
            numjobs: 1,
            thread: false,
            group_reporting: false,
            stonewall: false,
            new_group: false,
            cpus_allowed: Vec::new(),
            gtod_reduce: false,
            disable_lat: false,
            disable_clat: false,
            disable_slat: false,
            disable_bw_measurement: false,
            percentile_list: PERCENTILES.to_vec(),
            clat_percentiles: true,
            lat_percentiles: false,
            allow_mounted_write: false,
            overwrite_device: false,
            hipri: false,
            sqthread_poll: false,
            nonvectored: false,
            reporting: Reporting::default(),
            logs: LogOptions::default(),
            workload: Workload::default(),
            control: Control::default(),
            pace: Pace::default(),
            steering: Steering::default(),
            content: Content::default(),
            checking: Checking::default(),
            memory: Memory::default(),
            durability: Durability::default(),
            replay: Replay::default(),
            layout: Layout::default(),
            engine: EngineOptions::default(),
            job_options: Vec::new(),
            set_at: Vec::new(),
        }
    }

    /// Every supported option with the value in force and the reason for it.
    #[must_use]
    pub fn effective(&self) -> Vec<Setting> {
        let defaults = Self::new(&self.name);
        let setting = |(option, show): (&'static str, fn(&Self) -> String)| {
            let value = show(self);
            let untouched = value == show(&defaults);
            let unset = if untouched { Origin::Default } else { Origin::Derived };
            Setting { option, value, origin: self.place_of(option).map_or(unset, Origin::Set) }
        };
        options::supported().map(setting).collect()
    }

    /// Whether the user set `option` (canonical name) anywhere, directly or through another one.
    #[must_use]
    pub fn is_set(&self, option: &str) -> bool {
        self.set_at.iter().any(|(name, _)| *name == option)
    }

    /// Remembers where the value of `option` came from, instead of any earlier place.
    pub(crate) fn note_place(&mut self, option: &'static str, place: &Place) {
        match self.set_at.iter_mut().find(|(name, _)| *name == option) {
            Some((_, known)) => known.clone_from(place),
            None => self.set_at.push((option, place.clone())),
        }
    }

    /// Where `option` was set last.
    #[must_use]
    pub fn place_of(&self, option: &str) -> Option<Place> {
        self.set_at.iter().find(|(name, _)| *name == option).map(|(_, place)| place.clone())
    }
}
