//! Says a read or a write of a fixed buffer in the kernel's words, of which those that are the same
//! for all of a file were said before.
//!
//! Data flow: kind and file → [`Head`], once a file → [`entry`], each transfer. Pure.
//!
//! Not here: any other op (`sqe`).

use io_uring::opcode;
use io_uring::squeue::{Entry, Flags};

use super::sqe::{NOP_INJECT_RESULT, NOWHERE, entry_of, word};
use crate::buffer::FixedBytes;
use crate::ring::{FileRef, Head, OpKind, Tag};

/// The words of `kind` on `file`; `None` where the file is not in the main queue, or it is
/// neither a read nor a write.
pub(super) fn head(kind: OpKind, file: FileRef) -> Option<Head> {
    let opcode = match kind {
        OpKind::Read => opcode::ReadFixed::CODE,
        OpKind::Write => opcode::WriteFixed::CODE,
        _ => return None,
    };
    let (opcode, flags, fd, op_flags) = match file {
        FileRef::Fixed(index) => (opcode, Flags::FIXED_FILE.bits(), index, 0),
        FileRef::Plain(fd) => (opcode, 0, fd.cast_unsigned(), 0),
        // A nop looks at nothing but its length then.
        FileRef::Beside(NOWHERE) => (opcode::Nop::CODE, 0, u32::MAX, NOP_INJECT_RESULT),
        FileRef::Beside(_) => return None,
    };
    let first = word(u32::from_ne_bytes([opcode, flags, 0, 0]), fd);
    Some(Head { first, len_word: word(0, op_flags) })
}

/// The SQE of a transfer that begins with `head`.
#[inline(always)]
pub(super) fn entry(head: Head, offset_bytes: u64, bytes: FixedBytes, tag: Tag) -> Entry {
    let index = bytes.buf_index().to_ne_bytes();
    entry_of([
        head.first,
        offset_bytes,
        bytes.addr(),
        head.len_word | word(bytes.extent().len_bytes, 0),
        tag.to_user_data(),
        word(u32::from_ne_bytes([index[0], index[1], 0, 0]), 0),
        0,
        0,
    ])
}

#[cfg(test)]
mod tests {
    use super::super::sqe::{tests::words, transfer};
    use super::*;
    use crate::buffer::{Arena, ArenaConfig, SizeClass};

    #[test]
    fn transfer_of_a_fixed_buffer_is_said_with_a_head_as_without() {
        let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 2 }]);
        let arena = Arena::new(&arena).unwrap();
        let region = arena.region();
        region.set_registered_bytes(region.len_bytes());
        let mut buf = arena.alloc(4096).unwrap();
        let memory = buf.mem_range();
        let start = core::ptr::NonNull::new(memory.addr()).unwrap();
        let bytes = region.pieces().fixed(start, 4096);
        let tag = Tag { slot: 7, generation: 9 };
        for kind in [OpKind::Read, OpKind::Write] {
            for file in [FileRef::Fixed(8), FileRef::Plain(3), FileRef::Beside(NOWHERE)] {
                let short = words(&entry(head(kind, file).unwrap(), 1 << 40, bytes, tag));
                let mut long = words(&transfer(kind, file, 1 << 40, memory, tag).unwrap());
                if file == FileRef::Beside(NOWHERE) {
                    // Of which a nop looks at none.
                    (long[1], long[2], long[5]) = (short[1], short[2], short[5]);
                }
                assert_eq!(short, long, "{kind:?} {file:?}");
            }
            assert!(head(kind, FileRef::Beside(0)).is_none());
        }
        assert!(head(OpKind::Fsync, FileRef::Plain(3)).is_none());
    }
}
