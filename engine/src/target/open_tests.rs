//! Which targets are opened, which are refused and in which words, and who waits for whom.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::target::geometry::{FileSystem, TargetKind};
use crate::target::loop_device::Loop;

/// What is synced: the inode of it.
fn inode(file: &File) -> u64 {
    file.metadata().unwrap().ino()
}

/// Beside the test binary, which is not on a tmpfs.
fn directory() -> TempDir {
    tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap()
}

const WRITING: OpenOptions = OpenOptions::new().write(true).create(true).mode(0o600);

#[test]
fn buffered_file_has_no_alignment_and_its_length() {
    let path = directory();
    let path = path.path().join("target");
    std::fs::write(&path, [7; 1000]).unwrap();
    let opened = open(&path, &OpenOptions::default()).unwrap();
    let geometry = opened.geometry;
    assert_eq!((geometry.kind, geometry.len_bytes), (TargetKind::File, 1000));
    assert_eq!((geometry.mem_align, geometry.offset_align), (1, 1));
    assert!(!geometry.direct && !opened.fell_back);
    assert_ne!(geometry.file_system, FileSystem::NONE);
}

#[test]
fn f44_direct_file_has_an_alignment_that_works() {
    let directory = directory();
    let options = OpenOptions { direct: DirectMode::PreferDirect, ..WRITING };
    let opened = open(&directory.path().join("target"), &options).unwrap();
    let geometry = opened.geometry;
    assert_eq!(geometry.direct, !opened.fell_back);
    assert!(geometry.offset_align.is_power_of_two());
    assert!(geometry.mem_align >= geometry.offset_align);
    assert_eq!(geometry.transfer_bytes_max % geometry.offset_align, 0);
    if geometry.direct && !geometry.file_system.is_tmpfs() {
        assert!(geometry.offset_align >= 512, "{geometry:?}");
    }
}

#[test]
fn missing_directory_and_pipe_targets_are_refused_by_name() {
    let directory = directory();
    let path = directory.path();
    let refused = |path: &Path| open(path, &OpenOptions::default()).unwrap_err();
    assert_eq!(refused(path), OpenError::Directory { path: path.to_owned() });
    let missing = path.join("missing");
    let error = refused(&missing);
    assert!(matches!(error, OpenError::Os { errno: Errno::ENOENT, .. }));
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(error.to_string().contains("ENOENT"), "{error}");
    let null = Path::new("/dev/null");
    assert_eq!(refused(null), OpenError::NoPositions { path: null.to_owned() });
    assert!(error.to_string().contains("create"), "it says what to do: {error}");
}

#[test]
fn f46_locked_file_is_opened_once_its_holder_is_gone() {
    let directory = directory();
    let path = directory.path().join("target");
    let holder = open(&path, &WRITING).unwrap();
    let releasing = std::thread::spawn(move || {
        sys::pause(Duration::from_millis(60));
        drop(holder);
    });
    let started_ns = sys::now_ns();
    let second = open(&path, &OpenOptions::default()).unwrap();
    assert!(sys::now_ns() - started_ns >= 50_000_000);
    releasing.join().unwrap();
    // Readers share; a writer waits for them and gives up.
    let third = open(&path, &OpenOptions::default()).unwrap();
    let refused = open(&path, &WRITING).unwrap_err();
    assert!(matches!(refused, OpenError::Locked { waited_ms: LOCK_WAIT_MS_MAX.., .. }));
    assert!(refused.to_string().contains("lslocks"));
    let mut unlocked = open(&path, &OpenOptions { lock: false, ..WRITING }).unwrap();
    unlocked.file.write_all(&[1]).unwrap();
    drop((second, third));
}

#[test]
fn writing_to_a_block_device_is_refused_before_it_is_opened() {
    let devices = std::fs::read_dir("/dev").unwrap().filter_map(Result::ok);
    let device = devices.map(|entry| entry.path()).find(|path| {
        std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device())
    });
    let Some(path) = device else { return };
    let options = OpenOptions { create: false, ..WRITING };
    let refused = open(&path, &options).unwrap_err();
    assert_eq!(refused, OpenError::BlockDeviceWrite { path });
    assert!(refused.to_string().contains("DeviceWrite::IfUnused"));
}

#[test]
fn contradictory_options_are_refused_before_anything_is_touched() {
    let directory = directory();
    let path = directory.path().join("target");
    let reading = OpenOptions::new();
    let cases = [
        (reading.read(false), "reading or writing"),
        (reading.create(true), "a file is to be made"),
        (reading.device_write(DeviceWrite::IfUnused), "device is allowed"),
        (WRITING.mode(0o100_644), "permission bits"),
    ];
    for (options, expected) in cases {
        let refused = open(&path, &options).unwrap_err();
        assert!(matches!(refused, OpenError::Options { .. }), "{refused:?}");
        assert!(refused.to_string().contains(expected), "{refused}");
    }
    // There is no namespace here to be opened.
    let through = |durability| WRITING.write_through(durability).check_namespace(&path);
    assert!(matches!(through(Some(Durability::Data)), Err(OpenError::Options { .. })));
    assert!(through(None).is_ok() && through(Some(Durability::None)).is_ok());
    let nul = Path::new("a\0b");
    assert!(open(nul, &WRITING).unwrap_err().to_string().contains("NUL"));
    assert!(!path.exists());
}

#[test]
fn f39_name_is_synced_where_the_file_is_and_not_where_the_link_is() {
    let (here, elsewhere) = (directory(), directory());
    let target = elsewhere.path().join("target");
    let link = here.path().join("link");
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&target).unwrap();
    let place = inode(&File::open(elsewhere.path()).unwrap());
    let synced = |options: OpenOptions, is_new| {
        let mut synced = Vec::new();
        let result = settle(&link, &file, &options, is_new, |file| {
            synced.push(inode(file));
            Ok(())
        });
        result.map(|()| synced)
    };
    // The contents first, so that no name ever leads to something that is not there.
    assert_eq!(synced(WRITING, true).unwrap(), [inode(&file), place]);
    assert_eq!(synced(WRITING, false).unwrap(), [inode(&file), place]);
    let unsynced = WRITING.sync_on_open(false);
    assert_eq!(synced(unsynced, true).unwrap(), [inode(&file), place]);
    assert_eq!(synced(unsynced, false).unwrap(), [place]);
    assert_eq!(synced(WRITING.create(false), false).unwrap(), [inode(&file)]);
    assert_eq!(synced(unsynced.create(false), false).unwrap(), [0; 0]);
}

#[test]
fn f38_flush_that_fails_on_open_says_what_was_lost() {
    let directory = directory();
    let path = directory.path().join("target");
    let file = File::create(&path).unwrap();
    let after = |errno| settle(&path, &file, &OpenOptions::new(), false, |_| Err(errno));
    for errno in [Errno::EROFS, Errno::EBADF, Errno::EINVAL] {
        assert_eq!(after(errno), Ok(()), "nothing to flush");
    }
    for errno in [Errno::EIO, Errno::ENOSPC, Errno::EDQUOT] {
        let lost = after(errno).unwrap_err();
        assert_eq!(lost, OpenError::LostData { path: path.clone(), errno });
        assert!(lost.to_string().contains("lost data") && lost.to_string().contains("dmesg"));
    }
    let other = after(Errno::EINTR).unwrap_err();
    assert!(matches!(other, OpenError::Os { call: "fsync", errno: Errno::EINTR, .. }));
    // A directory that cannot be synced is not taken for one that needs no sync.
    let mut calls = 0;
    let refused = settle(&path, &file, &WRITING, true, |_| {
        calls += 1;
        if calls == 1 { Ok(()) } else { Err(Errno::EIO) }
    });
    assert!(matches!(refused, Err(OpenError::Os { call: "fsync of its directory", .. })));
}

/// The process that wrote is told nothing and ends; the next one is told, once.
#[test]
fn f38_writes_that_an_earlier_process_lost_fail_the_open() {
    // A disk of 4 MiB whose backing store has room for one: what is beyond is lost.
    let script = "d=$(mktemp -d) && mount -t tmpfs -o size=1m none $d && truncate -s 4m $d/f \
                  && losetup --find --show $d/f; umount -l $d; rmdir $d";
    let Some(device) = Loop::attached_by("unshare", &["-m", "sh", "-c", script]) else { return };
    let mut earlier = std::fs::OpenOptions::new().write(true).open(device.path()).unwrap();
    earlier.write_all(&vec![7; 4 << 20]).unwrap();
    drop(earlier);
    let options = OpenOptions::new();
    let lost = open(device.path(), &options).unwrap_err();
    let path = device.path().to_owned();
    assert_eq!(lost, OpenError::LostData { path, errno: Errno::EIO });
    open(device.path(), &options).unwrap();
}

#[test]
fn device_is_written_only_where_allowed_and_by_one_at_a_time() {
    let directory = directory();
    let backing = directory.path().join("backing");
    File::create(&backing).unwrap().set_len(1 << 20).unwrap();
    let Some(device) = Loop::over(&backing, &[]) else { return };
    let refused = open(device.path(), &OpenOptions::new().write(true)).unwrap_err();
    assert_eq!(refused, OpenError::BlockDeviceWrite { path: device.path().to_owned() });
    // Even where it says to make a file: there is something already, and O_EXCL holds.
    let allowed = WRITING.device_write(DeviceWrite::IfUnused).lock(false);
    let opened = open(device.path(), &allowed).unwrap();
    assert_eq!(opened.geometry.kind, TargetKind::BlockDevice);
    let busy = open(device.path(), &allowed).unwrap_err();
    assert_eq!(busy, OpenError::DeviceBusy { path: device.path().to_owned() });
    assert!(busy.to_string().contains("lsblk"), "{busy}");
    open(device.path(), &OpenOptions::new()).unwrap();
    drop(opened);
    open(device.path(), &allowed).unwrap();
}

#[test]
fn device_that_is_just_being_closed_is_waited_for() {
    let directory = directory();
    let backing = directory.path().join("backing");
    File::create(&backing).unwrap().set_len(1 << 20).unwrap();
    let Some(device) = Loop::over(&backing, &[]) else { return };
    let allowed = WRITING.allow_device_write(true).lock(false);
    let held = open(device.path(), &allowed).unwrap();
    let closing = std::thread::spawn(move || {
        sys::pause(Duration::from_millis(100));
        drop(held);
    });
    open(device.path(), &allowed).unwrap();
    closing.join().unwrap();
}

#[test]
fn f45_file_that_is_open_one_way_is_not_opened_the_other() {
    let directory = directory();
    let path = directory.path().join("target");
    std::fs::write(&path, [7; 8192]).unwrap();
    let with = |direct| OpenOptions::new().lock(false).direct(direct);
    let [buffered, direct, prefer] =
        [DirectMode::Buffered, DirectMode::Direct, DirectMode::PreferDirect].map(with);
    let first = match open(&path, &direct) {
        Ok(opened) => opened,
        // The claims alone are tested beside them.
        Err(error) => return assert!(matches!(error, OpenError::NoDirect { .. }), "{error}"),
    };
    // By whatever name.
    let link = directory.path().join("link");
    std::fs::hard_link(&path, &link).unwrap();
    let refused = open(&link, &buffered).unwrap_err();
    assert_eq!(refused, OpenError::OtherWay { path: link.clone(), direct: true });
    assert!(refused.to_string().contains("ask for Direct here too"), "{refused}");
    assert!(open(&link, &prefer).unwrap().geometry.direct);
    assert!(look(&link, &buffered).is_ok(), "looking is no way to go");
    drop(first);
    let first = open(&path, &buffered).unwrap();
    let refused = open(&path, &direct).unwrap_err();
    assert_eq!(refused, OpenError::OtherWay { path: path.clone(), direct: false });
    let fallen = open(&path, &prefer).unwrap();
    assert!(fallen.fell_back && !fallen.geometry.direct);
    assert_eq!(fallen.geometry.offset_align, 1);
    // The descriptor itself goes through the page cache now: nothing has to be aligned.
    let mut byte = [0; 3];
    std::os::unix::fs::FileExt::read_exact_at(&fallen.file, &mut byte, 1).unwrap();
    assert_eq!(byte, [7; 3]);
    drop((first, fallen));
    open(&path, &direct).unwrap();
}
