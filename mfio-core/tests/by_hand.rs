//! Wakers made by hand: to clone and to drop one may run anything, unlike with `Wake`.
#![allow(unsafe_code, reason = "makes a waker whose clones are counted by nobody")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};
use std::thread;

use mfio_core::backend::{Claim, Turn};
use mfio_core::{BackendHandle, Drive};

static TURN: LazyLock<Turn> = LazyLock::new(Turn::new);
static PANICS: AtomicBool = AtomicBool::new(false);
static CALLS: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, dropped);

/// Whoever has the turn leaves meanwhile.
fn clone(_: *const ()) -> RawWaker {
    TURN.release();
    PANICS.store(true, Ordering::SeqCst);
    RawWaker::new(null(), &CALLS)
}

fn nothing(_: *const ()) {}

fn dropped(_: *const ()) {
    assert!(!PANICS.swap(false, Ordering::SeqCst), "a waker: this panic belongs to the test");
}

struct Nothing;

impl Drive for Nothing {
    fn poll_drive(&self, _cx: &mut Context<'_>) {}
}

/// The turn is free at the second look; the waker that was cloned in vain panics as it goes.
#[test]
fn turn_is_given_back_where_a_waker_panics_as_it_is_dropped() {
    assert!(thread::spawn(|| TURN.try_claim()).join().unwrap());
    // SAFETY: the functions ask nothing of the data, and may be called by any thread.
    let waker = unsafe { Waker::new(null(), &CALLS) };
    let acquired = catch_unwind(AssertUnwindSafe(|| {
        TURN.poll_acquire(&Nothing, &mut Context::from_waker(&waker)).is_ready()
    }));
    assert!(acquired.is_err(), "the waker panics");
    drop(BackendHandle::acquire(&Nothing, &*TURN).unwrap());
}
