//! Recycles packet headers, so that a warm program makes packets without allocating.
//!
//! Data flow: freed header → the freeing thread's list → the next packet made there. Without
//! `std` there are no thread-local lists, and one small shared table serves all threads.
//!
//! Not here: emptying a header before it comes here (`raw`).

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::raw::Header;

/// Headers kept (about 200 bytes each), per thread with `std`; more go to the allocator.
const KEPT_MAX: usize = 1024;

/// Each header keeps its address, hence the boxes.
#[allow(clippy::vec_box, reason = "a header's address is known to others")]
type Free = Vec<Box<Header>>;

/// A header in its initial state.
pub(super) fn take() -> Box<Header> {
    with_free(Vec::pop).flatten().unwrap_or_else(|| Box::new(Header::new()))
}

/// Keeps an emptied header for later.
pub(super) fn put_back(header: Box<Header>) {
    let mut header = Some(header);
    with_free(|free| {
        if free.len() < KEPT_MAX {
            free.extend(header.take());
        }
    });
    // What was not kept is freed here, outside the list.
    drop(header);
}

/// `None` while the thread ends and its list is gone.
#[cfg(all(feature = "std", not(all(test, mfio_loom))))]
fn with_free<R>(look: impl FnOnce(&mut Free) -> R) -> Option<R> {
    use core::cell::RefCell;

    std::thread_local! {
        static FREE: RefCell<Free> = const { RefCell::new(Vec::new()) };
    }
    FREE.try_with(|free| look(&mut free.borrow_mut())).ok()
}

/// One short list for all threads.
#[cfg(all(not(feature = "std"), not(all(test, mfio_loom))))]
#[allow(clippy::unnecessary_wraps, reason = "the std twin can fail")]
fn with_free<R>(look: impl FnOnce(&mut Free) -> R) -> Option<R> {
    static FREE: super::raw::SpinLock<Free> = super::raw::SpinLock::new(Vec::new());
    Some(FREE.with(look))
}

/// Loom runs a model many times over, and no header may outlive its run.
#[cfg(all(test, mfio_loom))]
fn with_free<R>(_look: impl FnOnce(&mut Free) -> R) -> Option<R> {
    None
}
