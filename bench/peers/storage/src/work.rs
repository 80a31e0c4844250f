//! What every runtime does: so many reads at the same random offsets, the first tenth of which
//! is warm-up and is not measured.
//!
//! Data flow: arguments → [`Work`] → offsets, one after the other → [`Spent`].
//!
//! Not here: reading.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use crate::Arguments;

/// Bytes of a read.
pub const BLOCK: usize = 4096;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// The hand-written loop on the io-uring crate.
    Raw,
    /// This engine, a task per read in flight.
    Ours,
    /// This engine, packets on a completion queue.
    OursQueue,
    /// This engine, entries of a batch.
    OursBatch,
    TokioUring,
    Monoio,
    Compio,
    Glommio,
    MfioRt,
    TokioFs,
    /// `pread` on one thread, whatever the depth.
    Psync,
}

impl Runtime {
    /// Whether it is this engine, in one of its ways.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Ours | Self::OursQueue | Self::OursBatch)
    }

    /// Whether it can read past the page cache.
    pub fn has_direct(self) -> bool {
        !matches!(self, Self::MfioRt | Self::TokioFs)
    }

    /// Whether it is a published runtime.
    pub fn is_peer(self) -> bool {
        !self.is_ours() && !matches!(self, Self::Raw | Self::Psync)
    }
}

/// What is to be read. Shared by the tasks of one thread.
pub struct Work {
    /// The file.
    pub path: PathBuf,
    /// Reads in flight.
    pub depth: u32,
    /// Whether past the page cache.
    pub direct: bool,
    blocks: u64,
    /// Adjacent blocks at each place.
    run: u64,
    ios: u64,
    warm_up: u64,
    taken: Cell<u64>,
    state: Cell<u64>,
    begun: RefCell<Option<(Instant, u64)>>,
}

/// What the measured reads cost, each.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// CPU time of the whole process, kernel workers included.
    pub cpu_ns_per_io: f64,
    /// Wall time.
    pub wall_ns_per_io: f64,
}

/// CPU time of the process so far.
fn cpu_ns() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("the process has a usage");
    (usage.user_time().num_nanoseconds() + usage.system_time().num_nanoseconds()).unsigned_abs()
}

impl Work {
    /// As the arguments say.
    ///
    /// # Errors
    /// The file cannot be opened or is empty.
    pub fn new(arguments: &Arguments) -> io::Result<Self> {
        let blocks = std::fs::metadata(&arguments.file)?.len() / BLOCK as u64;
        if blocks == 0 {
            return Err(io::Error::other("the file is shorter than a block"));
        }
        let warm_up = arguments.ios / 10;
        Ok(Self {
            path: arguments.file.clone(),
            depth: arguments.depth.max(1),
            direct: !arguments.buffered,
            blocks,
            run: arguments.run.clamp(1, blocks),
            ios: arguments.ios + warm_up,
            warm_up,
            taken: Cell::new(0),
            state: Cell::new(0x9e37_79b9_7f4a_7c15),
            begun: RefCell::new(None),
        })
    }

    /// Where the next read goes; `None` when there were enough.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        let taken = self.taken.get();
        if taken == self.ios {
            return None;
        }
        if taken == self.warm_up {
            *self.begun.borrow_mut() = Some((Instant::now(), cpu_ns()));
        }
        self.taken.set(taken + 1);
        let step = taken % self.run;
        if step > 0 {
            return Some(
                (self.state.get() % (self.blocks / self.run) * self.run + step) * BLOCK as u64,
            );
        }
        // xorshift64.
        let mut state = self.state.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.state.set(state);
        Some(state % (self.blocks / self.run) * self.run * BLOCK as u64)
    }

    /// The file, as the standard library opens it.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self) -> io::Result<File> {
        let flags = if self.direct { libc::O_DIRECT } else { 0 };
        File::options().read(true).custom_flags(flags).open(&self.path)
    }

    /// What was spent, when all reads have completed.
    pub fn spent(&self) -> Spent {
        let (wall, cpu) = self.begun.borrow().expect("there were reads");
        let ios = (self.ios - self.warm_up) as f64;
        Spent {
            cpu_ns_per_io: (cpu_ns() - cpu) as f64 / ios,
            wall_ns_per_io: wall.elapsed().as_nanos() as f64 / ios,
        }
    }
}

/// Whether a read was whole.
///
/// # Errors
/// It was not.
#[inline]
pub fn whole(read: io::Result<usize>) -> io::Result<()> {
    match read? {
        BLOCK => Ok(()),
        short => Err(io::Error::other(format!("a read of {short} bytes"))),
    }
}

/// Vectors of one block each, aligned as direct I/O wants them. There is no safe way to ask the
/// allocator for that, so those that it happens to align are kept.
pub fn aligned(count: u32) -> Vec<Vec<u8>> {
    let (mut kept, mut others) = (Vec::new(), Vec::new());
    while kept.len() < count as usize {
        let buffer = vec![0_u8; BLOCK];
        let is_aligned = (buffer.as_ptr() as usize).is_multiple_of(512);
        if is_aligned { kept.push(buffer) } else { others.push(buffer) }
    }
    kept
}
