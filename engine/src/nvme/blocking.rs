//! Carries out an op on a namespace by calls that block, for a ring without io_uring.
//!
//! Data flow: op → [`Space::step`] → one ioctl per command → bytes moved, or what failed.
//!
//! Not here: the calls (`sys`), which thread makes them (`ring::threads`).

use nix::errno::Errno;

use super::serve::{Step, failure, is_vectored};
use super::{Space, Status};
use crate::ring::Op;
use crate::sys;

/// What failed: the status, where the device has answered at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) errno: Errno,
    pub(crate) status: Option<Status>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, status: None }
    }
}

/// Does all of `op` on the namespace `fd`. Returns bytes moved; 0 for what moves none.
pub(crate) fn run(fd: i32, space: &Space, op: &Op) -> Result<u32, Refusal> {
    let mut done_bytes = 0;
    loop {
        let (answer, bytes) = match space.step(op, done_bytes) {
            Step::Done(result) => {
                return u32::try_from(result).map_err(|_| Errno::from_raw(-result).into());
            }
            Step::Send(command, bytes) if is_vectored(op) => {
                (sys::nvme_io_vectored(fd, &command, op.memory), bytes)
            }
            Step::Send(command, bytes) => (sys::nvme_io(fd, &command, op.memory), bytes),
            Step::SendWith(command, bytes, words) => {
                (sys::nvme_io_with(fd, &command, &words.0), bytes)
            }
        };
        if let Some(status) = answer? {
            return Err(Refusal { errno: failure(op, status), status: Some(status) });
        }
        done_bytes += bytes;
        if op.memory.is_some() {
            // A transfer is one command; what it leaves over is for the shard to ask for.
            return Ok(u32::try_from(done_bytes).unwrap_or(u32::MAX));
        }
    }
}
