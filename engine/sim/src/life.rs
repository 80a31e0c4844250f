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
use crate::mailbox::Elsewhere;
use crate::packets::Kind;
use crate::reopen;
use crate::scenario::{LONG_BYTES, LONG_BYTES_MAX, Weights};
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
    let Some([file, twin]) = reopen::open(world, &shard) else { return };
    let fd = world.device.fd(COPIES);
    let copies = shard.adopt_simulated("copies", fd, world.device.geometry(COPIES));
    let drawn = world.random.pick(&SyncMethod::ALL);
    // Only a direct file takes RWF_DSYNC; another keeps its linked flush.
    for file in [&file, &twin] {
        let _method = file.set_sync_method(world.scenario.sync_method.unwrap_or(drawn));
    }
    let mut driver = Driver::new(world, control.clone(), &shard, [&file, &twin], &copies);
    if driver.world.scenario.weights.elsewhere > 0 {
        let (fd, geometry) = (driver.world.device.fd(0), driver.world.device.geometry(0));
        let remote = shard.adopt_simulated_remote("elsewhere", fd, geometry);
        driver.elsewhere = Some(Elsewhere::new(remote, control.clone()));
    }
    driver.knowledge.dsync = file.sync_method().method == SyncMethod::Dsync;
    let end = work(&mut driver);
    let poisoned = driver.knowledge.told_at.is_some();
    drop(driver);
    world.coverage.chains_relaunched += shard.metrics().chains_relaunched;
    drop((file, twin, copies));
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
        world.doubtful = false;
        world.require("after a crash", result);
    } else if poisoned || control.stats().flush_failures > 0 {
        // What was not durable by then never will be, whatever later flushes say (F37).
        world.model.forfeit();
        world.doubtful = true;
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
    let mut classes = vec![
        SizeClass { bytes: 512, count: buffers * 2 },
        SizeClass { bytes: 4096, count: buffers },
        SizeClass { bytes: 16384, count: buffers.div_ceil(4) + 1 },
    ];
    if world.scenario.long {
        classes.push(SizeClass { bytes: LONG_BYTES_MAX, count: 2 });
    }
    let mut arena = ArenaConfig::new(classes);
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
        let Some(draws) = driver.world.begin_step() else { continue };
        driver.control.reseed(draws);
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
        driver.world.tell(|| String::from("the power is cut"));
        driver.control.crash();
        driver.forget_all();
        return End::Crash;
    }
    if driver.world.random.one_in(2) {
        driver.world.tell(|| String::from("everything is dropped, and the shard"));
        driver.forget_all();
        return End::Abrupt;
    }
    driver.world.tell(|| String::from("drain, and drop the shard"));
    driver.drain();
    driver.forget_all();
    End::Orderly
}

fn step(driver: &mut Driver<'_>) {
    let Weights { drop, turn, elsewhere, .. } = driver.world.scenario.weights;
    let count = u32::try_from(driver.futures()).expect("a few futures");
    if count > 0 && driver.world.random.below(256) < drop {
        let at = driver.world.random.below(count) as usize;
        driver.world.tell(|| format!("drop future {at} of {count}"));
        driver.drop_future(at);
    }
    if driver.world.random.one_in(8) {
        driver.collect();
    }
    submit(driver);
    if driver.world.random.below(256) < turn {
        let wait = if driver.world.random.one_in(2) { Wait::NONE } else { Wait::at_least(1) };
        driver.world.tell(|| format!("turn, and wait for {}", wait.min));
        driver.turn(wait);
    }
    if driver.world.random.one_in(256) {
        driver.world.tell(|| String::from("drain"));
        driver.drain();
    }
    if driver.world.random.below(256) < elsewhere {
        let (offset, len) = draw_range(driver, Kind::Read);
        driver.visit(offset, len);
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
        driver.turn(Wait::at_least(1));
        if !driver.has_room_for_a_future() {
            return;
        }
    }
    driver.world.tell(|| {
        let how = if as_future || only_future { " as a future" } else { "" };
        format!("{kind:?} of {len} bytes at {offset}{how}")
    });
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
    let align = scenario.spec.align_bytes;
    let unit = match kind {
        Kind::Read => scenario.read_unit_bytes,
        // Not aligned: to be refused.
        Kind::Write | Kind::Durable if align > 1 && random.one_in(64) => align / 2,
        _ => scenario.write_unit_bytes,
    };
    let single = matches!(kind, Kind::Read | Kind::Write | Kind::Durable);
    let len = if single && scenario.long && random.one_in(16) {
        unit * random.between(LONG_BYTES / unit, LONG_BYTES_MAX / unit)
    } else {
        unit * random.between(1, (scenario.len_bytes_max / unit).max(1))
    };
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
