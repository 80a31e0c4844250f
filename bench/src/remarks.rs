//! What a reader should know before believing the numbers of a run that went well.
//!
//! Data flow: finished jobs and the machine's memory -> sentences, for the warnings of the report.
//!
//! Not here: what was refused or degraded (`ioengine`), the look before a run (`doctor`).

use std::path::Path;

use crate::environment::memory_bytes;
use crate::plan::Kind;
use crate::run::Finished;

/// Below this share of I/Os at the depth asked for, the depth was not reached.
const REACHED_PERCENT: f64 = 1.0;

/// Above this share of the time on its CPU, a generator measures itself.
const BUSY_PERCENT: u64 = 90;

/// Shorter runs say nothing about CPU time.
const RUNTIME_MIN_NS: u64 = 100_000_000;

/// A percentile needs at least so many I/Os above it.
const TAIL_MIN: f64 = 10.0;

/// Remarks on all jobs, each once; clones are not told apart.
pub(crate) fn remarks(finished: &[Finished]) -> Vec<String> {
    let memory = memory_bytes(Path::new("/"), "MemTotal");
    let mut lines: Vec<String> = Vec::new();
    for job in finished.iter().filter(|job| job.plan.job.ioengine.moves_data()) {
        let found = [cached(job, memory), shallow(job), busy(job)];
        for line in found.into_iter().flatten() {
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// Percentiles that mean little. Almost every short run has some, so they are for documents.
pub(crate) fn thin_tails(finished: &[Finished]) -> Vec<String> {
    let mut lines: Vec<String> = finished.iter().filter_map(short).collect();
    lines.dedup();
    lines
}

/// Buffered I/O on files that fit into memory is I/O to memory.
fn cached(finished: &Finished, memory_bytes: Option<u64>) -> Option<String> {
    let (plan, job) = (&finished.plan, &finished.plan.job);
    let durable = job.fsync > 0 || job.fdatasync > 0 || job.end_fsync;
    let namespace = plan.targets.iter().any(|target| matches!(target.kind, Kind::Namespace { .. }));
    if job.direct || namespace || durable && !job.rw.reads() || total_ios(finished) == 0 {
        return None;
    }
    let bytes: u64 = plan.targets.iter().map(|target| target.region.len_bytes).sum();
    (bytes < memory_bytes?).then(|| {
        let name = &job.name;
        let mib = bytes >> 20;
        format!(
            "job `{name}` is buffered and its files ({mib} MiB) fit into memory: the page cache \
             was measured as much as the device; set direct=1, or size beyond the memory"
        )
    })
}

/// `iodepth` that the engine, the pacing or the device never let build up.
fn shallow(finished: &Finished) -> Option<String> {
    let job = &finished.plan.job;
    if job.iodepth < 2 || job.ioengine.is_synchronous() || job.pace.is_paced() {
        return None;
    }
    let ios = total_ios(finished);
    let shares = finished.outcome.recorder.depth.level.percent(ios);
    let wanted = (31 - job.iodepth.leading_zeros()).min(6) as usize;
    let reached: f64 = shares[wanted..].iter().sum();
    (ios > 8 * u64::from(job.iodepth) && reached < REACHED_PERCENT).then(|| {
        let (name, depth) = (&job.name, job.iodepth);
        format!(
            "job `{name}` reached its iodepth={depth} in less than 1 % of its I/Os: they completed \
             before the next were submitted, so this is the result of a lower depth"
        )
    })
}

/// The generator, not the target, set the pace.
fn busy(finished: &Finished) -> Option<String> {
    let (job, recorder) = (&finished.plan.job, &finished.outcome.recorder);
    let runtime_ns = recorder.wall_ns();
    let cpu_ns = recorder.usage().cpu_ns();
    let is_busy = runtime_ns >= RUNTIME_MIN_NS && cpu_ns >= runtime_ns / 100 * BUSY_PERCENT;
    // A synchronous call on the page cache is nothing but CPU time, which `cached` has said.
    (is_busy && job.direct).then(|| {
        let name = &job.name;
        let percent = cpu_ns.saturating_mul(100) / runtime_ns;
        format!(
            "job `{name}` used its CPU for {percent} % of its time: the target may be faster than \
             one thread can drive it; raise numjobs"
        )
    })
}

/// The rarest percentile asked for rests on a handful of I/Os.
#[allow(clippy::cast_precision_loss, reason = "compared with ten")]
fn short(finished: &Finished) -> Option<String> {
    let job = &finished.plan.job;
    let wanted = job.clat_percentiles || job.lat_percentiles;
    let rarest = job.percentile_list.iter().copied().filter(|percent| *percent < 100.0);
    let rarest = rarest.fold(0.0, f64::max);
    let counts = finished.outcome.recorder.recorded();
    let most = counts.iter().map(|totals| totals.ios).max().unwrap_or(0);
    let above = most as f64 * (100.0 - rarest) / 100.0;
    (wanted && !job.gtod_reduce && most > 0 && above < TAIL_MIN).then(|| {
        let name = &job.name;
        format!(
            "job `{name}` made {most} I/Os, of which too few lie above the {rarest}th percentile \
             for it to mean anything; run it longer"
        )
    })
}

fn total_ios(finished: &Finished) -> u64 {
    finished.outcome.recorder.recorded().iter().map(|totals| totals.ios).sum()
}
