//! What is said of machines that are set up in every wrong way, of real targets, and that
//! every bad finding says what to do.

use std::fs::{create_dir_all, write};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::stat::{major, minor};
use tempfile::TempDir;

use super::*;
use crate::ring::RingKind;
use crate::ring::kernel::RingError;
use crate::target::loop_device::Loop;

/// A machine with nothing wrong; each case then spoils a file of it.
const GOOD: [(&str, &str); 13] = [
    ("proc/sys/kernel/osrelease", "6.18.0"),
    ("proc/sys/kernel/io_uring_disabled", "0"),
    ("proc/sys/fs/nr_open", "1048576"),
    (
        "proc/self/status",
        "Name:\tx\nCapEff:\t000001fffeffffff\nSeccomp:\t0\nCpus_allowed_list:\t0-1\n",
    ),
    (
        "proc/self/limits",
        "Limit Soft Hard Units\nMax locked memory         unlimited  unlimited  bytes\n\
         Max open files            65536      65536      files\n",
    ),
    ("proc/meminfo", "HugePages_Free:      64\nHugepagesize:       2048 kB"),
    ("proc/loadavg", "0.10 0.20 0.30 1/100 1234"),
    ("sys/devices/system/cpu/online", "0-1"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ("sys/other", ""),
    ("proc/other", ""),
    ("proc/self/other", ""),
];

/// The disk of the same machine.
const GOOD_QUEUE: [(&str, &str); 19] = [
    ("scheduler", "[none] mq-deadline"),
    ("iostats", "0"),
    ("nomerges", "2"),
    ("rotational", "0"),
    ("io_poll", "1"),
    ("write_cache", "write through"),
    ("fua", "0"),
    ("logical_block_size", "512"),
    ("physical_block_size", "512"),
    ("max_sectors_kb", "1280"),
    ("max_segments", "128"),
    ("nr_requests", "1023"),
    ("discard_granularity", "512"),
    ("discard_max_bytes", "2147483648"),
    ("write_zeroes_max_bytes", "0"),
    ("dax", "0"),
    ("zoned", "none"),
    ("max_write_streams", "0"),
    ("atomic_write_unit_max_bytes", "0"),
];

fn put(root: &Path, file: &str, contents: &str) {
    let path = root.join(file);
    create_dir_all(path.parent().unwrap()).unwrap();
    write(path, format!("{contents}\n")).unwrap();
}

fn full_ring() -> Tried {
    let mut features = Features::new(RingKind::Kernel);
    features.in_use = vec!["SINGLE_ISSUER", "DEFER_TASKRUN"];
    Tried { ring: Ok(features), ops: Some(vec![("READV_FIXED", true)]) }
}

fn poor_ring() -> Tried {
    let mut tried = full_ring();
    let features = tried.ring.as_mut().unwrap();
    features.degraded = vec!["NO_SQARRAY: the kernel refused it".to_owned()];
    tried.ops = Some(vec![("MSG_RING", true), ("READV_FIXED", false)]);
    tried
}

fn forbidden() -> Tried {
    let ring = Err(RingError::Forbidden { errno: Errno::EPERM, sysctl: Some(2) });
    Tried { ring, ops: None }
}

fn filtered() -> Tried {
    let ring = Err(RingError::Forbidden { errno: Errno::EPERM, sysctl: Some(0) });
    Tried { ring, ops: None }
}

/// A good machine but for `changes`.
fn machine(try_ring: fn() -> Tried, changes: &[(&str, &str)]) -> Report {
    let root = TempDir::new().unwrap();
    for (file, contents) in GOOD.iter().chain(changes) {
        put(root.path(), file, contents);
    }
    let doctor = Doctor::new().roots(&root.path().join("sys"), &root.path().join("proc"));
    let doctor = Doctor { try_ring, ..doctor };
    let report = doctor.machine();
    check_form(&report);
    report
}

/// What holds of every report.
fn check_form(report: &Report) {
    for (at, finding) in report.findings.iter().enumerate() {
        let Finding { what, value, state, why, remedy } = finding;
        assert!(!what.is_empty() && !value.is_empty(), "{finding:?}");
        assert!(what.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{what}");
        assert!(report.findings[..at].iter().all(|other| other.what != *what), "{what} twice");
        assert!(*state == State::Ok || !why.is_empty(), "{finding:?}");
        assert_eq!(*state > State::Unknown, !remedy.is_empty(), "{finding:?}");
        assert!(report.to_string().contains(value), "{report}");
        assert!(report.to_string().contains(remedy), "{report}");
    }
}

#[test]
fn good_machine_has_nothing_to_complain_of() {
    let report = machine(full_ring, &[]);
    assert_eq!(report.worst(), State::Ok, "{report}");
}

#[test]
fn each_wrong_setting_of_a_machine_is_found_and_named_with_its_remedy() {
    let little = "Max locked memory 65536 65536 bytes\nMax open files 1024 4096 files";
    let unprivileged = "CapEff:\t0000000000000000\nSeccomp:\t0\nCpus_allowed_list:\t0-1\nName:\tx";
    let file = "kernel/mm/transparent_hugepage/enabled";
    let never = format!("sys/{file}");
    let limits = [("proc/self/limits", little), ("proc/self/status", unprivileged)];
    // Ring, changed files, the finding, its state, a part of its value or reason, of its remedy.
    type Case<'a> = (fn() -> Tried, &'a [(&'a str, &'a str)], &'a str, State, &'a str, &'a str);
    let cases: [Case<'_>; 16] = [
        (full_ring, &limits, "memlock", State::Degraded, "64 KiB", "ulimit -l "),
        (full_ring, &limits, "open_files", State::Degraded, "1024", "ulimit -n 65536"),
        (forbidden, &[], "io_uring", State::Wrong, "EPERM", "kernel.io_uring_disabled=0"),
        (filtered, &[], "io_uring", State::Wrong, "seccomp", "--security-opt"),
        (forbidden, &[], "setup_flags", State::Unknown, "no ring", ""),
        (poor_ring, &[], "setup_flags", State::Degraded, "NO_SQARRAY", "boot"),
        (poor_ring, &[], "opcodes", State::Degraded, "READV_FIXED", "newer Linux"),
        (
            full_ring,
            &[("proc/sys/kernel/io_uring_disabled", "2")],
            "io_uring_disabled",
            State::Wrong,
            "2",
            "sysctl -w kernel.io_uring_disabled=0",
        ),
        (
            full_ring,
            &[("proc/sys/kernel/io_uring_disabled", "1")],
            "io_uring_disabled",
            State::Degraded,
            "io_uring_group",
            "sysctl",
        ),
        (
            filtered,
            &[("proc/self/status", "Seccomp:\t2\nCpus_allowed_list:\t0-1")],
            "seccomp",
            State::Degraded,
            "filter",
            "--security-opt",
        ),
        (
            full_ring,
            &[("proc/meminfo", "HugePages_Free: 0\nHugepagesize: 2048 kB")],
            "huge_pages",
            State::Degraded,
            "0 free of 2 MiB",
            "vm.nr_hugepages=",
        ),
        (
            full_ring,
            &[(&never, "always madvise [never]")],
            "transparent_huge_pages",
            State::Degraded,
            "never",
            "echo madvise",
        ),
        (
            full_ring,
            &[("proc/self/status", "Seccomp:\t0\nCpus_allowed_list:\t1")],
            "cpus",
            State::Degraded,
            "1 of 2",
            "taskset",
        ),
        (full_ring, &[("proc/loadavg", "7.50 1 1")], "load", State::Degraded, "7.50", "compare"),
        (full_ring, &[("proc/loadavg", "?")], "load", State::Unknown, "loadavg", ""),
        (
            full_ring,
            &[("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")],
            "clock",
            State::Degraded,
            "hpet",
            "clocksource=tsc",
        ),
    ];
    for (try_ring, changes, what, state, text, remedy) in cases {
        let report = machine(try_ring, changes);
        let finding = report.find(what).unwrap();
        assert_eq!(finding.state, state, "{finding:?}");
        let said = format!("{} {}", finding.value, finding.why);
        assert!(said.contains(text), "{finding:?}");
        assert!(finding.remedy.contains(remedy), "{finding:?}");
    }
}

#[test]
fn f32_needs_decide_whether_a_limit_is_too_small() {
    let root = TempDir::new().unwrap();
    let proc = root.path().join("proc");
    put(&proc, "self/limits", "Max locked memory 8388608 8388608 bytes");
    let state = |shards, bytes| {
        let doctor = Doctor::new().roots(&root.path().join("sys"), &proc).needs(shards, bytes);
        let doctor = Doctor { try_ring: full_ring, ..doctor };
        doctor.machine().find("memlock").unwrap().state
    };
    assert_eq!(state(1, 8 << 20), State::Ok);
    assert_eq!(state(2, 8 << 20), State::Degraded);
}

#[test]
fn machine_without_proc_and_sys_is_unknown_and_not_wrong() {
    let nowhere = Path::new("/nonexistent");
    let doctor = Doctor { try_ring: full_ring, ..Doctor::new().roots(nowhere, nowhere) };
    let report = doctor.machine();
    check_form(&report);
    assert_eq!(report.worst(), State::Unknown, "{report}");
}

#[test]
fn this_machine_is_described() {
    let report = Doctor::new().machine();
    check_form(&report);
    assert!(report.find("kernel").unwrap().value.starts_with("Linux "), "{report}");
    assert_ne!(report.find("cpus").unwrap().state, State::Unknown, "{report}");
}

/// Beside the test binary, which is not on a tmpfs.
fn file_on_disk() -> tempfile::NamedTempFile {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut file = tempfile::NamedTempFile::new_in(directory).unwrap();
    file.write_all(&[7; 8192]).unwrap();
    file
}

/// A file on a disk whose queue is good but for `changes`.
fn on_disk(changes: &[(&str, &str)]) -> Report {
    let (file, root) = (file_on_disk(), TempDir::new().unwrap());
    let device = file.as_file().metadata().unwrap().dev();
    let disk = format!("dev/block/{}:{}", major(device), minor(device));
    for (name, contents) in GOOD_QUEUE.iter().chain(changes) {
        put(root.path(), &format!("{disk}/queue/{name}"), contents);
    }
    let doctor = Doctor::new().roots(root.path(), &root.path().join("proc"));
    let report = doctor.target(file.path());
    check_form(&report);
    report
}

#[test]
fn each_wrong_setting_of_a_queue_is_found_and_named_with_its_remedy() {
    let good = on_disk(&[]);
    for what in ["scheduler", "iostats", "nomerges", "write_cache", "transfer", "poll_queues"] {
        assert_eq!(good.find(what).unwrap().state, State::Ok, "{good}");
    }
    let volatile = ("write_cache", "write back");
    // Changed files of the queue, the finding, its state, a part of its value and remedy.
    type Case<'a> = (&'a [(&'a str, &'a str)], &'a str, State, &'a str, &'a str);
    let cases: [Case<'_>; 13] = [
        (&[("zoned", "host-managed")], "zones", State::Degraded, "host-managed", "zonefs"),
        (&[("max_write_streams", "8")], "write_streams", State::Ok, "8", ""),
        (&[("zoned", "none")], "zones", State::Ok, "none", ""),
        (
            &[("scheduler", "none [mq-deadline] bfq")],
            "scheduler",
            State::Degraded,
            "mq-deadline",
            "/queue/scheduler",
        ),
        (&[("iostats", "1")], "iostats", State::Degraded, "on", "echo 0 > /sys/block/"),
        (&[("nomerges", "0")], "nomerges", State::Degraded, "0", "echo 2 > "),
        (&[("nomerges", "0"), ("rotational", "1")], "nomerges", State::Ok, "0", ""),
        (&[volatile], "write_cache", State::Degraded, "without FUA", "groups"),
        (&[volatile, ("fua", "1")], "write_cache", State::Ok, "with FUA", ""),
        (&[("write_cache", "?")], "write_cache", State::Unknown, "unknown", ""),
        (&[("max_sectors_kb", "64")], "transfer", State::Degraded, "64 KiB", "max_sectors_kb"),
        (&[("io_poll", "0")], "poll_queues", State::Ok, "none", ""),
        (&[("discard_max_bytes", "x")], "discard", State::Unknown, "unknown", ""),
    ];
    for (changes, what, state, value, remedy) in cases {
        let report = on_disk(changes);
        let finding = report.find(what).unwrap();
        assert_eq!(finding.state, state, "{finding:?}");
        assert!(finding.value.contains(value), "{finding:?}");
        assert!(finding.remedy.contains(remedy), "{finding:?}");
    }
}

#[test]
fn file_on_a_disk_and_its_directory_are_meaningful() {
    let file = file_on_disk();
    let report = Doctor::new().target(file.path());
    check_form(&report);
    if report.find("file_system").unwrap().value == "ext4" {
        assert_eq!(report.find("nowait").unwrap().value, "yes", "{report}");
        assert_eq!(report.find("direct_io").unwrap().value, "yes", "{report}");
    }
    assert_eq!(report.find("open").unwrap().value, "a file of 8 KiB");
    let directory = Doctor::new().target(file.path().parent().unwrap());
    check_form(&directory);
    assert_eq!(directory.find("open").unwrap().value, "a directory");
    let device = |report: &Report| report.find("device").unwrap().value.clone();
    assert_eq!(device(&directory), device(&report));
}

#[test]
fn file_in_memory_is_called_meaningless_and_punting() {
    let Ok(mut file) = tempfile::NamedTempFile::new_in("/dev/shm") else { return };
    file.write_all(&[7; 4096]).unwrap();
    let report = Doctor::new().target(file.path());
    check_form(&report);
    if report.find("file_system").unwrap().value == "tmpfs" {
        assert_eq!(report.find("meaningful").unwrap().state, State::Wrong, "{report}");
        let nowait = report.find("nowait").unwrap();
        assert_eq!(nowait.state, State::Degraded, "{report}");
        assert!(nowait.value.contains("punted"), "{report}");
    }
}

#[test]
fn f44_device_of_4096_byte_sectors_is_described_as_such() {
    let backing = file_on_disk();
    backing.as_file().set_len(4 << 20).unwrap();
    let Some(device) = Loop::over(backing.path(), &["--sector-size=4096"]) else { return };
    let report = Doctor::new().target(device.path());
    check_form(&report);
    let value = |what| report.find(what).unwrap().value.as_str();
    assert_eq!(value("open"), "a block device of 4 MiB");
    assert_eq!(value("alignment"), "offsets 4 KiB, memory 4 KiB");
    assert_eq!(value("blocks"), "logical 4 KiB, physical 4 KiB");
    assert_eq!(value("meaningful"), "hardly");
    assert_eq!(value("free_space"), "all of it");
}

#[test]
fn what_cannot_be_opened_is_one_finding() {
    for path in ["/nonexistent", "/dev/null"] {
        let report = Doctor::new().target(Path::new(path));
        check_form(&report);
        assert_eq!(report.findings.len(), 1);
        assert_eq!((report.findings[0].what, report.worst()), ("open", State::Wrong));
    }
    // The doctor makes nothing, and so advises nobody how to open for making.
    let report = Doctor::new().target(Path::new("/nonexistent"));
    let told = report.to_string();
    assert!(told.contains("correct the name") && !told.contains("create"), "{told}");
}

#[test]
fn free_space_is_judged_by_its_share_and_its_size() {
    let gib = 1 << 30;
    for (free, all, state) in [
        (0, 100 * gib, State::Wrong),
        (gib, 100 * gib, State::Degraded),
        (20 * gib, 100 * gib, State::Ok),
        (gib / 2, 10 * gib, State::Degraded),
        (gib / 2, gib, State::Ok),
    ] {
        assert_eq!(target::space(free, all).state, state, "{free} of {all}");
    }
}
