//! The companion for names: opens, looks, links, moves and removes, and nothing that moves bytes.
//!
//! Data flow: [`NameOp`] → a place of its own in memory, with room for what the kernel answers →
//! SQE → companion → CQE → [`NameEnd`], kept until it is asked for. That place is freed when the
//! CQE has come, and by nothing else: not when the caller has gone, nor with the ring (F01, F02).
//!
//! Not here: when it is submitted and who is told (`turn`), what ops are for (`shard::names`).
#![allow(unsafe_code, reason = "keeps what the kernel reads and writes where it is")]

use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use std::collections::VecDeque;
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::types::{self, Fd, OpenHow};
use io_uring::{Probe, cqueue, opcode};
use mfio_rt::portable::asked::kind_of_mode;
use mfio_rt::{Metadata, Timestamp};
use nix::errno::Errno;

use super::{Companion, Completion, FileRing, KernelRing, Tag};
use crate::buffer::quarantine;
use crate::ring::{Limits, NAME_SLOTS_FROM, NAMES_IN_FLIGHT_MAX, NameAnswer, NameEnd, NameKind};
use crate::ring::{NameOp, Names, Place, Poll, SOCKET_SLOTS_FROM};

/// What this companion submits. Those that the kernel lacks are left to others.
pub(super) const OPCODES: [u8; 9] = [
    opcode::OpenAt2::CODE,
    opcode::Statx::CODE,
    opcode::MkDirAt::CODE,
    opcode::UnlinkAt::CODE,
    opcode::RenameAt::CODE,
    opcode::LinkAt::CODE,
    opcode::SymlinkAt::CODE,
    opcode::Fsync::CODE,
    opcode::AsyncCancel::CODE,
];

/// What `Features::in_use` calls it.
const NAMES: &str = "names ring";

/// Ops, and a cancel for each of them.
const SQ_ENTRIES: u32 = 64;

const fn opcode_of(kind: NameKind) -> u8 {
    match kind {
        NameKind::Open => opcode::OpenAt2::CODE,
        NameKind::Look => opcode::Statx::CODE,
        NameKind::MakeDir => opcode::MkDirAt::CODE,
        NameKind::Remove => opcode::UnlinkAt::CODE,
        NameKind::Rename => opcode::RenameAt::CODE,
        NameKind::Link => opcode::LinkAt::CODE,
        NameKind::Symlink => opcode::SymlinkAt::CODE,
        NameKind::Sync => opcode::Fsync::CODE,
    }
}

fn dir_of(place: &Place) -> Fd {
    Fd(place.dir.as_raw_fd())
}

/// One op, and what the kernel reads and writes for it.
struct Memory {
    op: NameOp,
    how: OpenHow,
    facts: libc::statx,
}

/// Owns that, where it does not move: the kernel has its address.
struct Kept(NonNull<Memory>);

impl Kept {
    fn new(op: NameOp) -> Self {
        let how = match &op {
            NameOp::Open { flags, mode, resolve, .. } => {
                let flags = u64::from((flags | libc::O_CLOEXEC).cast_unsigned());
                OpenHow::new().flags(flags).mode(u64::from(*mode)).resolve(*resolve)
            }
            _ => OpenHow::new(),
        };
        // SAFETY: all of its fields are integers, of which 0 is one.
        let facts = unsafe { core::mem::zeroed::<libc::statx>() };
        Self(NonNull::from(Box::leak(Box::new(Memory { op, how, facts }))))
    }

    /// The op in the kernel's words: whoever submits it keeps this until its CQE has come.
    fn entry(&self) -> Entry {
        let memory = self.0.as_ptr();
        // SAFETY: lifetime: the box is freed by `Kept::drop` and `Kept::end` alone. Aliasing: the
        // kernel only reads the op. Bounds: it points to one `Memory`.
        let op = unsafe { &(*memory).op };
        match op {
            NameOp::Open { place, .. } => {
                // SAFETY: in bounds, as above; only the address is taken.
                let how = unsafe { &raw const (*memory).how };
                let dir = dir_of(place);
                opcode::OpenAt2::new(dir, place.path.as_ptr(), how).build()
            }
            NameOp::Look { place, flags } => {
                // SAFETY: in bounds, as above; only the address is taken.
                let facts = unsafe { &raw mut (*memory).facts }.cast::<types::statx>();
                let dir = dir_of(place);
                let look = opcode::Statx::new(dir, place.path.as_ptr(), facts);
                look.flags(*flags).mask(libc::STATX_BASIC_STATS).build()
            }
            NameOp::MakeDir { place, mode } => {
                let dir = dir_of(place);
                opcode::MkDirAt::new(dir, place.path.as_ptr()).mode(*mode).build()
            }
            NameOp::Remove { place, flags } => {
                let dir = dir_of(place);
                opcode::UnlinkAt::new(dir, place.path.as_ptr()).flags(*flags).build()
            }
            NameOp::Rename { from, to } => {
                let (old, new) = (dir_of(from), dir_of(to));
                opcode::RenameAt::new(old, from.path.as_ptr(), new, to.path.as_ptr()).build()
            }
            NameOp::Link { from, to } => {
                let (old, new) = (dir_of(from), dir_of(to));
                opcode::LinkAt::new(old, from.path.as_ptr(), new, to.path.as_ptr()).build()
            }
            NameOp::Symlink { target, place } => {
                let dir = dir_of(place);
                opcode::SymlinkAt::new(dir, target.as_ptr(), place.path.as_ptr()).build()
            }
            NameOp::Sync { dir } => opcode::Fsync::new(Fd(dir.as_raw_fd())).build(),
        }
    }

    /// The kernel is through with it, and says `result`.
    fn end(self, result: i32) -> NameEnd {
        let memory = ManuallyDrop::new(self).0;
        // SAFETY: lifetime: the pointer came from a box in `new` and is freed once, here, since
        // `self` is not dropped. Aliasing: the CQE has come, so the kernel writes no more.
        let memory = unsafe { Box::from_raw(memory.as_ptr()) };
        let Memory { op, facts, .. } = *memory;
        let answer = match &op {
            _ if result < 0 => None,
            NameOp::Open { .. } => crate::sys::handed_over(result).map(NameAnswer::Opened),
            NameOp::Look { .. } => Some(NameAnswer::Facts(metadata_of(&facts))),
            _ => Some(NameAnswer::Done),
        };
        let result = answer.ok_or_else(|| match result.saturating_neg() {
            // What a system call makes of a signal's interrupting it, an op leaves as it is (seen
            // with Linux 6.18): `ERESTARTSYS` and its kin of the kernel's <linux/errno.h>.
            512..=514 | 516 => Errno::EINTR,
            errno => Errno::from_raw(errno),
        });
        NameEnd { op, result }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: as in `end`. Only what was never given to the kernel, or has come back from
        // it, is dropped: `NameRing::drop` sees to that.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// As `stat(2)` has it.
fn metadata_of(facts: &libc::statx) -> Metadata {
    let time =
        |time: &libc::statx_timestamp| Some(Timestamp { secs: time.tv_sec, nanos: time.tv_nsec });
    let st_mode = u32::from(facts.stx_mode);
    let mut metadata = Metadata::new(kind_of_mode(st_mode), facts.stx_size, st_mode & 0o7777);
    let device = libc::makedev(facts.stx_dev_major, facts.stx_dev_minor);
    metadata.links = Some(facts.stx_nlink.into());
    metadata.id = Some((device, facts.stx_ino));
    metadata.allocated_bytes = Some(facts.stx_blocks.saturating_mul(512));
    metadata.accessed = time(&facts.stx_atime);
    metadata.modified = time(&facts.stx_mtime);
    metadata.changed = time(&facts.stx_ctime);
    metadata
}

#[allow(clippy::large_enum_variant, reason = "there are few, and none is moved about")]
enum Life {
    Free,
    InFlight(Tag, Kept),
    Ended(Tag, NameEnd),
}

/// See the module's page.
pub(super) struct NameRing {
    pub(super) ring: FileRing,
    /// The opcodes that the kernel has.
    known: Vec<u8>,
    /// By slot, from [`NAME_SLOTS_FROM`] on.
    lives: Vec<Life>,
    in_flight: usize,
    /// An entry of the main queue stands for all that is queued here.
    pub(super) holds: bool,
    /// Who hears of completions: a host's event loop, or who sleeps in the main ring. `None`:
    /// nobody, so they are looked for.
    pub(super) to_host: Option<bool>,
}

impl NameRing {
    /// The place of the op of `tag`.
    fn at(tag: Tag) -> usize {
        (tag.slot - NAME_SLOTS_FROM) as usize
    }

    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Nothing is to be submitted or to come, answers to cancels included.
    pub(super) const fn is_quiet(&self) -> bool {
        self.ring.in_flight() == 0 && self.ring.queued() == 0
    }

    /// Submits what is queued, and takes in what has been done. Returns how many ops were
    /// taken, and whether the entry of the main queue is free again.
    pub(super) fn turn(&mut self, done: &mut VecDeque<Completion>) -> (u32, bool, Option<Errno>) {
        let (taken, trouble) = match self.ring.turn(0) {
            Ok(taken) => (taken, None),
            Err(errno) => (0, Some(errno)),
        };
        let Self { ring, lives, in_flight, .. } = self;
        let each = |user_data, result| {
            let tag = Tag::from_user_data(user_data);
            // The answer to a cancel says nothing that its target's CQE does not say (F03).
            if tag.slot == Tag::INTERNAL.slot {
                return;
            }
            let Some(life) = lives.get_mut(Self::at(tag)) else { return };
            match core::mem::replace(life, Life::Free) {
                Life::InFlight(of, kept) if of == tag => {
                    *life = Life::Ended(tag, kept.end(result));
                    *in_flight -= 1;
                    done.push_back(Completion { tag, result, more: false });
                }
                other => *life = other,
            }
        };
        ring.reap(each, |cqe: &cqueue::Entry| {
            (cqe.user_data(), cqe.result(), cqueue::more(cqe.flags()))
        });
        let freed = self.holds && self.ring.queued() == 0;
        self.holds &= !freed;
        (taken, freed, trouble)
    }

    fn push(&mut self, op: NameOp, tag: Tag) {
        let at = Self::at(tag);
        if self.lives.len() <= at {
            self.lives.resize_with(at + 1, || Life::Free);
        }
        let kept = Kept::new(op);
        let entry = kept.entry().user_data(tag.to_user_data());
        let taken = matches!(self.lives[at], Life::InFlight(..));
        assert!(!taken, "a slot is used again when its op has completed");
        self.lives[at] = Life::InFlight(tag, kept);
        self.in_flight += 1;
        self.ring.push(&entry);
    }
}

impl Drop for NameRing {
    /// What the kernel may still read or write is not freed (F07).
    fn drop(&mut self) {
        if self.in_flight > 0 {
            quarantine(core::mem::take(&mut self.lives), "paths of ops on names", self.in_flight);
        }
    }
}

impl KernelRing {
    /// Makes the companion, or notes why there is none.
    #[cold]
    fn name_ring(&mut self) -> Option<Box<NameRing>> {
        let mut probe = Probe::new();
        let probed = self.submitter.register_probe(&mut probe);
        let known: Vec<u8> = OPCODES.into_iter().filter(|&code| probe.is_supported(code)).collect();
        let limits = Limits { sq_entries: SQ_ENTRIES, cq_entries: 2 * SQ_ENTRIES, ..self.limits };
        let (main, poll) = (self.ring.get().as_raw_fd(), Poll::Interrupt);
        let ring = match probed {
            Ok(()) if known.contains(&opcode::OpenAt2::CODE) => {
                Companion::new(main, limits, poll, &known, 0, &mut self.features)
            }
            Ok(()) => Err(Errno::EOPNOTSUPP),
            Err(error) => Err(super::super::setup::errno_of(&error)),
        };
        match ring {
            Ok(ring) => {
                self.features.in_use.push(NAMES);
                let lives = Vec::new();
                let names =
                    NameRing { ring, known, lives, in_flight: 0, holds: false, to_host: None };
                Some(Box::new(names))
            }
            Err(errno) => {
                self.features.degraded.push(format!(
                    "{NAMES}: the kernel refused a ring for them ({errno:?}), so opens, renames \
                     and their kin go by threads; Linux 5.15 has all of them"
                ));
                None
            }
        }
    }

    fn names(&self) -> Option<&NameRing> {
        self.beside.as_ref()?.names.as_deref()
    }

    fn names_mut(&mut self) -> Option<&mut NameRing> {
        self.beside.as_mut()?.names.as_deref_mut()
    }

    /// What is queued for names keeps `enter` from being called off: an entry of the main queue
    /// stands for it.
    fn hold_for_names(&mut self) {
        if let Some(names) = self.names_mut()
            && !names.holds
        {
            names.holds = true;
            // May be below what is queued: there is no room then either way.
            self.room -= 1;
            self.beside.as_mut().expect("the names are in it").held += 1;
        }
    }
}

impl Names for KernelRing {
    fn takes_names(&mut self, kind: NameKind) -> bool {
        let asked = self.beside.as_ref().is_some_and(|beside| beside.names_asked);
        if !asked {
            let names = self.name_ring();
            let beside = self.beside.get_or_insert_default();
            // Once: what refused it will not go away by itself.
            (beside.names, beside.names_asked) = (names, true);
            self.tell_of_commands(self.wake.is_watched());
        }
        self.names().is_some_and(|names| names.known.contains(&opcode_of(kind)))
    }

    fn has_room_for_name(&self) -> bool {
        self.names().is_some_and(|names| {
            names.in_flight < NAMES_IN_FLIGHT_MAX && names.ring.queued() < SQ_ENTRIES
        })
    }

    fn push_name(&mut self, op: NameOp, tag: Tag) {
        debug_assert!(self.staged.is_none(), "a staged op is unstaged before the next push");
        let slots = NAME_SLOTS_FROM..SOCKET_SLOTS_FROM;
        debug_assert!(slots.contains(&tag.slot), "names have tags of their own");
        assert!(self.has_room_for_name(), "there is room for a name before it is pushed");
        self.hold_for_names();
        self.stats.names += 1;
        if let Some(names) = self.names_mut() {
            names.push(op, tag);
        }
    }

    fn cancel_name(&mut self, tag: Tag) -> bool {
        let Some(names) = self.names_mut() else { return true };
        if names.ring.queued() >= SQ_ENTRIES {
            return false;
        }
        let cancel = opcode::AsyncCancel::new(tag.to_user_data()).build();
        names.ring.push(&cancel.user_data(Tag::INTERNAL.to_user_data()));
        self.hold_for_names();
        true
    }

    fn end_of_name(&mut self, tag: Tag) -> Option<NameEnd> {
        let life = self.names_mut()?.lives.get_mut(NameRing::at(tag))?;
        match core::mem::replace(life, Life::Free) {
            Life::Ended(of, end) if of == tag => Some(end),
            other => {
                *life = other;
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod names_tests;
