//! What can be in a slot, in the words that there are for everything.
//!
//! Data flow: op → [`Occupant`], kept beside its slot → judged by its completion.
//!
//! Not here: the short form of nearly every op (`plain`), the table (`slot`).

use super::barrier::Epoch;
use super::body::Body;
use super::chain_table::ChainId;
use super::class::Class;
use crate::buffer::MemRange;
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

/// A read or a write in flight, or what a plain one turned into.
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
    /// Its target counts it as a user.
    pub(super) keeps_target: bool,
}

impl Transfer {
    /// Length of the op in flight.
    #[inline]
    pub(super) const fn in_flight_bytes(&self) -> u32 {
        self.memory.len_bytes() - self.resumed_at
    }
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
