//! Where an op lives while it is in flight.
//!
//! A slot owns the memory of its op until the completion of the very op arrives: the view (and
//! with it the user's buffer), and the bounce buffer if there is one. The generation in the
//! tag tells a late completion of an earlier occupant from one that is meant (F04).
//!
//! Data flow: op → [`Slots::occupy`] → tag → CQE → [`Slots::find`] → [`Slots::vacate`].
//!
//! Not here: what ops do (`issue`), what completions mean (`reap`).

use std::hint::cold_path;
use std::mem::ManuallyDrop;

use mfio_core::{Lent, PacketId, Read, Write};

use super::barrier::Epoch;
use super::class::Class;
use super::direction::Direction;
use super::group::Group;
pub(super) use super::occupant::{Behind, FlushOp, Linked, Occupant, StepOp, Transfer};
use super::plain::{At, Plain, Whole};
use crate::buffer::{ArenaBuf, Region, quarantine};
use crate::metrics::{self, Stamps};
use crate::ring::Tag;

/// What is in a slot. Never dropped where it stands: it is taken out, or kept for ever.
#[derive(Debug)]
pub(super) enum State {
    /// A transfer in its short form. Nobody sees it: who looks at it finds a long one.
    Read(ManuallyDrop<Lent<Read>>),
    Write(ManuallyDrop<Lent<Write>>, Epoch),
    Free,
    /// Something that the slot table keeps beside the slot.
    Long,
}

/// A free slot, for a plain op.
pub(super) struct Vacancy<'a> {
    slot: u32,
    entry: &'a mut Slot,
    first_free: &'a mut u32,
    free: &'a mut u32,
}

impl Vacancy<'_> {
    #[inline(always)]
    pub(super) fn fill<D: Direction>(self, plain: Plain<D>) -> Tag {
        let Plain { lent, epoch, at } = plain;
        *self.first_free = self.entry.at.target;
        *self.free -= 1;
        self.entry.state = D::short(ManuallyDrop::new(lent), epoch);
        self.entry.at = at;
        Tag { slot: self.slot, generation: self.entry.generation }
    }
}

/// One cache line: it is written once and read once per I/O.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    state: State,
    generation: u32,
    /// Of a plain op; of a free slot, the target is the next free one.
    at: At,
}

/// What follows the last free slot.
const NO_SLOT: u32 = u32::MAX;

const _: () = assert!(size_of::<Slot>() == 64, "a plain op touches one cache line of its slot");

/// The op table of a shard. Its size bounds what is in flight.
///
/// Dropped with occupants, by whatever way, it keeps their memory for ever: the kernel may
/// still write to it (F02).
#[derive(Debug)]
pub(super) struct Slots {
    table: Vec<Slot>,
    /// The free slot that was used last; the others follow by their links.
    first_free: u32,
    free: u32,
    /// The occupants that are more than a plain op.
    long: Vec<Option<Occupant>>,
    /// The bounce buffer of each slot that has one, kept as long as its op is in flight.
    bounces: Vec<Option<ArenaBuf>>,
    /// Where latencies are wanted: when each occupant started.
    pub(super) stamps: Option<Stamps>,
    stamped: bool,
    /// When the op of each slot started, where that is wanted.
    stamps_ns: Vec<Option<u64>>,
    /// The parts of each op that has several, kept as long as it is in flight.
    groups: Vec<Option<Box<Group>>>,
}

impl Slots {
    pub(super) fn new(count: u32, stamps: Option<Stamps>) -> Self {
        assert!(count < NO_SLOT, "fewer slots than a tag can name");
        let next = |slot| if slot + 1 == count { NO_SLOT } else { slot + 1 };
        let at = |slot| At { target: next(slot), ..At::default() };
        let empty = |slot| Slot { state: State::Free, generation: 0, at: at(slot) };
        let table = (0..count).map(empty).collect();
        let first_free = if count == 0 { NO_SLOT } else { 0 };
        let long = (0..count).map(|_| None).collect();
        let bounces = (0..count).map(|_| None).collect();
        let stamps_ns = vec![None; count as usize];
        let groups = (0..count).map(|_| None).collect();
        let stamped = stamps.is_some();
        Self { table, first_free, free: count, long, bounces, stamps, stamped, stamps_ns, groups }
    }

    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free as usize
    }

    #[inline]
    pub(super) const fn free_count(&self) -> u32 {
        self.free
    }

    /// Whether latencies are wanted.
    #[inline]
    pub(super) const fn is_stamped(&self) -> bool {
        self.stamped
    }

    /// How many slots there are.
    pub(super) fn count(&self) -> usize {
        self.table.len()
    }

    /// Occupied slots: ops in flight, and ops that wait to be tried again.
    pub(super) fn occupied(&self) -> usize {
        self.table.len() - self.free()
    }

    /// As [`Slots::occupy`], where it is not hot.
    #[cold]
    #[inline(never)]
    pub(super) fn occupy_other(&mut self, occupant: Occupant) -> Tag {
        self.occupy(occupant)
    }

    /// Puts `occupant` into a free slot.
    pub(super) fn occupy(&mut self, occupant: Occupant) -> Tag {
        let (slot, entry) = self.take_free();
        match entry.state {
            State::Free => entry.state = State::Long,
            _ => unreachable!("a free slot is empty"),
        }
        let tag = Tag { slot, generation: entry.generation };
        self.long[slot as usize] = Some(occupant);
        tag
    }

    /// The free slot that was used last, if there is one.
    #[inline(always)]
    pub(super) fn vacancy(&mut self) -> Option<Vacancy<'_>> {
        let Self { table, first_free, free, .. } = self;
        let slot = *first_free;
        let entry = table.get_mut(slot as usize)?;
        matches!(entry.state, State::Free).then_some(Vacancy { slot, entry, first_free, free })
    }

    fn take_free(&mut self) -> (u32, &mut Slot) {
        let slot = self.first_free;
        let entry = self.table.get_mut(slot as usize);
        let entry = entry.expect("a slot is free: checked before the op was made");
        self.first_free = entry.at.target;
        self.free -= 1;
        (slot, entry)
    }

    /// Who is in the slot, if anybody: from now on in the long form.
    #[inline]
    fn look(&mut self, slot: usize) -> Option<&mut Occupant> {
        if matches!(self.table[slot].state, State::Read(_) | State::Write(..)) {
            self.lengthen(slot);
        }
        self.long[slot].as_mut()
    }

    #[cold]
    fn lengthen(&mut self, slot: usize) {
        let entry = &mut self.table[slot];
        let at = entry.at;
        let transfer = match std::mem::replace(&mut entry.state, State::Long) {
            State::Read(lent) => at.read(ManuallyDrop::into_inner(lent)),
            State::Write(lent, epoch) => at.write(ManuallyDrop::into_inner(lent), epoch),
            State::Free | State::Long => unreachable!("only what is short is made long"),
        };
        self.long[slot] = Some(Occupant::Transfer(transfer));
    }

    /// Keeps the parts of the op of `tag` until its completion.
    pub(super) fn keep_group(&mut self, tag: Tag, group: Box<Group>) {
        self.groups[tag.slot as usize] = Some(group);
    }

    /// The parts of the op of `tag`, taken out.
    pub(super) fn take_group(&mut self, tag: Tag) -> Option<Box<Group>> {
        self.groups[tag.slot as usize].take()
    }

    /// Wants every op stopped that has a part of `packet`; returns how many those are.
    pub(super) fn cancel_in_groups(&mut self, packet: PacketId) -> u64 {
        let mut found = 0;
        for (occupant, group) in self.long.iter_mut().zip(&mut self.groups) {
            if let (Some(Occupant::Transfer(transfer)), Some(group)) = (occupant, group)
                && group.cancel(packet)
            {
                transfer.cancel_requested = true;
                found += 1;
            }
        }
        found
    }

    /// Ops in flight or waiting to be tried again whose memory lies in `region`; of one with
    /// several parts, the parts say so.
    pub(super) fn ops_on(&self, region: &Region) -> usize {
        let grouped = self.groups.iter().flatten().filter(|group| group.touches(region)).count();
        let single = |occupant: &&Occupant| match occupant {
            Occupant::Transfer(transfer) => !transfer.grouped && transfer.memory.touches(region),
            // The memory of a step is its chain's, also between two launches.
            Occupant::Flush(_) | Occupant::Step(_) => false,
        };
        let plain = |entry: &&Slot| match &entry.state {
            State::Read(lent) => entry.at.memory(lent).touches(region),
            State::Write(lent, _) => entry.at.memory(lent).touches(region),
            State::Free | State::Long => false,
        };
        let plain = self.table.iter().filter(plain).count();
        grouped + plain + self.long.iter().flatten().filter(single).count()
    }

    /// Remembers when the op of `tag` started, if it is timed.
    pub(super) fn stamp(&mut self, tag: Tag, stamp_ns: Option<u64>) {
        self.stamps_ns[tag.slot as usize] = stamp_ns;
    }

    /// When the op of `tag` started, if it is timed.
    pub(super) fn stamp_of(&self, tag: Tag) -> Option<u64> {
        self.stamps_ns[tag.slot as usize]
    }

    /// Keeps `bounce` for the op of `tag` until its slot is vacated.
    #[cold]
    pub(super) fn keep_bounce(&mut self, tag: Tag, bounce: ArenaBuf) {
        self.bounces[tag.slot as usize] = Some(bounce);
    }

    /// The bounce buffer of the op of `tag`, taken out.
    #[cold]
    pub(super) fn take_bounce(&mut self, tag: Tag) -> Option<ArenaBuf> {
        self.bounces[tag.slot as usize].take()
    }

    /// The occupant that `tag` was made for, unless it has left (F04).
    #[inline]
    pub(super) fn find(&mut self, tag: Tag) -> Option<&mut Occupant> {
        let slot = tag.slot as usize;
        if self.table.get(slot)?.generation != tag.generation {
            return None;
        }
        self.look(slot)
    }

    /// As [`Slots::find`], for a read or a write.
    #[inline]
    pub(super) fn transfer(&mut self, tag: Tag) -> Option<&mut Transfer> {
        match self.find(tag) {
            Some(Occupant::Transfer(transfer)) => Some(transfer),
            _ => None,
        }
    }

    /// Takes the plain op of `tag` out of its slot, if it is one that `result` says is whole;
    /// else nothing has changed.
    #[inline(always)]
    pub(super) fn take_whole(&mut self, tag: Tag, result: i32) -> Option<Whole> {
        let entry = self.table.get_mut(tag.slot as usize)?;
        if !matches!(entry.state, State::Read(_) | State::Write(..)) {
            return None;
        }
        if entry.generation != tag.generation || !entry.at.is_whole(result) {
            return None;
        }
        entry.generation = entry.generation.wrapping_add(1);
        let target = std::mem::replace(&mut entry.at.target, self.first_free);
        self.first_free = tag.slot;
        self.free += 1;
        match std::mem::replace(&mut entry.state, State::Free) {
            State::Read(lent) => Some(Whole::Read(ManuallyDrop::into_inner(lent))),
            State::Write(lent, epoch) => {
                // Not as rare as this says; but one of the two has to stand apart.
                cold_path();
                Some(Whole::Write(ManuallyDrop::into_inner(lent), target, epoch))
            }
            State::Free | State::Long => unreachable!("looked at just now"),
        }
    }

    /// Empties the slot of `tag`; what still carries the tag is stale from now on.
    ///
    /// # Panics
    /// When the occupant has left already.
    #[inline(never)]
    pub(super) fn vacate(&mut self, tag: Tag) {
        if self.stamped {
            self.stamp_leaving(tag);
        }
        let entry = &mut self.table[tag.slot as usize];
        assert_eq!(entry.generation, tag.generation, "a slot is vacated by its own tag");
        entry.generation = entry.generation.wrapping_add(1);
        entry.at.target = self.first_free;
        self.first_free = tag.slot;
        self.free += 1;
        debug_assert!(!matches!(entry.state, State::Free), "a slot is vacated once");
        entry.state = State::Free;
        self.long[tag.slot as usize] = None;
    }

    /// The occupant of a slot is about to leave it, and its latency is wanted.
    #[cold]
    #[inline(never)]
    fn stamp_leaving(&mut self, tag: Tag) {
        match &self.long[tag.slot as usize] {
            Some(Occupant::Transfer(transfer)) => {
                let (class, is_read) = (transfer.class, transfer.is_read);
                self.stamp_left(tag, class, metrics::Direction::of(is_read));
            }
            Some(Occupant::Flush(_)) => {
                self.stamp_left(tag, Class::Foreground, metrics::Direction::Flush)
            }
            // A chain is timed as a whole by whoever awaits it.
            _ => {}
        }
    }

    /// An op that was timed has completed.
    #[cold]
    pub(super) fn stamp_left(&mut self, tag: Tag, class: Class, direction: metrics::Direction) {
        if let Some(stamps) = &mut self.stamps {
            stamps.left(tag.slot, class as usize, direction);
        }
    }

    /// An op of the slot was pushed, and its latency is wanted.
    #[cold]
    #[inline(never)]
    pub(super) fn stamp_pushed(&mut self, tag: Tag, now_ns: u64) {
        if let Some(stamps) = &mut self.stamps {
            stamps.pushed(tag.slot, now_ns);
        }
    }

    /// The latency of what is in the slot of `tag` is nobody's.
    #[cold]
    pub(super) fn forget_time(&mut self, tag: Tag) {
        if let Some(stamps) = &mut self.stamps {
            stamps.forget(tag.slot);
        }
    }

    /// Has every transfer on a target that `of` names counted as its user, by `tell`, which those
    /// that began in the short form are not yet.
    #[cold]
    pub(super) fn tell_targets(&mut self, of: impl Fn(u32) -> bool, mut tell: impl FnMut(u32)) {
        for (_, occupant) in self.iter_mut() {
            if let Occupant::Transfer(transfer) = occupant
                && of(transfer.target)
                && !std::mem::replace(&mut transfer.keeps_target, true)
            {
                tell(transfer.target);
            }
        }
    }

    /// Every occupant with its tag, in slot order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Tag, &mut Occupant)> {
        for slot in 0..self.table.len() {
            let _in_the_long_form = self.look(slot);
        }
        let slots = (0_u32..).zip(&self.table).zip(&mut self.long);
        slots.filter_map(|((slot, entry), occupant)| {
            let tag = Tag { slot, generation: entry.generation };
            occupant.as_mut().map(|occupant| (tag, occupant))
        })
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let occupied = self.occupied();
        if occupied > 0 {
            let groups = std::mem::take(&mut self.groups);
            let bounces = std::mem::take(&mut self.bounces);
            let long = std::mem::take(&mut self.long);
            let memory = (std::mem::take(&mut self.table), long, bounces, groups);
            quarantine(memory, "ops that did not come back before the shard was dropped", occupied);
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
