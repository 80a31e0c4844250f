//! What a shard does wrong where a bug is planted, as far as that is more than a condition.
//!
//! Data flow: a branch on [`Ring::plant`](crate::ring::Ring::plant), which no production ring
//! ever takes → here. The branches stand where an honest mistake would.
//!
//! Not here: which bugs there are ([`Plant`](crate::ring::Plant)).

use mfio_core::ErrorKind;
use nix::errno::Errno;

use super::core::Core;
use super::slot::{Linked, Occupant, Transfer};
use crate::error::from_errno;
use crate::ring::{Ring, Tag};

impl<R: Ring> Core<R> {
    /// The cancel requests have been answered, which is taken for the end of their ops (F03).
    #[cold]
    pub(super) fn retire_cancelled(&mut self) {
        if self.queued_in_ring() == 0 {
            self.retire(Errno::ECANCELED, |transfer| transfer.cancel_sent);
        }
    }

    /// The call that was to start what is queued has failed, which is taken for the end of that
    /// (F05). Only where it is certain that nothing else is in flight.
    #[cold]
    pub(super) fn free_queued(&mut self, errno: Errno) {
        if self.queued_in_ring() >= self.in_flight {
            self.retire(errno, |transfer| !transfer.cancel_sent);
        }
    }

    /// Whoever is in the slot of `tag` (F04).
    #[cold]
    pub(super) fn any_generation(&mut self, tag: Tag) -> Tag {
        let mut occupied = self.slots.iter_mut().map(|(tag, _)| tag);
        occupied.find(|other| other.slot == tag.slot).unwrap_or(tag)
    }

    /// Entries of the submission queue that no `enter` has taken.
    fn queued_in_ring(&mut self) -> u32 {
        let entries = self.ring.limits().sq_entries;
        (0..entries).find(|taken| self.ring.reserve(entries - taken)).unwrap_or(entries)
    }

    /// Ends plain reads and writes that are in flight.
    fn retire(&mut self, errno: Errno, is_meant: impl Fn(&Transfer) -> bool) {
        let meant = |(tag, occupant): (Tag, &mut Occupant)| match occupant {
            Occupant::Transfer(transfer) => {
                let plain = !transfer.grouped && transfer.linked == Linked::No;
                (plain && is_meant(transfer)).then_some(tag)
            }
            _ => None,
        };
        let tags: Vec<Tag> = self.slots.iter_mut().filter_map(meant).collect();
        for tag in tags {
            // What waits to be tried again is not in flight, and ends by itself.
            if self.retries.iter().any(|retry| retry.tag == tag) {
                continue;
            }
            let Some(transfer) = self.slots.transfer(tag) else { continue };
            if core::mem::take(&mut transfer.counted) {
                let class = transfer.class;
                self.count_ended(tag, class);
            }
            self.in_flight -= 1;
            self.keep_target(tag);
            let cancelled = errno == Errno::ECANCELED;
            let error = if cancelled { ErrorKind::Cancelled.into() } else { from_errno(errno) };
            self.fail_transfer(tag, error);
        }
    }
}
