//! What verification does beside its reads, and trims on the way.
//!
//! Data flow: `options` parses text into these -> the bench's verify phase follows them.
//!
//! Not here: methods and content of blocks (`content`).

use crate::error::ParseError;

use super::{Job, Verify};

/// Everything above, for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checking {
    /// Threads that check what was read; 0 is the job's own.
    pub threads: u32,
    /// CPUs those threads may run on, ascending; empty means any.
    pub cpus: Vec<u32>,
    /// Save what was written with which write, for a later run to check.
    pub state_save: bool,
    /// Check against what an earlier run has saved.
    pub state_load: bool,
    /// Whether a block must be of the last write to its place.
    pub write_sequence: bool,
    /// Whether a block must be of the run that wrote it last.
    pub header_seed: bool,
    /// Read back by repeating the sequence of writes instead of remembering them.
    pub replays: bool,
    /// Share of the written blocks that are trimmed, in percent.
    pub trim_percent: u8,
    /// Trim after every so many writes; 0 is never.
    pub trim_backlog: u64,
    /// How many of those at a time; 0 is as many as `trim_backlog`.
    pub trim_backlog_batch: u64,
    /// Whether trimmed blocks must read as zeros.
    pub trim_verify_zero: bool,
}

impl Default for Checking {
    fn default() -> Self {
        Self {
            threads: 0,
            cpus: Vec::new(),
            state_save: false,
            state_load: false,
            write_sequence: true,
            header_seed: true,
            replays: false,
            trim_percent: 0,
            trim_backlog: 0,
            trim_backlog_batch: 0,
            trim_verify_zero: false,
        }
    }
}

impl Job {
    /// Refuses checks that contradict one another, or the job.
    pub(super) fn check_checking(&self, cpus: u32) -> Result<(), ParseError> {
        let checking = &self.checking;
        if let Some(cpu) = checking.cpus.last().filter(|cpu| **cpu >= cpus) {
            let last = cpus.saturating_sub(1);
            let message = format!("there is no CPU {cpu}: this machine has CPUs 0 to {last}");
            let error = self.error("verify_async_cpus", message);
            return Err(error.with_remedy("name only CPUs that exist"));
        }
        if checking.state_load {
            let writes = self.rw.writes() && !self.content.verify_only;
            if self.verify == Verify::None || writes {
                let message = "verify_state_load checks what an earlier run wrote, with its method";
                let error = self.error("verify_state_load", message);
                return Err(error.with_remedy("add verify=METHOD, and rw=read or verify_only"));
            }
        }
        if checking.replays {
            self.check_repetition()?;
        }
        self.check_trims()
    }

    /// Refuses what needs to remember writes, or writes that cannot be repeated.
    fn check_repetition(&self) -> Result<(), ParseError> {
        let checking = &self.checking;
        let clash = [
            ("verify_backlog", self.content.verify_backlog > 0),
            ("verify_state_save", checking.state_save),
            ("verify_state_load", checking.state_load),
            ("trim_percentage", checking.trim_percent > 0),
        ];
        if let Some((option, _)) = clash.into_iter().find(|(_, clashes)| *clashes) {
            let message = format!("experimental_verify remembers nothing, which {option} needs");
            let error = self.error("experimental_verify", message);
            return Err(error.with_remedy(format!("remove {option} or experimental_verify")));
        }
        if self.rw.reads() && self.rw.writes_data() && self.pace.is_paced() {
            let message = "what a mixed job with a rate writes depends on time, so \
                           experimental_verify cannot repeat it";
            let error = self.error("experimental_verify", message);
            return Err(error.with_remedy("remove experimental_verify or the rate"));
        }
        Ok(())
    }

    fn check_trims(&self) -> Result<(), ParseError> {
        let checking = &self.checking;
        if checking.trim_percent == 0 {
            return Ok(());
        }
        let verified = self.verify != Verify::None && self.do_verify && self.rw.writes_data();
        if !verified || self.content.verify_only {
            let message = "trim_percentage trims blocks of a job that writes and verifies";
            let error = self.error("trim_percentage", message);
            return Err(error.with_remedy("add verify=METHOD, and rw=write or another that writes"));
        }
        if self.rw.trims() {
            let message = "a job that trims anyway trims no share of its blocks";
            let error = self.error("trim_percentage", message);
            return Err(error.with_remedy("remove trim_percentage, or use rw=write"));
        }
        if checking.trim_backlog == 0 {
            let message = "trim_percentage has no effect without trim_backlog";
            let error = self.error("trim_percentage", message);
            return Err(error.with_remedy("add trim_backlog=N: trim after every N writes"));
        }
        Ok(())
    }
}
