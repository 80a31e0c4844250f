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
//! Not here: workloads and the reference model (package `engine-sim`).

use core::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;

use self::kernel::{Kernel, Sqe};
use super::{Completion, Features, FileRef, Knob, Limits, Op, OpKind, Plant, Ring, RingKind};
use super::{RingWaker, Tag, Wait};
use crate::buffer::Region;

mod cancel;
mod complaint;
mod config;
mod device;
mod flight;
mod kernel;
mod knobs;
mod overlay;
mod random;
mod ranges;
mod stats;
mod steps;

pub use complaint::Complaint;
pub use config::{FaultRates, Service, SimConfig, SimFeatures};
pub use device::{FD_BASE, FileSpec, SECTOR_BYTES, SimDevice};
pub use knobs::KnobCounts;
pub use overlay::Lie;
pub use random::Random;
pub use stats::{SimStats, Trace};

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
        }
    }

    /// The handle for whoever runs the simulation; it outlives the ring.
    #[must_use]
    pub fn control(&self) -> SimControl {
        SimControl { kernel: Rc::clone(&self.kernel) }
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

    fn push(&mut self, op: Op, tag: Tag) {
        self.kernel.borrow_mut().push(Sqe::Op(op, tag));
    }

    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        let woken = self.woken.swap(false, Ordering::Relaxed);
        self.kernel.borrow_mut().enter(wait, woken)
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

    /// The simulated time.
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.kernel.borrow().now_ns
    }
}

#[cfg(test)]
mod tests;
