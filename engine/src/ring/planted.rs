//! A ring with one deliberate bug of the shard switched on, to prove that a test can see it.
//!
//! Only for tests: with a memory bug planted, safe code is no longer safe. Data flow: every
//! call goes to the ring inside; only [`Ring::plant`] answers differently.
//!
//! Not here: the bugs, which are branches of the shard.

use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::Wait;
use super::{Completion, Features, FileRef, Inline, Knob, Limits, Op, OpKind, Plant, Poll};
use super::{Ring, Tag, Transfers};
use crate::buffer::{FixedSpan, MemRange, Region};
use crate::nvme::Space;

/// See the module's page.
#[derive(Debug)]
pub struct Planted<R: Ring>(pub R, pub Option<Plant>);

impl<R: Ring> Ring for Planted<R> {
    type Waker = R::Waker;

    fn now_ns(&self) -> u64 {
        self.0.now_ns()
    }

    fn reserve(&mut self, count: u32) -> bool {
        self.0.reserve(count)
    }

    fn room(&mut self) -> u32 {
        self.0.room()
    }

    fn push(&mut self, op: Op, tag: Tag) {
        self.0.push(op, tag);
    }

    fn stage(&mut self, op: Op, tag: Tag, how: Inline) {
        self.0.stage(op, tag, how);
    }

    fn unstage(&mut self) {
        self.0.unstage();
    }

    fn transfer_inline(
        &mut self,
        kind: OpKind,
        file: FileRef,
        offset_bytes: u64,
        memory: MemRange,
        how: Inline,
    ) -> Option<i32> {
        self.0.transfer_inline(kind, file, offset_bytes, memory, how)
    }

    fn inline_ops(&self) -> u64 {
        self.0.inline_ops()
    }

    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        self.0.enter(wait)
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        self.0.reap(into);
    }

    fn register_buffers(&mut self, region: &Region) {
        self.0.register_buffers(region);
    }

    fn add_region(&mut self, region: &Region) -> Option<FixedSpan> {
        self.0.add_region(region)
    }

    fn remove_region(&mut self, span: FixedSpan) {
        self.0.remove_region(span);
    }

    fn register_file(&mut self, fd: i32) -> FileRef {
        self.0.register_file(fd)
    }

    fn unregister_file(&mut self, file: FileRef) {
        self.0.unregister_file(file);
    }

    fn register_namespace(&mut self, fd: i32, space: Space, poll: Poll) -> Option<FileRef> {
        self.0.register_namespace(fd, space, poll)
    }

    fn register_polled(&mut self, fd: i32, poll: Poll) -> Option<FileRef> {
        self.0.register_polled(fd, poll)
    }

    fn register_flagged(&mut self, fd: i32, transfers: Transfers) -> Option<FileRef> {
        self.0.register_flagged(fd, transfers)
    }

    fn device_status(&self, tag: Tag) -> Option<u16> {
        self.0.device_status(tag)
    }

    fn cancel(&mut self, tag: Tag) -> bool {
        self.0.cancel(tag)
    }

    fn nowhere(&self) -> Option<FileRef> {
        self.0.nowhere()
    }

    fn waker(&self) -> Self::Waker {
        self.0.waker()
    }

    fn features(&self) -> &Features {
        self.0.features()
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.poll_fd()
    }

    fn watch(&mut self) {
        self.0.watch();
    }

    fn dropped_completions(&self) -> u32 {
        self.0.dropped_completions()
    }

    fn supports(&self, kind: OpKind) -> bool {
        self.0.supports(kind)
    }

    fn interleave(&self) {
        self.0.interleave();
    }

    fn plant(&self, plant: Plant) -> bool {
        self.1 == Some(plant)
    }

    fn knob(&self, knob: Knob, usual: usize) -> usize {
        self.0.knob(knob, usual)
    }
}
