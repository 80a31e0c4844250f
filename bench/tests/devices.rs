//! The built program on loop devices: what every engine writes, and what none does.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ENGINES: [&str; 3] = ["psync", "io_uring", "raw_uring"];

/// A loop device over a file of 8 MiB of zeroes; detached, and the file removed, when it goes.
struct Disk {
    device: String,
    place: PathBuf,
}

impl Disk {
    fn new(name: &str) -> Option<Self> {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("device-{name}"));
        drop(std::fs::remove_dir_all(&place));
        std::fs::create_dir_all(&place).unwrap();
        let backing = place.join("backing");
        File::create(&backing).unwrap().set_len(8 << 20).unwrap();
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&backing).output();
        let device = output.map(|output| text(&output.stdout).trim().to_owned());
        let device = device.unwrap_or_default();
        if !device.starts_with("/dev/loop") {
            writeln!(std::io::stderr().lock(), "skipped: no loop device is to be had").unwrap();
            return None;
        }
        Some(Self { device, place })
    }

    fn bench(&self, engine: &str, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
            .current_dir(&self.place)
            .args(["--name=x", &format!("--filename={}", self.device), "--rw=randwrite"])
            .args(["--size=1m", "--bs=4k", "--direct=1", &format!("--ioengine={engine}")])
            .args(args)
            .output()
            .unwrap()
    }

    /// That nothing was written, and why.
    fn refused(&self, engine: &str, args: &[&str]) -> String {
        let before = std::fs::read(self.place.join("backing")).unwrap();
        let output = self.bench(engine, args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{engine}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{engine}: {stderr}");
        assert!(stderr.contains("job `x`") && stderr.contains(&self.device), "{stderr}");
        assert!(output.stdout.is_empty(), "{engine}: {}", text(&output.stdout));
        let after = std::fs::read(self.place.join("backing")).unwrap();
        assert!(before == after, "{engine} wrote to {}", self.device);
        stderr
    }

    fn put(&self, offset: u64, bytes: &[u8]) {
        let device = File::options().write(true).open(&self.device).unwrap();
        device.write_all_at(bytes, offset).unwrap();
        device.sync_all().unwrap();
    }

    fn run(program: &str, args: &[&str]) -> bool {
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(Self::run("losetup", &["--detach", &self.device]), "{} stays", self.device);
        drop(std::fs::remove_dir_all(&self.place));
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn empty_device_is_written_and_verified_by_every_engine() {
    let Some(disk) = Disk::new("empty") else { return };
    for engine in ENGINES {
        let output = disk.bench(engine, &["--verify=crc32c", "--iodepth=1"]);
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output.stderr));
        // Several clones, and a second job, share the device.
        let again = format!("--filename={}", disk.device);
        let second = ["--numjobs=2", "--name=y", "--size=1m", "--rw=write", &again];
        let output = disk.bench(engine, &second);
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output.stderr));
    }
}

#[test]
fn device_that_carries_something_is_written_only_if_told_so() {
    let Some(disk) = Disk::new("signed") else { return };
    for engine in ENGINES {
        disk.put(0, b"XFSB");
        let stderr = disk.refused(engine, &["--allow_mounted_write=1"]);
        assert!(stderr.contains("carries xfs at 0 B"), "{stderr}");
        assert!(stderr.contains("wipefs -a") && stderr.contains("overwrite_device=1"), "{stderr}");
        let output = disk.bench(engine, &["--overwrite_device=1", "--rw=write"]);
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output.stderr));
    }
}

/// The device with a file system, mounted for reading; unmounted when it goes.
struct Mounted {
    disk: Disk,
    at: String,
}

impl Mounted {
    fn new(name: &str) -> Option<Self> {
        let disk = Disk::new(name)?;
        let at = disk.place.join("mnt");
        std::fs::create_dir(&at).unwrap();
        let at = at.to_str().unwrap().to_owned();
        let made = Disk::run("mkfs.ext4", &["-q", "-F", &disk.device]);
        if !made || !Disk::run("mount", &["-o", "ro,noload", &disk.device, &at]) {
            writeln!(std::io::stderr().lock(), "skipped: nothing can be mounted here").unwrap();
            return None;
        }
        Some(Self { disk, at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        assert!(Disk::run("umount", &[&self.at]), "{} stays mounted", self.at);
    }
}

#[test]
fn mounted_device_is_written_by_no_engine_unless_told_so() {
    let Some(mounted) = Mounted::new("mounted") else { return };
    for engine in ENGINES {
        let stderr = mounted.disk.refused(engine, &["--overwrite_device=1"]);
        assert!(stderr.contains("is mounted at") && stderr.contains("umount"), "{stderr}");
        assert!(stderr.contains("allow_mounted_write=1 writes to it all the same"), "{stderr}");
    }
}

#[test]
fn allow_mounted_write_lets_every_engine_write_what_is_mounted() {
    let Some(mounted) = Mounted::new("let-through") else { return };
    let disk = &mounted.disk;
    if File::options().write(true).open(&disk.device).is_err() {
        let why = "skipped: this kernel lets nobody write to what is mounted";
        writeln!(std::io::stderr().lock(), "{why}").unwrap();
        return;
    }
    for engine in ENGINES {
        let before = std::fs::read(disk.place.join("backing")).unwrap();
        let output = disk.bench(engine, &["--offset=4m", "--allow_mounted_write=1"]);
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output.stderr));
        let after = std::fs::read(disk.place.join("backing")).unwrap();
        assert!(before[4 << 20..5 << 20] != after[4 << 20..5 << 20], "{engine} wrote nothing");
        disk.put(4 << 20, &[0; 1 << 20]);
        // One writer that may does not speak for another that may not.
        let other = format!("--filename={}", disk.device);
        let args = ["--allow_mounted_write=1", "--name=y", "--rw=write", "--size=1m", &other];
        let stderr = text(&disk.bench(engine, &args).stderr);
        assert!(stderr.contains("is mounted at"), "{engine}: {stderr}");
    }
}

#[test]
fn refused_device_stops_the_run_before_any_file_is_made() {
    let Some(disk) = Disk::new("order") else { return };
    disk.put(0, b"LUKS\xba\xbe");
    let other = disk.place.join("other");
    let filename = format!("--filename={}", other.display());
    let output = Command::new(env!("CARGO_BIN_EXE_mfio-bench"))
        .args(["--name=file", "--rw=write", "--size=64k", &filename])
        .args(["--name=disk", "--rw=write", "--size=64k"])
        .arg(format!("--filename={}", disk.device))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("carries LUKS"), "{}", text(&output.stderr));
    assert!(!other.exists());
}

#[test]
fn read_iolog_and_write_iolog_obey_the_guard_of_devices() {
    let Some(disk) = Disk::new("iolog") else { return };
    let trace = disk.place.join("t");
    let device = &disk.device;
    let lines = format!(
        "fio version 2 iolog\n{device} add\n{device} open\n{device} write 0 4096\n\
         {device} read 0 4096\n"
    );
    std::fs::write(&trace, lines).unwrap();
    let read = format!("--read_iolog={}", trace.display());
    for engine in ENGINES {
        disk.put(0, b"XFSB");
        let stderr = disk.refused(engine, &[&read]);
        assert!(stderr.contains("carries xfs at 0 B"), "{stderr}");
        // What is only read needs no permission.
        let output = disk.bench(engine, &[&read, "--replay_skip=write"]);
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output.stderr));
        let output = disk.bench(engine, &[&read, "--overwrite_device=1"]);
        assert_eq!(output.status.code(), Some(0), "{engine}: {}", text(&output.stderr));
    }
    let lines =
        format!("fio version 2 iolog\n{device} add\n{device} open\n{device} read 8388608 1\n");
    std::fs::write(&trace, lines).unwrap();
    let stderr = disk.refused("psync", &[&read, "--direct=0"]);
    assert!(stderr.contains("holds 8388608 bytes, but the trace ends at 8388609"), "{stderr}");
    let write = format!("--write_iolog={device}");
    let output = disk.bench("psync", &["--rw=read", &write]);
    assert!(text(&output.stderr).contains("is a block device; name a file"));
}
