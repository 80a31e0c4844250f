//! One system call per I/O: `pread`, `pwrite`, `fsync`, `fdatasync`.
//!
//! fio's default engine. It has no queue, so a depth above 1 means nothing to it.
//!
//! Not here: anything asynchronous.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::{Event, Io, IoEngine, Operation, Queued, Setup, SlotBuffers, Traits};

/// Blocking positional I/O.
pub(crate) struct Psync {
    files: Vec<File>,
    buffers: SlotBuffers,
}

fn to_result(outcome: io::Result<usize>) -> i32 {
    match outcome {
        Ok(bytes) => i32::try_from(bytes).unwrap_or(i32::MAX),
        Err(error) => -error.raw_os_error().unwrap_or(nix::libc::EIO),
    }
}

impl IoEngine for Psync {
    fn open(setup: &Setup<'_>) -> io::Result<Self> {
        let files = setup.files.iter().map(File::try_clone).collect::<io::Result<_>>()?;
        Ok(Self {
            files,
            buffers: SlotBuffers::new(setup.depth, setup.buffer_bytes, &setup.memory)?,
        })
    }

    fn traits(&self) -> Traits {
        Traits { in_use: vec!["pread/pwrite".into()], degraded: Vec::new() }
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
        let file = &self.files[io.file as usize];
        let from = io.skip_bytes as usize;
        let memory = &mut self.buffers.slot(io.slot)[from..];
        let len = (io.len_bytes as usize).min(memory.len());
        let result = match io.operation {
            Operation::Read => to_result(file.read_at(&mut memory[..len], io.offset_bytes)),
            Operation::Write => to_result(file.write_at(&memory[..len], io.offset_bytes)),
            Operation::Fsync => to_result(file.sync_all().map(|()| 0)),
            Operation::Fdatasync => to_result(file.sync_data().map(|()| 0)),
            Operation::Trim | Operation::SyncRange => -nix::libc::EOPNOTSUPP,
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
