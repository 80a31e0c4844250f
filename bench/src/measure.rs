//! Turns timestamps of single I/Os into what fio would report about them.
//!
//! Data flow: the worker's clock readings -> [`Recorder`] (thread-local, no lock, no allocation)
//! -> one `JobReport` at the end.
//!
//! Not here: reading the clock (`run::worker`), sampled rates (`run::conductor`), printing.

use fio_compat::report::{DirectionReport, JobFailure, JobReport};
use fio_compat::stats::{DepthStats, LatencyDistribution, LatencyStat, RunningStat};

use crate::clock::ThreadUsage;
use crate::ioengine::Operation;
use crate::run::lane::Totals;
use crate::run::logs::JobLogs;

/// Which latencies a job wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Submission latency.
    pub(crate) slat: bool,
    /// Completion latency.
    pub(crate) clat: bool,
    /// Total latency.
    pub(crate) lat: bool,
}

/// The three moments of one I/O.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    /// When it was created.
    pub(crate) start_ns: u64,
    /// When the call that submitted it returned; for synchronous engines when it was called.
    pub(crate) issue_ns: u64,
    /// When its completion was reaped.
    pub(crate) complete_ns: u64,
}

/// Latencies of one direction. A power of two in size, so that a shift finds it.
#[derive(Clone, Default)]
#[repr(align(256))]
struct Latencies {
    slat: LatencyStat,
    clat: LatencyStat,
    lat: LatencyStat,
    /// The latest I/Os. Of what they took, the others have as yet nothing but the counts by
    /// magnitude of submission and total latencies.
    run: Run,
}

impl Latencies {
    /// Begins another run; adds the one before, which is over, to what it belongs to.
    fn end_run(&mut self, next: Run, wanted: Wanted, distribution: &mut LatencyDistribution) {
        std::mem::replace(&mut self.run, next).end(wanted, self, distribution);
    }
}

/// I/Os in a row whose completion latency is the same: those that were submitted by one call and
/// reaped by one call have the same, to the nanosecond. So their total latencies differ as their
/// submission latencies do, of which alone the moments are taken one by one.
#[derive(Clone, Copy)]
struct Run {
    completion_ns: u64,
    /// As many as the run has, whichever latencies are wanted.
    submission: RunningStat,
    /// Of an engine whose I/Os are over when they are submitted, which takes no time of its own.
    synchronous: bool,
}

impl Default for Run {
    fn default() -> Self {
        // Longer than any I/O takes, so that the first one begins another run.
        let (completion_ns, submission) = (u64::MAX, RunningStat::default());
        Self { completion_ns, submission, synchronous: false }
    }
}

impl Run {
    fn of(completion_ns: u64, submission_ns: u64, synchronous: bool) -> Self {
        let mut submission = RunningStat::default();
        submission.record(submission_ns);
        Self { completion_ns, submission, synchronous }
    }

    /// Adds the I/Os of the run, which is over, to what they belong to.
    fn end(self, wanted: Wanted, to: &mut Latencies, distribution: &mut LatencyDistribution) {
        let Self { completion_ns, submission, synchronous } = self;
        let count = submission.count();
        if count == 0 {
            return;
        }
        if wanted.clat {
            to.clat.record_many(completion_ns, count);
            distribution.record_many(completion_ns, count);
        }
        if wanted.slat && !synchronous {
            to.slat.moments.merge(&submission);
        }
        if wanted.lat {
            to.lat.moments.merge(&submission.plus(completion_ns));
        }
    }
}

/// Everything one worker records.
#[derive(Clone)]
pub(crate) struct Recorder {
    wanted: Wanted,
    latencies: [Latencies; 3],
    sync: LatencyStat,
    /// Depths and batch sizes.
    pub(crate) depth: DepthStats,
    distribution: LatencyDistribution,
    /// Reads, writes, trims; since the start, ramp time included.
    pub(crate) totals: [Totals; 3],
    /// What `totals` was when recording began.
    before: [Totals; 3],
    short_ios: [u64; 3],
    syncs: u64,
    runtime_ns: [u64; 3],
    /// The phases together, whatever they did.
    wall_ns: u64,
    usage: ThreadUsage,
    /// Completion measured from when an I/O was due, where there is a schedule: reads, writes,
    /// trims.
    pub(crate) intended: Option<Box<[LatencyStat; 3]>>,
    /// The depth that keeps the latency of `latency_target`, as far as it is known.
    pub(crate) depth_found: Option<u32>,
    /// Logs of single I/Os, where they are wanted.
    pub(crate) logs: Option<Box<JobLogs>>,
}

/// Read, write or trim; flushes count with the writes where a direction is needed.
#[inline]
pub(crate) fn direction(operation: Operation) -> usize {
    match operation {
        Operation::Read => 0,
        Operation::Trim => 2,
        _ => 1,
    }
}

impl Recorder {
    /// Nothing recorded yet.
    pub(crate) fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            latencies: Default::default(),
            sync: LatencyStat::default(),
            depth: DepthStats::default(),
            distribution: LatencyDistribution::default(),
            totals: Default::default(),
            before: Default::default(),
            short_ios: [0; 3],
            syncs: 0,
            runtime_ns: [0; 3],
            wall_ns: 0,
            usage: ThreadUsage::default(),
            intended: None,
            depth_found: None,
            logs: None,
        }
    }

    /// Forgets the ramp time.
    pub(crate) fn restart(&mut self) {
        let totals = self.totals;
        let mut logs = self.logs.take();
        if let Some(logs) = &mut logs {
            logs.restart(true);
        }
        let (depth_found, fresh) = (self.depth_found, Self::new(self.wanted));
        let intended = self.intended.take().map(|_| Box::default());
        *self = Self { totals, before: totals, logs, intended, depth_found, ..fresh };
    }

    /// A copy as if the phase that began at `since_ns` and goes in `directions` ended now.
    #[cold]
    pub(crate) fn so_far(&self, directions: [bool; 3], since_ns: u64, usage: ThreadUsage) -> Self {
        let mut copy = Self { logs: None, ..self.clone() };
        let done = copy.recorded();
        let used = std::array::from_fn(|index| directions[index] && done[index].ios > 0);
        copy.add_phase(used, crate::clock::now_ns().saturating_sub(since_ns));
        copy.add_usage(ThreadUsage::now().since(usage));
        copy
    }

    /// Counts a completed I/O.
    #[inline]
    pub(crate) fn count(&mut self, operation: Operation, bytes: u32) {
        if operation.is_sync() {
            self.syncs += 1;
            return;
        }
        let totals = &mut self.totals[direction(operation)];
        totals.ios += 1;
        totals.bytes += u64::from(bytes);
    }

    /// Counts completed I/Os of each direction.
    pub(crate) fn count_moved(&mut self, ios: [u64; 3], bytes: [u64; 3]) {
        for (totals, (ios, bytes)) in self.totals.iter_mut().zip(ios.into_iter().zip(bytes)) {
            totals.ios += ios;
            totals.bytes += bytes;
        }
    }

    /// Counts a transfer that moved less than asked and was continued.
    pub(crate) fn count_short(&mut self, operation: Operation) {
        self.short_ios[direction(operation)] += 1;
    }

    /// Records the latencies of a completed I/O.
    #[inline(always)]
    pub(crate) fn time(&mut self, operation: Operation, times: Times, synchronous: bool) {
        let completion = times.complete_ns.saturating_sub(times.issue_ns);
        if operation.is_sync() {
            self.sync.record(completion);
            return;
        }
        let direction = direction(operation);
        let submission = times.issue_ns.saturating_sub(times.start_ns);
        let latencies = &mut self.latencies[direction];
        if self.wanted.slat && !synchronous {
            latencies.slat.histogram.record(submission);
        }
        if self.wanted.lat {
            // Neither is longer than the program runs.
            latencies.lat.histogram.record(submission.wrapping_add(completion));
        }
        if latencies.run.completion_ns == completion {
            latencies.run.submission.record(submission);
        } else {
            self.begin_run(direction, Run::of(completion, submission, synchronous));
        }
    }

    /// Whether [`Recorder::time_all`] records what is wanted.
    #[inline]
    pub(crate) const fn wants_all(&self) -> bool {
        self.wanted.slat && self.wanted.clat && self.wanted.lat
    }

    /// As [`Recorder::time`], where all latencies are wanted and the engine is asynchronous.
    #[inline(always)]
    pub(crate) fn time_all(&mut self, direction: usize, submission_ns: u64, completion_ns: u64) {
        let latencies = &mut self.latencies[direction];
        latencies.slat.histogram.record(submission_ns);
        latencies.lat.histogram.record(submission_ns.wrapping_add(completion_ns));
        if latencies.run.completion_ns == completion_ns {
            latencies.run.submission.record(submission_ns);
        } else {
            self.begin_run(direction, Run::of(completion_ns, submission_ns, false));
        }
    }

    #[inline(never)]
    fn begin_run(&mut self, direction: usize, run: Run) {
        self.latencies[direction].end_run(run, self.wanted, &mut self.distribution);
    }

    /// Records how long after its time an I/O was complete.
    pub(crate) fn time_intended(&mut self, direction: usize, latency_ns: u64) {
        if let Some(intended) = &mut self.intended {
            intended[direction].record(latency_ns);
        }
    }

    /// Adds the wall time of a phase to the job and to the directions it had.
    pub(crate) fn add_phase(&mut self, directions: [bool; 3], runtime_ns: u64) {
        self.wall_ns += runtime_ns;
        self.add_runtime(directions, runtime_ns);
    }

    /// Adds a part of a phase to directions that the phase as a whole does not have.
    pub(crate) fn add_runtime(&mut self, directions: [bool; 3], runtime_ns: u64) {
        for (total, used) in self.runtime_ns.iter_mut().zip(directions) {
            *total += if used { runtime_ns } else { 0 };
        }
    }

    /// Adds what the thread used while recording.
    pub(crate) fn add_usage(&mut self, usage: ThreadUsage) {
        self.usage = usage;
    }

    /// I/Os recorded, without the ramp time.
    pub(crate) fn recorded(&self) -> [Totals; 3] {
        let since = |index: usize| Totals {
            ios: self.totals[index].ios - self.before[index].ios,
            bytes: self.totals[index].bytes - self.before[index].bytes,
        };
        [since(0), since(1), since(2)]
    }

    /// The wall time of a direction: 0 reads, 1 writes, 2 trims.
    pub(crate) fn runtime_ns(&self, direction: usize) -> u64 {
        self.runtime_ns[direction]
    }

    /// The wall time of all phases: they follow one another.
    pub(crate) fn wall_ns(&self) -> u64 {
        self.wall_ns
    }

    /// The completion latency of a direction.
    pub(crate) fn completion_latency(&self, direction: usize) -> LatencyStat {
        self.with_run(direction).clat
    }

    /// The latency of a direction from creation to completion.
    pub(crate) fn total_latency(&self, direction: usize) -> LatencyStat {
        self.with_run(direction).lat
    }

    /// The latencies of a direction, those of the latest run included.
    fn with_run(&self, direction: usize) -> Latencies {
        let (mut latencies, mut elsewhere) = (self.latencies[direction].clone(), Box::default());
        latencies.end_run(Run::default(), self.wanted, &mut elsewhere);
        latencies
    }

    /// What the thread used while recording.
    pub(crate) fn usage(&self) -> ThreadUsage {
        self.usage
    }

    /// Moves everything into `report`, which already knows the job.
    pub(crate) fn fill(mut self, report: &mut JobReport, failure: Option<JobFailure>) {
        for latencies in &mut self.latencies {
            latencies.end_run(Run::default(), self.wanted, &mut self.distribution);
        }
        let recorded = self.recorded();
        let [read, write, trim] = self.latencies;
        fill_direction(&mut report.read, read, recorded[0], self.runtime_ns[0]);
        fill_direction(&mut report.write, write, recorded[1], self.runtime_ns[1]);
        fill_direction(&mut report.trim, trim, recorded[2], self.runtime_ns[2]);
        report.read.short_ios = self.short_ios[0];
        report.write.short_ios = self.short_ios[1];
        report.sync.total_ios = self.syncs;
        report.sync.lat = self.sync;
        report.depth = self.depth;
        report.distribution = self.distribution;
        report.job_runtime_ms = to_ms(self.wall_ns);
        report.usr_cpu_ns = self.usage.user_ns;
        report.sys_cpu_ns = self.usage.system_ns;
        report.ctx = self.usage.switches;
        report.majf = self.usage.major_faults;
        report.minf = self.usage.minor_faults;
        report.error = failure;
        report.iodepth = self.depth_found.unwrap_or(report.iodepth);
    }
}

/// fio rounds up, so that a phase that did something never took 0 ms.
pub(crate) fn to_ms(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000)
}

fn fill_direction(
    report: &mut DirectionReport,
    latencies: Latencies,
    totals: Totals,
    runtime_ns: u64,
) {
    report.io_bytes = totals.bytes;
    report.total_ios = totals.ios;
    report.runtime_ms = if totals.ios > 0 { to_ms(runtime_ns) } else { 0 };
    report.slat = latencies.slat;
    report.clat = latencies.clat;
    report.lat = latencies.lat;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs of equal latencies come out as if each had been recorded by itself.
    #[test]
    fn completion_latencies_are_counted_once_each_however_they_repeat() {
        let mut recorder = Recorder::new(Wanted { slat: true, clat: true, lat: true });
        let mut expected = [LatencyStat::default(), LatencyStat::default()];
        let (mut slat, mut lat) = (expected.clone(), expected.clone());
        let mut distribution = LatencyDistribution::default();
        let latencies = [0, 0, 7, 7, 7, 900, 7, 5_000_000, 5_000_000];
        for (at, latency_ns) in latencies.into_iter().enumerate() {
            let operation = if at % 4 == 3 { Operation::Write } else { Operation::Read };
            let start_ns = 90 - at as u64;
            let times = Times { start_ns, issue_ns: 100, complete_ns: 100 + latency_ns };
            recorder.time(operation, times, false);
            expected[direction(operation)].record(latency_ns);
            slat[direction(operation)].record(100 - start_ns);
            lat[direction(operation)].record(100 + latency_ns - start_ns);
            distribution.record(latency_ns);
        }
        for (direction, expected) in expected.iter().enumerate() {
            assert_eq!(recorder.completion_latency(direction), *expected);
            assert_eq!(recorder.total_latency(direction), lat[direction]);
        }
        let mut report = JobReport::new("a");
        recorder.fill(&mut report, None);
        assert_eq!((&report.read.clat, &report.write.clat), (&expected[0], &expected[1]));
        assert_eq!(report.distribution, distribution);
        assert_eq!((&report.read.slat, &report.write.slat), (&slat[0], &slat[1]));
        assert_eq!((&report.read.lat, &report.write.lat), (&lat[0], &lat[1]));
    }

    /// The short way records what the long one does.
    #[test]
    fn short_way_of_times_records_the_same() {
        let all = Wanted { slat: true, clat: true, lat: true };
        let (mut short, mut long) = (Recorder::new(all), Recorder::new(all));
        assert!(short.wants_all());
        for at in 0..500_u64 {
            let operation = if at % 7 == 0 { Operation::Write } else { Operation::Read };
            let (submission_ns, completion_ns) = (at * at * 31 % 9_000, at / 32 * 1_000);
            let complete_ns = submission_ns + completion_ns;
            let times = Times { start_ns: 0, issue_ns: submission_ns, complete_ns };
            long.time(operation, times, false);
            short.time_all(operation as usize, submission_ns, completion_ns);
        }
        let (mut one, mut other) = (JobReport::new("a"), JobReport::new("a"));
        short.fill(&mut one, None);
        long.fill(&mut other, None);
        assert!(one.read.slat.count() > 400 && one.write.lat.count() > 70);
        for (one, other) in [(&one.read, &other.read), (&one.write, &other.write)] {
            assert_eq!((&one.slat, &one.clat, &one.lat), (&other.slat, &other.clat, &other.lat));
        }
        assert_eq!(one.distribution, other.distribution);
    }

    /// What takes no time to submit has no submission latency, and latencies that are not wanted
    /// are not there.
    #[test]
    fn latencies_that_are_not_wanted_are_empty() {
        let times = Times { start_ns: 90, issue_ns: 100, complete_ns: 107 };
        for (synchronous, slat, clat, lat) in [
            (true, true, true, true),
            (false, true, false, false),
            (false, false, true, false),
            (false, false, false, true),
        ] {
            let mut recorder = Recorder::new(Wanted { slat, clat, lat });
            for _ in 0..3 {
                recorder.time(Operation::Read, times, synchronous);
            }
            let mut report = JobReport::new("a");
            recorder.fill(&mut report, None);
            let mut expected =
                [LatencyStat::default(), LatencyStat::default(), LatencyStat::default()];
            for _ in 0..3 {
                let wanted = [slat && !synchronous, clat, lat];
                for ((expected, wanted), value) in expected.iter_mut().zip(wanted).zip([10, 7, 17])
                {
                    if wanted {
                        expected.record(value);
                    }
                }
            }
            assert_eq!([report.read.slat, report.read.clat, report.read.lat], expected);
        }
    }
}
