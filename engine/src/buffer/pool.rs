//! Turns an [`ArenaConfig`] into an [`Arena`] that hands out and takes back ranges without
//! locks and without allocating.
//!
//! Data flow: size classes → one region, laid out class by class → a free list per class →
//! [`ArenaBuf`] → back onto its free list, the last one back being the next one out, so that a
//! steady load stays in the cache.
//!
//! Not here: the mapping and its pointers (`arena`), how full is dealt with (`shard`).

use core::fmt;
use core::num::NonZeroU32;
use core::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mfio_core::RegionId;
use nix::errno::Errno;

use super::arena::{ArenaBuf, HugePages, MemRange, PIECE_BYTES, Pages, Region, TRANSFER_BYTES_MAX};
use super::memory::{HasRegion, Memory, Sealed};

/// Every range starts and ends at a multiple of this many bytes.
const SECTOR_BYTES: u32 = 512;

/// Ranges of at least this size start at a multiple of it, as the strictest devices ask.
const PAGE_BYTES: u32 = 4096;

/// What a released range holds in an arena that poisons.
const POISON: u8 = 0xDB;

/// Many ranges of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SizeClass {
    /// Bytes of each range: a multiple of 512, at most 1 GiB.
    pub bytes: u32,
    /// How many ranges there are; at least 1.
    pub count: u32,
}

/// What an arena consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArenaConfig {
    /// The sizes on offer, in any order, each at most once.
    pub classes: Vec<SizeClass>,
    /// Fills every released range with a pattern and withholds it until
    /// [`Arena::verify_released`] has compared it, so that a write after the release is found
    /// (F01). For tests: the arena runs dry unless that is called.
    pub poison_released: bool,
    /// Which pages it lies on; [`Arena::pages`] says what became of that.
    pub huge_pages: HugePages,
    /// Pinned from the start by a ring of its own, so that every shard clones it and none pins
    /// it again (see [`share`](crate::ring::kernel::share)). For an arena that several shards
    /// are to see; where it is refused, each of them registers it.
    pub shared: bool,
}

impl ArenaConfig {
    /// An arena of `classes`, without poison.
    #[must_use]
    pub const fn new(classes: Vec<SizeClass>) -> Self {
        Self { classes, poison_released: false, huge_pages: HugePages::Auto, shared: false }
    }

    /// Checks everything that [`Arena::new`] would refuse, without mapping anything.
    ///
    /// # Errors
    /// As [`Arena::new`], except [`ArenaError::Map`].
    pub fn validate(&self) -> Result<(), ArenaError> {
        Layout::of(&self.classes).map(drop)
    }
}

/// Why there is no arena. Nothing was mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArenaError {
    /// No size class was given.
    NoClasses,
    /// A class has ranges of a size that cannot be used.
    ClassBytes {
        /// The size asked for.
        bytes: u32,
    },
    /// A class has no ranges, or more than can be counted.
    ClassCount {
        /// The size of its ranges in bytes.
        bytes: u32,
        /// How many were asked for.
        count: u32,
    },
    /// Two classes have ranges of the same size.
    ClassTwice {
        /// That size in bytes.
        bytes: u32,
    },
    /// All classes together are larger than the address space, or than 2 TiB.
    TooLarge,
    /// The kernel refused the mapping.
    Map {
        /// Bytes asked for.
        len_bytes: usize,
        /// The errno of `mmap(2)`.
        errno: Errno,
    },
    /// Not even one frame fits into the memory, or frames have no bytes.
    FrameBytes {
        /// The size of a frame that was asked for.
        frame_bytes: usize,
        /// The bytes there are.
        len_bytes: usize,
    },
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoClasses => f.write_str("an arena needs at least one size class"),
            Self::ClassBytes { bytes } => write!(
                f,
                "size class of {bytes} bytes: must be a multiple of {SECTOR_BYTES}, \
                 at least that and at most 1 GiB"
            ),
            Self::ClassCount { bytes, count } => write!(
                f,
                "size class of {bytes} bytes: {count} ranges; must be 1 to {}",
                u32::MAX - 1
            ),
            Self::ClassTwice { bytes } => {
                write!(f, "two size classes of {bytes} bytes: join them into one")
            }
            Self::FrameBytes { frame_bytes, len_bytes } => write!(
                f,
                "frames of {frame_bytes} bytes in memory of {len_bytes} bytes: at least one \
                 frame of at least one byte must fit"
            ),
            Self::TooLarge => f.write_str("the size classes together exceed 2 TiB: use fewer"),
            Self::Map { len_bytes, errno } => write!(
                f,
                "cannot map {len_bytes} bytes for the arena ({errno}): use smaller or fewer \
                 ranges, raise the memory limit of the process (ulimit -v, cgroup), or, where \
                 huge pages are required, reserve more (vm.nr_hugepages)"
            ),
        }
    }
}

impl std::error::Error for ArenaError {}

/// What [`Arena::verify_released`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Released {
    /// Ranges that were compared and given back.
    pub ranges: u64,
    /// For each range that somebody wrote to after its release: the offset in the region, in
    /// bytes, of the first byte that differs from the pattern. Empty is what must be.
    pub changed_at_bytes: Vec<u64>,
}

/// Registered, aligned memory: one per shard, cut into ranges of a few sizes.
///
/// Clones are handles to the same memory, which is unmapped when the last handle and the last
/// buffer are gone.
#[derive(Clone, Debug)]
pub struct Arena(Arc<Handle>);

/// What all clones of an [`Arena`] share. A level of its own, so that the strong count of the
/// pool is one more than the number of buffers that are out: `in_use` needs no counter on the
/// hot path.
#[derive(Debug)]
struct Handle {
    pool: Arc<Pool>,
}

impl HasRegion for Handle {
    fn region(&self) -> &Region {
        self.pool.region()
    }
}

impl Sealed for Arena {
    fn keep(&self) -> Arc<dyn HasRegion> {
        Arc::clone(&self.0) as Arc<dyn HasRegion>
    }
}

impl Memory for Arena {}

impl Arena {
    /// Maps the memory and lays out the classes.
    ///
    /// # Errors
    /// A variant of [`ArenaError`] for each rule on [`ArenaConfig`] and [`SizeClass`], and
    /// [`ArenaError::Map`] when the kernel has no memory.
    pub fn new(config: &ArenaConfig) -> Result<Self, ArenaError> {
        let layout = Layout::of(&config.classes)?;
        let region = Region::map(layout.len_bytes, config.huge_pages)
            .map_err(|errno| ArenaError::Map { len_bytes: layout.len_bytes, errno })?;
        let withheld = config.poison_released.then(|| Mutex::new(Vec::new()));
        let pool = Pool { region, classes: layout.classes, withheld };
        let arena = Self(Arc::new(Handle { pool: Arc::new(pool) }));
        if config.shared {
            // Without it, each ring registers the memory for itself.
            let _or_each = crate::ring::kernel::share(&arena);
        }
        Ok(arena)
    }

    /// A buffer of `len_bytes`, from the smallest class that fits and has one left. `None`
    /// when `len_bytes` is 0 or above [`Arena::len_bytes_max`], or when all that fit are out:
    /// wait for one to come back.
    #[must_use]
    #[inline]
    pub fn alloc(&self, len_bytes: usize) -> Option<ArenaBuf> {
        let pool = &self.0.pool;
        let len = u32::try_from(len_bytes).ok().and_then(NonZeroU32::new)?;
        for (number, class) in (0_u32..).zip(&pool.classes) {
            if class.bytes < len.get() {
                continue;
            }
            if let Some(index) = class.free.pop() {
                return Some(ArenaBuf::adopt(Arc::clone(pool), number, index, len));
            }
        }
        None
    }

    /// The largest length in bytes that [`Arena::alloc`] can ever serve.
    #[must_use]
    pub fn len_bytes_max(&self) -> usize {
        self.0.pool.classes.last().map_or(0, |class| class.bytes as usize)
    }

    /// The memory, for [`Ring::register_buffers`](crate::ring::Ring::register_buffers).
    #[must_use]
    pub fn region(&self) -> &Region {
        self.0.pool.region()
    }

    /// What names the region.
    #[must_use]
    pub fn id(&self) -> RegionId {
        self.region().id()
    }

    /// Bytes mapped, gaps between classes included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.region().len_bytes()
    }

    /// Which pages back it.
    #[must_use]
    pub fn pages(&self) -> Pages {
        self.region().pages()
    }

    /// How many buffers are out. Ranges withheld by poisoning are not.
    #[must_use]
    pub fn in_use(&self) -> usize {
        Arc::strong_count(&self.0.pool) - 1
    }

    /// Compares every released range with the pattern it was left with, and makes them all
    /// available again. Nothing is ever withheld without [`ArenaConfig::poison_released`].
    #[must_use]
    pub fn verify_released(&self) -> Released {
        let mut found = Released::default();
        let Some(withheld) = &self.0.pool.withheld else { return found };
        for (class, index) in lock(withheld).drain(..) {
            let range = self.0.pool.whole(class, index);
            if let Some(at) = range.first_unlike(POISON) {
                let start = self.0.pool.classes[class as usize].offset_bytes(index);
                found.changed_at_bytes.push(start + u64::from(at));
            }
            found.ranges += 1;
            self.0.pool.classes[class as usize].free.push(index);
        }
        found
    }
}

/// The region, its layout, and who has what.
#[derive(Debug)]
pub(super) struct Pool {
    region: Region,
    classes: Box<[Class]>,
    /// Released ranges that wait to be verified; `None` when the arena does not poison.
    withheld: Option<Mutex<Vec<(u32, u32)>>>,
}

impl Pool {
    pub(super) const fn region(&self) -> &Region {
        &self.region
    }

    pub(super) fn class_bytes(&self, class: u32) -> u32 {
        self.classes[class as usize].bytes
    }

    /// Where range `index` of `class` lies.
    #[inline]
    pub(super) fn locate(&self, class: u32, index: u32, len_bytes: u32) -> NonNull<u8> {
        self.region.at(bytes(self.classes[class as usize].offset_bytes(index)), len_bytes)
    }

    /// Takes a range back from the buffer that owned it.
    #[inline]
    pub(super) fn release(&self, class: u32, index: u32) {
        match &self.withheld {
            None => self.classes[class as usize].free.push(index),
            // A forked child has something else there, or nothing, and may have inherited the
            // lock taken (F26).
            Some(_) if !self.region.is_own() => {}
            Some(withheld) => {
                self.whole(class, index).fill(POISON);
                lock(withheld).push((class, index));
            }
        }
    }

    /// A range with all the bytes of its class. The caller owns it: it is not out.
    fn whole(&self, class: u32, index: u32) -> MemRange {
        let len_bytes = self.class_bytes(class);
        let ptr = self.locate(class, index, len_bytes).as_ptr();
        MemRange::of_raw(ptr, len_bytes, None).expect("a class has 512 bytes to 1 GiB")
    }
}

/// A panic elsewhere cannot leave the list of withheld ranges half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One size class, laid out.
#[derive(Debug)]
struct Class {
    bytes: u32,
    /// Start of each range in the region, in sectors.
    sectors: Box<[u32]>,
    free: FreeList,
}

impl Class {
    #[inline]
    fn offset_bytes(&self, index: u32) -> u64 {
        u64::from(self.sectors[index as usize]) * u64::from(SECTOR_BYTES)
    }
}

/// Classes in ascending size, and the bytes they need.
struct Layout {
    classes: Box<[Class]>,
    len_bytes: usize,
}

impl Layout {
    fn of(wanted: &[SizeClass]) -> Result<Self, ArenaError> {
        if wanted.is_empty() {
            return Err(ArenaError::NoClasses);
        }
        let mut wanted = wanted.to_vec();
        wanted.sort_by_key(|class| class.bytes);
        if let Some(twice) = wanted.windows(2).find(|pair| pair[0].bytes == pair[1].bytes) {
            return Err(ArenaError::ClassTwice { bytes: twice[0].bytes });
        }
        // All sizes are judged before anything is allocated for any of them.
        let mut total_bytes = 0_u64;
        for class in &wanted {
            check(*class)?;
            total_bytes += u64::from(class.bytes) * u64::from(class.count);
        }
        if usize::try_from(total_bytes).is_err() || total_bytes > sectors_max_bytes() {
            return Err(ArenaError::TooLarge);
        }
        let mut end_bytes = 0;
        let mut classes = Vec::with_capacity(wanted.len());
        for class in wanted {
            classes.push(place(class, &mut end_bytes)?);
        }
        let len_bytes = end_bytes.next_multiple_of(u64::from(PAGE_BYTES));
        let len_bytes = usize::try_from(len_bytes).map_err(|_| ArenaError::TooLarge)?;
        Ok(Self { classes: classes.into(), len_bytes })
    }
}

fn check(class: SizeClass) -> Result<(), ArenaError> {
    let SizeClass { bytes, count } = class;
    let most = TRANSFER_BYTES_MAX.min(u32::try_from(PIECE_BYTES).unwrap_or(u32::MAX));
    if bytes < SECTOR_BYTES || !bytes.is_multiple_of(SECTOR_BYTES) || bytes > most {
        return Err(ArenaError::ClassBytes { bytes });
    }
    // One number is taken: the free list's mark of its end.
    if count == 0 || count == u32::MAX {
        return Err(ArenaError::ClassCount { bytes, count });
    }
    Ok(())
}

/// Offsets are kept as sector numbers of 32 bits.
const fn sectors_max_bytes() -> u64 {
    (u32::MAX as u64) * (SECTOR_BYTES as u64)
}

/// Lays one class out behind `end_bytes`, aligned, and never across a registered piece.
fn place(class: SizeClass, end_bytes: &mut u64) -> Result<Class, ArenaError> {
    let align_bytes = if class.bytes >= PAGE_BYTES { PAGE_BYTES } else { SECTOR_BYTES };
    *end_bytes = end_bytes.next_multiple_of(u64::from(PAGE_BYTES));
    let mut sectors = Vec::with_capacity(class.count as usize);
    for _ in 0..class.count {
        let mut start = end_bytes.next_multiple_of(u64::from(align_bytes));
        let last = start + u64::from(class.bytes) - 1;
        if start / PIECE_BYTES != last / PIECE_BYTES {
            start = last / PIECE_BYTES * PIECE_BYTES;
        }
        let sector = u32::try_from(start / u64::from(SECTOR_BYTES));
        sectors.push(sector.map_err(|_| ArenaError::TooLarge)?);
        *end_bytes = start + u64::from(class.bytes);
    }
    Ok(Class { bytes: class.bytes, sectors: sectors.into(), free: FreeList::full(class.count) })
}

/// A byte offset inside the mapping, which exists, so it fits.
#[inline]
fn bytes(offset_bytes: u64) -> usize {
    usize::try_from(offset_bytes).expect("the region is mapped, so its offsets are addresses")
}

/// Indices of free ranges: a lock-free stack with its links in an array made beforehand.
///
/// The head is an index plus one (0: empty) and, in the upper half, a count of changes, so that
/// a pop that was interrupted cannot succeed after others have popped and pushed (the ABA
/// problem).
#[derive(Debug)]
struct FreeList {
    head: AtomicU64,
    /// For each free index, the head it was pushed onto.
    below: Box<[AtomicU32]>,
}

impl FreeList {
    /// All of `0..count` are free, the lowest on top.
    fn full(count: u32) -> Self {
        let next = |index| if index + 1 < count { index + 2 } else { 0 };
        let below = (0..count).map(|index| AtomicU32::new(next(index))).collect();
        Self { head: AtomicU64::new(u64::from(count.min(1))), below }
    }

    #[inline]
    fn pop(&self) -> Option<u32> {
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let (top, changes) = split(head);
            let index = top.checked_sub(1)?;
            // May be stale when another thread pops `index` now; then the exchange fails.
            let below = self.below[index as usize].load(Ordering::Relaxed);
            let next = join(below, changes.wrapping_add(1));
            match self.head.compare_exchange_weak(head, next, Ordering::Acquire, Ordering::Acquire)
            {
                Ok(_) => return Some(index),
                Err(now) => head = now,
            }
        }
    }

    #[inline]
    fn push(&self, index: u32) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            let (top, changes) = split(head);
            self.below[index as usize].store(top, Ordering::Relaxed);
            let next = join(index + 1, changes.wrapping_add(1));
            // Release: whoever pops this index sees all that its former owner did to the bytes.
            match self.head.compare_exchange_weak(head, next, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }
}

#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the two halves are cut out on purpose")]
const fn split(head: u64) -> (u32, u32) {
    (head as u32, (head >> 32) as u32)
}

#[inline]
const fn join(top: u32, changes: u32) -> u64 {
    ((changes as u64) << 32) | top as u64
}

#[cfg(test)]
#[path = "pool_tests.rs"]
mod tests;
