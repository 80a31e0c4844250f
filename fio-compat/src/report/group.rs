//! Adding the jobs of a group up: into one report (`group_reporting`) and into the status lines.
//!
//! Data flow: clones' reports -> merged reports -> one summary per group and direction.
//!
//! Not here: the merge of a single statistic (`stats`).

use crate::job::{Unified, Units};

use super::{DirectionReport, JobReport, RunReport, per_second};

/// What the `Run status group` lines say about one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupSummary {
    /// Number of the group.
    pub group_id: u32,
    /// Reads.
    pub read: DirectionSummary,
    /// Writes.
    pub write: DirectionSummary,
    /// Trims.
    pub trim: DirectionSummary,
    /// All directions as one, of jobs that want that.
    pub mixed: DirectionSummary,
    /// Units of the group's last job.
    pub units: Units,
}

/// One direction of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionSummary {
    /// Bytes of all reports.
    pub io_bytes: u64,
    /// The slowest report's bytes per second.
    pub bandwidth_min_bytes: u64,
    /// The fastest report's bytes per second.
    pub bandwidth_max_bytes: u64,
    /// The shortest runtime.
    pub runtime_min_ms: u64,
    /// The longest runtime; 0 if nothing went this way.
    pub runtime_max_ms: u64,
}

impl DirectionSummary {
    /// All bytes over the longest runtime.
    #[must_use]
    pub fn aggregate_bytes(&self) -> u64 {
        per_second(self.io_bytes, self.runtime_max_ms)
    }

    fn add(&mut self, direction: &DirectionReport) {
        let bandwidth = direction.bandwidth_bytes();
        let runtime_ms = direction.runtime_ms;
        if runtime_ms == 0 {
            return;
        }
        let first = self.runtime_max_ms == 0;
        let least = |mine: u64, new: u64| if first { new } else { mine.min(new) };
        self.runtime_min_ms = least(self.runtime_min_ms, runtime_ms);
        self.bandwidth_min_bytes = least(self.bandwidth_min_bytes, bandwidth);
        self.runtime_max_ms = self.runtime_max_ms.max(runtime_ms);
        self.bandwidth_max_bytes = self.bandwidth_max_bytes.max(bandwidth);
        self.io_bytes += direction.io_bytes;
    }
}

impl GroupSummary {
    /// The directions with the labels of the status lines.
    #[must_use]
    pub const fn directions(&self) -> [(&'static str, &DirectionSummary); 4] {
        [("READ", &self.read), ("WRITE", &self.write), ("TRIM", &self.trim), ("MIXED", &self.mixed)]
    }

    /// The sums for a direction by the name that [`JobReport::reported`] gives it.
    #[must_use]
    pub fn of(&self, direction: &str) -> &DirectionSummary {
        match direction {
            "read" => &self.read,
            "write" => &self.write,
            "trim" => &self.trim,
            _ => &self.mixed,
        }
    }

    fn add(&mut self, job: &JobReport) {
        self.units = job.units;
        let directions = [&job.read, &job.write, &job.trim];
        if job.unified != Unified::Mixed {
            let sums = [&mut self.read, &mut self.write, &mut self.trim];
            sums.into_iter().zip(directions).for_each(|(sum, direction)| sum.add(direction));
        }
        match job.unified {
            Unified::None => (),
            Unified::Mixed => self.mixed.add(&job.mixed()),
            Unified::Both => directions.iter().for_each(|direction| self.mixed.add(direction)),
        }
    }
}

impl RunReport {
    /// Merges neighbours of one group that asked for `group_reporting` into one report.
    ///
    /// Name, options and process number are the first member's, and so is the first failure.
    pub fn merge_groups(&mut self) {
        let mut merged: Vec<JobReport> = Vec::with_capacity(self.jobs.len());
        for job in self.jobs.drain(..) {
            match merged.last_mut() {
                Some(last) if last.takes_in(&job) => last.merge(&job),
                _ => merged.push(job),
            }
        }
        self.jobs = merged;
    }

    /// One summary per group, ascending.
    #[must_use]
    pub fn groups(&self) -> Vec<GroupSummary> {
        let mut groups: Vec<GroupSummary> = Vec::new();
        for job in &self.jobs {
            let at = match groups.binary_search_by_key(&job.group_id, |group| group.group_id) {
                Ok(at) => at,
                Err(at) => {
                    groups
                        .insert(at, GroupSummary { group_id: job.group_id, ..Default::default() });
                    at
                }
            };
            if job.shown {
                groups[at].add(job);
            }
        }
        groups
    }
}

impl JobReport {
    fn takes_in(&self, other: &Self) -> bool {
        self.shown == other.shown
            && self.group_reporting
            && other.group_reporting
            && self.group_id == other.group_id
    }

    fn merge(&mut self, other: &Self) {
        self.jobs_count += other.jobs_count;
        self.error = self.error.take().or_else(|| other.error.clone());
        self.eta_s = self.eta_s.max(other.eta_s);
        self.elapsed_s = self.elapsed_s.max(other.elapsed_s);
        if let Some(more) = &other.errors {
            let errors = self.errors.get_or_insert_default();
            errors.total += more.total;
            errors.first = errors.first.take().or_else(|| more.first.clone());
        }
        self.read.merge(&other.read);
        self.write.merge(&other.write);
        self.trim.merge(&other.trim);
        self.sync.total_ios += other.sync.total_ios;
        self.sync.lat.merge(&other.sync.lat);
        self.job_runtime_ms += other.job_runtime_ms;
        self.usr_cpu_ns += other.usr_cpu_ns;
        self.sys_cpu_ns += other.sys_cpu_ns;
        self.ctx += other.ctx;
        self.majf += other.majf;
        self.minf += other.minf;
        self.depth.merge(&other.depth);
        self.distribution.merge(&other.distribution);
    }
}

impl DirectionReport {
    pub(super) fn merge(&mut self, other: &Self) {
        self.io_bytes += other.io_bytes;
        self.runtime_ms = self.runtime_ms.max(other.runtime_ms);
        self.total_ios += other.total_ios;
        self.short_ios += other.short_ios;
        self.drop_ios += other.drop_ios;
        self.slat.merge(&other.slat);
        self.clat.merge(&other.clat);
        self.lat.merge(&other.lat);
        self.bw.merge(&other.bw);
        self.iops.merge(&other.iops);
    }
}
