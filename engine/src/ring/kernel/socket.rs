//! Ops on sockets, in the kernel's queue beside those on files.
//!
//! Data flow: [`SocketOp`] → SQE → the same queue and the same completions.
//!
//! Not here: what they are for (`shard::socket`), the words (`sqe`).

use super::setup::{ACCEPT_MULTISHOT, SEND_RECV};
use super::sqe::Sqe;
use super::{KernelRing, Tag};
use crate::ring::{SOCKET_SLOTS_FROM, SocketOp, Sockets};

impl Sockets for KernelRing {
    fn has_sockets(&self) -> bool {
        self.features.in_use.contains(&SEND_RECV)
    }

    fn takes_many(&self) -> bool {
        self.features.in_use.contains(&ACCEPT_MULTISHOT)
    }

    fn push_socket(&mut self, op: SocketOp, tag: Tag) {
        debug_assert!(self.staged.is_none(), "a staged op is unstaged before the next push");
        debug_assert!(tag.slot >= SOCKET_SLOTS_FROM, "sockets have tags of their own");
        self.ops_on_sockets += 1;
        self.push_sqe(&Sqe::socket(op, tag));
    }
}

#[cfg(any(test, feature = "sim"))]
impl KernelRing {
    /// The same ring as a kernel before Linux 5.19 makes it, which takes each connection by an
    /// op of its own. For tests on newer kernels.
    #[must_use]
    pub fn accepting_one_by_one(mut self) -> Self {
        self.features.in_use.retain(|name| *name != ACCEPT_MULTISHOT);
        self
    }
}

#[cfg(test)]
#[path = "receive_tests.rs"]
mod receive_tests;
