//! Which devices are refused for writing, on loop devices of this machine and with the tools
//! that put things on them.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::super::in_use::{DeviceUse, UseKind};
use super::super::loop_device::Loop;
use super::super::{OpenOptions, open};
use super::*;

const MIB: u64 = 1 << 20;

/// A loop device over a file of 16 MiB, with partitions where there is a table. Detached before
/// its file goes.
struct Disk {
    device: Loop,
    place: TempDir,
}

impl Disk {
    /// `None`, with a word on why, where this machine gives us none.
    fn holding(contents: &[(u64, &[u8])]) -> Option<Self> {
        let here = std::env::current_exe().unwrap();
        let place = tempfile::tempdir_in(here.parent().unwrap()).unwrap();
        let backing = place.path().join("backing");
        let file = File::create(&backing).unwrap();
        file.set_len(16 * MIB).unwrap();
        for (at, bytes) in contents {
            file.write_all_at(bytes, *at).unwrap();
        }
        let device = Loop::over(&backing, &["--partscan"])?;
        Some(Self { device, place })
    }

    fn path(&self) -> &Path {
        self.device.path()
    }

    /// Runs a program of `args` and the device, and says whether that went well.
    fn run(&self, program: &str, args: &[&str]) -> bool {
        run(program, args, self.path())
    }

    /// A node of the first partition, under a name that says nothing: there may be no udev that
    /// makes one.
    fn partition(&self) -> Option<PathBuf> {
        let number = format!("/sys/class/block/{}p1/dev", self.name());
        if !Path::new(&number).exists() {
            // A kernel that reads no such tables can be told.
            let args = [self.path().to_str().unwrap(), "1", "2048", "16384"];
            let added = Command::new("addpart").args(args).status();
            assert!(added.is_ok_and(|status| status.success()));
        }
        let number = std::fs::read_to_string(number).ok();
        let node = self.place.path().join("node");
        let made = number.as_deref().and_then(|number| number.trim().split_once(':'));
        let made = made.is_some_and(|(major, minor)| {
            let args = [node.to_str().unwrap(), "b", major, minor];
            Command::new("mknod").args(args).status().is_ok_and(|status| status.success())
        });
        if !made || File::open(&node).is_err() {
            said("skipped: partitions of loop devices are not to be had here");
            return None;
        }
        Some(node)
    }

    fn name(&self) -> String {
        self.path().file_name().unwrap().to_str().unwrap().to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Where one was added by hand, detaching the device would leave it.
        let partition = format!("/sys/class/block/{}p1", self.name());
        if Path::new(&partition).exists() {
            let args = [self.path().to_str().unwrap(), "1"];
            drop(Command::new("delpart").args(args).status());
        }
    }
}

#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn said(why: &str) {
    eprintln!("{why}");
}

fn run(program: &str, args: &[&str], device: &Path) -> bool {
    let silent = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    silent(Command::new(program).args(args).arg(device))
}

/// An MBR with one partition, of 8 MiB, that begins at 1 MiB.
fn mbr() -> Vec<u8> {
    let mut sector = vec![0; 512];
    sector[446 + 4] = 0x83;
    sector[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    sector[446 + 12..446 + 16].copy_from_slice(&16384_u32.to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn write(path: &Path, how: DeviceWrite) -> Result<super::super::Opened, OpenError> {
    open(path, &OpenOptions::new().write(true).device_write(how))
}

fn refused(path: &Path, how: DeviceWrite) -> OpenError {
    write(path, how).expect_err("the device is not to be written")
}

/// Mounted until it goes.
struct Mount(PathBuf);

impl Mount {
    fn of(device: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").arg(device).arg(at).stderr(Stdio::null()).status();
        if !mounted.is_ok_and(|status| status.success()) {
            said("skipped: mounting is not permitted here");
            return None;
        }
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        assert!(run("umount", &[], &self.0), "{} stays mounted", self.0.display());
    }
}

/// What the device was found to carry; overwriting must be possible all the same.
fn found_on(path: &Path) -> Vec<Signature> {
    let error = refused(path, DeviceWrite::IfUnused);
    let said = error.to_string();
    assert!(said.contains("wipefs -a") && said.contains("DeviceWrite::Overwrite"), "{said}");
    drop(write(path, DeviceWrite::Overwrite).unwrap());
    match error {
        OpenError::DeviceNotEmpty { found, .. } => found,
        error => panic!("{error}"),
    }
}

fn uses_of(path: &Path) -> Vec<DeviceUse> {
    let refusals = [DeviceWrite::IfUnused, DeviceWrite::Overwrite].map(|how| refused(path, how));
    assert_eq!(refusals[0], refusals[1], "no permission lets a device be written that is in use");
    assert!(DeviceClaim::take(path, DeviceWrite::Overwrite).is_err());
    open(path, &OpenOptions::new()).expect("reading is shared");
    match refusals.into_iter().next() {
        Some(OpenError::DeviceInUse { uses, .. }) => uses,
        other => panic!("{other:?}"),
    }
}

#[test]
fn mounts_alone_are_let_through_and_only_where_that_is_said() {
    let of = |kind: UseKind| DeviceUse { device: "sda1".to_owned(), kind };
    let mounted = of(UseKind::Mounted { at: "/mnt".into() });
    let others = [
        of(UseKind::Swap),
        of(UseKind::Held { by: "md0".to_owned() }),
        of(UseKind::Btrfs { uuid: "u".to_owned() }),
        of(UseKind::Backing { of: "loop0".to_owned() }),
    ];
    let all: Vec<_> = others.iter().cloned().chain([mounted.clone()]).collect();
    for how in [DeviceWrite::Refuse, DeviceWrite::IfUnused, DeviceWrite::Overwrite] {
        assert_eq!(forbidding(all.clone(), how), all);
    }
    assert_eq!(forbidding(all, DeviceWrite::EvenMounted), others);
    assert!(forbidding(vec![mounted], DeviceWrite::EvenMounted).is_empty());
}

#[test]
fn empty_device_is_written_and_only_with_permission() {
    let Some(disk) = Disk::holding(&[]) else { return };
    let path = disk.path().to_owned();
    assert_eq!(refused(&path, DeviceWrite::Refuse), OpenError::BlockDeviceWrite { path });
    let opened = write(disk.path(), DeviceWrite::IfUnused).unwrap();
    opened.file.write_all_at(&[0x5a; 4096], 0).unwrap();
    drop(opened);
    // What a benchmark wrote is no signature.
    write(disk.path(), DeviceWrite::IfUnused).unwrap();
}

#[test]
fn links_to_a_device_are_the_device() {
    let Some(disk) = Disk::holding(&[(0, b"XFSB")]) else { return };
    let link = disk.place.path().join("by-id");
    std::os::unix::fs::symlink(disk.path(), &link).unwrap();
    assert_eq!(found_on(&link), [Signature { what: "xfs", offset_bytes: 0 }]);
}

#[test]
fn file_system_and_swap_of_the_real_tools_are_found_and_wiped() {
    let made: [(&str, &[&str], Signature); 2] = [
        ("mkfs.ext4", &["-q", "-F"], Signature { what: "ext2/3/4", offset_bytes: 1080 }),
        ("mkswap", &[], Signature { what: "swap", offset_bytes: 4086 }),
    ];
    for (program, args, expected) in made {
        let Some(disk) = Disk::holding(&[]) else { return };
        if !disk.run(program, args) {
            said(&format!("skipped: {program} cannot be run here"));
            continue;
        }
        assert_eq!(found_on(disk.path()), [expected]);
        assert!(disk.run("wipefs", &["-a"]));
        write(disk.path(), DeviceWrite::IfUnused).unwrap();
    }
}

#[test]
fn partitioned_disk_is_refused_and_its_empty_partition_is_not() {
    let Some(disk) = Disk::holding(&[(0, &mbr())]) else { return };
    let mut found = found_on(disk.path());
    assert_eq!(found.remove(0), Signature { what: "MBR or boot sector", offset_bytes: 510 });
    if let Some(partition) = disk.partition() {
        found = found_on(disk.path()).split_off(1);
        let known = Signature { what: "partition that the kernel knows", offset_bytes: MIB };
        assert_eq!(found, [known]);
        write(&partition, DeviceWrite::IfUnused).unwrap();
    }
    let Some(disk) = Disk::holding(&[(512, b"EFI PART"), (16 * MIB - 512, b"EFI PART")]) else {
        return;
    };
    let names: Vec<_> = found_on(disk.path()).iter().map(|signature| signature.what).collect();
    assert_eq!(names, ["GPT", "GPT copy"]);
}

#[test]
fn mounted_device_is_never_written_whatever_it_is_called() {
    let Some(disk) = Disk::holding(&[]) else { return };
    assert!(disk.run("mkfs.ext4", &["-q", "-F"]));
    let at = disk.place.path().join("mounted here");
    let Some(mount) = Mount::of(disk.path(), &at) else { return };
    let expected = DeviceUse { device: disk.name(), kind: UseKind::Mounted { at: at.clone() } };
    assert_eq!(uses_of(disk.path()), [expected]);
    let said = refused(disk.path(), DeviceWrite::Overwrite).to_string();
    assert!(said.contains("is mounted at") && said.contains("umount"), "{said}");
    drop(mount);
    assert_eq!(found_on(disk.path()).len(), 1);
}

#[test]
fn disk_with_a_mounted_partition_is_never_written() {
    let Some(disk) = Disk::holding(&[(0, &mbr())]) else { return };
    let Some(partition) = disk.partition() else { return };
    assert!(run("mkfs.ext4", &["-q", "-F"], &partition));
    let at = disk.place.path().join("mnt");
    let Some(_mount) = Mount::of(&partition, &at) else { return };
    let device = format!("{}p1", disk.name());
    let expected = [DeviceUse { device, kind: UseKind::Mounted { at } }];
    assert_eq!(uses_of(disk.path()), expected);
    assert_eq!(uses_of(&partition), expected);
}

#[test]
fn mount_of_another_namespace_is_met_by_the_exclusive_open() {
    let Some(disk) = Disk::holding(&[]) else { return };
    assert!(disk.run("mkfs.ext4", &["-q", "-F"]));
    let at = disk.place.path().join("mnt");
    std::fs::create_dir_all(&at).unwrap();
    let script = "mount \"$0\" \"$1\" && echo mounted && read end; umount \"$1\"";
    let mut child = Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .args([disk.path(), &at])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    let read = std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line);
    let mounted = read.is_ok() && line == "mounted\n";
    let refusal = mounted.then(|| refused(disk.path(), DeviceWrite::Overwrite));
    drop(child.stdin.take());
    child.wait().unwrap();
    match refusal {
        Some(error) => assert_eq!(error, OpenError::DeviceBusy { path: disk.path().to_owned() }),
        None => said("skipped: mounting in a namespace of its own is not permitted here"),
    }
}

#[test]
fn backing_device_of_another_loop_is_never_written() {
    let Some(disk) = Disk::holding(&[]) else { return };
    let Some(upper) = Loop::over(disk.path(), &[]) else { return };
    let of = upper.path().file_name().unwrap().to_str().unwrap().to_owned();
    let expected = DeviceUse { device: disk.name(), kind: UseKind::Backing { of } };
    assert_eq!(uses_of(disk.path()), [expected]);
    drop(upper);
    write(disk.path(), DeviceWrite::IfUnused).unwrap();
}

#[test]
fn swap_in_use_is_never_written() {
    let Some(disk) = Disk::holding(&[]) else { return };
    if !disk.run("mkswap", &[]) || !disk.run("swapon", &[]) {
        said("skipped: swapping is not permitted here");
        return;
    }
    let refusal = refused(disk.path(), DeviceWrite::Overwrite);
    assert!(disk.run("swapoff", &[]), "{} stays swap", disk.path().display());
    let uses = vec![DeviceUse { device: disk.name(), kind: UseKind::Swap }];
    assert_eq!(refusal, OpenError::DeviceInUse { path: disk.path().to_owned(), uses });
}

#[test]
fn claim_lets_this_process_open_a_device_often_and_nobody_else_hold_it() {
    let Some(disk) = Disk::holding(&[]) else { return };
    let path = disk.path().to_owned();
    let claim = DeviceClaim::take(&path, DeviceWrite::IfUnused).unwrap();
    assert!(claim.is_held());
    let options = OpenOptions::new().write(true).device_write(DeviceWrite::IfUnused).lock(false);
    let both = [open(&path, &options).unwrap(), open(&path, &options).unwrap()];
    // It was empty when it was claimed; what has been written since is the claimant's own.
    both[0].file.write_all_at(b"XFSB", 0).unwrap();
    both[0].file.sync_all().unwrap();
    open(&path, &options).unwrap();
    let again = DeviceClaim::take(&path, DeviceWrite::Overwrite).unwrap_err();
    assert_eq!(again, OpenError::DeviceBusy { path: path.clone() });
    drop(both);
    drop(claim);
    assert_eq!(found_on(&path), [Signature { what: "xfs", offset_bytes: 0 }]);
    let null = DeviceClaim::take(Path::new("/dev/null"), DeviceWrite::Overwrite);
    assert!(matches!(null, Err(OpenError::Options { .. })));
}

#[test]
fn device_that_cannot_be_read_may_carry_anything() {
    // A disk of 16 MiB on a file that has become shorter: its end cannot be read.
    let Some(disk) = Disk::holding(&[]) else { return };
    let backing = disk.place.path().join("backing");
    File::options().write(true).open(backing).unwrap().set_len(MIB).unwrap();
    let refusal = refused(disk.path(), DeviceWrite::IfUnused);
    let path = disk.path().to_owned();
    let expected = OpenError::Unexamined { path, offset_bytes: 15 * MIB, errno: Errno::EIO };
    assert_eq!(refusal, expected);
    assert!(refusal.to_string().contains("15 MiB"), "{refusal}");
    write(disk.path(), DeviceWrite::Overwrite).unwrap();
}
