//! Gives memory its pages while ops on the first of it are under way already.
//!
//! Data flow: a region, from some byte on → a thread of its own → one huge page after the other
//! (`MADV_POPULATE_WRITE`, Linux 5.14) → [`Populating::is_over`]. Registering pins pages and so
//! makes them first: the kernel finds a huge page, by moving others out of its way where memory
//! is fragmented, and zeroes it, and under a hypervisor the host does the same. Of 64 MiB that
//! takes 5 to 170 ms, which is no part of anybody's first read: the thread runs on other cores
//! than the one that its creator is bound to. Only where the process has none on the same node do
//! the two take turns.
//!
//! Not here: registering what is there then (`shard::rest`), which cores there are (`cores`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::arena::HUGE_PAGE_BYTES;
use super::cores::leave_creators_core;
use super::memory::Memory;

/// Memory that a thread makes the pages of.
#[derive(Debug)]
pub(crate) struct Populating(Arc<AtomicBool>);

impl Populating {
    /// Begins with the page of `from_bytes`. The thread ends with the last page, with the first
    /// that is not to be had, or when nobody has the memory any more. `None` where there is no
    /// thread to be had.
    pub(crate) fn start<M: Memory + ?Sized>(memory: &M, from_bytes: usize) -> Option<Self> {
        let memory = Arc::downgrade(&memory.keep());
        let over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("mfio-pages".to_owned());
        let populate = move || {
            leave_creators_core();
            let mut at = from_bytes;
            // Not kept from one page to the next: it goes when its last user does. A page at a
            // time also for whoever maps something meanwhile, and has to wait for that long.
            while memory.upgrade().is_some_and(|kept| kept.region().populate(at, HUGE_PAGE_BYTES)) {
                at += HUGE_PAGE_BYTES;
            }
            told.store(true, Ordering::Release);
        };
        thread.spawn(populate).ok().map(|_detached| Self(over))
    }

    /// Whether there are no more pages to wait for.
    pub(crate) fn is_over(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::buffer::{Arena, ArenaConfig, HugePages, SizeClass};

    fn resident_bytes(arena: &Arena) -> usize {
        let base = arena.region().base().addr();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let mut found_kib = 0;
        for line in maps.lines() {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let from = range.and_then(|(from, _)| usize::from_str_radix(from, 16).ok());
            if let Some(from) = from {
                inside = (base..base + arena.bytes()).contains(&from);
            } else if let Some(rss) = line.strip_prefix("Rss:").filter(|_| inside) {
                found_kib += rss.trim().trim_end_matches(" kB").trim().parse::<usize>().unwrap();
            }
        }
        found_kib << 10
    }

    #[test]
    fn pages_are_there_when_it_is_over_and_hold_what_was_written_meanwhile() {
        let class = SizeClass { bytes: 4096, count: (16 << 20) / 4096 };
        for huge_pages in [HugePages::Auto, HugePages::Never] {
            let arena =
                Arena::new(&ArenaConfig { huge_pages, ..ArenaConfig::new(vec![class]) }).unwrap();
            assert!(resident_bytes(&arena) <= HUGE_PAGE_BYTES);
            let populating = Populating::start(&arena, HUGE_PAGE_BYTES).unwrap();
            let mut pages: Vec<_> = std::iter::from_fn(|| arena.alloc(4096)).collect();
            for (number, page) in pages.iter_mut().enumerate() {
                page[..8].copy_from_slice(&number.to_ne_bytes());
            }
            while !populating.is_over() {
                crate::sys::pause(Duration::from_millis(1));
            }
            assert_eq!(resident_bytes(&arena), 16 << 20);
            for (number, page) in pages.iter().enumerate() {
                assert_eq!(page[..8], number.to_ne_bytes());
                assert!(page[8..].iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn it_is_over_soon_when_the_memory_has_gone() {
        let class = SizeClass { bytes: 1 << 20, count: 4096 };
        let arena = Arena::new(&ArenaConfig::new(vec![class])).unwrap();
        let populating = Populating::start(&arena, 0).unwrap();
        drop(arena);
        // All of it would be 4 GiB.
        for _ in 0..10_000 {
            if populating.is_over() {
                return;
            }
            crate::sys::pause(Duration::from_millis(1));
        }
        panic!("it still goes on");
    }
}
