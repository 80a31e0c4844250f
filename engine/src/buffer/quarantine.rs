//! Turns memory that the kernel may still write to into memory that is never freed.
//!
//! Data flow: a slot that could not be drained → [`quarantine`] → leaked for good, counted.
//! Dropping a ring, cancelling and unregistering give nothing back; only the target CQE does
//! (F02, F03). When it cannot be waited for, leaking is the one sound way out.
//!
//! What a forked child inherits is left alone in the same way.
//!
//! Not here: how long a shutdown waits before it gives up (`shard`), who prints the count.

use std::sync::atomic::{AtomicU64, Ordering};

/// Buffers given up since the process started.
static QUARANTINED: AtomicU64 = AtomicU64::new(0);

/// Gives up `value`, which holds `count` buffers that ops in flight may still touch.
///
/// The memory is never freed and never reused. `what` says whose it was, for a debugger: it is
/// kept beside the leaked value.
pub(crate) fn quarantine<T>(value: T, what: &'static str, count: usize) {
    QUARANTINED.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    leak(Box::new((what, value)));
}

/// Gives up what a forked child has inherited and cannot take down: it belongs to the parent, who
/// takes down its own (F26).
pub(crate) fn leave_to_parent<T>(inherited: T) {
    leak(Box::new(inherited));
}

#[allow(clippy::mem_forget, reason = "the one deliberate leak: the kernel may still write here")]
fn leak<T>(value: Box<T>) {
    std::mem::forget(value);
}

/// How many buffers this process has given up because their ops could not be drained.
///
/// Anything but 0 means that a shutdown took too long or a ring broke, and that this much
/// memory will not come back before the process ends.
#[must_use]
pub fn quarantined() -> u64 {
    QUARANTINED.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn f02_quarantined_value_is_never_dropped_and_is_counted() {
        let witness = Arc::new(());
        let before = quarantined();
        quarantine(vec![Arc::clone(&witness), Arc::clone(&witness)], "test", 2);
        assert!(quarantined() >= before + 2, "others may give up some too");
        assert_eq!(Arc::strong_count(&witness), 3);
    }
}
