//! A target that fails where it is told to: for tests of partial success.
//!
//! Data flow: view → the rule's verdicts, one after another from its start → the parts that
//! pass go to the target, the others fail.
//!
//! Not here: faults inside the target; see the engine's simulation for those.

use alloc::vec;
use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::task::{Context, Poll, Waker};

use super::Target;
use super::queue::Lane;
use super::spread::{PIECES_MAX, Piece, Route, Spread};
use crate::backend::{BackendBusy, BackendHandle, IoBackend, PollingHandle};
use crate::error::Error;
use crate::io::{PacketIo, Refused};
use crate::packet::{PacketId, Read, ReadWrite, View, Write};

/// The most verdicts that count; what is behind them passes.
pub const VERDICTS_MAX: usize = PIECES_MAX - 1;

/// A view that a [`Fault`] layer was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The packet is to be filled: a read, or an exchange.
    pub is_read: bool,
    /// The target is to be changed: a write, or an exchange.
    pub is_write: bool,
    /// First byte on the target.
    pub at: u64,
    /// Length in bytes; may reach beyond what a `u64` counts.
    pub len: u64,
}

/// What becomes of the next bytes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This many bytes are left to the target.
    Pass(u64),
    /// This many bytes fail without reaching the target.
    Fail(u64, Error),
}

/// The address space of the target itself.
#[derive(Clone, Copy, Debug)]
struct Straight;

impl Route for Straight {
    fn first_piece(&self, at: u64, len: u64) -> Piece {
        Piece::On { target: 0, at, len }
    }
}

/// A target whose views fail, as a whole or in part, as a rule decides.
///
/// The rule is asked once for every view that is accepted, when it is. Bytes that no verdict
/// covers pass; verdicts beyond the end are cut off.
///
/// ```
/// use mfio_core::layer::fault::{Fault, Request, Verdict};
/// use mfio_core::{Error, IoRead, block_on, mem::Mem};
/// // Reads are short: four bytes at most.
/// let rule = |request: Request| match request {
///     Request { is_read: true, len, .. } if len > 4 => {
///         vec![Verdict::Pass(4), Verdict::Fail(len - 4, Error::os(5))]
///     }
///     _ => vec![],
/// };
/// let fault = Fault::new(Mem::from(b"all or some".to_vec()), rule);
/// let (len, error, _) = block_on(&fault, fault.read_some(0, vec![0; 11])).unwrap();
/// assert_eq!((len, error), (4, Some(Error::os(5))));
/// ```
pub struct Fault<T, F> {
    rule: F,
    /// Queues the parts that the target has no room for.
    below: Spread<T, Straight>,
    /// Views that were promised room, by direction.
    reads_promised: Cell<usize>,
    writes_promised: Cell<usize>,
    exchanges_promised: Cell<usize>,
}

impl<T: Target, F: Fn(Request) -> Vec<Verdict>> Fault<T, F> {
    /// Puts `rule` before `target`.
    #[must_use]
    pub fn new(target: T, rule: F) -> Self {
        let below = Spread::over(vec![target], Straight);
        let (reads_promised, writes_promised, exchanges_promised) = Default::default();
        Self { rule, below, reads_promised, writes_promised, exchanges_promised }
    }

    /// The target below.
    ///
    /// # Panics
    /// Never: there is one.
    #[must_use]
    pub fn target(&self) -> &T {
        &self.below.targets()[0]
    }
}

macro_rules! packet_io {
    ($direction:ident, $lane:ident, $promised:ident, $ways:expr, [$($bound:tt)*]) => {
        impl<T, F> PacketIo<$direction, u64> for Fault<T, F>
        where
            T: $($bound)*,
            F: Fn(Request) -> Vec<Verdict>,
        {
            fn send_io(
                &self,
                param: u64,
                view: View<$direction>,
            ) -> Result<(), Refused<$direction>> {
                let lane: &Lane<$direction> = &self.below.$lane;
                let promised = self.$promised.get();
                // Room for every part that the rule may make, before it is asked.
                if promised > 0 {
                    self.$promised.set(promised - 1);
                } else if !(self.below.is_clear(lane) && lane.promise(PIECES_MAX)) {
                    return Err(Refused { param, view });
                }
                let (mut at, mut rest, mut sent) = (param, Some(view), 0);
                let (is_read, is_write) = $ways;
                let request = |view: &View<_>| Request { is_read, is_write, at, len: view.len() };
                let verdicts = rest.as_ref().map(|view| (self.rule)(request(view)));
                for verdict in verdicts.into_iter().flatten().take(VERDICTS_MAX) {
                    let Some(view) = rest.take() else { break };
                    let (Verdict::Pass(len) | Verdict::Fail(len, _)) = verdict;
                    if view.is_empty() || len == 0 {
                        rest = Some(view);
                        continue;
                    }
                    let part = if len < view.len() {
                        let (part, after) = view.split_at(len);
                        rest = Some(after);
                        part
                    } else {
                        view
                    };
                    match verdict {
                        Verdict::Fail(_, error) => part.fail(error),
                        Verdict::Pass(_) => {
                            sent += 1;
                            drop(self.below.send_io(at, part));
                        }
                    }
                    // Saturated, what follows is out of every target's range as it should be.
                    at = at.saturating_add(len);
                }
                if let Some(view) = rest {
                    sent += 1;
                    drop(self.below.send_io(at, view));
                }
                lane.redeem(PIECES_MAX - sent);
                Ok(())
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                PacketIo::<$direction, u64>::poll_ready(&self.below, cx)
            }

            fn reserve(&self, views: usize) -> bool {
                let parts = views.saturating_mul(PIECES_MAX);
                let granted = PacketIo::<$direction, u64>::reserve(&self.below, parts);
                if granted {
                    self.$promised.set(self.$promised.get() + views);
                }
                granted
            }

            fn release(&self, views: usize) {
                let views = views.min(self.$promised.get());
                self.$promised.set(self.$promised.get() - views);
                let parts = views.saturating_mul(PIECES_MAX);
                PacketIo::<$direction, u64>::release(&self.below, parts);
            }

            fn abandon(&self, packet: PacketId) {
                PacketIo::<$direction, u64>::abandon(&self.below, packet);
            }
        }
    };
}

packet_io!(Read, reads, reads_promised, (true, false), [Target]);
packet_io!(Write, writes, writes_promised, (false, true), [Target]);
packet_io!(
    ReadWrite,
    exchanges,
    exchanges_promised,
    (true, true),
    [Target + PacketIo<ReadWrite, u64>]
);

impl<T: Target, F> IoBackend for Fault<T, F> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.below.polling_handle()
    }

    fn polling_handles<'a>(&'a self, add: &mut dyn FnMut(PollingHandle<'a>)) {
        self.below.polling_handles(add);
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.below.get_backend()
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        self.below.poll_backend(cx)
    }

    fn stop_waiting(&self, waker: &Waker) {
        self.below.stop_waiting(waker);
    }
}

impl<T: fmt::Debug, F> fmt::Debug for Fault<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("below", &self.below).finish_non_exhaustive()
    }
}
