//! One system call per I/O, of the kind that the engine's name says.
//!
//! fio's synchronous engines: `psync` (its default), `sync`, `vsync`, `pvsync` and `pvsync2`.
//! They have no queue, so a depth above 1 means nothing to them.
//!
//! Data flow: slot -> one call on its buffer -> bytes or a negated errno.
//!
//! Not here: anything asynchronous.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use fio_compat::EngineOptions;
use nix::libc;
use rustix::io::{ReadWriteFlags, preadv, preadv2, pwritev, pwritev2};

use super::{Event, Io, IoEngine, Operation, Queued, Setup, SlotBuffers, Traits};
use crate::random::Random;

/// `RWF_ATOMIC` and `RWF_DONTCACHE` of `<linux/fs.h>`.
const RWF_ATOMIC: u32 = 0x40;
pub(super) const RWF_DONTCACHE: u32 = 0x80;

/// The flags of `preadv2(2)`, or of an SQE, for reads and for writes.
pub(super) fn transfer_flags(options: &EngineOptions) -> (u32, u32) {
    let both =
        [(options.uncached, RWF_DONTCACHE), (options.nowait, libc::RWF_NOWAIT.cast_unsigned())];
    let both = both.into_iter().filter(|(wanted, _)| *wanted).map(|(_, flag)| flag).sum();
    (both, both | if options.atomic { RWF_ATOMIC } else { 0 })
}

/// The calls of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// `pread(2)`, `pwrite(2)`.
    Pread,
    /// `lseek(2)` where the position is another, then `read(2)`, `write(2)`.
    Read,
    /// The same with `readv(2)`, `writev(2)`.
    Readv,
    /// `preadv(2)`, `pwritev(2)`.
    Preadv,
    /// `preadv2(2)`, `pwritev2(2)`.
    Preadv2,
}

impl Call {
    fn of(engine: &str) -> Self {
        match engine {
            "sync" => Self::Read,
            "vsync" => Self::Readv,
            "pvsync" => Self::Preadv,
            "pvsync2" => Self::Preadv2,
            _ => Self::Pread,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Pread => "pread/pwrite",
            Self::Read => "read/write",
            Self::Readv => "readv/writev",
            Self::Preadv => "preadv/pwritev",
            Self::Preadv2 => "preadv2/pwritev2",
        }
    }
}

/// Blocking I/O.
pub(crate) struct Psync {
    files: Vec<File>,
    buffers: SlotBuffers,
    call: Call,
    /// Where each file stands, for calls that have no offset; `u64::MAX` where that is unknown.
    positions: Vec<u64>,
    /// Flags of `preadv2` and `pwritev2`.
    flags: (u32, u32),
    /// Percent of the calls that poll for their completion.
    polled_percent: u8,
    random: Random,
}

fn to_result(outcome: io::Result<usize>) -> i32 {
    match outcome {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

impl Psync {
    /// A transfer by a call other than `pread` and `pwrite`.
    fn otherwise(&mut self, io: Io) -> io::Result<usize> {
        let Self { call, random, polled_percent, .. } = self;
        let polled = *polled_percent > 0 && random.next() % 100 < u64::from(*polled_percent);
        let (reads, writes) = self.flags;
        let flags = |flags| {
            let flags = ReadWriteFlags::from_bits_retain(flags);
            if polled { flags | ReadWriteFlags::HIPRI } else { flags }
        };
        let (at, offset) = (io.file as usize, io.offset_bytes);
        let mut file = &self.files[at];
        if matches!(call, Call::Read | Call::Readv) && self.positions[at] != offset {
            self.positions[at] = u64::MAX;
            file.seek(SeekFrom::Start(offset))?;
            self.positions[at] = offset;
        }
        let from = io.skip_bytes as usize;
        let memory = &mut self.buffers.slot(io.slot)[from..];
        let len = (io.len_bytes as usize).min(memory.len());
        let memory = &mut memory[..len];
        let moved = match (*call, io.operation == Operation::Read) {
            (Call::Pread, true) => file.read_at(memory, offset),
            (Call::Pread, false) => file.write_at(memory, offset),
            (Call::Read, true) => file.read(memory),
            (Call::Read, false) => file.write(memory),
            (Call::Readv, true) => file.read_vectored(&mut [IoSliceMut::new(memory)]),
            (Call::Readv, false) => file.write_vectored(&[IoSlice::new(memory)]),
            (Call::Preadv, true) => Ok(preadv(file, &mut [IoSliceMut::new(memory)], offset)?),
            (Call::Preadv, false) => Ok(pwritev(file, &[IoSlice::new(memory)], offset)?),
            (Call::Preadv2, true) => {
                Ok(preadv2(file, &mut [IoSliceMut::new(memory)], offset, flags(reads))?)
            }
            (Call::Preadv2, false) => {
                Ok(pwritev2(file, &[IoSlice::new(memory)], offset, flags(writes))?)
            }
        };
        let moved_to = |bytes: &usize| u64::try_from(*bytes).ok()?.checked_add(offset);
        self.positions[at] = moved.as_ref().ok().and_then(moved_to).unwrap_or(u64::MAX);
        moved
    }
}

impl IoEngine for Psync {
    fn open(setup: &Setup<'_>) -> io::Result<Self> {
        let files = setup.files.iter().map(File::try_clone).collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            positions: vec![u64::MAX; files.len()],
            files,
            buffers: SlotBuffers::new(setup.depth, setup.buffer_bytes, &setup.memory)?,
            call: Call::of(setup.engine),
            flags: transfer_flags(&setup.options),
            polled_percent: if setup.polled { setup.options.hipri_percent } else { 0 },
            random: Random::new(0x6869_7072),
        })
    }

    fn traits(&self) -> Traits {
        Traits { in_use: vec![self.call.as_str().into()], degraded: Vec::new() }
    }

    fn synchronous(&self) -> bool {
        true
    }

    #[inline]
    fn buffer(&mut self, slot: u32) -> &mut [u8] {
        self.buffers.slot(slot)
    }

    #[inline]
    fn queue(&mut self, io: Io) -> Queued {
        let moves = matches!(io.operation, Operation::Read | Operation::Write);
        if moves && self.call != Call::Pread {
            return Queued::Done(to_result(self.otherwise(io)));
        }
        let file = &self.files[io.file as usize];
        let from = io.skip_bytes as usize;
        let memory = &mut self.buffers.slot(io.slot)[from..];
        let len = (io.len_bytes as usize).min(memory.len());
        let result = match io.operation {
            Operation::Read => to_result(file.read_at(&mut memory[..len], io.offset_bytes)),
            Operation::Write => to_result(file.write_at(&memory[..len], io.offset_bytes)),
            Operation::Fsync => to_result(file.sync_all().map(|()| 0)),
            Operation::Fdatasync => to_result(file.sync_data().map(|()| 0)),
            Operation::Trim | Operation::SyncRange | Operation::SyncFs => -libc::EOPNOTSUPP,
        };
        Queued::Done(result)
    }

    #[inline]
    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    #[inline]
    fn reap(&mut self, _min: u32, _max: u32, _events: &mut Vec<Event>) -> io::Result<()> {
        Ok(())
    }
}
