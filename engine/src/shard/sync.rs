//! Flushes as users ask for them and await them.
//!
//! Data flow: [`File::sync`] → ticket → the shard's core → answer → [`SyncFut`].
//!
//! Not here: when a flush is due and whom it acknowledges (`flush`).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::file::{Durability, File};
use super::flush::TicketId;
use crate::error::IoError;
use crate::ring::{AutoRing, Ring};

impl<R: Ring> File<R> {
    /// Makes every write that has been accepted so far durable. Writes still in flight are
    /// waited for first; writes sent later are not covered. Costs one flush of the device's
    /// cache, shared with whoever asks meanwhile.
    ///
    /// # Errors
    /// Resolves to an [`IoError`] of kind `Poisoned` when this or an earlier flush of the
    /// target failed: the fate of the data is unknown, and retrying cannot help (F37).
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the flush.
    pub fn sync(&self, durability: Durability) -> SyncFut<R> {
        let ticket = self.shard().inner.core.borrow_mut().sync(self.target(), durability);
        self.shard().inner.deliver();
        SyncFut { file: self.clone(), ticket: Some(ticket), durability }
    }
}

/// The future of [`File::sync`]. The flush is on its way whether or not this is polled.
#[must_use = "a flush that is not awaited promises nothing"]
pub struct SyncFut<R: Ring = AutoRing> {
    file: File<R>,
    /// `None` once the answer has been handed out.
    ticket: Option<TicketId>,
    durability: Durability,
}

impl<R: Ring> Future for SyncFut<R> {
    type Output = Result<(), IoError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ticket = self.ticket.expect("a flush was polled after it was ready");
        // Cloned before and dropped after the shard is borrowed: either may run anything.
        let mut waker = Some(cx.waker().clone());
        let polled = {
            let mut core = self.file.shard().inner.core.borrow_mut();
            core.tickets.poll(ticket, &mut waker)
        };
        drop(waker);
        let Poll::Ready(result) = polled else { return Poll::Pending };
        self.ticket = None;
        let op = if self.durability == Durability::Full { "fsync" } else { "fdatasync" };
        Poll::Ready(result.map_err(|error| self.file.io_error(op, 0, 0, 0, error)))
    }
}

impl<R: Ring> Drop for SyncFut<R> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let mut core = self.file.shard().inner.core.borrow_mut();
            let waker = core.tickets.abandon(ticket);
            drop(core);
            drop(waker);
        }
    }
}

impl<R: Ring> fmt::Debug for SyncFut<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncFut").field("durability", &self.durability).finish_non_exhaustive()
    }
}
