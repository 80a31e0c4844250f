//! Ops that are pushed again: after EAGAIN or EINTR, and for the rest of a short transfer.
//!
//! Data flow: `reap` queues a [`Retry`](super::core::Retry) → its time comes → the slot says
//! what is left → ring.
//!
//! Not here: whether there is another try, and when (`reap`, `complete`).

use mfio_core::ErrorKind;
use nix::errno::Errno;

use super::class::Class;
use super::core::Core;
use super::slot::Linked;
use crate::complete::Verdict;
use crate::nvme::Status;
use crate::ring::{Knob, Op, OpKind, Ring, Tag};

/// The first back-off after EAGAIN of the kernel's; it doubles each time.
const BACK_OFF_NS: u64 = 1_000;
/// And after a status by which a device says that it is not ready, or was not reached: over its
/// retries, half a second.
const DEVICE_BACK_OFF_NS: u64 = 1_000_000;

impl<R: Ring> Core<R> {
    /// How long the op that is being judged waits for its try number `retries`.
    pub(super) fn back_off_ns(&self, retries: u8) -> u64 {
        let first_ns = if self.device_status == 0 { BACK_OFF_NS } else { DEVICE_BACK_OFF_NS };
        let back_off_ns = first_ns << u32::from(retries.min(10));
        back_off_ns * self.ring.knob(Knob::BackOff, 1) as u64
    }

    /// The verdict on the op that is being judged; a device that was not ready to the end is
    /// blamed for what it said itself.
    #[cold]
    pub(super) fn said_by_device(&self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Fail(Errno::EAGAIN) if self.device_status != 0 => {
                Verdict::Fail(Status::from_bits(self.device_status).errno())
            }
            verdict => verdict,
        }
    }

    /// Pushes the ops whose time has come again.
    pub(super) fn issue_retries(&mut self) {
        let now_ns = self.ring.now_ns();
        for _ in 0..self.retries.len() {
            let Some(retry) = self.retries.pop_front() else { break };
            let due = self.closing || retry.not_before_ns <= now_ns;
            let held = self.in_flight > 0 && self.ring.knob(Knob::HoldRetry, 0) != 0;
            if !due || held || !self.ring.reserve(1) {
                self.retries.push_back(retry);
                continue;
            }
            let Some(transfer) = self.slots.transfer(retry.tag) else {
                self.chain_backed_off(retry.tag);
                continue;
            };
            if transfer.cancel_requested || self.closing {
                self.fail_transfer(retry.tag, ErrorKind::Cancelled.into());
                continue;
            }
            let Some((_, op)) = self.op_again(retry.tag) else { continue };
            self.push_seldom(op, retry.tag);
        }
    }

    /// The op for what is left of a transfer, and its target.
    pub(super) fn op_again(&mut self, tag: Tag) -> Option<(u32, Op)> {
        let transfer = self.slots.transfer(tag)?;
        let file = self.targets.get(transfer.target).file;
        let from = transfer.resumed_at;
        let memory = transfer.memory.sub(from, transfer.memory.len_bytes() - from);
        let kind = if transfer.is_read { OpKind::Read } else { OpKind::Write };
        let offset_bytes = transfer.offset_bytes + u64::from(from);
        let op = Op {
            force_async: transfer.force_async,
            dsync: transfer.linked == Linked::Dsync,
            atomic: transfer.atomic,
            background: transfer.class == Class::Background,
            ..Op::transfer(kind, file, offset_bytes, memory)
        };
        Some((transfer.target, op))
    }
}
