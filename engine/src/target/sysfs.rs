//! What sysfs tells of the block device under a target.
//!
//! Data flow: device number → `/sys/dev/block/MAJ:MIN` → the whole disk's `queue/` → [`Device`].
//! What a kernel does not tell is `None`; nothing here can fail, and nothing is written.
//!
//! Not here: what the file system says (`geometry`), whether a setting is good (`doctor`).

use core::fmt;
use std::fs::{canonicalize, read_dir, read_to_string};
use std::path::Path;
use std::str::FromStr;

/// A short text of the kernel, kept inline so that what holds it can be copied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label {
    bytes: [u8; Self::BYTES_MAX],
    len: u8,
}

impl Label {
    /// The longest label in bytes: that of an NVMe model. What is longer is cut.
    pub const BYTES_MAX: usize = 40;

    /// `text` without the white space around it, cut at a character if it is too long.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, reason = "at most BYTES_MAX")]
    pub fn new(text: &str) -> Self {
        let text = text.trim();
        // Where it is cut, there may be white space again.
        let text = text[..text.floor_char_boundary(Self::BYTES_MAX)].trim_end();
        let mut bytes = [0; Self::BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self { bytes, len: text.len() as u8 }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or("")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// A disk, as its queue describes itself (`Documentation/ABI/stable/sysfs-block`). `None`
/// means that this kernel or this driver does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Device {
    /// The kernel's name of the whole disk: `nvme0n1`, `vda`.
    pub name: Label,
    /// The target is on a partition of it.
    pub is_partition: bool,
    /// What the maker calls it.
    pub model: Option<Label>,
    /// The scheduler in force: `none`, `mq-deadline`, `kyber`, `bfq`.
    pub scheduler: Option<Label>,
    /// The unit of addressing, in bytes.
    pub logical_block_bytes: Option<u32>,
    /// What it writes without reading first, in bytes.
    pub physical_block_bytes: Option<u32>,
    /// The longest request, in bytes (`max_sectors_kb`). A longer op is split, which the kernel
    /// refuses to do for a submit that must not block: the op is punted.
    pub transfer_bytes_max: Option<u64>,
    /// The most pieces of memory of one request; an op of more is split.
    pub segments_max: Option<u32>,
    /// Requests that the queue holds (`nr_requests`); an op beyond them is punted.
    pub requests_max: Option<u32>,
    /// Queues of the hardware.
    pub hardware_queues: Option<u32>,
    /// The unit of discarding, in bytes; 0 where it cannot.
    pub discard_granularity_bytes: Option<u64>,
    /// The longest discard, in bytes; 0 where it cannot.
    pub discard_bytes_max: Option<u64>,
    /// The longest write of zeroes that moves no data, in bytes; 0 where it cannot.
    pub write_zeroes_bytes_max: Option<u64>,
    /// A single write can be made durable without flushing all others (`queue/fua`).
    pub fua: Option<bool>,
    /// Completed writes may be lost with the power until they are flushed
    /// (`queue/write_cache` is `write back`).
    pub volatile_cache: Option<bool>,
    /// Completions can be polled for (`queue/io_poll`).
    pub io_poll: Option<bool>,
    /// Queues that the driver sets aside for polling.
    pub poll_queues: Option<u32>,
    /// It has a head to move, or the hypervisor says so.
    pub rotational: Option<bool>,
    /// The kernel takes the time of every request (`queue/iostats`).
    pub iostats: Option<bool>,
    /// How little the kernel tries to merge requests: 0 all it can, 1 little, 2 not at all.
    pub nomerges: Option<u32>,
    /// It is memory that can be mapped (`queue/dax`).
    pub dax: Option<bool>,
    /// How its zones are written (`queue/zoned`): `none`, `host-managed`, `host-aware`.
    pub zoned: Option<Label>,
    /// Streams that a write can be marked with (`queue/max_write_streams`, Linux 6.16).
    pub write_streams_max: Option<u32>,
}

impl Device {
    /// A device of which nothing but its name is known.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: Label::new(name),
            is_partition: false,
            model: None,
            scheduler: None,
            logical_block_bytes: None,
            physical_block_bytes: None,
            transfer_bytes_max: None,
            segments_max: None,
            requests_max: None,
            hardware_queues: None,
            discard_granularity_bytes: None,
            discard_bytes_max: None,
            write_zeroes_bytes_max: None,
            fua: None,
            volatile_cache: None,
            io_poll: None,
            poll_queues: None,
            rotational: None,
            iostats: None,
            nomerges: None,
            dax: None,
            zoned: None,
            write_streams_max: None,
        }
    }

    /// Whether its data lives in this machine's memory, so that no figure of it means anything.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        let name = self.name.as_str();
        name.starts_with("zram") || name.starts_with("ram")
    }

    /// As it would be read from `/sys`, from the tree `sys`: for tests and fuzzers.
    #[cfg(any(test, feature = "sim"))]
    #[doc(hidden)]
    #[must_use]
    pub fn read_from(sys: &Path, major: u64, minor: u64) -> Option<Self> {
        Self::read(sys, major, minor)
    }

    /// Reads what `sys`, which is `/sys` except in tests, tells of the device of that number.
    /// `None` for file systems without a device.
    #[must_use]
    pub(crate) fn read(sys: &Path, major: u64, minor: u64) -> Option<Self> {
        let node = canonicalize(sys.join(format!("dev/block/{major}:{minor}"))).ok()?;
        let is_partition = node.join("partition").exists();
        let disk = if is_partition { node.parent()? } else { &node };
        let queue = disk.join("queue");
        let name = disk.file_name()?.to_str()?;
        let flag = |file| number::<u8>(&queue.join(file)).map(|value| value != 0);
        let bytes = |file| number::<u64>(&queue.join(file));
        let count = |file| number::<u32>(&queue.join(file));
        let model = text(&disk.join("device/model")).filter(|model| !model.is_empty());
        let queues = read_dir(disk.join("mq")).ok().map(Iterator::count);
        Some(Self {
            is_partition,
            model: model.map(|model| Label::new(&model)),
            scheduler: text(&queue.join("scheduler")).map(|list| chosen(&list)),
            logical_block_bytes: count("logical_block_size"),
            physical_block_bytes: count("physical_block_size"),
            transfer_bytes_max: bytes("max_sectors_kb").and_then(|kib| kib.checked_mul(1024)),
            segments_max: count("max_segments"),
            requests_max: count("nr_requests"),
            hardware_queues: queues.and_then(|count| u32::try_from(count).ok()),
            discard_granularity_bytes: bytes("discard_granularity"),
            discard_bytes_max: bytes("discard_max_bytes"),
            write_zeroes_bytes_max: bytes("write_zeroes_max_bytes"),
            fua: flag("fua"),
            volatile_cache: match text(&queue.join("write_cache")).as_deref() {
                Some("write back") => Some(true),
                Some("write through") => Some(false),
                _ => None,
            },
            io_poll: flag("io_poll"),
            poll_queues: poll_queues(sys, name),
            rotational: flag("rotational"),
            iostats: flag("iostats"),
            nomerges: count("nomerges"),
            dax: flag("dax"),
            zoned: text(&queue.join("zoned")).map(|model| Label::new(&model)),
            write_streams_max: count("max_write_streams"),
            ..Self::named(name)
        })
    }
}

/// The contents of a file of one line.
fn text(path: &Path) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn number<T: FromStr>(path: &Path) -> Option<T> {
    text(path)?.parse().ok()
}

/// The scheduler in brackets, or the only one there is.
fn chosen(list: &str) -> Label {
    let bracketed = list
        .split_whitespace()
        .find_map(|name| name.strip_prefix('[').and_then(|name| name.strip_suffix(']')));
    Label::new(bracketed.unwrap_or(list))
}

/// Only the drivers' parameters tell; they count for all of a driver's devices.
fn poll_queues(sys: &Path, name: &str) -> Option<u32> {
    let drivers = [("nvme", "nvme"), ("vd", "virtio_blk"), ("nullb", "null_blk")];
    let (_, driver) = drivers.into_iter().find(|(prefix, _)| name.starts_with(prefix))?;
    number(&sys.join(format!("module/{driver}/parameters/poll_queues")))
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};

    use super::*;

    fn plant(sys: &Path, files: &[(&str, &str)]) {
        for (name, contents) in files {
            let path = sys.join(name);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, format!("{contents}\n")).unwrap();
        }
    }

    #[test]
    fn labels_are_trimmed_and_cut_at_a_character() {
        assert_eq!(Label::new("  Samsung SSD 990 PRO  \n").as_str(), "Samsung SSD 990 PRO");
        let long = "ä".repeat(30);
        assert_eq!(Label::new(&long).as_str(), "ä".repeat(20));
        assert_eq!(Label::new(&format!("x{long}")).as_str().len(), 39);
        let gap = format!("{} model", "x".repeat(Label::BYTES_MAX - 1));
        assert_eq!(Label::new(&gap).as_str(), "x".repeat(Label::BYTES_MAX - 1));
    }

    #[test]
    fn scheduler_in_force_is_the_bracketed_one() {
        assert_eq!(chosen("none [mq-deadline] kyber").as_str(), "mq-deadline");
        assert_eq!(chosen("[none] mq-deadline").as_str(), "none");
        assert_eq!(chosen("none").as_str(), "none");
    }

    #[test]
    fn partition_is_described_by_its_disk() {
        let sys = tempfile::tempdir().unwrap();
        let disk = "devices/pci/nvme0n1/";
        let in_disk = |name: &str| format!("{disk}{name}");
        plant(
            sys.path(),
            &[
                (&in_disk("queue/scheduler"), "[none] mq-deadline"),
                (&in_disk("queue/logical_block_size"), "4096"),
                (&in_disk("queue/max_sectors_kb"), "128"),
                (&in_disk("queue/write_cache"), "write through"),
                (&in_disk("queue/fua"), "1"),
                (&in_disk("queue/nomerges"), "2"),
                (&in_disk("queue/discard_max_bytes"), "2199023255040"),
                (&in_disk("queue/iostats"), "what"),
                (&in_disk("device/model"), "KIOXIA KCM71RJE1T92                     "),
                (&in_disk("mq/0/nr_tags"), "1"),
                (&in_disk("mq/1/nr_tags"), "1"),
                (&in_disk("nvme0n1p2/partition"), "2"),
                ("module/nvme/parameters/poll_queues", "4"),
            ],
        );
        create_dir_all(sys.path().join("dev/block")).unwrap();
        let link = sys.path().join("dev/block/259:2");
        std::os::unix::fs::symlink(sys.path().join(in_disk("nvme0n1p2")), link).unwrap();
        let device = Device::read(sys.path(), 259, 2).unwrap();
        assert_eq!((device.name.as_str(), device.is_partition), ("nvme0n1", true));
        assert_eq!(device.model.unwrap().as_str(), "KIOXIA KCM71RJE1T92");
        assert_eq!(device.scheduler.unwrap().as_str(), "none");
        assert_eq!(device.logical_block_bytes, Some(4096));
        assert_eq!(device.transfer_bytes_max, Some(128 << 10));
        assert_eq!((device.volatile_cache, device.fua), (Some(false), Some(true)));
        assert_eq!((device.nomerges, device.iostats), (Some(2), None));
        assert_eq!(device.discard_bytes_max, Some(2_199_023_255_040));
        assert_eq!((device.hardware_queues, device.poll_queues), (Some(2), Some(4)));
        assert!(!device.is_memory() && Device::named("zram0").is_memory());
        assert_eq!(Device::read(sys.path(), 0, 42), None);
    }
}
