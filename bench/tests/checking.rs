//! Verification beside and across runs, and trims on the way, on real files and loop devices.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

mod place;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use place::{Place, ios, text};

fn damage(place: &Place, file: &str, at: u64, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(place.0.join(file)).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

#[test]
fn verify_async_checks_on_threads_and_finds_every_wrong_block() {
    let place = Place::new("verifyasync");
    for engine in ["psync", "io_uring", "raw_uring"] {
        let common = format!(
            "--name=v --filename=f --size=1m --bs=4k --verify=sha256 --verify_async=3 \
             --ioengine={engine}"
        );
        let job = place.job(&format!("{common} --rw=randwrite --verify_async_cpus=0-1"));
        assert_eq!((ios(&job, "write"), ios(&job, "read")), (256, 256), "{engine}");
        let good = fs::read(place.0.join("f")).unwrap();
        for block in [3_usize, 77, 255] {
            let at = block * 4096 + 2000;
            damage(&place, "f", u64::try_from(at).unwrap(), &[good[at] ^ 2]);
        }
        let told = place.refused(&format!("{common} --rw=read"));
        assert_eq!(told.matches("a flipped bit: byte 2000").count(), 3, "{engine}: {told}");
        for offset in [12288, 315_392, 1_044_480] {
            assert!(told.contains(&format!("offset {offset}, length 4096")), "{offset}: {told}");
        }
        let told = place.refused(&format!("{common} --rw=read --verify_fatal=1"));
        assert!((1..=3).contains(&told.matches("a flipped bit").count()), "{told}");
    }
    let told = place.refused("--name=v --size=4k --verify=md5 --verify_async_cpus=4000");
    assert!(told.contains("there is no CPU 4000"), "{told}");
}

/// The threads are there while the job runs, and only on the CPUs they were given.
#[test]
fn verify_async_cpus_places_the_threads() {
    let place = Place::new("asynccpus");
    let args = "--name=v --filename=f --size=64k --bs=4k --rw=randwrite --verify=md5 \
                --thinktime=20ms \
                --verify_async=2 --verify_async_cpus=0";
    let mut child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
        .current_dir(&place.0)
        .args(args.split_whitespace())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut found = Vec::new();
    while found.len() < 2 && child.try_wait().unwrap().is_none() {
        found.clear();
        let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).into_iter().flatten();
        for task in tasks.flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap_or_default().trim().to_owned()
            };
            if field("Name:").starts_with("verify-") && field("Cpus_allowed_list:") == "0" {
                found.push(field("Name:"));
            }
        }
    }
    assert!(child.wait().unwrap().success());
    found.sort();
    assert_eq!(found, ["verify-0", "verify-1"]);
}

#[test]
fn verify_state_save_and_verify_state_load_find_what_was_lost_between_runs() {
    let place = Place::new("state");
    let common = "--name=v --filename=f --size=256k --bs=4k --verify=crc32c --ioengine=psync";
    let state = place.0.join("local-v-0-verify.state");
    // Unlike fio, nothing is left behind unless it was asked for.
    place.job(&format!("{common} --rw=randwrite"));
    assert!(!state.exists());
    let told = place.refused(&format!("{common} --rw=read --verify_state_load=1"));
    assert!(told.contains("cannot load the verify state") && told.contains("verify_state_save=1"));

    // Only a part was written: no more than that is read.
    let write = format!("{common} --rw=randwrite --verify_state_save=1 --do_verify=0");
    place.job(&format!("{write} --number_ios=20"));
    for read in ["--rw=read", "--rw=randread", "--rw=randwrite --verify_only"] {
        let job = place.job(&format!("{common} {read} --verify_state_load=1"));
        assert_eq!((ios(&job, "write"), ios(&job, "read")), (0, 20), "{read}");
    }
    // An older block survives: whole, in its place, and yet wrong.
    place.job(&write);
    let older = fs::read(place.0.join("f")).unwrap();
    place.job(&write);
    damage(&place, "f", 40960, &older[40960..45056]);
    let read = format!("{common} --rw=read --verify_state_load=1");
    assert_eq!(
        place.run(&format!("{common} --rw=read")).status.code(),
        Some(0),
        "no state, no word"
    );
    let told = place.refused(&read);
    assert!(told.contains("offset 40960, length 4096"), "{told}");
    assert!(told.contains("a stale block of another run, its last write was lost"), "{told}");
    let again = place.run(&format!("{read} --verify_header_seed=0 --verify_write_sequence=0"));
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));

    // A state that is cut short or of another region is refused, and one that writes needs none.
    let whole = fs::read(&state).unwrap();
    fs::write(&state, &whole[..whole.len() - 30]).unwrap();
    assert!(place.refused(&read).contains("is no whole verify state"));
    fs::write(&state, &whole).unwrap();
    let told = place.refused(&read.replace("256k", "128k"));
    assert!(told.contains("is of other files, regions or blocks"), "{told}");
    let told = place.refused(&format!("{common} --rw=write --verify_state_load=1"));
    assert!(told.contains("verify_state_load checks what an earlier run wrote"), "{told}");
}

/// A job that is interrupted while it writes leaves the state of what it had written.
#[test]
fn verify_state_save_survives_an_interrupted_run() {
    let place = Place::new("interrupted");
    let common =
        "--name=v --filename=f --size=4m --bs=4k --verify=xxhash --ioengine=io_uring --iodepth=4";
    let args = format!("{common} --rw=randwrite --verify_state_save=1 --rate_iops=200");
    let mut child = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
        .current_dir(&place.0)
        .args(args.split_whitespace())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // As soon as something is there that verify wrote.
    let begun = || {
        fs::read(place.0.join("f")).is_ok_and(|data| data.chunks(4096).any(|b| b[..4] == *b"mfio"))
    };
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128));
    let job = place.job(&format!("{common} --rw=read --verify_state_load=1"));
    assert!((1..1024).contains(&ios(&job, "read")), "{}", job["read"]);
}

#[test]
fn verify_write_sequence_and_verify_header_seed_are_checked_unless_switched_off() {
    let place = Place::new("sequence");
    let common = "--name=v --filename=f --size=64k --bs=4k --verify=crc32c --ioengine=psync";
    let write = format!("{common} --rw=write --verify_state_save=1");
    place.job(&write);
    // The same run wrote both, so the seed is right and only the number is not: of this place,
    // the state says another write.
    let state = place.0.join("local-v-0-verify.state");
    let body = fs::read_to_string(&state).unwrap();
    let body = body.split("end ").next().unwrap().replace("run 0 0 16 1", "run 0 0 16 2");
    fs::write(&state, format!("{body}end {:08x}\n", crc32c::crc32c(body.as_bytes()))).unwrap();
    let read = format!("{common} --rw=read --verify_state_load=1");
    let told = place.refused(&read);
    assert!(told.contains("bad header sequence 1, wanted 2: a stale block"), "{told}");
    assert!(place.refused(&format!("{read} --verify_header_seed=0")).contains("a stale block"));
    assert_eq!(place.run(&format!("{read} --verify_write_sequence=0")).status.code(), Some(0));
}

#[test]
fn experimental_verify_reads_back_what_it_wrote() {
    let place = Place::new("experimental");
    for args in [
        "--rw=randwrite",
        "--rw=randwrite --norandommap",
        "--rw=randrw",
        "--rw=write --bsrange=4k-16k",
    ] {
        let job = place.job(&format!(
            "--name=v --filename=f --size=512k --bs=4k --verify=md5 --experimental_verify=1 \
             --ioengine=io_uring --iodepth=8 {args}"
        ));
        let (reads, writes) = (ios(&job, "read"), ios(&job, "write"));
        assert!(writes > 0 && reads >= writes, "{args}: {reads} {writes}");
    }
    let told = place.refused(
        "--name=v --size=64k --rw=write --verify=md5 --experimental_verify=1 --verify_backlog=4",
    );
    assert!(told.contains("remembers nothing, which verify_backlog needs"), "{told}");
}

#[test]
fn verify_pattern_from_a_file_is_written_and_checked() {
    let place = Place::new("patternfile");
    fs::write(place.0.join("p"), b"sixteen letters.").unwrap();
    let common = "--name=v --filename=f --size=64k --bs=4k --verify=pattern --verify_pattern='p'";
    place.job(&format!("{common} --rw=write"));
    let data = fs::read(place.0.join("f")).unwrap();
    assert!(data.chunks(16).all(|piece| piece == b"sixteen letters."));
    damage(&place, "f", 4096, b"S");
    let told = place.refused(&format!("{common} --rw=read"));
    assert!(told.contains("a flipped bit: byte 0 is 53, wanted 73"), "{told}");
    let told = place.refused("--name=v --size=4k --verify=pattern --verify_pattern='gone'");
    assert!(told.contains("cannot read the pattern `gone`: No such file"), "{told}");
}

#[test]
fn verify_dump_works_beside_verify_async_and_for_trimmed_blocks() {
    let place = Place::new("dumpasync");
    let common = "--name=v --filename=f --size=64k --bs=4k --verify=crc32c --verify_async=2";
    place.job(&format!("{common} --rw=write"));
    let good = fs::read(place.0.join("f")).unwrap();
    damage(&place, "f", 8292, &[good[8292] ^ 1]);
    place.refused(&format!("{common} --rw=read --verify_dump=1"));
    assert_eq!(fs::read(place.0.join("f.8192.expected")).unwrap(), good[8192..12288]);
    assert_eq!(fs::read(place.0.join("f.8192.received")).unwrap()[100], good[8292] ^ 1);
}

/// A loop device over a file of 8 MiB; detached when it goes.
struct Disk(String, PathBuf);

impl Disk {
    fn new(name: &str) -> Option<Self> {
        let backing = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("loop-{name}"));
        fs::File::create(&backing).unwrap().set_len(8 << 20).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        let device = output.map(|output| text(&output).trim().to_owned()).unwrap_or_default();
        if !device.starts_with("/dev/loop") {
            writeln!(std::io::stderr().lock(), "skipped: no loop device is to be had").unwrap();
            drop(fs::remove_file(&backing));
            return None;
        }
        Some(Self(device, backing))
    }

    /// Blocks of 4 KiB that hold nothing.
    fn holes(&self) -> usize {
        let data = fs::read(&self.1).unwrap();
        data.chunks(4096).filter(|block| block.iter().all(|byte| *byte == 0)).count()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays", self.0);
        drop(fs::remove_file(&self.1));
    }
}

#[test]
fn trim_percentage_and_trim_backlog_discard_a_share_on_files_and_devices() {
    let place = Place::new("trimshare");
    let disk = Disk::new("trims");
    let device = disk.as_ref().map(|disk| disk.0.clone());
    for target in [Some("f".to_owned()), device].into_iter().flatten() {
        for engine in ["psync", "io_uring"] {
            let common = format!(
                "--name=v --filename={target} --size=1m --bs=4k --rw=randwrite --verify=crc32c \
                 --direct=1 --ioengine={engine} --iodepth=4"
            );
            let all = "--trim_percentage=100 --trim_backlog=16";
            // Trimmed blocks are not read back, unless they must be zeros.
            let job = place.job(&format!("{common} {all}"));
            assert_eq!((ios(&job, "write"), ios(&job, "trim")), (256, 256), "{target} {engine}");
            assert_eq!(ios(&job, "read"), 0, "{target} {engine}");
            let job = place.job(&format!("{common} {all} --trim_verify_zero=1"));
            assert_eq!((ios(&job, "trim"), ios(&job, "read")), (256, 256), "{target} {engine}");
            let job = place.job(&format!("{common} {all} --trim_backlog_batch=4"));
            assert_eq!((ios(&job, "trim"), ios(&job, "read")), (64, 192), "{target} {engine}");
            if let Some(disk) = disk.as_ref().filter(|_| target.starts_with("/dev")) {
                // The device has given them back, and the rest of it was never written.
                assert_eq!(disk.holes(), 2048 - 192, "{engine}");
            }
            let half = format!("{common} --trim_percentage=50 --trim_backlog=8 --verify_backlog=8");
            let job = place.job(&format!("{half} --trim_verify_zero=1 --verify_async=2"));
            assert!((64..192).contains(&ios(&job, "trim")), "{}", job["trim"]);
            assert_eq!(ios(&job, "write"), 256);
        }
    }
}

#[test]
fn trim_verify_zero_names_a_trimmed_block_that_is_not_zeros() {
    let place = Place::new("trimzero");
    let common = "--name=v --filename=f --size=64k --bs=4k --verify=crc32c --ioengine=psync";
    let write = format!(
        "{common} --rw=write --trim_percentage=100 --trim_backlog=4 --trim_verify_zero=1 \
         --verify_state_save=1"
    );
    place.job(&write);
    assert!(fs::read(place.0.join("f")).unwrap().iter().all(|byte| *byte == 0));
    let read = format!("{common} --rw=read --verify_state_load=1");
    assert_eq!(ios(&place.job(&read), "read"), 16);
    damage(&place, "f", 9000, &[7]);
    let told = place.refused(&read);
    assert!(told.contains("a trimmed block that is not zeros: byte 808 is 07"), "{told}");
}

#[test]
fn trim_percentage_without_what_it_needs_is_refused() {
    let place = Place::new("trimrefused");
    for (args, told) in [
        ("--rw=write --verify=md5 --trim_percentage=5", "add trim_backlog=N"),
        ("--rw=write --trim_percentage=5 --trim_backlog=4", "add verify=METHOD"),
        ("--rw=read --verify=md5 --trim_percentage=5 --trim_backlog=4", "rw=write or another"),
        ("--rw=trimwrite --verify=md5 --trim_percentage=5 --trim_backlog=4", "trims anyway"),
    ] {
        let said = place.refused(&format!("--name=v --size=64k {args}"));
        assert!(said.contains(told), "{args}: {said}");
    }
}

/// Each block is trimmed and then written, in that order, and verified.
#[test]
fn trimwrite_and_randtrimwrite_trim_each_block_before_it_is_written() {
    let place = Place::new("trimwrite");
    let disk = Disk::new("trimwrite");
    let device = disk.as_ref().map(|disk| disk.0.clone());
    for target in [Some("f".to_owned()), device].into_iter().flatten() {
        for rw in ["trimwrite", "randtrimwrite"] {
            for engine in ["psync", "io_uring"] {
                let job = place.job(&format!(
                    "--name=v --filename={target} --size=256k --bs=4k --rw={rw} --verify=md5 \
                     --direct=1 --ioengine={engine} --iodepth=4 --overwrite_device=1"
                ));
                let counts = (ios(&job, "trim"), ios(&job, "write"), ios(&job, "read"));
                assert_eq!(counts.0, counts.1, "{target} {rw} {engine}");
                assert!(counts.1 > 0 && counts.1 == counts.2, "{target} {rw} {engine} {counts:?}");
            }
        }
    }
    let job = place.job("--name=v --size=256k --bs=4k --rw=trimwrite --ioengine=null");
    assert_eq!(ios(&job, "trim"), ios(&job, "write"));
}
