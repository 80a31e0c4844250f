//! What can be seen of punts: ops that the kernel hands to a worker thread.
//!
//! The kernel tells of them neither in a CQE nor in the ring's `fdinfo`. It counts them at the
//! tracepoint `io_uring:io_uring_queue_async_work`, for whoever has the privilege and a mounted
//! tracefs. What everybody can see is the workers, which are threads of this process.
//!
//! Data flow: `/proc/self/task`, and the tracepoint where it may be read → [`Punts`].
//!
//! Not here: whether a target would punt at all (`target::Facts::nowait`).

use std::fs::{File, read_dir, read_to_string};
use std::io::Read;
use std::path::Path;

use crate::sys;

/// The places where tracefs is mounted.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Punts of one shard where they could be counted, and the workers of the whole process.
///
/// Workers are no count of ops. The first one of each ring's thread is there from the start
/// ([`KernelConfig::first_worker`](crate::ring::kernel::KernelConfig::first_worker)) and stays;
/// any other has run at least one op and idled for less than five seconds. No more than the
/// first ones, and no growth of `cpu_ticks` over that time, means no punts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Punts {
    /// Ops that the shard's thread has submitted and the kernel has handed to a worker, since
    /// the shard was made: exact, each time that an op is handed over. `None` unless
    /// [`Config::count_punts`](crate::Config::count_punts) was set and permitted.
    pub ops: Option<u64>,
    /// Worker threads (`iou-wrk-…`) of this process that are alive, whosesoever ring they
    /// serve.
    pub workers: u32,
    /// Processor time that they have used, in ticks of `sysconf(_SC_CLK_TCK)`, usually 10 ms.
    /// Goes down when a worker ends.
    pub cpu_ticks: u64,
}

/// Counts the punts of the thread that made it, whatever ring they come from. Costs nothing
/// while there are none.
#[derive(Debug)]
pub struct PuntCounter(File);

impl PuntCounter {
    /// Counts from now on. `None` without tracefs, `CAP_PERFMON` or `kernel.perf_event_paranoid`
    /// of -1 (`perf_event_open(2)`).
    #[must_use]
    pub fn of_this_thread() -> Option<Self> {
        sys::count_tracepoint(tracepoint()?, false).ok().map(Self)
    }

    /// As [`PuntCounter::of_this_thread`], and of all threads that it starts from now on. Every
    /// switch between threads costs them a little more as long as it exists.
    #[must_use]
    pub fn of_this_thread_and_its_children() -> Option<Self> {
        sys::count_tracepoint(tracepoint()?, true).ok().map(Self)
    }

    /// Ops that the kernel has handed to a worker since the counter was made; may be read on any
    /// thread. `None` if the kernel does not tell.
    #[must_use]
    pub fn ops(&self) -> Option<u64> {
        let mut count = [0; 8];
        (&self.0).read_exact(&mut count).ok()?;
        Some(u64::from_ne_bytes(count))
    }
}

/// The number of the tracepoint that an op passes when it goes to a worker.
fn tracepoint() -> Option<u64> {
    TRACEFS.iter().find_map(|root| {
        let file = format!("{root}/events/io_uring/io_uring_queue_async_work/id");
        read_to_string(file).ok()?.trim().parse().ok()
    })
}

/// Looks at the workers of this process. Anything unreadable counts as absent.
#[must_use]
pub fn punts() -> Punts {
    punts_of(Path::new("/proc/self/task"))
}

fn punts_of(tasks: &Path) -> Punts {
    let mut found = Punts::default();
    for task in read_dir(tasks).into_iter().flatten().flatten() {
        let name = read_to_string(task.path().join("comm")).unwrap_or_default();
        if name.starts_with("iou-wrk-") {
            found.workers += 1;
            let stat = read_to_string(task.path().join("stat")).unwrap_or_default();
            found.cpu_ticks += cpu_ticks(&stat);
        }
    }
    found
}

/// `utime` and `stime`, the fields 14 and 15 of `proc_pid_stat(5)`.
fn cpu_ticks(stat: &str) -> u64 {
    // The name, in parentheses, may contain anything; the state after it is field 3.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_from_other_threads() {
        let tasks = tempfile::tempdir().unwrap();
        for (tid, name, stat) in [
            ("10", "mfio-bench", "10 (mfio-bench) S 1 1 1 0 -1 4 0 0 0 0 99 99 0 0 20 0"),
            ("11", "iou-wrk-10", "11 (iou-wrk-10) S 1 1 1 0 -1 4 0 0 0 0 3 4 0 0 20 0"),
            ("12", "iou-wrk-10", "12 (iou ) wrk) S 1 1 1 0 -1 4 0 0 0 0 0 5 0 0 20 0"),
            ("13", "iou-sqp-10", "13 (iou-sqp-10) S 1 1 1 0 -1 4 0 0 0 0 7 7 0 0 20 0"),
        ] {
            let task = tasks.path().join(tid);
            std::fs::create_dir(&task).unwrap();
            std::fs::write(task.join("comm"), format!("{name}\n")).unwrap();
            std::fs::write(task.join("stat"), stat).unwrap();
        }
        assert_eq!(punts_of(tasks.path()), Punts { ops: None, workers: 2, cpu_ticks: 12 });
        assert_eq!(punts_of(&tasks.path().join("absent")), Punts::default());
    }
}
