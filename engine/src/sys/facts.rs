//! The calls that ask what an open file or device is, and change nothing.
//!
//! Data flow: a descriptor → one call → numbers, or an `Errno`, or `None` where it is not told.
//!
//! Not here: what follows from the answers (`target`).

use core::mem::MaybeUninit;
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

mod request {
    //! The one request of `<linux/fs.h>` that tells a block device's physical block.
    nix::ioctl_read_bad!(physical_bytes, nix::request_code_none!(0x12, 123), libc::c_uint);
}

/// What `STATX_DIOALIGN` says of an open file (`statx(2)`, Linux 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DirectAlign {
    /// Alignment of memory in bytes; 0 when direct I/O is not possible.
    pub(crate) mem_bytes: u32,
    /// Alignment of offset and length in bytes; 0 when direct I/O is not possible.
    pub(crate) offset_bytes: u32,
}

/// What `STATX_WRITE_ATOMIC` says of an open file (`statx(2)`, Linux 6.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AtomicAlign {
    /// The least write that can be atomic, in bytes; 0 where none can.
    pub(crate) min_bytes: u32,
    /// The greatest, in bytes.
    pub(crate) max_bytes: u32,
    /// The most pieces of memory that such a write may be gathered from.
    pub(crate) segments_max: u32,
}

/// What `statx(2)` tells beyond `fstat(2)`; `None` where this kernel or file system does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Statx {
    pub(crate) direct: Option<DirectAlign>,
    /// Alignment of offset and length of direct reads in bytes (Linux 6.14); 0 for no
    /// difference from writes.
    pub(crate) read_offset_bytes: Option<u32>,
    pub(crate) atomic: Option<AtomicAlign>,
    /// The file's pages are those of the memory device itself (`STATX_ATTR_DAX`).
    pub(crate) dax: Option<bool>,
}

/// The number of the user namespace that every other one is made in (`USER_NS_INIT_INO` of
/// `<linux/nsfs.h>`): only what one may do in that counts for limits of the machine.
const FIRST_USER_NAMESPACE: &str = "user:[4026531837]";

/// `CAP_IPC_LOCK`, as a bit of what `/proc` tells (`capabilities(7)`).
const MAY_LOCK: u64 = 1 << 14;

/// Whether no limit stands against what the calling thread locks or pins: it has
/// `CAP_IPC_LOCK`, or `RLIMIT_MEMLOCK` is infinite. `None` where `/proc` does not tell.
pub(crate) fn is_memlock_exempt() -> Option<bool> {
    if super::memlock_bytes_max() == u64::MAX {
        return Some(true);
    }
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    let namespace = std::fs::read_link("/proc/thread-self/ns/user").ok()?;
    Some(effective & MAY_LOCK != 0 && namespace.as_os_str() == FIRST_USER_NAMESPACE)
}

/// Asks the file system how I/O on `file` must be aligned.
pub(crate) fn statx(file: &File) -> Statx {
    let (direct, read) = (libc::STATX_DIOALIGN, libc::STATX_DIO_READ_ALIGN);
    let atomic = libc::STATX_WRITE_ATOMIC;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: lifetime: the empty path is static, `found` outlives the call. Aliasing: `found`
    // is this function's. Bounds: it is exactly one statx.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            direct | read | atomic,
            found.as_mut_ptr(),
        )
    };
    // SAFETY: it started zeroed, and all zeroes is a valid statx of integers.
    let found = unsafe { found.assume_init() };
    let told = |mask| result == 0 && found.stx_mask & mask != 0;
    let dax = u64::try_from(libc::STATX_ATTR_DAX).unwrap_or(0);
    let knows_dax = result == 0 && found.stx_attributes_mask & dax != 0;
    Statx {
        direct: told(direct).then_some(DirectAlign {
            mem_bytes: found.stx_dio_mem_align,
            offset_bytes: found.stx_dio_offset_align,
        }),
        read_offset_bytes: told(read).then_some(found.stx_dio_read_offset_align),
        atomic: told(atomic).then_some(AtomicAlign {
            min_bytes: found.stx_atomic_write_unit_min,
            max_bytes: found.stx_atomic_write_unit_max,
            segments_max: found.stx_atomic_write_segments_max,
        }),
        dax: knows_dax.then_some(found.stx_attributes & dax != 0),
    }
}

/// Physical block size in bytes of the block device `file` (`BLKPBSZGET`): what the device
/// writes without reading first.
pub(crate) fn physical_block_bytes(file: &File) -> Result<u32, Errno> {
    let mut bytes = 0;
    // SAFETY: lifetime: `bytes` outlives the call. Aliasing: it is this function's. Bounds: the
    // request writes one unsigned int.
    unsafe { request::physical_bytes(file.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// `preadv2(2)` with `RWF_NOWAIT`: reads into all of `into` from the start of `file` if that
/// needs no waiting before the device is asked. Returns the bytes read.
pub(crate) fn read_nowait(file: &File, into: &mut [u8]) -> Result<usize, Errno> {
    let memory = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    // SAFETY: lifetime: `memory` and the slice it names outlive the call. Aliasing: the slice
    // is borrowed mutably. Bounds: one iovec, of the slice's length.
    let moved =
        unsafe { libc::preadv2(file.as_raw_fd(), &raw const memory, 1, 0, libc::RWF_NOWAIT) };
    Errno::result(moved).map(|moved| usize::try_from(moved).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_blocks_tells_nothing() {
        let null = File::open("/dev/null").unwrap();
        let told = statx(&null);
        assert_eq!(told.direct.filter(|direct| direct.mem_bytes > 0), None);
        assert_eq!(told.atomic.filter(|atomic| atomic.max_bytes > 0), None);
        assert_eq!(physical_block_bytes(&null), Err(Errno::ENOTTY));
    }

    #[test]
    fn nowait_read_fills_the_slice_or_says_why_not() {
        let file = tempfile::tempfile().unwrap();
        let mut bytes = [1; 8];
        assert!(matches!(read_nowait(&file, &mut bytes), Ok(0) | Err(Errno::EOPNOTSUPP)));
        let read_only = File::open("/proc/self/exe").unwrap();
        if read_nowait(&read_only, &mut bytes) == Ok(8) {
            assert_eq!(&bytes[1..4], b"ELF");
        }
    }
}
