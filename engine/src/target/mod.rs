//! Targets: what packets are sent to, with everything a shard knows of them.
//!
//! Data flow: path → [`open`](open()) → file and [`Geometry`] → `Targets::add` → index.
//!
//! Not here: reading the geometry (`geometry`), opening (`open`), flushing (`shard::flush`).

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;

use mfio_core::{Error, ErrorKind};
use nix::errno::Errno;

use crate::nvme::Space;
use crate::plan::Demands;
use crate::ring::{FileRef, Plant, Poll, Ring, Transfers};
use crate::shard::{Barrier, Course, Courses, Epoch, FlushRequest};

mod asked;
mod durability;
mod facts;
mod geometry;
mod guard;
mod in_use;
mod lock;
#[cfg(test)]
pub(crate) mod loop_device;
mod nvme;
mod open;
mod poison;
mod refusal;
mod signature;
mod sysfs;
mod way;

pub(crate) use asked::not_flagged;
pub use durability::{MethodReport, SyncMethod, SyncReport, SyncSource};
pub(crate) use facts::Bytes;
pub use facts::{AtomicWrite, Facts};
pub use geometry::{FileSystem, Geometry, TargetKind};
pub use guard::{DeviceClaim, DeviceWrite};
pub use in_use::{DeviceUse, UseKind};
pub use lock::LOCK_WAIT_MS_MAX;
pub(crate) use lock::pause;
pub use nvme::{NamespaceError, NvmeFacts};
#[cfg(any(test, feature = "sim"))]
pub(crate) use open::settle_contents;
pub use open::{DirectMode, OpenOptions, Opened, open};
pub(crate) use open::{look, open_on_shard};
pub use poison::Inode;
pub(crate) use poison::{Poison, own_description};
pub use refusal::OpenError;
pub use signature::Signature;
pub use sysfs::{Device, Label};
pub(crate) use way::Way;

/// The descriptor of a target that is no file.
pub(crate) const NOWHERE: i32 = i32::MIN;

/// What the system has opened for a target.
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
    claim: Option<File>,
    poll: Poll,
    way: Option<Way>,
    lent: Option<File>,
    transfers: Transfers,
}

impl From<File> for Held {
    fn from(file: File) -> Self {
        Self::lent(file, None)
    }
}

impl From<Opened> for Held {
    fn from(opened: Opened) -> Self {
        let Opened { file, claim, poll, way, .. } = opened;
        Self { file, claim, poll, way, lent: None, transfers: Transfers::USUAL }
    }
}

impl Held {
    /// A file of the caller's, with what it was lent beside it.
    pub(crate) fn lent(file: File, lent: Option<File>) -> Self {
        let transfers = Transfers::USUAL;
        Self { file, claim: None, poll: Poll::Interrupt, way: None, lent, transfers }
    }

    /// The same, transferred to and from like that.
    pub(crate) fn asked(self, transfers: Transfers) -> Self {
        Self { transfers, ..self }
    }

    /// The file, where an op that is alone may go another way than the ring's.
    pub(crate) fn lone(&self) -> Option<&File> {
        let usual = self.poll == Poll::Interrupt && !self.transfers.is_flagged();
        Some(&self.file).filter(|_| usual)
    }

    /// Whether a ring beside the shard's is made for it, which clones what that has registered.
    pub(crate) fn wants_ring(&self, geometry: &Geometry) -> bool {
        geometry.facts.nvme.is_some() || is_polled(geometry, self.poll, self.transfers)
    }

    /// What handles of the same bytes have in common, whichever way they go.
    fn inode(&self) -> Option<Inode> {
        Inode::of(self.claim.as_ref().unwrap_or(&self.file))
    }
}

/// Whether completions are polled for, of a target that is not driven by commands.
fn is_polled(geometry: &Geometry, poll: Poll, transfers: Transfers) -> bool {
    poll != Poll::Interrupt && geometry.direct && !transfers.is_flagged()
}

/// Makes `fd` known to `ring`, by commands or to be polled for where that is wanted and can be.
fn register<R: Ring>(
    ring: &mut R,
    fd: i32,
    geometry: &Geometry,
    file: Option<&File>,
    poll: Poll,
    transfers: Transfers,
) -> FileRef {
    let beside = match geometry.facts.nvme {
        _ if fd == NOWHERE => ring.nowhere(),
        Some(nvme) => {
            let Transfers { read_fua, write_fua, .. } = transfers;
            let space = Space { read_fua, write_fua, ..nvme.space(file) };
            ring.register_namespace(fd, space, poll)
        }
        None if transfers.is_flagged() => ring.register_flagged(fd, transfers),
        None if is_polled(geometry, poll, transfers) => ring.register_polled(fd, poll),
        None => None,
    };
    beside.unwrap_or_else(|| ring.register_file(fd))
}

/// One open target of a shard.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) file: FileRef,
    pub(crate) geometry: Geometry,
    pub(crate) demands: Demands,
    /// What its ops have in common.
    pub(crate) course: Course,
    pub(crate) barrier: Barrier,
    /// The first flush that failed, for good, whichever handle it was of (F37).
    pub(crate) poison: Arc<Poison>,
    pub(crate) requests: VecDeque<FlushRequest>,
    /// One of this handle. See [`Targets::is_flushing`].
    pub(crate) flush_in_flight: bool,
    /// Queued views, ops and requests that name this target.
    pub(crate) users: u32,
    closing: bool,
    /// How lone ops go, where they have a choice.
    pub(crate) courses: Option<Box<Courses>>,
    /// Kept open until the last op has completed. `None` on a simulated device.
    pub(crate) opened: Option<File>,
    /// Kept open as long: nobody else mounts what it is.
    _claim: Option<File>,
    /// How durable writes become durable.
    pub(crate) sync: SyncReport,
    /// That was measured or chosen, or cannot be.
    pub(crate) sync_known: bool,
    /// Which writes are atomic.
    pub(crate) atomic: Option<AtomicWrite>,
    /// Space of the engine's own: what is done there is nobody's traffic, and not counted.
    pub(crate) scratch: bool,
    /// A write that flushes itself was started on it.
    pub(crate) dsyncs: bool,
    /// Keeps other handles from going the other way; `None` of what the engine has not opened.
    _way: Option<Way>,
    /// What the engine was lent, where `opened` is a description of its own beside it: a lock
    /// may depend on it.
    pub(crate) _lent: Option<File>,
    /// `EAGAIN` is an answer, and no op is tried again for it.
    pub(crate) nowait: bool,
    /// No discard has been refused that was sent as a command.
    pub(crate) takes_discards: bool,
}

/// The targets of a shard, by index. An index is reused only after its last op (R1).
#[derive(Debug, Default)]
pub(crate) struct Targets {
    table: Vec<Option<Target>>,
    waiting_for_flush: usize,
    /// What was measured of a device, by its `st_dev` and whether past the page cache.
    reports: Vec<((u64, bool), SyncReport)>,
    /// The target whose requests were flushed last.
    pub(crate) flushed_last: u32,
}

impl Targets {
    /// Makes `file`, or the bare descriptor `fd` of a simulated device, known to `ring`. The
    /// inode of the former is looked up where none is given.
    #[allow(clippy::too_many_arguments, reason = "what a target is made of")]
    pub(crate) fn add<R: Ring>(
        &mut self,
        name: String,
        held: Option<Held>,
        fd: i32,
        geometry: Geometry,
        inode: Option<Inode>,
        bounce_bytes_max: u32,
        ring: &mut R,
    ) -> u32 {
        let sector_max = if ring.plant(Plant::Assume512) { 512 } else { u32::MAX };
        let (offset_align, mem_align) =
            (geometry.offset_align.min(sector_max), geometry.mem_align.min(sector_max));
        let align = offset_align.max(mem_align);
        let transfer_max = geometry.transfer_bytes_max.min(ring.limits().transfer_bytes_max);
        let demands = Demands {
            offset_align,
            mem_align,
            transfer_bytes_max: (transfer_max & !(align - 1)).max(align),
            bounce_bytes_max: bounce_bytes_max & !(align - 1),
        };
        let inode = inode.or_else(|| held.as_ref().and_then(Held::inode));
        let poison = Poison::of(inode.filter(|_| !ring.plant(Plant::PoisonOneHandle)));
        let transfers = held.as_ref().map_or(Transfers::USUAL, |held| held.transfers);
        let (poll, opened, claim, way, lent) = match held {
            Some(Held { file, claim, poll, way, lent, .. }) => (poll, Some(file), claim, way, lent),
            None => (Poll::Interrupt, None, None, None, None),
        };
        let mut target = Target {
            name,
            file: register(ring, fd, &geometry, opened.as_ref(), poll, transfers),
            nowait: transfers.nowait,
            geometry,
            demands,
            course: Course::NONE,
            barrier: Barrier::default(),
            poison,
            requests: VecDeque::new(),
            flush_in_flight: false,
            users: 0,
            closing: false,
            courses: None,
            atomic: geometry.facts.atomic_write.filter(|_| geometry.direct),
            sync: SyncReport::FACTS,
            // A write command has a bit for it, which no measuring beats.
            sync_known: opened.is_none() || geometry.facts.nvme.is_some(),
            opened,
            _claim: claim,
            scratch: false,
            dsyncs: false,
            _way: way,
            _lent: lent,
            takes_discards: true,
        };
        let of_facts = match geometry.facts.nvme {
            Some(_) => SyncReport { method: SyncMethod::Dsync, ..SyncReport::FACTS },
            None => SyncReport::FACTS,
        };
        target.set_sync(of_facts);
        let free = self.table.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.table.push(None);
            self.table.len() - 1
        });
        self.table[at] = Some(target);
        u32::try_from(at).expect("fewer targets than descriptors")
    }

    #[inline]
    pub(crate) fn get(&self, target: u32) -> &Target {
        self.table[target as usize].as_ref().expect("a target outlives its handle and its ops")
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, target: u32) -> &mut Target {
        self.table[target as usize].as_mut().expect("a target outlives its handle and its ops")
    }

    /// Whether a flush of the file is in flight, of whichever of its handles on this shard: at
    /// most one at a time, because a second could succeed only because the first, which failed,
    /// has marked the lost pages clean (F37).
    pub(crate) fn is_flushing(&self, target: u32) -> bool {
        self.any_handle(target, |handle| handle.flush_in_flight)
    }

    /// Whether that is so of any handle of the file on this shard.
    pub(crate) fn any_handle(&self, target: u32, is_so: impl Fn(&Target) -> bool) -> bool {
        let entry = self.get(target);
        let same = |other: &&Target| Arc::ptr_eq(&other.poison, &entry.poison);
        // Looking at all the others is left out where nobody shares the file.
        let shared = Arc::strong_count(&entry.poison) > 1;
        is_so(entry) || (shared && self.table.iter().flatten().filter(same).any(is_so))
    }

    /// Whether two targets are handles of one file.
    pub(crate) fn are_one_file(&self, one: u32, other: u32) -> bool {
        one == other || Arc::ptr_eq(&self.get(one).poison, &self.get(other).poison)
    }

    /// Indices of all open targets.
    pub(crate) fn indices(&self) -> std::ops::Range<u32> {
        0..u32::try_from(self.table.len()).unwrap_or(u32::MAX)
    }

    /// The same, from the one behind the target whose requests were flushed last.
    pub(crate) fn in_turn(&self) -> impl Iterator<Item = u32> + use<> {
        let next = self.flushed_last.saturating_add(1).min(self.indices().end);
        (next..self.indices().end).chain(0..next)
    }

    /// Takes every file out of `ring`, which is about to go: what is still registered with it
    /// then, the kernel closes at some later time. Files with ops that never came back stay.
    #[cold]
    pub(crate) fn leave_ring<R: Ring>(&self, ring: &mut R) {
        for entry in self.table.iter().flatten().filter(|entry| entry.users == 0) {
            ring.unregister_file(entry.file);
        }
    }

    /// Whether there is a target at that index.
    pub(crate) fn exists(&self, target: u32) -> bool {
        self.table[target as usize].is_some()
    }

    /// One more view or op names the target.
    #[inline]
    pub(crate) fn retain(&mut self, target: u32) {
        self.get_mut(target).users += 1;
    }

    /// One fewer does. The last one after the handle has gone closes the file.
    #[inline]
    pub(crate) fn release<R: Ring>(&mut self, target: u32, ring: &mut R) {
        self.release_op(target, None, ring);
    }

    /// As `release`, for an op that ends; a write ends in its epoch.
    #[inline]
    pub(crate) fn release_op<R: Ring>(&mut self, target: u32, write: Option<Epoch>, ring: &mut R) {
        let entry = self.get_mut(target);
        if let Some(epoch) = write {
            entry.barrier.write_ended(epoch);
        }
        entry.users -= 1;
        if entry.closing && entry.users == 0 {
            self.close_now(target, ring);
        }
    }

    /// The handle has gone.
    pub(crate) fn close<R: Ring>(&mut self, target: u32, ring: &mut R) {
        let entry = self.get_mut(target);
        entry.closing = true;
        if entry.users == 0 {
            self.close_now(target, ring);
        }
    }

    #[cold]
    fn close_now<R: Ring>(&mut self, target: u32, ring: &mut R) {
        if let Some(closed) = self.table[target as usize].take() {
            ring.unregister_file(closed.file);
        }
    }

    /// Queues a flush request behind everything accepted so far.
    pub(crate) fn push_request(&mut self, target: u32, request: FlushRequest) {
        self.retain(target);
        self.get_mut(target).requests.push_back(request);
        self.waiting_for_flush += 1;
    }

    /// Takes the oldest flush request of the target.
    pub(crate) fn pop_request<R: Ring>(
        &mut self,
        target: u32,
        ring: &mut R,
    ) -> Option<FlushRequest> {
        let request = self.get_mut(target).requests.pop_front()?;
        self.waiting_for_flush -= 1;
        self.release(target, ring);
        Some(request)
    }

    /// Drops the newest flush request of the target.
    pub(crate) fn drop_last_request<R: Ring>(&mut self, target: u32, ring: &mut R) {
        if self.get_mut(target).requests.pop_back().is_some() {
            self.waiting_for_flush -= 1;
            self.release(target, ring);
        }
    }

    /// Takes the flush requests of all targets, which still count as users.
    #[cold]
    pub(crate) fn take_requests(&mut self) -> Vec<VecDeque<FlushRequest>> {
        let targets = self.table.iter_mut().flatten();
        targets.map(|target| std::mem::take(&mut target.requests)).collect()
    }

    /// What was measured of a device before.
    pub(crate) fn kept_report(&self, key: (u64, bool)) -> Option<SyncReport> {
        self.reports.iter().find(|(other, _)| *other == key).map(|(_, report)| *report)
    }

    /// Keeps what was measured of a device for other targets on it.
    pub(crate) fn keep_report(&mut self, key: (u64, bool), report: SyncReport) {
        self.reports.retain(|(other, _)| *other != key);
        self.reports.push((key, report));
    }

    /// Flush requests, and durable writes, that wait for a flush.
    #[inline]
    pub(crate) fn waiting_for_flush(&self) -> usize {
        self.waiting_for_flush
    }
}

impl Target {
    /// The caller says how durable writes are to be made durable.
    pub(crate) fn choose_sync_method(&mut self, method: SyncMethod) {
        self.set_sync(SyncReport { method, source: SyncSource::Chosen, ..self.sync });
        self.sync_known = true;
    }

    /// Whether its handle has gone.
    pub(crate) const fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether its ops can be linked to others: where the ring has them in its own queue.
    #[inline]
    pub(crate) fn can_link(&self) -> bool {
        !matches!(self.file, FileRef::Beside(_))
    }

    /// Whether the ring took it for what it is.
    pub(crate) fn is_served(&self) -> bool {
        self.geometry.facts.nvme.is_none() || !self.can_link()
    }

    /// How durable writes are made durable from now on, as far as the target can.
    pub(crate) fn set_sync(&mut self, mut report: SyncReport) {
        if report.method == SyncMethod::LinkedFlush && !self.can_link() {
            report.method = SyncMethod::WriteThenFlush;
        }
        self.sync = report;
    }

    /// Its length in bytes as of now: a file may have grown since it was opened.
    pub(crate) fn len_bytes(&self) -> u64 {
        let now = self.opened.as_ref().filter(|_| self.geometry.kind == TargetKind::File);
        let metadata = now.and_then(|file| file.metadata().ok());
        metadata.map_or(self.geometry.len_bytes, |metadata| metadata.len())
    }

    /// What an op came to that found no byte, or no space, at `failed_at`. A block device that
    /// ends before where it did when it was opened has shrunk, or was taken out and has length
    /// 0 since (F47): neither a file's end nor a lack of space says what is wrong.
    #[cold]
    pub(crate) fn explain_end(&self, failed_at: u64, error: Error) -> Error {
        let ended = matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NoSpace);
        let was_there =
            self.geometry.kind == TargetKind::BlockDevice && failed_at < self.geometry.len_bytes;
        if ended && was_there { Error::os(Errno::ENODEV as i32) } else { error }
    }

    #[inline]
    /// The error of everything that a failed flush has made uncertain.
    pub(crate) fn poison_error(&self) -> Option<Error> {
        self.poison.error()
    }
}
