//! The words of ops on sockets.
//!
//! Data flow: [`SocketOp`] → [`Sqe`].
//!
//! Not here: who pushes them (`kernel::socket`).

use io_uring::opcode;
use nix::libc;

use super::Sqe;
use crate::ring::{SocketKind, SocketOp, Tag};

/// `IORING_ACCEPT_MULTISHOT`, which stands where others have a priority.
const MULTISHOT: u16 = 1;

/// `POLLOUT` of `<poll.h>`.
const POLLOUT: u32 = 4;

impl Sqe {
    /// An op on a socket. A poll says its events, a send that no signal is wanted.
    #[cold]
    pub(in crate::ring::kernel) fn socket(op: SocketOp, tag: Tag) -> Self {
        let sqe = Self { fd: op.fd, user_data: tag.to_user_data(), ..Self::ZERO };
        let (opcode, memory, op_flags) = match op.kind {
            SocketKind::Receive(memory) => (opcode::Recv::CODE, memory, 0),
            SocketKind::Send(memory) => (opcode::Send::CODE, memory, libc::MSG_NOSIGNAL),
            SocketKind::Writable => return Self::poll_for(POLLOUT, sqe),
            SocketKind::Accept { many } => {
                let ioprio = if many { MULTISHOT } else { 0 };
                let op_flags = libc::SOCK_CLOEXEC.cast_unsigned();
                return Self { opcode: opcode::Accept::CODE, ioprio, op_flags, ..sqe };
            }
        };
        let addr = memory.addr().addr() as u64;
        let op_flags = op_flags.cast_unsigned();
        Self { opcode, addr, len_bytes: memory.len_bytes(), op_flags, ..sqe }
    }
}

#[cfg(test)]
mod tests {
    use io_uring::squeue::Entry;

    use super::*;
    use crate::buffer::MemRange;

    #[test]
    fn entries_of_sockets_match_the_builders_of_the_crate() {
        let mut bytes = [0_u8; 100];
        let (at, fd) = (bytes.as_mut_ptr(), io_uring::types::Fd(4));
        let memory = MemRange::of_raw(at, 100, None).unwrap();
        let same = |ours: Sqe, theirs: Entry| {
            let theirs = theirs.user_data(Tag::INTERNAL.to_user_data());
            assert_eq!(
                super::super::tests::words(&ours.entry()),
                super::super::tests::words(&theirs)
            );
        };
        let socket = |kind| Sqe::socket(SocketOp { kind, fd: 4 }, Tag::INTERNAL);
        same(socket(SocketKind::Receive(memory)), opcode::Recv::new(fd, at, 100).build());
        let send = opcode::Send::new(fd, at, 100).flags(libc::MSG_NOSIGNAL).build();
        same(socket(SocketKind::Send(memory)), send);
        let accept = opcode::Accept::new(fd, core::ptr::null_mut(), core::ptr::null_mut());
        let accept = accept.flags(libc::SOCK_CLOEXEC).build();
        same(socket(SocketKind::Accept { many: false }), accept);
        let accept = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        same(socket(SocketKind::Accept { many: true }), accept);
        same(socket(SocketKind::Writable), opcode::PollAdd::new(fd, POLLOUT).build());
    }
}
