//! What one engine offers and another does not: flags of single transfers.
//!
//! Data flow: `options` parses text into these -> `check_engine_options` refuses what the engine
//! of the job does not have -> the bench hands them to the engine.
//!
//! Not here: depth and batches, which every engine has (plain fields of a job).

use crate::error::ParseError;

use super::{IoEngine, Job};

/// Flags of transfers, for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Share of pvsync2's transfers that are polled for with `hipri`, in percent.
    pub hipri_percent: u8,
    /// `RWF_DONTCACHE` (Linux 6.14): what went through the page cache does not stay there.
    pub uncached: bool,
    /// `RWF_NOWAIT`: a transfer that would have to wait is answered with `EAGAIN`.
    pub nowait: bool,
    /// `RWF_ATOMIC` (Linux 6.11): a write is kept or lost as a whole.
    pub atomic: bool,
    /// Every Nth transfer goes straight to a worker of the kernel; 0 is never.
    pub force_async: u32,
    /// Reads come from the medium (FUA of an NVMe command).
    pub read_fua: bool,
    /// Writes complete on the medium (FUA of an NVMe command).
    pub write_fua: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            hipri_percent: 100,
            uncached: false,
            nowait: false,
            atomic: false,
            force_async: 0,
            read_fua: false,
            write_fua: false,
        }
    }
}

/// Which engines have an option.
#[derive(Clone, Copy)]
enum Has {
    /// Those of io_uring.
    Rings,
    /// Those, and pvsync2.
    RingsAndPvsync2,
    /// pvsync2.
    Pvsync2,
    /// io_uring_cmd.
    Commands,
}

/// Options that not every engine has.
const OWN: [(&str, Has); 13] = [
    ("fixedbufs", Has::Rings),
    ("registerfiles", Has::Rings),
    ("sqthread_poll", Has::Rings),
    ("nonvectored", Has::Rings),
    ("force_async", Has::Rings),
    ("cmd_type", Has::Rings),
    ("hipri", Has::RingsAndPvsync2),
    ("uncached", Has::RingsAndPvsync2),
    ("nowait", Has::RingsAndPvsync2),
    ("atomic", Has::RingsAndPvsync2),
    ("hipri_percentage", Has::Pvsync2),
    ("readfua", Has::Commands),
    ("writefua", Has::Commands),
];

impl Has {
    fn includes(self, job: &Job) -> bool {
        let ring = matches!(job.ioengine, IoEngine::IoUring | IoEngine::RawUring);
        let pvsync2 = job.ioengine_requested == "pvsync2";
        match self {
            Self::Rings => ring,
            Self::RingsAndPvsync2 => ring || pvsync2,
            Self::Pvsync2 => pvsync2,
            Self::Commands => job.ioengine_requested == "io_uring_cmd",
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Rings | Self::RingsAndPvsync2 => "io_uring",
            Self::Pvsync2 => "pvsync2",
            Self::Commands => "io_uring_cmd",
        }
    }
}

/// The options that the engine of this name has to itself.
pub(crate) fn options_of(job: &Job) -> impl Iterator<Item = &'static str> {
    OWN.iter().filter(|(_, has)| has.includes(job)).map(|(name, _)| *name)
}

impl Job {
    pub(super) fn check_engine_options(&self) -> Result<(), ParseError> {
        for (option, has) in OWN {
            if self.is_set(option) && !has.includes(self) {
                let engine = &self.ioengine_requested;
                let message = format!("engine {engine} of job `{}` has no `{option}`", self.name);
                let remedy = format!("use ioengine={} or remove {option}", has.example());
                return Err(self.error(option, message).with_remedy(remedy));
            }
        }
        let EngineOptions { uncached, nowait, atomic, force_async, .. } = self.engine;
        let flagged = uncached || nowait || atomic || force_async > 0;
        if uncached && self.direct {
            let message = "uncached empties the page cache, which direct=1 passes by";
            return Err(self.error("uncached", message).with_remedy("remove one of the two"));
        }
        if atomic && !self.direct {
            let error = self.error("atomic", "only direct I/O can be atomic");
            return Err(error.with_remedy("add direct=1"));
        }
        if flagged && self.ioengine_requested == "io_uring_cmd" {
            let options = ["uncached", "nowait", "atomic", "force_async"];
            let option = options.into_iter().find(|option| self.is_set(option));
            let message = "a command has no such flag";
            let error = self.error(option.unwrap_or("nowait"), message);
            return Err(error.with_remedy("use the block device and ioengine=io_uring"));
        }
        if flagged && self.hipri && self.ioengine != IoEngine::Psync {
            let message = "transfers are polled for or flagged here, not both";
            let error = self.error("hipri", message);
            return Err(error.with_remedy("use ioengine=pvsync2, or remove hipri"));
        }
        Ok(())
    }
}
