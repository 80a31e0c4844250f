//! Any text in any file of a disk's queue.
//!
//! Data flow: bytes, cut at zero bytes → the files of a tree like `/sys` → a device, which must
//! be shown without a panic and say no more than its files do.
//!
//! Not here: the real `/sys`.

use std::cell::OnceCell;
use std::fs::{create_dir_all, write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use mfio_engine::target::{Device, Label};
use tempfile::TempDir;

const FILES: [&str; 16] = [
    "queue/scheduler",
    "queue/logical_block_size",
    "queue/physical_block_size",
    "queue/max_sectors_kb",
    "queue/max_segments",
    "queue/nr_requests",
    "queue/discard_granularity",
    "queue/discard_max_bytes",
    "queue/write_zeroes_max_bytes",
    "queue/fua",
    "queue/write_cache",
    "queue/io_poll",
    "queue/rotational",
    "queue/iostats",
    "queue/nomerges",
    "device/model",
];

thread_local! {
    static SYS: OnceCell<TempDir> = const { OnceCell::new() };
}

/// A tree with one disk, in memory where there is such a file system.
fn sys() -> TempDir {
    let sys = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    create_dir_all(sys.path().join("disk/queue")).unwrap();
    create_dir_all(sys.path().join("disk/device")).unwrap();
    create_dir_all(sys.path().join("dev/block")).unwrap();
    symlink(sys.path().join("disk"), sys.path().join("dev/block/259:0")).unwrap();
    sys
}

/// One disk.
pub fn sysfs(data: &[u8]) {
    let label = Label::new(&String::from_utf8_lossy(data));
    assert!(label.as_str().len() <= Label::BYTES_MAX);
    assert_eq!(Label::new(label.as_str()), label, "a label is its own label");
    SYS.with(|cell| {
        let sys = cell.get_or_init(sys).path();
        let mut texts = data.split(|&byte| byte == 0);
        for file in FILES {
            write(sys.join("disk").join(file), texts.next().unwrap_or_default()).unwrap();
        }
        check(sys, data);
    });
}

fn check(sys: &Path, data: &[u8]) {
    let device = Device::read_from(sys, 259, 0).expect("the disk is there");
    let _shown = format!("{device:?} {}", device.name);
    assert_eq!(device.name.as_str().as_bytes(), std::ffi::OsStr::new("disk").as_bytes());
    if let Some(bytes) = device.logical_block_bytes {
        let said = bytes.to_string();
        assert!(data.windows(said.len()).any(|part| part == said.as_bytes()), "{said}");
    }
}
