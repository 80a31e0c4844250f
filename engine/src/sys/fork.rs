//! How often this process and its ancestors were forked, as `fork(3)` itself tells.
//!
//! Data flow: the first question → a handler for children (`pthread_atfork(3)`) → each child
//! counts itself before anything else runs there → a number that a child never shares with its
//! parent, whatever namespaces they are in.
//!
//! Not here: what follows from a difference (`process`).

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Changed in children only, by the handler.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// Whether there is the handler.
static COUNTED: AtomicBool = AtomicBool::new(false);

extern "C" fn count() {
    // Only such calls may be made here as a signal handler may make.
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// The same for as long as a process lives, and another one in each of its children. A child made
/// by `clone(2)` itself, past the C library, has that of its parent.
pub(crate) fn generation() -> u32 {
    // No lock, which a child could inherit taken. Two threads that come at once count each fork
    // twice, which tells child and parent apart as well.
    if !COUNTED.load(Ordering::Acquire) {
        // SAFETY: lifetime: the handler is a function of this program. Aliasing: it touches one
        // atomic. Bounds: no memory is passed.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(count)) };
        // Without memory for it, the number of the process is all there is to compare.
        COUNTED.store(refused == 0, Ordering::Release);
    }
    GENERATION.load(Ordering::Relaxed)
}
