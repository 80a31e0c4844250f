//! Spreads views over targets as a [`Route`] tells: what all address layers are made of.
//!
//! Data flow: view → the route's pieces, split off one by one → targets. What they have no
//! room for waits in a lane and goes down when the layer is driven.
//!
//! Not here: the address layers' arithmetic (`map`, `stripe`, `concat`, `window`).

use alloc::vec::Vec;
use core::cell::Cell;
use core::fmt;
use core::task::{Context, Poll, Waker};

use super::Target;
use super::driving;
pub use super::queue::WAITING_MAX;
use super::queue::{Direction, Lane, Rest};
use crate::backend::{BackendBusy, BackendHandle, Drive, IoBackend, PollingHandle};
use crate::error::ErrorKind;
use crate::io::{PacketIo, Refused};
use crate::packet::{PacketId, Read, ReadWrite, View, Write};

/// The most pieces that one `send_io`, or one drive, makes of what it finds: a view of very
/// many pieces does not hold up its sender.
pub const PIECES_MAX: usize = 16;

/// Where the first bytes of a range are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// On a target. A `len` of 0 counts as 1, and more than was asked for as all of it.
    On {
        /// Index of the target.
        target: usize,
        /// Byte offset there.
        at: u64,
        /// How many bytes are there in a row.
        len: u64,
    },
    /// Nowhere: this many bytes, at least 1, fail as [`ErrorKind::OutOfRange`], and what
    /// follows has a place again.
    Hole {
        /// Length in bytes.
        len: u64,
    },
    /// Behind the end, with everything that follows. Reads fail as
    /// [`ErrorKind::UnexpectedEof`], writes and exchanges as [`ErrorKind::OutOfRange`].
    End,
}

/// Which bytes are where. Pure: asked for the same range, it gives the same answer.
///
/// ```
/// use mfio_core::layer::spread::{Piece, Route, Spread};
/// use mfio_core::{IoRead, block_on, mem::Mem};
///
/// /// The bytes of the target, last one first.
/// struct Backwards(u64);
///
/// impl Route for Backwards {
///     fn first_piece(&self, at: u64, _len: u64) -> Piece {
///         match self.0.checked_sub(at + 1) {
///             Some(at) => Piece::On { target: 0, at, len: 1 },
///             None => Piece::End,
///         }
///     }
/// }
///
/// let layer = Spread::over(vec![Mem::from(b"drawer".to_vec())], Backwards(6));
/// let (result, bytes) = block_on(&layer, layer.read_exact(0, vec![0; 6])).unwrap();
/// assert_eq!((result, &bytes[..]), (Ok(()), &b"reward"[..]));
/// ```
pub trait Route {
    /// The first piece of the `len` bytes, at least one, from byte `at` on. `at + len` may be
    /// more than a `u64` holds.
    fn first_piece(&self, at: u64, len: u64) -> Piece;
}

/// One target made of several, as a [`Route`] tells.
///
/// Views of one piece pass through: refused below, they are refused here. Of others at most
/// one waits in each direction, besides those that [`PacketIo::reserve`] made room for, which
/// are [`WAITING_MAX`] at the most.
///
/// # Cancel safety
/// What has not been sent to a target when its packet is abandoned fails as
/// [`ErrorKind::Cancelled`]; what waits when the layer is dropped, as
/// [`ErrorKind::Aborted`].
pub struct Spread<T, R> {
    targets: Vec<T>,
    route: R,
    pub(super) reads: Lane<Read>,
    pub(super) writes: Lane<Write>,
    pub(super) exchanges: Lane<ReadWrite>,
    /// What drives `exchanges`. Set by the first, because only then is it known that the
    /// targets take them.
    drive_exchanges: Cell<Option<DriveLane<T, R>>>,
    driven: Cell<bool>,
}

type DriveLane<T, R> = fn(&Spread<T, R>, &mut Context<'_>);

/// Why the sending of a lane ended.
enum Ended {
    /// Nothing waits any more.
    Empty,
    /// The target of this index has no room.
    Full(usize),
    /// [`PIECES_MAX`] have been sent.
    Enough,
}

impl<T, R: Route> Spread<T, R> {
    /// A layer over `targets`, which `route` names by their index.
    #[must_use]
    pub fn over(targets: Vec<T>, route: R) -> Self {
        Self {
            targets,
            route,
            reads: Lane::new(),
            writes: Lane::new(),
            exchanges: Lane::new(),
            drive_exchanges: Cell::new(None),
            driven: Cell::new(false),
        }
    }

    /// The targets below.
    #[must_use]
    pub fn targets(&self) -> &[T] {
        &self.targets
    }

    /// The route.
    #[must_use]
    pub fn route(&self) -> &R {
        &self.route
    }

    pub(super) fn is_clear<P: Direction>(&self, lane: &Lane<P>) -> bool
    where
        T: PacketIo<P, u64>,
    {
        self.send_rests(lane);
        lane.is_clear()
    }

    fn send<P: Direction>(&self, lane: &Lane<P>, at: u64, view: View<P>) -> Result<(), Refused<P>>
    where
        T: PacketIo<P, u64>,
    {
        let promised = lane.redeem(1);
        if view.is_empty() {
            P::complete(view);
            return Ok(());
        }
        if !self.is_clear(lane) {
            if !promised {
                return Err(Refused { param: at, view });
            }
            lane.push_back(Rest { at, view });
            return Ok(());
        }
        if let Piece::On { target, at: there, len } = self.route.first_piece(at, view.len())
            && len >= view.len()
            && let Some(target) = self.targets.get(target)
        {
            let Err(refused) = target.send_io(there, view) else { return Ok(()) };
            let view = refused.view;
            if !promised {
                return Err(Refused { param: at, view });
            }
            lane.push_back(Rest { at, view });
        } else {
            lane.push_back(Rest { at, view });
            self.send_rests(lane);
        }
        Ok(())
    }

    /// Sends what waits, oldest first, and says why no more.
    fn send_rests<P: Direction>(&self, lane: &Lane<P>) -> Ended
    where
        T: PacketIo<P, u64>,
    {
        if lane.is_empty() {
            return Ended::Empty;
        }
        // Whoever is sending already goes on when this returns.
        let Some(_sending) = lane.start_sending() else { return Ended::Empty };
        for _ in 0..PIECES_MAX {
            let Some(rest) = lane.pop_front() else { return Ended::Empty };
            match self.send_piece(rest) {
                Ok(None) => {}
                Ok(Some(rest)) => lane.push_front(rest),
                Err((rest, target)) => {
                    lane.push_front(rest);
                    return Ended::Full(target);
                }
            }
        }
        Ended::Enough
    }

    /// Sends the first piece and gives back what follows it. All of it comes back, with the
    /// index of the target that has no room, if that is so.
    fn send_piece<P: Direction>(&self, rest: Rest<P>) -> Result<Option<Rest<P>>, (Rest<P>, usize)>
    where
        T: PacketIo<P, u64>,
    {
        let Rest { at, view } = rest;
        let piece = self.route.first_piece(at, view.len());
        let (len, place) = match piece {
            Piece::On { target, at: there, len } => match self.targets.get(target) {
                Some(place) if place.reserve(1) => (len, Some((place, there))),
                Some(_) => return Err((Rest { at, view }, target)),
                None => (len, None),
            },
            Piece::Hole { len } => (len, None),
            Piece::End => {
                view.fail(P::PAST_END);
                return Ok(None);
            }
        };
        let len = len.clamp(1, view.len());
        let (view, rest) = if len == view.len() {
            (view, None)
        } else {
            let (view, rest) = view.split_at(len);
            (view, Some(rest))
        };
        match place {
            // A target that refuses what it promised room for has failed the piece.
            Some((place, there)) => drop(place.send_io(there, view)),
            None => view.fail(ErrorKind::OutOfRange),
        }
        let Some(view) = rest else { return Ok(None) };
        match at.checked_add(len) {
            Some(at) => Ok(Some(Rest { at, view })),
            None => {
                view.fail(P::PAST_END);
                Ok(None)
            }
        }
    }

    fn drive_lane<P: Direction>(&self, lane: &Lane<P>, cx: &mut Context<'_>)
    where
        T: PacketIo<P, u64>,
    {
        let again = match self.send_rests(lane) {
            Ended::Empty => false,
            Ended::Full(target) => self.targets[target].poll_ready(cx).is_ready(),
            Ended::Enough => true,
        };
        if again {
            cx.waker().wake_by_ref();
        }
    }

    fn poll_room<P: Direction>(&self, lane: &Lane<P>, cx: &mut Context<'_>) -> Poll<()>
    where
        T: PacketIo<P, u64>,
    {
        self.send_rests(lane);
        if !lane.is_clear() {
            lane.wait(cx);
            let front = lane.front().map(|(at, len)| self.route.first_piece(at, len));
            let again = match front {
                None => false,
                Some(Piece::On { target, .. }) => {
                    self.targets.get(target).is_none_or(|full| full.poll_ready(cx).is_ready())
                }
                Some(_) => true,
            };
            if again {
                // It has got room meanwhile, or this round has sent all that it may.
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        // Where the next view goes is not known: any of them may refuse it.
        let ready = |all, target: &T| target.poll_ready(cx).is_ready() && all;
        if self.targets.iter().fold(true, ready) { Poll::Ready(()) } else { Poll::Pending }
    }
}

macro_rules! packet_io {
    ($direction:ident, $lane:ident, [$($bound:tt)*] $(, $drive:expr)?) => {
        impl<T: $($bound)*, R: Route> PacketIo<$direction, u64> for Spread<T, R> {
            fn send_io(
                &self,
                param: u64,
                view: View<$direction>,
            ) -> Result<(), Refused<$direction>> {
                $(self.drive_exchanges.set(Some($drive));)?
                self.send(&self.$lane, param, view)
            }

            fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
                self.poll_room(&self.$lane, cx)
            }

            fn reserve(&self, views: usize) -> bool {
                self.$lane.promise(views)
            }

            fn release(&self, views: usize) {
                self.$lane.redeem(views);
            }

            fn abandon(&self, packet: PacketId) {
                self.$lane.cancel(packet);
                for target in &self.targets {
                    PacketIo::<$direction, u64>::abandon(target, packet);
                }
            }
        }
    };
}

packet_io!(Read, reads, [Target]);
packet_io!(Write, writes, [Target]);
packet_io!(ReadWrite, exchanges, [Target + PacketIo<ReadWrite, u64>], |this, cx| {
    this.drive_lane(&this.exchanges, cx);
});

impl<T: Target, R: Route> Drive for Spread<T, R> {
    fn poll_drive(&self, cx: &mut Context<'_>) {
        self.drive_lane(&self.reads, cx);
        self.drive_lane(&self.writes, cx);
        if let Some(drive) = self.drive_exchanges.get() {
            drive(self, cx);
        }
    }
}

impl<T: Target, R: Route> IoBackend for Spread<T, R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        driving::only_handle(&self.targets)
    }

    fn polling_handles<'a>(&'a self, add: &mut dyn FnMut(PollingHandle<'a>)) {
        for target in &self.targets {
            target.polling_handles(add);
        }
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        driving::acquire(self, &self.driven, &self.targets)
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        driving::poll_acquire(self, &self.driven, &self.targets, cx)
    }

    fn stop_waiting(&self, waker: &Waker) {
        for target in &self.targets {
            target.stop_waiting(waker);
        }
    }
}

impl<T: fmt::Debug, R: fmt::Debug> fmt::Debug for Spread<T, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (targets, route) = (&self.targets, &self.route);
        f.debug_struct("Spread").field("route", route).field("targets", targets).finish()
    }
}
