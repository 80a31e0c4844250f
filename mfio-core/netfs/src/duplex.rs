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

/// Views that have their result, to be told outside the lock.
#[derive(Default)]
struct Ended {
    filled: Vec<View<Read>>,
    written: Vec<View<Write>>,
    unread: Vec<View<Read>>,
    unwritten: Vec<View<Write>>,
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
        for pipe in &self.0 {
            pipe.change(|state| {
                state.between.clear();
                state.closed = true;
            });
        }
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
        let mut ended = Ended::default();
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            while state.fill(self.capacity, &mut ended) | state.drain(&mut ended) {}
            if state.closed {
                ended.unwritten.extend(state.writes.drain(..));
                ended.unread.extend(state.reads.drain(..).map(|(view, _)| view));
            }
        }
        // What a waker that panics leaves behind here is dropped, and views that are dropped end.
        ended.filled.into_iter().for_each(View::filled);
        ended.written.into_iter().for_each(View::written);
        ended.unread.into_iter().for_each(|view| view.fail(ByteKind::UnexpectedEof));
        let broken = ByteError::os(EPIPE);
        ended.unwritten.into_iter().for_each(|view| view.fail(broken));
    }
}

fn clip(len: u64, most: usize) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX).min(most)
}

impl State {
    /// Moves bytes of the first write; whether any moved.
    fn fill(&mut self, capacity: usize, ended: &mut Ended) -> bool {
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
            ended.unwritten.push(view);
            return true;
        }
        self.between.extend(piece);
        if many as u64 == view.len() {
            ended.written.push(view);
        } else {
            let (written, rest) = view.split_at(many as u64);
            ended.written.push(written);
            self.writes.push_front(rest);
        }
        true
    }

    /// Moves bytes to the first read; whether any moved.
    fn drain(&mut self, ended: &mut Ended) -> bool {
        let Some((mut view, whole)) = self.reads.pop_front() else { return false };
        let many = clip(view.len(), self.between.len().min(PIECE_BYTES));
        if many == 0 && !view.is_empty() {
            self.reads.push_front((view, whole));
            return false;
        }
        let piece: Vec<u8> = self.between.drain(..many).collect();
        view.write_at(0, &piece);
        if many as u64 == view.len() {
            ended.filled.push(view);
        } else {
            let (filled, rest) = view.split_at(many as u64);
            ended.filled.push(filled);
            if whole {
                self.reads.push_front((rest, whole));
            } else {
                ended.unread.push(rest);
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
        self.incoming.change(|state| state.closed = true);
        self.outgoing.change(|state| state.closed = true);
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
