//! A shard: one thread's ring, slots, targets and arena, and the loop that turns them.
//!
//! Data flow: [`File`] takes views in → `core` issues, enters, reaps → endings are delivered
//! here, when nothing is borrowed any more. Nothing is locked and nothing is shared: a shard
//! and its files are `!Send`, and cloning them copies a pointer.
//!
//! Not here: how ops are executed (`ring`).

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::vec::Drain;

use mfio_core::CompletionBatch;

use crate::buffer::{Arena, leave_to_parent};
use crate::config::Config;
use crate::error::EngineError;
use crate::metrics::{Metrics, MetricsReader};
use crate::ring::auto::{AutoConfig, Backend};
use crate::ring::{AutoRing, Features, Plant, Ring, Wait};
use crate::route::Mailbox;
use crate::target::{Geometry, Held, Inode, NamespaceError, OpenError, OpenOptions, Poison};
use crate::target::{open_on_shard, own_description};

mod abandon;
mod accept;
mod alarm;
#[cfg(any(test, feature = "sim"))]
mod audit;
mod barrier;
mod batch;
mod bell;
mod bisect;
mod body;
mod bounded;
mod bypass;
mod calibrate;
mod cell;
mod chain;
mod chain_table;
mod class;
mod commit;
mod connection;
mod core;
mod direction;
mod drain;
mod durable;
mod enter;
mod file;
mod flush;
mod governor;
mod group;
mod held;
mod in_place;
mod intake;
mod issue;
mod join;
mod lanes;
mod launch;
mod lone;
mod names;
mod occupant;
mod plain;
mod planted;
mod ranges;
mod ready;
mod reap;
mod regions;
mod rest;
mod retry;
mod run;
#[cfg(test)]
mod scripted_tests;
#[cfg(any(test, feature = "sim"))]
mod simulated;
mod slot;
mod socket;
mod straight;
mod sync;
mod tasks;
mod timer;
mod turn;
mod whole;
mod within;

pub use self::barrier::{Barrier, Epoch};
pub use self::batch::{Batch, Full, Reaped};
pub(crate) use self::bell::Bell;
pub use self::bounded::{Bounded, Ended, Outcome};
pub(crate) use self::bypass::Courses;
pub use self::bypass::{Bypass, BypassMode, Lone};
pub use self::class::{AsBackground, AsLog, Class};
pub use self::commit::{Chain, ChainBuffers, ChainError, Commit};
pub(crate) use self::connection::Connection;
pub use self::durable::WriteAt;
pub use self::file::{Durability, Durable, File};
pub(crate) use self::flush::FlushRequest;
pub use self::join::JoinHandle;
pub(crate) use self::join::panicked;
pub(crate) use self::straight::Course;
pub use self::sync::SyncFut;
pub(crate) use self::tasks::inside_a_shard;
pub use self::timer::Sleep;

use self::body::Body;
use self::cell::CoreCell;
use self::core::{Core, Ending};
use self::intake::Intake;
use self::run::{Driven, Unpark};
use self::tasks::Tasks;
use self::whole::Spares;

/// One thread's share of the engine. A cheap handle; the shard goes when the last handle and
/// the last [`File`] have gone.
///
/// # Cancel safety
/// Dropping the last handle waits for ops in flight, at most as long as
/// [`Config::drain_ns`]; what is not back by then keeps its memory for ever, counted by
/// [`quarantined`](crate::buffer::quarantined). No buffer is freed while the kernel may write.
pub struct Shard<R: Ring = AutoRing> {
    inner: Rc<Inner<R>>,
}

struct Inner<R: Ring> {
    core: CoreCell<R>,
    /// The other half of two double buffers, so that delivering allocates nothing.
    delivering: RefCell<(Vec<Body>, Vec<Ending>)>,
    arena: Arena,
    waker: R::Waker,
    driven: Driven,
    drain_ns: u64,
    tasks: Tasks,
    spares: Spares,
    /// Where other threads leave messages, once somebody asked for it.
    mailbox: OnceCell<Arc<Mailbox>>,
    mailbox_max: u32,
    intake: RefCell<Intake>,
    /// A duplicate of what [`Ring::poll_fd`] gave, once somebody asked for it.
    fd: OnceCell<OwnedFd>,
}

impl<R: Ring> Clone for Shard<R> {
    fn clone(&self) -> Self {
        Self { inner: Rc::clone(&self.inner) }
    }
}

impl Shard {
    /// A shard on io_uring, or on threads where it is forbidden, with `queue_depth` entries in
    /// its submission queue, as many ops in flight at the most, and [`Config`]'s other limits.
    /// [`Shard::features`] says what it got. It stays on this thread.
    ///
    /// # Errors
    /// [`EngineError`], of the depth, the ring or the memory; nothing was started.
    pub fn new(queue_depth: u32) -> Result<Self, EngineError> {
        let config = Config { in_flight_max: queue_depth, ..Config::new() };
        config.validate()?;
        let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(queue_depth))?;
        Self::with_ring(ring, &config)
    }
}

impl<R: Ring> Shard<R> {
    /// A shard on `ring`, with an arena of its own that is registered with it.
    ///
    /// # Errors
    /// [`EngineError::Config`], also where ops have been pushed to the ring before, and
    /// [`EngineError::Arena`]; nothing has been started then.
    pub fn with_ring(ring: R, config: &Config) -> Result<Self, EngineError> {
        config.validate()?;
        if !ring.is_unused() {
            let must = "be fresh: completions of ops that a shard did not push end what it did";
            return Err(EngineError::Config { limit: "ring", must });
        }
        let arena = Arena::new(&config.arena).map_err(EngineError::Arena)?;
        let waker = ring.waker();
        let most = config.in_flight_max as usize + config.backlog_max as usize;
        let bell = Arc::new(Bell::new(Waker::from(Arc::new(Unpark(waker.clone())))));
        let core = CoreCell::new(Core::new(ring, arena.clone(), config));
        let inner = Inner {
            core,
            delivering: RefCell::new((Vec::with_capacity(most), Vec::with_capacity(most))),
            arena,
            waker,
            driven: Driven::default(),
            drain_ns: config.drain_ns,
            tasks: Tasks::new(config.tasks_max, bell),
            spares: Spares::new(most),
            mailbox: OnceCell::new(),
            mailbox_max: config.mailbox_max,
            intake: RefCell::default(),
            fd: OnceCell::new(),
        };
        inner.core.borrow_mut().place_wakers = inner.tasks.place_wakers();
        Ok(Self { inner: Rc::new(inner) })
    }

    /// Opens the file, the block device or the NVMe namespace (`/dev/ngXnY`) at `path`.
    ///
    /// Blocks: opening and locking are plain system calls.
    ///
    /// # Errors
    /// [`EngineError::Open`], naming the path and what to do.
    pub fn open(&self, path: &Path, options: &OpenOptions) -> Result<File<R>, EngineError> {
        let mut pause = || {
            // What this shard has closed, the kernel may only let go of in the ring.
            let _tried = self.inner.core.borrow_mut().enter_ring(Wait::NONE);
            crate::target::pause();
        };
        let opened = open_on_shard(path, &self.trusting(options), &mut pause)?;
        let fd = opened.file.as_raw_fd();
        let name = path.display().to_string();
        let geometry = opened.geometry;
        let held = Held::from(opened).asked(options.transfers);
        let file = File::add(self, name, Some(held), fd, geometry, None);
        if !file.is_served() {
            let why = NamespaceError::Ring;
            return Err(OpenError::Namespace { path: path.to_owned(), why }.into());
        }
        if options.transfers.is_flagged() && !file.is_flagged() {
            return Err(crate::target::not_flagged(path).into());
        }
        if let Some(method) = options.sync_method
            && file.set_sync_method(method).is_err()
        {
            return Err(OpenError::needs_direct(path).into());
        }
        Ok(file)
    }

    /// The options that count: what was asked for.
    fn trusting(&self, options: &OpenOptions) -> OpenOptions {
        let trusts = self.inner.core.borrow().ring.plant(Plant::NoFsyncOnOpen);
        OpenOptions { sync_on_open: options.sync_on_open && !trusts, ..*options }
    }

    /// Takes an open file as a target, with the geometry its owner knows it to have. The owner
    /// sees to it that no other handle goes the other way about the page cache (F45).
    ///
    /// Where this process has handles of the file already, it is opened once more, if the system
    /// allows: a duplicate of a descriptor that another shard has would be told nothing of
    /// writes that were lost (F37).
    #[must_use]
    pub fn adopt(&self, name: &str, file: std::fs::File, geometry: Geometry) -> File<R> {
        // Held until the target has it: of two shards that come at once, one sees the other.
        let poison = Poison::of(Inode::of(&file));
        let own = if Arc::strong_count(&poison) > 1 { own_description(&file) } else { None };
        let (file, lent) = match own {
            Some(own) => (own, Some(file)),
            None => (file, None),
        };
        let fd = file.as_raw_fd();
        let held = Held::lent(file, lent);
        File::add(self, name.to_owned(), Some(held), fd, geometry, None)
    }

    /// Takes a file of a simulated device as a target.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn adopt_simulated(&self, name: &str, fd: i32, geometry: Geometry) -> File<R> {
        File::add(self, name.to_owned(), None, fd, geometry, None)
    }

    /// As [`Shard::adopt_simulated`], for a file that other handles, also of other shards of
    /// this process, are open on: they share what a failed flush means.
    #[cfg(any(test, feature = "sim"))]
    #[must_use]
    pub fn adopt_simulated_inode(
        &self,
        name: &str,
        fd: i32,
        geometry: Geometry,
        inode: crate::target::Inode,
    ) -> File<R> {
        File::add(self, name.to_owned(), None, fd, geometry, Some(inode))
    }

    /// Opens a file of a simulated device the way [`Shard::open`] opens a real one: `sync`, which
    /// is its `fsync(2)`, first makes durable what others left unflushed, where `options` say so.
    /// Handles with the same `inode` share what a failed flush means.
    ///
    /// # Errors
    /// [`EngineError::Open`] with what `sync` says.
    #[cfg(any(test, feature = "sim"))]
    pub fn open_simulated_inode(
        &self,
        name: &str,
        fd: i32,
        geometry: Geometry,
        inode: crate::target::Inode,
        options: &OpenOptions,
        sync: impl FnOnce() -> Result<(), nix::errno::Errno>,
    ) -> Result<File<R>, EngineError> {
        let options = self.trusting(options);
        crate::target::settle_contents(Path::new(name), &options, false, sync)?;
        Ok(File::add(self, name.to_owned(), None, fd, geometry, Some(inode)))
    }

    /// The shard's registered memory: packets over its buffers are transferred without a copy.
    #[must_use]
    pub fn arena(&self) -> &Arena {
        &self.inner.arena
    }

    /// Ops handed to the ring that have not completed.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.inner.core.borrow().in_flight
    }

    /// Whether nothing is accepted, in flight or waiting to be told.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.inner.core.borrow().is_idle()
    }

    /// Whether a turn could start something without a completion first.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.inner.core.borrow().has_work()
    }

    /// What has been counted so far.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        let core = self.inner.core.borrow();
        Metrics { inline_ops: core.ring.inline_ops(), ..core.metrics }
    }

    /// A handle with which any thread reads the metrics, without a lock and without the shard
    /// taking notice. From the first one on, the shard publishes them once per turn.
    #[must_use]
    pub fn metrics_reader(&self) -> MetricsReader {
        // Not the shared borrow, under which a turn might go on without publishing.
        let core = self.inner.core.borrow_mut();
        MetricsReader::new(&core.published, &core.metrics)
    }

    /// Background ops that are let in at a time, at the moment.
    #[must_use]
    pub fn background_limit(&self) -> u32 {
        self.inner.core.borrow().classes.background_limit()
    }

    /// What the ring can do and what it could not have.
    #[must_use]
    pub fn features(&self) -> Features {
        self.inner.core.borrow().ring.features().clone()
    }

    /// Runs `look` on the ring: for counters of a particular implementation.
    pub fn with_ring_ref<T>(&self, look: impl FnOnce(&R) -> T) -> T {
        look(&self.inner.core.borrow().ring)
    }

    /// Tasks that are not over.
    #[must_use]
    pub fn tasks(&self) -> u32 {
        self.inner.tasks.alive()
    }

    /// Accepts nothing more, ends every task, cancels what is in flight and waits for all of
    /// it, at most [`Config::drain_ns`]. Returns how many ops are still in flight: 0 is a clean
    /// shutdown.
    pub fn shutdown(&self) -> u32 {
        let _ended = self.inner.tasks.close();
        self.inner.core.borrow_mut().close();
        self.inner.close_mailbox();
        self.inner.deliver();
        let deadline_ns = self.inner.deadline_ns();
        while !self.is_idle() {
            let wait = Wait { min: 1, deadline_ns: Some(deadline_ns) };
            match self.turn(wait) {
                Ok(_) | Err(EngineError::Busy) => {}
                Err(_) => break,
            }
            if self.inner.core.borrow().ring.now_ns() >= deadline_ns {
                break;
            }
        }
        self.inner.end_intake();
        self.in_flight()
    }
}

impl<R: Ring> Drop for Inner<R> {
    fn drop(&mut self) {
        if !self.core.borrow().process.is_current() {
            // Whoever sent a message is told by its parent, where that goes on (F26).
            let intake = std::mem::take(self.intake.get_mut());
            return leave_to_parent((intake, self.mailbox.take()));
        }
        // Handles of tasks may be awaited elsewhere.
        let _ended = self.tasks.close();
        self.close_mailbox();
        self.end_intake();
    }
}

impl<R: Ring> Inner<R> {
    fn deadline_ns(&self) -> u64 {
        self.core.borrow().ring.now_ns().saturating_add(self.drain_ns)
    }

    /// Delivers endings until there are none. Called with nothing borrowed; where a delivery
    /// comes back here, it leaves its endings to the delivery that is under way.
    #[cold]
    #[inline(never)]
    fn deliver(&self) {
        let Ok(mut delivering) = self.delivering.try_borrow_mut() else { return };
        let (done, endings) = &mut *delivering;
        loop {
            // What is told next may change anything, and borrows it for that.
            let mut core = self.core.straight();
            if !core.has_news() {
                return;
            }
            if core.done.len() == 1 && core.endings.is_empty() {
                // One op at a time: nothing to put together, and no others to be told if a
                // waker panics.
                let body = core.done.pop();
                drop(core);
                body.into_iter().for_each(Body::finish_alone);
                continue;
            }
            std::mem::swap(done, &mut core.done);
            std::mem::swap(endings, &mut core.endings);
            drop(core);
            Delivery::of(done, endings).run();
        }
    }
}

/// Results being told. When a caller's waker panics, the others are told all the same.
struct Delivery<'a> {
    done: Drain<'a, Body>,
    /// `None` where there are none, as nearly always.
    endings: Option<Drain<'a, Ending>>,
}

impl<'a> Delivery<'a> {
    #[inline]
    fn of(done: &'a mut Vec<Body>, endings: &'a mut Vec<Ending>) -> Self {
        let endings = (!endings.is_empty()).then(|| endings.drain(..));
        Self { done: done.drain(..), endings }
    }

    fn run(&mut self) {
        let mut batch = CompletionBatch::new();
        for body in self.done.by_ref() {
            body.finish(&mut batch);
        }
        drop(batch);
        for ending in self.endings.iter_mut().flatten() {
            ending.deliver();
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.run();
    }
}

impl<R: Ring> fmt::Debug for Shard<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
