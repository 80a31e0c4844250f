//! Findings about the machine and the limits of this process.
//!
//! Data flow: a file of `/proc` or `/sys`, or the ring that was tried → one finding each. What
//! is not there is unknown, never an error.
//!
//! Not here: the device of a target (`target`).

use io_uring::{IoUring, Probe, opcode};

use super::{Doctor, Finding, Tried};
use crate::ring::kernel::RingError;
use crate::target::Bytes;

/// The capability that lifts `RLIMIT_MEMLOCK` (`capabilities(7)`).
const CAP_IPC_LOCK: u32 = 14;
/// Fewer descriptors than this are a nuisance to any database.
const OPEN_FILES_MIN: u64 = 4096;

pub(super) fn findings(doctor: &Doctor) -> Vec<Finding> {
    let tried = (doctor.try_ring)();
    vec![
        kernel(doctor),
        io_uring(&tried),
        io_uring_disabled(doctor),
        seccomp(doctor, &tried),
        setup_flags(&tried),
        opcodes(&tried),
        memlock(doctor),
        huge_pages(doctor),
        transparent_huge_pages(doctor),
        open_files(doctor),
        cpus(doctor),
        load(doctor),
        clock(doctor),
    ]
}

/// Which of the ops that not every kernel has are there. `None` where it cannot be asked.
pub(super) fn probed_ops() -> Option<Vec<(&'static str, bool)>> {
    let ring = IoUring::new(2).ok()?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).ok()?;
    let ops = [
        ("FALLOCATE", opcode::Fallocate::CODE),
        ("FTRUNCATE", opcode::Ftruncate::CODE),
        ("LINK_TIMEOUT", opcode::LinkTimeout::CODE),
        ("MSG_RING", opcode::MsgRingData::CODE),
        ("URING_CMD", opcode::UringCmd16::CODE),
        ("READV_FIXED", opcode::ReadvFixed::CODE),
        ("WRITEV_FIXED", opcode::WritevFixed::CODE),
    ];
    Some(ops.map(|(name, code)| (name, probe.is_supported(code))).to_vec())
}

fn kernel(doctor: &Doctor) -> Finding {
    let what = "kernel";
    match doctor.proc("sys/kernel/osrelease") {
        // Nothing is concluded from it: what it has is probed, and said below.
        Some(release) => Finding::new(what, format!("Linux {release}")),
        None => Finding::new(what, "unknown").unknown("sys/kernel/osrelease is not readable"),
    }
}

fn io_uring(tried: &Tried) -> Finding {
    let what = "io_uring";
    let error = match &tried.ring {
        Ok(_) => return Finding::new(what, "available"),
        Err(error) => error,
    };
    let remedy = match error {
        RingError::Forbidden { sysctl: Some(1..), .. } => "sysctl -w kernel.io_uring_disabled=0",
        RingError::Forbidden { .. } => {
            "allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile \
             (containers: --security-opt seccomp=PROFILE)"
        }
        RingError::Missing | RingError::TooOld { .. } => "boot a Linux of 6.1 or later",
        RingError::Files { .. } => "ulimit -n 65536",
        RingError::Memory { .. } => "ulimit -l unlimited",
        _ => "look into the kernel log (dmesg)",
    };
    let why = "the engine falls back to blocking threads: one system call and two switches of \
               the processor for each op";
    Finding::new(what, error.to_string()).wrong(why, remedy)
}

fn io_uring_disabled(doctor: &Doctor) -> Finding {
    let what = "io_uring_disabled";
    let Some(value) = doctor.proc("sys/kernel/io_uring_disabled") else {
        return Finding::new(what, "not there").because("Linux 6.6 has this sysctl");
    };
    let remedy = "sysctl -w kernel.io_uring_disabled=0";
    match value.as_str() {
        "0" => Finding::new(what, value),
        "1" => Finding::new(what, value).degraded(
            "only processes in the group kernel.io_uring_group, or with CAP_SYS_ADMIN, may \
             make rings",
            remedy,
        ),
        _ => Finding::new(what, value).wrong("no process may make rings", remedy),
    }
}

fn seccomp(doctor: &Doctor, tried: &Tried) -> Finding {
    let what = "seccomp";
    let Some(mode) = status(doctor, "Seccomp:") else {
        return Finding::new(what, "unknown").unknown("self/status does not say");
    };
    match (mode.as_str(), &tried.ring) {
        ("0", _) => Finding::new(what, "no filter"),
        (_, Ok(_)) => Finding::new(what, "a filter, which lets io_uring through"),
        (_, Err(_)) => Finding::new(what, "a filter").degraded(
            "it may be what forbids io_uring; the profiles of container runtimes do",
            "--security-opt seccomp=PROFILE, with the three io_uring calls allowed",
        ),
    }
}

fn setup_flags(tried: &Tried) -> Finding {
    let what = "setup_flags";
    let Ok(features) = &tried.ring else {
        return Finding::new(what, "none").unknown("there is no ring");
    };
    let finding = Finding::new(what, features.in_use.join(" "));
    if features.degraded.is_empty() {
        return finding;
    }
    finding.degraded(features.degraded.join("; "), "boot a Linux that has what is refused")
}

fn opcodes(tried: &Tried) -> Finding {
    let what = "opcodes";
    let Some(ops) = &tried.ops else {
        return Finding::new(what, "unknown").unknown("there is no ring to ask");
    };
    let which = |there: bool| {
        let names = ops.iter().filter(|&&(_, has)| has == there).map(|&(name, _)| name);
        names.collect::<Vec<_>>().join(" ")
    };
    let (has, lacks) = (which(true), which(false));
    if lacks.is_empty() {
        return Finding::new(what, has);
    }
    let why = format!("this kernel lacks {lacks}: the engine does the same in more steps");
    Finding::new(what, has).degraded(why, "boot a newer Linux (all of them are in 6.15)")
}

fn memlock(doctor: &Doctor) -> Finding {
    let what = "memlock";
    let need = need_bytes(doctor);
    let needs = format!("{} are to be registered", Bytes(need));
    let effective = status(doctor, "CapEff:");
    let capabilities = effective.and_then(|hex| u64::from_str_radix(&hex, 16).ok());
    if capabilities.is_some_and(|bits| bits >> CAP_IPC_LOCK & 1 == 1) {
        return Finding::new(what, "no limit (CAP_IPC_LOCK)").because(needs);
    }
    let Some(limit) = limit(doctor, "Max locked memory") else {
        return Finding::new(what, "unknown").unknown("self/limits does not say");
    };
    let Some(bytes) = limit else { return Finding::new(what, "no limit").because(needs) };
    let finding = Finding::new(what, Bytes(bytes).to_string());
    if bytes >= need {
        return finding.because(needs);
    }
    let why = format!(
        "{needs}: ops on what does not fit go unregistered, at 20 to 40 % more processor time"
    );
    let kib = need.div_ceil(1024);
    finding.degraded(why, format!("ulimit -l {kib} (systemd: LimitMEMLOCK={kib}K)"))
}

/// What the arenas of all shards need.
fn need_bytes(doctor: &Doctor) -> u64 {
    let shards = doctor.shards.or_else(|| allowed_cpus(doctor)).unwrap_or(1);
    doctor.arena_bytes.saturating_mul(shards.into())
}

fn huge_pages(doctor: &Doctor) -> Finding {
    let what = "huge_pages";
    let (free, kib) = (memory(doctor, "HugePages_Free:"), memory(doctor, "Hugepagesize:"));
    let (Some(free), Some(kib @ 1..)) = (free, kib) else {
        return Finding::new(what, "none").unknown("meminfo tells of no huge pages");
    };
    let (need, size) = (need_bytes(doctor), kib * 1024);
    let finding = Finding::new(what, format!("{free} free of {}", Bytes(size)));
    if free.saturating_mul(size) >= need {
        return finding;
    }
    let pages = need.div_ceil(size);
    let why =
        format!("the arenas need {pages} huge pages: ordinary ones register ten times slower");
    finding.degraded(why, format!("sysctl -w vm.nr_hugepages={pages}"))
}

fn transparent_huge_pages(doctor: &Doctor) -> Finding {
    let what = "transparent_huge_pages";
    let file = "kernel/mm/transparent_hugepage/enabled";
    let Some(list) = doctor.sys(file) else {
        return Finding::new(what, "unknown").unknown("the kernel does not say");
    };
    let bracketed = list.split(['[', ']']).nth(1).unwrap_or("unknown").to_owned();
    match bracketed.as_str() {
        "never" => Finding::new(what, bracketed).degraded(
            "without free huge pages, arenas get small ones",
            format!("echo madvise > /sys/{file}"),
        ),
        _ => Finding::new(what, bracketed),
    }
}

fn open_files(doctor: &Doctor) -> Finding {
    let what = "open_files";
    let Some(soft) = limit(doctor, "Max open files") else {
        return Finding::new(what, "unknown").unknown("self/limits does not say");
    };
    let most = doctor.proc("sys/fs/nr_open").unwrap_or_else(|| "unknown".to_owned());
    let Some(soft) = soft else { return Finding::new(what, "no limit") };
    let finding = Finding::new(what, format!("{soft} (nr_open {most})"));
    if soft >= OPEN_FILES_MIN {
        return finding;
    }
    finding.degraded(
        "rings, files and connections share them; opening then fails with EMFILE",
        "ulimit -n 65536 (systemd: LimitNOFILE=65536)",
    )
}

fn cpus(doctor: &Doctor) -> Finding {
    let what = "cpus";
    let online = doctor.sys("devices/system/cpu/online");
    let online = online.as_deref().and_then(count_of_list);
    let Some(allowed) = allowed_cpus(doctor) else {
        return Finding::new(what, "unknown").unknown("self/status does not say");
    };
    let of = online.map_or(String::new(), |online| format!(" of {online}"));
    let finding = Finding::new(what, format!("{allowed}{of} may be used"));
    if allowed > 1 {
        return finding;
    }
    finding.degraded(
        "a shard, the kernel's workers and everything else share one processor",
        "taskset -c 0-N, or a larger cpuset or machine",
    )
}

fn load(doctor: &Doctor) -> Finding {
    let what = "load";
    let average = doctor.proc("loadavg");
    let average = average.and_then(|text| text.split_whitespace().next().map(str::to_owned));
    let parsed = average.as_deref().and_then(|text| text.parse::<f64>().ok());
    let (Some(text), Some(load)) = (average, parsed) else {
        return Finding::new(what, "unknown").unknown("loadavg is not readable");
    };
    let cpus = allowed_cpus(doctor).unwrap_or(1);
    let finding = Finding::new(what, format!("{text} on {cpus} processors"));
    if load <= f64::from(cpus) * 0.5 {
        return finding;
    }
    finding.degraded(
        "others use the machine: what is measured now is not what it can do",
        "stop them (top shows them), or compare in alternation: mfio-bench compare",
    )
}

fn clock(doctor: &Doctor) -> Finding {
    let what = "clock";
    let file = "devices/system/clocksource/clocksource0/current_clocksource";
    let Some(source) = doctor.sys(file) else {
        return Finding::new(what, "unknown").unknown("the kernel does not say");
    };
    match source.as_str() {
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" => Finding::new(what, source).degraded(
            "reading this clock takes a microsecond or more, and is inexact",
            "boot with clocksource=tsc where the processor has a stable one",
        ),
        _ => Finding::new(what, source),
    }
}

/// A field of `self/status` (`proc_pid_status(5)`).
fn status(doctor: &Doctor, field: &str) -> Option<String> {
    let text = doctor.proc("self/status")?;
    let value = text.lines().find_map(|line| line.strip_prefix(field))?;
    Some(value.trim().to_owned())
}

/// The soft limit of that name in `self/limits`; `Some(None)` for no limit.
fn limit(doctor: &Doctor, name: &str) -> Option<Option<u64>> {
    let text = doctor.proc("self/limits")?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

/// A number of `meminfo`, in its own unit.
fn memory(doctor: &Doctor, field: &str) -> Option<u64> {
    let text = doctor.proc("meminfo")?;
    let rest = text.lines().find_map(|line| line.strip_prefix(field))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn allowed_cpus(doctor: &Doctor) -> Option<u32> {
    count_of_list(&status(doctor, "Cpus_allowed_list:")?)
}

/// How many numbers a list such as `0-3,8` names.
fn count_of_list(list: &str) -> Option<u32> {
    let mut count = 0_u32;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::count_of_list;

    #[test]
    fn lists_of_processors_are_counted() {
        for (list, count) in [("0", 1), ("0-1", 2), ("0-3,8,10-11", 7)] {
            assert_eq!(count_of_list(list), Some(count));
        }
        for list in ["", "3-1", "0-4294967295", "x"] {
            assert_eq!(count_of_list(list), None, "{list}");
        }
    }
}
