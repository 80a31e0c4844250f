//! Recorded fio output, printed again from its own numbers, byte for byte.
//!
//! Data flow: numbers of a recorded run -> `RunReport` -> the same lines.
//!
//! Not here: JSON (`json_output`).

mod machine;
mod recorded;

use fio_compat::render::{layout_line, normal, preamble};
use fio_compat::report::{DirectionReport, DiskUtil, JobFailure, JobReport, RunReport, SyncReport};
use fio_compat::stats::{
    BatchCounts, DepthStats, LatencyDistribution, LatencyStat, LevelCounts, RunningStat, SampleStat,
};
use machine::Machine;
use recorded::{bin_shown_as_us, latency, whole};

const ONE: &str = include_str!("fixtures/sample-normal.txt");
const TWO: &str = include_str!("fixtures/sample-normal2.txt");

/// min, max (ns), mean, stddev (ns).
type Moments = (u64, u64, f64, f64);

/// samples, min, max, mean, stddev.
type Samples = (u64, u64, u64, f64, f64);

fn moments(ios: u64, (min, max, mean, stddev): Moments) -> RunningStat {
    RunningStat::from_moments(ios, min, max, mean, stddev)
}

fn samples((count, min, max, mean, stddev): Samples) -> SampleStat {
    SampleStat::from_moments(count, min, max, mean, stddev)
}

fn with_percentiles(ios: u64, clat: Moments, shown_us: [u64; 17]) -> LatencyStat {
    latency(moments(ios, clat), &shown_us.map(bin_shown_as_us))
}

fn without_percentiles(ios: u64, of: Moments) -> LatencyStat {
    LatencyStat { moments: moments(ios, of), ..LatencyStat::default() }
}

/// A report of one recorded run, taken at that many seconds after the hour.
fn report(timestamp_s: u64, jobs: Vec<JobReport>, disk: DiskUtil) -> RunReport {
    RunReport {
        version: "test".to_owned(),
        timestamp_ms: timestamp_s * 1000,
        utc_offset_s: 0,
        global_options: Vec::new(),
        jobs,
        disk_util: vec![disk],
        warnings: Vec::new(),
        extra: serde_json::Value::Null,
    }
}

fn disk(numbers: [u64; 9], util_percent: f64) -> DiskUtil {
    let [read_ios, write_ios, read_sectors, write_sectors, read_merges, rest @ ..] = numbers;
    let [write_merges, read_ticks, write_ticks, in_queue] = rest;
    DiskUtil {
        name: "vda".to_owned(),
        read_ios,
        write_ios,
        read_sectors,
        write_sectors,
        read_merges,
        write_merges,
        read_ticks,
        write_ticks,
        in_queue,
        util_percent,
        slaves: Vec::new(),
    }
}

/// Counts that show as these percentages.
fn counts<const N: usize>(percent: [f64; N], total: u64) -> [u64; N] {
    percent.map(|percent| whole(percent / 100.0 * total as f64))
}

fn first_sample() -> RunReport {
    let mut job = JobReport::new("sample");
    (job.jobs_count, job.pid, job.iodepth) = (2, 13_896, 8);
    job.read = DirectionReport {
        io_bytes: 181_387 * 4096,
        runtime_ms: 4001,
        total_ios: 181_387,
        slat: without_percentiles(181_387, (2_500, 692_000, 5_500.0, 4_960.0)),
        clat: with_percentiles(
            181_387,
            (100, 4_516_400, 235_601.87, 149_496.40),
            [
                149, 174, 186, 200, 208, 217, 225, 233, 243, 258, 277, 297, 351, 408, 3130, 3589,
                4424,
            ],
        ),
        lat: without_percentiles(181_387, (41_000, 4_520_000, 241_100.0, 149_600.0)),
        bw: samples((14, 164_552, 200_464, 179_587.43, 5_738.63)),
        iops: samples((14, 41_138, 50_116, 44_896.86, 1_434.66)),
        ..DirectionReport::default()
    };
    job.write = DirectionReport {
        io_bytes: 77_775 * 4096,
        runtime_ms: 4001,
        total_ios: 77_775,
        slat: without_percentiles(77_775, (3_000, 240_000, 5_910.0, 4_510.0)),
        clat: with_percentiles(
            77_775,
            (110, 4_568_000, 253_658.01, 152_593.23),
            [
                163, 188, 200, 215, 225, 233, 243, 251, 262, 277, 297, 318, 379, 494, 3163, 3720,
                4490,
            ],
        ),
        lat: without_percentiles(77_775, (46_000, 4_583_000, 259_570.0, 152_800.0)),
        bw: samples((14, 70_728, 85_920, 76_884.57, 2_493.04)),
        iops: samples((14, 17_682, 21_480, 19_221.14, 623.26)),
        ..DirectionReport::default()
    };
    let total = 181_387 + 77_775;
    job.distribution = LatencyDistribution::from_counts(
        counts([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.01, 0.01, 0.0, 0.0], total),
        counts([0.0, 0.0, 0.0, 0.01, 0.03, 0.08, 70.40, 29.07, 0.06, 0.04], total),
        counts([0.08, 0.20, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], total),
    );
    (job.job_runtime_ms, job.usr_cpu_ns, job.sys_cpu_ns) = (8_000, 164_800_000, 1_590_400_000);
    (job.ctx, job.minf) = (32_984, 26);
    job.depth = DepthStats {
        level: LevelCounts::from_counts([1, 1, 1, total, 0, 0, 0]),
        submit: BatchCounts::from_counts([0, total, 0, 0, 0, 0, 0]),
        complete: BatchCounts::from_counts([0, total, 1, 0, 0, 0, 0]),
    };
    let disk = disk([170_305, 73_042, 1_362_440, 584_336, 0, 0, 33_215, 13_958, 47_174], 87.01);
    report(1_795_331_759, vec![job], disk)
}

/// The second job of the second sample: sequential writes with an fdatasync every 16.
fn fsync_job() -> JobReport {
    let mut job = JobReport::new("seqw-fsync");
    (job.group_id, job.pid, job.iodepth) = (1, 15_208, 1);
    job.write = DirectionReport {
        io_bytes: 6303 * 65_536,
        runtime_ms: 2000,
        total_ios: 6303,
        slat: without_percentiles(6303, (13_000, 763_000, 23_320.0, 13_890.0)),
        clat: with_percentiles(
            6303,
            (140, 27_603_000, 182_378.63, 799_579.55),
            [45, 46, 47, 48, 49, 50, 53, 55, 58, 63, 83, 143, 3949, 3982, 7832, 11_600, 27_657],
        ),
        lat: without_percentiles(6303, (60_000, 27_694_000, 205_700.0, 803_650.0)),
        bw: samples((4, 126_848, 246_802, 201_572.50, 52_693.63)),
        iops: samples((4, 1982, 3856, 3149.50, 823.26)),
        ..DirectionReport::default()
    };
    job.sync = SyncReport {
        total_ios: 393,
        lat: with_percentiles(
            393,
            (28_000, 11_833_000, 1_757_410.0, 1_991_850.0),
            [
                30, 31, 46, 56, 89, 155, 1045, 2606, 2737, 2900, 3785, 5604, 8848, 10_683, 11_863,
                11_863, 11_863,
            ],
        ),
    };
    job.distribution = LatencyDistribution::from_counts(
        counts([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.06, 0.02, 0.0, 0.0], 6303),
        counts([0.0, 0.0, 0.0, 0.0, 39.03, 52.85, 4.36, 0.17, 0.13, 0.06], 6303),
        counts([0.52, 2.43, 0.30, 0.05, 0.02, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 6303),
    );
    (job.job_runtime_ms, job.usr_cpu_ns, job.sys_cpu_ns) = (2_000, 25_000_000, 169_000_000);
    (job.ctx, job.minf) = (7_021, 10);
    job.depth = DepthStats {
        level: LevelCounts::from_counts([6303 + 393, 0, 0, 0, 0, 0, 0]),
        submit: BatchCounts::from_counts([0, 6696, 0, 0, 0, 0, 0]),
        complete: BatchCounts::from_counts([0, 6696, 0, 0, 0, 0, 0]),
    };
    job
}

/// The lines of `recorded` from the first that starts with `from` up to the next such line, or
/// up to the status of the groups.
fn job_lines<'a>(recorded: &'a str, from: &str) -> Vec<&'a str> {
    let starts = |line: &str| line.contains(": (groupid=");
    let mut lines = recorded.lines().skip_while(|line| !(starts(line) && line.starts_with(from)));
    let first = lines.next().into_iter();
    first.chain(lines.take_while(|line| !line.is_empty() && !starts(line))).collect()
}

fn compare(printed: &[&str], recorded: &[&str]) {
    for (number, (mine, fios)) in printed.iter().zip(recorded).enumerate() {
        assert_eq!(mine, fios, "line {}", number + 1);
    }
    assert_eq!(printed.len(), recorded.len());
}

#[test]
fn numbers_of_the_first_sample_print_the_first_sample() {
    let printed = normal(&first_sample());
    let report_start = ONE.find("sample: (groupid=").expect("the sample has a report");
    let recorded = format!("\n{}", &ONE[report_start..]);
    compare(&printed.lines().collect::<Vec<_>>(), &recorded.lines().collect::<Vec<_>>());
    assert_eq!(printed, recorded);
}

#[test]
fn numbers_of_the_fsync_job_print_its_block() {
    let disk = disk([46_369, 26_624, 371_872, 947_200, 0, 0, 5_712, 2_815, 8_545], 35.06);
    let printed = normal(&report(1_795_331_793, vec![fsync_job()], disk));
    compare(&job_lines(&printed, "seqw-fsync"), &job_lines(TWO, "seqw-fsync"));
    let tail = &TWO[TWO.find("\nRun status group 1").expect("the sample has two groups")..];
    assert!(printed.ends_with(tail), "{printed}");
}

#[test]
fn command_line_of_the_sample_prints_its_header() {
    let args = "--name=sample --filename=t.dat --size=64m --rw=randrw --rwmixread=70 --bs=4k \
                --direct=1 --ioengine=io_uring --iodepth=8 --numjobs=2 --group_reporting \
                --time_based --runtime=4";
    let invocation = Machine::default().run(args).unwrap();
    let printed = preamble(&invocation.jobs) + &layout_line("sample", 1, 64 << 20);
    let recorded: Vec<&str> = ONE.lines().take(5).collect();
    assert_eq!(printed, recorded.join("\n").replace("fio-3.42-135-gf5344", "fio-3.42") + "\n");
}

#[test]
fn job_without_io_prints_no_block_but_its_group() {
    let mut report = first_sample();
    report.jobs = vec![JobReport::new("idle")];
    report.disk_util.clear();
    assert_eq!(normal(&report), "\n\nRun status group 0 (all jobs):\n");
}

#[test]
fn failed_verification_is_named_instead_of_the_systems_text() {
    let mut report = first_sample();
    let text = "Invalid or incomplete multibyte or wide character";
    report.jobs[0].error = Some(JobFailure::new(84, text));
    let printed = normal(&report);
    let wanted = "sample: (groupid=0, jobs=2): err=84 (data verification failed): pid=13896: Sun";
    assert!(printed.contains(wanted), "{printed}");
    assert_eq!(JobFailure::new(5, "Input/output error").text, "Input/output error");
}

#[test]
fn description_follows_the_headline() {
    let mut report = first_sample();
    report.jobs[0].description = Some("why".to_owned());
    assert_eq!(normal(&report).lines().nth(2), Some("  Description  : [why]"));
}

#[test]
fn clones_of_a_reported_group_become_one_block() {
    let mut report = first_sample();
    let mut clone = report.jobs[0].clone();
    report.jobs[0].group_reporting = true;
    clone.group_reporting = true;
    clone.error = Some(JobFailure::new(5, "Input/output error"));
    clone.read.runtime_ms = 3000;
    report.jobs.push(clone);
    report.merge_groups();
    let [job] = report.jobs.as_slice() else { panic!("the group was not merged") };
    assert_eq!((job.jobs_count, job.read.runtime_ms, job.total_ios()), (4, 4001, 2 * 259_162));
    assert_eq!(job.error.as_ref().map(|failure| failure.errno), Some(5));
    assert_eq!((job.read.bw.samples(), job.read.bw.min()), (28, 2 * 164_552));
    assert!((job.usr_cpu_percent() - 2.06).abs() < 1e-9);
}

#[test]
fn jobs_that_did_not_ask_stay_apart() {
    let mut report = first_sample();
    let clone = report.jobs[0].clone();
    report.jobs.push(clone);
    report.merge_groups();
    assert_eq!(report.jobs.len(), 2);
    let printed = normal(&report);
    let wanted = "READ: bw=354MiB/s (371MB/s), 177MiB/s-177MiB/s (186MB/s-186MB/s), io=1417MiB";
    assert!(printed.contains(wanted), "{printed}");
}
