//! Where an op lives while it is in flight.
//!
//! A slot owns the memory of its op until the completion of the very op arrives: the view (and
//! with it the user's buffer), and the bounce buffer if there is one. The generation in the
//! tag tells a late completion of an earlier occupant from one that is meant (F04).
//!
//! Data flow: op → [`Slots::occupy`] → tag → CQE → [`Slots::find`] → [`Slots::vacate`].
//!
//! Not here: what ops do (`issue`), what completions mean (`reap`).

use mfio_core::PacketId;

use super::barrier::Epoch;
use super::body::Body;
use super::chain_table::ChainId;
use super::class::Class;
use super::group::Group;
use crate::buffer::{ArenaBuf, MemRange, Region, quarantine};
use crate::metrics::{Direction, Stamps};
use crate::ring::Tag;

/// How far the flush behind a durable write has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linked {
    /// The write asks for no durability.
    No,
    /// No flush is linked to the write (any more): one must be asked for once it is whole.
    Unlinked,
    /// The flush in that slot was linked behind the write and has not completed.
    Pending(Tag),
    /// The linked flush has succeeded.
    Flushed,
    /// The write flushes itself (`RWF_DSYNC`): whole is durable.
    Dsync,
}

/// A read or a write in flight. Kept small: it is written once and read once per I/O.
#[derive(Debug)]
pub(super) struct Transfer {
    /// `None` once the verdict is out, while something else still keeps the slot.
    pub(super) body: Option<Body>,
    pub(super) memory: MemRange,
    pub(super) offset_bytes: u64,
    pub(super) epoch: Epoch,
    pub(super) target: u32,
    /// The user's share of `memory`, from `lead_bytes` on.
    pub(super) take_bytes: u32,
    pub(super) lead_bytes: u32,
    /// Bytes of `memory` at which the op in flight starts (F11).
    pub(super) resumed_at: u32,
    /// Bytes of `memory`, from its start, that are known to be through.
    pub(super) reached: u32,
    pub(super) linked: Linked,
    // Those that are nearly always the same come together, so that they are few stores.
    pub(super) is_read: bool,
    /// Neither bounced nor durable, counted or timed: when it is whole, it is done.
    pub(super) plain: bool,
    pub(super) class: Class,
    pub(super) bounced: bool,
    pub(super) whole: bool,
    pub(super) cancel_requested: bool,
    /// The ring has been asked to cancel it.
    pub(super) cancel_sent: bool,
    pub(super) force_async: bool,
    pub(super) retries: u8,
    pub(super) stalls: u8,
    /// The flush that is due is one of all metadata.
    pub(super) all_metadata: bool,
    /// All of it or nothing, so never a rest.
    pub(super) atomic: bool,
    /// Its class counts it as in flight, until its first completion.
    pub(super) counted: bool,
    /// Its parts are in the group that the slot table keeps beside the slot.
    pub(super) grouped: bool,
}

impl Transfer {
    /// A foreground view that is one op in its own memory, and is done when it is whole.
    #[inline(always)]
    pub(super) fn plain<D: super::issue::Direction>(
        target: u32,
        offset_bytes: u64,
        body: Body,
        memory: MemRange,
        epoch: Epoch,
    ) -> Self {
        Self {
            body: Some(body),
            memory,
            offset_bytes,
            epoch,
            target,
            take_bytes: memory.len_bytes(),
            lead_bytes: 0,
            resumed_at: 0,
            reached: 0,
            linked: Linked::No,
            is_read: D::IS_READ,
            bounced: false,
            plain: true,
            whole: false,
            cancel_requested: false,
            cancel_sent: false,
            force_async: false,
            retries: 0,
            stalls: 0,
            all_metadata: false,
            atomic: false,
            class: Class::Foreground,
            counted: false,
            grouped: false,
        }
    }

    /// Length of the op in flight.
    #[inline]
    pub(super) const fn in_flight_bytes(&self) -> u32 {
        self.memory.len_bytes() - self.resumed_at
    }
}

/// What is left to be done for a plain transfer that has left its slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whole {
    pub(super) target: u32,
    pub(super) take_bytes: u32,
    /// The epoch of a write.
    pub(super) write: Option<Epoch>,
}

/// A flush in flight.
#[derive(Debug)]
pub(super) struct FlushOp {
    pub(super) target: u32,
    pub(super) all_metadata: bool,
    pub(super) retries: u8,
    pub(super) cancel_sent: bool,
    pub(super) behind: Behind,
}

impl FlushOp {
    pub(super) const fn new(target: u32, all_metadata: bool, behind: Behind) -> Self {
        Self { target, all_metadata, retries: 0, cancel_sent: false, behind }
    }
}

/// What a flush was issued for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Everything asked for up to this epoch.
    Requests(Epoch),
    /// One durable write, for as long as that write says [`Linked::Pending`].
    Write(Tag),
}

#[derive(Debug)]
pub(super) enum Occupant {
    Transfer(Transfer),
    Flush(FlushOp),
    Step(StepOp),
}

/// A step of a chain in flight, or the place it keeps while it waits to be tried again. What
/// the step is made of, its memory first of all, is with the chain.
#[derive(Debug)]
pub(super) struct StepOp {
    pub(super) chain: ChainId,
    pub(super) step: u8,
    pub(super) cancel_requested: bool,
    pub(super) cancel_sent: bool,
}

/// Two whole cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    generation: u32,
    occupant: Option<Occupant>,
}

const _: () = assert!(size_of::<Slot>() == 128, "an op touches two cache lines of its slot");

/// The op table of a shard. Its size bounds what is in flight.
///
/// Dropped with occupants, by whatever way, it keeps their memory for ever: the kernel may
/// still write to it (F02).
#[derive(Debug)]
pub(super) struct Slots {
    table: Vec<Slot>,
    free: Vec<u32>,
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
        let table = (0..count).map(|_| Slot { generation: 0, occupant: None }).collect();
        let bounces = (0..count).map(|_| None).collect();
        let stamps_ns = vec![None; count as usize];
        let groups = (0..count).map(|_| None).collect();
        let free = (0..count).rev().collect();
        let stamped = stamps.is_some();
        Self { table, free, bounces, stamps, stamped, stamps_ns, groups }
    }

    #[inline]
    pub(super) fn free(&self) -> usize {
        self.free.len()
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
        self.table.len() - self.free.len()
    }

    /// As [`Slots::occupy`], where it is not hot.
    #[cold]
    #[inline(never)]
    pub(super) fn occupy_other(&mut self, occupant: Occupant) -> Tag {
        self.occupy(occupant)
    }

    /// Puts `occupant` into a free slot.
    #[inline(always)]
    pub(super) fn occupy(&mut self, occupant: Occupant) -> Tag {
        let slot = self.free.pop().expect("a slot is free: checked before the op was made");
        let entry = &mut self.table[slot as usize];
        if entry.occupant.is_some() {
            occupied();
        }
        entry.occupant = Some(occupant);
        Tag { slot, generation: entry.generation }
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
        for (entry, group) in self.table.iter_mut().zip(&mut self.groups) {
            if let (Some(Occupant::Transfer(transfer)), Some(group)) = (&mut entry.occupant, group)
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
        let single = |entry: &&Slot| match &entry.occupant {
            Some(Occupant::Transfer(transfer)) => {
                !transfer.grouped && transfer.memory.touches(region)
            }
            // The memory of a step is its chain's, also between two launches.
            Some(Occupant::Flush(_) | Occupant::Step(_)) | None => false,
        };
        grouped + self.table.iter().filter(single).count()
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
        let entry = self.table.get_mut(tag.slot as usize)?;
        entry.occupant.as_mut().filter(|_| entry.generation == tag.generation)
    }

    /// As [`Slots::find`], for a read or a write.
    #[inline]
    pub(super) fn transfer(&mut self, tag: Tag) -> Option<&mut Transfer> {
        match self.find(tag) {
            Some(Occupant::Transfer(transfer)) => Some(transfer),
            _ => None,
        }
    }

    /// Takes the plain transfer of `tag` out of its slot, if it is one that `result` says is
    /// whole, and hands its body on; else nothing has changed.
    #[inline(always)]
    pub(super) fn take_whole(
        &mut self,
        tag: Tag,
        result: i32,
        done: impl FnOnce(Body),
    ) -> Option<Whole> {
        let entry = self.table.get_mut(tag.slot as usize)?;
        let Some(Occupant::Transfer(transfer)) = &mut entry.occupant else { return None };
        let usual = transfer.plain && entry.generation == tag.generation;
        if !usual || i64::from(result) != i64::from(transfer.in_flight_bytes()) {
            return None;
        }
        let body = transfer.body.take()?;
        // At once, so that it need not be kept anywhere meanwhile.
        done(body);
        let Transfer { target, take_bytes, is_read, epoch, .. } = *transfer;
        // Known to be empty here: nothing is left to be dropped.
        entry.occupant = None;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(tag.slot);
        Some(Whole { target, take_bytes, write: (!is_read).then_some(epoch) })
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
        self.free.push(tag.slot);
        debug_assert!(entry.occupant.is_some(), "a slot is vacated once");
        entry.occupant = None;
    }

    /// The occupant of a slot is about to leave it, and its latency is wanted.
    #[cold]
    #[inline(never)]
    fn stamp_leaving(&mut self, tag: Tag) {
        match &self.table[tag.slot as usize].occupant {
            Some(Occupant::Transfer(transfer)) => {
                let (class, is_read) = (transfer.class, transfer.is_read);
                self.stamp_left(tag, class, Direction::of(is_read));
            }
            Some(Occupant::Flush(_)) => self.stamp_left(tag, Class::Foreground, Direction::Flush),
            // A chain is timed as a whole by whoever awaits it.
            _ => {}
        }
    }

    /// An op that was timed has completed.
    #[cold]
    pub(super) fn stamp_left(&mut self, tag: Tag, class: Class, direction: Direction) {
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

    /// Every occupant with its tag, in slot order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Tag, &mut Occupant)> {
        (0_u32..).zip(&mut self.table).filter_map(|(slot, entry)| {
            let tag = Tag { slot, generation: entry.generation };
            entry.occupant.as_mut().map(|occupant| (tag, occupant))
        })
    }
}

/// Out of the way of those who never come here.
#[cold]
#[inline(never)]
fn occupied() -> ! {
    unreachable!("a free slot is empty");
}

impl Drop for Slots {
    fn drop(&mut self) {
        let occupied = self.occupied();
        if occupied > 0 {
            let groups = std::mem::take(&mut self.groups);
            let bounces = std::mem::take(&mut self.bounces);
            let memory = (std::mem::take(&mut self.table), bounces, groups);
            quarantine(memory, "ops that did not come back before the shard was dropped", occupied);
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
