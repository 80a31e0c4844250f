//! A read that failed with `EIO` or `ENODATA` is read again in halves, until what cannot be read
//! is known to the block and everything else has arrived.
//!
//! Data flow: `reap` → [`Core::bisects`] → two jobs in place of one op → `issue`.
//!
//! Not here: errors of other kinds, and of writes, which say nothing about the bytes beside.

use mfio_core::{Read, View};
use nix::errno::Errno;

use super::body::Body;
use super::core::{Bytes, Core, Job};
use super::slot::Transfer;
use crate::ring::{Ring, Tag};

/// The least that is told apart through the page cache, in bytes: a page.
const PAGE_BYTES: u64 = 4096;

impl<R: Ring> Core<R> {
    /// Whether the op of `tag`, which failed with `errno`, has been replaced by two reads of
    /// its halves. A bounced read is short already and is not.
    #[cold]
    pub(super) fn bisects(&mut self, tag: Tag, errno: Errno) -> bool {
        let usable = self.bisect_reads && self.is_usable() && !self.closing;
        let Some(transfer) = self.slots.transfer(tag) else { return false };
        if !is_medium(errno) || !usable || transfer.cancel_requested || transfer.bounced {
            return false;
        }
        let (target, class) = (transfer.target, transfer.class);
        let demands = self.targets.get(target).demands;
        let align = u64::from(demands.offset_align);
        let block = if align > 1 { align } else { PAGE_BYTES };
        let Some(transfer) = self.slots.transfer(tag) else { return false };
        // Where the op began that failed: as aligned as the target demands, also behind a short
        // one (F11).
        let start = transfer.offset_bytes + u64::from(transfer.resumed_at);
        let Some(cut) = half(start, transfer.offset_bytes + u64::from(transfer.take_bytes), block)
        else {
            return false;
        };
        let Some((done, view)) = rest_of(transfer) else { return false };
        self.slots.vacate(tag);
        self.metrics.retries += 1;
        // Also where it is empty: a view that is only dropped counts as one that failed.
        self.metrics.moved(true, done.len());
        self.done.push(Body::BouncedRead(done));
        let (first, second) = view.split_at(cut - start);
        // The second one first, so that the first stands before it.
        for (offset_bytes, view) in [(cut, second), (start, first)] {
            self.targets.retain(target);
            let job = Job { target, offset_bytes, bytes: Bytes::Read(view) };
            self.queue_job(class, job, true);
        }
        self.targets.release(target, &mut self.ring);
        true
    }
}

/// Whether one block may be all that cannot be read: what a device says of its medium is
/// `ENODATA` below a file system, and `EIO` above most.
fn is_medium(errno: Errno) -> bool {
    matches!(errno, Errno::EIO | Errno::ENODATA)
}

/// Where to cut the bytes from `start` to `end`: at a multiple of `block` near the middle.
/// `None` where they lie in one block.
fn half(start: u64, end: u64, block: u64) -> Option<u64> {
    let middle = start + (end - start) / 2;
    let below = middle - middle % block;
    let cut = if below > start { below } else { below + block };
    (cut > start && cut < end).then_some(cut)
}

/// The user's bytes: what had been read before the op that failed, and the rest.
fn rest_of(transfer: &mut Transfer) -> Option<(View<Read>, View<Read>)> {
    match transfer.body.take()? {
        Body::ReadInto(lent) => Some(lent.into_view().split_at(transfer.resumed_at.into())),
        other => {
            transfer.body = Some(other);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_meet_at_a_block_and_a_block_has_none() {
        assert_eq!(half(0, 8192, 4096), Some(4096));
        assert_eq!(half(512, 8192, 4096), Some(4096));
        assert_eq!(half(4000, 4200, 4096), Some(4096));
        assert_eq!(half(0, 1 << 20, 512), Some(1 << 19));
        for (start, end) in [(0, 4096), (4096, 8192), (5000, 5001), (4096, 4097)] {
            assert_eq!(half(start, end, 4096), None, "{start}..{end}");
        }
    }
}
