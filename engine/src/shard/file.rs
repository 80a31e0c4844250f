//! The handle of one target: where packets are sent.
//!
//! Data flow: packet → [`File`] → the shard's core. Errors gain their operation, target and
//! range here, where they are awaited.
//!
//! Not here: opening (`target`).

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll};

use mfio_core::backend::PollingHandle;
use mfio_core::stream::Length;
use mfio_core::{
    BackendBusy, BackendHandle, Buffer, Completed, Error, IoBackend, Packet, PacketId, PacketIo,
    PacketIoExt, Perms, Read, Refused, View, Write,
};

use super::Shard;
use super::bypass::{Bypass, Lone};
use super::class::Class;
use super::core::{Bytes, Core, Ending};
use super::durable::{How, WriteAt};
use super::flush::{TicketId, Waiter};
use super::issue::WriteTerms;
use super::straight::Course;
use crate::error::{IoError, explain};
use crate::ring::{AutoRing, Ring};
use crate::target::{Geometry, Held, Inode, NOWHERE};

/// A byte offset at which a write is acknowledged only when it survives power loss.
///
/// The write is linked to an `fdatasync(2)`; where the kernel makes it short, the engine
/// writes the rest and flushes again, so the acknowledgement never comes early (F14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable(pub u64);

/// What is to survive power loss when a write, a flush or a step of a chain has succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The data and the metadata needed to read it back (`fdatasync(2)`).
    Data,
    /// All metadata as well (`fsync(2)`).
    Full,
    /// Nothing: a flush of it has nothing to do.
    None,
    /// As `Data`, by writes that flush themselves (`RWF_DSYNC`), whatever the target's method:
    /// with direct I/O to blocks that were written before, a device with FUA makes just these
    /// bytes durable. Unsupported through the page cache. Of a flush, the same as `Data`.
    Fua,
}

/// An open target of a shard. Cloning copies a pointer; the file is closed when the last
/// handle has gone and the last op on it has completed.
pub struct File<R: Ring = AutoRing> {
    inner: Rc<FileInner<R>>,
    class: Class,
}

struct FileInner<R: Ring> {
    shard: Shard<R>,
    target: u32,
    course: Course,
}

impl<R: Ring> Drop for FileInner<R> {
    fn drop(&mut self) {
        self.shard.inner.core.borrow_mut().close_target(self.target);
    }
}

impl<R: Ring> Clone for File<R> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner), class: self.class }
    }
}

impl<R: Ring> Shard<R> {
    /// A target that is no file: packets go all the way, each op is a nop of the ring, and no byte
    /// moves. For measuring the engine by itself. `None` where the ring has no such thing; before
    /// Linux 6.10, a read of it ends as at the end of a file.
    #[must_use]
    pub fn nowhere(&self) -> Option<File<R>> {
        self.inner.core.borrow().ring.nowhere()?;
        Some(File::add(self, "nowhere".to_owned(), None, NOWHERE, Geometry::NOWHERE, None))
    }
}

impl<R: Ring> File<R> {
    pub(super) fn add(
        shard: &Shard<R>,
        name: String,
        held: Option<Held>,
        fd: i32,
        geometry: Geometry,
        inode: Option<Inode>,
    ) -> Self {
        let mut core = shard.inner.core.borrow_mut();
        let target = core.add_target(name, held, fd, geometry, inode);
        let course = core.set_course(target);
        drop(core);
        let inner = Rc::new(FileInner { shard: shard.clone(), target, course });
        Self { inner, class: Class::Foreground }
    }

    /// The same target, for traffic of `class`: the packets of this handle, and of its clones,
    /// wait in the queue of that class. Flushes have no class.
    #[must_use]
    pub fn with_class(&self, class: Class) -> Self {
        Self { inner: Rc::clone(&self.inner), class }
    }

    /// What the packets of this handle are for.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Whether the ring has it beside its main queue, where transfers carry flags.
    pub(super) fn is_flagged(&self) -> bool {
        !self.shard().inner.core.borrow().targets.get(self.target()).can_link()
    }

    /// Whether the ring can do what a target of this kind needs.
    pub(super) fn is_served(&self) -> bool {
        self.shard().inner.core.borrow().targets.get(self.target()).is_served()
    }

    pub(super) fn target(&self) -> u32 {
        self.inner.target
    }

    #[inline(always)]
    pub(super) fn course(&self) -> &Course {
        &self.inner.course
    }

    /// The shard that the target belongs to.
    #[must_use]
    pub fn shard(&self) -> &Shard<R> {
        &self.inner.shard
    }

    /// Alignments and limits of the target.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        self.inner.shard.inner.core.borrow().targets.get(self.inner.target).geometry
    }

    /// How an op goes that has nothing else in flight beside it: through the ring, or by a
    /// plain system call where that was measured to be faster.
    #[must_use]
    pub fn bypass(&self) -> Bypass {
        let core = self.inner.shard.inner.core.borrow();
        let courses = &core.targets.get(self.inner.target).courses;
        let none = Bypass { read: Lone::RingOnly, write: Lone::RingOnly };
        courses.as_ref().map_or(none, |courses| courses.state())
    }

    /// Whether a flush of the file has failed, through this handle or any other of this process
    /// that was open then: nothing is accepted for writing any more (F37). Open it again, which
    /// may answer [`OpenError::LostData`](crate::target::OpenError::LostData) first.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poison_error().is_some()
    }

    /// What everything that writes fails with, where that is so.
    pub(crate) fn poison_error(&self) -> Option<Error> {
        self.inner.shard.inner.core.borrow().targets.get(self.inner.target).poison_error()
    }

    /// A duplicate of what was opened, for calls that no ring has an op for.
    pub(crate) fn duplicate(&self) -> std::io::Result<std::fs::File> {
        let core = self.inner.shard.inner.core.borrow();
        let opened = core.targets.get(self.inner.target).opened.as_ref();
        opened.map_or(Err(std::io::ErrorKind::Unsupported.into()), std::fs::File::try_clone)
    }

    /// Fills all of `buffer` from byte `offset` on. The buffer comes back in either case.
    ///
    /// # Errors
    /// Resolves to `(Err, buffer)` with what failed, where, and how much was read before it;
    /// a target that ends inside the range is `UnexpectedEof`.
    ///
    /// # Cancel safety
    /// Dropping the future frees the buffer when the kernel is through with it.
    #[inline(always)]
    pub fn read_exact_at<B: Buffer<Read>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> impl Future<Output = (Result<(), IoError>, B)> {
        self.whole::<Read, B>("read", offset, buffer)
    }

    /// Writes all of `buffer` from byte `offset` on. Not durable before a [`File::sync`].
    ///
    /// # Errors
    /// Resolves to `(Err, buffer)` with what failed, where, and how much was written before.
    ///
    /// # Cancel safety
    /// Dropping the future does not undo what was written; any part of it may have been.
    #[inline(always)]
    pub fn write_all_at<B: Buffer<Write>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> impl Future<Output = (Result<(), IoError>, B)> {
        self.whole::<Write, B>("write", offset, buffer)
    }

    /// Writes all of `buffer` from byte `offset` on and resolves when it survives power loss.
    ///
    /// The first call on a device finds out which method is the fastest there, on a nameless
    /// file beside the target ([`File::calibrate`]), which takes up to a second; not where the
    /// method was chosen ([`File::set_sync_method`]).
    ///
    /// # Errors
    /// As [`File::write_all_at`] and [`File::sync`]. After an error nothing is promised of
    /// any part of the range.
    ///
    /// # Cancel safety
    /// As [`File::write_all_at`].
    pub async fn write_durable_at<B: Buffer<Write>>(
        &self,
        offset: u64,
        buffer: B,
    ) -> (Result<(), IoError>, B) {
        let len = buffer.byte_len();
        if self.wants_calibration() {
            let _report = self.calibrate().await;
        }
        let packet = Packet::<Write, _>::new(buffer);
        let done = self.io(Durable(offset), packet).await;
        self.explain("durable write", offset, len, done)
    }

    pub(super) fn explain<P: Perms, B: Buffer<P>>(
        &self,
        op: &'static str,
        offset_bytes: u64,
        len_bytes: u64,
        done: Completed<P, B>,
    ) -> (Result<(), IoError>, B) {
        explain(done, |done_bytes, error| {
            self.io_error(op, offset_bytes, len_bytes, done_bytes, error)
        })
    }

    pub(crate) fn io_error(
        &self,
        op: &'static str,
        offset_bytes: u64,
        len_bytes: u64,
        done_bytes: u64,
        error: Error,
    ) -> IoError {
        let core = self.inner.shard.inner.core.borrow();
        let target = core.targets.get(self.inner.target).name.clone();
        IoError { op, target, offset_bytes, len_bytes, done_bytes, error }
    }

    #[cold]
    #[inline(never)]
    pub(super) fn send_write(
        &self,
        offset: u64,
        how: How,
        view: View<Write>,
    ) -> Option<View<Write>> {
        let target = self.inner.target;
        let mut core = self.inner.shard.inner.core.borrow_mut();
        if self.class != Class::Foreground || core.classes.is_watching() {
            drop(core);
            return self.send_write_in_class(offset, how, view);
        }
        if !core.has_room() {
            return Some(view);
        }
        core.unreserve(1);
        if let Some(error) = core.refusal(target, true) {
            core.endings.push(Ending::FailedWrite(view, error));
        } else {
            let epoch = core.targets.get_mut(target).barrier.write_started();
            let terms = WriteTerms { epoch, how, ..core.terms() };
            let rest = if core.must_queue() {
                Some((offset, view))
            } else {
                core.advance(target, offset, view, terms)
            };
            if let Some((at, view)) = rest {
                core.queue_rest(target, at, Bytes::Write { view, epoch, how });
            }
        }
        drop(core);
        self.inner.shard.inner.deliver();
        None
    }

    /// As `send_write`; what the target cannot promise fails without being issued.
    fn send_with_terms(&self, at: WriteAt, view: View<Write>) -> Option<View<Write>> {
        let mut core = self.inner.shard.inner.core.borrow_mut();
        let how = core.how(self.inner.target, at, view.len());
        let Err(kind) = how else {
            drop(core);
            return self.send_write(at.offset_bytes, how.unwrap_or_default(), view);
        };
        if !core.has_room_in(self.class) {
            return Some(view);
        }
        core.unreserve_in(self.class, 1);
        core.endings.push(Ending::FailedWrite(view, kind.into()));
        drop(core);
        self.inner.shard.inner.deliver();
        None
    }

    #[cold]
    #[inline(never)]
    pub(super) fn send_read_otherwise(&self, offset: u64, view: View<Read>) -> Option<View<Read>> {
        let target = self.inner.target;
        let mut core = self.inner.shard.inner.core.borrow_mut();
        if self.class != Class::Foreground || core.classes.is_watching() {
            drop(core);
            return self.send_read_in_class(offset, view);
        }
        if !core.has_room() {
            return Some(view);
        }
        core.unreserve(1);
        if let Some(error) = core.refusal(target, false) {
            core.endings.push(Ending::FailedRead(view, error));
        } else {
            let rest = if core.must_queue() {
                Some((offset, view))
            } else {
                let terms = core.terms();
                core.advance(target, offset, view, terms)
            };
            if let Some((at, view)) = rest {
                core.queue_rest(target, at, Bytes::Read(view));
            }
        }
        drop(core);
        self.inner.shard.inner.deliver();
        None
    }

    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.inner.shard.inner.core.borrow().has_room_in(self.class) {
            return Poll::Ready(());
        }
        // Cloned while nothing is borrowed: that may run anything.
        let waker = cx.waker().clone();
        let mut core = self.inner.shard.inner.core.borrow_mut();
        let waiting = core.waiting_in(self.class);
        if !waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
            waiting.push(waker);
        }
        Poll::Pending
    }

    fn abandon(&self, packet: PacketId) {
        self.inner.shard.inner.core.borrow_mut().abandon(packet);
        self.inner.shard.inner.deliver();
    }
}

impl<R: Ring> Core<R> {
    /// Makes an open file a target.
    pub(super) fn add_target(
        &mut self,
        name: String,
        held: Option<Held>,
        fd: i32,
        geometry: Geometry,
        inode: Option<Inode>,
    ) -> u32 {
        let bounce_max = u32::try_from(self.arena.len_bytes_max()).unwrap_or(u32::MAX);
        let courses = self.courses(held.as_ref().and_then(Held::lone), &geometry);
        self.lone_ways |= courses.is_some();
        if held.as_ref().is_some_and(|held| held.wants_ring(&geometry)) {
            // That ring would pin once more what comes later.
            self.register_rest();
        }
        let Self { targets, ring, .. } = self;
        let target = targets.add(name, held, fd, geometry, inode, bounce_max, ring);
        targets.get_mut(target).courses = courses;
        target
    }

    /// Asks for everything accepted so far to be made durable; the ticket gets the answer.
    pub(super) fn sync(&mut self, target: u32, durability: Durability) -> TicketId {
        let ticket = self.tickets.open();
        if durability == Durability::None {
            self.answer(target, Waiter::Ticket(ticket), Ok(()));
        } else {
            let all_metadata = durability == Durability::Full;
            self.request_flush(target, all_metadata, Waiter::Ticket(ticket));
        }
        ticket
    }
}

/// Room and leaving are the shard's, whichever way the bytes go.
macro_rules! admission {
    () => {
        fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
            self.poll_room(cx)
        }

        fn reserve(&self, views: usize) -> bool {
            self.inner.shard.inner.core.borrow_mut().reserve_in(self.class, views)
        }

        fn release(&self, views: usize) {
            self.inner.shard.inner.core.borrow_mut().unreserve_in(self.class, views);
        }

        fn abandon(&self, packet: PacketId) {
            Self::abandon(self, packet);
        }
    };
}

impl<R: Ring> PacketIo<Read, u64> for File<R> {
    #[inline(always)]
    fn send_io(&self, param: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.send_read(param, view)
    }

    admission!();
}

impl<R: Ring> PacketIo<Write, u64> for File<R> {
    #[inline]
    fn send_io(&self, param: u64, view: View<Write>) -> Result<(), Refused<Write>> {
        self.send_plain_write(param, view)
    }

    admission!();
}

impl<R: Ring> PacketIo<Write, Durable> for File<R> {
    fn send_io(&self, param: Durable, view: View<Write>) -> Result<(), Refused<Write, Durable>> {
        let sent = self.send_with_terms(param.into(), view);
        sent.map_or(Ok(()), |view| Err(Refused { param, view }))
    }

    admission!();
}

impl<R: Ring> PacketIo<Write, WriteAt> for File<R> {
    fn send_io(&self, param: WriteAt, view: View<Write>) -> Result<(), Refused<Write, WriteAt>> {
        self.send_with_terms(param, view).map_or(Ok(()), |view| Err(Refused { param, view }))
    }

    admission!();
}

impl<R: Ring> IoBackend for File<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.inner.shard.polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.inner.shard.get_backend()
    }
}

impl<R: Ring> Length for File<R> {
    /// As of now, by `fstat(2)`: a file may grow. Writes in flight do not count yet.
    fn len_bytes(&self) -> Option<u64> {
        Some(self.inner.shard.inner.core.borrow().targets.get(self.inner.target).len_bytes())
    }
}

impl<R: Ring> fmt::Debug for File<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("File").field("target", &self.inner.target).finish_non_exhaustive()
    }
}
