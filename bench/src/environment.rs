//! Where a run took place: kernel, processors, and for each target its file system and device.
//!
//! Data flow: `/proc` and `/sys` (the tree `root` in tests) and the paths of a run -> one JSON
//! object, under our own key of the report.
//!
//! Not here: judging any of it (`doctor`, `remarks`), counters of disks (`disk`).

use std::collections::BTreeSet;
use std::fs::{canonicalize, read_dir, read_to_string};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use serde_json::{Map, Value, json};

/// What the block layer tells of a queue and what changes the results of a run.
const QUEUE: [&str; 20] = [
    "scheduler",
    "nr_requests",
    "logical_block_size",
    "physical_block_size",
    "minimum_io_size",
    "optimal_io_size",
    "max_sectors_kb",
    "max_segments",
    "read_ahead_kb",
    "rotational",
    "write_cache",
    "fua",
    "io_poll",
    "nomerges",
    "rq_affinity",
    "iostats",
    "wbt_lat_usec",
    "discard_max_bytes",
    "atomic_write_unit_max_bytes",
    "zoned",
];

/// What a disk tells of itself.
const DEVICE: [&str; 4] = ["model", "vendor", "firmware_rev", "rev"];

/// Describes the machine and what is below `paths`, as `root` (`/` except in tests) has it.
pub(crate) fn describe(root: &Path, paths: &[PathBuf]) -> Value {
    let mounts = mounts(root);
    let mut devices: Vec<(String, Value)> = Vec::new();
    let mut targets = Map::new();
    for path in paths {
        // A file that is gone, or was never made, lived in its directory.
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let place = if path.exists() { path } else { parent.unwrap_or(Path::new(".")) };
        let (Ok(facts), Ok(place)) = (place.metadata(), canonicalize(place)) else { continue };
        let is_device = facts.file_type().is_block_device();
        let number = if is_device { facts.rdev() } else { facts.dev() };
        let number = format!("{}:{}", major(number), minor(number));
        let mut target = Map::new();
        if !is_device && let Some(mount) = mount_of(&mounts, &place, &number) {
            let options = format!("{},{}", mount.options, mount.super_options);
            let names: BTreeSet<&str> = options.split(',').collect();
            let file_system = json!({
                "type": mount.kind,
                "source": mount.source,
                "mount_point": mount.point,
                "options": names.into_iter().collect::<Vec<_>>().join(","),
            });
            target.insert("file_system".to_owned(), file_system);
        }
        // File systems like btrfs have numbers of their own; their source names the disk.
        let source = mount_of(&mounts, &place, &number).map(|mount| mount.source.clone());
        let node = disk_node(root, &number).or_else(|| {
            let facts = Path::new(&source?).metadata().ok()?;
            disk_node(root, &format!("{}:{}", major(facts.rdev()), minor(facts.rdev())))
        });
        if let Some(node) = node {
            let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if devices.iter().all(|(known, _)| *known != name) {
                devices.push((name.clone(), device(&node)));
            }
            target.insert("device".to_owned(), Value::from(name));
        }
        targets.insert(path.to_string_lossy().into_owned(), Value::Object(target));
    }
    json!({
        "host": text(&root.join("proc/sys/kernel/hostname")),
        "kernel": {
            "release": text(&root.join("proc/sys/kernel/osrelease")),
            "version": text(&root.join("proc/sys/kernel/version")),
            "architecture": std::env::consts::ARCH,
        },
        "cpu": cpu(root),
        "memory_bytes": memory_bytes(root, "MemTotal"),
        "numa_nodes": numa_nodes(root),
        "targets": targets,
        "devices": devices.into_iter().collect::<Map<_, _>>(),
    })
}

/// A figure of `/proc/meminfo` in bytes.
pub(crate) fn memory_bytes(root: &Path, name: &str) -> Option<u64> {
    let info = read_to_string(root.join("proc/meminfo")).ok()?;
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib = line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?;
    Some(kib << 10)
}

/// The first line of a file without white space around it; `None` for what cannot be read.
fn text(path: &Path) -> Option<String> {
    let text = read_to_string(path).ok()?;
    Some(text.lines().next().unwrap_or_default().trim().to_owned())
}

/// A number where it is one: readers should not have to guess.
fn value(path: &Path) -> Option<Value> {
    let text = text(path)?;
    // Of several words, the kernel puts the one in force in brackets.
    let chosen = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    let text = chosen.map_or(text.as_str(), |(word, _)| word);
    Some(text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from))
}

fn listed(directory: &Path, names: &[&str]) -> Map<String, Value> {
    let found = |name: &&str| Some(((*name).to_owned(), value(&directory.join(name))?));
    names.iter().filter_map(found).collect()
}

fn cpu(root: &Path) -> Value {
    let info = read_to_string(root.join("proc/cpuinfo")).unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_once(':').map(|(_, value)| value.trim().to_owned())
    };
    let online = info.lines().filter(|line| line.starts_with("processor")).count();
    let system = root.join("sys/devices/system/cpu");
    let mut governors = BTreeSet::new();
    for entry in read_dir(&system).into_iter().flatten().flatten() {
        governors.extend(text(&entry.path().join("cpufreq/scaling_governor")));
    }
    json!({
        "model": field("model name").or_else(|| field("CPU part")),
        "online": online,
        "governors": governors,
        "smt_active": value(&system.join("smt/active")),
        "virtual": field("flags").is_some_and(|flags| {
            flags.split_whitespace().any(|flag| flag == "hypervisor")
        }),
    })
}

fn numa_nodes(root: &Path) -> usize {
    let nodes = read_dir(root.join("sys/devices/system/node")).into_iter().flatten().flatten();
    let is_node = |name: &str| {
        let number = name.strip_prefix("node");
        number.is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let count = nodes.filter(|entry| is_node(&entry.file_name().to_string_lossy())).count();
    count.max(1)
}

/// The node of the whole disk with this number; a partition lies in it.
fn disk_node(root: &Path, number: &str) -> Option<PathBuf> {
    let node = canonicalize(root.join("sys/dev/block").join(number)).ok()?;
    Some(if node.join("partition").exists() { node.parent()?.to_path_buf() } else { node })
}

fn device(node: &Path) -> Value {
    let mut device = listed(&node.join("device"), &DEVICE);
    const SECTOR: u64 = 512;
    let sectors = text(&node.join("size")).and_then(|size| size.parse::<u64>().ok());
    device.insert("size_bytes".to_owned(), Value::from(sectors.map(|count| count * SECTOR)));
    let below = read_dir(node.join("slaves")).into_iter().flatten().flatten();
    let mut below: Vec<String> =
        below.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    below.sort();
    if !below.is_empty() {
        device.insert("slaves".to_owned(), Value::from(below));
    }
    device.insert("queue".to_owned(), Value::Object(listed(&node.join("queue"), &QUEUE)));
    Value::Object(device)
}

/// One line of `/proc/self/mountinfo`, see proc_pid_mountinfo(5).
struct Mount {
    number: String,
    point: String,
    options: String,
    kind: String,
    source: String,
    super_options: String,
}

fn mounts(root: &Path) -> Vec<Mount> {
    let info = read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    info.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    let (first, second) = line.split_once(" - ")?;
    let mut first = first.split(' ');
    let mut second = second.split(' ');
    Some(Mount {
        number: first.nth(2)?.to_owned(),
        point: unescaped(first.nth(1)?),
        options: first.next()?.to_owned(),
        kind: second.next()?.to_owned(),
        source: unescaped(second.next()?),
        super_options: second.next()?.to_owned(),
    })
}

/// Blanks and backslashes of paths stand there as octal numbers.
fn unescaped(text: &str) -> String {
    let codes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    codes.iter().fold(text.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

/// The mount that `path` lies in: of those with its device number, or else of all, the deepest;
/// later ones hide earlier ones.
fn mount_of<'a>(mounts: &'a [Mount], path: &Path, number: &str) -> Option<&'a Mount> {
    let deepest = |same_number: bool| {
        let holds = |mount: &&Mount| {
            path.starts_with(&mount.point) && (!same_number || mount.number == number)
        };
        mounts.iter().filter(holds).max_by_key(|mount| mount.point.len())
    };
    deepest(true).or_else(|| deepest(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_found_by_number_and_by_the_deepest_point() {
        let text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,errors=remount-ro\n\
                    23 22 8:2 / /mnt/a\\040b rw - xfs /dev/sdb rw,noquota\n\
                    24 22 0:40 /x /mnt/a\\040b/sub ro - btrfs /dev/sdc rw,subvol=/x\n";
        let mounts: Vec<Mount> = text.lines().filter_map(mount).collect();
        let kind = |path: &str, number: &str| {
            mount_of(&mounts, Path::new(path), number).map(|mount| mount.kind.as_str())
        };
        assert_eq!(kind("/home", "8:1"), Some("ext4"));
        assert_eq!(kind("/mnt/a b/file", "8:2"), Some("xfs"));
        assert_eq!(kind("/mnt/a b/sub/file", "0:99"), Some("btrfs"));
        assert!(mount("22 1 8:1 / /").is_none());
    }

    /// A tree like that of a machine with one disk and two processors.
    #[test]
    fn environment_names_kernel_processors_and_queue() {
        let root = std::env::temp_dir().join(format!("mfio-environment-{}", std::process::id()));
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/osrelease", "6.1.0-test\n");
        put("proc/meminfo", "MemTotal:        2048 kB\nMemAvailable:    1024 kB\n");
        put("proc/cpuinfo", "processor : 0\nmodel name : A CPU\nprocessor : 1\n");
        put("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
        put("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n");
        put("sys/devices/system/node/node0/x", "");
        put("sys/devices/system/node/node1/x", "");
        let facts = std::env::temp_dir().metadata().unwrap();
        let number = format!("{}:{}", major(facts.dev()), minor(facts.dev()));
        let disk = format!("sys/dev/block/{number}");
        put(&format!("{disk}/size"), "2048\n");
        put(&format!("{disk}/device/model"), "A DISK      \n");
        put(&format!("{disk}/queue/scheduler"), "mq-deadline [none]\n");
        put(&format!("{disk}/queue/nr_requests"), "256\n");
        let line = format!("22 1 {number} / / rw,noatime - ext4 /dev/sda1 rw,barrier=1\n");
        put("proc/self/mountinfo", &line);
        let path = std::env::temp_dir().join("no-such-file");
        let found = describe(&root, std::slice::from_ref(&path));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(found["kernel"]["release"], "6.1.0-test");
        assert_eq!(found["cpu"]["model"], "A CPU");
        assert_eq!(found["cpu"]["online"], 2);
        assert_eq!(found["cpu"]["governors"], json!(["powersave"]));
        assert_eq!(found["memory_bytes"], 2 << 20);
        assert_eq!(found["numa_nodes"], 2);
        let target = &found["targets"][path.to_str().unwrap()];
        assert_eq!(target["file_system"]["type"], "ext4");
        assert_eq!(target["file_system"]["options"], "barrier=1,noatime,rw");
        let device = &found["devices"][target["device"].as_str().unwrap()];
        assert_eq!(device["model"], "A DISK");
        assert_eq!(device["size_bytes"], 1 << 20);
        assert_eq!(device["queue"], json!({ "scheduler": "none", "nr_requests": 256 }));
    }
}
