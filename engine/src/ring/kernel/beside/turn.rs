//! Pushes to the companions of a ring, waits for them and for the ring together, and reaps.
//!
//! Data flow: [`Ring::push`](crate::ring::Ring::push) → companion's queue → `enter` submits
//! there too, polls while polled ops are in flight, else sleeps in the main ring, whose bell the
//! other companion rings → `reap` hands out what they have done.
//!
//! Not here: what a completion means (`beside`).
#![allow(unsafe_code, reason = "looks at a queue that is shared with the kernel")]

use nix::errno::Errno;

use super::super::sqe::NOWHERE;
use super::{Completion, KernelRing, Op, OpKind, Served, Sqe, Tag, Wait};
use crate::ring::Ring;

impl KernelRing {
    /// Queues an op on something that is served beside the main queue.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn push_beside(&mut self, op: Op, tag: Tag, index: u32) {
        assert!(self.reserve(1), "room in the queue was reserved before the push");
        if index == NOWHERE {
            return self.push_sqe(&Sqe::nowhere(&op, tag));
        }
        let beside = self.beside.get_or_insert_default();
        let held = beside.held;
        match beside.served(index) {
            Some(Served::Polled { main, refused, .. }) if refused || !is_polled(&op) => {
                return self.push_sqe(&Sqe::of(&Op { file: main, ..op }, tag));
            }
            Some(Served::Polled { polled, .. }) => {
                beside.begin(op, tag);
                beside.live(tag).expect("begun just now").polled = true;
                let ring = beside.files.as_mut().expect("it is made before a polled file is");
                let known = |index| ring.fixed(index).is_some();
                let memory = op.memory.map(|memory| {
                    if known(memory.buf_index()) { memory } else { memory.unregistered() }
                });
                ring.push(&Sqe::of(&Op { file: polled, memory, link: false, ..op }, tag).entry());
                beside.held += 1;
            }
            Some(Served::Flagged { main, transfers, .. }) => {
                let sqe = Sqe::of(&Op { file: main, ..op }, tag);
                let is_read = matches!(op.kind, OpKind::Read | OpKind::ReadVectored);
                let sqe = match op.memory {
                    None => sqe,
                    Some(_) => {
                        let stream = if is_read { 0 } else { transfers.stream };
                        sqe.flagged(transfers.flags(is_read), stream, beside.is_async(index))
                    }
                };
                return self.push_sqe(&sqe);
            }
            // What is not served is not lost: it is refused.
            Some(Served::Namespace { .. }) | None => {
                beside.begin(op, tag);
                beside.go_on(tag.slot as usize);
            }
        }
        let answered = u32::from(beside.held == held);
        beside.answered += answered;
        self.room -= beside.held - held + answered;
    }

    /// As [`Ring::enter`], where companions are to be looked after too.
    #[cold]
    #[inline(never)]
    pub(in super::super) fn enter_beside(&mut self, wait: Wait) -> Result<u32, Errno> {
        let (hosted, sleeps) = (self.wake.is_watched(), wait.min > 0);
        if self.beside.as_ref().is_none_or(|beside| beside.is_quiet()) {
            if hosted && !sleeps {
                self.wake.hush();
            }
            return self.enter_plain(wait);
        }
        if hosted {
            if !sleeps {
                // Before anything that it told of is looked at.
                self.wake.hush();
            }
            self.tell_of_commands(!sleeps);
        }
        let entered = self.enter_all(wait);
        if hosted {
            let polls = self.beside.as_ref().is_some_and(|beside| beside.polls());
            if sleeps {
                // What comes from now on is the host's to hear; what came just before was told
                // to the sleeper that is awake now.
                self.tell_of_commands(true);
            }
            if sleeps || polls {
                self.wake.tell_host();
            }
        }
        entered
    }

    fn enter_all(&mut self, wait: Wait) -> Result<u32, Errno> {
        let mut taken = self.turn_beside(0)?;
        while !self.rests(wait) {
            let Some(beside) = &self.beside else { break };
            if beside.polls() {
                let main = self.queued() > 0 || self.ops_taken != self.ops_reaped;
                // In one call, where nothing else could end the wait.
                let min = u32::from(!main && wait.deadline_ns.is_none() && beside.polls_one());
                if main {
                    taken += self.enter_once(Wait::NONE)?;
                }
                taken += self.turn_beside(min)?;
                continue;
            }
            if beside.held > 0 {
                // Nobody takes it while this sleeps.
                break;
            }
            // The bell ends the sleep when a companion has news, and so does an op of the main
            // ring: whoever needs more of them looks again.
            taken += self.enter_plain(Wait { min: 1, ..wait })?;
            return Ok(taken + self.turn_beside(0)?);
        }
        let bell = self.wake.is_armed() && self.wake.is_rung();
        if bell || self.queued() > 0 || self.ops_taken != self.ops_reaped {
            taken += self.enter_once(Wait::NONE)?;
        }
        Ok(taken)
    }

    /// Whether a wait is over.
    fn rests(&mut self, wait: Wait) -> bool {
        if wait.min == 0 || self.ready_beside() >= wait.min {
            return true;
        }
        if wait.deadline_ns.is_some_and(|deadline_ns| self.now_ns() >= deadline_ns) {
            return true;
        }
        let polls = self.beside.as_ref().is_some_and(|beside| beside.polls());
        // Asleep in the main ring, its poll would end the wait.
        if !polls || !self.wake.is_rung() {
            return false;
        }
        if !self.wake.is_armed() {
            self.wake.quiet();
        }
        true
    }

    /// Completions of either kind that wait to be reaped.
    fn ready_beside(&self) -> u32 {
        let beside = self.beside.as_ref().map_or(0, |beside| beside.done.len());
        let main = self.main_ready() + usize::from(self.inline_done.is_some());
        u32::try_from(beside + main).unwrap_or(u32::MAX)
    }

    /// Completions of the main queue that wait to be reaped.
    fn main_ready(&self) -> usize {
        // SAFETY: lifetime: it is dropped in this function. Aliasing: `&self`, and no method
        // keeps a completion queue.
        unsafe { self.ring.get().completion_shared() }.len()
    }

    /// Submits what waits in the companions, and takes in what they have done; a polled one
    /// waits for `min`. Nothing that there is room for is left unsent, except by an error.
    fn turn_beside(&mut self, mut min: u32) -> Result<u32, Errno> {
        let mut all = 0;
        loop {
            let Some(beside) = &mut self.beside else { return Ok(all) };
            let (taken, refused, trouble) = beside.turn(min);
            let taken = taken + core::mem::take(&mut beside.answered);
            let (names, freed) = beside.named;
            let sent = taken - freed + names;
            all += sent;
            self.room += taken;
            self.stats.submitted += u64::from(sent);
            if refused {
                self.features.degraded.push(
                    "IOPOLL: a target refused polled I/O (EOPNOTSUPP), its ops are \
                     interrupt-driven; poll queues are asked for at boot (nvme.poll_queues=N)"
                        .to_owned(),
                );
            }
            let sent = self.send_more();
            if let Some(errno) = trouble {
                return Err(errno);
            }
            if !sent {
                return Ok(all);
            }
            min = 0;
        }
    }

    /// Sends the next commands of ops that take several, as far as there is room. Returns
    /// whether there were any.
    fn send_more(&mut self) -> bool {
        let mut sent = false;
        while self.room > self.queued()
            && let Some(beside) = &mut self.beside
            && let Some(at) = beside.more.pop_front()
        {
            let held = beside.held;
            beside.go_on(at);
            self.room -= beside.held - held;
            sent |= beside.held > held;
        }
        sent
    }

    /// Hands out what the companions have done.
    #[cold]
    pub(in super::super) fn reap_beside(&mut self, into: &mut Vec<Completion>) {
        if let Some(beside) = &mut self.beside {
            into.extend(beside.done.drain(..));
            beside.told.clear();
            core::mem::swap(&mut beside.told, &mut beside.failed);
        }
    }

    /// As [`Ring::cancel`]: whether the op of `tag` is one of a companion's. Its command ends by
    /// itself, and no further one of it is sent.
    #[cold]
    pub(in super::super) fn cancel_beside(&mut self, tag: Tag) -> bool {
        let note = self.beside.as_mut().and_then(|beside| beside.live(tag));
        note.is_some_and(|note| {
            note.cancelled = true;
            true
        })
    }

    /// As [`Ring::device_status`].
    pub(in super::super) fn status_beside(&self, tag: Tag) -> Option<u16> {
        let told = &self.beside.as_ref()?.told;
        told.iter().find(|(of, _)| *of == tag).map(|(_, status)| *status)
    }
}

/// Whether it goes to a polled companion: nothing that may have to flush, and nothing that has
/// been handed to a kernel worker, which polls for nobody.
fn is_polled(op: &Op) -> bool {
    let kinds = [OpKind::Read, OpKind::Write, OpKind::ReadVectored, OpKind::WriteVectored];
    let plain = !op.dsync && !op.atomic && !op.force_async;
    op.memory.is_some() && kinds.contains(&op.kind) && plain
}
