//! Reads of a session: cut into fragments, each of which is answered when it is ready.
//!
//! Data flow: request → fragments that wait → as many as there is room for: a buffer with room
//! for a header in front, filled behind it → replies.
//!
//! Not here: when there is room, how replies go out (`session`).

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use futures_util::stream::FuturesUnordered;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind, FailedRange};
use mfio_rt::{DirHandle, Op};

use super::Task;
use super::session::{EBADF, FRAGMENT_BYTES, Out, Session};
use crate::carrier::fill;
use crate::wire::{HEADER_BYTES, Reply};

/// The most bytes that one request may ask for.
const READ_BYTES_MAX: u64 = 4 << 20;

/// A part of a read.
pub(super) struct Fragment<D: DirHandle> {
    id: u64,
    file: Rc<D::File>,
    /// Where in the file.
    at: u64,
    /// Where in the request.
    place: u64,
    pub(super) len: u64,
    /// Fragments of the request that are not answered.
    left: Rc<Cell<u64>>,
}

impl<D: DirHandle> Session<'_, D> {
    /// Cuts a read into fragments, which wait until there is room for them.
    pub(super) fn start_read(&self, (id, file): (u64, u64), at: u64, len: u64) {
        self.count();
        let refused = |error| self.reply(id, Reply::Missing { at: 0, len, error }, 0);
        let Ok(file) = self.handles.file(file, Op::Read) else {
            return refused(ByteError::os(EBADF));
        };
        if len > READ_BYTES_MAX {
            return refused(ByteKind::OutOfRange.into());
        }
        let fragments = len.div_ceil(FRAGMENT_BYTES).max(1);
        let left = Rc::new(Cell::new(fragments));
        let all = (0..fragments).map(|number| {
            let place = number * FRAGMENT_BYTES;
            let (file, left) = (Rc::clone(&file), Rc::clone(&left));
            let (at, len) = (at.saturating_add(place), (len - place).min(FRAGMENT_BYTES));
            Fragment { id, file, at, place, len, left }
        });
        self.reads.borrow_mut().extend(all);
    }

    /// Begins the next fragment, if one waits and there is room for it.
    pub(super) fn begin_read<'t>(&'t self, tasks: &RefCell<FuturesUnordered<Task<'t>>>) -> bool {
        if !self.may_read() {
            return false;
        }
        let Some(fragment) = self.reads.borrow_mut().pop_front() else { return false };
        self.take_bytes(fragment.len);
        tasks.borrow().push(Box::pin(self.read_fragment(fragment)));
        true
    }

    async fn read_fragment(&self, fragment: Fragment<D>) {
        let Fragment { id, file, at, place, len, left } = fragment;
        let wanted = usize::try_from(len).unwrap_or(0) + HEADER_BYTES;
        let room = HEADER_BYTES as u64;
        // The room is written when it is known what was read. A long fragment is read whole, by
        // a thread of the file system: while that copies, another one goes out.
        let done = fill(&*file, at, self.buffer(wanted), room).await;
        let mut failed = done.failed_ranges();
        for range in &mut failed {
            range.start = range.start.saturating_sub(room);
            range.end = range.end.saturating_sub(room);
        }
        left.set(left.get() - 1);
        let last = u32::from(left.get() == 0);
        self.answer_fragment((id, place), done.into_buffer(), &failed, last);
    }

    /// Sends what was read of a fragment, and what was not.
    fn answer_fragment(
        &self,
        (id, base): (u64, u64),
        mut buffer: Vec<u8>,
        failed: &[FailedRange],
        requests: u32,
    ) {
        let len = (buffer.len() - HEADER_BYTES) as u64;
        let first = failed.first().map_or(len, |range| range.start.min(len));
        let index = |at: u64| usize::try_from(at).unwrap_or(0) + HEADER_BYTES;
        let mut outs = Vec::new();
        let out =
            |place, reply, data| Out { id, place, reply, data, requests: 0, bytes: 0, unsent: 0 };
        for (at, range) in failed.iter().enumerate() {
            let (start, end) = (range.start.min(len), range.end.min(len));
            let missing = end - start;
            let reply = Reply::Missing { at: base + start, len: missing, error: range.error };
            outs.push(out(0, reply, Vec::new()));
            let next = failed.get(at + 1).map_or(len, |next| next.start.min(len));
            if next > end {
                // With room for the header, as every data has it.
                let mut between = Vec::from([0; HEADER_BYTES]);
                between.extend_from_slice(&buffer[index(end)..index(next)]);
                outs.push(out(base + end, Reply::Data {}, between));
            }
        }
        buffer.truncate(index(first));
        if first > 0 || failed.is_empty() {
            outs.insert(0, out(base, Reply::Data {}, buffer));
        } else {
            self.keep(buffer);
        }
        if let Some(last) = outs.last_mut() {
            (last.requests, last.bytes, last.unsent) = (requests, len, len);
            self.unsent.set(self.unsent.get() + len);
        }
        outs.into_iter().for_each(|out| self.push(out));
    }
}
