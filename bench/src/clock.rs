//! The clocks and counters of the system, as plain numbers.
//!
//! Not here: deciding when to read them (`run::worker`, `run::conductor`).

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock.
#[inline]
pub(crate) fn now_ns() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return 0 };
    time.tv_sec().cast_unsigned() * 1_000_000_000 + time.tv_nsec().cast_unsigned()
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(0)
}

/// Milliseconds of the clock with this number for `clock_gettime(2)`; `None` if there is none.
pub(crate) fn clock_ms(number: u32) -> Option<u64> {
    let clock = ClockId::from_raw(number.cast_signed());
    let time = clock_gettime(clock).ok()?;
    let (seconds, ns) = (time.tv_sec().cast_unsigned(), time.tv_nsec().cast_unsigned());
    Some(seconds * 1000 + ns / 1_000_000)
}

/// What the calling thread has used of the machine so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ThreadUsage {
    /// CPU time in user mode.
    pub(crate) user_ns: u64,
    /// CPU time in the kernel.
    pub(crate) system_ns: u64,
    /// Context switches of both kinds.
    pub(crate) switches: u64,
    /// Page faults that needed I/O.
    pub(crate) major_faults: u64,
    /// Page faults that did not.
    pub(crate) minor_faults: u64,
    /// CPU time of the whole process, in which the kernel's I/O workers appear.
    pub(crate) process_ns: u64,
}

fn counted(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

impl ThreadUsage {
    /// Usage of the calling thread.
    pub(crate) fn now() -> Self {
        let thread = getrusage(UsageWho::RUSAGE_THREAD).map(|usage| Self::of(&usage));
        let process = getrusage(UsageWho::RUSAGE_SELF).map(|usage| Self::of(&usage).cpu_ns());
        Self { process_ns: process.unwrap_or(0), ..thread.unwrap_or_default() }
    }

    fn of(usage: &Usage) -> Self {
        Self {
            user_ns: counted(usage.user_time().num_nanoseconds()),
            system_ns: counted(usage.system_time().num_nanoseconds()),
            switches: counted(
                usage.voluntary_context_switches() + usage.involuntary_context_switches(),
            ),
            major_faults: counted(usage.major_page_faults()),
            minor_faults: counted(usage.minor_page_faults()),
            process_ns: 0,
        }
    }

    /// What was used since `earlier`.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user_ns: self.user_ns.saturating_sub(earlier.user_ns),
            system_ns: self.system_ns.saturating_sub(earlier.system_ns),
            switches: self.switches.saturating_sub(earlier.switches),
            major_faults: self.major_faults.saturating_sub(earlier.major_faults),
            minor_faults: self.minor_faults.saturating_sub(earlier.minor_faults),
            process_ns: self.process_ns.saturating_sub(earlier.process_ns),
        }
    }

    /// CPU time of both kinds.
    pub(crate) fn cpu_ns(self) -> u64 {
        self.user_ns + self.system_ns
    }

    /// CPU time that the process used outside this thread: kernel workers to which I/O was
    /// punted, or the threads of a fallback. Only of meaning where one worker runs alone.
    pub(crate) fn elsewhere_ns(self) -> u64 {
        self.process_ns.saturating_sub(self.cpu_ns())
    }
}

/// Where a recorded part begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    /// When.
    pub(crate) now_ns: u64,
    /// What the calling thread had used by then.
    pub(crate) usage: ThreadUsage,
}

impl Baseline {
    /// The present, as the calling thread sees it.
    pub(crate) fn now() -> Self {
        Self { now_ns: now_ns(), usage: ThreadUsage::now() }
    }
}

/// The load averages of the last 1, 5 and 15 minutes as the kernel prints them.
pub(crate) fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// What all CPUs together have done since the machine started, in ticks (`proc_stat(5)`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CpuTimes {
    stolen: u64,
    all: u64,
}

impl CpuTimes {
    /// Now; zeros where it cannot be read.
    pub(crate) fn now() -> Self {
        Self::of(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn of(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let fields = line.split_whitespace().skip(1).map(|field| field.parse().unwrap_or(0));
        // user nice system idle iowait irq softirq steal; what follows is part of the first two.
        let fields: Vec<u64> = fields.take(8).collect();
        Self { stolen: fields.get(7).copied().unwrap_or(0), all: fields.iter().sum() }
    }

    /// The share that the hypervisor gave to others since then, in percent.
    pub(crate) fn steal_percent_since(self, earlier: Self) -> f64 {
        let all = self.all.saturating_sub(earlier.all).max(1);
        crate::summary::ratio(self.stolen.saturating_sub(earlier.stolen), all) * 100.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steal_is_the_eighth_column_of_all() {
        let times = |stolen| CpuTimes::of(&format!("cpu  10 0 20 60 5 1 4 {stolen} 7 7\ncpu0 1"));
        assert!(times(25).steal_percent_since(times(0)) - 100.0 < 1e-9);
        let later = CpuTimes { stolen: 10, all: 300 };
        assert!((later.steal_percent_since(times(0)) - 5.0).abs() < 1e-9);
        assert!(CpuTimes::of("").steal_percent_since(CpuTimes::of("")).abs() < 1e-9);
    }
}
