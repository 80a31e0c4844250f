//! A deterministic kernel: the same seed and the same calls give the same completions, to the
//! nanosecond, on every machine.
//!
//! Data flow: [`SimConfig`] and [`SimDevice`] → [`SimRing`] → the production shard on top,
//! which cannot tell; [`SimControl`] beside it switches faults off, cuts the power and reads
//! counters and the trace hash. Ops are reordered, shortened, delayed, failed, cancelled half
//! way and lost, but never in a way that Linux would not be entitled to.
//!
//! The kernel keeps the [`MemRange`](crate::buffer::MemRange) of every op and copies at some
//! moment between start and completion, so memory that is released too early is really written
//! to; an arena in poison mode then shows it.
//!
//! # Testing what is built on shards
//!
//! With the feature `sim`, other crates run *their* recovery on the simulated device. The code
//! under test is generic over [`Ring`], and so runs here unchanged. A seed decides what goes
//! wrong and when the power is cut, and a failing seed fails again:
//!
//! ```
//! use mfio_engine::ring::Ring;
//! use mfio_engine::ring::sim::{FileSpec, SimConfig, SimDevice};
//! use mfio_engine::{Config, EngineError, File, IoError, Shard};
//!
//! /// Counts, durably: the code under test.
//! async fn count<R: Ring>(file: &File<R>, to: u8) -> Result<(), IoError> {
//!     let sector = file.shard().arena().alloc(512);
//!     let mut sector = sector.expect("the arena has room");
//!     sector.fill(to);
//!     file.write_durable_at(0, sector).await.0
//! }
//!
//! # fn main() -> Result<(), EngineError> {
//! for seed in 0..32 {
//!     let device = SimDevice::new(&[FileSpec::direct(4096)]);
//!     let (shard, power) = Shard::simulated(&device, SimConfig::calm(seed), &Config::new())?;
//!     let file = shard.open_simulated(&device, 0);
//!     power.crash_after(seed);
//!     let mut counted = 0;
//!     while let Some(done) = shard.block_on_while_powered(&power, count(&file, counted + 1))? {
//!         assert!(done.is_ok());
//!         counted += 1;
//!     }
//!     drop((file, shard));
//!
//!     // The machine boots again. The last count may have come through; none is lost.
//!     let (shard, _power) = Shard::simulated(&device, SimConfig::calm(seed), &Config::new())?;
//!     let file = shard.open_simulated(&device, 0);
//!     let sector = shard.arena().alloc(512).expect("the arena has room");
//!     let (read, sector) = shard.block_on(file.read_exact_at(0, sector))?;
//!     assert!(read.is_ok() && (counted..=counted + 1).contains(&sector[0]));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Futures that run side by side are polled by a loop of the test's own around
//! [`Shard::turn`](crate::Shard::turn), with [`SimControl::crash`] between two turns;
//! [`SimRing::scripted`] goes through every choice of a small case instead of drawing. The
//! example `sim_recovery` finds a planted bug in a store of a hundred lines.
//!
//! Not here: workloads and the reference model (package `engine-sim`).

use core::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use self::kernel::{Kernel, Sqe};
use self::others::Others;
use super::{Completion, Features, FileRef, Knob, Limits, Op, OpKind, Plant, Ring, RingKind};
use super::{RingWaker, Tag, Wait};
use crate::buffer::Region;

mod cancel;
mod choices;
mod complaint;
mod config;
mod device;
mod flight;
mod kernel;
mod knobs;
mod open;
mod others;
mod overlay;
mod random;
mod ranges;
mod stats;
mod steps;
mod stuck;
mod survivors;

pub use choices::Choices;
pub use complaint::Complaint;
pub use config::{FaultRates, Service, SimConfig, SimFeatures};
pub use device::{FD_BASE, FileSpec, SECTOR_BYTES, SimDevice};
pub use knobs::KnobCounts;
pub use overlay::Lie;
pub use random::Random;
pub use stats::{SimStats, Trace};
pub use survivors::Survivors;

/// How long it takes to look at the clock.
const CLOCK_NS: u64 = 20;

/// A ring whose kernel is simulated.
///
/// # Examples
/// ```
/// use mfio_engine::ring::sim::{FileSpec, SimConfig, SimDevice, SimRing};
/// use mfio_engine::ring::{Op, OpKind, Ring, Tag, Wait};
///
/// let device = SimDevice::new(&[FileSpec::direct(4096)]);
/// let mut ring = SimRing::new(SimConfig::calm(1), &device);
/// let file = ring.register_file(device.fd(0));
/// assert!(ring.reserve(1));
/// ring.push(Op::on(OpKind::Fdatasync, file), Tag { slot: 0, generation: 0 });
/// ring.enter(Wait::at_least(1))?;
/// let mut completions = Vec::new();
/// ring.reap(&mut completions);
/// assert_eq!(completions[0].result, 0);
/// # Ok::<(), nix::errno::Errno>(())
/// ```
#[derive(Debug)]
pub struct SimRing {
    kernel: Rc<RefCell<Kernel>>,
    woken: Arc<AtomicBool>,
    features: Features,
    limits: Limits,
    offers: SimFeatures,
    plant: Option<Plant>,
    others: Others,
}

impl SimRing {
    /// A fresh ring over `device`, which may have served others before.
    ///
    /// # Panics
    /// When a queue has no entries.
    #[must_use]
    pub fn new(config: SimConfig, device: &SimDevice) -> Self {
        let limits = Limits {
            sq_entries: config.sq_entries,
            cq_entries: config.cq_entries,
            transfer_bytes_max: config.transfer_bytes_max,
        };
        let mut features = Features::new(RingKind::Sim);
        features.vectored_fixed = config.features.vectored_fixed;
        if config.features != SimFeatures::ALL {
            features.degraded.push(format!("the simulation has only {:?}", config.features));
        }
        Self {
            kernel: Rc::new(RefCell::new(Kernel::new(config, device.clone()))),
            woken: Arc::new(AtomicBool::new(false)),
            features,
            limits,
            offers: config.features,
            plant: config.plant,
            others: Others::default(),
        }
    }

    /// As [`SimRing::new`], with a kernel that asks `choices` instead of drawing: every rate
    /// that is not 0 says that it may happen; the seed has no meaning.
    ///
    /// # Panics
    /// When a queue has no entries.
    #[must_use]
    pub fn scripted(config: SimConfig, device: &SimDevice, choices: &Choices) -> Self {
        let ring = Self::new(config, device);
        ring.kernel.borrow_mut().random = choices.random();
        ring
    }

    /// Whether no op has ever been pushed.
    pub(super) fn has_no_ops(&self) -> bool {
        let kernel = self.kernel.borrow();
        kernel.stats.ops == 0 && kernel.in_flight() == 0
    }

    /// The handle for whoever runs the simulation; it outlives the ring.
    #[must_use]
    pub fn control(&self) -> SimControl {
        SimControl { kernel: Rc::clone(&self.kernel), others: self.others.clone() }
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        let mut kernel = self.kernel.borrow_mut();
        let in_flight = kernel.in_flight();
        if in_flight > 0 {
            kernel.complain(Complaint::DroppedInFlight { in_flight });
        }
    }
}

impl Ring for SimRing {
    type Waker = SimWaker;

    /// Looking at the clock takes time, too: a loop that waits for a deadline ends.
    fn now_ns(&self) -> u64 {
        let mut kernel = self.kernel.borrow_mut();
        kernel.now_ns += CLOCK_NS;
        kernel.now_ns
    }

    fn reserve(&mut self, count: u32) -> bool {
        self.kernel.borrow().has_room(count)
    }

    fn room(&mut self) -> u32 {
        let kernel = self.kernel.borrow();
        (0..).find(|&count| !kernel.has_room(count + 1)).unwrap_or(0)
    }

    fn push(&mut self, op: Op, tag: Tag) {
        self.kernel.borrow_mut().push(Sqe::Op(op, tag));
    }

    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        self.others.run();
        let woken = self.woken.load(Ordering::Relaxed);
        let entered = self.kernel.borrow_mut().enter(wait, woken);
        // A call that failed has not waited, so the wake is still for the next one.
        self.woken.fetch_and(woken && entered.is_err(), Ordering::Relaxed);
        entered
    }

    fn is_straight(&self) -> bool {
        true
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        self.kernel.borrow_mut().reap(into);
    }

    fn register_buffers(&mut self, region: &Region) {
        // Nothing is pinned here, but ranges shall take the path that they take on io_uring.
        let quarters = usize::from(self.offers.registered_quarters.min(4));
        region.set_registered_bytes(region.len_bytes() / 4 * quarters);
    }

    fn register_file(&mut self, fd: i32) -> FileRef {
        self.kernel.borrow_mut().register_file(fd)
    }

    fn unregister_file(&mut self, file: FileRef) {
        self.kernel.borrow_mut().unregister_file(file);
    }

    fn cancel(&mut self, tag: Tag) -> bool {
        let mut kernel = self.kernel.borrow_mut();
        let room = kernel.has_room(1);
        if room {
            kernel.push(Sqe::Cancel(tag));
        }
        room
    }

    fn waker(&self) -> SimWaker {
        SimWaker(Arc::clone(&self.woken))
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn interleave(&self) {
        self.others.run();
    }

    #[inline]
    fn plant(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn supports(&self, kind: OpKind) -> bool {
        self.offers.ranges || !kind.is_range()
    }

    fn knob(&self, knob: Knob, usual: usize) -> usize {
        self.kernel.borrow_mut().turn_knob(knob, usual)
    }
}

/// Makes the next `enter` of a [`SimRing`] return without waiting. A simulation has one
/// thread, so there is never a wait to interrupt.
#[derive(Clone, Debug)]
pub struct SimWaker(Arc<AtomicBool>);

impl RingWaker for SimWaker {
    fn wake(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Steers and observes the kernel of one [`SimRing`], also after the ring is gone.
#[derive(Clone, Debug)]
pub struct SimControl {
    kernel: Rc<RefCell<Kernel>>,
    others: Others,
}

impl SimControl {
    /// Switches every fault off: from now on whatever is queued must finish.
    pub fn calm(&self) {
        self.kernel.borrow_mut().calm();
    }

    /// Cuts the power: running writes are torn, unsaved sectors are lost by the toss of a
    /// coin, and every op on this ring fails with `EIO` from now on. The device lives on.
    pub fn crash(&self) {
        self.kernel.borrow_mut().crash();
    }

    /// From now on `others` is called wherever another thread could come in while the shard goes
    /// to sleep: at each [`Ring::interleave`], and as `enter` begins. `None`: nobody comes.
    pub fn interleave(&self, others: Option<Box<dyn FnMut()>>) {
        self.others.set(others);
    }

    /// As [`SimControl::crash`], when the kernel has taken `steps` more steps: submissions,
    /// starts, copies and completions. With a number drawn from a seed, the power goes at any
    /// point of what is under way then.
    pub fn crash_after(&self, steps: u64) {
        let mut kernel = self.kernel.borrow_mut();
        kernel.crash_at_step = kernel.stats.kernel_steps.saturating_add(steps);
    }

    /// Whether the power was cut.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.kernel.borrow().dead
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> SimStats {
        self.kernel.borrow().stats
    }

    /// How often each knob was turned so far.
    #[must_use]
    pub fn knobs(&self) -> KnobCounts {
        self.kernel.borrow().knobs
    }

    /// Lets the next `times` calls of `enter` after `skip` others fail with `errno`, having
    /// consumed nothing (F21).
    pub fn refuse_enter(&self, errno: Errno, skip: u32, times: u32) {
        self.kernel.borrow_mut().refusal = Some((errno, skip, times));
    }

    /// The hash of every step so far.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.kernel.borrow().trace.value()
    }

    /// What the shard has done wrong; at most the first few.
    #[must_use]
    pub fn complaints(&self) -> Vec<Complaint> {
        self.kernel.borrow().complaints().to_vec()
    }

    /// Whether there is any complaint.
    #[must_use]
    pub fn has_complaints(&self) -> bool {
        !self.kernel.borrow().complaints().is_empty()
    }

    /// Ops whose completion has not been reaped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.kernel.borrow().in_flight()
    }

    /// Draws from `seed` from now on, so that what comes does not depend on how many draws
    /// there have been before.
    pub fn reseed(&self, seed: u64) {
        self.kernel.borrow_mut().random = Random::new(seed);
    }

    /// When the next step of an op is due; `None` when no op has any left.
    #[must_use]
    pub fn next_event_ns(&self) -> Option<u64> {
        self.kernel.borrow().next_event_ns()
    }

    /// Every content that every sector of `file` could have if the power were cut now.
    #[must_use]
    pub fn survivors(&self, file: usize) -> Survivors {
        self.kernel.borrow().survivors(file)
    }

    /// The simulated time.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.kernel.borrow().now_ns
    }
}

#[cfg(test)]
mod tests;
