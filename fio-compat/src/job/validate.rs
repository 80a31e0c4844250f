//! Settles what depends on several options, and refuses what cannot run. Needs no I/O.
//!
//! Data flow: a job with its options applied -> the same job, consistent, and warnings.
//!
//! Not here: facts of files and devices, which only the bench can see.

use crate::error::{ParseError, Place, Warning};

use super::{Extent, IoEngine, Job};

impl Job {
    /// Fills in the defaults that depend on other options and checks the job as a whole.
    ///
    /// Idempotent. `cpus` is the number of CPUs of the machine.
    ///
    /// # Errors
    /// A [`ParseError`] at the place of the option that cannot be honoured.
    pub fn validate(&mut self, cpus: u32) -> Result<Vec<Warning>, ParseError> {
        let mut warnings = Vec::new();
        self.settle_engine(&mut warnings);
        self.check_engine_options()?;
        self.settle_depth();
        self.settle_workload()?;
        self.check_pace()?;
        self.check_steering()?;
        self.check_content()?;
        self.check_checking(cpus)?;
        self.check_memory()?;
        self.check_layout(&mut warnings)?;
        self.check_amounts()?;
        self.settle_time(&mut warnings);
        self.check_cpus(cpus)?;
        self.check_replay(&mut warnings)?;
        Ok(warnings)
    }

    fn settle_engine(&mut self, warnings: &mut Vec<Warning>) {
        if !self.is_set("ioengine") && self.iodepth > 1 {
            self.ioengine = IoEngine::IoUring;
            self.ioengine_requested = IoEngine::IoUring.as_str().to_owned();
            warnings.push(self.warning(
                "iodepth",
                "no ioengine is given and iodepth is above 1, so io_uring is used; \
                 fio would run psync at depth 1: set ioengine=psync for that",
            ));
        } else if self.ioengine.is_synchronous() && self.iodepth > 1 && !self.steering.offload {
            let message = format!(
                "iodepth={} has no effect: engine {} runs at depth 1; use ioengine=io_uring",
                self.iodepth, self.ioengine_requested
            );
            warnings.push(self.warning("iodepth", message));
        }
        let rings = matches!(self.ioengine, IoEngine::IoUring | IoEngine::RawUring);
        if !self.is_set("fixedbufs") {
            self.fixedbufs = rings;
        }
        if !self.is_set("registerfiles") {
            self.registerfiles = rings;
        }
    }

    fn settle_depth(&mut self) {
        let depth = self.iodepth;
        if self.iodepth_batch == 0 || self.iodepth_batch > depth {
            self.iodepth_batch = depth;
        }
        let unset = !self.is_set("iodepth_low") || self.iodepth_low == 0;
        if unset || self.iodepth_low > depth {
            self.iodepth_low = depth;
        }
        self.iodepth_batch_complete_min = self.iodepth_batch_complete_min.min(depth);
        let least = self.iodepth_batch_complete_min;
        let max = self.iodepth_batch_complete_max;
        let max = if self.is_set("iodepth_batch_complete_max") { max.max(least) } else { least };
        // Polling with a minimum of 0 must still be able to reap something.
        self.iodepth_batch_complete_max = max.clamp(1, depth);
    }

    fn check_amounts(&self) -> Result<(), ParseError> {
        let bs = self.block_min_bytes();
        if bs == 0 {
            return Err(self.error("bs", "a block cannot have 0 bytes"));
        }
        for (option, amount) in [("size", self.size), ("io_size", self.io_size)] {
            if let Some(Extent::Bytes(bytes)) = amount
                && bytes < bs
                && bytes > 0
            {
                let message = format!(
                    "{option} of job `{}` is {bytes} bytes, less than one block of {bs}",
                    self.name
                );
                let remedy = format!("give {option} at least the block size");
                return Err(self.error(option, message).with_remedy(remedy));
            }
        }
        Ok(())
    }

    fn settle_time(&mut self, warnings: &mut Vec<Warning>) {
        if self.time_based && self.runtime_ns.is_none() {
            self.time_based = false;
            let message = "time_based has no effect without runtime; give runtime=SECONDS";
            warnings.push(self.warning("time_based", message));
        }
    }

    fn check_cpus(&self, cpus: u32) -> Result<(), ParseError> {
        match self.cpus_allowed.last() {
            Some(cpu) if *cpu >= cpus => {
                let last = cpus.saturating_sub(1);
                let message = format!("there is no CPU {cpu}: this machine has CPUs 0 to {last}");
                Err(self.error("cpus_allowed", message))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn error(&self, option: &str, message: impl Into<String>) -> ParseError {
        ParseError::new(self.place_of(option).unwrap_or(Place::COMMAND_LINE), message)
    }

    pub(super) fn warning(&self, option: &str, message: impl Into<String>) -> Warning {
        let place = self.place_of(option).unwrap_or(Place::COMMAND_LINE);
        Warning { place, message: message.into() }
    }
}
