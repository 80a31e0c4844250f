//! The exclusive right to drive a backend and whatever it is built on.
//!
//! Data flow: outermost level → … → innermost level: what an outer level sends down while it is
//! driven, the inner ones pick up in the same round. One level costs no allocation.
//!
//! Not here: who may have the right (`claim`), when to drive (`block`, `embed`).

use alloc::vec::Vec;
use core::fmt;
use core::task::{Context, Poll, Waker, ready};

use super::{BackendBusy, Claim, Drive, IoBackend};

/// The exclusive right to drive a backend, with all the backends below it; given back on drop.
pub struct BackendHandle<'a> {
    outer: Level<'a>,
    /// From the outside in. However deep the nesting, this is all of it.
    inner: Vec<Level<'a>>,
}

struct Level<'a> {
    drive: &'a dyn Drive,
    claim: &'a dyn Claim,
}

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.claim.release();
    }
}

impl<'a> BackendHandle<'a> {
    /// Takes the right that `claim` guards.
    ///
    /// # Errors
    /// [`BackendBusy`] if it is taken.
    pub fn acquire(drive: &'a dyn Drive, claim: &'a dyn Claim) -> Result<Self, BackendBusy> {
        if claim.try_claim() { Ok(Self::claimed(drive, claim)) } else { Err(BackendBusy) }
    }

    /// For a claim that has been taken already.
    pub(super) fn claimed(drive: &'a dyn Drive, claim: &'a dyn Claim) -> Self {
        Self { outer: Level { drive, claim }, inner: Vec::new() }
    }

    /// This backend on top of another one, which is driven after it in every round. `inner` may
    /// be a nest itself.
    #[must_use]
    pub fn over(mut self, inner: Option<Self>) -> Self {
        if let Some(mut inner) = inner {
            self.inner.push(inner.outer);
            self.inner.append(&mut inner.inner);
        }
        self
    }

    /// The rights to all of `backends`, for a layer that sends to several. Backends that share
    /// something (two files of one shard, two clients over one carrier) drive it once.
    ///
    /// # Errors
    /// [`BackendBusy`] if one of them is held by somebody else. None is held then.
    pub fn join<I: IoBackend + ?Sized + 'a>(
        backends: impl IntoIterator<Item = &'a I>,
    ) -> Result<Option<Self>, BackendBusy> {
        match Self::join_by(backends, &mut |backend: &'a I| Poll::Ready(backend.get_backend())) {
            Poll::Ready(joined) => joined,
            Poll::Pending => unreachable!("getting a backend does not wait"),
        }
    }

    /// As `join`, for [`IoBackend::poll_backend`]: waits for those that can be waited for.
    /// Nothing is held while waiting, because holding one and waiting for another is how two
    /// threads wait for each other.
    ///
    /// # Errors
    /// As `join`.
    pub fn poll_join<I: IoBackend + ?Sized + 'a>(
        backends: impl IntoIterator<Item = &'a I>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Self>, BackendBusy>> {
        Self::join_by(backends, &mut |backend: &'a I| backend.poll_backend(cx))
    }

    fn join_by<I: ?Sized + 'a>(
        backends: impl IntoIterator<Item = &'a I>,
        get: &mut dyn FnMut(&'a I) -> Poll<Result<Option<Self>, BackendBusy>>,
    ) -> Poll<Result<Option<Self>, BackendBusy>> {
        let mut held: Option<Self> = None;
        for backend in backends {
            held = match (ready!(get(backend)), held) {
                (Ok(next), None) => next,
                (Ok(next), Some(held)) => Some(held.over(next)),
                (Err(BackendBusy), Some(held)) => {
                    Some(ready!(held.let_go_and_take(&mut || get(backend)))?)
                }
                (Err(BackendBusy), None) => return Poll::Ready(Err(BackendBusy)),
            };
        }
        Poll::Ready(Ok(held))
    }

    /// A backend is busy, perhaps with a level of ours: ours are let go, it is taken, and those
    /// of ours that it has not brought along are taken again.
    fn let_go_and_take(
        self,
        get: &mut dyn FnMut() -> Poll<Result<Option<Self>, BackendBusy>>,
    ) -> Poll<Result<Self, BackendBusy>> {
        let ours: Vec<_> = self.levels().map(|level| (level.drive, level.claim)).collect();
        drop(self);
        let mut taken = ready!(get())?.ok_or(BackendBusy)?;
        // The others come first: what is shared lies further in.
        for (drive, claim) in ours.into_iter().rev() {
            if !taken.levels().any(|level| core::ptr::addr_eq(level.claim, claim)) {
                taken = Self::acquire(drive, claim)?.over(Some(taken));
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// Does everything that can be done without waiting, on all levels; `cx` as for
    /// [`Drive::poll_drive`].
    pub fn poll_drive(&self, cx: &mut Context<'_>) {
        for level in self.levels() {
            level.drive.poll_drive(cx);
        }
    }

    /// As `poll_drive`, for all levels but one.
    pub(super) fn poll_drive_others(&self, parks: usize, cx: &mut Context<'_>) {
        for (at, level) in self.levels().enumerate() {
            if at != parks {
                level.drive.poll_drive(cx);
            }
        }
    }

    /// Parks in the level that can, as counted by [`BackendHandle::parker`].
    pub(super) fn park_in(&self, parks: usize) -> bool {
        self.levels().nth(parks).is_some_and(|level| level.drive.park())
    }

    /// The innermost level that can block, what ends its wait, and how many can. More than one
    /// cannot be waited for by any of them; but those that are driven elsewhere need no wait, and
    /// get it only where nothing else does, and no descriptor tells of another.
    pub(super) fn parker(&self, descriptors: usize) -> (usize, Option<(usize, Waker)>) {
        let mut parkers = 0;
        let (mut innermost, mut dispensable) = (None, None);
        for (at, level) in self.levels().enumerate() {
            let Some(waker) = level.drive.unpark_waker() else { continue };
            if level.drive.is_driven_elsewhere() {
                dispensable = Some((at, waker));
            } else {
                parkers += 1;
                innermost = Some((at, waker));
            }
        }
        match dispensable {
            Some(only) if parkers == 0 && descriptors == 0 => (1, Some(only)),
            _ => (parkers, innermost),
        }
    }

    /// All that is driven, as one.
    #[must_use]
    pub fn drive(&self) -> &dyn Drive {
        self
    }

    /// How many backends this drives.
    #[must_use]
    pub fn depth(&self) -> usize {
        1 + self.inner.len()
    }

    fn levels(&self) -> impl Iterator<Item = &Level<'a>> {
        core::iter::once(&self.outer).chain(&self.inner)
    }
}

impl Drive for BackendHandle<'_> {
    fn poll_drive(&self, cx: &mut Context<'_>) {
        Self::poll_drive(self, cx);
    }

    /// A nest does not block: what its outer levels complete would not end the wait in an inner
    /// one. [`block_on`](super::block_on) knows what to look at in between.
    fn park(&self) -> bool {
        self.inner.is_empty() && self.outer.drive.park()
    }

    fn unpark_waker(&self) -> Option<Waker> {
        if self.inner.is_empty() { self.outer.drive.unpark_waker() } else { None }
    }

    fn is_driven_elsewhere(&self) -> bool {
        self.levels().all(|level| level.drive.is_driven_elsewhere())
    }
}

impl fmt::Debug for BackendHandle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackendHandle").field("depth", &self.depth()).finish()
    }
}
