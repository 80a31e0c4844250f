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

use std::panic::{AssertUnwindSafe, catch_unwind};

use mfio_engine::ring::Plant;

mod chains;
mod driver;
mod history;
mod life;
mod model;
mod packets;
mod report;
mod scenario;
mod stamp;
mod sweep;
mod verify;
mod world;

pub use report::{Coverage, RunReport, Summary, reproduction};
pub use sweep::{PLANT_BUDGET_SEEDS, hunt, shrink, sweep};
pub use verify::{Damage, seal, verify};

use world::World;

/// Runs one seed with `ops` ops. A panic of the engine is a violation like any other.
#[must_use]
pub fn run(seed: u64, ops: u32, plant: Option<Plant>) -> RunReport {
    let mut world = World::new(seed, ops, plant);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        while world.goes_on() {
            life::live(&mut world);
        }
    }));
    if let Err(payload) = outcome {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
        world.violate(format!("the engine panicked: {text}"));
    }
    world.into_report()
}
