//! Lines that say what the default job has shown, and what any job has verified.
//!
//! Data flow: [`Finished`] -> a line about the engine, one per job, one about the verification.
//!
//! Not here: fio's report, which is printed above it.

use fio_compat::Verify;

use crate::run::Finished;

/// The summary, with an empty line before it. Jobs that a signal kept from starting are left out,
/// as in fio's report.
pub(crate) fn text(finished: &[Finished]) -> String {
    let ran: Vec<&Finished> = finished.iter().filter(|job| ios(job) > 0).collect();
    let Some(job) = ran.first() else { return String::new() };
    let mut text = String::from("\n");
    let mode = if job.plan.job.direct { "O_DIRECT" } else { "page cache" };
    let features = job.outcome.traits.in_use.join(", ");
    line(&mut text, &format!("Summary: {mode}; engine {features}"));
    for job in &ran {
        line(&mut text, &job_line(job));
    }
    let sum = |of: fn(&Finished) -> u64| finished.iter().map(of).sum();
    let (checked, wrong) =
        (sum(|job| job.outcome.checked_count), sum(|job| job.outcome.mismatch_count));
    line(&mut text, &format!("  verified: {}", read_back(checked, wrong)));
    text
}

/// What the jobs that verify have verified: a line for each, its clones together.
pub(crate) fn verified(finished: &[Finished]) -> Vec<String> {
    let mut jobs: Vec<(&str, u64, u64)> = Vec::new();
    let verifies = |job: &&Finished| {
        !matches!(job.plan.job.verify, Verify::None | Verify::Null) && ios(job) > 0
    };
    // Who leaves the reading back to another job knows that this one did none.
    let asked = |job: &&Finished| job.plan.job.do_verify || job.outcome.checked_count > 0;
    for job in finished.iter().filter(verifies).filter(asked) {
        let (name, outcome) = (job.plan.job.name.as_str(), &job.outcome);
        if jobs.last().is_none_or(|(last, ..)| *last != name) {
            jobs.push((name, 0, 0));
        }
        if let Some((_, checked, wrong)) = jobs.last_mut() {
            *checked += outcome.checked_count;
            *wrong += outcome.mismatch_count;
        }
    }
    let line = |(name, checked, wrong)| format!("job `{name}`: {}", read_back(checked, wrong));
    jobs.into_iter().map(line).collect()
}

fn read_back(checked: u64, wrong: u64) -> String {
    match checked {
        0 => "nothing was read back".to_owned(),
        _ => format!("{checked} blocks read back, {wrong} wrong"),
    }
}

/// The I/Os of a job, of all directions.
fn ios(job: &Finished) -> u64 {
    job.outcome.recorder.recorded().iter().map(|totals| totals.ios).sum()
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn job_line(job: &Finished) -> String {
    let recorder = &job.outcome.recorder;
    let direction = usize::from(job.plan.job.rw.writes());
    let done = recorder.recorded();
    let runtime_ns = recorder.runtime_ns(direction).max(1);
    let per_second = |amount: u64| ratio(amount, runtime_ns) * 1e9;
    let latency = recorder.completion_latency(direction);
    let percentile = |percent: f64| {
        let ns = latency.percentile(percent).unwrap_or(0);
        format!("{:.1}", ratio(ns, 1000))
    };
    let ios = ios(job);
    let usage = recorder.usage();
    // Punted I/O is done by kernel workers; what they cost is a cost of the I/O as well.
    let elsewhere = match usage.elsewhere_ns() {
        ns if ns > usage.cpu_ns() / 10 => {
            format!(" + {:.2} in other threads", ratio(ns, ios.max(1)) / 1e3)
        }
        _ => String::new(),
    };
    format!(
        "  {:<14} {:>9.0} IOPS {:>8.1} MiB/s  p50/p99/p99.9 {}/{}/{} us  \
         CPU {:.2} us per I/O{elsewhere}",
        job.plan.job.name,
        per_second(done[direction].ios),
        per_second(done[direction].bytes) / f64::from(1 << 20),
        percentile(50.0),
        percentile(99.0),
        percentile(99.9),
        ratio(usage.cpu_ns(), ios.max(1)) / 1e3,
    )
}

/// For people: figures of more than 15 digits may lose the last ones.
#[allow(clippy::cast_precision_loss, reason = "a summary shows three to five digits")]
pub(crate) fn ratio(numerator: u64, denominator: u64) -> f64 {
    numerator as f64 / denominator as f64
}
