//! The op that nearly every view becomes, in as few words as it can be told: one cache line of
//! its slot.
//!
//! Data flow: view → [`Plain`] in a slot → whole at once, and gone; or looked at by anybody for
//! any other reason, and a [`Transfer`] from then on.
//!
//! Not here: which views are plain (`straight`, `issue`), when it is looked at (`slot`).

use super::barrier::Epoch;
use super::body::Body;
use super::class::Class;
use super::slot::{Linked, Transfer};
use crate::buffer::MemRange;

/// A foreground view that is one op in its own memory, and is done when it is whole: neither
/// bounced nor durable, neither counted nor timed. Its target, which the slot names, does not
/// know of it while the handle is open: see `Core::close_target`.
#[derive(Debug)]
pub(super) struct Plain {
    pub(super) body: Body,
    pub(super) memory: MemRange,
    pub(super) offset_bytes: u64,
    /// Of a write.
    pub(super) epoch: Epoch,
}

impl Plain {
    /// Whether `result`, of its completion, says that every byte is through.
    #[inline(always)]
    pub(super) fn is_whole(&self, result: i32) -> bool {
        // No length has the sign bit, and every errno has.
        result.cast_unsigned() == self.memory.len_bytes()
    }

    /// The same in the words that there are for everything.
    #[cold]
    pub(super) fn into_transfer(self, target: u32) -> Transfer {
        let Self { body, memory, offset_bytes, epoch } = self;
        Transfer {
            is_read: matches!(body, Body::ReadInto(_)),
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
            bounced: false,
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
            keeps_target: false,
        }
    }
}

/// A plain op that was whole and has left its slot.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) target: u32,
    pub(super) plain: Plain,
}
