//! A target of a limited rate, by bytes and by views.
//!
//! Data flow: view → room in the budget of the running interval? → target, or back to the
//! caller, who waits until the layer is driven in a later interval.
//!
//! Not here: a clock; the owner brings one.

use core::cell::Cell;
use core::fmt;
use core::slice;
use core::task::{Context, Poll, Waker};

use super::Target;
use super::driving;
use super::queue::Callers;
use crate::backend::{BackendBusy, BackendHandle, Drive, IoBackend, PollingHandle};
use crate::io::{PacketIo, Refused};
use crate::packet::{PacketId, Read, ReadWrite, View, Write};

/// Time for a [`Throttle`], which has none of its own.
pub trait Clock {
    /// Nanoseconds since any fixed moment. Time that runs backwards counts as standing still.
    fn now_ns(&self) -> u64;

    /// Wakes `waker` at `at_ns`, or returns false: then whoever drives the layer polls it in
    /// a loop for as long as somebody waits for the budget.
    fn wake_at(&self, at_ns: u64, waker: &Waker) -> bool {
        let _ = (at_ns, waker);
        false
    }
}

/// What may pass in each interval, all directions together. The bytes of an exchange count
/// twice, once for each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Bytes; `u64::MAX` is no limit.
    pub bytes: u64,
    /// Views; `u64::MAX` is no limit.
    pub ops: u64,
    /// Length of an interval in nanoseconds.
    pub interval_ns: u64,
}

/// A target that accepts views at a limited [`Rate`] and refuses what is above it.
///
/// A view passes whole while anything of the budget is left. What it takes beyond the budget
/// is taken from the following intervals, so that large views pass, and the rate holds in the
/// long run. Budget that is not used is not saved up.
///
/// Only what waits in the layer's callers is delayed: the layer queues nothing itself.
pub struct Throttle<T, C> {
    target: T,
    clock: C,
    rate: Rate,
    interval_start_ns: Cell<u64>,
    /// Bytes and views taken from the running interval, and from following ones.
    spent: Cell<(u64, u64)>,
    /// Views that may pass because they were promised to.
    promised: Cell<usize>,
    callers: Callers,
    driven: Cell<bool>,
}

impl<T, C: Clock> Throttle<T, C> {
    /// Limits what `target` gets to `rate`, by `clock`.
    ///
    /// # Panics
    /// If a limit or the interval is 0: nothing would ever pass.
    #[must_use]
    pub fn new(target: T, rate: Rate, clock: C) -> Self {
        assert!(rate.bytes > 0 && rate.ops > 0, "a rate at which nothing passes");
        assert!(rate.interval_ns > 0, "an interval without length");
        Self {
            target,
            interval_start_ns: Cell::new(clock.now_ns()),
            clock,
            rate,
            spent: Cell::new((0, 0)),
            promised: Cell::new(0),
            callers: Callers::default(),
            driven: Cell::new(false),
        }
    }

    /// The target below.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.target
    }

    /// Whether anything of the budget is left now.
    fn has_budget(&self) -> bool {
        let elapsed_ns = self.clock.now_ns().saturating_sub(self.interval_start_ns.get());
        let intervals = elapsed_ns / self.rate.interval_ns;
        let (mut bytes, mut ops) = self.spent.get();
        if intervals > 0 {
            // At most the elapsed time, so this cannot overflow.
            let begun_ns = intervals * self.rate.interval_ns;
            self.interval_start_ns.set(self.interval_start_ns.get() + begun_ns);
            bytes = bytes.saturating_sub(self.rate.bytes.saturating_mul(intervals));
            ops = ops.saturating_sub(self.rate.ops.saturating_mul(intervals));
            self.spent.set((bytes, ops));
        }
        bytes < self.rate.bytes && ops < self.rate.ops
    }

    /// Whether a view that moves `len` bytes may pass; counted as passed if so.
    fn take(&self, len: u64) -> bool {
        let promised = self.promised.get();
        if promised == 0 && !self.has_budget() {
            return false;
        }
        self.promised.set(promised.saturating_sub(1));
        let (bytes, ops) = self.spent.get();
        self.spent.set((bytes.saturating_add(len), ops.saturating_add(1)));
        true
    }

    /// The target had no room for a view that had passed.
    fn give_back(&self, len: u64) {
        let (bytes, ops) = self.spent.get();
        self.spent.set((bytes.saturating_sub(len), ops.saturating_sub(1)));
    }
}

macro_rules! packet_io {
    ($direction:ident, $ways:literal, [$($bound:tt)*]) => {
        impl<T: $($bound)*, C: Clock> PacketIo<$direction, u64> for Throttle<T, C> {
            fn send_io(
                &self,
                param: u64,
                view: View<$direction>,
            ) -> Result<(), Refused<$direction>> {
                let len = view.len().saturating_mul($ways);
                if !self.take(len) {
                    return Err(Refused { param, view });
                }
                let sent = self.target.send_io(param, view);
                if sent.is_err() {
                    self.give_back(len);
                }
                sent
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                if self.promised.get() == 0 && !self.has_budget() {
                    self.callers.add(cx.waker());
                    return Poll::Pending;
                }
                PacketIo::<$direction, u64>::poll_ready(&self.target, cx)
            }

            fn reserve(&self, views: usize) -> bool {
                let granted =
                    self.has_budget() && PacketIo::<$direction, u64>::reserve(&self.target, views);
                if granted {
                    self.promised.set(self.promised.get().saturating_add(views));
                }
                granted
            }

            fn release(&self, views: usize) {
                self.promised.set(self.promised.get().saturating_sub(views));
                PacketIo::<$direction, u64>::release(&self.target, views);
            }

            fn abandon(&self, packet: PacketId) {
                PacketIo::<$direction, u64>::abandon(&self.target, packet);
            }
        }
    };
}

packet_io!(Read, 1, [Target]);
packet_io!(Write, 1, [Target]);
packet_io!(ReadWrite, 2, [Target + PacketIo<ReadWrite, u64>]);

impl<T: Target, C: Clock> Drive for Throttle<T, C> {
    fn poll_drive(&self, cx: &mut Context<'_>) {
        if self.callers.is_empty() {
            return;
        }
        if self.has_budget() {
            self.callers.wake();
            return;
        }
        let next_ns = self.interval_start_ns.get().saturating_add(self.rate.interval_ns);
        if !self.clock.wake_at(next_ns, cx.waker()) {
            cx.waker().wake_by_ref();
        }
    }
}

impl<T: Target, C: Clock> IoBackend for Throttle<T, C> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        driving::only_handle(slice::from_ref(&self.target))
    }

    fn polling_handles<'a>(&'a self, add: &mut dyn FnMut(PollingHandle<'a>)) {
        self.target.polling_handles(add);
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        driving::acquire(self, &self.driven, slice::from_ref(&self.target))
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        driving::poll_acquire(self, &self.driven, slice::from_ref(&self.target), cx)
    }

    fn stop_waiting(&self, waker: &Waker) {
        self.target.stop_waiting(waker);
    }
}

impl<T: fmt::Debug, C> fmt::Debug for Throttle<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, rate) = (&self.target, &self.rate);
        f.debug_struct("Throttle").field("rate", rate).field("target", target).finish()
    }
}
