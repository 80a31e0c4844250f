//! Takes from a ring every power that storage does not need.
//!
//! Data flow: a disabled ring → the opcodes, flags and register calls that the engine uses →
//! `IORING_REGISTER_RESTRICTIONS` → enabled by the thread that will submit (F24). A bug, or code
//! that got hold of the ring, can then open no file and no socket through it: the kernel
//! answers `EACCES`.
//!
//! Not here: who needs an unrestricted ring (`engine::fs` does: it opens and renames).

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{Probe, Submitter, opcode};
use nix::errno::Errno;

use super::setup::errno_of;
use crate::ring::Features;

/// What [`Features::in_use`] calls them.
const RESTRICTIONS: &str = "RESTRICTIONS";

/// What a data ring submits. Those that the kernel lacks are left out by the probe.
pub(super) const OPCODES: [u8; 19] = [
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
    opcode::PollRemove::CODE,
    opcode::Timeout::CODE,
    opcode::LinkTimeout::CODE,
    opcode::MsgRingData::CODE,
    opcode::UringCmd16::CODE,
];

/// The calls of `io_uring_register(2)` that a data ring makes once it is enabled, by their
/// numbers in `<linux/io_uring.h>`, ascending.
const REGISTER_CALLS: [u8; 20] = [
    0,  // REGISTER_BUFFERS
    1,  // UNREGISTER_BUFFERS
    2,  // REGISTER_FILES
    3,  // UNREGISTER_FILES
    4,  // REGISTER_EVENTFD
    5,  // UNREGISTER_EVENTFD
    6,  // REGISTER_FILES_UPDATE
    7,  // REGISTER_EVENTFD_ASYNC
    8,  // REGISTER_PROBE
    13, // REGISTER_FILES2
    14, // REGISTER_FILES_UPDATE2
    15, // REGISTER_BUFFERS2
    16, // REGISTER_BUFFERS_UPDATE
    17, // REGISTER_IOWQ_AFF
    18, // UNREGISTER_IOWQ_AFF
    19, // REGISTER_IOWQ_MAX_WORKERS
    20, // REGISTER_RING_FDS
    21, // UNREGISTER_RING_FDS
    24, // REGISTER_SYNC_CANCEL
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
            Err(errno) => features.degraded.push(format!(
                "RESTRICTIONS: the kernel refused them ({errno:?}), so the ring can do \
                 everything that the process can; nothing else is lost"
            )),
        }
    }
    ring.register_enable_rings().map_err(|error| errno_of(&error))
}

fn restrict(ring: &Submitter<'_>, opcodes: &[u8]) -> Result<(), Errno> {
    let mut probe = Probe::new();
    let probed = ring.register_probe(&mut probe);
    probed.map_err(|error| errno_of(&error))?;
    let known = opcodes.iter().copied().filter(|&code| probe.is_supported(code));
    let flags = Flags::FIXED_FILE
        | Flags::IO_LINK
        | Flags::IO_HARDLINK
        | Flags::ASYNC
        | Flags::SKIP_SUCCESS;
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
mod tests {
    use super::super::sqe::Sqe;
    use super::super::{KernelConfig, KernelRing};
    use super::*;
    use crate::ring::{FileRef, Op, OpKind, Ring, Tag, Wait};

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
        // Everything that has a kind is allowed: whatever it says, it is not EACCES.
        for opcode in OPCODES {
            if ![opcode::MsgRingData::CODE, opcode::UringCmd16::CODE].contains(&opcode) {
                continue;
            }
            assert_ne!(result_of(&mut ring, opcode), denied, "opcode {opcode}");
        }
    }

    #[test]
    fn unrestricted_ring_is_to_be_had() {
        let Some(mut ring) = ring(false) else { return };
        assert!(!ring.features().in_use.contains(&"RESTRICTIONS"));
        assert_ne!(result_of(&mut ring, opcode::OpenAt::CODE), -(Errno::EACCES as i32));
    }

    /// `cargo test --release -- --ignored --nocapture restrictions_cost`
    #[test]
    #[ignore = "a measurement"]
    #[allow(clippy::print_stdout, reason = "a measurement")]
    fn restrictions_cost_nothing_measurable() {
        let (Some(mut with), Some(mut without)) = (ring(true), ring(false)) else { return };
        let mut done = Vec::with_capacity(256);
        let mut nops = |ring: &mut KernelRing| {
            let started_ns = ring.now_ns();
            for _ in 0..20_000 {
                for slot in 0..64 {
                    let nop = Op::on(OpKind::Nop, FileRef::Plain(-1));
                    ring.push(nop, Tag { slot, generation: 1 });
                }
                ring.enter(Wait::at_least(64)).unwrap();
                done.clear();
                ring.reap(&mut done);
                assert_eq!(done.len(), 64);
            }
            (ring.now_ns() - started_ns) as f64 / (20_000.0 * 64.0)
        };
        for _ in 0..5 {
            println!(
                "restricted {:.1} ns per nop, free {:.1}",
                nops(&mut with),
                nops(&mut without)
            );
        }
    }
}
