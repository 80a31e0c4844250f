//! What SECURITY.md says of descriptors and memory, as the kernel sees them.
//!
//! Not here: which ops a ring takes (`restrict`), what a child can do (`fork_tests`).

use std::os::fd::{AsRawFd, RawFd};

use super::{KernelConfig, KernelRing, share};
use crate::buffer::{Arena, ArenaConfig, HugePages, SizeClass};
use crate::ring::Ring;

/// The mapping at `address`: its permissions, and its flags of `proc_pid_smaps(5)`.
fn mapping(address: usize) -> (String, String) {
    let told = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut lines = told.lines();
    let permissions = lines.by_ref().find_map(|line| {
        let mut words = line.split(' ');
        let (from, to) = words.next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        (number(from)?..number(to)?).contains(&address).then(|| words.next().map(str::to_owned))?
    });
    let flags = lines.find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
    (permissions.unwrap(), format!("{flags} "))
}

fn is_closed_on_exec(fd: RawFd) -> bool {
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = told.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC != 0
}

#[test]
fn arena_is_never_executable_and_not_inherited() {
    for (huge_pages, count) in [(HugePages::Never, 4), (HugePages::Auto, 1024)] {
        let classes = vec![SizeClass { bytes: 4096, count }];
        let arena = Arena::new(&ArenaConfig { huge_pages, ..ArenaConfig::new(classes) }).unwrap();
        let buf = arena.alloc(4096).unwrap();
        let (permissions, flags) = mapping(buf.as_ptr().addr());
        assert_eq!(permissions, "rw-p", "{huge_pages:?}");
        assert!(flags.contains(" dc "), "not MADV_DONTFORK: {flags}");
    }
}

#[test]
fn descriptors_of_a_ring_are_closed_on_exec() {
    let Ok(mut ring) = KernelRing::new(&KernelConfig::new(8)) else { return };
    assert!(is_closed_on_exec(ring.ring.get().as_raw_fd()));
    ring.watch();
    let host = ring.wake.host().map(AsRawFd::as_raw_fd);
    let polled = Ring::poll_fd(&ring).map(|fd| fd.as_raw_fd());
    let (wake, _multishot) = ring.wake.arm();
    for fd in host.into_iter().chain(polled).chain([wake]) {
        assert!(is_closed_on_exec(fd), "descriptor {fd}");
    }
}

#[test]
fn ring_that_lends_buffers_submits_nothing() {
    let classes = vec![SizeClass { bytes: 4096, count: 4 }];
    let arena = Arena::new(&ArenaConfig::new(classes)).unwrap();
    let Ok(registered @ 1..) = share(&arena) else { return };
    assert!(registered <= arena.region().len_bytes());
    let lender = arena.region().shared().unwrap().ring_fd;
    assert!(is_closed_on_exec(lender));
    // SAFETY: lifetime, aliasing, bounds: no memory is passed.
    let entered = unsafe { libc::syscall(libc::SYS_io_uring_enter, lender, 1, 0, 0, 0, 0) };
    assert_eq!((entered, nix::errno::Errno::last()), (-1, nix::errno::Errno::EBADFD));
}
