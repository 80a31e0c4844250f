//! From finished jobs to fio's report and to an exit code.
//!
//! Data flow: [`Finished`] -> `JobReport` per clone -> `RunReport`; our own results go under
//! its extra key.
//!
//! Not here: text and JSON (`fio_compat::render`).

mod intended;

use fio_compat::report::{DiskUtil, ErrorCounts, JobFailure, JobReport, RunReport};
use fio_compat::{ContinueOnError, Invocation, OutputFormat, render};
use serde_json::json;

use crate::clock::unix_ms;
use crate::content::Mismatch;
use crate::run::policy::Errors;
use crate::run::{Finished, Live};

/// Our name and version, as it appears in reports.
pub(crate) const VERSION: &str = concat!("mfio-bench ", env!("CARGO_PKG_VERSION"));

/// What a report says about the run as a whole.
pub(crate) struct Frame<'a> {
    /// The command line.
    pub(crate) invocation: &'a Invocation,
    /// When the program started, in milliseconds since 1970.
    pub(crate) begun_unix_ms: u64,
    /// What the kernel counted for the disks.
    pub(crate) disk_util: Vec<DiskUtil>,
    /// What the reader should know.
    pub(crate) warnings: Vec<String>,
}

/// Builds the report of a run.
pub(crate) fn run_report(frame: Frame<'_>, finished: Vec<Finished>) -> RunReport {
    let extra = extra(&finished);
    let begun_unix_ms = frame.begun_unix_ms;
    let jobs = finished.into_iter().map(|job| {
        let failure = job.outcome.failure.as_ref().map(|failure| failure.report());
        let live = Live {
            plan: &job.plan,
            recorder: job.outcome.recorder,
            errors: job.outcome.errors,
            samples: &job.samples,
            started_unix_ms: job.started_unix_ms,
        };
        job_report(live, failure, begun_unix_ms)
    });
    let jobs = jobs.collect();
    assembled(frame, jobs, extra)
}

/// Builds the report of a run that goes on.
pub(crate) fn status_report(frame: Frame<'_>, live: Vec<Live<'_>>) -> RunReport {
    let begun_unix_ms = frame.begun_unix_ms;
    let jobs = live.into_iter().map(|live| job_report(live, None, begun_unix_ms)).collect();
    assembled(frame, jobs, json!({ "finished": false }))
}

fn assembled(frame: Frame<'_>, jobs: Vec<JobReport>, extra: serde_json::Value) -> RunReport {
    let mut report = RunReport {
        version: VERSION.to_owned(),
        timestamp_ms: unix_ms(),
        utc_offset_s: 0,
        global_options: frame.invocation.global_options.clone(),
        jobs,
        disk_util: frame.disk_util,
        warnings: frame.warnings,
        extra,
    };
    report.merge_groups();
    report
}

/// The report in every format asked for, in fio's order.
pub(crate) fn rendered(report: &RunReport, invocation: &Invocation) -> Vec<String> {
    let text = |format: &OutputFormat| match format {
        OutputFormat::Terse => render::terse(report, invocation.terse_version),
        OutputFormat::Json => render::json(report),
        OutputFormat::JsonPlus => render::json_plus(report),
        OutputFormat::Normal => render::normal(report),
    };
    invocation.formats.iter().map(text).collect()
}

fn job_report(live: Live<'_>, failure: Option<JobFailure>, begun_unix_ms: u64) -> JobReport {
    let mut report = JobReport::for_job(&live.plan.job);
    report.pid = std::process::id();
    report.job_start_ms = live.started_unix_ms;
    report.elapsed_s = unix_ms().saturating_sub(begun_unix_ms).div_ceil(1000);
    live.recorder.fill(&mut report, failure);
    report.steady.clone_from(&live.samples.steady);
    live.samples.fill([&mut report.read, &mut report.write, &mut report.trim]);
    let Errors { total, first, .. } = live.errors;
    if live.plan.job.control.continue_on_error != ContinueOnError::default() || total > 0 {
        let first = first.map(|first| first.report());
        report.errors = Some(ErrorCounts { total, first });
    }
    report
}

/// What fio has no key for.
fn extra(finished: &[Finished]) -> serde_json::Value {
    let jobs: Vec<serde_json::Value> = finished
        .iter()
        .map(|job| {
            let recorder = &job.outcome.recorder;
            let ios: u64 = recorder.recorded().iter().map(|totals| totals.ios).sum();
            let cpu_ns = recorder.usage().cpu_ns();
            let mut own = json!({
                "jobname": job.plan.job.name,
                "engine": job.plan.job.ioengine.as_str(),
                "in_use": job.outcome.traits.in_use,
                "degraded": job.outcome.traits.degraded,
                "cpu_ns_per_io": cpu_ns.checked_div(ios),
                "process_cpu_ns": recorder.usage().process_ns,
                "verify_failures": job.outcome.mismatch_count,
            });
            if let Some(intended) = intended::object(recorder, &job.plan.job) {
                own["intended_lat_ns"] = intended;
            }
            own
        })
        .collect();
    json!({ "jobs": jobs })
}

/// Lines about failures, for stderr.
pub(crate) fn failure_lines(finished: &[Finished]) -> Vec<String> {
    let mut lines = Vec::new();
    for job in finished {
        let paths: Vec<_> = job.plan.targets.iter().map(|target| target.path.clone()).collect();
        for wrong in &job.outcome.mismatches {
            let path = paths.get(wrong.file as usize).map(|path| path.display().to_string());
            let (expected, received) = &wrong.checksums;
            lines.push(format!(
                "{}: verify failed at file {} offset {}, length {} \
                 (requested block: offset={}, length={})",
                job.plan.job.verify.as_str(),
                path.clone().unwrap_or_default(),
                wrong.offset_bytes,
                wrong.len_bytes,
                wrong.offset_bytes,
                wrong.len_bytes,
            ));
            lines.push(format!("       Expected CRC: {expected}"));
            lines.push(format!("       Received CRC: {received}"));
            lines.push(format!("       {}", wrong.fault));
            lines.extend(dump(wrong, path.as_deref().unwrap_or_default()));
        }
        let shown = u64::try_from(job.outcome.mismatches.len()).unwrap_or(0);
        if job.outcome.mismatch_count > shown {
            let more = job.outcome.mismatch_count - shown;
            lines.push(format!("       and {more} more wrong blocks of job {}", job.plan.job.name));
        }
        lines.extend(job.outcome.failure.as_ref().and_then(|failure| failure.line(&paths)));
    }
    lines
}

/// fio's `verify_dump`: the block as it is and as it should be, in files beside the program.
fn dump(wrong: &Mismatch, path: &str) -> Vec<String> {
    let Some((found, wanted)) = &wrong.dump else { return Vec::new() };
    let name = std::path::Path::new(path).file_name().unwrap_or_default().to_string_lossy();
    let parts = [(Some(found), "received"), (wanted.as_ref(), "expected")];
    let write = |(bytes, suffix): (Option<&Vec<u8>>, &str)| {
        let file = format!("{name}.{}.{suffix}", wrong.offset_bytes);
        let outcome = std::fs::write(&file, bytes?);
        Some(match outcome {
            Ok(()) => format!("       {suffix} data dumped as {file}"),
            Err(error) => format!("       cannot dump {file}: {error}"),
        })
    };
    parts.into_iter().filter_map(write).collect()
}

/// fio's exit code: the number of jobs that failed.
pub(crate) fn failed_jobs(finished: &[Finished]) -> u8 {
    let failed = finished.iter().filter(|job| job.outcome.failure.is_some()).count();
    u8::try_from(failed).unwrap_or(u8::MAX)
}
