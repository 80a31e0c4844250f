//! A connection within one process.
//!
//! Data flow: write packet → at most so many bytes in between → read packet of the other end.
//! Bytes are copied under a lock of the direction; packets complete outside it.
//!
//! Not here: addresses.

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use std::sync::{Mutex, PoisonError};

use mfio_core::wakers::tell_all;
use mfio_core::{Error as ByteError, ErrorKind as ByteKind, PacketId};
use mfio_core::{PacketIo, Read, Refused, View, Write};
use mfio_rt::Whole;

const EPIPE: i32 = 32;
const PIECE_BYTES: usize = 16 << 10;

/// One end of a connection in memory; see [`Duplex::pair`].
pub struct Duplex {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
}

/// Breaks a connection from outside.
#[derive(Clone)]
pub struct Breaker([Arc<Pipe>; 2]);

#[derive(Default)]
struct State {
    between: VecDeque<u8>,
    /// Each with whether it waits for all of its bytes.
    reads: VecDeque<(View<Read>, bool)>,
    writes: VecDeque<View<Write>>,
    closed: bool,
}

struct Pipe {
    state: Mutex<State>,
    capacity: usize,
}

/// A view that has its result, to be told outside the lock.
enum Ended {
    Filled(View<Read>),
    Written(View<Write>),
    Unread(View<Read>),
    Unwritten(View<Write>),
}

impl Ended {
    fn tell(self) {
        match self {
            Self::Filled(view) => view.filled(),
            Self::Written(view) => view.written(),
            Self::Unread(view) => view.fail(ByteKind::UnexpectedEof),
            Self::Unwritten(view) => view.fail(ByteError::os(EPIPE)),
        }
    }
}

impl Duplex {
    /// Two ends of a connection that holds at most `capacity` bytes (at least one) in each
    /// direction.
    #[must_use]
    pub fn pair(capacity: usize) -> (Self, Self) {
        let pipe = || {
            let state = Mutex::new(State::default());
            Arc::new(Pipe { state, capacity: capacity.max(1) })
        };
        let (one, two) = (pipe(), pipe());
        let other = Self { incoming: Arc::clone(&two), outgoing: Arc::clone(&one) };
        (Self { incoming: one, outgoing: two }, other)
    }

    /// Nothing more is written at this end: the other reads what there is, and then the end.
    pub fn finish(&self) {
        self.outgoing.change(|state| state.closed = true);
    }

    /// What breaks this connection, as a cable that is pulled.
    #[must_use]
    pub fn breaker(&self) -> Breaker {
        Breaker([Arc::clone(&self.incoming), Arc::clone(&self.outgoing)])
    }
}

impl Breaker {
    /// Breaks it: bytes in between are lost, reads end, writes fail.
    pub fn cut(&self) {
        tell_all(&self.0, |pipe| {
            pipe.change(|state| {
                state.between.clear();
                state.closed = true;
            });
        });
    }
}

impl Pipe {
    fn abandon(&self, packet: PacketId) {
        let mut found = None;
        self.change(|state| {
            let at = state.reads.iter().position(|(view, _)| view.packet_id() == packet);
            found = at.and_then(|at| state.reads.remove(at));
        });
        if let Some((view, _)) = found {
            view.fail(ByteKind::Cancelled);
        }
    }

    /// Changes the state, moves what can be moved, and tells whom it concerns.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut ended = Vec::new();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            while state.fill(self.capacity, &mut ended) | state.drain(&mut ended) {}
            if state.closed {
                ended.extend(state.writes.drain(..).map(Ended::Unwritten));
                ended.extend(state.reads.drain(..).map(|(view, _)| Ended::Unread(view)));
            }
        }
        // Their bytes have moved, or never will, whichever waker panics.
        tell_all(ended, Ended::tell);
    }
}

fn clip(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

impl State {
    /// Moves bytes of the first write; whether any moved.
    fn fill(&mut self, capacity: usize, ended: &mut Vec<Ended>) -> bool {
        let room = capacity.saturating_sub(self.between.len());
        let Some(view) = (!self.closed).then(|| self.writes.pop_front()).flatten() else {
            return false;
        };
        let many = clip(view.len(), room.min(PIECE_BYTES));
        if many == 0 && !view.is_empty() {
            self.writes.push_front(view);
            return false;
        }
        let mut piece = vec![0; many];
        if view.read_at(0, &mut piece).is_err() {
            // What follows would be misunderstood.
            self.closed = true;
            ended.push(Ended::Unwritten(view));
            return true;
        }
        self.between.extend(piece);
        if many as u64 == view.len() {
            ended.push(Ended::Written(view));
        } else {
            let (written, rest) = view.split_at(many as u64);
            ended.push(Ended::Written(written));
            self.writes.push_front(rest);
        }
        true
    }

    /// Moves bytes to the first read; whether any moved.
    fn drain(&mut self, ended: &mut Vec<Ended>) -> bool {
        let Some((mut view, whole)) = self.reads.pop_front() else { return false };
        let many = clip(view.len(), self.between.len().min(PIECE_BYTES));
        if many == 0 && !view.is_empty() {
            self.reads.push_front((view, whole));
            return false;
        }
        let piece: Vec<u8> = self.between.drain(..many).collect();
        view.write_at(0, &piece);
        if many as u64 == view.len() {
            ended.push(Ended::Filled(view));
        } else {
            let (filled, rest) = view.split_at(many as u64);
            ended.push(Ended::Filled(filled));
            if whole {
                self.reads.push_front((rest, whole));
            } else {
                ended.push(Ended::Unread(rest));
            }
        }
        true
    }
}

/// The two kinds of reads differ in how much they wait for.
macro_rules! reads {
    ($($place:ty: $whole:literal)*) => {
        $(impl PacketIo<Read, $place> for Duplex {
            fn send_io(&self, _: $place, view: View<Read>) -> Result<(), Refused<Read, $place>> {
                self.incoming.change(|state| state.reads.push_back((view, $whole)));
                Ok(())
            }

            fn abandon(&self, packet: PacketId) {
                self.incoming.abandon(packet);
            }
        })*
    };
}

reads! { (): false Whole: true }

impl PacketIo<Write, ()> for Duplex {
    fn send_io(&self, (): (), view: View<Write>) -> Result<(), Refused<Write, ()>> {
        self.outgoing.change(|state| state.writes.push_back(view));
        Ok(())
    }
}

impl Drop for Duplex {
    fn drop(&mut self) {
        // What was written can still be read by the other end.
        tell_all([&self.incoming, &self.outgoing], |pipe| {
            pipe.change(|state| state.closed = true);
        });
    }
}

impl fmt::Debug for Duplex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Duplex")
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Breaker")
    }
}

#[cfg(test)]
#[path = "duplex_tests.rs"]
mod tests;
