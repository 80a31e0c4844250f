//! Tells what an NVMe namespace is that is opened by its character device (`/dev/ngXnY`).
//!
//! Data flow: descriptor → its number in sysfs (is it one?) → identify → [`NvmeFacts`] and
//! [`Geometry`]. Which block device (`/dev/nvmeXnY`) is the same namespace is told here, too.
//!
//! Not here: commands (`nvme`), sending them (`ring`), holding that device (`guard`).

use core::fmt;
use std::fs::{File, Metadata, canonicalize};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{major, minor};

use super::facts::{AtomicWrite, Facts};
use super::geometry::{FileSystem, Geometry, TargetKind, transfer_bytes_max};
use super::sysfs::{Device, Label};
use crate::nvme::identify::IDENTIFY_BYTES;
use crate::nvme::{Command, Controller, Namespace, Space, Status};
use crate::sys;

/// The least page of a controller whose own register cannot be read from here: that of every
/// controller that Linux drives.
const PAGE_BYTES: u64 = 4096;

/// What a namespace and its controller say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NvmeFacts {
    /// The identifier that commands name it by.
    pub nsid: u32,
    /// Bytes of a logical block, a power of two.
    pub block_bytes: u32,
    /// How many logical blocks it has.
    pub blocks: u64,
    /// The controller's model.
    pub model: Label,
    /// The controller's firmware.
    pub firmware: Label,
    /// Completed writes may be lost with the power until they are flushed.
    pub volatile_cache: bool,
    /// It can compare.
    pub compare: bool,
    /// It can deallocate ranges.
    pub deallocate: bool,
    /// It can write zeroes without being sent them.
    pub write_zeroes: bool,
    /// The most blocks that one copy inside it takes; 0 where it cannot copy.
    pub copy_blocks_max: u32,
}

impl NvmeFacts {
    /// What its commands depend on, where it is open as `fd`.
    pub(crate) fn space(&self, fd: Option<&File>) -> Space {
        let flags = fd.and_then(|fd| fcntl(fd, FcntlArg::F_GETFL).ok());
        let mode = flags.map(|flags| OFlag::from_bits_retain(flags) & OFlag::O_ACCMODE);
        Space {
            readable: matches!(mode, Some(OFlag::O_RDONLY | OFlag::O_RDWR)),
            writable: matches!(mode, Some(OFlag::O_WRONLY | OFlag::O_RDWR)),
            nsid: self.nsid,
            block_shift: u8::try_from(self.block_bytes.trailing_zeros()).unwrap_or(0),
            blocks: self.blocks,
            volatile_cache: self.volatile_cache,
            deallocate: self.deallocate,
            write_zeroes: self.write_zeroes,
            read_fua: false,
            write_fua: false,
            compare: self.compare,
            copy_blocks_max: self.copy_blocks_max,
        }
    }

    /// What the identify structures of controller and namespace say.
    #[must_use]
    pub fn new(nsid: u32, controller: &Controller, namespace: &Namespace) -> Self {
        Self {
            nsid,
            block_bytes: namespace.format.data_bytes,
            blocks: namespace.blocks,
            model: Label::new(&controller.model),
            firmware: Label::new(&controller.firmware),
            volatile_cache: controller.volatile_cache,
            compare: controller.compare,
            deallocate: controller.deallocate,
            write_zeroes: controller.write_zeroes,
            copy_blocks_max: if controller.copy { namespace.copy_blocks_max } else { 0 },
        }
    }
}

/// Why a namespace cannot be driven by commands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamespaceError {
    /// Identify was answered with a status.
    Status(Status),
    /// The flush before the first read was answered with a status: writes of earlier processes
    /// may be lost (F38).
    Flush(Status),
    /// What it says of itself cannot be used.
    Identify(crate::nvme::identify::IdentifyError),
    /// The shard's ring sends no commands.
    Ring,
    /// The system call that asks failed.
    Os {
        /// What was asked.
        call: &'static str,
        /// What it said.
        errno: Errno,
    },
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "identify: {status}"),
            Self::Flush(status) => write!(
                f,
                "the flush before the first read failed ({status}): what was written before may \
                 be lost; look into the kernel log (dmesg)"
            ),
            Self::Identify(error) => write!(f, "{error}"),
            Self::Ring => f.write_str(
                "the ring of this shard sends no NVMe commands (its features say why; io_uring \
                 does since Linux 6.1): open the block device of the namespace instead",
            ),
            Self::Os { call, errno: Errno::EACCES | Errno::EPERM } => write!(
                f,
                "{call} is not permitted: grant this user read access to the device \
                 (before Linux 6.2 it takes CAP_SYS_ADMIN)"
            ),
            Self::Os { call, errno } => write!(f, "{call}: {errno}"),
        }
    }
}

/// Whether that is the character device of a namespace, as `sys`, which is `/sys` except in
/// tests, tells. No request is sent to what could be anything.
pub(crate) fn is_namespace(metadata: &Metadata, sys: &Path) -> bool {
    if !metadata.file_type().is_char_device() {
        return false;
    }
    let number = metadata.rdev();
    let node = sys.join(format!("dev/char/{}:{}/subsystem", major(number), minor(number)));
    canonicalize(node).is_ok_and(|class| class.ends_with("nvme-generic"))
}

/// Asks the namespace what it is.
pub(crate) fn geometry(file: &File, sys: &Path) -> Result<Geometry, NamespaceError> {
    let os = |call| move |errno| NamespaceError::Os { call, errno };
    let nsid = sys::nvme_namespace_id(file).map_err(os("NVME_IOCTL_ID"))?;
    let identify = |cns| -> Result<Box<[u8; IDENTIFY_BYTES]>, NamespaceError> {
        let answer = sys::nvme_identify(file, nsid, cns).map_err(os("identify"))?;
        answer.map_err(NamespaceError::Status)
    };
    let (of_controller, of_namespace) = (identify(1)?, identify(0)?);
    let controller = Controller::parse(&of_controller);
    let namespace = Namespace::parse(&of_namespace).map_err(NamespaceError::Identify)?;
    namespace.check_usable().map_err(NamespaceError::Identify)?;
    let device = device_of(file, sys);
    Ok(describe(nsid, &controller, &namespace, device))
}

/// Makes durable what earlier commands wrote, if it may not be. A reader that is not permitted
/// to ask for that reads all the same.
pub(crate) fn flush(file: &File, geometry: &Geometry) -> Result<(), NamespaceError> {
    let Some(nvme) = geometry.facts.nvme.filter(|nvme| nvme.volatile_cache) else {
        return Ok(());
    };
    match sys::nvme_io(file.as_raw_fd(), &Command::flush(nvme.nsid), None) {
        Ok(None) | Err(Errno::EACCES | Errno::EPERM) => Ok(()),
        Ok(Some(status)) => Err(NamespaceError::Flush(status)),
        Err(errno) => Err(NamespaceError::Os { call: "flush", errno }),
    }
}

/// What the queue of its block device tells.
fn device_of(file: &File, sys: &Path) -> Option<Device> {
    let (_, (major, minor)) = block_device(&file.metadata().ok()?, sys)?;
    Device::read(sys, major, minor)
}

/// The kernel's name and the number of the block device of the same namespace. `None` where it
/// has none.
pub(crate) fn block_device(metadata: &Metadata, sys: &Path) -> Option<(String, (u64, u64))> {
    let number = metadata.rdev();
    let node = canonicalize(sys.join(format!("dev/char/{}:{}", major(number), minor(number))));
    let name = block_name(node.ok()?.file_name()?.to_str()?)?;
    let number = std::fs::read_to_string(sys.join("class/block").join(&name).join("dev")).ok()?;
    let (major, minor) = number.trim().split_once(':')?;
    Some((name, (major.parse().ok()?, minor.parse().ok()?)))
}

/// `nvme0n1` for `ng0n1`.
fn block_name(generic: &str) -> Option<String> {
    let numbers = generic.strip_prefix("ng")?;
    numbers.starts_with(|c: char| c.is_ascii_digit()).then(|| format!("nvme{numbers}"))
}

fn describe(
    nsid: u32,
    controller: &Controller,
    namespace: &Namespace,
    device: Option<Device>,
) -> Geometry {
    let block_bytes = namespace.format.data_bytes;
    let nvme = NvmeFacts::new(nsid, controller, namespace);
    let atomic_blocks = namespace.atomic_blocks_max(controller.atomic_blocks);
    let atomic_write = AtomicWrite {
        min_bytes: block_bytes,
        max_bytes: atomic_blocks.saturating_mul(block_bytes),
        // Memory in several pieces is written by one command all the same.
        segments_max: 1,
    };
    let facts = Facts {
        atomic_write: Some(atomic_write),
        logical_block_bytes: Some(block_bytes),
        physical_block_bytes: device.and_then(|device| device.physical_block_bytes),
        // A command is sent from the submitting thread or not at all.
        nowait: Some(true),
        device,
        nvme: Some(nvme),
        ..Facts::UNKNOWN
    };
    let most = transfer_bytes_max(&facts, true, block_bytes);
    let own = controller.transfer_bytes_max(PAGE_BYTES).unwrap_or(u64::MAX);
    // A command is not split: scattered memory, which begins inside a page, has to fit.
    let segments = device.and_then(|device| device.segments_max).unwrap_or(u32::MAX);
    let scattered = u64::from(segments.saturating_sub(1)) * PAGE_BYTES;
    let own = u32::try_from(own.min(scattered)).unwrap_or(u32::MAX) & !(block_bytes - 1);
    Geometry {
        kind: TargetKind::NvmeNamespace,
        len_bytes: namespace.len_bytes(),
        direct: true,
        mem_align: block_bytes,
        offset_align: block_bytes,
        transfer_bytes_max: most.min(own.max(block_bytes)),
        file_system: FileSystem::NONE,
        facts,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;
    use std::os::unix::fs::symlink;

    use super::*;

    fn identified(lba_exponent: u8) -> (Controller, Namespace) {
        let mut bytes = [0; IDENTIFY_BYTES];
        bytes[77] = 5;
        bytes[525] = 1;
        bytes[520] = 0b1100;
        bytes[24..30].copy_from_slice(b"MODEL ");
        let controller = Controller::parse(&bytes);
        let mut bytes = [0; IDENTIFY_BYTES];
        bytes[..8].copy_from_slice(&1000_u64.to_le_bytes());
        bytes[130] = lba_exponent;
        (controller, Namespace::parse(&bytes).unwrap())
    }

    #[test]
    fn f44_blocks_of_the_namespace_are_the_alignment() {
        for exponent in [9, 12] {
            let (controller, namespace) = identified(exponent);
            let found = describe(7, &controller, &namespace, None);
            let block = 1 << exponent;
            assert_eq!((found.offset_align, found.mem_align), (block, block));
            assert_eq!(found.len_bytes, 1000 * u64::from(block));
            // 2^5 pages of 4096 bytes are the controller's own limit.
            assert_eq!(found.transfer_bytes_max, 128 << 10);
            let nvme = found.facts.nvme.unwrap();
            assert_eq!((nvme.nsid, nvme.block_bytes, nvme.blocks), (7, block, 1000));
            assert!(nvme.volatile_cache && nvme.write_zeroes && nvme.deallocate);
            assert_eq!((nvme.model.as_str(), nvme.copy_blocks_max), ("MODEL", 0));
            assert_eq!(found.facts.volatile_cache(), Some(true));
            assert_eq!(found.facts.fua(), Some(true));
        }
    }

    #[test]
    fn f48_only_what_the_kernel_calls_a_namespace_is_one() {
        let sys = tempfile::tempdir().unwrap();
        let null = File::open("/dev/null").unwrap().metadata().unwrap();
        assert!(!is_namespace(&null, Path::new("/sys")));
        assert!(!is_namespace(
            &File::open("/proc/self/exe").unwrap().metadata().unwrap(),
            sys.path()
        ));
        let class = sys.path().join("class/nvme-generic");
        let node = sys.path().join("dev/char/1:3");
        create_dir_all(&class).unwrap();
        create_dir_all(&node).unwrap();
        symlink(&class, node.join("subsystem")).unwrap();
        assert!(is_namespace(&null, sys.path()));
        // The class alone does not make it answer.
        let null = File::open("/dev/null").unwrap();
        let refused = geometry(&null, sys.path()).unwrap_err();
        assert_eq!(refused.to_string(), "NVME_IOCTL_ID: ENOTTY: Not a typewriter");
        assert_eq!(block_name("ng12n3").as_deref(), Some("nvme12n3"));
        assert_eq!(block_name("ngx").or(block_name("null")), None);
    }
}
