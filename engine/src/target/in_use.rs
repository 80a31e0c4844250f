//! Finds out who uses a block device, by its number: names decide nothing.
//!
//! Data flow: device number → its disk and partitions in sysfs → mounts and swaps of this
//! process's view (`/proc`), holders, volumes and loop devices (`/sys`) → [`DeviceUse`]s.
//! Another mount namespace is not seen from here; its mounts hold the device all the same, and
//! opening it with `O_EXCL` meets them.
//!
//! Not here: that opening, and what is on a device that nobody uses (`guard`).

use core::fmt;
use std::ffi::OsString;
use std::fs::{canonicalize, read_dir, read_to_string};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use super::sysfs::Label;

/// What somebody does with a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UseKind {
    /// It is mounted.
    Mounted {
        /// Where.
        at: PathBuf,
    },
    /// The kernel swaps to it.
    Swap,
    /// Another block device is made of it: a volume, an array, a cache.
    Held {
        /// The kernel's name of that device, and its own name where it has one.
        by: String,
    },
    /// A mounted btrfs is spread over it.
    Btrfs {
        /// The identifier of that file system.
        uuid: String,
    },
    /// A loop device, or compressed memory, keeps its data on it.
    Backing {
        /// The kernel's name of that device.
        of: String,
    },
}

/// One use of a device, or of a partition of it, or of the disk that it is a partition of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceUse {
    /// The kernel's name of what is used: `sda1`.
    pub device: String,
    /// How.
    pub kind: UseKind,
}

impl DeviceUse {
    /// Whether it is a mount, which [`DeviceWrite::EvenMounted`](super::DeviceWrite) lets through.
    #[must_use]
    pub const fn is_mount(&self) -> bool {
        matches!(self.kind, UseKind::Mounted { .. })
    }
}

impl fmt::Display for DeviceUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let device = &self.device;
        match &self.kind {
            UseKind::Mounted { at } => write!(f, "{device} is mounted at {}", at.display()),
            UseKind::Swap => write!(f, "{device} is swap"),
            UseKind::Held { by } => write!(f, "{device} is held by {by}"),
            UseKind::Btrfs { uuid } => write!(f, "{device} is part of the mounted btrfs {uuid}"),
            UseKind::Backing { of } => write!(f, "{device} is what {of} keeps its data on"),
        }
    }
}

impl DeviceUse {
    /// What ends that use.
    pub(super) fn remedy(&self) -> String {
        let device = &self.device;
        match &self.kind {
            UseKind::Mounted { at } => format!("umount {}", at.display()),
            UseKind::Swap => format!("swapoff /dev/{device}"),
            UseKind::Held { by } if by.starts_with("md") => "mdadm --stop it".to_owned(),
            UseKind::Held { by } if by.starts_with("dm") => {
                "deactivate it (vgchange -an, cryptsetup close, dmsetup remove)".to_owned()
            }
            UseKind::Held { .. } => "stop that".to_owned(),
            UseKind::Btrfs { .. } => "unmount it, or btrfs device remove".to_owned(),
            UseKind::Backing { of } if of.starts_with("loop") => format!("losetup -d /dev/{of}"),
            UseKind::Backing { of } => format!("reset {of}"),
        }
    }
}

/// A device by its number.
pub(super) type Number = (u64, u64);

/// Which device `path` leads to, whatever it is called.
pub(super) fn number_of(path: &Path) -> Option<Number> {
    let metadata = std::fs::metadata(path).ok()?;
    let number = metadata.file_type().is_block_device().then(|| metadata.rdev())?;
    Some((major(number), minor(number)))
}

/// Where to look: `/sys`, `/proc` and the nodes of devices, except in tests.
#[derive(Clone, Copy)]
pub(super) struct Roots<'a> {
    pub(super) sys: &'a Path,
    pub(super) proc: &'a Path,
    /// Which device a path leads to.
    pub(super) number_of: &'a dyn Fn(&Path) -> Option<Number>,
}

/// The disk or partition itself, and what shares bytes with it.
struct Member {
    name: String,
    number: Number,
    node: PathBuf,
    /// Where a partition starts, on its disk.
    start_bytes: Option<u64>,
}

/// What the kernel knows of a device.
pub(super) struct Known {
    members: Vec<Member>,
    is_partition: bool,
    /// `host-managed`, `host-aware`; `None` of a device that is not zoned.
    pub(super) zoned: Option<Label>,
}

impl Roots<'_> {
    /// Looks the device of that number up. Without sysfs it is known by its number alone.
    pub(super) fn known(&self, number: Number) -> Known {
        let link = self.sys.join(format!("dev/block/{}:{}", number.0, number.1));
        let Ok(node) = canonicalize(link) else {
            let (name, node) = (format!("{}:{}", number.0, number.1), PathBuf::new());
            let members = vec![Member { name, number, node, start_bytes: None }];
            return Known { members, is_partition: false, zoned: None };
        };
        let is_partition = node.join("partition").exists();
        let disk = node.parent().filter(|_| is_partition).unwrap_or(&node).to_owned();
        let zoned = line(&disk.join("queue/zoned")).filter(|model| model != "none");
        let mut members = vec![member(&node)];
        if is_partition {
            members.push(member(&disk));
        } else {
            let children = entries(&node).filter(|child| child.join("partition").exists());
            members.extend(children.map(|child| member(&child)));
        }
        let members = members.into_iter().flatten().collect();
        Known { members, is_partition, zoned: zoned.map(|model| Label::new(&model)) }
    }

    /// Everybody who uses the device.
    pub(super) fn uses(&self, known: &Known) -> Vec<DeviceUse> {
        let mut uses = Vec::new();
        for member in &known.members {
            let mut add = |kind| uses.push(DeviceUse { device: member.name.clone(), kind });
            self.mounts(member.number).into_iter().for_each(|at| add(UseKind::Mounted { at }));
            if self.swaps().any(|path| (self.number_of)(&path) == Some(member.number)) {
                add(UseKind::Swap);
            }
            let holders = entries(&member.node.join("holders"));
            holders.for_each(|holder| add(UseKind::Held { by: holder_name(&holder) }));
            if member.node.join("bcache").exists() {
                add(UseKind::Held { by: "bcache".to_owned() });
            }
            self.btrfs(member).into_iter().for_each(|uuid| add(UseKind::Btrfs { uuid }));
            self.backed(member.number).for_each(|of| add(UseKind::Backing { of }));
        }
        uses
    }

    /// Where that device is mounted. A file system of several devices has a number of its own,
    /// and tells only one of them, by name.
    fn mounts(&self, number: Number) -> Vec<PathBuf> {
        let text = read_to_string(self.proc.join("self/mountinfo")).unwrap_or_default();
        let of_line = |line: &str| {
            let (front, back) = line.split_once(" - ")?;
            let mut front = front.split(' ').skip(2);
            let (mounted, at) = (front.next()?, front.nth(1)?);
            let source = unescape(back.split(' ').nth(1)?);
            let is_it = mounted == format!("{}:{}", number.0, number.1)
                || source.has_root() && (self.number_of)(&source) == Some(number);
            is_it.then(|| unescape(at))
        };
        text.lines().filter_map(of_line).collect()
    }

    fn swaps(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let text = read_to_string(self.proc.join("swaps")).unwrap_or_default();
        let first = |line: &str| line.split_whitespace().next().map(unescape);
        text.lines().skip(1).filter_map(first).collect::<Vec<_>>().into_iter()
    }

    /// The mounted btrfs file systems that are spread over the device.
    fn btrfs(&self, member: &Member) -> Vec<String> {
        let systems = entries(&self.sys.join("fs/btrfs"));
        let on_it = |system: &PathBuf| {
            entries(&system.join("devices"))
                .any(|device| canonicalize(device).is_ok_and(|node| node == member.node))
        };
        systems.filter(on_it).filter_map(|system| name_of(&system)).collect()
    }

    /// The loop devices and compressed memories that keep their data on the device.
    fn backed(&self, number: Number) -> impl Iterator<Item = String> {
        entries(&self.sys.join("block")).filter_map(move |disk| {
            let backing = line(&disk.join("loop/backing_file"));
            let path = PathBuf::from(backing.or_else(|| line(&disk.join("backing_dev")))?);
            let is_it = (self.number_of)(&path) == Some(number);
            is_it.then(|| name_of(&disk)).flatten()
        })
    }
}

impl Known {
    /// The partitions that the kernel knows on a disk: their names, and where they start.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (&str, u64)> {
        let partitions = self.members.iter().skip(1).filter(|_| !self.is_partition);
        partitions.map(|member| (&*member.name, member.start_bytes.unwrap_or(0)))
    }
}

fn member(node: &Path) -> Option<Member> {
    let number = line(&node.join("dev"))?;
    let (major, minor) = number.split_once(':')?;
    Some(Member {
        name: name_of(node)?,
        number: (major.parse().ok()?, minor.parse().ok()?),
        node: node.to_owned(),
        // Sectors of 512 bytes, whatever the device has.
        start_bytes: line(&node.join("start"))
            .and_then(|sectors| sectors.parse::<u64>().ok()?.checked_mul(512)),
    })
}

/// `dm-0 (vg-root)`, `md127`.
fn holder_name(holder: &Path) -> String {
    let name = name_of(holder).unwrap_or_default();
    match line(&holder.join("dm/name")) {
        Some(own) => format!("{name} ({own})"),
        None => name,
    }
}

/// The contents of a file of one line.
fn line(path: &Path) -> Option<String> {
    read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// What is in a directory, sorted; nothing where there is none.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths.into_iter()
}

fn name_of(path: &Path) -> Option<String> {
    path.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// A path as the kernel writes it: white space and backslashes as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let code =
            digits.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir_all, write};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    /// A machine of files: disk `vdb` (254:16) with partitions `vdb1` and `vdb2`.
    struct Machine(TempDir);

    impl Machine {
        fn new() -> Self {
            let machine = Self(TempDir::new().unwrap());
            let disk = "sys/devices/vdb";
            for (at, number) in
                [(disk, 16), ("sys/devices/vdb/vdb1", 17), ("sys/devices/vdb/vdb2", 18)]
            {
                machine.put(&format!("{at}/dev"), &format!("254:{number}"));
                machine.link(at, &format!("sys/dev/block/254:{number}"));
            }
            for (number, start) in [(1, 2048), (2, 409_600)] {
                machine.put(&format!("{disk}/vdb{number}/partition"), &number.to_string());
                machine.put(&format!("{disk}/vdb{number}/start"), &start.to_string());
            }
            machine.put(&format!("{disk}/queue/zoned"), "none");
            machine
        }

        fn put(&self, file: &str, contents: &str) {
            let path = self.0.path().join(file);
            create_dir_all(path.parent().unwrap()).unwrap();
            write(path, format!("{contents}\n")).unwrap();
        }

        fn link(&self, to: &str, at: &str) {
            let at = self.0.path().join(at);
            create_dir_all(at.parent().unwrap()).unwrap();
            symlink(self.0.path().join(to), at).unwrap();
        }

        /// What is said of the device of that minor number; `nodes` are paths that lead to one.
        fn uses(&self, of: u64, nodes: &[(&str, u64)]) -> Vec<String> {
            let number_of = |path: &Path| {
                let node = nodes.iter().find(|(node, _)| Path::new(node) == path);
                node.map(|(_, number)| (254, *number))
            };
            let (sys, proc) = (self.0.path().join("sys"), self.0.path().join("proc"));
            let roots = Roots { sys: &sys, proc: &proc, number_of: &number_of };
            let uses = roots.uses(&roots.known((254, of)));
            uses.iter().map(|one| format!("{one}: {}", one.remedy())).collect()
        }
    }

    #[test]
    fn unused_disk_has_no_uses_and_its_partitions() {
        let machine = Machine::new();
        assert_eq!(machine.uses(16, &[]), [""; 0]);
        let (sys, proc) = (machine.0.path().join("sys"), machine.0.path().join("proc"));
        let roots = Roots { sys: &sys, proc: &proc, number_of: &|_| None };
        let known = roots.known((254, 16));
        let partitions: Vec<_> = known.partitions().collect();
        assert_eq!(partitions, [("vdb1", 1 << 20), ("vdb2", 200 << 20)]);
        assert_eq!(known.zoned, None);
        assert_eq!(roots.known((254, 17)).partitions().count(), 0);
        machine.put("sys/devices/vdb/queue/zoned", "host-managed");
        for minor in [16, 17] {
            assert_eq!(roots.known((254, minor)).zoned.unwrap().as_str(), "host-managed");
        }
        assert_eq!(roots.known((1, 2)).members.len(), 1, "no sysfs entry");
    }

    #[test]
    fn mounts_are_found_by_number_and_by_where_the_source_leads() {
        let machine = Machine::new();
        machine.put(
            "proc/self/mountinfo",
            "22 1 254:17 / /mnt/with\\040space rw shared:1 - ext4 /dev/root rw\n\
             23 1 0:42 /sub /mnt/many rw - btrfs /dev/mapper/a\\040b rw\n\
             24 1 0:5 / /proc rw - proc proc rw\n\
             25 1 8:1 / / rw - ext4 /dev/sda1 rw\nbroken line",
        );
        let first = "vdb1 is mounted at /mnt/with space: umount /mnt/with space";
        assert_eq!(machine.uses(17, &[]), [first]);
        assert_eq!(machine.uses(16, &[]), [first], "a disk with a mounted partition");
        assert_eq!(machine.uses(18, &[]), [""; 0], "a neighbour of one");
        let nodes = [("/dev/mapper/a b", 18)];
        let second = "vdb2 is mounted at /mnt/many: umount /mnt/many";
        assert_eq!(machine.uses(18, &nodes), [second]);
        assert_eq!(machine.uses(16, &nodes), [first, second]);
    }

    #[test]
    fn whole_disk_in_use_is_found_from_its_partition() {
        let machine = Machine::new();
        machine.put("proc/self/mountinfo", "22 1 254:16 / /mnt rw - vfat /dev/vdb rw");
        assert_eq!(machine.uses(18, &[]), ["vdb is mounted at /mnt: umount /mnt"]);
    }

    #[test]
    fn swap_holders_pools_and_loops_are_found() {
        let machine = Machine::new();
        let swaps = "Filename Type Size Used Priority\n/dev/disk/by-id/x partition 1 0 -2";
        machine.put("proc/swaps", swaps);
        let nodes = [("/dev/disk/by-id/x", 17), ("/dev/vdb2", 18)];
        assert_eq!(machine.uses(17, &nodes), ["vdb1 is swap: swapoff /dev/vdb1"]);
        machine.put("proc/swaps", "Filename");
        machine.put("sys/devices/dm-3/dm/name", "vg-root");
        machine.link("sys/devices/dm-3", "sys/devices/vdb/vdb1/holders/dm-3");
        machine.put("sys/devices/md127/dev", "9:127");
        machine.link("sys/devices/md127", "sys/devices/vdb/vdb2/holders/md127");
        let of_disk = machine.uses(16, &[]);
        assert!(
            of_disk[0].starts_with("vdb1 is held by dm-3 (vg-root): deactivate"),
            "{of_disk:?}"
        );
        assert_eq!(of_disk[1], "vdb2 is held by md127: mdadm --stop it");
        assert_eq!(machine.uses(18, &[]), of_disk[1..]);

        let machine = Machine::new();
        machine.put("sys/block/loop7/loop/backing_file", "/dev/vdb2");
        machine.put("sys/block/zram0/backing_dev", "none");
        let backed = ["vdb2 is what loop7 keeps its data on: losetup -d /dev/loop7"];
        assert_eq!(machine.uses(18, &nodes), backed);
        assert_eq!(machine.uses(16, &nodes), backed);

        let machine = Machine::new();
        machine.put("sys/devices/vdb/bcache/label", "");
        machine.link("sys/devices/vdb/vdb1", "sys/fs/btrfs/abc/devices/vdb1");
        let both = [
            "vdb is held by bcache: stop that",
            "vdb1 is part of the mounted btrfs abc: unmount it, or btrfs device remove",
        ];
        assert_eq!(machine.uses(16, &nodes), both);
        assert_eq!(machine.uses(17, &nodes), [both[1], both[0]]);
    }

    #[test]
    fn paths_of_the_kernel_are_unescaped() {
        assert_eq!(unescape("/a\\040b\\134c\\011"), Path::new("/a b\\c\t"));
        assert_eq!(unescape("/a\\04"), Path::new("/a\\04"));
        assert_eq!(unescape("").as_os_str().as_bytes(), b"");
    }
}
