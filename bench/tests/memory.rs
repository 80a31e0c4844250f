//! Options about the memory of buffers, on the built program.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use place::{Place, ios, text};

/// Lines of `/proc/PID/PART` of a run, at any time of it; the run must succeed.
fn watched(place: &Place, args: &str, part: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
        .current_dir(&place.0)
        .args(args.split_whitespace())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let file = format!("/proc/{}/{part}", child.id());
    let mut seen = false;
    while !seen && child.try_wait().unwrap().is_none() {
        let text = fs::read_to_string(&file).unwrap_or_default();
        seen = text.lines().any(&wanted);
    }
    assert!(child.wait().unwrap().success(), "{args}");
    seen
}

#[test]
fn mem_and_iomem_of_every_kind_move_the_same_bytes() {
    let place = Place::new("iomem");
    for kind in ["malloc", "shm", "mmap", "mmapshared"] {
        for engine in ["psync", "raw_uring", "io_uring", "null"] {
            let verify = if engine == "null" { "" } else { "--verify=crc32c" };
            let args = format!(
                "--name=m --filename=f --size=256k --bs=4k --rw=randwrite --direct=1 {verify} \
                 --iodepth=4 --ioengine={engine} --mem={kind}"
            );
            if engine == "io_uring" && ["shm", "mmapshared"].contains(&kind) {
                let told = place.refused(&args);
                assert!(told.contains(&format!("private memory, not iomem={kind}; use")), "{told}");
                continue;
            }
            assert_eq!(ios(&place.job(&args), "write"), 64, "{kind} {engine}");
        }
    }
    let told = place.refused("--name=m --size=4k --iomem=cudamalloc");
    assert!(told.contains("`cudamalloc` is known to fio but not supported"), "{told}");
}

/// A shared mapping is one of shared memory as the kernel shows it.
#[test]
fn mem_shm_is_shared_and_mmap_is_not() {
    let place = Place::new("sharedmem");
    for (kind, shared) in [("shm", true), ("mmapshared", true), ("mmap", false), ("malloc", false)]
    {
        let args = format!(
            "--name=m --filename=f --size=64k --bs=1m --size=4m --rw=write --ioengine=psync \
             --mem={kind} \
             --thinktime=50ms"
        );
        let seen = watched(&place, &args, "maps", |line| line.contains("/dev/zero (deleted)"));
        assert_eq!(seen, shared, "{kind}");
    }
}

#[test]
fn mem_mmaphuge_and_shmhuge_use_huge_pages_or_say_how_to_get_them() {
    let place = Place::new("huge");
    let free = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    let free: u64 = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    for (kind, engine) in [
        ("mmaphuge", "psync"),
        ("shmhuge", "psync"),
        ("mmaphuge", "raw_uring"),
        ("mmaphuge", "io_uring"),
    ] {
        let args = format!(
            "--name=m --filename=f --size=64k --bs=4k --rw=write --ioengine={engine} --mem={kind}"
        );
        if free >= 8 {
            assert_eq!(ios(&place.job(&args), "write"), 16, "{kind} {engine}");
            continue;
        }
        let told = place.refused(&args);
        assert!(told.contains(&format!("iomem={kind}")), "{told}");
        assert!(told.contains("vm.nr_hugepages=N"), "{told}");
    }
    if free < 8 {
        let why = "no huge pages are reserved here, so only the refusal was tested";
        writeln!(std::io::stderr().lock(), "{why}").unwrap();
    }
}

#[test]
fn iomem_align_is_honoured_or_refused() {
    let place = Place::new("align");
    for (engine, align) in
        [("psync", "1m"), ("raw_uring", "64k"), ("io_uring", "4k"), ("null", "2m")]
    {
        let verify = if engine == "null" { "" } else { "--verify=md5" };
        let args = format!(
            "--name=m --filename=f --size=64k --bs=4k --rw=write --iodepth=2 --direct=1 {verify} \
             --ioengine={engine} --iomem_align={align}"
        );
        assert_eq!(ios(&place.job(&args), "write"), 16, "{engine} {align}");
    }
    let told = place.refused("--name=m --size=4k --ioengine=io_uring --mem_align=64k");
    assert!(told.contains("aligns buffers to 4096 bytes, not iomem_align=65536"), "{told}");
    assert!(place.refused("--name=m --size=4k --iomem_align=3000").contains("no power of two"));
}

#[test]
fn hugepage_size_is_that_of_the_kernel_or_refused() {
    let place = Place::new("hugesize");
    let args = "--name=m --filename=f --size=64k --rw=write --mem=mmaphuge";
    let told = place.refused(&format!("{args} --ioengine=psync --hugepage-size=64m"));
    assert!(told.contains("has no huge pages of 65536 KiB"), "{told}");
    let told = place.refused(&format!("{args} --ioengine=io_uring --hugepage-size=1g"));
    assert!(told.contains("knows huge pages of 2097152 bytes"), "{told}");
    assert!(place.refused("--name=m --size=4k --hugepage-size=3m").contains("no huge page has"));
}

#[test]
fn lockmem_pins_so_much_memory_while_the_job_runs() {
    let place = Place::new("lockmem");
    let args =
        "--name=m --filename=f --size=16k --bs=4k --rw=write --ioengine=psync --thinktime=100ms";
    let pinned = |kib: u64| {
        move |line: &str| {
            let value = line.strip_prefix("VmLck:").map(|rest| rest.trim_end_matches("kB").trim());
            value.and_then(|value| value.parse::<u64>().ok()).is_some_and(|locked| locked >= kib)
        }
    };
    assert!(!watched(&place, args, "status", pinned(8192)));
    assert!(watched(&place, &format!("{args} --lockmem=8m"), "status", pinned(8192)));
    let told = place.run(&format!("{args} --lockmem=900t"));
    assert_ne!(told.status.code(), Some(0));
    assert!(
        text(&told).contains("lockmem=") && text(&told).contains("ulimit -l"),
        "{}",
        text(&told)
    );
}
