//! Traces that a job follows or leaves behind.
//!
//! Data flow: `options` parses text into these -> the bench reads traces, and writes them.
//!
//! Not here: the lines of a trace (`trace`).

use super::Job;
use crate::error::{ParseError, Warning};

/// Kinds of I/O of a trace that are left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplaySkip {
    /// Reads.
    pub read: bool,
    /// Writes.
    pub write: bool,
    /// Trims.
    pub trim: bool,
    /// Syncs of any kind.
    pub sync: bool,
}

/// Everything about traces, for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replay {
    /// Traces to follow, spread over the clones; `-` is standard input. Empty: none.
    pub read: Vec<String>,
    /// The trace to write.
    pub write: Option<String>,
    /// The trace is read bit by bit while the job runs, instead of at once before.
    pub chunked: bool,
    /// The times of the trace are not respected, only its order.
    pub no_stall: bool,
    /// The speed of the replay in percent: 200 is twice as fast.
    pub time_scale_percent: u32,
    /// Everything goes to this file.
    pub redirect: Option<String>,
    /// Offsets are divided by that; 1 leaves them alone.
    pub scale: u64,
    /// Offsets are rounded down to multiples of this power of two; 0 leaves them alone.
    pub align_bytes: u64,
    /// What is left out.
    pub skip: ReplaySkip,
}

impl Default for Replay {
    fn default() -> Self {
        Self {
            read: Vec::new(),
            write: None,
            chunked: false,
            no_stall: false,
            time_scale_percent: 100,
            redirect: None,
            scale: 1,
            align_bytes: 0,
            skip: ReplaySkip::default(),
        }
    }
}

/// The trace says what these would say.
const SAID: [&str; 24] = [
    "rw",
    "bs",
    "bsrange",
    "bssplit",
    "blockalign",
    "size",
    "io_size",
    "filesize",
    "offset",
    "offset_increment",
    "offset_align",
    "nrfiles",
    "directory",
    "filename_format",
    "file_service_type",
    "rwmixread",
    "rwmixwrite",
    "percentage_random",
    "random_distribution",
    "random_generator",
    "norandommap",
    "rw_sequencer",
    "bs_unaligned",
    "bs_is_seq_rand",
];

/// They change what the trace says, so that neither would be done.
const AGAINST: [&str; 14] = [
    "verify",
    "rate",
    "rate_iops",
    "rate_min",
    "rate_iops_min",
    "thinktime",
    "thinktime_iotime",
    "flow",
    "zonemode",
    "zonesize",
    "fill_device",
    "sync_file_range",
    "fsync",
    "fdatasync",
];

impl Job {
    /// What goes with traces, and what does not.
    pub(super) fn check_replay(&self, warnings: &mut Vec<Warning>) -> Result<(), ParseError> {
        if self.replay.write.is_some() && self.durability.sync_file_range.every > 0 {
            let message = "a trace has no line for sync_file_range";
            let remedy = "remove write_iolog, or use fdatasync";
            return Err(self.error("write_iolog", message).with_remedy(remedy));
        }
        if self.replay.read.is_empty() {
            return Ok(());
        }
        if let Some(option) = AGAINST.into_iter().find(|option| self.is_set(option)) {
            let harmless = option == "verify" && self.verify == super::Verify::None;
            if !harmless {
                let message = format!("{option} does not go with read_iolog");
                let remedy = format!("the trace says what is done and when; remove {option}");
                return Err(self.error(option, message).with_remedy(remedy));
            }
        }
        let said = SAID.into_iter().filter(|option| self.is_set(option));
        let said: Vec<&str> = said.collect();
        if let Some(first) = said.first() {
            let message = format!("no effect of {}: read_iolog says it", said.join(", "));
            warnings.push(self.warning(first, message));
        }
        Ok(())
    }
}
