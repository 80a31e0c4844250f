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
    let size = |bytes| {
        let text = job.reporting.units.size(bytes);
        format!("{text}-{text}")
    };
    let more = if job.numjobs > 1 { "...\n" } else { "" };
    format!(
        "{}: (g={}): rw={}, bs=(R) {}, (W) {}, (T) {}, ioengine={}, iodepth={}\n{more}",
        job.name,
        job.group_id,
        job.rw.as_str(),
        size(job.bs.read_bytes),
        size(job.bs.write_bytes),
        size(job.bs.trim_bytes),
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
    fn layout_of_several_files_says_total() {
        assert_eq!(layout_line("a", 1, 64 << 20), "a: Laying out IO file (1 file / 64MiB)\n");
        let several = layout_line("a", 2, 3 << 20);
        assert_eq!(several, "a: Laying out IO files (2 files / total 3MiB)\n");
    }
}
