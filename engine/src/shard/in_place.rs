//! Ops that the kernel cancels although nobody asked, done by plain calls instead.
//!
//! What cannot go inline is handed to a kernel worker. Where none can be started, because a
//! pids cgroup or a limit on processes is reached, the kernel cancels the op, however often it
//! is tried (F30). Data flow: the last retry was cancelled too → a call on this thread, which
//! blocks the shard → its result is judged as a completion is. It is counted
//! ([`Metrics::in_place`](crate::Metrics::in_place)).
//!
//! Not here: the retries before it (`retry`, `flush`, `chain`).

use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::chain_table::ChainId;
use super::core::Core;
use crate::complete::{self, Verdict};
use crate::ring::threads::execute;
use crate::ring::{FileRef, Op, OpKind, Ring, Tag};

impl<R: Ring> Core<R> {
    /// The result of `op`, as a completion would have it. `None` on a simulated target, and on a
    /// namespace, whose commands no worker is needed for.
    fn do_in_place(&mut self, target: u32, op: Op) -> Option<i32> {
        let entry = self.targets.get(target);
        let opened = entry.opened.as_ref().filter(|_| entry.geometry.facts.nvme.is_none());
        let fd = opened?.as_raw_fd();
        self.metrics.in_place += 1;
        let result = execute(&Op { file: FileRef::Plain(fd), ..op });
        Some(match result {
            // Not to come back here.
            Err(Errno::ECANCELED) => -(Errno::EIO as i32),
            Err(errno) => -(errno as i32),
            Ok(bytes) => i32::try_from(bytes).expect("a transfer is shorter than 2 GiB"),
        })
    }

    /// False where it has to fail as it is.
    #[cold]
    pub(super) fn transfer_in_place(&mut self, tag: Tag) -> bool {
        let Some((target, op)) = self.op_again(tag) else { return false };
        let Some(result) = self.do_in_place(target, op) else { return false };
        self.judge_transfer(tag, result);
        true
    }

    /// What a flush comes to that the kernel has cancelled for good.
    #[cold]
    pub(super) fn flush_in_place(&mut self, target: u32, all_metadata: bool) -> Verdict {
        let kind = if all_metadata { OpKind::Fsync } else { OpKind::Fdatasync };
        let op = Op::on(kind, self.targets.get(target).file);
        let result = self.do_in_place(target, op);
        result.map_or(Verdict::Fail(Errno::EAGAIN), |result| complete::flush(result, false))
    }

    /// The first step that is left of a chain; false where it has to fail as it is.
    #[cold]
    pub(super) fn step_in_place(&mut self, id: ChainId, at: usize) -> bool {
        let (target, op) = self.step_op(id, at, false);
        let Some(result) = self.do_in_place(target, op) else { return false };
        self.judge_call(id, at, result);
        true
    }

    /// The first step that is left of a chain was done by a call, which came to `result`.
    pub(super) fn judge_call(&mut self, id: ChainId, at: usize, result: i32) {
        // No device has been asked, whatever the op that was judged before has failed with.
        self.device_status = 0;
        self.chains.step(id, at).result = result;
        let entry = self.chains.get(id);
        (entry.launched_to, entry.cut) = (at + 1, false);
        self.judge(id);
    }
}
