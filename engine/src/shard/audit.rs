//! Holds the books of a shard against each other, for a checker that looks after every turn.
//!
//! Data flow: slots, queues and requests as they are → [`Shard::audit`] → the first thing that
//! must not be, in words. Nothing is changed by looking.
//!
//! Not here: what completions and bytes must be (the checker knows what it sent), what a kernel
//! may expect (`ring::sim`).

use super::core::{Bytes, Core};
use super::durable;
use super::slot::{Linked, Occupant};
use super::{Class, Shard};
use crate::buffer::MemRange;
use crate::plan;
use crate::ring::Ring;

impl<R: Ring> Shard<R> {
    /// Looks for what must not be between two turns. With `strict`, that is also work which
    /// waits although nothing is in its way: right behind a turn in which no
    /// [`Knob`](crate::ring::Knob) was turned.
    ///
    /// # Errors
    /// What was found, in words.
    pub fn audit(&self, strict: bool) -> Result<(), String> {
        let mut core = self.inner.core.borrow_mut();
        core.audit_slots()?;
        core.audit_memory()?;
        if strict && core.is_usable() && !core.closing {
            core.audit_waiting()?;
        }
        Ok(())
    }
}

impl<R: Ring> Core<R> {
    /// Every slot in use has an op in flight, or a reason to wait without one.
    fn audit_slots(&mut self) -> Result<(), String> {
        let occupied = self.slots.occupied();
        let mut waiting = 0;
        for at in 0..self.retries.len() {
            let tag = self.retries[at].tag;
            waiting += usize::from(self.slots.find(tag).is_some());
        }
        // Written, and behind it a flush of its own that is still in flight.
        let written = |occupant: &Occupant| match occupant {
            Occupant::Transfer(write) => write.whole && matches!(write.linked, Linked::Pending(_)),
            _ => false,
        };
        waiting += self.slots.iter_mut().filter(|(_, occupant)| written(occupant)).count();
        let in_flight = self.soon_back();
        if occupied != in_flight + waiting {
            return Err(format!(
                "{occupied} slots are in use by {in_flight} ops in flight and {waiting} that wait"
            ));
        }
        Ok(())
    }

    /// No two transfers have memory in common.
    fn audit_memory(&mut self) -> Result<(), String> {
        let memory = |occupant: &Occupant| match occupant {
            Occupant::Transfer(transfer) => Some(transfer.memory),
            _ => None,
        };
        let live = self.slots.iter_mut().filter_map(|(_, occupant)| memory(occupant));
        let mut spans: Vec<(usize, usize)> = Vec::with_capacity(64);
        for whole in live {
            spans.extend(whole.pieces().map(|piece: MemRange| {
                let start = piece.addr().addr();
                (start, start + piece.len_bytes() as usize)
            }));
        }
        spans.sort_unstable();
        match spans.windows(2).find(|pair| pair[1].0 < pair[0].1) {
            Some(pair) => {
                let common = pair[0].1.min(pair[1].1) - pair[1].0;
                Err(format!("two ops in their slots have {common} bytes of memory in common"))
            }
            None => Ok(()),
        }
    }

    /// Nothing waits for what is free.
    fn audit_waiting(&mut self) -> Result<(), String> {
        if self.slots.free() == 0 || !self.ring.reserve(1) {
            return Ok(());
        }
        for target in self.targets.indices() {
            if !self.targets.exists(target) {
                continue;
            }
            let entry = self.targets.get(target);
            let first = entry.requests.front();
            let due = first.is_some_and(|first| entry.barrier.is_clear(first.epoch));
            // Another handle of the file may flush, or a write may flush itself.
            if due && !durable::must_wait(&self.targets, &mut self.slots, target) {
                return Err(String::from("a flush is due, and nothing is in its way"));
            }
        }
        let mut classes = vec![Class::Log];
        if self.jobs_in(Class::Log) == 0 {
            classes = vec![Class::Foreground];
            if !self.classes.is_capped() {
                classes.push(Class::Background);
            }
        }
        classes.retain(|class| self.jobs_in(*class) > 0);
        // One that cannot start may keep the others from starting.
        if !classes.is_empty() && classes.iter().all(|class| self.could_start(*class)) {
            return Err(format!("jobs of {classes:?} wait, and nothing is in their way"));
        }
        Ok(())
    }

    /// Whether the first job of `class` lacks nothing, given a slot and an entry of the ring. A
    /// chain may need more than one of each, and what is bounced needs a buffer.
    fn could_start(&mut self, class: Class) -> bool {
        let job = self.job_mut(class, 0);
        let (target, offset) = (job.target, job.offset_bytes);
        let (is_read, len, address) = match &job.bytes {
            Bytes::Read(view) => (true, view.len(), view.address()),
            Bytes::Write { view, .. } => (false, view.len(), view.address()),
            Bytes::Group(_) => return true,
            Bytes::Chain(_) | Bytes::Socket(..) => return false,
        };
        let demands = self.targets.get(target).demands;
        plan::first_cut(is_read, offset, len, address, demands).is_ok_and(|cut| !cut.bounce)
    }
}
