//! The right to drive a layer: the layer itself on top of all its targets.
//!
//! Data flow: whoever waits → the layer, which sends what waits in it → the targets, in the
//! same round.
//!
//! Not here: what a layer does when it is driven (`spread`, `throttle`).

use core::cell::Cell;
use core::task::{Context, Poll};

use crate::backend::{BackendBusy, BackendHandle, Drive, IoBackend, PollingHandle};

/// As [`IoBackend::get_backend`].
pub(super) fn acquire<'a, T: IoBackend>(
    layer: &'a dyn Drive,
    taken: &'a Cell<bool>,
    targets: &'a [T],
) -> Result<Option<BackendHandle<'a>>, BackendBusy> {
    let layer = BackendHandle::acquire(layer, taken)?;
    Ok(Some(layer.over(BackendHandle::join(targets)?)))
}

/// As [`IoBackend::poll_backend`]. Only the right to one target is waited for: holding one and
/// waiting for another is how two threads wait for each other.
pub(super) fn poll_acquire<'a, T: IoBackend>(
    layer: &'a dyn Drive,
    taken: &'a Cell<bool>,
    targets: &'a [T],
    cx: &mut Context<'_>,
) -> Poll<Result<Option<BackendHandle<'a>>, BackendBusy>> {
    let [target] = targets else { return Poll::Ready(acquire(layer, taken, targets)) };
    let layer = BackendHandle::acquire(layer, taken)?;
    target.poll_backend(cx).map_ok(|below| Some(layer.over(below)))
}

/// As [`IoBackend::polling_handle`]: the only one of all targets, if it is.
pub(super) fn only_handle<T: IoBackend>(targets: &[T]) -> Option<PollingHandle<'_>> {
    let (mut number, mut only) = (0, None);
    for target in targets {
        target.polling_handles(&mut |handle| {
            number += 1;
            only = Some(handle);
        });
    }
    only.filter(|_| number == 1)
}
