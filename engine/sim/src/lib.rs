//! Runs the production shard on a simulated kernel, from a seed, and looks for lost bytes.
//!
//! Data flow: seed → scenario (hostile limits, faults, habits) → lives of a shard (open, ops,
//! dropped futures, power loss, reopen) → model (what may be read, what must survive) →
//! [`RunReport`]. Nothing here knows the time or another random source than the seed, so a
//! failing seed fails again on any machine.
//!
//! The checker promises nothing about bugs it was never shown: planted bugs
//! ([`Plant`]) prove that it can see.
//!
//! Not here: the simulated kernel (`mfio_engine::ring::sim`).

use mfio_engine::ring::Plant;

mod chains;
mod driver;
mod exhaust;
mod faults;
mod history;
mod life;
mod mailbox;
mod model;
mod packets;
mod reopen;
mod replay;
mod report;
mod scenario;
mod shrink;
mod stamp;
mod sweep;
mod verify;
mod world;

pub use exhaust::{Exhausted, exhaust, exhaust_case, exhaust_every};
pub use faults::FaultSet;
pub use replay::{Replay, StepSet};
pub use report::{Coverage, RunReport, Summary, reproduction};
pub use shrink::{Shrunk, shrink};
pub use sweep::{PLANT_BUDGET_SEEDS, hunt, sweep};
pub use verify::{Damage, seal, verify};

/// Runs one seed with `ops` ops. A panic of the engine is a violation like any other.
#[must_use]
pub fn run(seed: u64, ops: u32, plant: Option<Plant>) -> RunReport {
    Replay::whole(seed, ops, plant).run()
}

/// Runs the scenario of `seed` with the steps that are drawn from `steps`: each from its number
/// alone, so that a fuzzer can change, repeat and leave out steps one by one.
#[must_use]
pub fn run_steps(seed: u64, steps: &[u16]) -> RunReport {
    replay::run_in(world::World::with_steps(seed, steps)).0
}
