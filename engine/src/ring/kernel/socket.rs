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
