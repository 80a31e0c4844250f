//! What is sent of a packet, and what becomes of it: an answer, or the end of the connection.
//!
//! Data flow: reply, or bytes for a part of a read → table of calls → packet or slot, each
//! exactly once. Views are completed, and slots filled, outside the lock.
//!
//! Not here: what waits to be sent (`shared`).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::sync::Arc;
use alloc::vec::Vec;

use mfio_core::wakers::tell_all;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind, Perms, Read, View, Write};
use mfio_rt::{Error, ErrorKind};

use super::locked::call;
use super::locks::Undoing;
use super::pending::Slot;
use super::shared::{CUT, Call, Control, ECONNRESET, ENOTCONN, Opened, Phase, Shared, State};
use super::shared::{Transfer, Way, Work, refuse};
use crate::carrier::Cut;
use crate::wire::{DATA_BYTES_MAX, Reply, Request, WireError};

/// Bytes that one request reads at most.
const READ_BYTES_MAX: u64 = 4 << 20;

impl Shared {
    /// The bytes of a write have gone out.
    pub(crate) fn sent(&self, id: u64, view: View<Write>) {
        let mut state = self.lock();
        match state.calls.get_mut(&id) {
            Some(Call::Write { verdict, len, .. }) if verdict.is_some() => {
                let (failed, len) = (verdict.take().unwrap_or_default(), *len);
                state.calls.remove(&id);
                state.bytes = state.bytes.saturating_sub(len);
                state.wake_driver();
                state.answer(|| view.settle(&failed));
            }
            Some(Call::Write { view: place, .. }) => *place = Some(view),
            _ => {
                state.answer(|| view.fail(CUT));
            }
        }
    }

    /// A write is not sent after all.
    pub(crate) fn forget(&self, id: u64) -> Result<(), Cut> {
        let mut state = self.lock();
        if let Some(Call::Write { len, .. }) = state.calls.remove(&id) {
            state.bytes = state.bytes.saturating_sub(len);
        }
        Ok(())
    }

    /// The part of a read that the next bytes belong to.
    pub(crate) fn carve(&self, id: u64, at: u64, len: u64) -> Result<View<Read>, WireError> {
        let mut state = self.lock();
        let Some(Call::Read { pieces, left, empty }) = state.calls.get_mut(&id) else {
            return Err(WireError::Unasked);
        };
        if len == 0 && !*empty {
            return Err(WireError::Unasked);
        }
        let (&start, piece) = pieces.range(..=at).next_back().ok_or(WireError::Unasked)?;
        let (before, after) = (at - start, start.saturating_add(piece.len()));
        let end = at.checked_add(len).filter(|&end| end <= after).ok_or(WireError::Unasked)?;
        let mut view = pieces.remove(&start).ok_or(WireError::Unasked)?;
        // Never into empty parts: those would have to be completed in here.
        if before > 0 {
            let (first, rest) = view.split_at(before);
            pieces.insert(start, first);
            view = rest;
        }
        if end < after {
            let (wanted, rest) = view.split_at(len);
            pieces.insert(end, rest);
            view = wanted;
        }
        *left -= len;
        let over = *left == 0;
        if over {
            state.calls.remove(&id);
        }
        state.bytes = state.bytes.saturating_sub(len);
        state.wake_driver();
        // While the view is a variable, which is aborted if this panics; a value that is being
        // returned is not dropped then.
        drop(state);
        Ok(view)
    }

    /// Hands a reply to whoever waits for it.
    pub(crate) fn reply(&self, id: u64, reply: Reply) -> Result<(), WireError> {
        if let Reply::Missing { at, len, error } = reply {
            let view = self.carve(id, at, len)?;
            call(|| view.fail(error));
            return Ok(());
        }
        let mut state = self.lock();
        let (epoch, call) = (state.epoch, state.calls.get_mut(&id).ok_or(WireError::Unasked)?);
        match (call, reply) {
            (Call::Write { view, verdict, len }, Reply::Written { failed }) => {
                let Some(view) = view.take() else {
                    *verdict = Some(failed);
                    return Ok(());
                };
                let len = *len;
                state.calls.remove(&id);
                state.bytes = state.bytes.saturating_sub(len);
                state.wake_driver();
                state.answer(|| view.settle(&failed));
            }
            (Call::Control { slot, .. }, reply) => {
                let slot = slot.take();
                state.calls.remove(&id);
                state.wake_driver();
                let result = match reply {
                    Reply::Failed { error } => Err(error),
                    reply => Ok(reply),
                };
                state.answer(|| {
                    let Some(slot) = slot else { return };
                    slot.answered_by(epoch);
                    if let Some(unwanted) = slot.finish(result) {
                        self.undo(epoch, &slot, &unwanted);
                    }
                });
            }
            _ => return Err(WireError::Unasked),
        }
        Ok(())
    }

    /// Gives back what nobody wants any more.
    pub(crate) fn undo(&self, epoch: u32, slot: &Slot, unwanted: &Result<Reply, Error>) {
        match unwanted {
            Ok(Reply::Opened { handle }) => {
                self.notify(epoch, Request::Close { handle: *handle });
            }
            _ => self.undo_lock(epoch, slot, unwanted),
        }
    }

    /// The connection has ended: what was under way on it fails, each once.
    pub(crate) fn cut(&self, phase: Phase) {
        let (calls, controls, transfers) = {
            let mut state = self.lock();
            state.phase = phase;
            state.bytes = 0;
            state.notices.clear();
            state.undoing = Undoing::default();
            let calls = core::mem::take(&mut state.calls);
            if phase != Phase::Down {
                (calls, VecDeque::new(), VecDeque::new())
            } else {
                let controls = core::mem::take(&mut state.controls);
                (calls, controls, core::mem::take(&mut state.transfers))
            }
        };
        let unsent = ByteError::with_errno(ByteKind::Closed, ENOTCONN);
        let calls = calls.into_values().map(Concerned::UnderWay);
        let controls = controls.into_iter().map(Concerned::Unsent);
        let transfers = transfers.into_iter().map(Concerned::Untransferred);
        // Who is not told waits for ever: a waker that panics keeps it from nobody.
        tell_all(
            calls.chain(controls).chain(transfers).chain([Concerned::Room]),
            |one| match one {
                Concerned::UnderWay(call) => call.cut(),
                Concerned::Unsent(control) => refuse(control, ErrorKind::NotConnected, ENOTCONN),
                Concerned::Untransferred(transfer) => transfer.fail(unsent),
                Concerned::Room => self.wake_room(),
            },
        );
    }
}

/// Whom the end of a connection concerns.
enum Concerned {
    UnderWay(Call),
    Unsent(Control),
    Untransferred(Transfer),
    /// Those who wait for room.
    Room,
}

impl Call {
    fn cut(self) {
        match self {
            Self::Control { op, slot } => {
                let error = Error::new(op, ErrorKind::ConnectionReset).with_errno(ECONNRESET);
                if let Some(slot) = slot {
                    drop(slot.finish(Err(error)));
                }
            }
            Self::Read { pieces, .. } => tell_all(pieces.into_values(), |view| view.fail(CUT)),
            Self::Write { view, .. } => {
                if let Some(view) = view {
                    view.fail(CUT);
                }
            }
        }
    }
}

impl State {
    /// As much of a packet as fits into a request and the window; it comes back where nothing
    /// does.
    pub(super) fn start(&mut self, transfer: Transfer) -> Result<Work, Transfer> {
        let room = self.limits.bytes.saturating_sub(self.bytes);
        let most = match &transfer.way {
            Way::Read(_) => READ_BYTES_MAX,
            Way::Write(_) => DATA_BYTES_MAX as u64,
        };
        let most = most.min((self.limits.bytes / 2).max(1));
        let len = match &transfer.way {
            Way::Read(view) => view.len().min(most),
            Way::Write(view) => view.len().min(most),
        };
        if len > room {
            return Err(transfer);
        }
        let Transfer { file, at, way } = transfer;
        let (id, number) = (self.id(), file.number);
        self.bytes += len;
        match way {
            Way::Read(view) => {
                let (view, rest) = first(view, len);
                self.put_back(&file, at.saturating_add(len), rest.map(Way::Read));
                let pieces = BTreeMap::from([(0, view)]);
                self.calls.insert(id, Call::Read { pieces, left: len, empty: len == 0 });
                let request = Request::Read { file: number, at, len };
                Ok(Work::Send { id, request, keep: Vec::from([file]) })
            }
            Way::Write(view) => {
                let (view, rest) = first(view, len);
                self.put_back(&file, at.saturating_add(len), rest.map(Way::Write));
                self.calls.insert(id, Call::Write { view: None, verdict: None, len });
                let request = Request::Write { file: number, at };
                Ok(Work::Write { id, request, view, keep: file })
            }
        }
    }

    fn put_back(&mut self, file: &Arc<Opened>, at: u64, rest: Option<Way>) {
        if let Some(way) = rest {
            self.transfers.push_front(Transfer { file: Arc::clone(file), at, way });
        }
    }
}

/// The first `len` bytes and, if there are more, the rest.
fn first<P: Perms>(view: View<P>, len: u64) -> (View<P>, Option<View<P>>) {
    if view.len() <= len {
        return (view, None);
    }
    let (view, rest) = view.split_at(len);
    (view, Some(rest))
}

#[cfg(test)]
#[path = "calls_tests.rs"]
mod tests;
