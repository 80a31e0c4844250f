//! Says one op in the kernel's words, and does nothing else.
//!
//! Data flow: [`Op`] and [`Tag`] → [`Sqe`], the 64 bytes of `struct io_uring_sqe`. Pure: no
//! allocation, no system call. Written out here rather than with the builders of the
//! `io-uring` crate, because one expression per field compiles to one store per field.
//!
//! Not here: where the 64 bytes go (`kernel`), splitting and alignment (`plan`).
#![allow(unsafe_code, reason = "gives the 64 bytes the type that the io-uring crate wants")]

mod socket;

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};

use crate::buffer::MemRange;
use crate::ring::{FileRef, Op, OpKind, Tag};

/// The fields of `struct io_uring_sqe` of `<linux/io_uring.h>` that this engine uses; the
/// others are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sqe {
    opcode: u8,
    flags: u8,
    fd: i32,
    offset_bytes: u64,
    /// Address of the memory; for a cancel, the user data of its target.
    addr: u64,
    /// Length of the memory; for a poll, its flags.
    len_bytes: u32,
    /// The flags of reads, writes and flushes; for a poll, the events.
    op_flags: u32,
    user_data: u64,
    buf_index: u16,
    /// The scheduling class and level of a read or a write; the flags of an accept.
    ioprio: u16,
    /// The length that a command on a block device names.
    addr3: u64,
    /// The stream of a write; 0 is none.
    stream: u8,
}

/// `BLOCK_URING_CMD_DISCARD` of `<linux/blkdev.h>`, which stands where others have an offset.
const DISCARD: u32 = 0x1200;

/// Best effort, the lowest of its eight levels (`IOPRIO_PRIO_VALUE`, `ioprio_set(2)`): any
/// process may ask for it, and a scheduler without priorities ignores it.
const IOPRIO_BACKGROUND: u16 = (2 << 13) | 7;

/// The index of [`FileRef::Beside`] that names no file.
pub(super) const NOWHERE: u32 = u32::MAX;

/// `IORING_NOP_INJECT_RESULT`: the result is what stands in the length (Linux 6.10).
pub(super) const NOP_INJECT_RESULT: u32 = 1;

/// `IORING_FSYNC_DATASYNC`.
const FSYNC_DATASYNC: u32 = 1;

/// `IORING_POLL_ADD_MULTI`.
const POLL_ADD_MULTI: u32 = 1;

/// `POLLIN` of `<poll.h>`.
const POLLIN: u32 = 1;

impl Sqe {
    /// A nop without a tag.
    const ZERO: Self = Self {
        opcode: opcode::Nop::CODE,
        flags: 0,
        fd: -1,
        offset_bytes: 0,
        addr: 0,
        len_bytes: 0,
        op_flags: 0,
        user_data: 0,
        buf_index: 0,
        ioprio: 0,
        addr3: 0,
        stream: 0,
    };

    /// An SQE of which only opcode and tag are set.
    #[cfg(test)]
    pub(super) const fn bare(opcode: u8, tag: Tag) -> Self {
        Self { opcode, user_data: tag.to_user_data(), ..Self::ZERO }
    }

    /// `op` in the kernel's words. `ReadFixed` and `WriteFixed` exactly where the memory lies
    /// in a registered buffer.
    ///
    /// # Panics
    /// When a read or a write names no memory.
    #[inline(always)]
    pub(super) fn of(op: &Op, tag: Tag) -> Self {
        let (fd, file_flag) = match op.file {
            FileRef::Fixed(index) => (index.cast_signed(), Flags::FIXED_FILE.bits()),
            FileRef::Plain(fd) => (fd, 0),
            // Pushed elsewhere; as a descriptor it would be none.
            FileRef::Beside(_) => (-1, 0),
        };
        let link_flag = if op.link { Flags::IO_LINK.bits() } else { 0 };
        let async_flag = if op.force_async { Flags::ASYNC.bits() } else { 0 };
        let mut sqe = Self {
            flags: file_flag | link_flag | async_flag,
            fd,
            offset_bytes: op.offset_bytes,
            user_data: tag.to_user_data(),
            ioprio: if op.background { IOPRIO_BACKGROUND } else { 0 },
            ..Self::ZERO
        };
        let (plain, fixed) = match op.kind {
            OpKind::Read => (opcode::Read::CODE, opcode::ReadFixed::CODE),
            OpKind::Write => (opcode::Write::CODE, opcode::WriteFixed::CODE),
            _ => return sqe.without_memory(op),
        };
        let memory = op.memory.expect("a read or a write names its memory");
        let index = memory.buf_index();
        sqe.opcode = if index.is_some() { fixed } else { plain };
        sqe.buf_index = index.unwrap_or(0);
        sqe.addr = memory.addr().addr() as u64;
        sqe.len_bytes = memory.len_bytes();
        let dsync = if op.dsync { libc::RWF_DSYNC } else { 0 };
        let atomic = if op.atomic { libc::RWF_ATOMIC } else { 0 };
        sqe.op_flags = (dsync | atomic).cast_unsigned();
        sqe
    }

    /// A transfer with these flags more, on a stream, perhaps straight to a worker of the kernel.
    pub(super) const fn flagged(mut self, rw_flags: i32, stream: u8, force_async: bool) -> Self {
        self.op_flags |= rw_flags.cast_unsigned();
        self.stream = stream;
        if force_async {
            self.flags |= Flags::ASYNC.bits();
        }
        self
    }

    /// A nop that says it has moved all that `op` would; before Linux 6.10, nothing.
    pub(super) fn nowhere(op: &Op, tag: Tag) -> Self {
        Self {
            flags: if op.link { Flags::IO_LINK.bits() } else { 0 },
            len_bytes: op.memory.map_or(0, |memory| memory.len_bytes()),
            op_flags: NOP_INJECT_RESULT,
            user_data: tag.to_user_data(),
            ..Self::ZERO
        }
    }

    /// All but reads and writes.
    #[cold]
    fn without_memory(self, op: &Op) -> Self {
        match op.kind {
            OpKind::Fdatasync => Self { op_flags: FSYNC_DATASYNC, ..self.flush() },
            OpKind::Fsync => self.flush(),
            OpKind::ReadVectored | OpKind::WriteVectored => self.vectored(op),
            OpKind::DiscardDevice => Self {
                opcode: opcode::UringCmd16::CODE,
                offset_bytes: word(DISCARD, 0),
                addr: op.offset_bytes,
                addr3: op.len_bytes,
                ..self
            },
            OpKind::Truncate => {
                Self { opcode: opcode::Ftruncate::CODE, offset_bytes: op.len_bytes, ..self }
            }
            kind => match kind.fallocate_mode() {
                // The kernel reads the length of the range from the address, and the mode from
                // the length.
                Some(mode) => Self {
                    opcode: opcode::Fallocate::CODE,
                    addr: op.len_bytes,
                    len_bytes: mode.cast_unsigned(),
                    ..self
                },
                None => self,
            },
        }
    }

    /// Memory in several pieces: the address and the length are those of their array.
    #[cold]
    fn vectored(self, op: &Op) -> Self {
        let memory = op.memory.expect("a read or a write names its memory");
        let index = memory.buf_index();
        let opcode = match (op.kind == OpKind::ReadVectored, index.is_some()) {
            (true, false) => opcode::Readv::CODE,
            (true, true) => opcode::ReadvFixed::CODE,
            (false, false) => opcode::Writev::CODE,
            (false, true) => opcode::WritevFixed::CODE,
        };
        let addr = memory.addr().addr() as u64;
        let len_bytes = u32::from(memory.vector_len());
        Self { opcode, addr, len_bytes, buf_index: index.unwrap_or(0), ..self }
    }

    const fn flush(self) -> Self {
        Self { opcode: opcode::Fsync::CODE, ..self }
    }

    /// The 64 bytes, as the `io-uring` crate's type.
    ///
    /// Put together as eight words: the compiler makes eight stores of them, where it makes
    /// one for each field of a struct.
    #[inline(always)]
    pub(super) fn entry(&self) -> Entry {
        let ioprio = self.ioprio.to_ne_bytes();
        let first_half = u32::from_ne_bytes([self.opcode, self.flags, ioprio[0], ioprio[1]]);
        let index_half = u32::from_ne_bytes([
            self.buf_index.to_ne_bytes()[0],
            self.buf_index.to_ne_bytes()[1],
            0,
            0,
        ]);
        let words = [
            word(first_half, self.fd.cast_unsigned()),
            self.offset_bytes,
            self.addr,
            word(self.len_bytes, self.op_flags),
            self.user_data,
            word(index_half, u32::from_ne_bytes([self.stream, 0, 0, 0])),
            self.addr3,
            0,
        ];
        entry_of(words)
    }

    const fn poll_for(events: u32, sqe: Self) -> Self {
        // The kernel reads the events as two 16-bit halves in memory order.
        let events = if cfg!(target_endian = "big") { events.rotate_left(16) } else { events };
        Self { opcode: opcode::PollAdd::CODE, op_flags: events, ..sqe }
    }

    /// Asks for the op with tag `target` to be cancelled; completes itself as `tag`.
    pub(super) const fn cancel(target: Tag, tag: Tag) -> Self {
        Self {
            opcode: opcode::AsyncCancel::CODE,
            addr: target.to_user_data(),
            user_data: tag.to_user_data(),
            ..Self::ZERO
        }
    }

    /// Completes when `fd` becomes readable: once, or each time until it says otherwise.
    pub(super) const fn poll(fd: i32, multishot: bool, tag: Tag) -> Self {
        let len_bytes = if multishot { POLL_ADD_MULTI } else { 0 };
        let user_data = tag.to_user_data();
        Self::poll_for(POLLIN, Self { fd, len_bytes, user_data, ..Self::ZERO })
    }
}

/// The SQE of `Op::transfer` on a file of the main queue; `None` where it is not in there, or
/// not a read or a write. As [`Sqe::of`] has it, with nothing that could be set and is not.
#[inline(always)]
pub(super) fn transfer(
    kind: OpKind,
    file: FileRef,
    offset_bytes: u64,
    memory: MemRange,
    tag: Tag,
) -> Option<Entry> {
    let (fd, flags) = match file {
        FileRef::Fixed(index) => (index, Flags::FIXED_FILE.bits()),
        FileRef::Plain(fd) => (fd.cast_unsigned(), 0),
        FileRef::Beside(NOWHERE) => {
            let op = Op::transfer(kind, file, offset_bytes, memory);
            return Some(Sqe::nowhere(&op, tag).entry());
        }
        FileRef::Beside(_) => return None,
    };
    let (plain, fixed) = match kind {
        OpKind::Read => (opcode::Read::CODE, opcode::ReadFixed::CODE),
        OpKind::Write => (opcode::Write::CODE, opcode::WriteFixed::CODE),
        _ => return None,
    };
    let (opcode, index) = match memory.buf_index() {
        Some(index) => (fixed, index.to_ne_bytes()),
        None => (plain, [0; 2]),
    };
    Some(entry_of([
        word(u32::from_ne_bytes([opcode, flags, 0, 0]), fd),
        offset_bytes,
        memory.addr().addr() as u64,
        word(memory.len_bytes(), 0),
        tag.to_user_data(),
        word(u32::from_ne_bytes([index[0], index[1], 0, 0]), 0),
        0,
        0,
    ]))
}

#[inline(always)]
pub(super) fn entry_of(words: [u64; 8]) -> Entry {
    // SAFETY: both types have 64 bytes, which the compiler checks; an entry is the `repr(C)`
    // form of `struct io_uring_sqe`, all of integers, so any bytes are a valid one.
    unsafe { core::mem::transmute::<[u64; 8], Entry>(words) }
}

/// Two fields of 32 bits that lie one behind the other in memory.
#[inline]
pub(super) const fn word(first: u32, second: u32) -> u64 {
    if cfg!(target_endian = "big") {
        ((first as u64) << 32) | second as u64
    } else {
        ((second as u64) << 32) | first as u64
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::buffer::{Arena, ArenaConfig, IoVecs, SizeClass};

    const TAG: Tag = Tag { slot: 7, generation: 9 };

    pub(in crate::ring::kernel) fn words(entry: &Entry) -> [u64; 8] {
        // SAFETY: an entry is 64 bytes of integers without padding.
        unsafe { core::mem::transmute_copy::<Entry, [u64; 8]>(entry) }
    }

    fn op(kind: OpKind, file: FileRef, memory: Option<MemRange>) -> Op {
        Op { memory, ..Op::on(kind, file) }
    }

    #[test]
    fn reads_and_writes_name_file_memory_and_tag() {
        let mut bytes = [0_u8; 100];
        let memory = MemRange::of_raw(bytes.as_mut_ptr(), 100, None);
        let whole = Sqe {
            fd: 5,
            offset_bytes: 1 << 40,
            addr: bytes.as_mut_ptr().addr() as u64,
            len_bytes: 100,
            user_data: (9 << 32) | 7,
            ..Sqe::ZERO
        };
        for (kind, opcode) in [(OpKind::Read, 22), (OpKind::Write, 23)] {
            let plain = Op { offset_bytes: 1 << 40, ..op(kind, FileRef::Plain(5), memory) };
            assert_eq!(Sqe::of(&plain, TAG), Sqe { opcode, ..whole });
            let fixed = Op { file: FileRef::Fixed(5), ..plain };
            assert_eq!(Sqe::of(&fixed, TAG), Sqe { opcode, flags: 1, ..whole });
            let linked = Op { link: true, ..fixed };
            assert_eq!(Sqe::of(&linked, TAG), Sqe { opcode, flags: 1 | 4, ..whole });
            let forced = Op { force_async: true, ..plain };
            assert_eq!(Sqe::of(&forced, TAG), Sqe { opcode, flags: 16, ..whole });
        }
    }

    #[test]
    fn memory_in_a_registered_buffer_makes_a_fixed_opcode() {
        let config = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 1 }]);
        let arena = Arena::new(&config).unwrap();
        arena.region().set_registered_bytes(4096);
        let mut buf = arena.alloc(4096).unwrap();
        let memory = Some(buf.mem_range());
        for (kind, opcode) in [(OpKind::Read, 4), (OpKind::Write, 5)] {
            let sqe = Sqe::of(&op(kind, FileRef::Plain(3), memory), TAG);
            assert_eq!((sqe.opcode, sqe.buf_index, sqe.len_bytes), (opcode, 0, 4096));
        }
        let unregistered = MemRange::of_raw(buf.as_mut_ptr(), 4096, None);
        assert_eq!(Sqe::of(&op(OpKind::Read, FileRef::Plain(3), unregistered), TAG).opcode, 22);
    }

    #[test]
    fn f10_vectored_ops_name_the_array_of_their_pieces() {
        let config = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 3 }]);
        let arena = Arena::new(&config).unwrap();
        arena.region().set_registered_bytes(arena.region().len_bytes());
        let mut bufs: Vec<_> = (0..3).map(|_| arena.alloc(4096).unwrap()).collect();
        bufs.sort_by_key(|buf| core::cmp::Reverse(buf.as_ptr()));
        let mut vectors = IoVecs::new();
        for buf in &mut bufs {
            vectors.push(buf.mem_range());
        }
        let opcodes = [(OpKind::ReadVectored, false, 1), (OpKind::WriteVectored, false, 2)]
            .into_iter()
            .chain([(OpKind::ReadVectored, true, 60), (OpKind::WriteVectored, true, 61)]);
        for (kind, fixed, opcode) in opcodes {
            let memory = vectors.range(fixed);
            let sqe = Sqe::of(&op(kind, FileRef::Plain(3), memory), TAG);
            assert_eq!((sqe.opcode, sqe.len_bytes, sqe.buf_index), (opcode, 3, 0));
            assert_eq!(sqe.addr, memory.unwrap().addr().addr() as u64);
        }
    }

    #[test]
    fn transfer_is_said_the_short_way_as_the_long_way() {
        let config = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 1 }]);
        let arena = Arena::new(&config).unwrap();
        arena.region().set_registered_bytes(4096);
        let mut buf = arena.alloc(4096).unwrap();
        let unregistered = MemRange::of_raw(buf.as_mut_ptr(), 512, None).unwrap();
        for memory in [buf.mem_range(), unregistered] {
            for kind in [OpKind::Read, OpKind::Write] {
                let nowhere = FileRef::Beside(NOWHERE);
                for file in [FileRef::Fixed(8), FileRef::Plain(3), nowhere] {
                    let short = transfer(kind, file, 1 << 40, memory, TAG).unwrap();
                    let op = Op::transfer(kind, file, 1 << 40, memory);
                    let of = if file == nowhere { Sqe::nowhere } else { Sqe::of };
                    let long = of(&op, TAG).entry();
                    // SAFETY: an entry is 64 bytes of integers without padding.
                    let short = unsafe { core::mem::transmute_copy::<Entry, [u64; 8]>(&short) };
                    // SAFETY: as above.
                    let long = unsafe { core::mem::transmute_copy::<Entry, [u64; 8]>(&long) };
                    assert_eq!(short, long, "{kind:?} {file:?}");
                }
            }
            assert!(transfer(OpKind::Read, FileRef::Beside(0), 0, memory, TAG).is_none());
            assert!(transfer(OpKind::Fsync, FileRef::Plain(3), 0, memory, TAG).is_none());
        }
    }

    #[test]
    fn op_on_nothing_is_a_nop_that_tells_its_length() {
        let mut bytes = [0_u8; 100];
        let memory = MemRange::of_raw(bytes.as_mut_ptr(), 100, None);
        let nowhere = op(OpKind::Write, FileRef::Beside(NOWHERE), memory);
        let nop = Sqe { user_data: TAG.to_user_data(), op_flags: 1, ..Sqe::ZERO };
        assert_eq!(Sqe::nowhere(&nowhere, TAG), Sqe { len_bytes: 100, ..nop });
        let flush = op(OpKind::Fsync, FileRef::Beside(NOWHERE), None);
        assert_eq!(Sqe::nowhere(&flush, TAG), nop);
    }

    #[test]
    fn background_ops_ask_for_the_lowest_priority() {
        let mut bytes = [0_u8; 8];
        let memory = MemRange::of_raw(bytes.as_mut_ptr(), 8, None);
        let usual = op(OpKind::Read, FileRef::Plain(3), memory);
        let background = Sqe::of(&Op { background: true, ..usual }, TAG);
        assert_eq!(background, Sqe { ioprio: 0x4007, ..Sqe::of(&usual, TAG) });
        let words = background.entry();
        // SAFETY: an entry is 64 bytes of integers without padding.
        let words = unsafe { core::mem::transmute_copy::<Entry, [u16; 32]>(&words) };
        assert_eq!(words[1], 0x4007);
    }

    #[test]
    fn discard_of_a_device_is_a_command_with_start_and_length() {
        let discard = Op::range(OpKind::DiscardDevice, FileRef::Fixed(8), 1 << 40, 1 << 33);
        let entry = Sqe::of(&discard, TAG).entry();
        // SAFETY: an entry is 64 bytes of integers without padding.
        let words = unsafe { core::mem::transmute_copy::<Entry, [u64; 8]>(&entry) };
        let first = word(u32::from_ne_bytes([46, Flags::FIXED_FILE.bits(), 0, 0]), 8);
        let tag = TAG.to_user_data();
        assert_eq!(words, [first, word(0x1200, 0), 1 << 40, 0, tag, 0, 1 << 33, 0]);
    }

    #[test]
    fn flushes_and_nops_carry_no_memory() {
        let file = FileRef::Plain(3);
        let flush = Sqe { opcode: 3, fd: 3, user_data: TAG.to_user_data(), ..Sqe::ZERO };
        assert_eq!(Sqe::of(&op(OpKind::Fsync, file, None), TAG), flush);
        let data_only = Sqe { op_flags: 1, ..flush };
        assert_eq!(Sqe::of(&op(OpKind::Fdatasync, file, None), TAG), data_only);
        let nop = Sqe { user_data: TAG.to_user_data(), ..Sqe::ZERO };
        assert_eq!(Sqe::of(&op(OpKind::Nop, FileRef::Plain(-1), None), TAG), nop);
    }

    #[test]
    fn entries_match_the_builders_of_the_crate() {
        let same = |ours: Sqe, theirs: Entry| {
            let theirs = theirs.user_data(Tag::INTERNAL.to_user_data());
            assert_eq!(words(&ours.entry()), words(&theirs));
        };
        let mut bytes = [0_u8; 100];
        let (at, fixed) = (bytes.as_mut_ptr(), io_uring::types::Fixed(8));
        let memory = MemRange::of_raw(at, 100, None);
        let offset_bytes = 0x0102_0304_0506_0708;
        let read = Op { offset_bytes, ..op(OpKind::Read, FileRef::Fixed(8), memory) };
        let built = opcode::Read::new(fixed, at, 100).offset(offset_bytes).build();
        same(Sqe::of(&read, Tag::INTERNAL), built);
        let with_index = Sqe { buf_index: 0x0203, ..Sqe::of(&read, Tag::INTERNAL) };
        let built = opcode::ReadFixed::new(fixed, at, 100, 0x0203).offset(offset_bytes).build();
        same(Sqe { opcode: opcode::ReadFixed::CODE, ..with_index }, built);
        let flush = op(OpKind::Fdatasync, FileRef::Fixed(8), None);
        let data_only = io_uring::types::FsyncFlags::DATASYNC;
        same(Sqe::of(&flush, Tag::INTERNAL), opcode::Fsync::new(fixed).flags(data_only).build());
        let zeroes = Op::range(OpKind::WriteZeroes, FileRef::Fixed(8), offset_bytes, 1 << 40);
        let built = opcode::Fallocate::new(fixed, 1 << 40).offset(offset_bytes).mode(0x10).build();
        same(Sqe::of(&zeroes, Tag::INTERNAL), built);
        let truncate = Op::range(OpKind::Truncate, FileRef::Fixed(8), 0, 77);
        same(Sqe::of(&truncate, Tag::INTERNAL), opcode::Ftruncate::new(fixed, 77).build());
        let durable = Op { kind: OpKind::Write, dsync: true, atomic: true, ..read };
        let built = opcode::Write::new(fixed, at, 100).offset(offset_bytes).rw_flags(0x42).build();
        same(Sqe::of(&durable, Tag::INTERNAL), built);
        let target = Tag { slot: 1, generation: 2 };
        let cancel = opcode::AsyncCancel::new(target.to_user_data()).build();
        same(Sqe::cancel(target, Tag::INTERNAL), cancel);
        let fd = io_uring::types::Fd(4);
        for multishot in [false, true] {
            let poll = opcode::PollAdd::new(fd, POLLIN).multi(multishot).build();
            same(Sqe::poll(4, multishot, Tag::INTERNAL), poll);
        }
        let nop = op(OpKind::Nop, FileRef::Plain(-1), None);
        same(Sqe::of(&nop, Tag::INTERNAL), opcode::Nop::new().build());
    }
}
