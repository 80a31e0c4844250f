//! One anonymous mapping, on the largest pages that can be had.
//!
//! Data flow: length and [`HugePages`] → reserved huge pages, else an aligned mapping that asks
//! for transparent ones, else base pages → [`Mapping`], which says which of them it became.
//! Registering pins pages one by one, and the device reads one address per page: with pages of
//! 2 MiB both have 512 times fewer to deal with.
//!
//! Not here: what lies where in the mapping (`pool`), who may look at it (`arena`).

use core::fmt;
use core::ptr::NonNull;

use nix::errno::Errno;

use crate::process::Process;

/// The huge page that is asked for, in bytes; a transparent one has the same size on x86-64
/// and on arm64 with base pages of 4 KiB.
pub(in crate::buffer) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Whether an arena is to lie on pages of 2 MiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Reserved huge pages, else transparent ones, else base pages. An arena of less than
    /// 2 MiB lies on base pages.
    #[default]
    Auto,
    /// Base pages, and no transparent ones.
    Never,
    /// Reserved huge pages (`vm.nr_hugepages`), or no arena. Its length is rounded up to them.
    Require,
}

/// Which pages back a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pages {
    /// Reserved huge pages of 2 MiB (`MAP_HUGETLB`).
    Huge,
    /// Aligned so that transparent huge pages can back it, and asked for (`MADV_HUGEPAGE`); the
    /// kernel may still use base pages.
    Transparent,
    /// Base pages.
    Base,
    /// Memory that the caller brought: whatever it lies on.
    Foreign,
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Pages {
    /// What [`Features::in_use`](crate::ring::Features::in_use) calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Huge => "huge pages (MAP_HUGETLB)",
            Self::Transparent => "huge pages (transparent)",
            Self::Base => "base pages",
            Self::Foreign => "memory of the caller",
        }
    }
}

/// Anonymous, zeroed, private memory that a child process does not inherit (F26); unmapped
/// when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    /// A multiple of the page size it lies on.
    len_bytes: usize,
    pages: Pages,
    /// Which has it mapped; a child has other things there, or nothing.
    owner: Process,
}

impl Mapping {
    /// Maps at least `len_bytes`.
    ///
    /// # Errors
    /// Of `mmap(2)`; `EINVAL` for a length of 0.
    pub(super) fn new(len_bytes: usize, huge: HugePages) -> Result<Self, Errno> {
        if len_bytes == 0 {
            return Err(Errno::EINVAL);
        }
        let mapping = match huge {
            HugePages::Require => Self::huge(len_bytes)?,
            HugePages::Auto if len_bytes >= HUGE_PAGE_BYTES => Self::huge(len_bytes)
                .or_else(|_| Self::transparent(len_bytes))
                .or_else(|_| Self::anonymous(len_bytes, 0, Pages::Base))?,
            HugePages::Auto | HugePages::Never => Self::anonymous(len_bytes, 0, Pages::Base)?,
        };
        if huge == HugePages::Never {
            // Where transparent pages are always on. Refused by a kernel that has none.
            let _has_none = mapping.advise(libc::MADV_NOHUGEPAGE);
        }
        // A second line of defence: a child that finds the memory has got its own copy.
        let _refused = mapping.advise(libc::MADV_DONTFORK);
        Ok(mapping)
    }

    fn huge(len_bytes: usize) -> Result<Self, Errno> {
        let rounded = len_bytes.checked_next_multiple_of(HUGE_PAGE_BYTES).ok_or(Errno::ENOMEM)?;
        let flags = libc::MAP_HUGETLB | libc::MAP_HUGE_2MB;
        let mapping = Self::anonymous(rounded, flags, Pages::Huge)?;
        // A limit of the cgroup shows only when a page is touched, as SIGBUS; asked this way it
        // is an errno. Before Linux 5.14 it cannot be asked.
        match mapping.advise(libc::MADV_POPULATE_WRITE) {
            Ok(()) | Err(Errno::EINVAL) => Ok(mapping),
            Err(errno) => Err(errno),
        }
    }

    /// Maps a huge page more than needed, and gives back what lies before and behind the
    /// aligned part.
    fn transparent(len_bytes: usize) -> Result<Self, Errno> {
        let rounded = len_bytes.checked_next_multiple_of(HUGE_PAGE_BYTES).ok_or(Errno::ENOMEM)?;
        let roomy = rounded.checked_add(HUGE_PAGE_BYTES).ok_or(Errno::ENOMEM)?;
        let mut mapping = Self::anonymous(roomy, 0, Pages::Base)?;
        let before = mapping.base.as_ptr().addr().wrapping_neg() % HUGE_PAGE_BYTES;
        mapping.cut(before, rounded);
        mapping.advise(libc::MADV_HUGEPAGE)?;
        mapping.pages = Pages::Transparent;
        Ok(mapping)
    }

    fn anonymous(len_bytes: usize, flags: libc::c_int, pages: Pages) -> Result<Self, Errno> {
        // SAFETY: lifetime: no address is passed in, so no existing mapping is touched.
        // Aliasing: the kernel picks fresh addresses. Bounds: `len_bytes` is not 0.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(address.cast::<u8>()).ok_or(Errno::ENOMEM)?;
        Ok(Self { base, len_bytes, pages, owner: Process::current() })
    }

    /// Keeps `len_bytes` from `before_bytes` on and unmaps the rest.
    fn cut(&mut self, before_bytes: usize, len_bytes: usize) {
        let behind = self.len_bytes - before_bytes - len_bytes;
        self.unmap(0, before_bytes);
        self.unmap(before_bytes + len_bytes, behind);
        // SAFETY: lifetime and aliasing: only an address is computed. Bounds: the two parts and
        // what is kept add up to the mapping.
        self.base = unsafe { self.base.add(before_bytes) };
        self.len_bytes = len_bytes;
    }

    fn unmap(&mut self, offset_bytes: usize, len_bytes: usize) {
        if len_bytes == 0 {
            return;
        }
        let start = self.base.as_ptr().wrapping_add(offset_bytes);
        // SAFETY: lifetime: whoever calls has made sure that nothing refers to this part any
        // more: it was never handed out, or the region goes (see `Region`). Aliasing: `&mut
        // self`. Bounds: a part of the mapping.
        let _refused = unsafe { libc::munmap(start.cast(), len_bytes) };
    }

    fn advise(&self, advice: libc::c_int) -> Result<(), Errno> {
        self.advise_part(0, self.len_bytes, advice)
    }

    /// Makes the pages of a part: as a write to each of them would, without one (Linux 5.14).
    /// What lies behind the mapping is not part of it.
    ///
    /// # Errors
    /// Of `madvise(2)`; `EFAULT` where all of the part lies behind the mapping.
    pub(super) fn populate(&self, offset_bytes: usize, len_bytes: usize) -> Result<(), Errno> {
        let room = self.len_bytes.checked_sub(offset_bytes).filter(|&room| room > 0);
        let len_bytes = len_bytes.min(room.ok_or(Errno::EFAULT)?);
        self.advise_part(offset_bytes, len_bytes, libc::MADV_POPULATE_WRITE)
    }

    fn advise_part(
        &self,
        offset_bytes: usize,
        len_bytes: usize,
        advice: libc::c_int,
    ) -> Result<(), Errno> {
        let start = self.base.as_ptr().wrapping_add(offset_bytes);
        // SAFETY: lifetime: the mapping lives as long as `self`. Aliasing: no advice used here
        // changes or drops contents, whoever else uses them. Bounds: all of the mapping, or the
        // part of it that `populate` has clipped.
        let result = unsafe { libc::madvise(start.cast(), len_bytes, advice) };
        Errno::result(result).map(drop)
    }

    pub(super) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) const fn pages(&self) -> Pages {
        self.pages
    }

    /// Whether it is there, in the process that asks.
    pub(super) fn is_own(&self) -> bool {
        self.owner.is_current()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.is_own() {
            let len_bytes = self.len_bytes;
            self.unmap(0, len_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparent_mapping_is_aligned_and_as_long_as_its_pages() {
        let mapping = Mapping::transparent(3 << 20).unwrap();
        assert_eq!(mapping.base().as_ptr().addr() % HUGE_PAGE_BYTES, 0);
        assert_eq!((mapping.len_bytes, mapping.pages()), (4 << 20, Pages::Transparent));
    }

    #[test]
    fn small_and_unwanted_mappings_lie_on_base_pages() {
        assert_eq!(Mapping::new(4096, HugePages::Auto).unwrap().pages(), Pages::Base);
        assert_eq!(Mapping::new(8 << 20, HugePages::Never).unwrap().pages(), Pages::Base);
        assert_eq!(Mapping::new(0, HugePages::Auto).map(drop), Err(Errno::EINVAL));
    }

    #[test]
    fn automatic_mapping_says_what_it_became() {
        let mapping = Mapping::new(8 << 20, HugePages::Auto).unwrap();
        assert!(matches!(mapping.pages(), Pages::Huge | Pages::Transparent), "{mapping:?}");
        // Where pages are reserved (`sysctl vm.nr_hugepages=16`), they are what one gets.
        let told = std::fs::read_to_string("/proc/meminfo").unwrap();
        let free = told.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
        let free: usize = free.map_or(0, |free| free.trim().parse().unwrap());
        if free >= 12 {
            let required = Mapping::new((2 << 20) + 1, HugePages::Require).unwrap();
            assert_eq!((required.len_bytes, required.pages()), (4 << 20, Pages::Huge));
            assert_eq!(mapping.pages(), Pages::Huge);
        }
        // More than any machine reserves: not there, and said so instead of SIGBUS.
        assert!(Mapping::new(1 << 46, HugePages::Require).is_err());
    }
}
