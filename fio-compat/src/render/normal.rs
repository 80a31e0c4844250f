//! fio's report for people, byte for byte: scripts grep it, so it is an interface.
//!
//! Data flow: `RunReport` -> a block per job, status of the groups, disks.
//!
//! Not here: the lines before the run (`preamble`), progress (`eta`), warnings (the bench).

use crate::report::{DiskUtil, GroupSummary, JobReport, RunReport};
use crate::stats::{BatchCounts, LatencyDistribution, LevelCounts};

use super::clock::ctime;
use super::direction;

/// Shares on one line of the latency distribution.
const SHARES_PER_LINE: usize = 5;

/// The report that follows a run, starting with the empty line that ends the progress line.
#[must_use]
pub fn normal(report: &RunReport) -> String {
    let groups = report.groups();
    let mut text = "\n".to_owned();
    for job in report.jobs.iter().filter(|job| job.shown && job.total_ios() > 0) {
        if let Some(group) = groups.iter().find(|group| group.group_id == job.group_id) {
            text.push_str(&job_block(report, job, group));
        }
    }
    text.extend(groups.iter().map(group_status));
    if !report.disk_util.is_empty() {
        text.push_str("\nDisk stats (read/write):\n");
        text.extend(report.disk_util.iter().map(disk));
    }
    text
}

fn job_block(report: &RunReport, job: &JobReport, group: &GroupSummary) -> String {
    let mut text = headline(report, job);
    if let Some(description) = &job.description {
        text.push_str(&format!("  Description  : [{description}]\n"));
    }
    for (name, data) in job.reported() {
        let sums = group.of(name);
        text.push_str(&direction::block(name, &data, &job.percentiles, sums, job.units));
    }
    text.push_str(&distribution(&job.distribution, job.total_ios()));
    text.push_str(&direction::sync_block(&job.sync, &job.percentiles));
    text.push_str(&format!(
        "  cpu          : usr={:3.2}%, sys={:3.2}%, ctx={}, majf={}, minf={}\n",
        job.usr_cpu_percent(),
        job.sys_cpu_percent(),
        job.ctx,
        job.majf,
        job.minf
    ));
    text.push_str(&depths(job));
    text.extend(job.steady.iter().map(|steady| super::steady::line(steady, job.units)));
    text
}

fn headline(report: &RunReport, job: &JobReport) -> String {
    let time = ctime(report.timestamp_ms, report.utc_offset_s);
    let error = match &job.error {
        None => format!("{:2}", 0),
        Some(failure) => format!("{:2} ({})", failure.errno, failure.text),
    };
    format!(
        "{}: (groupid={}, jobs={}): err={error}: pid={}: {time}\n",
        job.name, job.group_id, job.jobs_count, job.pid
    )
}

fn distribution(shares: &LatencyDistribution, total_ios: u64) -> String {
    shares_of("nsec", &shares.ns_percent(total_ios))
        + &shares_of("usec", &shares.us_percent(total_ios))
        + &shares_of("msec", &shares.ms_percent(total_ios))
}

fn shares_of(unit: &str, percent: &[f64]) -> String {
    let shown: Vec<String> = LatencyDistribution::NAMES
        .iter()
        .zip(percent)
        .filter(|(_, percent)| **percent > 0.0)
        .map(|(name, percent)| format!("{name}={percent:3.2}%"))
        .collect();
    shown
        .chunks(SHARES_PER_LINE)
        .map(|line| format!("  lat ({unit})   : {}\n", line.join(", ")))
        .collect()
}

fn depths(job: &JobReport) -> String {
    let line = |names: [&str; 7], percent: [f64; 7]| {
        let shares: Vec<String> = names
            .iter()
            .zip(percent)
            .map(|(name, percent)| format!("{name}={percent:3.1}%"))
            .collect();
        shares.join(", ")
    };
    let level = line(LevelCounts::NAMES, job.depth.level.percent(job.total_ios()));
    let submit = line(BatchCounts::NAMES, job.depth.submit.percent());
    let complete = line(BatchCounts::NAMES, job.depth.complete.percent());
    let [(_, read), (_, write), (_, trim)] = job.directions();
    let issued = format!(
        "total={},{},{},{} short={},{},{},0 dropped={},{},{},0",
        read.total_ios,
        write.total_ios,
        trim.total_ios,
        job.sync.total_ios,
        read.short_ios,
        write.short_ios,
        trim.short_ios,
        read.drop_ios,
        write.drop_ios,
        trim.drop_ios
    );
    let errors = job.errors.as_ref().map_or_else(String::new, |errors| {
        let (errno, text) = match &errors.first {
            Some(first) => (first.errno, first.text.as_str()),
            None => (0, "Success"),
        };
        format!("     errors    : total={}, first_error={errno}/<{text}>\n", errors.total)
    });
    format!(
        "  IO depths    : {level}\n     submit    : {submit}\n     complete  : {complete}\n     \
         issued rwts: {issued}\n{errors}     latency   : target={}, window={}, \
         percentile={:.2}%, depth={}\n",
        time(job.goal.target_ns),
        time(job.goal.window_ns),
        job.goal.percent,
        job.iodepth
    )
}

/// A time in the largest unit it fills, with two decimals.
fn time(nanoseconds: u64) -> String {
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let fills = units.into_iter().find(|(unit_ns, _)| nanoseconds >= *unit_ns);
    let (unit_ns, unit) = fills.unwrap_or((1, "ns"));
    let hundredths = u128::from(nanoseconds) * 100 / u128::from(unit_ns);
    format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100)
}

fn group_status(group: &GroupSummary) -> String {
    let units = group.units;
    let mut text = format!("\nRun status group {} (all jobs):\n", group.group_id);
    for (name, sum) in group.directions() {
        if sum.runtime_max_ms == 0 {
            continue;
        }
        let (least, most) = (sum.bandwidth_min_bytes, sum.bandwidth_max_bytes);
        text.push_str(&format!(
            "{name:>7}: bw={} ({}), {}-{} ({}-{}), io={} ({}), run={}-{}msec\n",
            units.rate(sum.aggregate_bytes()),
            units.other_rate(sum.aggregate_bytes()),
            units.rate(least),
            units.rate(most),
            units.other_rate(least),
            units.other_rate(most),
            units.size(sum.io_bytes),
            units.other_size(sum.io_bytes),
            sum.runtime_min_ms,
            sum.runtime_max_ms
        ));
    }
    text
}

/// One disk; below a stacked one, the means over its slaves and the slaves themselves.
fn disk(disk: &DiskUtil) -> String {
    let mut text = format!("  {}: {}", disk.name, counters(disk, ""));
    if let Some(aggregate) = disk.aggregate() {
        text.push_str(&format!(", {}", counters(&aggregate, "aggr")));
    }
    text.push('\n');
    text.extend(disk.slaves.iter().map(|slave| format!("  {}", self::disk(slave))));
    text
}

fn counters(disk: &DiskUtil, aggr: &str) -> String {
    format!(
        "{aggr}ios={}/{}, {aggr}sectors={}/{}, {aggr}merge={}/{}, {aggr}ticks={}/{}, \
         {aggr}in_queue={}, {aggr}util={:3.2}%",
        disk.read_ios,
        disk.write_ios,
        disk.read_sectors,
        disk.write_sectors,
        disk.read_merges,
        disk.write_merges,
        disk.read_ticks,
        disk.write_ticks,
        disk.in_queue,
        disk.util_percent
    )
}
