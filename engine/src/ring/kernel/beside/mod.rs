//! What a kernel ring serves beside its main queue: NVMe namespaces by commands, and files whose
//! completions are polled for.
//!
//! Data flow: [`Op`] on a [`FileRef::Beside`] → the companion of its kind → completion, in the
//! words of the main ring: bytes moved, or a negated errno, with an NVMe status kept aside. The
//! shard cannot tell, except that nothing here is linked.
//!
//! Each op that waits in a companion's queue takes room from the main queue as well, so that
//! `reserve` counts for all of them. A companion that is not polled rings the main ring's bell:
//! a sleeping shard has one place to sleep in.
//!
//! Not here: the words of NVMe (`nvme`), one companion (`companion`).

mod companion;

use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use io_uring::squeue::{Entry, Entry128};
use io_uring::{cqueue, opcode, types};
use nix::errno::Errno;

use self::companion::Companion;
use super::sqe::Sqe;
use super::{Completion, FileRef, KernelRing, Op, Tag, Wait};
use crate::nvme::command::Data;
use crate::nvme::serve::{Step, is_vectored};
use crate::nvme::{Command, Space, Status};
use crate::ring::{Poll, Ring};

/// `NVME_URING_CMD_IO` and `NVME_URING_CMD_IO_VEC` of `<linux/nvme_ioctl.h>`.
const COMMAND: u32 = 0xc048_4e80;
const COMMAND_VECTORED: u32 = 0xc048_4e81;

/// What a companion that polls a file, or sends commands, submits.
const FILE_OPCODES: [u8; 8] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::ReadvFixed::CODE,
    opcode::WritevFixed::CODE,
];
const COMMAND_OPCODES: [u8; 1] = [opcode::UringCmd80::CODE];

type FileRing = Companion<Entry, cqueue::Entry>;
type CommandRing = Companion<Entry128, cqueue::Entry32>;

/// What is served.
#[derive(Clone, Copy, Debug)]
enum Served {
    /// Reads and writes go to the polled companion as `polled`, until one of them is refused;
    /// everything else goes to the main ring as `main`.
    Polled { polled: FileRef, main: FileRef, refused: bool },
    /// All ops go as commands: transfers to the polled companion where there is `polled`, the
    /// others by interrupt.
    Namespace { file: FileRef, polled: Option<FileRef>, space: Space },
}

/// What is known of the op in a slot.
#[derive(Clone, Copy, Debug)]
struct Note {
    tag: Tag,
    op: Op,
    /// Bytes of it that are through, and bytes that the command in flight does.
    done_bytes: u64,
    step_bytes: u64,
    /// The status that it failed with, or 0.
    status: u16,
    /// The data of a command on a range; the device reads it until the CQE.
    words: [u8; 16],
}

/// See the module's page.
#[derive(Default)]
pub(super) struct Beside {
    served: Vec<Option<Served>>,
    files: Option<FileRing>,
    commands: Option<CommandRing>,
    polled_commands: Option<CommandRing>,
    /// By slot. A note does not move while its op is in flight.
    notes: Vec<Option<Box<Note>>>,
    /// What has completed and has not been reaped.
    pub(super) done: VecDeque<Completion>,
    /// Ops pushed here and not in `done` yet.
    in_flight: u32,
    /// Entries of the main queue that stand for entries of the companions.
    held: u32,
    /// Statuses of what is in `done`, and of what was handed out last.
    failed: Vec<(Tag, u16)>,
    told: Vec<(Tag, u16)>,
    /// Slots whose op goes on with another command, as soon as there is room.
    more: VecDeque<usize>,
    /// What a turn has brought; kept for its memory.
    ended: Vec<(u64, i32, bool)>,
}

impl Beside {
    fn add(&mut self, served: Served) -> FileRef {
        let free = self.served.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.served.push(None);
            self.served.len() - 1
        });
        self.served[at] = Some(served);
        FileRef::Beside(u32::try_from(at).expect("fewer targets than descriptors"))
    }

    /// Whether ops are in flight whose completion nobody tells of.
    fn polls(&self) -> bool {
        let files = self.files.as_ref().is_some_and(|ring| ring.in_flight() > 0);
        // What has room to wait for does not sleep either: nobody would wake it.
        let waits = !self.more.is_empty();
        waits || files || self.polled_commands.as_ref().is_some_and(|ring| ring.in_flight() > 0)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0 && self.done.is_empty()
    }

    fn note(&mut self, op: Op, tag: Tag) -> &mut Note {
        let at = tag.slot as usize;
        if self.notes.len() <= at {
            self.notes.resize_with(at + 1, || None);
        }
        let fresh = Note { tag, op, done_bytes: 0, step_bytes: 0, status: 0, words: [0; 16] };
        match &mut self.notes[at] {
            Some(note) => {
                **note = fresh;
                note
            }
            empty => empty.insert(Box::new(fresh)),
        }
    }

    /// Sends the next command of the op in slot `at`, or finishes it.
    fn go_on(&mut self, at: usize) {
        let Some(note) = self.notes.get_mut(at).and_then(Option::as_mut) else { return };
        let FileRef::Beside(index) = note.op.file else { return };
        let Some(Some(Served::Namespace { file, polled, space })) = self.served.get(index as usize)
        else {
            return;
        };
        let (command, bytes) = match space.step(&note.op, note.done_bytes) {
            Step::Done(result) => return self.finish(at, result),
            Step::Send(command, bytes) => (command, bytes),
            Step::SendWith(command, bytes, words) => {
                note.words = words;
                let addr = note.words.as_ptr().expose_provenance() as u64;
                (command.with_data(Data { addr, ..command.data() }), bytes)
            }
        };
        note.step_bytes = bytes;
        let moves = note.op.memory.is_some();
        let (ring, file) = match (polled, &mut self.polled_commands) {
            (Some(polled), Some(ring)) if moves => (ring, *polled),
            _ => (self.commands.as_mut().expect("it is made before a namespace is"), *file),
        };
        ring.push(&entry(&command, &note.op, note.tag, file, ring));
        self.held += 1;
    }

    fn finish(&mut self, at: usize, result: i32) {
        if let Some(note) = self.notes.get_mut(at).and_then(Option::as_mut) {
            let tag = note.tag;
            if note.status != 0 {
                self.failed.push((tag, note.status));
            }
            self.done.push_back(Completion { tag, result, more: false });
            self.in_flight -= 1;
        }
    }

    /// A command of the op of `tag` has completed.
    fn command_ended(&mut self, tag: Tag, result: i32) {
        let at = tag.slot as usize;
        let Some(note) = self.notes.get_mut(at).and_then(Option::as_mut) else { return };
        if note.tag != tag {
            return;
        }
        if let Some(status) = Status::of_result(result) {
            note.status = status.to_bits();
            return self.finish(at, -(status.errno() as i32));
        }
        if result < 0 {
            return self.finish(at, result);
        }
        note.done_bytes += note.step_bytes;
        match note.op.memory {
            // A transfer is one command; what it leaves over is for the shard to ask for.
            Some(_) => {
                let moved = i32::try_from(note.done_bytes).unwrap_or(i32::MAX);
                self.finish(at, moved);
            }
            None => self.more.push_back(at),
        }
    }

    /// A polled read or write has completed.
    fn transfer_ended(&mut self, tag: Tag, result: i32) -> bool {
        let at = tag.slot as usize;
        let Some(note) = self.notes.get_mut(at).and_then(Option::as_mut) else { return false };
        if note.tag != tag {
            return false;
        }
        let refused = result == -(Errno::EOPNOTSUPP as i32);
        if let FileRef::Beside(index) = note.op.file
            && refused
            && let Some(Some(Served::Polled { refused, .. })) = self.served.get_mut(index as usize)
        {
            let first = !*refused;
            *refused = true;
            // Asked for once more, it goes to the main ring.
            self.finish(at, -(Errno::EAGAIN as i32));
            return first;
        }
        self.finish(at, result);
        false
    }
}

/// The 128 bytes for `command`, which does a part of `op`.
fn entry(command: &Command, op: &Op, tag: Tag, file: FileRef, ring: &CommandRing) -> Entry128 {
    let mut bytes = [0; 80];
    bytes[..Command::BYTES].copy_from_slice(&command.to_bytes());
    let vectored = is_vectored(op);
    let number = if vectored { COMMAND_VECTORED } else { COMMAND };
    let fixed = op.memory.filter(|_| !vectored).and_then(|memory| ring.fixed(memory.buf_index()));
    let built = match file {
        FileRef::Fixed(index) => opcode::UringCmd80::new(types::Fixed(index), number),
        FileRef::Plain(fd) => opcode::UringCmd80::new(types::Fd(fd), number),
        FileRef::Beside(_) => opcode::UringCmd80::new(types::Fd(-1), number),
    };
    built.cmd(bytes).buf_index(fixed).build().user_data(tag.to_user_data())
}

impl KernelRing {
    /// Queues an op on something that is served beside the main queue.
    #[cold]
    #[inline(never)]
    pub(super) fn push_beside(&mut self, op: Op, tag: Tag, index: u32) {
        assert!(self.reserve(1), "room in the queue was reserved before the push");
        let Some(beside) = &mut self.beside else { return };
        let held = beside.held;
        let Some(Some(served)) = beside.served.get(index as usize).copied() else { return };
        match served {
            Served::Polled { main, refused, .. } if refused || op.memory.is_none() => {
                return self.push_sqe(&Sqe::of(&Op { file: main, ..op }, tag));
            }
            Served::Polled { polled, .. } => {
                beside.in_flight += 1;
                beside.note(op, tag);
                let ring = beside.files.as_mut().expect("it is made before a polled file is");
                let memory = op.memory.filter(|memory| ring.fixed(memory.buf_index()).is_none());
                let unregistered = memory.map(|memory| memory.unregistered());
                let memory = unregistered.or(op.memory);
                ring.push(&Sqe::of(&Op { file: polled, memory, link: false, ..op }, tag).entry());
                beside.held += 1;
            }
            Served::Namespace { .. } => {
                beside.in_flight += 1;
                beside.note(op, tag);
                beside.go_on(tag.slot as usize);
            }
        }
        self.room -= beside.held - held;
    }

    /// As [`Ring::enter`], where companions are to be looked after too.
    #[cold]
    #[inline(never)]
    pub(super) fn enter_beside(&mut self, wait: Wait) -> Result<u32, Errno> {
        let mut taken = self.turn_beside()?;
        loop {
            let ready = self.ready_beside();
            let over = wait.deadline_ns.is_some_and(|deadline_ns| self.now_ns() >= deadline_ns);
            let rests = wait.min == 0 || ready >= wait.min || over;
            let polls = self.beside.as_ref().is_some_and(|beside| beside.polls());
            let rests = rests || self.wake.is_rung();
            let busy = self.queued() > 0 || self.ops_taken != self.ops_reaped;
            if rests || (polls && busy) {
                taken += self.enter_main(Wait::NONE)?;
            }
            if rests {
                return Ok(taken);
            }
            if polls {
                taken += self.turn_beside()?;
                continue;
            }
            // The bell ends the sleep when a companion has news, and so does an op of the main
            // ring: whoever needs more of them looks again.
            taken += self.enter_main(Wait { min: 1, ..wait })?;
            taken += self.turn_beside()?;
            return Ok(taken);
        }
    }

    /// Completions of either kind that wait to be reaped.
    fn ready_beside(&self) -> u32 {
        let beside = self.beside.as_ref().map_or(0, |beside| beside.done.len());
        let main = self.main_ready() + usize::from(self.inline_done.is_some());
        u32::try_from(beside + main).unwrap_or(u32::MAX)
    }

    /// Submits what waits in the companions, and takes in what they have done.
    fn turn_beside(&mut self) -> Result<u32, Errno> {
        let Some(beside) = &mut self.beside else { return Ok(0) };
        let mut ended = core::mem::take(&mut beside.ended);
        let mut taken = 0;
        let mut trouble = None;
        let mut count = |turn: Result<u32, Errno>| match turn {
            Ok(count) => taken += count,
            Err(errno) => trouble = Some(errno),
        };
        if let Some(ring) = &mut beside.files {
            count(ring.turn());
            let each = |user_data, result| ended.push((user_data, result, false));
            ring.reap(each, |cqe| (cqe.user_data(), cqe.result(), cqueue::more(cqe.flags())));
        }
        for ring in [&mut beside.commands, &mut beside.polled_commands].into_iter().flatten() {
            count(ring.turn());
            let each = |user_data, result| ended.push((user_data, result, true));
            ring.reap(each, |cqe| (cqe.user_data(), cqe.result(), cqueue::more(cqe.flags())));
        }
        beside.held -= taken;
        self.room += taken;
        for &(user_data, result, is_command) in &ended {
            let tag = Tag::from_user_data(user_data);
            if is_command {
                beside.command_ended(tag, result);
            } else if beside.transfer_ended(tag, result) {
                self.features.degraded.push(
                    "IOPOLL: a target refused polled I/O (EOPNOTSUPP), its ops are interrupt-driven; \
                     poll queues are to be asked for at boot (nvme.poll_queues=N)"
                        .to_owned(),
                );
            }
        }
        ended.clear();
        beside.ended = ended;
        self.stats.submitted += u64::from(taken);
        self.send_more();
        trouble.map_or(Ok(taken), Err)
    }

    /// Sends the next commands of ops that take several, as far as there is room.
    fn send_more(&mut self) {
        while self.room > self.queued()
            && let Some(beside) = &mut self.beside
            && let Some(at) = beside.more.pop_front()
        {
            let held = beside.held;
            beside.go_on(at);
            self.room -= beside.held - held;
        }
    }

    /// Hands out what the companions have done.
    #[cold]
    pub(super) fn reap_beside(&mut self, into: &mut Vec<Completion>) {
        if let Some(beside) = &mut self.beside {
            into.extend(beside.done.drain(..));
            beside.told.clear();
            core::mem::swap(&mut beside.told, &mut beside.failed);
        }
    }

    /// As [`Ring::device_status`].
    pub(super) fn status_beside(&self, tag: Tag) -> Option<u16> {
        let told = &self.beside.as_ref()?.told;
        told.iter().find(|(of, _)| *of == tag).map(|(_, status)| *status)
    }

    fn command_ring(&mut self, poll: Poll) -> Option<CommandRing> {
        let (main, limits) = (self.ring.get().as_raw_fd(), self.limits);
        let end = self.buffers.end();
        let ring = Companion::new(main, limits, poll, &COMMAND_OPCODES, end, &mut self.features);
        self.told(ring, "NVMe commands")
    }

    fn told<T>(&mut self, made: Result<T, Errno>, what: &str) -> Option<T> {
        match made {
            Ok(made) => Some(made),
            Err(errno) => {
                self.features.degraded.push(format!(
                    "{what}: the kernel refused a ring for them ({errno:?}); Linux 6.1 has it"
                ));
                None
            }
        }
    }

    /// As [`Ring::register_namespace`].
    pub(super) fn add_namespace(&mut self, fd: i32, space: Space, poll: Poll) -> Option<FileRef> {
        let mut beside = self.beside.take().unwrap_or_default();
        if beside.commands.is_none() {
            beside.commands = self.command_ring(Poll::Interrupt);
            if let Some(ring) = &beside.commands {
                self.tell_of(ring);
            }
        }
        let polled = poll != Poll::Interrupt;
        if polled && beside.polled_commands.is_none() {
            beside.polled_commands = self.command_ring(poll);
        }
        let features = &mut self.features;
        let added = beside.commands.as_mut().map(|ring| ring.add_file(fd, features));
        let polled = beside.polled_commands.as_mut().filter(|_| polled);
        let polled = polled.map(|ring| ring.add_file(fd, features));
        let file = added.map(|file| beside.add(Served::Namespace { file, polled, space }));
        self.beside = Some(beside);
        file
    }

    /// As [`Ring::register_polled`].
    pub(super) fn add_polled(&mut self, fd: i32, poll: Poll) -> Option<FileRef> {
        let mut beside = self.beside.take().unwrap_or_default();
        if beside.files.is_none() {
            let (main, limits) = (self.ring.get().as_raw_fd(), self.limits);
            let end = self.buffers.end();
            let ring = Companion::new(main, limits, poll, &FILE_OPCODES, end, &mut self.features);
            beside.files = self.told(ring, "IOPOLL");
        }
        let main = self.files.add(&self.submitter, fd, &mut self.features);
        let features = &mut self.features;
        let polled = beside.files.as_mut().map(|ring| ring.add_file(fd, features));
        let file = polled.map(|polled| beside.add(Served::Polled { polled, main, refused: false }));
        if file.is_none() {
            self.files.remove(&self.submitter, main);
        }
        self.beside = Some(beside);
        file
    }

    /// As [`Ring::unregister_file`].
    pub(super) fn remove_beside(&mut self, index: u32) {
        let Some(beside) = &mut self.beside else { return };
        let Some(served) = beside.served.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        match served {
            Served::Polled { polled, main, .. } => {
                if let Some(ring) = &mut beside.files {
                    ring.remove_file(polled);
                }
                self.files.remove(&self.submitter, main);
            }
            Served::Namespace { file, polled, .. } => {
                if let Some(ring) = &mut beside.commands {
                    ring.remove_file(file);
                }
                if let (Some(ring), Some(file)) = (&mut beside.polled_commands, polled) {
                    ring.remove_file(file);
                }
            }
        }
    }

    /// Buffers from entry `first` on are no longer what the companions have cloned.
    pub(super) fn forget_buffers_beside(&mut self, first: u16) {
        let Some(beside) = &mut self.beside else { return };
        if let Some(ring) = &mut beside.files {
            ring.forget_buffers_from(first);
        }
        for ring in [&mut beside.commands, &mut beside.polled_commands].into_iter().flatten() {
            ring.forget_buffers_from(first);
        }
    }

    /// Whoever sleeps, in this ring or in a host's event loop, hears of `ring`'s completions.
    fn tell_of(&self, ring: &CommandRing) {
        let watched = self.wake.is_watched().then(|| self.wake.host()).flatten();
        let event = watched.map_or(self.wake.event_fd(), AsRawFd::as_raw_fd);
        // Without it a shard would sleep through completions; there is no kernel with NVMe
        // commands that has no such thing.
        let told = ring.tell(event);
        debug_assert!(told.is_ok(), "{told:?}");
    }

    /// A host's event loop sleeps from now on.
    pub(super) fn watch_beside(&self) {
        if let Some(ring) = self.beside.as_ref().and_then(|beside| beside.commands.as_ref()) {
            self.tell_of(ring);
        }
    }
}
