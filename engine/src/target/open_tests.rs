//! Which targets are opened, which are refused and in which words, and who waits for whom.

use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::target::geometry::{FileSystem, TargetKind};

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
    let pointless = OpenOptions { read: false, ..OpenOptions::default() };
    assert!(matches!(open(&missing, &pointless), Err(OpenError::Options { .. })));
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
    assert!(refused.to_string().contains("guard"));
}
