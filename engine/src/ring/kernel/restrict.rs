//! Takes from a ring every power that storage does not need.
//!
//! Data flow: a disabled ring → the opcodes, flags and register calls that the engine uses →
//! `IORING_REGISTER_RESTRICTIONS` → enabled by the thread that will submit (F24). A bug, or code
//! that got hold of the ring, can then open no file and connect nowhere through it: the kernel
//! answers `EACCES`.
//!
//! Not here: the ring that may open and rename, and can do nothing else (`beside::names`).

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{Probe, Submitter, opcode};
use nix::errno::Errno;

use super::setup::errno_of;
use crate::ring::Features;

/// What [`Features::in_use`] calls them.
const RESTRICTIONS: &str = "RESTRICTIONS";

/// What a data ring submits: what `sqe` says, and nothing else. Those that the kernel lacks are
/// left out by the probe.
pub(super) const OPCODES: [u8; 18] = [
    opcode::Nop::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::ReadvFixed::CODE,
    opcode::WritevFixed::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::Ftruncate::CODE,
    opcode::AsyncCancel::CODE,
    opcode::PollAdd::CODE,
    // Of block devices: discard.
    opcode::UringCmd16::CODE,
    // On sockets that were made elsewhere: none can be made, or bound, or connected.
    opcode::Send::CODE,
    opcode::Recv::CODE,
    opcode::Accept::CODE,
];

/// The calls of `io_uring_register(2)` that a data ring makes once it is enabled, by their
/// numbers in `<linux/io_uring.h>`, ascending.
const REGISTER_CALLS: [u8; 12] = [
    0,  // REGISTER_BUFFERS
    2,  // REGISTER_FILES
    4,  // REGISTER_EVENTFD
    5,  // UNREGISTER_EVENTFD
    6,  // REGISTER_FILES_UPDATE
    8,  // REGISTER_PROBE
    13, // REGISTER_FILES2
    15, // REGISTER_BUFFERS2
    16, // REGISTER_BUFFERS_UPDATE
    20, // REGISTER_RING_FDS
    21, // UNREGISTER_RING_FDS
    30, // REGISTER_CLONE_BUFFERS
];

/// Restricts a ring, which is disabled, to `opcodes`, if there are any and the kernel can, and
/// enables it.
pub(super) fn enable(
    ring: &Submitter<'_>,
    opcodes: &[u8],
    features: &mut Features,
) -> Result<(), Errno> {
    if !opcodes.is_empty() {
        match restrict(ring, opcodes) {
            Ok(()) if features.in_use.contains(&RESTRICTIONS) => {}
            Ok(()) => features.in_use.push(RESTRICTIONS),
            Err(errno) => features.degraded.push(unrestricted(errno)),
        }
    }
    ring.register_enable_rings().map_err(|error| errno_of(&error))
}

/// Why a ring is not restricted although it was wanted.
pub(super) fn unrestricted(errno: Errno) -> String {
    format!(
        "RESTRICTIONS: the kernel refused them ({errno:?}), so the ring can do everything that \
         the process can; nothing else is lost; Linux 5.10 has them"
    )
}

fn restrict(ring: &Submitter<'_>, opcodes: &[u8]) -> Result<(), Errno> {
    let mut probe = Probe::new();
    let probed = ring.register_probe(&mut probe);
    probed.map_err(|error| errno_of(&error))?;
    let known = opcodes.iter().copied().filter(|&code| probe.is_supported(code));
    let flags = Flags::FIXED_FILE | Flags::IO_LINK | Flags::ASYNC;
    // A number that the kernel does not know makes it refuse all of them; the newest go first.
    for calls in (1..=REGISTER_CALLS.len()).rev() {
        let calls = REGISTER_CALLS[..calls].iter().copied();
        let mut list: Vec<Restriction> = known.clone().map(Restriction::sqe_op).collect();
        list.extend(calls.map(Restriction::register_op));
        list.push(Restriction::sqe_flags_allowed(flags.bits()));
        match ring.register_restrictions(&mut list).map_err(|error| errno_of(&error)) {
            Err(Errno::EINVAL) => {}
            result => return result,
        }
    }
    Err(Errno::EINVAL)
}

#[cfg(test)]
#[allow(unsafe_code, reason = "pushes an SQE that the engine has no words for")]
mod tests {
    use super::super::sqe::Sqe;
    use super::super::{KernelConfig, KernelRing};
    use super::*;
    use crate::ring::{Ring, Tag, Wait};

    fn ring(restricted: bool) -> Option<KernelRing> {
        let config = KernelConfig { restricted, ..KernelConfig::new(64) };
        KernelRing::new(&config)
            .ok()
            .filter(|ring| !restricted || ring.features().in_use.contains(&"RESTRICTIONS"))
    }

    fn result_of(ring: &mut KernelRing, opcode: u8) -> i32 {
        ring.push_sqe(&Sqe::bare(opcode, Tag { slot: 1, generation: 1 }));
        assert_eq!(ring.enter(Wait::at_least(1)), Ok(1));
        let mut done = Vec::with_capacity(8);
        ring.reap(&mut done);
        done[0].result
    }

    #[test]
    fn forbidden_opcodes_and_calls_get_eacces() {
        let Some(mut ring) = ring(true) else { return };
        let denied = -(Errno::EACCES as i32);
        for opcode in [opcode::OpenAt::CODE, opcode::Socket::CODE, opcode::UnlinkAt::CODE] {
            assert_eq!(result_of(&mut ring, opcode), denied);
        }
        let refused = ring.submitter.register_personality().unwrap_err();
        assert_eq!(errno_of(&refused), Errno::EACCES);
        assert_eq!(result_of(&mut ring, opcode::Nop::CODE), 0);
    }

    /// Of all that the kernel can do, exactly what is in the list: whatever an allowed op says
    /// to arguments that are all 0, it is not `EACCES`.
    #[test]
    fn restricted_ring_does_what_storage_needs_and_nothing_else() {
        let Some(mut ring) = ring(true) else { return };
        let mut probe = Probe::new();
        ring.submitter.register_probe(&mut probe).unwrap();
        let mut denied = Vec::new();
        for opcode in (0..u8::MAX).filter(|&opcode| probe.is_supported(opcode)) {
            if result_of(&mut ring, opcode) == -(Errno::EACCES as i32) {
                denied.push(opcode);
            } else {
                assert!(OPCODES.contains(&opcode), "opcode {opcode} is not one of a data ring");
            }
        }
        assert!(denied.len() > 20, "{denied:?}");
        assert!(denied.iter().all(|opcode| !OPCODES.contains(opcode)), "{denied:?}");
    }

    /// The very bytes that open a file on another ring.
    #[test]
    fn data_ring_opens_no_file() {
        let path = c"/dev/null";
        let dir = io_uring::types::Fd(libc::AT_FDCWD);
        let open = opcode::OpenAt::new(dir, path.as_ptr()).flags(libc::O_CLOEXEC).build();
        let tag = Tag { slot: 1, generation: 1 };
        let open = open.user_data(tag.to_user_data());
        let (Some(mut free), Some(mut restricted)) = (ring(false), ring(true)) else { return };
        let result = |ring: &mut KernelRing| {
            // SAFETY: lifetime: the path is static. Aliasing: it is only read. Bounds: it ends
            // with a zero byte, and a ring of 64 entries that is idle has room for one.
            unsafe { ring.sq.push(&open) }.unwrap();
            assert_eq!(ring.enter(Wait::at_least(1)), Ok(1));
            let mut done = Vec::with_capacity(8);
            ring.reap(&mut done);
            done[0].result
        };
        let opened = result(&mut free);
        assert!(opened >= 0, "{opened}");
        // SAFETY: the descriptor was made just now, and nobody else knows it.
        drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(opened) });
        assert_eq!(result(&mut restricted), -(Errno::EACCES as i32));
    }

    #[test]
    fn ring_without_restrictions_says_so() {
        let told = unrestricted(Errno::EINVAL);
        assert!(told.contains("RESTRICTIONS") && told.contains("EINVAL"), "{told}");
    }

    #[test]
    fn unrestricted_ring_is_to_be_had() {
        let Some(mut ring) = ring(false) else { return };
        assert!(!ring.features().in_use.contains(&"RESTRICTIONS"));
        assert_ne!(result_of(&mut ring, opcode::OpenAt::CODE), -(Errno::EACCES as i32));
    }
}
