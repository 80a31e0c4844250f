//! What the kernel counts for the disks under the files of a run.
//!
//! Data flow: path -> device number -> `/sys/dev/block` -> counters before and after -> the
//! differences, in fio's terms.
//!
//! Not here: sampling during the run; the kernel's counters only ever grow.

use std::fs::read_to_string;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use fio_compat::report::DiskUtil;
use nix::sys::stat::{major, minor};

use crate::clock::now_ns;

/// One disk and its counters at the start.
struct Disk {
    name: String,
    stat: PathBuf,
    before: Vec<u64>,
}

/// The disks of a run.
pub(crate) struct Disks {
    disks: Vec<Disk>,
    begun_ns: u64,
}

/// The whole disk that holds `path`; `None` for file systems without one.
fn locate(path: &Path) -> Option<(String, PathBuf)> {
    let facts = path.metadata().ok()?;
    let device = if facts.file_type().is_block_device() { facts.rdev() } else { facts.dev() };
    let node = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let node = std::fs::canonicalize(node).ok()?;
    let disk = if node.join("partition").exists() { node.parent()?.to_path_buf() } else { node };
    let name = disk.file_name()?.to_str()?.to_owned();
    Some((name, disk.join("stat")))
}

fn counters(stat: &Path) -> Vec<u64> {
    let text = read_to_string(stat).unwrap_or_default();
    text.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
}

impl Disks {
    /// Notes the counters of every disk under `paths`, which exist.
    pub(crate) fn observe<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let mut disks: Vec<Disk> = Vec::new();
        for (name, stat) in paths.filter_map(locate) {
            if disks.iter().all(|disk| disk.name != name) {
                let before = counters(&stat);
                disks.push(Disk { name, stat, before });
            }
        }
        Self { disks, begun_ns: now_ns() }
    }

    /// What has been counted since.
    #[allow(clippy::cast_precision_loss, reason = "a share in percent")]
    pub(crate) fn used(&self) -> Vec<DiskUtil> {
        let elapsed_ms = ((now_ns() - self.begun_ns) / 1_000_000).max(1);
        let of = |disk: &Disk| {
            let after = counters(&disk.stat);
            let since = |field: usize| {
                let at = |list: &[u64]| list.get(field).copied().unwrap_or(0);
                at(&after).saturating_sub(at(&disk.before))
            };
            DiskUtil {
                name: disk.name.clone(),
                read_ios: since(0),
                read_merges: since(1),
                read_sectors: since(2),
                read_ticks: since(3),
                write_ios: since(4),
                write_merges: since(5),
                write_sectors: since(6),
                write_ticks: since(7),
                in_queue: since(10),
                util_percent: (since(9) as f64 * 100.0 / elapsed_ms as f64).min(100.0),
            }
        };
        self.disks.iter().map(of).collect()
    }
}
