//! The allocator of tests that allocate nothing: the system's, which counts for each thread and
//! for the process.
//!
//! Data flow: allocation → both counts → [`of_thread`], [`OF_PROCESS`]; and, where [`NAMED`] was
//! set, a backtrace of the next one of the thread.
#![allow(unsafe_code, reason = "an allocator is unsafe by its trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of all threads so far.
pub(crate) static OF_PROCESS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static OF_THREAD: Cell<u64> = const { Cell::new(0) };
    /// Whether the next allocation of the calling thread is to say where it comes from.
    pub(crate) static NAMED: Cell<bool> = const { Cell::new(false) };
}

/// Allocations of the calling thread so far.
pub(crate) fn of_thread() -> u64 {
    OF_THREAD.get()
}

/// Counts one more; a thread that is ending has nobody to count for.
fn count() {
    OF_PROCESS.fetch_add(1, Ordering::Relaxed);
    OF_THREAD.try_with(|count| count.set(count.get() + 1)).ok();
    if NAMED.try_with(|named| named.replace(false)) == Ok(true) {
        let from = std::backtrace::Backtrace::force_capture();
        writeln!(std::io::stderr().lock(), "an allocation where there should be none:\n{from}")
            .ok();
    }
}

// SAFETY: every call is handed to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}
