//! What one op does at each phase of its flight, and what a crash does to it.
//!
//! Data flow: consumed op → admit → start (outcome drawn) → copy (bytes move) → done (followers
//! start or fail) → post. The kernel calls these in the order of time.
//!
//! Not here: queues and time (`kernel`), the two images of a file (`device`), cancels (`cancel`).

use nix::errno::Errno;

use super::complaint::Complaint;
use super::device::SECTOR_BYTES;
use super::flight::{Fault, Flight, Phase, draw_fault, draw_short, negated};
use super::kernel::Kernel;
use super::stuck;
use crate::ring::{Completion, Op, OpKind, Tag};

impl Kernel {
    /// Takes over one op; `head` is the op before it in its chain, `meant` the one that was to
    /// be, also where a partial submit came between them.
    pub(super) fn admit(
        &mut self,
        op: &Op,
        tag: Tag,
        sequence: u64,
        head: Option<u64>,
        meant: Option<u64>,
    ) {
        self.stats.ops += 1;
        self.note(5, tag.to_user_data());
        self.trace.fold(op.offset_bytes);
        self.check(op, tag, meant);
        let file = self.resolve(op.file);
        // The memory knows its pieces; apart from that there is no difference.
        let kind = match op.kind {
            OpKind::ReadVectored => OpKind::Read,
            OpKind::WriteVectored => OpKind::Write,
            other => other,
        };
        let mut flight = Flight {
            tag,
            kind,
            file: file.unwrap_or(0),
            named: op.file,
            offset_bytes: op.offset_bytes,
            memory: op.memory,
            range_bytes: op.len_bytes,
            dsync: op.dsync,
            atomic: op.atomic,
            link: op.link,
            force_async: op.force_async,
            sequence,
            waits_for: head,
            phase: Phase::Linked,
            next_at_ns: u64::MAX,
            done_at_ns: u64::MAX,
            result: 0,
            moved_bytes: 0,
            pause_bytes: 0,
            begun_step: 0,
            cancel_answered: false,
        };
        if file.is_none() && op.kind != OpKind::Nop {
            self.complain(Complaint::NoSuchFile { file: op.file });
            flight.finish(Errno::EBADF, self.now_ns);
        }
        self.flights.push(flight);
        if flight.phase == Phase::Linked && head.is_none() {
            self.queue(self.flights.len() - 1);
        }
    }

    /// What a kernel takes for granted of its caller.
    fn check(&mut self, op: &Op, tag: Tag, meant: Option<u64>) {
        if self.flights.len() >= self.config.cq_entries as usize {
            self.complain(Complaint::InFlightAboveCq { in_flight: self.flights.len() + 1 });
        }
        if self.flights.iter().any(|flight| flight.tag == tag) {
            self.complain(Complaint::TagInUse { tag });
        }
        let is_vectored = matches!(op.kind, OpKind::ReadVectored | OpKind::WriteVectored);
        let is_transfer = is_vectored || matches!(op.kind, OpKind::Read | OpKind::Write);
        let in_pieces = op.memory.is_some_and(|memory| memory.vector_len() > 0);
        if is_transfer != op.memory.is_some() || is_vectored != in_pieces {
            self.complain(Complaint::WrongMemory { tag });
        }
        self.stats.vectored += u64::from(is_vectored);
        let Some(memory) = &op.memory else { return };
        let is_write = matches!(op.kind, OpKind::Write | OpKind::WriteVectored);
        let racing = self
            .flights
            .iter()
            .find(|flight| Some(flight.sequence) != meant && flight.races_with(is_write, memory));
        if let Some(other) = racing.map(|flight| flight.tag) {
            self.complain(Complaint::MemoryShared { tag, other });
        }
    }

    /// Lets an op begin, at once or after a while on a worker's queue.
    fn queue(&mut self, at: usize) {
        let mut begin_ns = self.now_ns;
        if self.random.chance(self.config.faults.start_delay) {
            begin_ns += u64::from(self.random.below(self.config.latency_ns_max));
        }
        let flight = &mut self.flights[at];
        flight.phase = Phase::Queued;
        flight.next_at_ns = begin_ns;
        if begin_ns == self.now_ns {
            self.start(at);
        }
    }

    /// Moves one flight into its next phase.
    pub(super) fn advance(&mut self, at: usize) {
        self.note(6, self.flights[at].phase as u64);
        match self.flights[at].phase {
            Phase::Linked => {}
            Phase::Queued => self.start(at),
            Phase::Running => self.copy(at),
            Phase::Copied => self.finish(at),
            Phase::Done => self.complete(at),
        }
    }

    /// Decides how long the op takes and how it ends.
    fn start(&mut self, at: usize) {
        let bits = self.random.bits();
        let drawn = (bits & 0xffff_ffff) * u64::from(self.config.latency_ns_max);
        let mut latency_ns = self.draw_service().unwrap_or(1 + (drawn >> 32));
        if self.random.chance(self.config.faults.delay) {
            latency_ns *= 20;
        }
        self.flights[at].phase = Phase::Running;
        self.flights[at].begun_step = self.device.next_step();
        self.flights[at].done_at_ns = self.now_ns + latency_ns;
        self.flights[at].next_at_ns = self.now_ns + latency_ns * (bits >> 62) / 4;
        if self.dead {
            self.flights[at].finish(Errno::EIO, self.now_ns + latency_ns);
            return;
        }
        match self.flights[at].kind {
            OpKind::Fdatasync | OpKind::Fsync => self.start_flush(at),
            OpKind::Nop => {}
            OpKind::Read | OpKind::Write => self.start_transfer(at),
            _ => self.start_range(at),
        }
    }

    fn start_flush(&mut self, at: usize) {
        let flight = &mut self.flights[at];
        if self.random.chance(self.config.faults.flush_fail) {
            flight.result = negated(self.random.pick(&[Errno::EIO, Errno::ENOSPC, Errno::EDQUOT]));
        } else if !flight.force_async && self.random.chance(self.config.faults.eagain) {
            self.stats.eagain += 1;
            flight.finish(Errno::EAGAIN, flight.done_at_ns);
        }
    }

    fn start_transfer(&mut self, at: usize) {
        let Self { flights, device, random, stats, config, .. } = self;
        let flight = &mut flights[at];
        let Some(memory) = flight.memory else { return };
        let is_read = flight.kind == OpKind::Read;
        let drawn = draw_fault(&config.faults, random);
        let mut fault = stuck::fault_of(config, flight, drawn);
        if flight.atomic && matches!(fault, Fault::Short | Fault::Zero | Fault::NoSpace) {
            fault = Fault::None;
        }
        device.with(flight.file, |file| {
            if file.is_misaligned(flight.offset_bytes, &memory) {
                stats.misaligned += 1;
                flight.result = negated(Errno::EINVAL);
                return;
            }
            if file.is_bad(flight.offset_bytes, memory.len_bytes()) {
                stats.eio += 1;
                flight.result = negated(Errno::EIO);
                return;
            }
            let possible = if is_read {
                file.bytes_before_end(flight.offset_bytes, memory.len_bytes())
            } else {
                file.claim_space(flight.offset_bytes, memory.len_bytes())
            };
            if possible == 0 && !is_read {
                stats.enospc += 1;
                flight.result = negated(Errno::ENOSPC);
                return;
            }
            flight.moved_bytes = possible;
            match fault {
                Fault::Short => {
                    if let Some(part) = draw_short(file, is_read, possible, random) {
                        flight.moved_bytes = part;
                    }
                }
                Fault::Zero if !is_read => {
                    stats.zero += 1;
                    flight.moved_bytes = 0;
                }
                Fault::NoSpace if !is_read => {
                    stats.enospc += 1;
                    match draw_short(file, is_read, possible, random) {
                        Some(part) if random.one_in(2) => flight.moved_bytes = part,
                        _ => {
                            flight.moved_bytes = 0;
                            flight.result = negated(Errno::ENOSPC);
                            return;
                        }
                    }
                }
                _ => {}
            }
            flight.result = i32::try_from(flight.moved_bytes).unwrap_or(i32::MAX);
        });
        self.break_transfer(at, fault);
    }

    /// The faults that end in an errno, and the torn copy.
    fn break_transfer(&mut self, at: usize, fault: Fault) {
        let Self { flights, random, stats, config, .. } = self;
        let flight = &mut flights[at];
        if flight.result >= 0 {
            match fault {
                Fault::Again if !flight.force_async => {
                    stats.eagain += 1;
                    flight.result = negated(Errno::EAGAIN);
                    flight.moved_bytes = 0;
                }
                Fault::Interrupted => {
                    stats.eagain += 1;
                    flight.fail(random.pick(&[Errno::EINTR, Errno::ECANCELED]), random);
                }
                Fault::Io => {
                    stats.eio += 1;
                    flight.fail(Errno::EIO, random);
                }
                _ => {}
            }
        }
        if flight.result > 0 && flight.moved_bytes < flight.len_bytes() {
            stats.short_transfers += 1;
        }
        flight.pause_bytes = flight.moved_bytes;
        if flight.atomic {
            if flight.moved_bytes < flight.len_bytes() {
                flight.moved_bytes = 0;
            }
            // All bytes move in one step, when it finishes.
            flight.pause_bytes = 0;
            return;
        }
        if random.chance(config.faults.torn_copy) {
            flight.pause_bytes = random.below(flight.moved_bytes.saturating_add(1));
        }
    }

    /// Moves the bytes, or the first part of a torn copy.
    fn copy(&mut self, at: usize) {
        self.transfer(at, 0, self.flights[at].pause_bytes);
        let flight = &mut self.flights[at];
        flight.phase = Phase::Copied;
        flight.next_at_ns = flight.done_at_ns;
        if flight.next_at_ns <= self.now_ns {
            self.finish(at);
        }
    }

    fn transfer(&mut self, at: usize, from: u32, to: u32) {
        let flight = &self.flights[at];
        let Some(memory) = flight.memory else { return };
        if from >= to || self.dead {
            return;
        }
        let offset_bytes = flight.offset_bytes;
        self.stats.late_copies += u64::from(flight.cancel_answered);
        match flight.kind {
            OpKind::Read => {
                self.device.with(flight.file, |file| {
                    file.read_into(offset_bytes, &memory, from..to);
                });
            }
            OpKind::Write => {
                self.device.with(flight.file, |file| {
                    file.write_from(offset_bytes, &memory, from..to);
                });
            }
            _ => {}
        }
    }

    /// The op is over as far as the file is concerned.
    fn finish(&mut self, at: usize) {
        let Flight { pause_bytes, moved_bytes, result, kind, .. } = self.flights[at];
        self.transfer(at, pause_bytes, moved_bytes);
        let flight = self.flights[at];
        if flight.is_flush() {
            self.finish_flush(&flight);
        } else if kind == OpKind::Write && result > 0 {
            let step = self.device.next_step();
            self.device.with(flight.file, |file| {
                file.settle(flight.offset_bytes, flight.moved_bytes, step);
            });
            self.finish_dsync(&flight);
        } else if kind.is_range() {
            self.finish_range(&flight);
        } else if kind == OpKind::Write && flight.dsync {
            self.lose_dsync(&flight);
        }
        let mut post_ns = self.now_ns;
        if self.random.chance(self.config.faults.cq_delay) {
            post_ns += u64::from(self.random.below(self.config.latency_ns_max));
        }
        self.flights[at].phase = Phase::Done;
        self.flights[at].next_at_ns = post_ns;
        self.release_followers(at);
        if post_ns == self.now_ns {
            self.complete(at);
        }
    }

    fn finish_flush(&mut self, flight: &Flight) {
        let Self { device, random, stats, .. } = self;
        let cancelled = [negated(Errno::ECANCELED), negated(Errno::EINTR)];
        device.with(flight.file, |file| {
            if flight.result == 0 {
                stats.flushes += 1;
                file.flush(flight.begun_step, random);
            } else if cancelled.contains(&flight.result) {
                file.flush_partly(random);
            } else {
                stats.flush_failures += 1;
                file.fail_flush(random);
            }
        });
    }

    /// Starts the op that waits for the one at `at`, or cancels all that wait behind it.
    pub(super) fn release_followers(&mut self, at: usize) {
        let Flight { link, sequence, .. } = self.flights[at];
        if !link {
            return;
        }
        let Some(next) = self.follower_of(sequence) else { return };
        let whole = self.flights[at].is_whole();
        if whole {
            self.queue(next);
            return;
        }
        self.stats.chains_broken += 1;
        let mut broken = Some(next);
        while let Some(at) = broken {
            let at_ns = self.now_ns + u64::from(self.random.below(1024));
            self.flights[at].finish(Errno::ECANCELED, at_ns);
            broken = self.follower_of(self.flights[at].sequence);
        }
    }

    fn follower_of(&self, sequence: u64) -> Option<usize> {
        let waits =
            |flight: &Flight| flight.phase == Phase::Linked && flight.waits_for == Some(sequence);
        self.flights.iter().position(waits)
    }

    /// Posts the completion; from here on the kernel does not touch the memory.
    fn complete(&mut self, at: usize) {
        let flight = self.flights[at];
        let Flight { tag, result, .. } = flight;
        // Ops that never ran come here directly.
        self.release_followers(at);
        if self.random.chance(self.config.faults.more) {
            self.stats.duplicates += 1;
            self.post(Completion { tag, result, more: true }, false);
        }
        self.flights.swap_remove(at);
        self.post(Completion { tag, result, more: false }, true);
        if self.random.chance(self.config.faults.stale)
            && let Some(stale) = self.last_whole
        {
            self.stats.duplicates += 1;
            self.post(stale, false);
        }
        // Only after a whole transfer is nothing else ever pushed under the same tag.
        if flight.memory.is_some() && flight.is_whole() && !flight.link {
            self.last_whole = Some(Completion { tag, result, more: false });
        }
    }

    /// Loses power. Writes that run are torn at sector boundaries; afterwards every op fails
    /// and nothing is touched any more, as if the machine below had gone.
    pub(super) fn crash(&mut self) {
        self.stats.crashes += 1;
        self.note(8, self.flights.len() as u64);
        for at in 0..self.flights.len() {
            let flight = self.flights[at];
            let runs = matches!(flight.phase, Phase::Running | Phase::Copied);
            if runs && flight.kind == OpKind::Write {
                self.tear(&flight);
            }
        }
        let Self { device, random, .. } = self;
        device.crash(random);
        self.dead = true;
        for at in 0..self.flights.len() {
            let at_ns = self.now_ns + u64::from(self.random.below(1024));
            self.flights[at].finish(Errno::EIO, at_ns);
        }
    }

    /// Lets a random subset of the sectors of a running write reach the file.
    fn tear(&mut self, flight: &Flight) {
        let Some(memory) = flight.memory else { return };
        let Self { device, random, .. } = self;
        device.with(flight.file, |file| {
            if flight.atomic {
                // All of it or nothing, and all is saved: half a loss later would tear it.
                if random.one_in(2) && flight.moved_bytes == memory.len_bytes() {
                    file.write_from(flight.offset_bytes, &memory, 0..flight.moved_bytes);
                    file.save_range(flight.offset_bytes, flight.moved_bytes);
                }
                return;
            }
            let mut start = 0;
            while start < flight.moved_bytes {
                let offset = flight.offset_bytes + u64::from(start);
                let in_sector = u32::try_from(offset % u64::from(SECTOR_BYTES)).unwrap_or(0);
                let end = (start + SECTOR_BYTES - in_sector).min(flight.moved_bytes);
                if random.one_in(2) {
                    file.write_from(flight.offset_bytes, &memory, start..end);
                }
                start = end;
            }
        });
    }
}
