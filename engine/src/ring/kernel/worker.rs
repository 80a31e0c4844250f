//! Has the kernel start a worker for the ring's thread before anything depends on one.
//!
//! What cannot go inline is handed to a kernel worker, and the last worker of a thread stays as
//! long as the thread. Where a limit on processes is reached before there is one, every such op
//! is held up for tens of milliseconds and then cancelled, if it comes back at all (F30).
//! Data flow: ring just enabled → a NOP that must go to a worker → its CQE, or none in time.
//!
//! Not here: how many workers there may be (`setup`), ops that find none (`shard::in_place`).
#![allow(unsafe_code, reason = "pushes an SQE that names no memory")]

use io_uring::squeue::Flags;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use nix::errno::Errno;

use super::setup::errno_of;
use crate::ring::{Features, Tag};
use crate::sys;

/// How long a setup waits at most. A worker is there after some 50 us; where none may be
/// started, Linux 6.18 gives up after some 60 ms.
const WAIT_NS_MAX: u32 = 250_000_000;

/// Starts the worker; where that fails, `features` say so.
pub(super) fn start(ring: &mut IoUring, features: &mut Features) {
    if let Err(errno) = run_nop(ring) {
        features.degraded.push(format!(
            "kernel worker: none could be started ({errno:?}), so ops that cannot go inline \
             (flushes, most buffered writes) are slow and block the shard; raise the limit on \
             processes (ulimit -u, the pids cgroup)"
        ));
    }
}

fn run_nop(ring: &mut IoUring) -> Result<(), Errno> {
    // As one of the ring's own: where it comes too late, nobody takes it for an op.
    let nop = opcode::Nop::new().build();
    let nop = nop.flags(Flags::ASYNC).user_data(Tag::INTERNAL.to_user_data());
    // SAFETY: lifetime, aliasing, bounds: no memory is named, and a ring that nobody has used
    // has room for one.
    unsafe { ring.submission().push(&nop) }.map_err(|_full| Errno::EAGAIN)?;
    let until_ns = sys::now_ns() + u64::from(WAIT_NS_MAX);
    loop {
        let left_ns = until_ns.saturating_sub(sys::now_ns());
        let limit = Timespec::new().nsec(u32::try_from(left_ns).unwrap_or(WAIT_NS_MAX));
        let waited = ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&limit));
        if let Some(done) = ring.completion().next() {
            return if done.result() == 0 {
                Ok(())
            } else {
                Err(Errno::from_raw(done.result().saturating_neg()))
            };
        }
        match waited.map_err(|error| errno_of(&error)) {
            _ if left_ns == 0 => return Err(Errno::ETIME),
            Ok(_) | Err(Errno::EINTR | Errno::ETIME) => {}
            Err(errno) => return Err(errno),
        }
    }
}
