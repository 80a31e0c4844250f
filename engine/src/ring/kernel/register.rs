//! Makes memory known to a ring, as far as the kernel grants it.
//!
//! Data flow: a [`Region`] → entries of the ring's table, by `io_uring_register(2)` → what was
//! granted, and in [`Features`] what was not and how to change that. Registering is an
//! optimisation: every refusal leaves a ring that works (F32).
//!
//! Not here: which op uses what is registered (`sqe`, `buffer::arena`).
#![allow(unsafe_code, reason = "hands addresses of the region to the kernel")]

use std::os::fd::AsRawFd;

use io_uring::types::CloneBuffersFlags;
use io_uring::{IoUring, Submitter};
use nix::errno::Errno;

use super::owned::MappedRing;
use super::setup::{RingError, errno_of, explain};
use crate::buffer::{FixedSpan, Memory, PIECE_BYTES, Pages, Region, Shared};
use crate::ring::Features;
use crate::sys;

/// Registering less than this is not worth a fixed buffer.
const REGISTERED_BYTES_MIN: usize = 16 << 10;

/// A registered prefix is a multiple of this, the size of a page.
const REGISTERED_BYTES_STEP: usize = 4 << 10;

/// What [`Features::in_use`] calls registered buffers.
const BUFFERS: &str = "registered buffers";

/// What it calls those that another ring had registered before.
pub(super) const CLONED: &str = "cloned buffers";

/// Entries of the table beyond what the arena needs: 8 bytes each for the kernel.
const SPARE_ENTRIES: usize = 1024;

/// The most fixed buffers of a ring (`IORING_MAX_REG_BUFFERS`).
const ENTRIES_MAX: usize = 1 << 14;

/// The ring's table of fixed buffers: which entries are taken.
#[derive(Debug, Default)]
pub(super) struct BufferTable {
    /// 0 before the table is made, and where the kernel has none that can be changed.
    entries: usize,
    /// Taken entries: first and count, in ascending order.
    taken: Vec<(usize, usize)>,
    /// Whether the ring pins memory without a limit, where that is known.
    exempt: Option<bool>,
}

impl BufferTable {
    /// Of a ring that was made when the process was `exempt` from the limit on locked memory.
    pub(super) fn new(exempt: Option<bool>) -> Self {
        Self { exempt, ..Self::default() }
    }

    /// Makes the table, empty; false before Linux 5.19.
    fn make(&mut self, submitter: &Submitter<'_>, region: &Region) -> bool {
        let entries = (pieces(region.len_bytes()) + SPARE_ENTRIES).min(ENTRIES_MAX);
        let count = u32::try_from(entries).unwrap_or(u32::MAX);
        if self.entries == 0 && submitter.register_buffers_sparse(count).is_ok() {
            self.entries = entries;
        }
        self.entries > 0
    }

    /// Registers the first `bytes` of the region of the arena, where nothing can stand against
    /// the rest later. Else nothing is registered, and `arena` is to be called.
    pub(super) fn first(
        &mut self,
        submitter: &Submitter<'_>,
        region: &Region,
        bytes: usize,
        features: &mut Features,
    ) -> bool {
        let used = features.in_use.contains(&BUFFERS) || !self.taken.is_empty();
        if self.exempt != Some(true) || used || !self.make(submitter, region) {
            return false;
        }
        let iov_len = bytes.min(region.len_bytes()).min(PIECE);
        let iovec = libc::iovec { iov_base: region.base().cast(), iov_len };
        if update(submitter, 0, iovec).is_err() {
            return false;
        }
        name_once(features, region.pages().name());
        name_once(features, BUFFERS);
        // The entries of the rest are kept for it.
        self.take(0, region.len_bytes());
        region.set_registered_bytes(iov_len);
        true
    }

    /// Registers all of what `first` was called with, piece by piece, and never less than there
    /// was: queued ops may name any of it. `None` where it is no more than there was.
    pub(super) fn rest(
        &mut self,
        submitter: &Submitter<'_>,
        region: &Region,
        features: &mut Features,
    ) -> Option<FixedSpan> {
        let (before_bytes, len_bytes) = (region.registered_bytes(), region.len_bytes());
        let mut registered_bytes = before_bytes;
        for (entry, start) in (0..).zip((0..len_bytes).step_by(PIECE)) {
            let iov_base = region.base().wrapping_add(start).cast();
            let iov_len = PIECE.min(len_bytes - start);
            if let Err(errno) = update(submitter, entry, libc::iovec { iov_base, iov_len }) {
                note(features, region, registered_bytes, errno);
                break;
            }
            registered_bytes = start + iov_len;
        }
        region.set_registered_bytes(registered_bytes);
        let more = registered_bytes > before_bytes;
        more.then_some(FixedSpan { first_index: 0, registered_bytes })
    }

    /// Registers the region of the arena as fixed buffers `0..`, and records in it how much is
    /// covered. A ring takes one arena.
    pub(super) fn arena(
        &mut self,
        submitter: &Submitter<'_>,
        region: &Region,
        features: &mut Features,
    ) {
        if features.in_use.contains(&BUFFERS) || !self.taken.is_empty() {
            explain_once(features, format!("{BUFFERS}: a ring takes one region, and has one"));
            return;
        }
        name_once(features, region.pages().name());
        if self.make(submitter, region) {
            let span = self.add(submitter, region, features);
            region.set_registered_bytes(span.map_or(0, |span| span.registered_bytes));
            return;
        }
        // Before Linux 5.19 there is no empty table, so there is only this region.
        let (got_bytes, refusal) = register_prefix(submitter, region);
        region.set_registered_bytes(got_bytes);
        note(features, region, got_bytes, refusal);
    }

    /// Registers `region` where there is room for it.
    pub(super) fn add(
        &mut self,
        submitter: &Submitter<'_>,
        region: &Region,
        features: &mut Features,
    ) -> Option<FixedSpan> {
        if self.entries == 0 {
            explain_once(
                features,
                format!(
                    "{BUFFERS}: no further region; a table that can be changed needs Linux 5.19"
                ),
            );
            return None;
        }
        if let Some(shared) = region.shared() {
            match self.clone_from(submitter, shared) {
                Ok(span) => {
                    name_once(features, CLONED);
                    note(features, region, shared.registered_bytes, Errno::ENOMEM);
                    return Some(span);
                }
                Err(errno) => explain_once(
                    features,
                    format!(
                        "{CLONED}: refused ({errno:?}), so the memory is pinned once more; Linux \
                     6.13 can clone into a table that is in use"
                    ),
                ),
            }
        }
        let count = pieces(region.len_bytes());
        let Some(first) = self.find(count) else {
            explain_once(
                features,
                format!(
                    "{BUFFERS}: the table of {} entries has no {count} in a row; unregister memory \
                 that is no longer used",
                    self.entries
                ),
            );
            return None;
        };
        let (got_bytes, refusal) = fill(submitter, region, first, self.exempt == Some(false));
        note(features, region, got_bytes, refusal);
        (got_bytes > 0).then(|| self.take(first, got_bytes))
    }

    fn clone_from(
        &mut self,
        submitter: &Submitter<'_>,
        shared: &Shared,
    ) -> Result<FixedSpan, Errno> {
        let count = pieces(shared.registered_bytes);
        // Behind everything: kernels exist that lose the entries behind those cloned.
        let first = self.taken.last().map_or(0, |&(first, count)| first + count);
        if first + count > self.entries {
            return Err(Errno::ENOSPC);
        }
        let flags = CloneBuffersFlags::DST_REPLACE;
        let [to, many] = [first, count].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        submitter
            .register_buffers_clone_offset(shared.ring_fd, 0, to, many, flags)
            .map_err(|error| errno_of(&error))?;
        Ok(self.take(first, shared.registered_bytes))
    }

    /// The first `count` entries in a row that are free.
    fn find(&self, count: usize) -> Option<usize> {
        let mut from = 0;
        for &(first, taken) in &self.taken {
            if first - from >= count {
                return Some(from);
            }
            from = first + taken;
        }
        (self.entries - from >= count).then_some(from)
    }

    fn take(&mut self, first: usize, registered_bytes: usize) -> FixedSpan {
        let at = self.taken.partition_point(|&(other, _)| other < first);
        self.taken.insert(at, (first, pieces(registered_bytes)));
        let first_index = u16::try_from(first).expect("a table has at most 16384 entries");
        FixedSpan { first_index, registered_bytes }
    }

    /// The entry behind the last one that is taken.
    pub(super) fn end(&self) -> u16 {
        let end = self.taken.last().map_or(0, |&(first, count)| first + count);
        u16::try_from(end).unwrap_or(0)
    }

    /// Empties the entries of `span`.
    pub(super) fn remove(&mut self, submitter: &Submitter<'_>, span: FixedSpan) {
        let first = usize::from(span.first_index);
        let Some(at) = self.taken.iter().position(|&(other, _)| other == first) else { return };
        let (_, count) = self.taken[at];
        let cleared = (first..first + count).all(|entry| empty(submitter, entry));
        // Entries that could not be emptied keep their pages pinned and are not used again.
        if cleared {
            self.taken.remove(at);
        }
    }
}

/// Empties one entry of the table; false where the kernel would not.
pub(super) fn empty(submitter: &Submitter<'_>, entry: usize) -> bool {
    let nothing = libc::iovec { iov_base: core::ptr::null_mut(), iov_len: 0 };
    update(submitter, entry, nothing).is_ok()
}

/// Registers with another ring, in the same entries, what `span` of `region` is in one: all of
/// it or nothing.
pub(super) fn repeat(
    submitter: &Submitter<'_>,
    region: &Region,
    span: FixedSpan,
) -> Result<(), Errno> {
    let first = usize::from(span.first_index);
    for (entry, start) in (first..).zip((0..span.registered_bytes).step_by(PIECE)) {
        let iov_base = region.base().wrapping_add(start).cast();
        let iov_len = PIECE.min(span.registered_bytes - start);
        if let Err(errno) = update(submitter, entry, libc::iovec { iov_base, iov_len }) {
            let _emptied = (first..entry).all(|entry| empty(submitter, entry));
            return Err(errno);
        }
    }
    Ok(())
}

/// How many fixed buffers `bytes` need.
pub(super) fn pieces(bytes: usize) -> usize {
    bytes.div_ceil(PIECE)
}

const PIECE: usize = 1 << 30;
const _: () = assert!(PIECE as u64 == PIECE_BYTES);

/// Memory comes and goes while a ring lives; what is said of it does not grow.
fn explain_once(features: &mut Features, text: String) {
    if !features.degraded.contains(&text) {
        features.degraded.push(text);
    }
}

fn name_once(features: &mut Features, name: &'static str) {
    if !features.in_use.contains(&name) {
        features.in_use.push(name);
    }
}

/// Says what became of the registration of `region`.
fn note(features: &mut Features, region: &Region, got_bytes: usize, refusal: Errno) {
    let need_bytes = region.len_bytes();
    if got_bytes > 0 {
        name_once(features, BUFFERS);
    }
    if got_bytes < need_bytes {
        explain_once(
            features,
            format!(
                "{BUFFERS}: {got_bytes} of {need_bytes} bytes ({refusal:?}), the rest goes \
             unregistered; RLIMIT_MEMLOCK is {} bytes: raise it (ulimit -l, LimitMEMLOCK=) or \
             grant CAP_IPC_LOCK",
                sys::memlock_bytes_max()
            ),
        );
    }
}

/// How many bytes to try after `bytes` were too many: what may be locked at all, then half. A
/// huge page counts whole, however little of it is registered.
fn fewer(bytes: usize) -> Option<usize> {
    let limit = usize::try_from(sys::memlock_bytes_max()).unwrap_or(usize::MAX);
    let next = if bytes > limit { limit } else { bytes / 2 };
    let next = next / REGISTERED_BYTES_STEP * REGISTERED_BYTES_STEP;
    (next >= REGISTERED_BYTES_MIN).then_some(next)
}

/// Registers `region` piece by piece from entry `first` on, halving the piece that lacks
/// memory; returns how many bytes were registered, and why not more. Where the process is
/// `limited`, what is more than its limit is not asked for: it would get all its pages first, and
/// be refused then.
pub(super) fn fill(
    submitter: &Submitter<'_>,
    region: &Region,
    first: usize,
    limited: bool,
) -> (usize, Errno) {
    // Pages of memory that the caller brought may be counted once for several of its addresses.
    let limited = limited && region.pages() != Pages::Foreign;
    let most = sys::memlock_bytes_max();
    let len_bytes = region.len_bytes();
    for (entry, start) in (first..).zip((0..len_bytes).step_by(PIECE)) {
        let iov_base = region.base().wrapping_add(start).cast();
        let whole = PIECE.min(len_bytes - start);
        let hopeless = limited && whole as u64 > most;
        let asked = if hopeless { fewer(whole) } else { Some(whole) };
        // So low a limit leaves nothing that is worth asking for.
        let Some(mut iov_len) = asked else { return (start, Errno::ENOMEM) };
        loop {
            match update(submitter, entry, libc::iovec { iov_base, iov_len }) {
                Ok(()) => break,
                Err(Errno::ENOMEM) => match fewer(iov_len) {
                    Some(bytes) => iov_len = bytes,
                    None => return (start, Errno::ENOMEM),
                },
                Err(errno) => return (start, errno),
            }
        }
        if iov_len < whole {
            return (start + iov_len, Errno::ENOMEM);
        }
    }
    (len_bytes, Errno::ENOMEM)
}

/// Makes one entry of the table what `iovec` says.
fn update(submitter: &Submitter<'_>, entry: usize, iovec: libc::iovec) -> Result<(), Errno> {
    let entry = u32::try_from(entry).map_err(|_| Errno::EINVAL)?;
    // SAFETY: lifetime: the kernel pins the pages itself, so they outlive even the mapping; ops
    // name them only through ranges of a live region. Aliasing: registering reads and writes
    // nothing. Bounds: a part of a region, or nothing.
    let updated = unsafe { submitter.register_buffers_update(entry, &[iovec], None) };
    updated.map_err(|error| errno_of(&error))
}

/// Pins `memory` in a ring of its own, which any number of rings clone it from, so that it is
/// pinned and counted against `RLIMIT_MEMLOCK` once. Returns the bytes that are pinned: less
/// than all where the limit says so. Doing it again changes nothing.
///
/// # Errors
/// As [`KernelRing::new`](super::KernelRing::new); the memory can still be registered with
/// each ring.
pub fn share<M: Memory + ?Sized>(memory: &M) -> Result<usize, RingError> {
    let memory = memory.keep();
    let region = memory.region();
    if let Some(shared) = region.shared() {
        return Ok(shared.registered_bytes);
    }
    // Without SINGLE_ISSUER: its registrations are looked at from every shard's thread. Never
    // enabled: it lends buffers, and no op of it would ever be taken.
    let mut builder = IoUring::builder();
    let ring: IoUring = builder
        .dontfork()
        .setup_r_disabled()
        .build(1)
        .map_err(|error| explain(errno_of(&error)))?;
    let (registered_bytes, _refusal) = register_prefix(&ring.submitter(), region);
    let ring_fd = ring.as_raw_fd();
    if registered_bytes > 0 {
        region.set_shared(Shared {
            ring_fd,
            registered_bytes,
            _ring: Box::new(MappedRing::new(ring)),
        });
    }
    Ok(registered_bytes)
}

/// Returns how many bytes were registered, and why not more.
fn register_prefix(submitter: &Submitter<'_>, region: &Region) -> (usize, Errno) {
    let mut bytes = region.len_bytes();
    loop {
        match try_register(submitter, region, bytes) {
            Ok(()) => return (bytes, Errno::ENOMEM),
            Err(Errno::ENOMEM) => match fewer(bytes) {
                Some(bytes_left) => bytes = bytes_left,
                None => return (0, Errno::ENOMEM),
            },
            Err(errno) => return (0, errno),
        }
    }
}

/// Registers the first `bytes` of `region`, piece by piece, as the whole table.
fn try_register(submitter: &Submitter<'_>, region: &Region, bytes: usize) -> Result<(), Errno> {
    let mut pieces = Vec::with_capacity(pieces(bytes));
    for start in (0..bytes).step_by(PIECE) {
        let iov_base = region.base().wrapping_add(start).cast();
        pieces.push(libc::iovec { iov_base, iov_len: PIECE.min(bytes - start) });
    }
    // SAFETY: lifetime: as in `update`. Aliasing: registering reads and writes nothing. Bounds:
    // the pieces tile a prefix of the region.
    let registered = unsafe { submitter.register_buffers(&pieces) };
    registered.map_err(|error| errno_of(&error))
}
