//! Five lines that say what the default job has shown.
//!
//! Data flow: [`Finished`] -> a line about the engine, one per job, one about the verification.
//!
//! Not here: fio's report, which is printed above it.

use crate::run::Finished;

/// The summary, with an empty line before it.
pub(crate) fn text(finished: &[Finished]) -> String {
    let mut text = String::from("\n");
    if let Some(job) = finished.first() {
        let mode = if job.plan.job.direct { "O_DIRECT" } else { "page cache" };
        let features = job.outcome.traits.in_use.join(", ");
        line(&mut text, &format!("Summary: {mode}; engine {features}"));
    }
    for job in finished {
        line(&mut text, &job_line(job));
    }
    let wrong: u64 = finished.iter().map(|job| job.outcome.mismatch_count).sum();
    let checked: u64 = finished
        .iter()
        .filter(|job| job.plan.job.rw.writes())
        .map(|job| job.outcome.recorder.recorded()[0].ios)
        .sum();
    line(&mut text, &format!("  verified: {checked} blocks read back, {wrong} wrong"));
    text
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
    let ios: u64 = done.iter().map(|totals| totals.ios).sum();
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
