//! Stands between a device and the first write to it: a device that is in use is never written,
//! and one that carries something only with an explicit word.
//!
//! Data flow: device number → who uses it (`in_use`) → exclusive descriptor (`O_EXCL`) → what
//! stands on it (`signature`) → leave to write, or an [`OpenError`] that names what was found,
//! where, and how to go on. The contents are looked at while the device is held, so that
//! nothing can be put on it in between.
//!
//! Not here: what users and signatures there are (`in_use`, `signature`), files.

use core::fmt;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::{major, minor};

use super::geometry::errno_of;
use super::in_use::{DeviceUse, Number, Roots, UseKind, number_of};
use super::nvme;
use super::refusal::OpenError;
use super::signature::{self, Signature, WINDOW_ALIGN, Windows};

/// Whether a block device, or an NVMe namespace, may be written, which destroys what is on it.
///
/// One that is swap, part of a volume or an array, or held by anybody else, is never written,
/// whatever is allowed here. Zoned devices are not written either: no write appends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceWrite {
    /// No.
    #[default]
    Refuse,
    /// Where it carries nothing that is known: no file system, no partition table, no member of
    /// a volume or an array, no encryption, no swap.
    IfUnused,
    /// Also where it carries something, which is lost.
    Overwrite,
    /// Also where it, or a partition of it, is mounted: the file system loses what is written
    /// over, does not notice, and may write over it in turn. Then it is not held exclusively.
    EvenMounted,
}

/// The numbers of the block devices that this process holds by a [`DeviceClaim`].
static CLAIMED: Mutex<Vec<Number>> = Mutex::new(Vec::new());

/// A device held for writing, after it was found unused.
///
/// While it lives, nobody else can mount the device or hold it exclusively; opens of this
/// process for writing rely on it instead of holding the device each for itself. So several
/// shards, and files opened elsewhere, can write one device.
///
/// Keep it until the last of them is closed.
#[derive(Debug)]
pub struct DeviceClaim {
    held: Option<File>,
    number: Option<Number>,
}

impl DeviceClaim {
    /// Looks at the block device or NVMe namespace at `path`, and holds it.
    ///
    /// Blocks: it reads about 2 MiB of the device where `how` is [`DeviceWrite::IfUnused`].
    ///
    /// # Errors
    /// - [`OpenError::BlockDeviceWrite`] for [`DeviceWrite::Refuse`].
    /// - [`OpenError::DeviceInUse`], [`OpenError::DeviceBusy`], [`OpenError::DeviceNotEmpty`],
    ///   [`OpenError::Unexamined`], [`OpenError::Zoned`]: the device is not to be written.
    /// - [`OpenError::Options`]: it is no device. [`OpenError::Os`].
    pub fn take(path: &Path, how: DeviceWrite) -> Result<Self, OpenError> {
        let os = |call, errno| OpenError::Os { path: path.to_owned(), call, errno };
        let metadata = std::fs::metadata(path).map_err(|error| os("stat", errno_of(&error)))?;
        if how == DeviceWrite::Refuse {
            return Err(OpenError::BlockDeviceWrite { path: path.to_owned() });
        }
        let held = if nvme::is_namespace(&metadata, Path::new(SYS)) {
            hold_namespace(path, &metadata, how, false)?
        } else if metadata.file_type().is_block_device() {
            check_use(path, number(&metadata), how)?;
            let held = hold(path, path, number(&metadata), how)?;
            check_contents(path, path, &held, how)?;
            Some(held)
        } else {
            let must = "name a block device or an NVMe namespace: nothing else is claimed";
            return Err(OpenError::Options { path: path.to_owned(), must });
        };
        let of_held = held.as_ref().and_then(|held| held.metadata().ok());
        let number = of_held.map(|metadata| number(&metadata));
        CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).extend(number);
        Ok(Self { held, number })
    }

    /// Whether there is a block device to hold: a namespace may have none, and then nobody can
    /// mount it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl Drop for DeviceClaim {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        let at = claimed.iter().position(|number| Some(*number) == self.number);
        at.map(|at| claimed.swap_remove(at));
    }
}

const SYS: &str = "/sys";

/// How long a device may be busy before it counts as held, in milliseconds: a process that is
/// being started holds all that its parent does, for a moment.
const BUSY_WAIT_MS_MAX: u64 = 300;

/// Opens something exclusively, and tries again for a while where it is busy.
pub(super) fn patiently<T>(mut open: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    let started_ns = crate::sys::now_ns();
    loop {
        match open() {
            Err(Errno::EBUSY)
                if crate::sys::now_ns() - started_ns < BUSY_WAIT_MS_MAX * 1_000_000 =>
            {
                crate::sys::pause(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// The number of the device whose node that is.
pub(super) fn number(metadata: &Metadata) -> Number {
    (major(metadata.rdev()), minor(metadata.rdev()))
}

/// Whether a [`DeviceClaim`] of this process holds the device.
pub(super) fn is_claimed(number: Number) -> bool {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).contains(&number)
}

/// The uses that forbid writing.
fn forbidding(mut uses: Vec<DeviceUse>, how: DeviceWrite) -> Vec<DeviceUse> {
    let mounts_count = how != DeviceWrite::EvenMounted;
    uses.retain(|one| mounts_count || !matches!(one.kind, UseKind::Mounted { .. }));
    uses
}

/// Refuses a device that is used as `how` does not allow, or whose zones are written in order
/// only. Opens nothing.
pub(super) fn check_use(path: &Path, number: Number, how: DeviceWrite) -> Result<(), OpenError> {
    let roots = Roots { sys: Path::new(SYS), proc: Path::new("/proc"), number_of: &number_of };
    let known = roots.known(number);
    let uses = forbidding(roots.uses(&known), how);
    if !uses.is_empty() {
        return Err(OpenError::DeviceInUse { path: path.to_owned(), uses });
    }
    match known.zoned {
        Some(model) => Err(OpenError::Zoned { path: path.to_owned(), model }),
        None => Ok(()),
    }
}

/// Holds the block device of a namespace, which is found by its number; `None` where it has none.
/// Where a [`DeviceClaim`] holds it and that `may_be_claimed`, it is only opened.
pub(super) fn hold_namespace(
    path: &Path,
    metadata: &Metadata,
    how: DeviceWrite,
    may_be_claimed: bool,
) -> Result<Option<File>, OpenError> {
    let Some((name, number)) = nvme::block_device(metadata, Path::new(SYS)) else {
        return match how {
            DeviceWrite::Overwrite | DeviceWrite::EvenMounted => Ok(None),
            // Nothing of it was mounted, and nothing of it can be looked at.
            _ => Err(OpenError::Unexamined {
                path: path.to_owned(),
                offset_bytes: 0,
                errno: Errno::ENODEV,
            }),
        };
    };
    check_use(path, number, how)?;
    let os = |call, errno| OpenError::Os { path: path.to_owned(), call, errno };
    let real = path.canonicalize().map_err(|error| os("realpath", errno_of(&error)))?;
    let node = real.with_file_name(name);
    if may_be_claimed && is_claimed(number) {
        return open_exactly(path, &node, number, 0).map(Some);
    }
    let held = hold(path, &node, number, how)?;
    check_contents(path, &node, &held, how)?;
    Ok(Some(held))
}

/// Opens `node` exclusively, as `open_exactly` does; without, where who mounts it holds it.
fn hold(path: &Path, node: &Path, number: Number, how: DeviceWrite) -> Result<File, OpenError> {
    match open_exactly(path, node, number, libc::O_EXCL) {
        Err(OpenError::DeviceBusy { .. }) if how == DeviceWrite::EvenMounted => {
            open_exactly(path, node, number, 0)
        }
        held => held,
    }
}

/// Opens `node` for reading, and makes sure that it is the device of that number. Errors name
/// `path`.
fn open_exactly(path: &Path, node: &Path, number: Number, flags: i32) -> Result<File, OpenError> {
    let mut how = std::fs::OpenOptions::new();
    how.read(true).custom_flags(flags);
    let opened = patiently(|| how.open(node).map_err(|error| errno_of(&error)));
    let opened = opened.map_err(|errno| match errno {
        Errno::EBUSY => OpenError::DeviceBusy { path: path.to_owned() },
        errno if node == path => OpenError::Os { path: path.to_owned(), call: "open", errno },
        errno => OpenError::Claim { path: path.to_owned(), device: node.to_owned(), errno },
    })?;
    match opened.metadata() {
        Ok(metadata) if self::number(&metadata) == number => Ok(opened),
        _ => Err(OpenError::Replaced { path: path.to_owned() }),
    }
}

/// Looks at what the device `held`, whose node is `node`, carries, unless that may be lost.
/// Errors name `path`.
pub(super) fn check_contents(
    path: &Path,
    node: &Path,
    held: &File,
    how: DeviceWrite,
) -> Result<(), OpenError> {
    if matches!(how, DeviceWrite::Overwrite | DeviceWrite::EvenMounted) {
        return Ok(());
    }
    let os = |call, errno| OpenError::Os { path: path.to_owned(), call, errno };
    let metadata = held.metadata().map_err(|error| os("fstat", errno_of(&error)))?;
    // Past the page cache, so that nothing stale stays there while others write.
    let open = |flags| std::fs::OpenOptions::new().read(true).custom_flags(flags).open(node);
    let file = open(libc::O_DIRECT).or_else(|_| open(0));
    let file = file.map_err(|error| os("open for looking at it", errno_of(&error)))?;
    let looked_at = file.metadata().map_err(|error| os("fstat", errno_of(&error)))?;
    if looked_at.rdev() != metadata.rdev() {
        return Err(OpenError::Replaced { path: path.to_owned() });
    }
    let len = crate::sys::device_bytes(&file).map_err(|errno| os("BLKGETSIZE64", errno))?;
    let windows = read_windows(&file, len).map_err(|(offset_bytes, errno)| {
        OpenError::Unexamined { path: path.to_owned(), offset_bytes, errno }
    })?;
    let mut found = windows.signatures();
    let roots = Roots { sys: Path::new(SYS), proc: Path::new("/proc"), number_of: &number_of };
    let known = roots.known(number(&metadata));
    found.extend(known.partitions().map(|(_, offset_bytes)| Signature {
        what: "partition that the kernel knows",
        offset_bytes,
    }));
    if found.is_empty() {
        return Ok(());
    }
    let device = node.to_owned();
    Err(OpenError::DeviceNotEmpty { path: path.to_owned(), found, device })
}

/// Reads what signatures are looked for in; the offset of what cannot be read.
fn read_windows(file: &File, len_bytes: u64) -> Result<Windows, (u64, Errno)> {
    let align = usize::try_from(WINDOW_ALIGN).unwrap_or(usize::MAX);
    let mut parts = Vec::new();
    for range in signature::ranges(len_bytes) {
        let len =
            usize::try_from(range.end - range.start).map_err(|_| (range.start, Errno::EFBIG))?;
        let mut memory = vec![0_u8; len + align];
        let start = memory.as_ptr().align_offset(align);
        let part = &mut memory[start..start + len];
        file.read_exact_at(part, range.start).map_err(|error| (range.start, errno_of(&error)))?;
        parts.push((range.start, part.to_vec()));
    }
    Ok(Windows { len_bytes, parts })
}

impl fmt::Display for DeviceWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refuse => "refuse",
            Self::IfUnused => "if unused",
            Self::Overwrite => "overwrite",
            Self::EvenMounted => "even mounted",
        })
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
