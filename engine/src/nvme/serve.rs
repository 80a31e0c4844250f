//! Turns an op on a namespace into the commands that carry it out.
//!
//! Pure. Data flow: [`Op`], [`Space`], bytes that are done → [`Step`] → the ring sends it, or
//! answers at once. The answers are those of a block device: nothing is read at the end of the
//! namespace, and there is no space behind it, so that a packet cannot tell which way it went.
//! No command leaves here whose range does not lie in the namespace (F48).
//!
//! Not here: sending (`ring`), the words of a command (`command`).

use nix::errno::Errno;

use super::Status;
use super::command::{BLOCKS_MAX, Command, Data, Range, copy_source, deallocate_range};
use crate::buffer::MemRange;
use crate::ring::{Op, OpKind};

/// What the commands for a namespace depend on; all of it told by identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The identifier of the namespace.
    pub nsid: u32,
    /// A logical block has 2 to the power of this many bytes.
    pub block_shift: u8,
    /// How many logical blocks there are.
    pub blocks: u64,
    /// Completed writes may be lost with the power: flushes and FUA mean something.
    pub volatile_cache: bool,
    /// It can deallocate.
    pub deallocate: bool,
    /// It can write zeroes.
    pub write_zeroes: bool,
    /// It can compare.
    pub compare: bool,
    /// The most blocks of one copy within it; 0 where it cannot copy.
    pub copy_blocks_max: u32,
    /// It was opened for reading. The kernel heeds that for users without `CAP_SYS_ADMIN` only.
    pub readable: bool,
    /// It was opened for writing; as `readable`.
    pub writable: bool,
    /// Reads come from the medium.
    pub read_fua: bool,
    /// Writes complete on the medium, whether or not their op says so.
    pub write_fua: bool,
}

/// The data of a command on a range, where a device reads it without a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(16))]
pub(crate) struct Words(pub(crate) [u8; 16]);

/// The next thing to do for an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send the command, which does this many bytes of the op.
    Send(Command, u64),
    /// As `Send`, with these bytes as the command's data, which the ring keeps until then.
    SendWith(Command, u64, Words),
    /// Nothing is to be sent: bytes moved, or a negated errno.
    Done(i32),
}

impl Step {
    fn refuse(errno: Errno) -> Self {
        Self::Done(-(errno as i32))
    }
}

impl Space {
    /// What to do for `op`, of which `done_bytes` are through.
    pub(crate) fn step(&self, op: &Op, done_bytes: u64) -> Step {
        let reads = reads(op.kind);
        let changes = matches!(op.kind, OpKind::Write | OpKind::WriteVectored | OpKind::CopyWithin);
        if (reads && !self.readable) || ((changes || op.kind.is_range()) && !self.writable) {
            return Step::refuse(Errno::EBADF);
        }
        match op.kind {
            OpKind::Read | OpKind::Write | OpKind::ReadVectored | OpKind::WriteVectored => {
                op.memory.map_or(Step::refuse(Errno::EFAULT), |memory| self.transfer(op, memory))
            }
            OpKind::Compare if self.compare => {
                op.memory.map_or(Step::refuse(Errno::EFAULT), |memory| self.transfer(op, memory))
            }
            OpKind::CopyWithin if self.copy_blocks_max > 0 => {
                op.memory.map_or(Step::refuse(Errno::EFAULT), |memory| self.copy(op, memory))
            }
            OpKind::Fdatasync | OpKind::Fsync if done_bytes == 0 && self.volatile_cache => {
                // The bytes that it does: one, so that it counts as done once it has been sent.
                Step::Send(Command::flush(self.nsid), 1)
            }
            OpKind::Fdatasync | OpKind::Fsync | OpKind::Nop => Step::Done(0),
            OpKind::Discard if self.deallocate => self.range(op, done_bytes, u32::MAX),
            OpKind::WriteZeroes if self.write_zeroes => self.range(op, done_bytes, BLOCKS_MAX),
            _ => Step::refuse(Errno::EOPNOTSUPP),
        }
    }

    /// The blocks of `len_bytes` from `offset_bytes` on, of at most `blocks_max` and none behind
    /// the end; `None` where they do not begin and end at blocks.
    fn blocks(&self, offset_bytes: u64, len_bytes: u64, blocks_max: u32) -> Option<Range> {
        let shift = u32::from(self.block_shift);
        let mask = (1_u64 << shift) - 1;
        if (offset_bytes | len_bytes) & mask != 0 {
            return None;
        }
        let first_lba = offset_bytes >> shift;
        let left = self.blocks.saturating_sub(first_lba);
        let blocks = (len_bytes >> shift).min(left).min(u64::from(blocks_max));
        let blocks = u32::try_from(blocks).expect("at most blocks_max");
        Some(Range { first_lba, blocks })
    }

    /// The words by which the device learns what to copy: `len_bytes` from byte `from_bytes` on,
    /// to byte `to_bytes`. `None` where these are not whole blocks of the namespace, or none, or
    /// more than one command takes.
    pub(crate) fn copy_words(
        &self,
        from_bytes: u64,
        to_bytes: u64,
        len_bytes: u64,
    ) -> Option<[u8; 32]> {
        let whole = |offset_bytes| {
            let range = self.blocks(offset_bytes, len_bytes, self.copy_blocks_max)?;
            let all = u64::from(range.blocks) << self.block_shift == len_bytes;
            Some(range).filter(|range| all && range.blocks > 0)
        };
        whole(to_bytes).and(whole(from_bytes)).map(copy_source)
    }

    /// The memory of a copy are the words of [`Space::copy_words`], at the start of a block.
    fn copy(&self, op: &Op, memory: MemRange) -> Step {
        let range = self.blocks(op.offset_bytes, op.len_bytes, self.copy_blocks_max);
        let Some(range) = range else { return Step::refuse(Errno::EINVAL) };
        if range.blocks == 0 || u64::from(range.blocks) << self.block_shift != op.len_bytes {
            return Step::refuse(Errno::ENOSPC);
        }
        let data = Data { addr: memory.addr().addr() as u64, len: 32 };
        Step::Send(Command::copy(self.nsid, range.first_lba, data), memory.len_bytes().into())
    }

    fn transfer(&self, op: &Op, memory: MemRange) -> Step {
        let reads = reads(op.kind);
        let len_bytes = u64::from(memory.len_bytes());
        let range = self.blocks(op.offset_bytes, len_bytes, BLOCKS_MAX);
        let Some(range) = range else { return Step::refuse(Errno::EINVAL) };
        if range.blocks == 0 {
            return if reads { Step::Done(0) } else { Step::refuse(Errno::ENOSPC) };
        }
        let bytes = u64::from(range.blocks) << self.block_shift;
        if op.atomic && bytes < len_bytes {
            // A part of it would not be the whole that was promised.
            return Step::refuse(Errno::ENOSPC);
        }
        let addr = memory.addr().addr() as u64;
        let data = match memory.vector_len() {
            0 => Data { addr, len: u32::try_from(bytes).unwrap_or(u32::MAX) },
            // The pieces are as long as the op: what is cut off at the end cannot be said.
            _ if bytes < len_bytes => return Step::refuse(Errno::EINVAL),
            pieces => Data { addr, len: u32::from(pieces) },
        };
        let command = if op.kind == OpKind::Compare {
            Command::compare(self.nsid, range, data)
        } else if reads {
            Command::read(self.nsid, range, data).with_fua(self.read_fua)
        } else {
            let fua = self.write_fua || op.dsync && self.volatile_cache;
            Command::write(self.nsid, range, data, fua)
        };
        Step::Send(command, bytes)
    }

    fn range(&self, op: &Op, done_bytes: u64, blocks_max: u32) -> Step {
        let left_bytes = op.len_bytes - done_bytes;
        if left_bytes == 0 {
            return Step::Done(0);
        }
        let range = self.blocks(op.offset_bytes + done_bytes, left_bytes, blocks_max);
        let Some(range) = range else { return Step::refuse(Errno::EINVAL) };
        if range.blocks == 0 {
            return Step::refuse(Errno::ENOSPC);
        }
        let bytes = u64::from(range.blocks) << self.block_shift;
        if op.kind == OpKind::WriteZeroes {
            let fua = op.dsync && self.volatile_cache;
            return Step::Send(Command::write_zeroes(self.nsid, range, false, fua), bytes);
        }
        let words = deallocate_range(range);
        let data = Data { addr: 0, len: u32::try_from(words.len()).unwrap_or(0) };
        Step::SendWith(Command::deallocate(self.nsid, 1, data), bytes, Words(words))
    }
}

/// Whether it changes nothing on the namespace, and something is told of what is there.
const fn reads(kind: OpKind) -> bool {
    matches!(kind, OpKind::Read | OpKind::ReadVectored | OpKind::Compare)
}

/// The errno that an op ends with whose command was answered with `status`. What may pass is
/// `EAGAIN`, so that the shard asks again, a bounded number of times; a flush is never asked for
/// again, whatever has become of it (F37).
pub(crate) fn failure(op: &Op, status: Status) -> Errno {
    let flushes = matches!(op.kind, OpKind::Fdatasync | OpKind::Fsync);
    if status.is_transient() && !flushes { Errno::EAGAIN } else { status.errno() }
}

/// Whether `command` moves the memory of `op`, in several pieces.
pub(crate) fn is_vectored(op: &Op) -> bool {
    op.memory.is_some_and(|memory| memory.vector_len() > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::FileRef;

    const SPACE: Space = Space {
        nsid: 1,
        block_shift: 12,
        blocks: 100,
        volatile_cache: true,
        deallocate: true,
        write_zeroes: true,
        compare: true,
        copy_blocks_max: 8,
        readable: true,
        writable: true,
        read_fua: false,
        write_fua: false,
    };
    const END: u64 = 100 << 12;

    #[test]
    fn readfua_and_writefua_set_the_bit_of_their_commands() {
        let bit = |space: Space, kind| {
            let Step::Send(command, 4096) = space.step(&transfer(kind, 0, 4096), 0) else {
                panic!("one command does it");
            };
            command.has_fua()
        };
        for (read_fua, write_fua) in [(false, false), (true, false), (false, true)] {
            let space = Space { read_fua, write_fua, volatile_cache: false, ..SPACE };
            assert_eq!(bit(space, OpKind::Read), read_fua);
            assert_eq!(bit(space, OpKind::Write), write_fua);
        }
    }

    fn transfer(kind: OpKind, offset_bytes: u64, len: u32) -> Op {
        let dangling = core::ptr::without_provenance_mut(4096);
        let memory = MemRange::of_raw(dangling, len, None).unwrap();
        Op::transfer(kind, FileRef::Plain(-1), offset_bytes, memory)
    }

    fn range(kind: OpKind, offset_bytes: u64, len_bytes: u64) -> Op {
        Op::range(kind, FileRef::Plain(-1), offset_bytes, len_bytes)
    }

    #[test]
    fn f48_end_of_the_namespace_is_the_end_of_a_block_device() {
        let done = |step| if let Step::Send(_, bytes) = step { Ok(bytes) } else { Err(step) };
        let (read, write) = (OpKind::Read, OpKind::Write);
        assert_eq!(done(SPACE.step(&transfer(read, END - 8192, 8192), 0)), Ok(8192));
        assert_eq!(done(SPACE.step(&transfer(read, END - 4096, 8192), 0)), Ok(4096));
        assert_eq!(SPACE.step(&transfer(read, END, 4096), 0), Step::Done(0));
        assert_eq!(done(SPACE.step(&transfer(write, END - 4096, 8192), 0)), Ok(4096));
        assert_eq!(SPACE.step(&transfer(write, END, 4096), 0), Step::refuse(Errno::ENOSPC));
        let far = (u64::MAX >> 12) << 12;
        assert_eq!(SPACE.step(&transfer(write, far, 4096), 0), Step::refuse(Errno::ENOSPC));
    }

    #[test]
    fn f44_what_is_not_whole_blocks_is_refused() {
        for (offset, len) in [(512, 4096), (0, 512), (4096, 4097)] {
            let step = SPACE.step(&transfer(OpKind::Write, offset, len), 0);
            assert_eq!(step, Step::refuse(Errno::EINVAL));
        }
        let step = SPACE.step(&range(OpKind::Discard, 512, 4096), 0);
        assert_eq!(step, Step::refuse(Errno::EINVAL));
    }

    #[test]
    fn f48_what_was_not_opened_for_writing_is_not_written() {
        let reader = Space { writable: false, ..SPACE };
        let refused = Step::refuse(Errno::EBADF);
        assert_eq!(reader.step(&transfer(OpKind::Write, 0, 4096), 0), refused);
        let copy = Op { len_bytes: 4096, ..transfer(OpKind::CopyWithin, 0, 4096) };
        assert_eq!(reader.step(&copy, 0), refused);
        assert_ne!(reader.step(&transfer(OpKind::Compare, 0, 4096), 0), refused);
        for kind in [OpKind::Discard, OpKind::WriteZeroes] {
            assert_eq!(reader.step(&range(kind, 0, 4096), 0), refused);
        }
        assert_ne!(reader.step(&transfer(OpKind::Read, 0, 4096), 0), refused);
        let writer = Space { readable: false, ..SPACE };
        assert_eq!(writer.step(&transfer(OpKind::Read, 0, 4096), 0), refused);
        assert_eq!(writer.step(&transfer(OpKind::Compare, 0, 4096), 0), refused);
        assert_ne!(writer.step(&transfer(OpKind::Write, 0, 4096), 0), refused);
    }

    #[test]
    fn f48_copy_lies_in_the_namespace_at_both_ends() {
        let words = |from, to, len| SPACE.copy_words(from, to, len);
        assert_eq!(words(0, 8192, 8192).map(|words| (words[8], words[16])), Some((0, 1)));
        assert_eq!(words(END - 4096, 0, 4096).map(|words| words[8]), Some(99));
        let refused = [
            (END - 4096, 0, 8192),
            (0, END - 4096, 8192),
            (END, 0, 4096),
            (0, END, 4096),
            (0, 4096, 0),
            (512, 4096, 4096),
            (0, 4096, 512),
            (0, 40_960, 9 << 12),
            (!4095, 0, 4096),
        ];
        for (from, to, len) in refused {
            assert_eq!(words(from, to, len), None, "{from} to {to} for {len}");
        }
        let op = |to, len_bytes| Op { len_bytes, ..transfer(OpKind::CopyWithin, to, 4096) };
        let data = Data { addr: 4096, len: 32 };
        let sent = Step::Send(Command::copy(1, 2, data), 4096);
        assert_eq!(SPACE.step(&op(8192, 8192), 0), sent);
        for (to, len) in [(END - 4096, 8192), (END, 4096), (0, 9 << 12), (0, 0)] {
            assert_eq!(SPACE.step(&op(to, len), 0), Step::refuse(Errno::ENOSPC), "{to}, {len}");
        }
    }

    #[test]
    fn f37_flush_is_not_sent_again_whatever_the_device_says() {
        let not_ready = Status::from_bits(0x0082);
        for kind in [OpKind::Fdatasync, OpKind::Fsync] {
            let op = Op::on(kind, FileRef::Plain(-1));
            assert_eq!(failure(&op, not_ready), Errno::EREMOTEIO);
        }
        let write = transfer(OpKind::Write, 0, 4096);
        assert_eq!(failure(&write, not_ready), Errno::EAGAIN);
        assert_eq!(failure(&write, Status::from_bits(0x4082)), Errno::EREMOTEIO);
        assert_eq!(failure(&range(OpKind::Discard, 0, 4096), not_ready), Errno::EAGAIN);
    }

    #[test]
    fn flush_is_one_command_and_only_where_there_is_a_cache() {
        for kind in [OpKind::Fdatasync, OpKind::Fsync] {
            let op = Op::on(kind, FileRef::Plain(-1));
            assert_eq!(SPACE.step(&op, 0), Step::Send(Command::flush(1), 1));
            assert_eq!(SPACE.step(&op, 1), Step::Done(0));
            let safe = Space { volatile_cache: false, ..SPACE };
            assert_eq!(safe.step(&op, 0), Step::Done(0));
        }
    }

    #[test]
    fn what_the_controller_cannot_do_is_not_sent() {
        let plain = Space { deallocate: false, write_zeroes: false, ..SPACE };
        let plain = Space { compare: false, copy_blocks_max: 0, ..plain };
        for kind in [OpKind::Compare, OpKind::CopyWithin] {
            let op = Op { len_bytes: 4096, ..transfer(kind, 0, 4096) };
            assert_eq!(plain.step(&op, 0), Step::refuse(Errno::EOPNOTSUPP));
        }
        for kind in [OpKind::Discard, OpKind::WriteZeroes, OpKind::Allocate, OpKind::Truncate] {
            let step = plain.step(&range(kind, 0, 4096), 0);
            assert_eq!(step, Step::refuse(Errno::EOPNOTSUPP));
        }
    }

    proptest! {
        #[test]
        fn long_ranges_are_tiled_by_commands(
            zeroes: bool,
            first in 0..1_u64 << 33,
            blocks in 1..1_u64 << 34,
        ) {
            let kind = if zeroes { OpKind::WriteZeroes } else { OpKind::Discard };
            let blocks = if zeroes { (blocks >> 10).max(1) } else { blocks };
            let space = Space { blocks: 1 << 40, ..SPACE };
            let op = range(kind, first << 12, blocks << 12);
            let (mut done, mut commands) = (0, 0);
            loop {
                match space.step(&op, done) {
                    Step::Send(_, bytes) | Step::SendWith(_, bytes, _) => {
                        prop_assert!(bytes > 0);
                        done += bytes;
                        commands += 1;
                    }
                    Step::Done(result) => {
                        prop_assert_eq!((result, done), (0, blocks << 12));
                        break;
                    }
                }
                prop_assert!(commands <= blocks / u64::from(BLOCKS_MAX) + 1);
            }
        }
    }
}
