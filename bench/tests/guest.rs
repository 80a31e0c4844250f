//! The built program on real NVMe drivers: in the guest that `scripts/guest/run` boots, and
//! nowhere else, since it writes to whole devices.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

use std::io::Write;
use std::process::{Command, Output};

/// A device of the guest; `None`, with a word on why, outside of it.
fn device(name: &str) -> Option<String> {
    let found = std::env::var("MFIO_GUEST").ok().and_then(|_| std::env::var(name).ok());
    if found.is_none() {
        let why = "skipped: run it in the guest (scripts/guest/run)";
        writeln!(std::io::stderr().lock(), "{why}: no {name}").unwrap();
    }
    found
}

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mfio-bench")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A job on `target`; what it says on stderr.
fn job(target: &str, args: &[&str]) -> (Option<i32>, String) {
    let filename = format!("--filename={target}");
    let fixed = ["--name=x", &filename, "--size=4m", "--bs=4k", "--direct=1", "--iodepth=8"];
    let output = bench(&[&fixed, args].concat());
    (output.status.code(), text(&output.stderr))
}

/// Polled and not, as commands and as a block device; what one way writes, the other reads.
fn is_written_and_read_back(block: &str, generic: &str) {
    let (Some(block), Some(generic)) = (device(block), device(generic)) else { return };
    let write = ["--rw=randwrite", "--verify=crc32c"];
    let read = ["--rw=randread", "--verify=crc32c"];
    for hipri in ["--hipri=0", "--hipri=1"] {
        let commands = ["--ioengine=io_uring_cmd", "--cmd_type=nvme", hipri];
        let through_block = ["--ioengine=io_uring", hipri];
        let steps: [(&str, &[&str], &[&str]); 4] = [
            (&generic, &write, &commands),
            (&block, &read, &through_block),
            (&block, &write, &through_block),
            (&generic, &read, &commands),
        ];
        for (target, what, engine) in steps {
            let (code, stderr) = job(target, &[what, engine].concat());
            assert_eq!(code, Some(0), "{target} {what:?} {engine:?}: {stderr}");
        }
    }
    let by_kernel_thread = ["--ioengine=io_uring", "--sqthread_poll=1"];
    let (code, stderr) = job(&block, &[read, by_kernel_thread].concat());
    assert_eq!(code, Some(0), "{block} {by_kernel_thread:?}: {stderr}");
    let refused: [(&str, &[&str], &str); 3] = [
        (&generic, &["--rw=read", "--ioengine=psync", "--iodepth=1"], "io_uring_cmd"),
        (&block, &["--rw=read", "--ioengine=io_uring_cmd"], "/dev/ng0n1"),
        (&generic, &["--rw=read", "--ioengine=io_uring_cmd", "--bs=1k"], "must be a multiple"),
    ];
    for (target, args, expected) in refused {
        if expected == "must be a multiple" && block.contains("512") {
            continue;
        }
        let (code, stderr) = job(target, args);
        let is_512 = expected == "must be a multiple" && code == Some(0);
        assert!(is_512 || code == Some(1) && stderr.contains(expected), "{target}: {stderr}");
    }
}

#[test]
fn namespace_of_512_byte_blocks_and_its_block_device_are_written_and_read_back() {
    is_written_and_read_back("MFIO_NVME512", "MFIO_NG512");
}

#[test]
fn namespace_of_4096_byte_blocks_and_its_block_device_are_written_and_read_back() {
    is_written_and_read_back("MFIO_NVME4K", "MFIO_NG4K");
}

#[test]
fn null_blk_with_memory_is_written_and_read_back_polled_and_not() {
    let Some(target) = device("MFIO_NULLMEM") else { return };
    let engines: [&[&str]; 4] = [
        &["--ioengine=io_uring", "--hipri=0"],
        &["--ioengine=io_uring", "--hipri=1"],
        &["--ioengine=raw_uring"],
        &["--ioengine=psync", "--iodepth=1"],
    ];
    for engine in engines {
        for rw in ["--rw=randwrite", "--rw=randread", "--rw=randrw"] {
            let what = [rw, "--verify=crc32c"];
            let (code, stderr) = job(&target, &[&what[..], engine].concat());
            assert_eq!(code, Some(0), "{target} {what:?} {engine:?}: {stderr}");
        }
    }
}

/// A command as nobody, who is no user of the devices.
fn as_nobody(args: &[&str]) -> Output {
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let bench = env!("CARGO_BIN_EXE_mfio-bench");
    Command::new("setpriv").args(nobody).arg(bench).args(args).output().unwrap()
}

#[test]
fn user_without_permission_is_told_what_it_takes() {
    for (name, engine) in [("MFIO_NVME4K", "io_uring"), ("MFIO_NG4K", "io_uring_cmd")] {
        let Some(target) = device(name) else { return };
        for rw in ["read", "write"] {
            let filename = format!("--filename={target}");
            let (rw, engine) = (format!("--rw={rw}"), format!("--ioengine={engine}"));
            let args = ["--name=x", &filename, "--size=4m", "--bs=4k", "--direct=1", &rw, &engine];
            let refused = as_nobody(&args);
            let stderr = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains(&target) && stderr.contains("Permission denied"), "{stderr}");
        }
    }
}

/// `kernel.io_uring_disabled` at 1 while this lives.
struct Forbidden;

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

impl Drop for Forbidden {
    fn drop(&mut self) {
        std::fs::write(SYSCTL, "0").unwrap();
    }
}

#[test]
fn user_who_may_have_no_ring_is_served_by_threads_and_told_so() {
    let Some(_guest) = device("MFIO_NULLMEM") else { return };
    if !std::path::Path::new(SYSCTL).exists() {
        writeln!(std::io::stderr().lock(), "skipped: {SYSCTL} is of Linux 6.6").unwrap();
        return;
    }
    std::fs::write(SYSCTL, "1").unwrap();
    let _forbidden = Forbidden;
    let at = std::env::temp_dir().join(format!("nobody-{}", std::process::id()));
    let filename = format!("--filename={}", at.display());
    let job = ["--name=x", &filename, "--size=1m", "--bs=4k", "--rw=randwrite", "--verify=crc32c"];
    let ring = ["--ioengine=io_uring", "--iodepth=8"];
    let said = as_nobody(&[&job[..], &ring].concat());
    let stderr = text(&said.stderr);
    assert_eq!(said.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("kernel.io_uring_disabled=1"), "{stderr}");
    assert!(stderr.contains("blocking threads"), "{stderr}");
    // The yardstick has nothing to fall back to; and root is not concerned.
    let refused = as_nobody(&[&job[..], &["--ioengine=raw_uring"]].concat());
    assert_ne!(refused.status.code(), Some(0));
    assert!(text(&refused.stderr).contains("io_uring"), "{}", text(&refused.stderr));
    std::fs::remove_file(&at).unwrap();
    let root = bench(&[&job[..], &ring].concat());
    assert_eq!(root.status.code(), Some(0), "{}", text(&root.stderr));
    assert!(!text(&root.stderr).contains("io_uring_disabled"), "{}", text(&root.stderr));
    std::fs::remove_file(&at).unwrap();
}

#[test]
fn namespace_is_guarded_by_what_its_block_device_carries_and_who_mounts_it() {
    let (Some(block), Some(generic)) = (device("MFIO_NVME4K"), device("MFIO_NG4K")) else { return };
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).status();
        assert!(status.is_ok_and(|status| status.success()), "{program} {args:?}");
    };
    run("mkfs.ext4", &["-q", "-F", &block]);
    let write = ["--rw=randwrite", "--ioengine=io_uring_cmd"];
    let (code, stderr) = job(&generic, &write);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("carries ext2/3/4 at 1080 B"), "{stderr}");
    assert!(stderr.contains(&format!("wipefs -a {block}")), "{stderr}");
    let at = std::env::temp_dir().join("guarded");
    std::fs::create_dir_all(&at).unwrap();
    let at = at.to_str().unwrap();
    run("mount", &["-t", "ext4", &block, at]);
    let (code, stderr) = job(&generic, &[&write[..], &["--overwrite_device=1"]].concat());
    run("umount", &[at]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("is mounted at"), "{stderr}");
    run("wipefs", &["-q", "-a", &block]);
    let (code, stderr) = job(&generic, &write);
    assert_eq!(code, Some(0), "{stderr}");
}

/// That the bit is set is for the tests of the engine; here the device must take it.
#[test]
fn readfua_and_writefua_are_taken_by_a_real_device() {
    for generic in ["MFIO_NG512", "MFIO_NG4K"] {
        let Some(generic) = device(generic) else { return };
        for what in [["--rw=randwrite", "--writefua=1"], ["--rw=randread", "--readfua=1"]] {
            let args = ["--ioengine=io_uring_cmd", "--verify=crc32c"];
            let (code, stderr) = job(&generic, &[&what[..], &args].concat());
            assert_eq!(code, Some(0), "{generic} {what:?}: {stderr}");
        }
    }
}

#[test]
fn atomic_is_taken_or_refused_by_a_real_device_as_one() {
    for block in ["MFIO_NVME512", "MFIO_NVME4K"] {
        let Some(block) = device(block) else { return };
        let of = |engine: &str| job(&block, &["--rw=randwrite", "--atomic=1", engine]).0;
        let codes = ["--ioengine=io_uring", "--ioengine=raw_uring"].map(of);
        assert_eq!(codes[0], codes[1], "{block}");
    }
}

#[test]
fn zoned_devices_are_read_and_not_written() {
    for (name, engine) in [("MFIO_ZNS", "io_uring"), ("MFIO_NGZNS", "io_uring_cmd")] {
        let Some(target) = device(name) else { return };
        let engine = format!("--ioengine={engine}");
        let (code, stderr) = job(&target, &["--rw=write", "--overwrite_device=1", &engine]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("host-managed") && stderr.contains("zonefs"), "{stderr}");
        let (code, stderr) = job(&target, &["--rw=read", &engine]);
        assert_eq!(code, Some(0), "{stderr}");
    }
}

#[test]
fn doctor_describes_namespaces_and_their_block_devices() {
    for name in ["MFIO_NVME512", "MFIO_NG512", "MFIO_NVME4K", "MFIO_NG4K", "MFIO_NGZNS"] {
        let Some(target) = device(name) else { return };
        let said = text(&bench(&["doctor", &target]).stdout);
        let (_, said) = said.split_once(&format!("\n{target}: ")).unwrap();
        for what in [
            "controller  ",
            "QEMU NVMe Ctrl, firmware",
            "lba_format",
            "command_transfer  ",
            "power_fail_atomic",
            "volatile cache, FUA",
            "scheduler",
            "poll_queues",
            "write_cache ",
            "zones ",
        ] {
            assert!(said.contains(what), "{what}: {said}");
        }
        assert_eq!(said.contains("host-managed"), name == "MFIO_NGZNS", "{said}");
        let format = if name.contains("512") { "512 B (lbaf 0)" } else { "4 KiB (lbaf 4)" };
        assert!(said.contains(format), "{said}");
        writeln!(std::io::stderr().lock(), "{target}: {said}").unwrap();
    }
}
