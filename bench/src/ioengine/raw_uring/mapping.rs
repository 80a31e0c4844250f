//! Memory of every kind that a job can ask for.
//!
//! Data flow: a kind of memory and a length -> pages that a borrow describes again.
//!
//! Not here: what the kernel writes to behind our back (`raw_uring`), slots (`buffers`).
#![allow(unsafe_code, reason = "part of raw_uring, where alone unsafe may stand in this crate")]

use std::io;
use std::ptr::{self, NonNull};

use fio_compat::MemoryKind;
use nix::errno::Errno;
use nix::libc;

/// Zeroed pages of the kind a job asks for (`iomem`), unmapped when it goes.
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// It stays mapped.
    leaked: bool,
}

impl Mapping {
    /// At least so many bytes.
    ///
    /// # Errors
    /// `mmap(2)` refused; for huge pages the text says how to get them.
    pub(crate) fn new(len: usize, memory: &fio_compat::Memory) -> io::Result<Self> {
        let kind = memory.kind;
        let page = usize::try_from(memory.huge_page_bytes).map_err(io::Error::other)?;
        let unit = if kind.is_huge() { page } else { 1 };
        let len = len.max(1).checked_next_multiple_of(unit).ok_or(io::ErrorKind::OutOfMemory)?;
        let share = if kind.is_shared() { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let order = page.trailing_zeros().cast_signed() << libc::MAP_HUGE_SHIFT;
        let huge = if kind.is_huge() { libc::MAP_HUGETLB | order } else { 0 };
        let flags = libc::MAP_ANONYMOUS | share | huge;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory
        // that anybody has.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, access, flags, -1, 0) };
        let mapped = NonNull::new(base.cast()).filter(|_| base != libc::MAP_FAILED);
        let Some(base) = mapped else { return Err(no_pages(kind, len, page, Errno::last())) };
        Ok(Self { base, len, leaked: false })
    }

    /// All of it.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes were mapped readable, writable and zeroed, and stay so until the
        // drop; `&mut self` makes the borrow the only one in this process, and nobody else has
        // the mapping, shared or not.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }

    /// Pins all of it (`mlock(2)`).
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn lock(&mut self) -> io::Result<()> {
        // SAFETY: the range is mapped; pinning changes no byte. Unmapping unpins it.
        Errno::result(unsafe { libc::mlock(self.base.as_ptr().cast(), self.len) })?;
        Ok(())
    }

    /// Keeps it mapped for ever.
    pub(super) const fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.leaked {
            // SAFETY: mapped in `new` with this length, whole pages of its kind; no borrow of it
            // outlives the value, and who gave it to the kernel has seen all completions.
            let unmapped = unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
            debug_assert_eq!(unmapped, 0, "a mapping can be unmapped");
        }
    }
}

/// Why there is no such memory, and what to do.
fn no_pages(kind: MemoryKind, len: usize, page: usize, errno: Errno) -> io::Error {
    let (name, kib) = (kind.as_str(), page >> 10);
    let plain = if kind.is_shared() { "shm" } else { "mmap" };
    io::Error::other(match errno {
        _ if !kind.is_huge() => format!("iomem={name}: no memory for {len} bytes: {errno}"),
        Errno::ENOMEM => format!(
            "iomem={name}: the kernel has not enough free huge pages of {kib} KiB for {len} bytes \
             (ENOMEM); reserve some (sysctl vm.nr_hugepages=N), or use iomem={plain}"
        ),
        _ => format!(
            "iomem={name}: the kernel has no huge pages of {kib} KiB ({errno}); \
             /sys/kernel/mm/hugepages lists the sizes, and iomem={plain} needs none"
        ),
    })
}
