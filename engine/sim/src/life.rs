//! One life of a shard: open, work, and an end that is orderly, abrupt or a power loss.
//!
//! Data flow: scenario → ring, shard, file → steps drawn from the seed → end → what is left on
//! the device is held against the model, which is the beginning of the next life.
//!
//! Not here: what a step does (`driver`).

use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::{FaultRates, SimConfig, SimRing};
use mfio_engine::{Config, STEPS_MAX, Shard, SyncMethod};

use crate::chains::{COPIES, Link};
use crate::driver::Driver;
use crate::packets::Kind;
use crate::scenario::Weights;
use crate::world::World;

/// How long a shutdown may take: longer than any op that is delayed.
const DRAIN_NS: u64 = 20_000_000;

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Everything finishes first.
    Orderly,
    /// The shard is dropped with ops in flight.
    Abrupt,
    /// Power loss.
    Crash,
}

/// Runs one life.
pub(crate) fn live(world: &mut World) {
    world.coverage.opens += 1;
    let mut config = world.scenario.ring;
    config.seed = world.random.bits();
    if world.is_calm() {
        config.faults = FaultRates::NONE;
        config.knobs = 0;
    }
    note_features(world, &config);
    let ring = SimRing::new(config, &world.device);
    let control = ring.control();
    let shard = match Shard::with_ring(ring, &limits(world)) {
        Ok(shard) => shard,
        Err(error) => return world.violate(format!("no shard: {error}")),
    };
    let arena = shard.arena().clone();
    let geometry = world.device.geometry(0);
    let file = shard.adopt_simulated("simulated", world.device.fd(0), geometry);
    let fd = world.device.fd(COPIES);
    let copies = shard.adopt_simulated("copies", fd, world.device.geometry(COPIES));
    let drawn = world.random.pick(&SyncMethod::ALL);
    // Only a direct file takes RWF_DSYNC; another keeps its linked flush.
    let _method = file.set_sync_method(world.scenario.sync_method.unwrap_or(drawn));
    let mut driver = Driver::new(world, control.clone(), &shard, &file, &copies);
    driver.knowledge.dsync = file.sync_method().method == SyncMethod::Dsync;
    let end = work(&mut driver);
    let poisoned = driver.knowledge.told_at.is_some();
    drop(driver);
    world.coverage.chains_relaunched += shard.metrics().chains_relaunched;
    drop((file, copies));
    if world.random.one_in(2) {
        // Without this, dropping the last handle drains just the same.
        let left = shard.shutdown();
        if left != 0 {
            world.violate(format!("{left} ops are in flight after a shutdown"));
        }
    }
    let metrics = shard.metrics();
    world.coverage.coalesced += metrics.coalesced;
    world.coverage.uncoalesced += metrics.uncoalesced;
    drop(shard);
    world.model.settle();
    let released = arena.verify_released();
    if !released.changed_at_bytes.is_empty() {
        let at = released.changed_at_bytes;
        world.violate(format!("memory released at the end was written to, at bytes {at:?}"));
    }
    world.take_kernel(&control);
    if end == End::Crash {
        let World { model, device, .. } = &mut *world;
        let result = model.crash(device, 0);
        world.require("after a crash", result);
    } else if poisoned || control.stats().flush_failures > 0 {
        // What was not durable by then never will be, whatever later flushes say (F37).
        world.model.forfeit();
    }
}

/// Counts what this life has to do without.
fn note_features(world: &mut World, config: &SimConfig) {
    let coverage = &mut world.coverage;
    coverage.without_vectored_fixed += u64::from(!config.features.vectored_fixed);
    coverage.without_fixed_buffers += u64::from(config.features.registered_quarters < 4);
    coverage.without_fixed_files += u64::from(config.files_registered_max == 0);
    coverage.without_ranges += u64::from(!config.features.ranges);
}

fn limits(world: &World) -> Config {
    let buffers = world.scenario.buffers;
    let mut arena = ArenaConfig::new(vec![
        SizeClass { bytes: 512, count: buffers * 2 },
        SizeClass { bytes: 4096, count: buffers },
        SizeClass { bytes: 16384, count: buffers.div_ceil(4) + 1 },
    ]);
    arena.poison_released = true;
    Config {
        in_flight_max: world.scenario.in_flight_max,
        backlog_max: world.scenario.backlog_max,
        arena,
        drain_ns: DRAIN_NS,
        coalesce: world.scenario.coalesce,
        classes: world.scenario.classes,
        ..Config::new()
    }
}

/// Takes steps until the life is over.
fn work(driver: &mut Driver<'_>) -> End {
    let Weights { life_steps, crash, .. } = driver.world.scenario.weights;
    driver.calm = driver.world.is_calm();
    while driver.world.goes_on() {
        if !driver.calm && driver.world.is_calm() {
            if driver.knowledge.told_at.is_some() {
                // Nothing can be written any more: the calm part begins after a reopen.
                break;
            }
            driver.control.calm();
            driver.calm = true;
        }
        if driver.world.random.one_in(life_steps) {
            break;
        }
        step(driver);
    }
    if !driver.world.goes_on() {
        driver.control.calm();
        driver.calm = true;
        driver.drain();
        return End::Orderly;
    }
    if driver.world.random.below(256) < crash {
        driver.control.crash();
        driver.forget_all();
        return End::Crash;
    }
    if driver.world.random.one_in(2) {
        driver.forget_all();
        return End::Abrupt;
    }
    driver.drain();
    driver.forget_all();
    End::Orderly
}

fn step(driver: &mut Driver<'_>) {
    let Weights { drop, turn, .. } = driver.world.scenario.weights;
    let count = u32::try_from(driver.futures()).expect("a few futures");
    if count > 0 && driver.world.random.below(256) < drop {
        let at = driver.world.random.below(count) as usize;
        driver.drop_future(at);
    }
    if driver.world.random.one_in(8) {
        driver.collect();
    }
    submit(driver);
    if driver.world.random.below(256) < turn {
        let wait = if driver.world.random.one_in(2) { Wait::NONE } else { Wait::at_least(1) };
        driver.turn(wait);
    }
    if driver.world.random.one_in(256) {
        driver.drain();
    }
    if driver.world.scenario.spec.space_sectors.is_some() && driver.world.random.one_in(256) {
        // Somebody has deleted something: what failed for lack of space works from now on.
        let sectors = driver.world.random.between(1, 16);
        driver.world.device.add_space(0, sectors);
        driver.world.coverage.space_returned += 1;
    }
}

/// Issues one packet or flush, or makes room for one.
fn submit(driver: &mut Driver<'_>) {
    let scenario = driver.world.scenario;
    let Weights { read, write, durable, flush, future, zero, chain, .. } = scenario.weights;
    let random = &mut driver.world.random;
    let mut drawn = random.below(read + write + durable + flush + zero + chain);
    let mut kind = Kind::Read;
    for (candidate, weight) in [
        (Kind::Read, read),
        (Kind::Write, write),
        (Kind::Durable, durable),
        (Kind::Flush, flush),
        (Kind::Zero, zero),
        (Kind::Chain, chain),
    ] {
        if drawn < weight {
            kind = candidate;
            break;
        }
        drawn -= weight;
    }
    let as_future = random.below(256) < future;
    let (offset, len) = draw_range(driver, kind);
    let only_future = matches!(kind, Kind::Flush | Kind::Zero | Kind::Chain);
    if (as_future || only_future) && !driver.has_room_for_a_future() {
        return driver.turn(Wait::at_least(1));
    }
    driver.world.ops_done += 1;
    if kind == Kind::Flush {
        return driver.make_flush();
    }
    if kind == Kind::Zero {
        return driver.make_zeros(offset, len);
    }
    if kind == Kind::Chain {
        return make_chain(driver);
    }
    let batched = driver.world.random.below(256) < scenario.weights.batch;
    if batched && kind != Kind::Durable && driver.make_batch(kind, offset, len) {
        return;
    }
    let Some(buffer) = driver.buffer(len) else {
        // All buffers are under way or withheld: only an idle shard gives them back.
        return driver.drain();
    };
    if as_future {
        driver.make_future(kind, offset, buffer);
    } else {
        driver.send(kind, offset, buffer);
    }
}

/// Draws a chain, as long as there are buffers for it.
fn make_chain(driver: &mut Driver<'_>) {
    let mut steps = Vec::new();
    let count = driver.world.random.between(1, 8) as usize;
    while steps.len() < count.min(STEPS_MAX) {
        let link = driver.world.random.pick(&[Link::Write, Link::Write, Link::Sync, Link::Read]);
        if link == Link::Sync {
            steps.push((link, 0, None));
            continue;
        }
        let (offset, len) = draw_range(driver, Kind::Chain);
        let Some(buffer) = driver.buffer(len) else { break };
        steps.push((link, offset, Some(buffer)));
        let copies = steps.iter().any(|(link, ..)| *link == Link::Copy);
        let full = steps.len() == STEPS_MAX;
        if link == Link::Read && !full && !copies && driver.may_copy() {
            steps.push((Link::Copy, offset, None));
        }
    }
    if steps.is_empty() {
        return driver.drain();
    }
    driver.make_chain(steps);
}

/// Where the next packet goes. Now and then across the end of the file.
fn draw_range(driver: &mut Driver<'_>, kind: Kind) -> (usize, usize) {
    let scenario = driver.world.scenario;
    let random = &mut driver.world.random;
    let unit = match kind {
        Kind::Read => scenario.read_unit_bytes,
        _ => scenario.write_unit_bytes,
    };
    let units = (scenario.len_bytes_max / unit).max(1);
    let len = unit * random.between(1, units);
    let size = scenario.spec.size_bytes;
    let region = if random.one_in(8) { size } else { scenario.hot_bytes.min(size) };
    let mut offset = random.below(region / unit) * unit;
    if random.one_in(64) {
        offset = size.saturating_sub(unit) / unit * unit;
    } else if offset + len > size {
        offset = size.saturating_sub(len) / unit * unit;
    }
    (offset as usize, len as usize)
}
