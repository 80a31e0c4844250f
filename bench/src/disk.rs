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
    /// The disks that a stacked one (dm, md) is made of.
    slaves: Vec<Disk>,
}

/// The disks of a run.
pub(crate) struct Disks {
    disks: Vec<Disk>,
    begun_ns: u64,
}

/// The node of the whole disk that holds `path`; `None` for file systems without one.
fn locate(path: &Path) -> Option<PathBuf> {
    let facts = path.metadata().ok()?;
    let device = if facts.file_type().is_block_device() { facts.rdev() } else { facts.dev() };
    let node = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let node = std::fs::canonicalize(node).ok()?;
    Some(if node.join("partition").exists() { node.parent()?.to_path_buf() } else { node })
}

fn counters(stat: &Path) -> Vec<u64> {
    let text = read_to_string(stat).unwrap_or_default();
    text.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect()
}

/// How deep stacks of disks are followed.
const STACK_MAX: u32 = 4;

impl Disk {
    fn at(node: &Path, depth: u32) -> Option<Self> {
        let name = node.file_name()?.to_str()?.to_owned();
        let stat = node.join("stat");
        let before = counters(&stat);
        Some(Self { name, stat, before, slaves: slaves(node, depth) })
    }

    #[allow(clippy::cast_precision_loss, reason = "a share in percent")]
    fn used(&self, elapsed_ms: u64) -> DiskUtil {
        let after = counters(&self.stat);
        let since = |field: usize| {
            let at = |list: &[u64]| list.get(field).copied().unwrap_or(0);
            at(&after).saturating_sub(at(&self.before))
        };
        DiskUtil {
            name: self.name.clone(),
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
            slaves: self.slaves.iter().map(|slave| slave.used(elapsed_ms)).collect(),
        }
    }
}

fn slaves(node: &Path, depth: u32) -> Vec<Disk> {
    let Ok(entries) = std::fs::read_dir(node.join("slaves")) else { return Vec::new() };
    let nodes = entries.flatten().filter_map(|entry| std::fs::canonicalize(entry.path()).ok());
    let mut nodes: Vec<PathBuf> = nodes.collect();
    nodes.sort();
    let below = nodes.iter().filter(|_| depth < STACK_MAX);
    below.filter_map(|node| Disk::at(node, depth + 1)).collect()
}

impl Disks {
    /// Notes the counters of every disk under `paths`, which exist.
    pub(crate) fn observe<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        Self::of(paths.filter_map(locate))
    }

    fn of(nodes: impl Iterator<Item = PathBuf>) -> Self {
        let mut disks: Vec<Disk> = Vec::new();
        for disk in nodes.filter_map(|node| Disk::at(&node, 0)) {
            if disks.iter().all(|known| known.name != disk.name) {
                disks.push(disk);
            }
        }
        Self { disks, begun_ns: now_ns() }
    }

    /// What has been counted since.
    pub(crate) fn used(&self) -> Vec<DiskUtil> {
        let elapsed_ms = ((now_ns() - self.begun_ns) / 1_000_000).max(1);
        self.disks.iter().map(|disk| disk.used(elapsed_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree like that of sysfs: there is no stacked disk on every machine.
    #[test]
    fn disk_util_of_a_stacked_disk_has_the_counters_of_its_slaves() {
        let root = std::env::temp_dir().join(format!("mfio-disks-{}", std::process::id()));
        let write = |name: &str, ios: u64| {
            std::fs::create_dir_all(root.join(name)).unwrap();
            let line = format!("{ios} 0 {} 1 0 0 0 0 0 {} 2\n", ios * 8, ios / 2);
            std::fs::write(root.join(name).join("stat"), line).unwrap();
        };
        for (name, ios) in [("dm-0", 100), ("sda", 40), ("sdb", 60)] {
            write(name, ios);
        }
        std::fs::create_dir_all(root.join("dm-0/slaves")).unwrap();
        for slave in ["sda", "sdb"] {
            let link = root.join("dm-0/slaves").join(slave);
            std::os::unix::fs::symlink(root.join(slave), link).unwrap();
        }
        let disks = Disks::of([root.join("dm-0"), root.join("dm-0")].into_iter());
        write("dm-0", 110);
        write("sda", 44);
        write("sdb", 66);
        let used = disks.used();
        std::fs::remove_dir_all(&root).unwrap();
        let [stacked] = used.as_slice() else { panic!("one disk, once: {used:?}") };
        assert_eq!((stacked.read_ios, stacked.read_sectors), (10, 80));
        let slaves: Vec<(&str, u64)> =
            stacked.slaves.iter().map(|disk| (disk.name.as_str(), disk.read_ios)).collect();
        assert_eq!(slaves, [("sda", 4), ("sdb", 6)]);
        assert_eq!(stacked.aggregate().map(|mean| mean.read_ios), Some(5));
    }
}
