//! fio's terse output: one line of fields separated by semicolons per job.
//!
//! Data flow: `RunReport` -> per job: identity, two or three directions, CPU, depths, latency
//! shares, disks, description.
//!
//! Not here: what the fields mean (fio's own documentation, whose order is reproduced).

use crate::report::{DirectionReport, DirectionSummary, GroupSummary, JobReport, RunReport};
use crate::stats::{LatencyStat, LevelCounts, SampleStat};

use super::{FIO_VERSION, direction};

/// Fields for percentiles, filled up with `0%=0`.
const PERCENTILES: usize = 20;

/// The layout of the lines, by fio's number for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TerseVersion {
    /// Without version of fio and disks.
    V2,
    /// Reads and writes; the default.
    #[default]
    V3,
    /// Trims as well.
    V4,
    /// Numbers of samples and sampled IOPS as well.
    V5,
}

impl TerseVersion {
    const fn number(self) -> &'static str {
        match self {
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
            Self::V5 => "5",
        }
    }
}

/// A line per job, each with its newline.
#[must_use]
pub fn terse(report: &RunReport, version: TerseVersion) -> String {
    let groups = report.groups();
    let line = |job: &JobReport| {
        let group = groups.iter().find(|group| group.group_id == job.group_id).cloned();
        format!("{}\n", fields(report, job, &group.unwrap_or_default(), version).join(";"))
    };
    report.jobs.iter().filter(|job| job.shown).map(line).collect()
}

fn fields(
    report: &RunReport,
    job: &JobReport,
    group: &GroupSummary,
    version: TerseVersion,
) -> Vec<String> {
    let mut fields = vec![version.number().to_owned()];
    if version > TerseVersion::V2 {
        fields.push(FIO_VERSION.to_owned());
    }
    fields.extend([
        job.name.clone(),
        job.group_id.to_string(),
        job.error.as_ref().map_or(0, |failure| failure.errno).to_string(),
    ]);
    let trims = usize::from(version != TerseVersion::V3);
    for (name, data) in job.directions().into_iter().take(2 + trims) {
        fields.extend(direction_fields(job, data, group.of(name), version));
    }
    fields.push(format!("{:.6}%", job.usr_cpu_percent()));
    fields.push(format!("{:.6}%", job.sys_cpu_percent()));
    fields.extend([job.ctx, job.majf, job.minf].map(|count| count.to_string()));
    let total_ios = job.total_ios();
    let depths: [f64; LevelCounts::NAMES.len()] = job.depth.level.percent(total_ios);
    fields.extend(depths.map(|share| format!("{share:.1}%")));
    fields.extend(job.distribution.us_percent(total_ios).map(|share| format!("{share:.2}%")));
    fields.extend(job.distribution.ms_percent(total_ios).map(|share| format!("{share:.2}%")));
    if version > TerseVersion::V2 {
        for disk in &report.disk_util {
            fields.push(disk.name.clone());
            fields.extend(
                [
                    disk.read_ios,
                    disk.write_ios,
                    disk.read_merges,
                    disk.write_merges,
                    disk.read_ticks,
                    disk.write_ticks,
                    disk.in_queue,
                ]
                .map(|count| count.to_string()),
            );
            fields.push(format!("{:.2}%", disk.util_percent));
        }
    }
    if let Some(errors) = &job.errors {
        let first = errors.first.as_ref().map_or(0, |first| first.errno);
        fields.extend([errors.total.to_string(), first.to_string()]);
    }
    fields.extend(job.description.clone());
    fields
}

fn direction_fields(
    job: &JobReport,
    data: &DirectionReport,
    group: &DirectionSummary,
    version: TerseVersion,
) -> Vec<String> {
    let mut fields: Vec<String> =
        [data.io_bytes >> 10, data.bandwidth_bytes() >> 10, data.iops_whole(), data.runtime_ms]
            .map(|value| value.to_string())
            .into();
    fields.extend(moments(&data.slat));
    fields.extend(moments(&data.clat));
    // As in fio, these are the percentiles of total latency where they are wanted at all.
    let wanted = if job.percentiles.lat { &data.lat } else { &data.clat };
    let shown = job.percentiles.clat || job.percentiles.lat;
    for at in 0..PERCENTILES {
        fields.push(match job.percentiles.list.get(at).filter(|_| shown) {
            Some(percent) => {
                format!("{percent:.6}%={}", wanted.percentile(*percent).unwrap_or(0) / 1000)
            }
            None => "0%=0".to_owned(),
        });
    }
    fields.extend(moments(&data.lat));
    fields.extend(bandwidth(&data.bw, group));
    if version == TerseVersion::V5 {
        fields.push(data.bw.samples().to_string());
        fields.extend([data.iops.min(), data.iops.max()].map(|value| value.to_string()));
        fields.extend([data.iops.mean(), data.iops.stddev()].map(|value| format!("{value:.6}")));
        fields.push(data.iops.samples().to_string());
    }
    fields
}

/// Minimum, maximum, mean and deviation in microseconds.
fn moments(stat: &LatencyStat) -> [String; 4] {
    let moments = &stat.moments;
    [
        (moments.min() / 1000).to_string(),
        (moments.max() / 1000).to_string(),
        format!("{:.6}", moments.mean() / 1000.0),
        format!("{:.6}", moments.stddev() / 1000.0),
    ]
}

fn bandwidth(stat: &SampleStat, group: &DirectionSummary) -> [String; 5] {
    let sampled = stat.samples() > 0;
    let share = if sampled { direction::share_of_group(stat, group) } else { 0.0 };
    [
        stat.min().to_string(),
        stat.max().to_string(),
        format!("{share:.6}%"),
        format!("{:.6}", stat.mean()),
        format!("{:.6}", stat.stddev()),
    ]
}
