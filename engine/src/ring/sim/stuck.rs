//! Places of a file where trying again is of no use.
//!
//! Everything else that goes wrong is drawn anew for each op, so that an engine which tries for
//! ever gets on after all. Here the place decides: the same op fails in the same way each time.
//!
//! Data flow: seed of the ring, file and offset → [`Stuck`] → `steps`, in place of what it drew.
//!
//! Not here: how many such places there are (`config`).

use super::config::SimConfig;
use super::device::SECTOR_BYTES;
use super::flight::{Fault, Flight};
use crate::ring::OpKind;

/// Odd, with its bits well mixed.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// What becomes of a transfer in place of `drawn`: that, unless it begins where it is stuck.
#[inline]
pub(super) fn fault_of(config: &SimConfig, flight: &Flight, drawn: Fault) -> Fault {
    if config.faults.stuck == 0 {
        return drawn;
    }
    let sector = flight.offset_bytes / u64::from(SECTOR_BYTES);
    let place = config.seed ^ (sector << 8) ^ flight.file as u64;
    let mixed = (place ^ (place >> 31)).wrapping_mul(STEP);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(STEP);
    if mixed >> 48 >= u64::from(config.faults.stuck) {
        return drawn;
    }
    let moves_nothing = mixed & (1 << 40) != 0 && !flight.atomic;
    match (moves_nothing, flight.kind) {
        (true, OpKind::Write) => Fault::Zero,
        (true, _) => drawn,
        (false, _) if flight.force_async => Fault::None,
        (false, _) => Fault::Again,
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::super::{FaultRates, FileSpec, SimDevice, SimRing};
    use super::*;
    use crate::buffer::MemRange;
    use crate::ring::{Op, Ring, Tag, Wait};

    /// What four tries of the same op come to, the last one forced to a worker.
    fn tried(kind: OpKind, seed: u64) -> [i32; 4] {
        let faults = FaultRates { stuck: u16::MAX, ..FaultRates::NONE };
        let config = SimConfig { faults, ..SimConfig::calm(seed) };
        let device = SimDevice::new(&[FileSpec::buffered(4096)]);
        let mut ring = SimRing::new(config, &device);
        let file = ring.register_file(device.fd(0));
        let mut bytes = vec![0; 512];
        core::array::from_fn(|at| {
            let memory = MemRange::of_raw(bytes.as_mut_ptr(), 512, None).unwrap();
            let op = Op { force_async: at == 3, ..Op::transfer(kind, file, 512, memory) };
            ring.push(op, Tag { slot: 0, generation: 0 });
            ring.enter(Wait::at_least(1)).unwrap();
            let mut completions = Vec::new();
            ring.reap(&mut completions);
            completions[0].result
        })
    }

    #[test]
    fn f23_stuck_op_gets_on_only_where_it_is_forced() {
        const EAGAIN: i32 = -(Errno::EAGAIN as i32);
        let (mut again, mut nothing) = (0, 0);
        for seed in 0..64 {
            match (tried(OpKind::Read, seed), tried(OpKind::Write, seed)) {
                ([EAGAIN, EAGAIN, EAGAIN, 512], [EAGAIN, EAGAIN, EAGAIN, 512]) => again += 1,
                // Only a write can move nothing without reaching an end.
                ([512, 512, 512, 512], [0, 0, 0, 0]) => nothing += 1,
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        assert!(again > 0 && nothing > 0, "{again} {nothing}");
    }
}
