//! A value that is read or written in place, inside a pinned future.
//!
//! The backend never learns the address: bytes are copied under the header's lock, and when
//! the future is dropped the address is revoked first. Data flow: value ↔ header's lock ↔ hold.
//!
//! Not here: the futures around it (`crate::traits`).
#![allow(unsafe_code, reason = "lends the address of a pinned value to the header")]

use core::cell::UnsafeCell;
use core::marker::PhantomPinned;
use core::mem::size_of;
use core::pin::Pin;
use core::task::{Context, Poll};

use bytemuck::Pod;

use super::{Handle, Hold};

/// A plain value and, while it is under way, the packet that names it.
pub(crate) struct StackValue<T: Pod> {
    value: UnsafeCell<T>,
    handle: Option<Handle>,
    _pinned: PhantomPinned,
}

// SAFETY: the value is touched by others only through the header's lock, and by this type
// only when nothing is under way.
unsafe impl<T: Pod + Send> Send for StackValue<T> {}

impl<T: Pod> StackValue<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: UnsafeCell::new(value), handle: None, _pinned: PhantomPinned }
    }

    fn handle(self: Pin<&mut Self>) -> &mut Option<Handle> {
        // SAFETY: the handle is not pinned structurally; the value stays where it is.
        unsafe { &mut self.get_unchecked_mut().handle }
    }

    /// One hold over the bytes of the value.
    pub(crate) fn arm(self: Pin<&mut Self>, writable: bool, cx: &Context<'_>) -> Hold {
        let at: *mut u8 = self.value.get().cast();
        let mut handle = Handle::new();
        // SAFETY: `T: Pod` is `size_of::<T>()` initialised bytes, any of which may be
        // overwritten; pinned, so they stay there until `drop`, which revokes first.
        let hold = unsafe { handle.arm_stack(at, size_of::<T>(), writable) };
        handle.arm_waker(&hold, cx.waker());
        *self.handle() = Some(handle);
        hold
    }

    /// Ready, with the handle and its results, when nothing is under way any more.
    pub(crate) fn poll_done(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Handle> {
        let slot = self.as_mut().handle();
        let handle = slot.as_mut().expect("armed before it is polled");
        match handle.poll_idle(cx) {
            Poll::Ready(()) => Poll::Ready(slot.take().expect("looked at just now")),
            Poll::Pending => Poll::Pending,
        }
    }

    /// As `poll_done`, when the waker of `arm` is still the caller's.
    pub(crate) fn poll_armed(mut self: Pin<&mut Self>) -> Poll<Handle> {
        let slot = self.as_mut().handle();
        let handle = slot.as_mut().expect("armed before it is polled");
        match handle.poll_armed() {
            Poll::Ready(()) => Poll::Ready(slot.take().expect("looked at just now")),
            Poll::Pending => Poll::Pending,
        }
    }

    /// The value, when nothing is under way.
    pub(crate) fn get(&self) -> T {
        assert!(self.handle.is_none(), "the value is still being transferred");
        // SAFETY: nothing is under way, so nobody writes.
        unsafe { *self.value.get() }
    }
}

impl<T: Pod> Drop for StackValue<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.revoke();
        }
    }
}
