//! The small model: every workload of a few ops, with every single fault, and a power cut at
//! every step with every subset of unsynced sectors surviving.
//!
//! Data flow: [`Workload`] × [`Choices`] → production shard on a scripted ring, one step of the
//! kernel at a time → after each step, every content that a power cut could leave is held
//! against the model → [`Exhausted`]. Sectors survive independently, so holding each content of
//! each sector against the model decides about all images they combine to.
//!
//! Power cuts for real, with a reopening, come in a pass of their own over the same steps.
//!
//! Not here: what may happen in the kernel (`mfio_engine::ring::sim`), the promises (`model`).

use core::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::sim::{Choices, FileSpec, Random, SimConfig, SimControl, SimRing, SimStats};
use mfio_engine::ring::{Plant, Wait};
use mfio_engine::{Class, Config, Shard, SyncMethod};

use crate::chains::COPIES;
use crate::driver::Driver;
use crate::packets::Kind;
use crate::scenario::Scenario;
use crate::stamp::SECTOR_BYTES;
use crate::world::World;

mod workload;

pub(crate) use workload::{SmallOp, Workload};

/// Sectors of the file.
const SECTORS: usize = 4;

/// More steps than any run takes that ends.
const STEPS_MAX: usize = 2000;

/// The most failing cases that are kept.
const FAILURES_MAX: usize = 4;

/// What a run goes through besides its workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    /// At most one fault, and a look at what a power cut would leave after each step.
    Faults,
    /// No fault, and a power cut for real after one of the steps, or none.
    Cuts,
}

/// What was run, and what was found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Exhausted {
    /// Workloads.
    pub workloads: u64,
    /// Runs: a workload with one fault, or none, each in every way it can go.
    pub runs: u64,
    /// Moments at which the power could have been cut.
    pub cut_points: u64,
    /// Images of the file that could have been left by those.
    pub images: u64,
    /// Runs in which the power was cut for real.
    pub cuts: u64,
    /// What the simulated kernels did.
    pub stats: SimStats,
    /// Cases that failed: how to name them on the command line, and what was seen.
    pub failures: Vec<(String, String)>,
}

impl Exhausted {
    fn add(&mut self, other: &mut Self) {
        self.workloads += other.workloads;
        self.runs += other.runs;
        self.cut_points += other.cut_points;
        self.images = self.images.saturating_add(other.images);
        self.cuts += other.cuts;
        self.stats.add(&other.stats);
        self.failures.append(&mut other.failures);
        self.failures.sort();
    }
}

/// The counts, and the failures with the commands that show them.
impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} workloads, {} runs, {} moments of a power cut with {} images, {} cut for real",
            self.workloads, self.runs, self.cut_points, self.images, self.cuts
        )?;
        for (name, value) in self.stats.fields() {
            writeln!(f, "{name:>28} {value}")?;
        }
        for (case, text) in &self.failures {
            writeln!(f, "case {case}: {text}")?;
        }
        Ok(())
    }
}

/// Runs every workload of up to `ops_max` ops; with a planted bug, until it has been caught.
///
/// # Panics
/// When a thread cannot be started, or panics outside of a run.
#[must_use]
pub fn exhaust(ops_max: usize, plant: Option<Plant>, threads: u32) -> Exhausted {
    exhaust_every(1, ops_max, plant, threads)
}

/// As [`exhaust`], but of the workloads of three ops and more only every `stride`-th: they are
/// nearly all there are.
///
/// # Panics
/// As [`exhaust`], and when `stride` is 0.
#[must_use]
pub fn exhaust_every(
    stride: usize,
    ops_max: usize,
    plant: Option<Plant>,
    threads: u32,
) -> Exhausted {
    let mut workloads = Workload::all(ops_max);
    workloads.retain(|workload| workload.ops.len() < 3 || workload.index % stride == 0);
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let worker = || {
        let mut found = Exhausted::default();
        while !over.load(Ordering::Relaxed) {
            let Some(workload) = workloads.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
            found.workloads += 1;
            enumerate(workload, Pass::Faults, plant, &mut found);
            // With three ops, this would be the product of what the other pass adds up.
            if workload.ops.len() < 3 {
                enumerate(workload, Pass::Cuts, plant, &mut found);
            }
            let enough = if plant.is_some() { 1 } else { FAILURES_MAX };
            over.fetch_or(found.failures.len() >= enough, Ordering::Relaxed);
        }
        found
    };
    let mut all = Exhausted::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            all.add(&mut worker.join().expect("a run turns panics into violations"));
        }
    });
    all
}

/// Runs the one case that a failure has named; `ops_max` as it was then.
///
/// # Errors
/// What is wrong with the name.
pub fn exhaust_case(case: &str, ops_max: usize, plant: Option<Plant>) -> Result<Exhausted, String> {
    let bad = || format!("{case} is no case of this model: NUMBER:CHOICES, or NUMBER:cut:CHOICES");
    let (number, rest) = case.split_once(':').ok_or_else(bad)?;
    let (pass, choices) = match rest.strip_prefix("cut:") {
        Some(choices) => (Pass::Cuts, choices),
        None => (Pass::Faults, rest),
    };
    let words = choices.split(',').filter(|word| !word.is_empty());
    let prefix: Result<Vec<u32>, _> = words.map(str::parse).collect();
    let prefix = prefix.map_err(|_| bad())?;
    let number: usize = number.parse().map_err(|_| bad())?;
    let workload = Workload::all(ops_max).into_iter().nth(number).ok_or_else(bad)?;
    let mut found = Exhausted { workloads: 1, ..Exhausted::default() };
    let choices = Choices::replay(faults_max(pass), &prefix);
    run(&workload, pass, plant, &choices, &mut found);
    Ok(found)
}

const fn faults_max(pass: Pass) -> u32 {
    match pass {
        Pass::Faults => 1,
        Pass::Cuts => 0,
    }
}

fn enumerate(workload: &Workload, pass: Pass, plant: Option<Plant>, found: &mut Exhausted) {
    let choices = Choices::new(faults_max(pass));
    let before = found.failures.len();
    loop {
        run(workload, pass, plant, &choices, found);
        if found.failures.len() > before || !choices.next() {
            return;
        }
    }
}

fn run(
    workload: &Workload,
    pass: Pass,
    plant: Option<Plant>,
    choices: &Choices,
    found: &mut Exhausted,
) {
    let mut world = small_world(workload.method, pass, plant);
    let is_undisturbed = choices.is_first() && pass == Pass::Faults;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let cut = live(&mut world, workload, pass, is_undisturbed, choices, found);
        if cut && world.is_clean() {
            reopen(&mut world);
        }
    }));
    if let Err(payload) = outcome {
        world.panicked(payload.as_ref());
    }
    found.runs += 1;
    let report = world.into_report();
    found.stats.add(&report.stats);
    if let Some(violation) = report.violations.first() {
        let made: Vec<String> = choices.made().iter().map(u32::to_string).collect();
        let cut = if pass == Pass::Cuts { "cut:" } else { "" };
        let case = format!("{}:{cut}{}", workload.index, made.join(","));
        found.failures.push((case, format!("{workload}: {violation}")));
    }
}

fn small_world(method: SyncMethod, pass: Pass, plant: Option<Plant>) -> World {
    // Nobody enumerates what the driver draws: the workload says everything.
    let mut random = Choices::new(0).random();
    let mut scenario = Scenario::draw(&mut Random::new(0), plant);
    let size_bytes = u32::try_from(SECTORS * SECTOR_BYTES).expect("a small file");
    scenario.spec = FileSpec::direct(size_bytes);
    scenario.ring = SimConfig { plant, sq_entries: 4, cq_entries: 8, ..SimConfig::calm(0) };
    if pass == Pass::Faults {
        scenario.ring.faults = crate::faults::possible();
    }
    scenario.sync_method = Some(method);
    let ops_max = u32::try_from(STEPS_MAX).expect("a few steps");
    World::with_scenario(random.bits(), ops_max, random, scenario)
}

fn limits() -> Config {
    let mut arena = ArenaConfig::new(vec![
        SizeClass { bytes: 512, count: 8 },
        SizeClass { bytes: 1024, count: 4 },
        SizeClass { bytes: 2048, count: 1 },
    ]);
    arena.poison_released = true;
    Config { in_flight_max: 8, backlog_max: 8, tasks_max: 1, arena, ..Config::new() }
}

/// Runs the workload; whether the power was cut.
fn live(
    world: &mut World,
    workload: &Workload,
    pass: Pass,
    is_undisturbed: bool,
    choices: &Choices,
    found: &mut Exhausted,
) -> bool {
    let ring = SimRing::scripted(world.scenario.ring, &world.device, choices);
    let control = ring.control();
    let shard = match Shard::with_ring(ring, &limits()) {
        Ok(shard) => shard,
        Err(error) => {
            world.violate(format!("no shard: {error}"));
            return false;
        }
    };
    let arena = shard.arena().clone();
    let geometry = world.device.geometry(0);
    let file = shard.adopt_simulated("small", world.device.fd(0), geometry);
    let second = file.with_class(Class::Log);
    let copies = shard.adopt_simulated("copies", world.device.fd(COPIES), geometry);
    if file.set_sync_method(workload.method).is_err() {
        world.violate(format!("{:?} is refused", workload.method));
    }
    let mut driver = Driver::new(world, control.clone(), &shard, [&file; 2], &copies);
    driver.knowledge.dsync = workload.method == SyncMethod::Dsync;
    // Where nothing goes wrong, nothing may fail.
    driver.calm = is_undisturbed;
    let cut = step_through(&mut driver, workload, &second, pass, choices, found);
    if cut {
        driver.forget_all();
    } else if driver.world.is_clean() {
        driver.drain();
        look(&mut driver, found);
    }
    driver.forget_all();
    drop(driver);
    drop((file, second, copies, shard));
    world.model.settle();
    let at = arena.verify_released().changed_at_bytes;
    if !at.is_empty() {
        world.violate(format!("memory released at the end was written to, at bytes {at:?}"));
    }
    world.take_kernel(&control);
    cut
}

/// Issues the ops when their time has come and lets the kernel take one step after the other;
/// whether the power was cut.
fn step_through<'a>(
    driver: &mut Driver<'a>,
    workload: &Workload,
    second: &'a mfio_engine::File<SimRing>,
    pass: Pass,
    choices: &Choices,
    found: &mut Exhausted,
) -> bool {
    let mut ops = workload.ops.iter().copied().peekable();
    for _ in 0..STEPS_MAX {
        while let Some((op, _)) = ops.next_if(|(_, waits)| !waits || driver.is_over()) {
            driver.issue_small(op, second);
        }
        driver.collect();
        look(driver, found);
        if !driver.world.is_clean() || (ops.peek().is_none() && driver.is_over()) {
            return false;
        }
        match pass {
            Pass::Faults => {
                let futures = u32::try_from(driver.futures()).expect("a few futures");
                let dropped = choices.fault(futures + 1) as usize;
                if dropped > 0 {
                    driver.drop_future(dropped - 1);
                }
            }
            Pass::Cuts => {
                if choices.coin(2) == 1 {
                    driver.control.crash();
                    found.cuts += 1;
                    return true;
                }
            }
        }
        driver.world.ops_done += 1;
        driver.turn(next_wait(driver));
    }
    driver.world.violate(format!("{} ops never finish", driver.under_way()));
    false
}

/// Waits for the next step of the kernel, and not for what comes after it.
fn next_wait(driver: &Driver<'_>) -> Wait {
    match driver.control.next_event_ns() {
        Some(at_ns) => Wait { min: 1, deadline_ns: Some(at_ns) },
        None if driver.has_work() || driver.control.in_flight() > 0 => Wait::NONE,
        None => Wait::at_least(1),
    }
}

/// Holds everything that a power cut could leave now against the model.
fn look(driver: &mut Driver<'_>, found: &mut Exhausted) {
    let survivors = driver.control.survivors(0);
    found.cut_points += 1;
    found.images = found.images.saturating_add(survivors.images());
    for (sector, bytes) in survivors.contents() {
        let result = driver.world.model.check_survivor(sector, bytes);
        driver.world.require("were the power cut now", result);
    }
}

/// Opens what the power cut has left, and reads all of it through the production shard.
fn reopen(world: &mut World) {
    let result = world.model.crash(&world.device, 0);
    world.require("after a power cut", result);
    let ring = SimRing::new(SimConfig::calm(1), &world.device);
    let control: SimControl = ring.control();
    let Ok(shard) = Shard::with_ring(ring, &limits()) else {
        return world.violate(String::from("no shard after a power cut"));
    };
    let geometry = world.device.geometry(0);
    let file = shard.adopt_simulated("reopened", world.device.fd(0), geometry);
    let copies = shard.adopt_simulated("copies", world.device.fd(COPIES), geometry);
    let mut driver = Driver::new(world, control.clone(), &shard, [&file; 2], &copies);
    driver.calm = true;
    if let Some(buffer) = driver.buffer(SECTORS * SECTOR_BYTES) {
        driver.make_future(Kind::Read, 0, buffer);
    }
    driver.drain();
    drop(driver);
    drop((file, copies, shard));
    world.take_kernel(&control);
}
