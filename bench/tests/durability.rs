//! Options about when writes become durable: each leaves its mark in the counts.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::process::Command;

use place::{Place, number};

fn syncs(name: &str, args: &str) -> u64 {
    let place = Place::new(name);
    let common = "--name=s --filename=f --rw=write --bs=4k --size=64k";
    number(&place.job(&format!("{common} {args}"))["sync"]["total_ios"])
}

#[test]
fn fsync_fdatasync_end_fsync_and_fsync_on_close_are_counted() {
    for engine in ["--ioengine=psync", "--ioengine=io_uring --iodepth=4"] {
        assert_eq!(syncs("syncs", &format!("{engine} --fsync=4")), 4);
        assert_eq!(syncs("syncs", &format!("{engine} --fdatasync=2")), 8);
        assert_eq!(syncs("syncs", &format!("{engine} --end_fsync=1")), 1);
        assert_eq!(syncs("syncs", &format!("{engine} --fsync_on_close=1")), 1);
        assert_eq!(syncs("syncs", engine), 0);
    }
}

#[test]
fn sync_file_range_is_counted_and_its_words_are_checked() {
    for engine in ["psync", "io_uring", "null"] {
        let args = format!("--ioengine={engine} --sync_file_range=wait_before,write:8");
        assert_eq!(syncs("ranges", &args), 2, "{engine}");
    }
    let place = Place::new("range");
    let told = place.refused("--name=s --size=4k --sync_file_range=later:8");
    assert!(told.contains("wait_before, write, wait_after"), "{told}");
}

/// What the kernel was asked for is seen from outside.
#[test]
fn sync_opens_with_the_flags_it_names_on_every_engine() {
    let place = Place::new("flags");
    for engine in ["psync", "io_uring", "raw_uring"] {
        for (sync, flag) in [("dsync", 0o10_000), ("sync", 0o4_010_000), ("1", 0o4_010_000)] {
            let args = "--name=s --filename=f --rw=write --size=1m --time_based --runtime=400ms";
            let mut child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
                .current_dir(&place.0)
                .args(args.split_whitespace())
                .args([&format!("--ioengine={engine}"), &format!("--sync={sync}")])
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(std::time::Duration::from_millis(200));
            let folder = format!("/proc/{}/fd", child.id());
            let named = |entry: &std::fs::DirEntry| {
                std::fs::read_link(entry.path()).is_ok_and(|path| path.ends_with("f"))
            };
            let open = std::fs::read_dir(folder).unwrap().flatten().filter(named);
            let flags = open.map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                let info = format!("/proc/{}/fdinfo/{name}", child.id());
                let info = std::fs::read_to_string(info).unwrap();
                let line = info.lines().find(|line| line.starts_with("flags:")).unwrap();
                u32::from_str_radix(line["flags:".len()..].trim(), 8).unwrap()
            });
            let flags: Vec<u32> = flags.collect();
            assert!(child.wait().unwrap().success());
            assert!(!flags.is_empty(), "{engine}");
            assert!(flags.iter().all(|found| found & 0o4_010_000 == flag), "{engine} {flags:?}");
        }
    }
}
