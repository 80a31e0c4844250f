//! What a kernel ring serves beside its main queue: NVMe namespaces by commands, files whose
//! completions are polled for, and names.
//!
//! Data flow: [`Op`] on a [`FileRef::Beside`] → the companion of its kind → completion, in the
//! words of the main ring: bytes moved, or a negated errno, with an NVMe status kept aside. The
//! shard cannot tell, except that nothing here is linked.
//!
//! Each op that waits in a companion's queue takes room from the main queue as well, so that
//! `reserve` counts for all of them. Names have room of their own: one entry of the main queue
//! stands for all of theirs that wait.
//!
//! Not here: the words of NVMe (`nvme`), one companion (`companion`), that for names (`names`),
//! making companions and filling the table (`table`), pushing and waiting (`turn`), what a
//! companion shares with the kernel (`params`, `queues`).

mod companion;
mod names;
mod params;
mod queues;
mod table;
mod turn;

use std::collections::VecDeque;

use io_uring::squeue::{Entry, Entry128};
use io_uring::{cqueue, opcode, types};
use nix::errno::Errno;

use self::companion::Companion;
use self::names::NameRing;
use super::sqe::Sqe;
use super::{Completion, FileRef, KernelRing, Op, OpKind, Tag, Wait};
use crate::buffer::quarantine;
use crate::nvme::command::Data;
use crate::nvme::serve::{Step, Words, failure, is_vectored};
use crate::nvme::{Command, Space, Status};
use crate::ring::Transfers;

/// `NVME_URING_CMD_IO` and `NVME_URING_CMD_IO_VEC` of `<linux/nvme_ioctl.h>`.
const COMMAND: u32 = 0xc048_4e80;
const COMMAND_VECTORED: u32 = 0xc048_4e81;

/// What a polled file refuses with: it, or the queues of its device, cannot be polled.
const REFUSED: i32 = -(Errno::EOPNOTSUPP as i32);

type FileRing = Companion<Entry, cqueue::Entry>;
type CommandRing = Companion<Entry128, cqueue::Entry32>;

/// What is served.
#[derive(Clone, Copy, Debug)]
enum Served {
    /// Reads and plain writes go to the polled companion as `polled`, until one of them is
    /// refused; everything else goes to the main ring as `main`.
    Polled { polled: FileRef, main: FileRef, refused: bool },
    /// All ops go to the main ring, transfers with flags; so many until the next of those that
    /// go to a worker of the kernel.
    Flagged { main: FileRef, transfers: Transfers, to_async: u32 },
    /// All ops go as commands: transfers to the polled companion where there is `polled` and
    /// none was refused, the others by interrupt.
    Namespace { file: FileRef, polled: Option<FileRef>, refused: bool, space: Space },
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
    /// It has been pushed and not answered.
    live: bool,
    /// It went to a companion that polls.
    polled: bool,
    /// Of several commands, no further one is to be sent.
    cancelled: bool,
    /// The data of a command on a range; the device may read it until the CQE.
    words: Words,
}

/// See the module's page.
#[derive(Default)]
pub(super) struct Beside {
    served: Vec<Option<Served>>,
    files: Option<FileRing>,
    commands: Option<CommandRing>,
    polled_commands: Option<CommandRing>,
    names: Option<Box<NameRing>>,
    /// Whether there can be one is known.
    names_asked: bool,
    /// Of the last turn: ops on names that were taken, and entries of the main queue that stood
    /// for them.
    named: (u32, u32),
    /// By slot. A note does not move while its op is in flight.
    notes: Vec<Option<Box<Note>>>,
    /// What has completed and has not been reaped.
    done: VecDeque<Completion>,
    /// Ops pushed here and not in `done` yet.
    in_flight: u32,
    /// Entries of the main queue that stand for entries of the companions.
    held: u32,
    /// And those that stand for ops that were answered without being sent: until the next
    /// `enter`, they are queued as all others are.
    answered: u32,
    /// Statuses of what is in `done`, and of what was handed out last.
    failed: Vec<(Tag, u16)>,
    told: Vec<(Tag, u16)>,
    /// Slots whose op goes on with another command, as soon as there is room.
    more: VecDeque<usize>,
    /// What a turn has brought; kept for its memory.
    ended: Vec<(u64, i32, bool)>,
    /// Who hears of completions of `commands`: a host's event loop, or who sleeps in the main
    /// ring. `None`: nobody, so they are asked for as polled ones are.
    to_host: Option<bool>,
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

    fn served(&self, index: u32) -> Option<Served> {
        self.served.get(index as usize).copied().flatten()
    }

    /// Whether the transfer that is about to be pushed goes to a worker of the kernel.
    fn is_async(&mut self, index: u32) -> bool {
        let served = self.served.get_mut(index as usize);
        let Some(Some(Served::Flagged { transfers, to_async, .. })) = served else { return false };
        if transfers.async_every == 0 {
            return false;
        }
        *to_async -= 1;
        let due = *to_async == 0;
        if due {
            *to_async = transfers.async_every;
        }
        due
    }

    /// Whether ops are in flight whose completion nobody tells of.
    fn polls(&self) -> bool {
        let mute = self.commands.as_ref().filter(|_| self.to_host.is_none());
        let commands = [mute, self.polled_commands.as_ref()].into_iter().flatten();
        let files = self.files.as_ref().map_or(0, Companion::in_flight);
        let names = self.names.as_ref().filter(|names| names.to_host.is_none());
        if names.is_some_and(|names| names.in_flight() > 0) {
            return true;
        }
        // What has room to wait for does not sleep either: nobody would wake it.
        files + commands.map(Companion::in_flight).sum::<u32>() > 0 || !self.more.is_empty()
    }

    /// Whether all that is in flight can be waited for in one call of the kernel's.
    fn polls_one(&self) -> bool {
        let files = self.files.as_ref().map_or(0, Companion::in_flight);
        let polled = self.polled_commands.as_ref().map_or(0, Companion::in_flight);
        let one = (files > 0) != (polled > 0);
        let names = self.names.as_ref().map_or(0, |names| names.in_flight());
        one && files + polled == self.in_flight && names == 0
    }

    pub(super) fn is_idle(&self) -> bool {
        let names = self.names.as_ref().is_none_or(|names| names.is_quiet());
        self.in_flight == 0 && self.done.is_empty() && names
    }

    /// Whether there is nothing to be done before an `enter`, nor behind it.
    fn is_quiet(&self) -> bool {
        self.is_idle() && self.held + self.answered == 0 && self.more.is_empty()
    }

    /// Takes note of a new op.
    fn begin(&mut self, op: Op, tag: Tag) {
        self.in_flight += 1;
        let at = tag.slot as usize;
        if self.notes.len() <= at {
            self.notes.resize_with(at + 1, || None);
        }
        let note = Note {
            tag,
            op,
            done_bytes: 0,
            step_bytes: 0,
            status: 0,
            live: true,
            polled: false,
            cancelled: false,
            words: Words::default(),
        };
        match &mut self.notes[at] {
            Some(kept) => **kept = note,
            empty => *empty = Some(Box::new(note)),
        }
    }

    /// The note of the op of `tag`, while that is in flight.
    fn live(&mut self, tag: Tag) -> Option<&mut Note> {
        let note = self.notes.get_mut(tag.slot as usize)?.as_mut()?;
        (note.live && note.tag == tag).then_some(&mut **note)
    }

    /// Sends the next command of the op in slot `at`, or finishes it.
    fn go_on(&mut self, at: usize) {
        let Some(note) = self.notes.get_mut(at).and_then(Option::as_mut) else { return };
        let index = if let FileRef::Beside(index) = note.op.file { index as usize } else { 0 };
        let Some(Some(Served::Namespace { file, polled, refused, space })) = self.served.get(index)
        else {
            return self.finish(at, -(Errno::EBADF as i32));
        };
        if note.cancelled {
            return self.finish(at, -(Errno::ECANCELED as i32));
        }
        let (command, bytes) = match space.step(&note.op, note.done_bytes) {
            Step::Done(result) => return self.finish(at, result),
            Step::Send(command, bytes) => (command, bytes),
            Step::SendWith(command, bytes, words) => {
                note.words = words;
                let addr = note.words.0.as_ptr().expose_provenance() as u64;
                (command.with_data(Data { addr, ..command.data() }), bytes)
            }
        };
        note.step_bytes = bytes;
        let moves = note.op.memory.is_some() && !refused;
        note.polled = false;
        let (ring, file) = match (polled, &mut self.polled_commands) {
            (Some(polled), Some(ring)) if moves => {
                note.polled = true;
                (ring, *polled)
            }
            _ => (self.commands.as_mut().expect("it is made before a namespace is"), *file),
        };
        ring.push(&entry(&command, &note.op, note.tag, file, ring));
        self.held += 1;
    }

    fn finish(&mut self, at: usize, result: i32) {
        if let Some(note) = self.notes.get_mut(at).and_then(Option::as_mut)
            && note.live
        {
            note.live = false;
            let tag = note.tag;
            if note.status != 0 {
                self.failed.push((tag, note.status));
            }
            self.done.push_back(Completion { tag, result, more: false });
            self.in_flight -= 1;
        }
    }

    /// A command, or a polled transfer, of the op of `tag` has completed. Returns whether that
    /// says, for the first time, that its target cannot be polled.
    fn ended(&mut self, tag: Tag, result: i32, is_command: bool) -> bool {
        let at = tag.slot as usize;
        let Some(note) = self.live(tag) else { return false };
        if result == REFUSED
            && note.polled
            && let FileRef::Beside(index) = note.op.file
            && let Some(Some(served)) = self.served.get_mut(index as usize)
            && let Served::Polled { refused, .. }
            | Served::Namespace { polled: Some(_), refused, .. } = served
        {
            let first = !*refused;
            *refused = true;
            // Asked for once more, it goes by interrupt.
            self.finish(at, -(Errno::EAGAIN as i32));
            return first;
        }
        if is_command {
            self.command_ended(tag, result);
        } else {
            self.finish(at, result);
        }
        false
    }

    fn command_ended(&mut self, tag: Tag, result: i32) {
        let at = tag.slot as usize;
        let Some(note) = self.live(tag) else { return };
        if let Some(status) = Status::of_result(result) {
            note.status = status.to_bits();
            let errno = failure(&note.op, status);
            return self.finish(at, -(errno as i32));
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

    /// Submits what waits in the companions, and takes in what they have done. A polled one
    /// waits for `min` completions. Returns how many entries were taken, whether a target has
    /// turned out not to be pollable, and the last error.
    fn turn(&mut self, min: u32) -> (u32, bool, Option<Errno>) {
        let mut ended = core::mem::take(&mut self.ended);
        let (mut taken, mut trouble, mut refused) = (0, None, false);
        let mut count = |turn: Result<u32, Errno>| match turn {
            Ok(count) => taken += count,
            Err(errno) => trouble = Some(errno),
        };
        if let Some(ring) = &mut self.files {
            count(ring.turn(min));
            let each = |user_data, result| ended.push((user_data, result, false));
            ring.reap(each, |cqe| (cqe.user_data(), cqe.result(), cqueue::more(cqe.flags())));
        }
        for ring in [&mut self.commands, &mut self.polled_commands].into_iter().flatten() {
            count(ring.turn(min));
            let each = |user_data, result| ended.push((user_data, result, true));
            ring.reap(each, |cqe| (cqe.user_data(), cqe.result(), cqueue::more(cqe.flags())));
        }
        self.named = (0, 0);
        if let Some(names) = &mut self.names {
            let (ops, freed, failed) = names.turn(&mut self.done);
            self.named = (ops, freed.into());
            taken += u32::from(freed);
            trouble = trouble.or(failed);
        }
        self.held -= taken;
        for &(user_data, result, is_command) in &ended {
            refused |= self.ended(Tag::from_user_data(user_data), result, is_command);
        }
        ended.clear();
        self.ended = ended;
        (taken, refused, trouble)
    }
}

impl Drop for Beside {
    /// What a device may still read is not freed (F07): where ops are in flight, nor is it here.
    fn drop(&mut self) {
        if self.in_flight > 0 {
            quarantine(core::mem::take(&mut self.notes), "data of NVMe commands", 0);
        }
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

#[cfg(test)]
mod beside_tests;
