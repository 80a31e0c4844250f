//! What must hold of the engine, whatever it reads from a device, from sysfs or from a ring.
//!
//! Data flow: bytes of the fuzzer → one module for each target → the engine → checks that are
//! written here a second time, from the format's description and not from its code.
//!
//! Not here: how long and in how much memory (`scripts/fuzz`).

mod bytes;
mod plan;
mod sim;
mod sysfs;
mod wal;

pub use plan::plan;
pub use sim::sim;
pub use sysfs::sysfs;
pub use wal::{wal_block, wal_recovery};
