//! Ops on names: in order of asking, as many at a time as the ring takes, each awaited by one
//! future.
//!
//! An op on a name occupies no slot, as it moves no bytes. It is the ring's until its completion,
//! whatever becomes of the future; what waits for the ring is here, and is not done at all when
//! its future goes. Those who ask bound how much can wait: one op each.
//!
//! Data flow: [`NameOp`] → [`Shard::name`] → ring, now or when others have ended → completion →
//! [`NameFut`], or, where that has gone, nobody: what was opened is closed.
//!
//! Not here: which ops a file system needs (`fs`), the memory of those in flight (`ring`).

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;

use super::Shard;
use super::core::{Core, Ending};
use crate::ring::{NAME_SLOTS_FROM, NAMES_IN_FLIGHT_MAX, NameEnd, NameKind, NameOp, Ring, Tag};

/// Ops that there are tags for.
const NAMES_MAX: usize = 1 << 30;

/// How far one op has come.
#[derive(Debug, Default)]
enum Life {
    #[default]
    Free,
    /// For others to end.
    Waits(NameOp, Option<Waker>),
    /// In the ring; somebody, or nobody, waits for it.
    Flies(Option<Waker>),
    /// In the ring, for nobody; whether the ring was asked to stop it.
    Abandoned(bool),
    Ended(NameEnd),
}

#[derive(Debug, Default)]
struct Place {
    /// Counts the ops that have been here; wraps.
    generation: u32,
    life: Life,
}

/// Names one op, for as long as somebody waits for it or it is in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameId {
    at: u32,
    generation: u32,
}

impl NameId {
    const fn tag(self) -> Tag {
        Tag { slot: NAME_SLOTS_FROM + self.at, generation: self.generation }
    }

    const fn of(tag: Tag) -> Self {
        Self { at: tag.slot - NAME_SLOTS_FROM, generation: tag.generation }
    }
}

/// What a shard remembers of ops on names.
#[derive(Debug, Default)]
pub(super) struct NameTable {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Those that wait, in order.
    waiting: VecDeque<NameId>,
    pub(super) in_flight: usize,
    /// The ring had no room for what there is an `Abandoned(false)` or a `Waits` for.
    pub(super) owes: bool,
}

impl NameTable {
    fn add(&mut self, op: NameOp) -> NameId {
        let at = self.free.pop().unwrap_or_else(|| {
            assert!(self.places.len() < NAMES_MAX, "each takes memory, of which there is less");
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).expect("it is below the bound")
        });
        let place = &mut self.places[at as usize];
        place.life = Life::Waits(op, None);
        let id = NameId { at, generation: place.generation };
        self.waiting.push_back(id);
        id
    }

    fn life(&mut self, id: NameId) -> Option<&mut Life> {
        let place = self.places.get_mut(id.at as usize)?;
        (place.generation == id.generation).then_some(&mut place.life)
    }

    /// The place is free for another op; what was in it is to be dropped when nothing is
    /// borrowed.
    fn remove(&mut self, id: NameId) -> Option<Life> {
        let life = core::mem::take(self.life(id)?);
        let place = &mut self.places[id.at as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.at);
        Some(life)
    }
}

impl<R: Ring> Core<R> {
    /// Hands the ring what waits, as far as it takes it.
    pub(super) fn start_names(&mut self) {
        let usable = self.is_usable() && !self.refuses;
        let Self { names, ring, .. } = self;
        while let Some(&id) = names.waiting.front() {
            if !usable || !ring.has_room_for_name() {
                // Where some are in flight, the end of one is the time for the next.
                names.owes |= names.in_flight < NAMES_IN_FLIGHT_MAX;
                break;
            }
            names.waiting.pop_front();
            let Some(life) = names.life(id) else { continue };
            match core::mem::take(life) {
                Life::Waits(op, waker) => {
                    *life = Life::Flies(waker);
                    ring.unstage();
                    ring.push_name(op, id.tag());
                    names.in_flight += 1;
                    self.in_flight += 1;
                    self.metrics.ops += 1;
                }
                other => *life = other,
            }
        }
        self.cancels_owed |= self.names.owes;
    }

    /// A completion of an op on names.
    #[cold]
    pub(super) fn complete_name(&mut self, tag: Tag) {
        let id = NameId::of(tag);
        let end = self.ring.end_of_name(tag);
        let (Some(end), Some(life)) = (end, self.names.life(id)) else {
            self.metrics.stale_completions += 1;
            return;
        };
        match core::mem::take(life) {
            Life::Flies(waker) => {
                *life = Life::Ended(end);
                self.endings.extend(waker.map(Ending::Wake));
            }
            // Nobody learns of it: what was opened is closed with it.
            _ => drop(self.names.remove(id)),
        }
        self.in_flight -= 1;
        self.names.in_flight -= 1;
        self.start_names();
    }

    fn poll_name(&mut self, id: NameId, waker: &mut Option<Waker>) -> Poll<Option<NameEnd>> {
        match self.names.life(id) {
            Some(Life::Waits(_, told) | Life::Flies(told)) => {
                core::mem::swap(told, waker);
                Poll::Pending
            }
            _ => match self.names.remove(id) {
                Some(Life::Ended(end)) => Poll::Ready(Some(end)),
                _ => Poll::Ready(None),
            },
        }
    }

    /// Nobody waits for it any more. What comes back is to be dropped when nothing is borrowed.
    fn abandon_name(&mut self, id: NameId) -> Option<Life> {
        match self.names.life(id)? {
            life @ Life::Flies(_) => {
                let left = core::mem::replace(life, Life::Abandoned(false));
                self.names.owes = true;
                self.cancels_owed = true;
                Some(left)
            }
            Life::Abandoned(_) => None,
            Life::Free | Life::Ended(_) => self.names.remove(id),
            Life::Waits(..) => {
                self.names.waiting.retain(|waiting| *waiting != id);
                self.names.remove(id)
            }
        }
    }

    /// Does what the ring had no room for: stops what nobody waits for, starts what waits.
    #[cold]
    pub(super) fn pay_names(&mut self) {
        self.names.owes = false;
        let stops_all = self.closing;
        let Self { names, ring, metrics, .. } = self;
        let mut owes = false;
        for (at, place) in (0_u32..).zip(&mut names.places) {
            let id = NameId { at, generation: place.generation };
            let wanted = match place.life {
                Life::Abandoned(asked) => !asked,
                Life::Flies(_) => stops_all,
                _ => false,
            };
            if !wanted {
                continue;
            }
            let asked = ring.cancel_name(id.tag());
            metrics.cancels_sent += u64::from(asked);
            owes |= !asked;
            if let Life::Abandoned(done) = &mut place.life {
                *done = asked;
            }
        }
        names.owes |= owes;
        self.start_names();
    }

    /// Nothing is accepted any more: what waits is not done, what is in the ring is to stop.
    pub(super) fn end_names(&mut self) {
        let Self { names, endings, .. } = self;
        for id in core::mem::take(&mut names.waiting) {
            let Some(life) = names.life(id) else { continue };
            if let Life::Waits(op, waker) = core::mem::take(life) {
                *life = Life::Ended(NameEnd { op, result: Err(Errno::ECANCELED) });
                endings.extend(waker.map(Ending::Wake));
            }
        }
        names.owes = names.in_flight > 0;
        self.cancels_owed |= names.owes;
    }
}

impl<R: Ring> Shard<R> {
    /// Whether ops of `kind` go by the ring, which is made ready for them. Not where the shard
    /// accepts nothing more.
    pub(crate) fn takes_names(&self, kind: NameKind) -> bool {
        let mut core = self.inner.core.borrow_mut();
        !core.refuses && core.ring.takes_names(kind)
    }

    /// Does `op`, of a kind that the ring [takes](Shard::takes_names), once the ring has room.
    pub(crate) fn name(&self, op: NameOp) -> NameFut<R> {
        let mut core = self.inner.core.borrow_mut();
        let id = core.names.add(op);
        if core.refuses {
            core.end_names();
        } else {
            core.start_names();
        }
        NameFut { shard: self.clone(), id: Some(id) }
    }
}

/// Waits for an op on names. Dropped, the op is not done where it still waits for the ring; else
/// it is asked to stop, may be done all the same, and leaves nothing open.
#[must_use = "what is not awaited may not be done"]
pub(crate) struct NameFut<R: Ring> {
    shard: Shard<R>,
    /// `None` once the end has been handed out.
    id: Option<NameId>,
}

impl<R: Ring> Future for NameFut<R> {
    type Output = NameEnd;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<NameEnd> {
        let id = self.id.expect("an op was polled after it was over");
        // Cloned before and dropped after the shard is borrowed: either may run anything.
        let mut waker = Some(cx.waker().clone());
        let polled = self.shard.inner.core.borrow_mut().poll_name(id, &mut waker);
        drop(waker);
        let Poll::Ready(end) = polled else { return Poll::Pending };
        self.id = None;
        Poll::Ready(end.expect("an op stays until its future has seen the end"))
    }
}

impl<R: Ring> Drop for NameFut<R> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let left = self.shard.inner.core.borrow_mut().abandon_name(id);
            drop(left);
        }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
