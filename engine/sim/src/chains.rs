//! What a chain under way consists of, and whether what came back for it may be.
//!
//! Data flow: steps drawn from the seed → [`Under`](crate::driver) → result and buffers → the
//! steps that were done, and those that nobody knows of → model → violations.
//!
//! Not here: sending and polling (`driver`).

use mfio_core::{Error, ErrorKind};
use mfio_engine::{ChainBuffers, ChainError};

use crate::model::Issued;
use crate::packets::{Kind, Knowledge, Sent};
use crate::world::World;

/// The file of the device that chains copy to.
pub(crate) const COPIES: usize = 1;

/// One step of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Read,
    Write,
    Sync,
    /// Writes what the read before it has brought to the same place of the other file.
    Copy,
}

/// One step of a chain under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Linked {
    pub(crate) link: Link,
    /// Of a write, with its sequence.
    pub(crate) range: Issued,
}

impl World {
    /// Every write of the chain is in the engine's hands.
    pub(crate) fn issue_chain(&mut self, steps: &[Linked]) -> u64 {
        for step in steps.iter().filter(|step| step.link == Link::Write) {
            self.model.issue_write(step.range);
        }
        self.model.issue_read()
    }

    /// The engine has taken the chain over: flushes asked for from now on cover its writes
    /// before its own first flush.
    pub(crate) fn accept_chain(&mut self, steps: &[Linked]) {
        for step in steps.iter().take_while(|step| step.link != Link::Sync) {
            if step.link == Link::Write {
                self.model.accept_write(step.range);
            }
        }
    }

    /// Nobody waits for the chain any more.
    pub(crate) fn forget_chain(&mut self, sent: Sent, steps: &[Linked]) {
        for step in steps.iter().filter(|step| step.link == Link::Write) {
            self.model.abandon_write(step.range);
        }
        self.model.end_read(sent.issued);
    }

    /// A chain has come back.
    pub(crate) fn chain_done(
        &mut self,
        sent: Sent,
        steps: &[Linked],
        result: Result<(), ChainError>,
        mut buffers: ChainBuffers,
        knowledge: &mut Knowledge,
    ) {
        let done = result.as_ref().map_or_else(|error| error.done_steps, |()| steps.len());
        self.trace.fold(sent.issued);
        self.trace.fold(done as u64);
        let synced = steps[..done].iter().rposition(|step| step.link == Link::Sync);
        for (at, step) in steps.iter().enumerate().filter(|(_, step)| step.link == Link::Write) {
            let Issued { len, offset, .. } = step.range;
            let whole = at < done;
            if whole {
                self.model.accept_write(step.range);
                if offset + len > self.model.size_bytes() {
                    self.violate(format!("a chain wrote beyond the end of the file: {step:?}"));
                }
            }
            let failed = 0..len;
            let failed = if whole { &[] } else { core::slice::from_ref(&failed) };
            let result = self.model.end_write(step.range, failed, &self.device, 0);
            self.require("chained write behind a flush", result);
        }
        for (at, step) in steps.iter().enumerate().take(synced.unwrap_or(0)) {
            if step.link == Link::Write {
                self.coverage.chained_durable += 1;
                let result = self.model.save_write(step.range, &self.device, 0);
                self.require(&format!("chained write {at} before a flush"), result);
            }
        }
        for (at, step) in steps.iter().enumerate().take(done) {
            if step.link != Link::Read {
                continue;
            }
            let Some(buffer) = buffers.take(at) else {
                self.violate(format!("the buffer of {step:?} is lost"));
                continue;
            };
            self.coverage.bytes_checked += buffer.len() as u64;
            let result = self.model.check_read(sent.issued, step.range.offset, &buffer);
            self.require("chained read", result);
            if steps[..done].get(at + 1).is_some_and(|next| next.link == Link::Copy) {
                self.coverage.chained_copies += 1;
                let mut copied = vec![0; buffer.len()];
                self.device.peek(COPIES, step.range.offset as u64, &mut copied);
                if copied != buffer[..] {
                    self.violate(format!("{step:?} of a chain was copied as something else"));
                }
            }
        }
        self.model.end_read(sent.issued);
        match result {
            Ok(()) => {
                self.coverage.chains_acknowledged += 1;
                if synced == Some(steps.len() - 1) && knowledge.poisoned_at.is_some() {
                    self.violate(format!("a poisoned target acknowledged {sent:?} {steps:?}"));
                }
            }
            Err(error) => {
                self.coverage.chains_failed += 1;
                self.chain_failed(sent, steps[error.step], error.io.error, knowledge);
            }
        }
    }

    fn chain_failed(&mut self, sent: Sent, step: Linked, error: Error, known: &mut Knowledge) {
        if error.kind() == ErrorKind::Poisoned {
            self.poisoned(known);
        }
        let kind = match step.link {
            Link::Read => Kind::Read,
            Link::Write | Link::Sync | Link::Copy => Kind::Write,
        };
        let Issued { offset, len, .. } = step.range;
        let size = self.model.size_bytes();
        let explained = match error.kind() {
            ErrorKind::UnexpectedEof => step.link == Link::Read && offset + len > size,
            _ => self.is_explained(Sent { kind, ..sent }, offset, len, error),
        };
        if !explained {
            self.violate(format!("{step:?} of a chain failed without a reason: {error:?}"));
        }
    }
}
