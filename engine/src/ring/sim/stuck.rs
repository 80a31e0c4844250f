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
