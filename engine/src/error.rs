//! What can go wrong, and what is known of the bytes when it does.
//!
//! Not here: the error of one byte range inside a packet (`mfio_core::Error`).

use std::fmt;

use mfio_core::{Buffer, Completed, Error, ErrorKind, Perms};
use nix::errno::Errno;

use crate::buffer::ArenaError;
use crate::nvme::Status;
use crate::ring::auto::AutoError;
use crate::target::OpenError;

/// Why the engine could not do what it was asked.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineError {
    /// A limit makes no sense. Nothing was started.
    Config {
        /// Which.
        limit: &'static str,
        /// What it must do: `be at least 1`.
        must: &'static str,
    },
    /// The arena could not be made. Nothing was started.
    Arena(ArenaError),
    /// The target could not be opened. Nothing was read or written.
    Open(OpenError),
    /// The ring broke. Ops in flight keep their memory; no further op is started.
    Ring {
        /// What `io_uring_enter` answered.
        errno: Errno,
    },
    /// The kernel was out of resources several times in a row. Nothing was lost: try again.
    Busy,
    /// One operation on one target failed.
    Io(IoError),
    /// Registered memory cannot be forgotten: ops on it are in flight. Nothing has changed.
    RegionInUse {
        /// How many.
        ops: usize,
    },
    /// There is no ring. Nothing was started.
    NoRing(AutoError),
    /// A blocking call on the thread of a shard would stop the shard, and what it waits for
    /// with it. Nothing was started: await instead, or block on another thread.
    WouldDeadlock,
    /// The shard was shut down. Nothing was started.
    Closed,
    /// The shard has as many tasks as it may have. Nothing was started.
    TasksFull {
        /// The limit: [`Config::tasks_max`](crate::Config::tasks_max).
        tasks_max: u32,
    },
    /// The task was aborted, or its shard was shut down. What I/O it had in flight may or may
    /// not have happened.
    Cancelled,
    /// The task panicked. Its shard runs on.
    Panicked {
        /// What it panicked with.
        message: String,
    },
    /// A shard of an engine could not be started. No other was left running.
    Start {
        /// Which shard, from 0.
        shard: usize,
        /// Why.
        source: Box<EngineError>,
    },
    /// A thread could not be started.
    Thread {
        /// What starting it said.
        errno: Errno,
    },
    /// A thread could not be bound to its core.
    Pin {
        /// Which core.
        core: usize,
        /// What `sched_setaffinity(2)` said.
        errno: Errno,
    },
    /// The engine has no such shard.
    NoShard {
        /// Which was asked for, from 0.
        shard: usize,
        /// How many there are.
        shards: usize,
    },
    /// More requests of this kind wait than are allowed. Nothing was started: try again later.
    QueueFull {
        /// What they are: `opens`, `tasks to start`.
        queue: &'static str,
    },
}

/// One failed operation, as an operator needs it: where, what, how far, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoError {
    /// `read`, `write`, `durable write`, `atomic write`, `fdatasync`, `fsync`, `discard`,
    /// `write zeroes`, `preallocate`, `punch hole`, `set length`, `copy`, `chain`.
    pub op: &'static str,
    /// The name under which the target was opened.
    pub target: String,
    /// First byte of the range on the target; 0 for flushes.
    pub offset_bytes: u64,
    /// Bytes asked for; 0 for flushes.
    pub len_bytes: u64,
    /// Bytes from the start of the range that were transferred. Of a failed write these are
    /// written and not durable; of a failed flush nothing is known.
    pub done_bytes: u64,
    /// Why, with the errno where there was one, and with the NVMe status
    /// ([`Status`](crate::nvme::Status)) where a command failed.
    pub error: Error,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.op, self.target)?;
        if self.len_bytes > 0 {
            write!(f, " at {} for {} bytes", self.offset_bytes, self.len_bytes)?;
            write!(f, ", {} bytes done", self.done_bytes)?;
        }
        let plain = self.error.with_device_status(0);
        match (plain.kind(), plain.errno()) {
            (ErrorKind::Os, Some(errno)) => write!(f, ": {}", Errno::from_raw(errno))?,
            _ => write!(f, ": {plain}")?,
        }
        match self.error.device_status() {
            Some(bits) => write!(f, "; {}", Status::from_bits(bits)),
            None => Ok(()),
        }
    }
}

impl std::error::Error for IoError {}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { limit, must } => write!(f, "configuration: {limit} must {must}"),
            Self::Arena(error) => write!(f, "{error}"),
            Self::Open(error) => write!(f, "{error}"),
            Self::Ring { errno } => write!(f, "the ring broke ({errno}): open a new shard"),
            Self::Busy => f.write_str("the kernel is out of resources for I/O: try again later"),
            Self::Io(error) => write!(f, "{error}"),
            Self::RegionInUse { ops } => {
                write!(f, "{ops} ops on the registered memory are in flight: wait for them first")
            }
            Self::NoRing(error) => write!(f, "{error}"),
            Self::WouldDeadlock => f.write_str(
                "a blocking call on the thread of a shard would wait for itself: await instead, \
                 or block on a thread that drives no shard",
            ),
            Self::Closed => f.write_str("the shard was shut down before this was started"),
            Self::TasksFull { tasks_max } => write!(
                f,
                "the shard has {tasks_max} tasks, which is its limit: wait for some to end, or \
                 raise Config::tasks_max"
            ),
            Self::Cancelled => f.write_str("the task was ended before it was ready"),
            Self::Panicked { message } => write!(f, "the task panicked: {message}"),
            Self::Start { shard, source } => write!(f, "shard {shard} did not start: {source}"),
            Self::Thread { errno } => write!(
                f,
                "a thread could not be started ({errno}): raise the limit on processes \
                 (ulimit -u, the pids cgroup)"
            ),
            Self::Pin { core, errno } => write!(
                f,
                "the thread could not be bound to core {core} ({errno}): name a core that this \
                 process may use (taskset -p shows them), or leave the cores to the engine"
            ),
            Self::NoShard { shard, shards } => {
                write!(f, "there is no shard {shard}: the engine has {shards}, counted from 0")
            }
            Self::QueueFull { queue } => {
                write!(f, "too many {queue} wait already: try again later")
            }
        }
    }
}

impl std::error::Error for EngineError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Arena(error) => Some(error),
            Self::Open(error) => Some(error),
            Self::Io(error) => Some(error),
            Self::NoRing(error) => Some(error),
            Self::Start { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

impl From<IoError> for EngineError {
    fn from(error: IoError) -> Self {
        Self::Io(error)
    }
}

impl From<OpenError> for EngineError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<AutoError> for EngineError {
    fn from(error: AutoError) -> Self {
        Self::NoRing(error)
    }
}

/// The result of one packet as a call of a file gives it: what failed is named by `name`, which
/// is told how many bytes from the start are done, and the buffer comes back either way.
pub(crate) fn explain<P: Perms, B: Buffer<P>>(
    done: Completed<P, B>,
    name: impl FnOnce(u64, Error) -> IoError,
) -> (Result<(), IoError>, B) {
    let result = done.result().map_err(|error| name(done.contiguous_bytes(), error));
    (result, done.into_buffer())
}

/// The packet error for an errno of a read or a write.
pub(crate) fn from_errno(errno: Errno) -> Error {
    let raw = errno as i32;
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG => Error::with_errno(ErrorKind::NoSpace, raw),
        Errno::ECANCELED => Error::with_errno(ErrorKind::Cancelled, raw),
        Errno::EOPNOTSUPP => Error::with_errno(ErrorKind::Unsupported, raw),
        _ => Error::os(raw),
    }
}
