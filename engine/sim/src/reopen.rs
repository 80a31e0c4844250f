//! The beginning of a life: the file is opened by the engine's own open path, which flushes it
//! before anything of it is believed.
//!
//! Data flow: device as the last life left it → `Shard::open_simulated`, for two handles →
//! model, which holds from now on that what could be read then survives.
//!
//! Not here: the rest of a life (`life`).

use core::sync::atomic::{AtomicU64, Ordering};

use mfio_engine::ring::sim::SimRing;
use mfio_engine::target::{Inode, OpenError};
use mfio_engine::{EngineError, File, OpenOptions, Shard};

use crate::world::World;

/// Lives of this process: each has a file of its own as far as poison is concerned, which is
/// shared by all handles of a process. Nothing that happens depends on the number.
static LIVES: AtomicU64 = AtomicU64::new(0);

/// How many times more likely the flush of an open is to fail than another.
const MORE_LIKELY: u16 = 8;

/// Two handles of the file; `None` when it cannot be opened, which is a violation.
pub(crate) fn open(world: &mut World, shard: &Shard<SimRing>) -> Option<[File<SimRing>; 2]> {
    let number = LIVES.fetch_add(1, Ordering::Relaxed);
    let inode = Inode { device: u64::MAX, number, special: u64::MAX };
    let handles = [open_one(world, shard, inode), open_one(world, shard, inode)];
    if let [Some(_), Some(_)] = &handles
        && !world.doubtful
    {
        let World { model, device, .. } = &mut *world;
        let result = model.open(device, 0);
        world.require("after an open", result);
    }
    let [first, twin] = handles;
    Some([first?, twin?])
}

/// Opens the file, a second time where the first is told that data was lost: the kernel says
/// so only once.
fn open_one(world: &mut World, shard: &Shard<SimRing>, inode: Inode) -> Option<File<SimRing>> {
    let options = OpenOptions::new().write(true);
    let faults = if world.is_calm() { 0 } else { world.scenario.ring.faults.flush_fail };
    for rate in [faults.saturating_mul(MORE_LIKELY), 0] {
        let World { device, random, .. } = &mut *world;
        let (fd, geometry) = (device.fd(0), device.geometry(0));
        let sync = || device.sync(0, rate, random);
        match shard.open_simulated_inode("simulated", fd, geometry, inode, &options, sync) {
            Ok(file) => return Some(file),
            Err(EngineError::Open(OpenError::LostData { .. })) if rate > 0 => {
                world.coverage.opens_lost += 1;
                world.doubtful = true;
                world.model.forfeit();
            }
            Err(error) => {
                world.violate(format!("an open failed: {error}"));
                return None;
            }
        }
    }
    None
}
