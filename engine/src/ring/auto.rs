//! The ring of a program that does not care which: io_uring where it is to be had, else
//! blocking threads.
//!
//! Data flow: [`Backend`] and [`AutoConfig`] → [`AutoRing::new`] → one of two rings; every call
//! goes to that one by a `match`, never by a virtual call.
//!
//! Not here: the rings themselves (`kernel`, `threads`).

use std::fmt;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::kernel::{KernelConfig, KernelRing, KernelWaker, RingError};
use super::threads::{ThreadRing, ThreadWaker};
use super::{
    Completion, Features, FileRef, Head, Inline, Knob, Limits, NameEnd, NameKind, NameOp, Names,
    Op, OpKind, Plant, Poll, Ring, RingWaker, SocketOp, Sockets, Tag, Transfers, Wait,
};
use crate::buffer::{FixedBytes, FixedSpan, MemRange, Region};
use crate::nvme::Space;

/// Which ring is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// io_uring, or threads where it is not available. [`Features::degraded`] then says why.
    #[default]
    Auto,
    /// io_uring, or an error that says what forbids it.
    RequireRing,
    /// Threads, even where io_uring is available.
    Threads,
}

/// How large an [`AutoRing`] is to be, whichever it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AutoConfig {
    /// If it becomes a kernel ring.
    pub kernel: KernelConfig,
    /// Threads, if it becomes a thread ring; at least 1. Its queue is as deep as `kernel`'s.
    pub workers: usize,
}

impl AutoConfig {
    /// A submission queue of `queue_depth` entries, and 8 workers.
    #[must_use]
    pub const fn new(queue_depth: u32) -> Self {
        Self { kernel: KernelConfig::new(queue_depth), workers: 8 }
    }
}

/// Why there is no ring of either kind. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AutoError {
    /// io_uring is required, or refused for a reason that threads would not cure.
    Ring(RingError),
    /// The threads could not be started.
    Threads {
        /// What starting a thread said.
        errno: Errno,
    },
}

impl fmt::Display for AutoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => write!(f, "{error}"),
            Self::Threads { errno } => write!(
                f,
                "the threads that stand in for io_uring could not be started ({errno}): raise \
                 the limit on processes (ulimit -u, the pids cgroup)"
            ),
        }
    }
}

impl std::error::Error for AutoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ring(error) => Some(error),
            Self::Threads { .. } => None,
        }
    }
}

/// A ring that is one or the other; see [`Backend`].
///
/// Belongs to the thread that made it, whichever it is (F24).
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a shard has one, and reaches it for every op")]
pub enum AutoRing {
    /// io_uring.
    Kernel(KernelRing),
    /// Blocking threads.
    Threads(ThreadRing),
}

impl AutoRing {
    /// Makes the ring that `backend` asks for, on this thread.
    ///
    /// # Errors
    /// - [`AutoError::Ring`]: with [`Backend::RequireRing`], any [`RingError`]; with
    ///   [`Backend::Auto`], one that is no reason to do without io_uring (a queue depth that
    ///   cannot be, no descriptor left).
    /// - [`AutoError::Threads`]: there would have been threads instead.
    pub fn new(backend: Backend, config: &AutoConfig) -> Result<Self, AutoError> {
        Self::choose(backend, config, || KernelRing::new(&config.kernel))
    }

    fn choose(
        backend: Backend,
        config: &AutoConfig,
        kernel: impl FnOnce() -> Result<KernelRing, RingError>,
    ) -> Result<Self, AutoError> {
        if backend == Backend::Threads {
            return Self::threads(config).map(Self::Threads);
        }
        let refusal = match kernel() {
            Ok(ring) => return Ok(Self::Kernel(ring)),
            Err(error) => error,
        };
        if backend == Backend::RequireRing || !refusal.is_unavailable() {
            return Err(AutoError::Ring(refusal));
        }
        let mut ring = Self::threads(config)?;
        ring.degrade(format!(
            "{refusal}; continuing with {} blocking threads (Backend::RequireRing fails instead)",
            config.workers.max(1)
        ));
        Ok(Self::Threads(ring))
    }

    fn threads(config: &AutoConfig) -> Result<ThreadRing, AutoError> {
        let ring = ThreadRing::new(config.workers, config.kernel.queue_depth);
        ring.map_err(|errno| AutoError::Threads { errno })
    }
}

/// Calls the one ring that there is.
macro_rules! either {
    ($ring:expr, $one:ident => $call:expr) => {
        match $ring {
            AutoRing::Kernel($one) => $call,
            AutoRing::Threads($one) => $call,
        }
    };
}

impl Sockets for AutoRing {
    fn has_sockets(&self) -> bool {
        either!(self, ring => ring.has_sockets())
    }

    fn takes_many(&self) -> bool {
        either!(self, ring => ring.takes_many())
    }

    fn push_socket(&mut self, op: SocketOp, tag: Tag) {
        either!(self, ring => ring.push_socket(op, tag));
    }
}

impl Names for AutoRing {
    fn takes_names(&mut self, kind: NameKind) -> bool {
        either!(self, ring => ring.takes_names(kind))
    }

    fn has_room_for_name(&self) -> bool {
        either!(self, ring => ring.has_room_for_name())
    }

    fn push_name(&mut self, op: NameOp, tag: Tag) {
        either!(self, ring => ring.push_name(op, tag));
    }

    fn cancel_name(&mut self, tag: Tag) -> bool {
        either!(self, ring => ring.cancel_name(tag))
    }

    fn end_of_name(&mut self, tag: Tag) -> Option<NameEnd> {
        either!(self, ring => ring.end_of_name(tag))
    }
}

impl Ring for AutoRing {
    type Waker = AutoWaker;

    fn now_ns(&self) -> u64 {
        either!(self, ring => ring.now_ns())
    }

    #[inline]
    fn reserve(&mut self, count: u32) -> bool {
        either!(self, ring => ring.reserve(count))
    }

    #[inline]
    fn room(&mut self) -> u32 {
        either!(self, ring => ring.room())
    }

    #[inline]
    fn push(&mut self, op: Op, tag: Tag) {
        either!(self, ring => ring.push(op, tag));
    }

    #[inline]
    fn push_transfer(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        tag: Tag,
    ) {
        either!(self, ring => ring.push_transfer(kind, file, offset_bytes, memory, tag));
    }

    fn head(&self, kind: OpKind, file: FileRef) -> Option<Head> {
        either!(self, ring => ring.head(kind, file))
    }

    #[inline]
    fn push_fixed(
        &mut self,
        head: Head,
        of: (OpKind, FileRef),
        offset_bytes: u64,
        bytes: FixedBytes,
        tag: Tag,
    ) {
        either!(self, ring => ring.push_fixed(head, of, offset_bytes, bytes, tag));
    }

    #[inline]
    fn stage(&mut self, op: Op, tag: Tag, how: Inline) {
        either!(self, ring => ring.stage(op, tag, how));
    }

    #[inline]
    fn unstage(&mut self) {
        either!(self, ring => ring.unstage());
    }

    #[inline(always)]
    fn transfer_inline(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        how: Inline,
    ) -> Option<i32> {
        either!(self, ring => ring.transfer_inline(kind, file, offset_bytes, memory, how))
    }

    fn inline_ops(&self) -> u64 {
        either!(self, ring => ring.inline_ops())
    }

    #[inline]
    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        either!(self, ring => ring.enter(wait))
    }

    #[inline]
    fn is_straight(&self) -> bool {
        either!(self, ring => ring.is_straight())
    }

    #[inline]
    fn enter_straight(&mut self, min: u32) -> Result<u32, Errno> {
        either!(self, ring => ring.enter_straight(min))
    }

    #[inline]
    fn reap(&mut self, into: &mut Vec<Completion>) {
        either!(self, ring => ring.reap(into));
    }

    #[inline]
    fn reap_rest(
        &mut self,
        into: &mut Vec<Completion>,
        settle: impl FnMut(Completion) -> bool,
    ) -> u32 {
        either!(self, ring => ring.reap_rest(into, settle))
    }

    fn register_buffers(&mut self, region: &Region) {
        either!(self, ring => ring.register_buffers(region));
    }

    fn register_first(&mut self, region: &Region, bytes: usize) -> bool {
        either!(self, ring => ring.register_first(region, bytes))
    }

    fn register_rest(&mut self, region: &Region) {
        either!(self, ring => ring.register_rest(region));
    }

    fn add_region(&mut self, region: &Region) -> Option<FixedSpan> {
        either!(self, ring => ring.add_region(region))
    }

    fn remove_region(&mut self, span: FixedSpan) {
        either!(self, ring => ring.remove_region(span));
    }

    fn supports(&self, kind: OpKind) -> bool {
        either!(self, ring => ring.supports(kind))
    }

    fn register_file(&mut self, fd: i32) -> FileRef {
        either!(self, ring => ring.register_file(fd))
    }

    fn unregister_file(&mut self, file: FileRef) {
        either!(self, ring => ring.unregister_file(file));
    }

    fn register_namespace(&mut self, fd: i32, space: Space, poll: Poll) -> Option<FileRef> {
        either!(self, ring => ring.register_namespace(fd, space, poll))
    }

    fn register_polled(&mut self, fd: i32, poll: Poll) -> Option<FileRef> {
        either!(self, ring => ring.register_polled(fd, poll))
    }

    fn register_flagged(&mut self, fd: i32, transfers: Transfers) -> Option<FileRef> {
        either!(self, ring => ring.register_flagged(fd, transfers))
    }

    fn device_status(&self, tag: Tag) -> Option<u16> {
        either!(self, ring => ring.device_status(tag))
    }

    fn cancel(&mut self, tag: Tag) -> bool {
        either!(self, ring => ring.cancel(tag))
    }

    fn nowhere(&self) -> Option<FileRef> {
        either!(self, ring => ring.nowhere())
    }

    fn waker(&self) -> AutoWaker {
        match self {
            Self::Kernel(ring) => AutoWaker::Kernel(ring.waker()),
            Self::Threads(ring) => AutoWaker::Threads(ring.waker()),
        }
    }

    fn features(&self) -> &Features {
        either!(self, ring => ring.features())
    }

    #[inline]
    fn limits(&self) -> Limits {
        either!(self, ring => ring.limits())
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        either!(self, ring => ring.poll_fd())
    }

    fn watch(&mut self) {
        either!(self, ring => ring.watch());
    }

    #[inline]
    fn dropped_completions(&self) -> u32 {
        either!(self, ring => ring.dropped_completions())
    }

    #[inline]
    fn interleave(&self) {
        either!(self, ring => ring.interleave());
    }

    #[inline]
    fn plant(&self, plant: Plant) -> bool {
        either!(self, ring => ring.plant(plant))
    }

    #[inline(always)]
    fn knob(&self, knob: Knob, usual: usize) -> usize {
        either!(self, ring => ring.knob(knob, usual))
    }
}

/// The waker of an [`AutoRing`].
#[derive(Clone, Debug)]
pub enum AutoWaker {
    /// Of a kernel ring.
    Kernel(KernelWaker),
    /// Of a thread ring.
    Threads(ThreadWaker),
}

impl RingWaker for AutoWaker {
    fn wake(&self) {
        match self {
            Self::Kernel(waker) => waker.wake(),
            Self::Threads(waker) => waker.wake(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::RingKind;

    fn refused(backend: Backend, error: RingError) -> Result<AutoRing, AutoError> {
        let config = AutoConfig { workers: 2, ..AutoConfig::new(4) };
        AutoRing::choose(backend, &config, || Err(error))
    }

    fn forbidden() -> RingError {
        RingError::Forbidden { errno: Errno::EPERM, sysctl: Some(2) }
    }

    #[test]
    fn f31_forbidden_ring_falls_back_to_threads_and_says_so_once() {
        let ring = refused(Backend::Auto, forbidden()).unwrap();
        assert_eq!(ring.features().kind, RingKind::Threads);
        let [message] = &ring.features().degraded[..] else { panic!("one message") };
        for part in ["kernel.io_uring_disabled=2", "2 blocking threads", "RequireRing"] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn f31_required_ring_is_refused_with_the_reason() {
        let refusal = refused(Backend::RequireRing, forbidden()).unwrap_err();
        assert_eq!(refusal, AutoError::Ring(forbidden()));
        assert!(refusal.to_string().contains("kernel.io_uring_disabled=2"));
    }

    #[test]
    fn ring_that_threads_would_not_cure_is_an_error() {
        let error = RingError::Files { errno: Errno::EMFILE };
        assert_eq!(refused(Backend::Auto, error.clone()).unwrap_err(), AutoError::Ring(error));
    }

    #[test]
    fn threads_on_request_are_no_degradation() {
        let ring = AutoRing::new(Backend::Threads, &AutoConfig::new(4)).unwrap();
        assert_eq!(ring.features().kind, RingKind::Threads);
        assert!(ring.features().degraded.is_empty());
    }
}
