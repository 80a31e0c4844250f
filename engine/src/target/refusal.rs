//! Why a target was not opened, for programs and in words for operators.
//!
//! Data flow: what `open` found → [`OpenError`] → one line that ends in what to do.
//!
//! Not here: finding it out (`open`), errors of transfers (`error`).

use core::fmt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::facts::Bytes;
use super::in_use::DeviceUse;
use super::nvme::NamespaceError;
use super::signature::Signature;
use super::sysfs::Label;

/// Why a target was not opened. Nothing of its contents was read or changed; with
/// [`OpenOptions::create`](super::OpenOptions::create), an empty file may have been made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The options contradict themselves. Nothing was touched.
    Options {
        /// The target.
        path: PathBuf,
        /// What they must do.
        must: &'static str,
    },
    /// A directory has no bytes to transfer.
    Directory {
        /// The target.
        path: PathBuf,
    },
    /// A pipe, a socket or a character device has no positions (F18). The character device of an
    /// NVMe namespace has.
    NoPositions {
        /// The target.
        path: PathBuf,
    },
    /// Writing to a device destroys what is on it, and
    /// [`OpenOptions::device_write`](super::OpenOptions::device_write) does not allow it.
    BlockDeviceWrite {
        /// The target.
        path: PathBuf,
    },
    /// The file system has no direct I/O (`EINVAL` from `open(2)` with `O_DIRECT`).
    NoDirect {
        /// The target.
        path: PathBuf,
    },
    /// Another process has it open, for all of the time that was waited.
    Locked {
        /// The target.
        path: PathBuf,
        /// How long was waited, in milliseconds.
        waited_ms: u64,
    },
    /// A system call failed.
    Os {
        /// The target.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
    /// A block device was to be written, and somebody holds it who is not seen from here:
    /// another process, a mount of another namespace, a pool (`EBUSY` from `open(2)` with
    /// `O_EXCL`).
    DeviceBusy {
        /// The target.
        path: PathBuf,
    },
    /// A namespace was to be written, and its block device cannot be opened, which keeps others
    /// away and shows what it carries.
    Claim {
        /// The target.
        path: PathBuf,
        /// The block device.
        device: PathBuf,
        /// What `open(2)` said.
        errno: Errno,
    },
    /// What was a file has become a block device while it was opened for writing.
    Replaced {
        /// The target.
        path: PathBuf,
    },
    /// Writes of an earlier process were accepted and then lost on their way to the device: the
    /// flush before the first read said so, once (F38). What is read now may be older than what
    /// that process was told was written.
    ///
    /// The same after a failed flush has poisoned the handles of this process (F37): the first
    /// open begins with a flush, and where that finds more that cannot be written, this is its
    /// answer. The kernel tells each loss once, so the open after that succeeds, unless still
    /// more is lost, with handles that are not poisoned. It is only right for a recovery that
    /// trusts nothing beyond its own checksums.
    LostData {
        /// The target.
        path: PathBuf,
        /// `EIO`, `ENOSPC` or `EDQUOT` from `fsync(2)`.
        errno: Errno,
    },
    /// This process has it open past the page cache, and it was to go through it, or the other
    /// way round: the two would not see each other's bytes (F45).
    OtherWay {
        /// The target.
        path: PathBuf,
        /// Whether it is open past the page cache.
        direct: bool,
    },
    /// A device was to be written, and is mounted, or swap, or held by another device; or a
    /// partition of it is, or its disk. Only of mounts can that be allowed
    /// ([`DeviceWrite::EvenMounted`](super::DeviceWrite::EvenMounted)).
    DeviceInUse {
        /// The target.
        path: PathBuf,
        /// All of it.
        uses: Vec<DeviceUse>,
    },
    /// A device was to be written, nobody uses it, and it carries something. Nothing was written.
    DeviceNotEmpty {
        /// The target.
        path: PathBuf,
        /// What, from the front to the back.
        found: Vec<Signature>,
        /// The block device that carries it: the target, or that of the namespace.
        device: PathBuf,
    },
    /// A device was to be written, and a part of it where something may stand cannot be read;
    /// of a namespace without a block device (`ENODEV`), all of it.
    Unexamined {
        /// The target.
        path: PathBuf,
        /// Where that part begins.
        offset_bytes: u64,
        /// Why it cannot be read.
        errno: Errno,
    },
    /// A device was to be written whose zones are written in order only, which no write here
    /// heeds.
    Zoned {
        /// The target.
        path: PathBuf,
        /// `host-managed` or `host-aware`.
        model: Label,
    },
    /// A namespace is not to be driven by commands (F48). Nothing was sent to it but identify.
    Namespace {
        /// The target.
        path: PathBuf,
        /// Why.
        why: NamespaceError,
    },
}

impl OpenError {
    /// `RWF_DSYNC` was chosen, and transfers go through the page cache.
    pub(crate) fn needs_direct(path: &Path) -> Self {
        let must = "choose another sync method: there is no direct I/O here for RWF_DSYNC";
        Self::Options { path: path.to_owned(), must }
    }

    /// The target that was not opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Options { path, .. }
            | Self::Directory { path }
            | Self::NoPositions { path }
            | Self::BlockDeviceWrite { path }
            | Self::NoDirect { path }
            | Self::Locked { path, .. }
            | Self::DeviceBusy { path }
            | Self::Claim { path, .. }
            | Self::Replaced { path }
            | Self::LostData { path, .. }
            | Self::OtherWay { path, .. }
            | Self::Namespace { path, .. }
            | Self::DeviceInUse { path, .. }
            | Self::DeviceNotEmpty { path, .. }
            | Self::Unexamined { path, .. }
            | Self::Zoned { path, .. }
            | Self::Os { path, .. } => path,
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot open {}: ", self.path().display())?;
        match self {
            Self::Options { must, .. } => f.write_str(must),
            Self::Directory { .. } => f.write_str("it is a directory; name a file in it (EISDIR)"),
            Self::NoPositions { .. } => f.write_str(
                "it is neither a regular file nor a block device nor an NVMe namespace (ESPIPE)",
            ),
            Self::BlockDeviceWrite { .. } => f.write_str(
                "it is a device, and writing to one destroys what is on it; open it for reading \
                 only, write to a file, or allow it (DeviceWrite::IfUnused)",
            ),
            Self::NoDirect { .. } => f.write_str(
                "its file system has no direct I/O (EINVAL); ask for PreferDirect or Buffered",
            ),
            Self::Locked { waited_ms, .. } => write!(
                f,
                "another process has it locked, and still had after {waited_ms} ms; stop that \
                 process (lslocks shows it), or open without a lock"
            ),
            Self::DeviceBusy { .. } => f.write_str(
                "somebody holds the device (EBUSY): another process, a mount in another \
                 namespace or container, a pool; lsblk and fuser show by whom; stop that first",
            ),
            Self::DeviceInUse { uses, .. } => {
                let shown = |of: fn(&DeviceUse) -> String| uses.iter().map(of).collect::<Vec<_>>();
                let (what, how) = (shown(DeviceUse::to_string), shown(DeviceUse::remedy));
                write!(f, "{}; such a device is not written: ", what.join(", "))?;
                write!(f, "{}, or name another device", how.join(", "))
            }
            Self::DeviceNotEmpty { found, device, .. } => {
                let found: Vec<_> = found.iter().map(Signature::to_string).collect();
                write!(
                    f,
                    "it carries {}; if nothing of that is needed, wipe it (wipefs -a {}), or \
                     allow it to be overwritten (DeviceWrite::Overwrite)",
                    found.join(", "),
                    device.display()
                )
            }
            Self::Unexamined { errno: Errno::ENODEV, .. } => f.write_str(
                "it has no block device through which to see what it carries; if nothing on it \
                 is needed, allow it to be overwritten (DeviceWrite::Overwrite)",
            ),
            Self::Unexamined { offset_bytes, errno, .. } => write!(
                f,
                "it cannot be read at {} ({errno}), so that it may carry anything; if nothing \
                 on it is needed, allow it to be overwritten (DeviceWrite::Overwrite)",
                Bytes(*offset_bytes)
            ),
            Self::Zoned { model, .. } => write!(
                f,
                "its zones are {model}: they are written in order only, and writes that append \
                 are not offered yet; open it for reading, or put a file system on it that \
                 knows zones (zonefs, f2fs, btrfs), and write to files there"
            ),
            Self::Replaced { .. } => f.write_str(
                "it became a block device while it was opened for writing; make sure of the \
                 name, and open it again",
            ),
            Self::LostData { errno, .. } => write!(
                f,
                "the device has lost data that an earlier process wrote (fsync: {errno}); look \
                 into the kernel log (dmesg), then restore the data or run its own recovery; \
                 the next open will succeed, because the kernel says this only once"
            ),
            Self::OtherWay { direct, .. } => {
                let (is, ask) = match direct {
                    true => ("past", "Direct"),
                    false => ("through", "Buffered"),
                };
                write!(
                    f,
                    "this process has it open {is} the page cache, and going both ways at once \
                     loses bytes; ask for {ask} here too, or close those handles first"
                )
            }
            Self::Claim { device, errno, .. } => {
                write!(
                    f,
                    "its block device {}, which must be opened to keep others away and to see \
                     what it carries: {errno}",
                    device.display()
                )?;
                remedy(*errno).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
            Self::Namespace { why, .. } => write!(f, "{why}"),
            Self::Os { call, errno, .. } => {
                write!(f, "{call}: {errno}")?;
                remedy(*errno).map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
            }
        }
    }
}

impl std::error::Error for OpenError {}

/// What to do about an errno of `open(2)`, where that is known.
const fn remedy(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOENT => "make it first, or open it with create, which makes no directories",
        Errno::EACCES => "grant this user access to it and to its directories",
        Errno::EPERM => {
            "it may be immutable (lsattr), or a device that this container may not use (its \
             cgroup): allow that"
        }
        Errno::EROFS => "open it for reading only, or mount its file system for writing",
        Errno::EMFILE => "close files, or raise RLIMIT_NOFILE (ulimit -n)",
        Errno::ENFILE => "raise the sysctl fs.file-max",
        Errno::ENOSPC | Errno::EDQUOT => "make room on its file system",
        Errno::ENXIO | Errno::ENODEV => "the device is gone: attach it",
        Errno::ENOTDIR => "a part of the path is not a directory: correct it",
        Errno::ELOOP => "its symbolic links lead in a circle: correct them",
        _ => return None,
    })
}
