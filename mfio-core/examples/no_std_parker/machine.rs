//! The part that knows neither `std` nor threads: device, interrupt line, parker.
//!
//! Data flow: [`Device::send_io`](PacketIo::send_io) → `park` → interrupt → `poll_event` wakes
//! → `poll_drive` completes.
//!
//! Not here: the entry point, which differs between a host and a bare machine.

extern crate alloc;

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use mfio_core::backend::{Park, PollSource, Pollable};
use mfio_core::{
    BackendBusy, BackendHandle, Drive, IoBackend, IoRead, PacketIo, PollingHandle, Read, Refused,
    View, block_on_with,
};

/// A device that fills one read for each interrupt.
#[derive(Default)]
struct Device {
    queue: RefCell<VecDeque<View<Read>>>,
    line: Line,
    claim: Cell<bool>,
}

/// Its interrupt line.
#[derive(Default)]
struct Line {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Line {
    fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Pollable for Line {
    fn poll_event(&self, cx: &mut Context<'_>, _readable: bool, _writable: bool) -> Poll<()> {
        if self.raised.get() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl PacketIo<Read, u64> for Device {
    fn send_io(&self, _at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.queue.borrow_mut().push_back(view);
        Ok(())
    }
}

impl Drive for Device {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        if !self.line.raised.replace(false) {
            return;
        }
        // Taken out first: completing wakes, and the woken may send again.
        let next = self.queue.borrow_mut().pop_front();
        if let Some(mut view) = next {
            for at in 0..view.len() {
                view.write_at(at, &[0x5a]);
            }
            view.filled();
        }
    }
}

impl IoBackend for Device {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        let source = PollSource::Custom(&self.line);
        Some(PollingHandle { source, readable: true, writable: false })
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.claim).map(Some)
    }
}

/// Waits for interrupts.
struct Machine<'a> {
    device: &'a Device,
    woken: Arc<Woken>,
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Park for Machine<'_> {
    fn park(&self) {
        while !self.woken.0.swap(false, Ordering::Acquire) {
            // Here a machine executes `wfi`, and the interrupt handler does this:
            self.device.line.raise();
        }
    }

    fn unparker(&self) -> Waker {
        Waker::from(Arc::clone(&self.woken))
    }
}

/// Reads eight bytes, then once more as one value.
///
/// # Panics
/// Never: the device drives and completes everything.
pub(crate) fn run() -> [u8; 8] {
    let device = Device::default();
    let parker = Machine { device: &device, woken: Arc::default() };
    let read = async {
        let (result, bytes) = device.read_exact(0, vec![0; 8]).await;
        assert_eq!(result, Ok(()));
        let value = device.read_value::<u64>(0).await.expect("the device never fails");
        assert_eq!(bytes, value.to_ne_bytes());
        value.to_ne_bytes()
    };
    block_on_with(&device, &parker, read).expect("nobody else drives the device")
}
