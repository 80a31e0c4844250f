//! The bytes of one file: pages that exist, zeros elsewhere.
//!
//! Data flow: offset and slice → pages → slice. Pages are counted against the capacity of the
//! file system before they are made.
//!
//! Not here: who may read (`file`), times and names (`inode`, `names`).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::lock::Lock;

/// Bytes in a page: what is stored or not, as a whole.
pub(super) const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

/// What is taken of the capacity of a file system.
pub(super) struct Usage {
    pub(super) pages: u64,
    pub(super) pages_max: u64,
    pub(super) nodes: u64,
    pub(super) nodes_max: u64,
}

impl Usage {
    pub(super) fn take_node(&mut self) -> bool {
        let fits = self.nodes < self.nodes_max;
        self.nodes += u64::from(fits);
        fits
    }

    pub(super) fn take_page(&mut self) -> bool {
        let fits = self.pages < self.pages_max;
        self.pages += u64::from(fits);
        fits
    }
}

type Page = Box<[u8; PAGE_BYTES]>;

pub(super) struct Sparse {
    pages: BTreeMap<u64, Page>,
    len: u64,
    usage: Arc<Lock<Usage>>,
}

/// The capacity is used up.
pub(super) struct Full;

/// Where in its page an offset is.
fn within(at: u64) -> usize {
    usize::try_from(at % PAGE).unwrap_or(0)
}

impl Sparse {
    pub(super) fn new(usage: Arc<Lock<Usage>>) -> Self {
        Self { pages: BTreeMap::new(), len: 0, usage }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn allocated_bytes(&self) -> u64 {
        self.pages.len() as u64 * PAGE
    }

    /// Copies what exists of `to.len()` bytes at `at`; how many those are.
    pub(super) fn read(&self, at: u64, to: &mut [u8]) -> usize {
        let existing = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let existing = existing.min(to.len());
        let mut done = 0;
        while done < existing {
            let from = at + done as u64;
            let offset = within(from);
            let many = (PAGE_BYTES - offset).min(existing - done);
            let target = &mut to[done..done + many];
            match self.pages.get(&(from / PAGE)) {
                Some(page) => target.copy_from_slice(&page[offset..offset + many]),
                None => target.fill(0),
            }
            done += many;
        }
        existing
    }

    /// Copies `from` to `at`, growing as needed; how many bytes were taken before it was full.
    pub(super) fn write(&mut self, at: u64, from: &[u8]) -> Result<(), (usize, Full)> {
        let mut done = 0;
        while done < from.len() {
            let to = at + done as u64;
            let offset = within(to);
            let many = (PAGE_BYTES - offset).min(from.len() - done);
            let Some(page) = self.page_mut(to / PAGE) else { return Err((done, Full)) };
            page[offset..offset + many].copy_from_slice(&from[done..done + many]);
            done += many;
            self.len = self.len.max(to + many as u64);
        }
        Ok(())
    }

    fn page_mut(&mut self, number: u64) -> Option<&mut Page> {
        use alloc::collections::btree_map::Entry;
        match self.pages.entry(number) {
            Entry::Occupied(page) => Some(page.into_mut()),
            Entry::Vacant(place) => {
                let taken = self.usage.with(Usage::take_page);
                taken.then(|| place.insert(Box::new([0; PAGE_BYTES])))
            }
        }
    }

    /// Cuts, or grows by a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.zero(len, self.len.next_multiple_of(PAGE) - len);
        }
        self.len = len;
    }

    /// Makes `len` bytes at `at` zeros, giving back the pages that lie inside; the length
    /// stays.
    pub(super) fn zero(&mut self, at: u64, len: u64) {
        let end = at.saturating_add(len);
        let first_whole = at.div_ceil(PAGE);
        let end_whole = end / PAGE;
        if first_whole < end_whole {
            let mut inside = self.pages.split_off(&first_whole);
            let mut after = inside.split_off(&end_whole);
            self.pages.append(&mut after);
            self.give_back(inside.len());
        }
        for (number, page) in self.pages.range_mut(at / PAGE..=end_whole) {
            let start = at.saturating_sub(number * PAGE).min(PAGE);
            let stop = end.saturating_sub(number * PAGE).min(PAGE);
            let bounds = (usize::try_from(start), usize::try_from(stop));
            if let (Ok(start), Ok(stop)) = bounds
                && start < stop
            {
                page[start..stop].fill(0);
            }
        }
    }

    /// Makes all pages of a range exist.
    pub(super) fn allocate(&mut self, at: u64, len: u64) -> Result<(), Full> {
        if len == 0 {
            return Ok(());
        }
        let pages = at / PAGE..=(at + len - 1) / PAGE;
        let wanted = pages.end() - pages.start() + 1;
        let existing = self.pages.range(pages.clone()).count() as u64;
        // Before anything is made: a range that cannot fit leaves everything as it was.
        let fits = self.usage.with(|usage| wanted - existing <= usage.pages_max - usage.pages);
        if !fits {
            return Err(Full);
        }
        let mut made = Vec::new();
        for number in pages {
            let existed = self.pages.contains_key(&number);
            if self.page_mut(number).is_none() {
                for number in made {
                    self.pages.remove(&number);
                    self.give_back(1);
                }
                return Err(Full);
            }
            if !existed {
                made.push(number);
            }
        }
        Ok(())
    }

    fn give_back(&self, pages: usize) {
        self.usage.with(|usage| usage.pages -= pages as u64);
    }
}

impl Drop for Sparse {
    fn drop(&mut self) {
        self.give_back(self.pages.len());
    }
}
