//! What transfers must respect, by what is told and what is not; and what real files tell.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use super::*;
use crate::target::Device;
use crate::target::loop_device::Loop;

fn told(mem: u32, offset: u32) -> Facts {
    let (mem, offset) = (Some(mem), Some(offset));
    Facts { direct_mem_bytes: mem, direct_offset_bytes: offset, ..Facts::UNKNOWN }
}

#[test]
fn f44_alignment_follows_what_is_told_and_else_is_cautious() {
    let (file, device) = (TargetKind::File, TargetKind::BlockDevice);
    let logical = |bytes, facts| Facts { logical_block_bytes: Some(bytes), ..facts };
    let read = |bytes, facts| Facts { direct_read_offset_bytes: Some(bytes), ..facts };
    // Kind, facts, alignment of offsets and of memory.
    let cases = [
        (file, told(512, 512), (512, 512)),
        (file, told(512, 4096), (4096, 4096)),
        (file, told(4, 512), (512, 512)),
        (file, logical(4096, told(4, 512)), (512, 4096)),
        (file, read(512, told(4, 4096)), (4096, 4096)),
        (file, read(8192, told(4, 4096)), (8192, 8192)),
        (file, told(0, 0), (4096, 4096)),
        (file, Facts::UNKNOWN, (4096, 4096)),
        (file, logical(512, Facts::UNKNOWN), (4096, 4096)),
        (device, logical(512, Facts::UNKNOWN), (512, 512)),
        (device, logical(4096, told(0, 0)), (4096, 4096)),
        (device, Facts::UNKNOWN, (4096, 4096)),
        (file, told(1, 520), (1024, 1024)),
    ];
    for (kind, facts, expected) in cases {
        assert_eq!(direct_align(kind, &facts), expected, "{kind} {facts:?}");
    }
}

#[test]
fn f23_ops_are_not_longer_than_a_request_of_the_device() {
    let of = |bytes| {
        let device = Device { transfer_bytes_max: bytes, ..Device::named("vda") };
        Facts { device: Some(device), ..Facts::UNKNOWN }
    };
    let cases = [
        (None, 1 << 20),
        (Some(4 << 20), 1 << 20),
        (Some(u64::MAX), 1 << 20),
        (Some(128 << 10), 128 << 10),
        (Some(127 << 10), 124 << 10),
        (Some(512), 4096),
    ];
    for (device, expected) in cases {
        assert_eq!(transfer_bytes_max(&of(device), true, 4096), expected, "{device:?}");
        assert_eq!(transfer_bytes_max(&of(device), false, 1), 1 << 20, "a cache splits nothing");
    }
    assert_eq!(transfer_bytes_max(&Facts::UNKNOWN, true, 512), 1 << 20);
}

#[test]
fn file_beside_the_test_binary_says_what_it_is_on() {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut file = tempfile::tempfile_in(directory).unwrap();
    file.write_all(&[7; 8192]).unwrap();
    let geometry = Geometry::of(&file).unwrap();
    assert_eq!((geometry.len_bytes, geometry.facts.dax), (8192, Some(false)));
    let text = geometry.to_string();
    assert!(text.starts_with("file of 8 KiB on "), "{text}");
    if let Some(device) = geometry.facts.device {
        assert!(text.contains(device.name.as_str()), "{text}");
        assert!(device.logical_block_bytes.is_some_and(u32::is_power_of_two), "{device:?}");
        assert_eq!(geometry.facts.logical_block_bytes, device.logical_block_bytes);
    }
    if geometry.file_system.name() == "ext4" {
        assert_eq!(geometry.facts.nowait, Some(true), "ext4 reads without waiting");
    }
}

#[test]
fn file_in_memory_punts_and_has_no_device() {
    let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else { return };
    file.write_all(&[7; 4096]).unwrap();
    let geometry = Geometry::of(&file).unwrap();
    if !geometry.file_system.is_tmpfs() {
        return;
    }
    assert_eq!(geometry.facts.punts(), Some(true));
    assert_eq!(geometry.facts.device, None);
    assert!(geometry.to_string().contains("every op is punted"), "{geometry}");
}

#[test]
fn file_that_is_only_written_says_nothing_of_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("f");
    let file = OpenOptions::new().write(true).create_new(true).open(path).unwrap();
    assert_eq!(Geometry::of(&file).unwrap().facts.nowait, None);
}

#[test]
fn f44_device_of_4096_byte_sectors_demands_them_of_memory_too() {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let backing = tempfile::NamedTempFile::new_in(directory).unwrap();
    backing.as_file().set_len(4 << 20).unwrap();
    let Some(device) = Loop::over(backing.path(), &["--sector-size=4096"]) else { return };
    let mut how = OpenOptions::new();
    let file = how.read(true).custom_flags(libc::O_DIRECT).open(device.path()).unwrap();
    let geometry = Geometry::of(&file).unwrap();
    assert_eq!((geometry.kind, geometry.len_bytes), (TargetKind::BlockDevice, 4 << 20));
    assert_eq!((geometry.offset_align, geometry.mem_align), (4096, 4096));
    assert_eq!(geometry.facts.logical_block_bytes, Some(4096));
    assert!(geometry.facts.physical_block_bytes.is_some_and(|bytes| bytes >= 4096));
    let found = geometry.facts.device.unwrap();
    assert_eq!(format!("/dev/{}", found.name), device.path().to_str().unwrap());
}
