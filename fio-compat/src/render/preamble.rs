//! What fio prints before a run starts: one line per job, the version, the number of workers.
//!
//! Data flow: `Job`s -> text; the files being laid out -> one line.
//!
//! Not here: anything measured (`normal`).

use crate::job::Job;

use super::FIO_VERSION;

/// The lines before the run of normal output.
#[must_use]
pub fn preamble(jobs: &[Job]) -> String {
    let headers: String = jobs.iter().map(header).collect();
    format!("{headers}{FIO_VERSION}\n{}\n", starting(jobs))
}

/// The line that tells of files being written before the run; `bytes` is their total size.
#[must_use]
pub fn layout_line(job_name: &str, files: u64, bytes: u64) -> String {
    let mib = bytes >> 20;
    let (plural, total) = if files > 1 { ("s", "total ") } else { ("", "") };
    format!("{job_name}: Laying out IO file{plural} ({files} file{plural} / {total}{mib}MiB)\n")
}

fn header(job: &Job) -> String {
    let sizes = |direction| {
        let (least, most) = job.block_range(direction);
        let size = |bytes| job.reporting.units.size(bytes);
        format!("{}-{}", size(least), size(most))
    };
    let more = if job.numjobs > 1 { "...\n" } else { "" };
    let by_pattern = job.workload.bs_is_seq_rand;
    let third = if by_pattern { "bs_is_seq_rand".into() } else { format!("(T) {}", sizes(2)) };
    format!(
        "{}: (g={}): rw={}, bs=(R) {}, (W) {}, {third}, ioengine={}, iodepth={}\n{more}",
        job.name,
        job.group_id,
        job.rw.as_str(),
        sizes(0),
        sizes(1),
        job.ioengine_requested,
        job.iodepth,
    )
}

fn starting(jobs: &[Job]) -> String {
    let count = |thread: bool| -> u64 {
        jobs.iter().filter(|job| job.thread == thread).map(|job| u64::from(job.numjobs)).sum()
    };
    let named = |count: u64, one: &str, many: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        more => Some(format!("{more} {many}")),
    };
    let threads = named(count(true), "thread", "threads");
    let processes = named(count(false), "process", "processes");
    let parts: Vec<String> = threads.into_iter().chain(processes).collect();
    format!("Starting {}", parts.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_and_workers_are_announced_as_fio_does() {
        let mut job = Job::new("a");
        job.numjobs = 2;
        let mut other = Job::new("b");
        other.thread = true;
        other.bs.write_bytes = 1 << 16;
        let text = preamble(&[job, other]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "...");
        assert!(lines[2].contains("(W) 64.0KiB-64.0KiB, (T) 4096B-4096B, ioengine=psync"));
        assert_eq!(lines[3..], ["fio-3.42", "Starting 1 thread and 2 processes"]);
    }

    #[test]
    fn ranges_and_sizes_by_pattern_stand_in_the_header() {
        let mut job = Job::new("a");
        job.workload.bs_range[0] = Some((512, 65536));
        job.workload.bs_split[1] = [(4096, 50), (1 << 20, 50)]
            .map(|(bytes, percent)| crate::BlockShare { bytes, percent })
            .to_vec();
        let line = header(&job);
        assert!(line.contains("(R) 512B-64.0KiB, (W) 4096B-1024KiB, (T) 4096B-4096B,"), "{line}");
        job.workload.bs_is_seq_rand = true;
        let line = header(&job);
        assert!(line.contains("(W) 4096B-1024KiB, bs_is_seq_rand, ioengine=psync"), "{line}");
    }

    #[test]
    fn layout_of_several_files_says_total() {
        assert_eq!(layout_line("a", 1, 64 << 20), "a: Laying out IO file (1 file / 64MiB)\n");
        let several = layout_line("a", 2, 3 << 20);
        assert_eq!(several, "a: Laying out IO files (2 files / total 3MiB)\n");
    }
}
