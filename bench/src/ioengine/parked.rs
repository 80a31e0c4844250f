//! Packets between two I/Os of theirs.
//!
//! Data flow: completed -> the place of its slot -> taken for the slot's next I/O.
//!
//! Not here: sending them (`io_uring`).

use std::hint::cold_path;

use mfio_core::{Packet, Read, Write};
use mfio_engine::buffer::ArenaBuf;

/// The packets that wait in their slots for their next I/O; each slot has one, of either
/// direction. Two tables, because a word that is null or not is quicker to move than an enum.
pub(super) struct Parked {
    pub(super) reads: Vec<Option<Packet<Read, ArenaBuf>>>,
    pub(super) writes: Vec<Option<Packet<Write, ArenaBuf>>>,
}

/// A slot in flight was asked for its packet: the worker's books are wrong.
const IN_FLIGHT: &str = "a slot without I/O in flight has its packet";

impl Parked {
    #[inline]
    pub(super) fn buffer(&mut self, slot: usize) -> &mut ArenaBuf {
        match (&mut self.reads[slot], &mut self.writes[slot]) {
            (Some(packet), _) => packet.buffer_mut(),
            (None, other) => other.as_mut().expect(IN_FLIGHT).buffer_mut(),
        }
    }

    /// Takes the packet for reading; one that wrote gives its buffer and its header on.
    #[inline(always)]
    pub(super) fn take_read(&mut self, slot: usize) -> Packet<Read, ArenaBuf> {
        match self.reads[slot].take() {
            Some(packet) => packet,
            None => Packet::new(self.writes[slot].take().expect(IN_FLIGHT).into_buffer()),
        }
    }

    #[inline]
    pub(super) fn take_write(&mut self, slot: usize) -> Packet<Write, ArenaBuf> {
        match self.writes[slot].take() {
            Some(packet) => packet,
            None => Packet::new(self.reads[slot].take().expect(IN_FLIGHT).into_buffer()),
        }
    }

    #[inline(always)]
    pub(super) fn park_read(&mut self, slot: usize, packet: Packet<Read, ArenaBuf>) {
        park(&mut self.reads[slot], packet);
    }

    #[inline(always)]
    pub(super) fn park_write(&mut self, slot: usize, packet: Packet<Write, ArenaBuf>) {
        park(&mut self.writes[slot], packet);
    }
}

/// Puts a packet where there is none.
#[inline(always)]
fn park<T>(place: &mut Option<T>, packet: T) {
    if let Some(other) = place.replace(packet) {
        cold_path();
        drop(other);
    }
}
