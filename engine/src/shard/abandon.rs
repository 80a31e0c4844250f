//! What becomes of a packet whose caller has gone.
//!
//! Data flow: a dropped future or queue → [`Core::abandon`] → jobs that have not started are
//! dropped, ops in flight are asked to stop; their memory stays in its slot until their own
//! completion (F01, F03).
//!
//! Not here: what a cancelled op comes to (`reap`), who asks in time (`bounded`).

use mfio_core::{Error, ErrorKind, PacketId};

use super::class::Class;
use super::core::{Bytes, Core, Ending, Job};
use super::slot::Occupant;
use crate::ring::{Knob, Plant, Ring};

impl<R: Ring> Core<R> {
    /// The caller of `packet` has gone: what has not started is dropped, what is in flight is
    /// asked to stop. Its memory stays in its slot until its own completion (F01, F03).
    #[cold]
    pub(super) fn abandon(&mut self, packet: PacketId) {
        self.abandon_backlog(packet);
        let in_groups = self.slots.cancel_in_groups(packet);
        self.metrics.cancels += in_groups;
        self.cancels_owed |= in_groups > 0;
        let free_on_drop = self.ring.plant(Plant::FreeOnDrop);
        for (_, occupant) in self.slots.iter_mut() {
            let Occupant::Transfer(transfer) = occupant else { continue };
            if transfer.body.as_ref().is_none_or(|body| body.packet_id() != packet) {
                continue;
            }
            transfer.cancel_requested = true;
            self.metrics.cancels += 1;
            self.cancels_owed = true;
            if free_on_drop {
                self.endings.extend(
                    transfer
                        .body
                        .take()
                        .map(|body| Ending::Failed(body, Error::new(ErrorKind::Cancelled))),
                );
            }
        }
        self.send_cancels();
    }

    /// Asks the ring to cancel what is to be cancelled, as far as there is room to ask.
    #[cold]
    pub(super) fn send_cancels(&mut self) {
        if !self.process.is_current() {
            // The ops are the parent's, and so is the ring that would be asked (F26).
            return;
        }
        self.cancels_owed = false;
        if self.sockets.owes_stops {
            self.stop_owed();
        }
        if self.names.owes {
            self.pay_names();
        }
        for (tag, occupant) in self.slots.iter_mut() {
            let sent = match occupant {
                Occupant::Transfer(transfer) if transfer.cancel_requested => {
                    &mut transfer.cancel_sent
                }
                Occupant::Flush(flush) if self.closing => &mut flush.cancel_sent,
                Occupant::Step(step) if self.closing || step.cancel_requested => {
                    &mut step.cancel_sent
                }
                _ => continue,
            };
            if *sent {
                continue;
            }
            let asks = self.ring.knob(Knob::HoldCancel, 0) == 0;
            *sent = asks && self.ring.reserve(1) && self.ring.cancel(tag);
            self.metrics.cancels_sent += u64::from(*sent);
            self.cancels_owed |= !*sent;
        }
    }

    fn abandon_backlog(&mut self, packet: PacketId) {
        for class in [Class::Log, Class::Foreground, Class::Background] {
            let mut at = 0;
            while at < self.jobs_in(class) {
                let found = match &mut self.job_mut(class, at).bytes {
                    Bytes::Read(view) => view.packet_id() == packet,
                    Bytes::Write { view, .. } => view.packet_id() == packet,
                    Bytes::Group(group) => group.cancel(packet),
                    Bytes::Chain(_) | Bytes::Socket(..) => false,
                };
                let job = if found { self.remove_job(class, at) } else { None };
                match job {
                    // The others of the group are on their own.
                    Some(Job { bytes: Bytes::Group(group), .. }) => self.dissolve(group, 0),
                    Some(job) => self.fail_job(job, Error::new(ErrorKind::Cancelled)),
                    None => at += 1,
                }
            }
        }
        self.wake_waiting();
    }
}
