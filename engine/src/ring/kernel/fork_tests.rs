//! What a child process can do to its parent's ring and arena: nothing (F26).
//!
//! Not here: descriptors across `exec`; all are close-on-exec.

use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::{KernelConfig, KernelRing};
use crate::buffer::{Arena, ArenaConfig, HugePages, SizeClass};
use crate::ring::{Op, OpKind, Ring, Tag, Wait};

/// How a child ended: its signal, or its exit code.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Signal(i32),
    Exit(i32),
}

/// Runs `child` in a forked process, which has one thread and must not allocate.
pub(super) fn in_child(child: impl FnOnce() -> i32) -> End {
    // SAFETY: lifetime, aliasing, bounds: no memory is passed. The child calls nothing that
    // another thread of the parent may have left locked: `child` touches memory and the ring.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", Errno::last());
    if pid == 0 {
        // The handler of the test harness would write a message, with locks.
        // SAFETY: no memory is passed; the default action has no requirements.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
        let code = child();
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: lifetime: `status` outlives the call. Aliasing: it is this function's. Bounds: it
    // is one int.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(waited, pid);
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    }
}

#[test]
fn f26_child_faults_on_arena_and_ring_and_the_parent_is_unharmed() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    let mut classes = vec![SizeClass { bytes: 4096, count: 4 }];
    for huge_pages in [HugePages::Never, HugePages::Auto] {
        let arena =
            Arena::new(&ArenaConfig { huge_pages, ..ArenaConfig::new(classes.clone()) }).unwrap();
        let mut buf = arena.alloc(4096).unwrap();
        buf.fill(7);
        assert_eq!(in_child(|| i32::from(buf[0])), End::Signal(libc::SIGSEGV), "{huge_pages:?}");
        assert!(buf.iter().all(|&byte| byte == 7));
        // Large enough for huge pages the next time.
        classes[0].count = 1024;
    }

    let arena = Arena::new(&ArenaConfig::new(classes)).unwrap();
    ring.register_buffers(arena.region());
    let file = tempfile::tempfile().unwrap();
    let target = ring.register_file(file.as_raw_fd());
    let mut buf = arena.alloc(4096).unwrap();
    buf.fill(9);
    let tag = Tag { slot: 1, generation: 1 };
    ring.push(Op::transfer(OpKind::Write, target, 0, buf.mem_range()), tag);
    // The op is queued: a child that could submit it would write it a second time.
    let end = in_child(|| i32::from(ring.enter(Wait::NONE).is_ok()));
    assert_eq!(end, End::Signal(libc::SIGSEGV));
    assert_eq!(file.metadata().unwrap().len(), 0, "nothing was submitted");
    assert_eq!(ring.enter(Wait::at_least(1)), Ok(1));
    let mut done = Vec::with_capacity(8);
    ring.reap(&mut done);
    assert_eq!((done.len(), done[0].tag, done[0].result), (1, tag, 4096));
    assert_eq!(file.metadata().unwrap().len(), 4096);
}
