//! An engine: several shards, each on a thread of its own.
//!
//! Data flow: [`EngineBuilder`] → threads, each bound to its core and making its own ring →
//! [`Engine`] → tasks and remote handles. What is to be started crosses to a shard as a boxed
//! call; results come back through an answer.
//!
//! Not here: choosing cores and the life of a thread (`engine::thread`), packets (`remote`).

use std::any::Any;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use crate::answer::{Asked, ask};
use crate::buffer::{ArenaConfig, leave_to_parent};
use crate::config::Config;
use crate::error::EngineError;
use crate::process::Process;
use crate::remote::Remote;
use crate::ring::auto::{AutoConfig, Backend};
use crate::shard::{Shard, inside_a_shard, panicked};
use crate::sys;

mod share;
mod thread;

use thread::{Control, Ended, Plan, allowed_cores, start};

/// How long a shutdown waits beyond [`Config::drain_ns`] for a shard's thread to end.
const JOIN_SLACK_NS: u64 = 1_000_000_000;

/// How many shards an engine has, and where they run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shards {
    /// One for each core that this process may use, bound to it.
    #[default]
    PerCore,
    /// So many. Bound to a core each, where the process may use so many cores; else not bound.
    Count(usize),
    /// One for each of these cores, bound to it. Numbers as in `/proc/cpuinfo`, each once.
    Cores(Vec<usize>),
}

/// What an [`Engine`] is to be.
#[derive(Clone, Debug, Default)]
pub struct EngineBuilder {
    shards: Shards,
    config: Config,
    ring: Option<AutoConfig>,
    backend: Backend,
    share_arenas: bool,
}

impl EngineBuilder {
    /// How many shards, and where. One per core if it is not said.
    #[must_use]
    pub fn shards(self, shards: Shards) -> Self {
        Self { shards, ..self }
    }

    /// Submission queue entries, and the most ops in flight, of each shard; 256 if it is not
    /// said.
    #[must_use]
    pub fn queue_depth(mut self, queue_depth: u32) -> Self {
        let ring = self.ring.unwrap_or(AutoConfig::new(queue_depth));
        self.config.in_flight_max = queue_depth;
        let mut kernel = ring.kernel;
        kernel.queue_depth = queue_depth;
        Self { ring: Some(AutoConfig { kernel, ..ring }), ..self }
    }

    /// The registered memory of each shard.
    #[must_use]
    pub fn arena(mut self, arena: ArenaConfig) -> Self {
        self.config.arena = arena;
        self
    }

    /// Which ring; io_uring or else threads if it is not said.
    #[must_use]
    pub fn backend(self, backend: Backend) -> Self {
        Self { backend, ..self }
    }

    /// Makes the arena of every shard registered memory of every other one too, so that a packet
    /// sent to another shard is `READ_FIXED` or `WRITE_FIXED` there as well. Each arena is
    /// pinned once and cloned (Linux 6.13), or pinned by each shard where the kernel cannot.
    /// Not done unless it is said: it takes time at start that grows with the square of the
    /// shards, and nothing where packets stay on the shard whose memory they use.
    #[must_use]
    pub fn share_arenas(self, share_arenas: bool) -> Self {
        Self { share_arenas, ..self }
    }

    /// All limits of each shard, in place of what was said before.
    #[must_use]
    pub fn config(self, config: Config) -> Self {
        Self { config, ..self }
    }

    /// All sizes of each ring, in place of what was said before.
    #[must_use]
    pub fn ring(self, ring: AutoConfig) -> Self {
        Self { ring: Some(ring), ..self }
    }

    /// Starts the shards, and waits until all of them run.
    ///
    /// # Errors
    /// Of all together: where one does not start, the others are ended first.
    /// - [`EngineError::Config`], [`EngineError::Arena`]: nothing was started.
    /// - [`EngineError::Start`], naming the shard, around [`EngineError::NoRing`],
    ///   [`EngineError::Thread`], [`EngineError::Pin`] or [`EngineError::Arena`].
    pub fn build(self) -> Result<Engine, EngineError> {
        self.config.validate()?;
        let plans = self.plans()?;
        let drain_ns = self.config.drain_ns;
        let (ended_sender, ended) = channel();
        let mut engine = Engine {
            shards: Vec::new(),
            ended: Mutex::new(ended),
            drain_ns,
            remote: None,
            process: Process::current(),
        };
        let mut starting = Vec::new();
        let mut failed = None;
        for (shard, plan) in plans.into_iter().enumerate() {
            match start(shard, plan, ended_sender.clone()) {
                Ok((handle, started)) => {
                    engine.shards.push(handle);
                    starting.push(started);
                }
                Err(source) => {
                    failed = Some((shard, source));
                    break;
                }
            }
        }
        let (mut mailboxes, mut arenas) = (Vec::new(), Vec::new());
        for (shard, started) in starting.into_iter().enumerate() {
            match started.wait() {
                Ok((mailbox, arena)) => {
                    mailboxes.push(mailbox);
                    arenas.push(arena);
                }
                Err(source) => failed = Some(failed.unwrap_or((shard, source))),
            }
        }
        if let Some((shard, source)) = failed {
            drop(engine);
            return Err(EngineError::Start { shard, source: Box::new(source) });
        }
        engine.remote = Some(Remote::of(mailboxes));
        if self.share_arenas {
            engine.share(&arenas)?;
        }
        Ok(engine)
    }

    fn plans(&self) -> Result<Vec<Plan>, EngineError> {
        let refuse = |must| Err(EngineError::Config { limit: "shards", must });
        let cores: Vec<Option<usize>> = match &self.shards {
            Shards::PerCore => allowed_cores().into_iter().map(Some).collect(),
            Shards::Count(0) => return refuse("be at least 1"),
            Shards::Count(count) if *count > 4096 => return refuse("be at most 4096"),
            Shards::Count(count) => {
                let allowed = allowed_cores();
                let enough = allowed.len() >= *count;
                (0..*count).map(|at| enough.then(|| allowed[at])).collect()
            }
            Shards::Cores(cores) if cores.is_empty() => return refuse("name at least one core"),
            Shards::Cores(cores) => {
                let twice = (1..cores.len()).any(|at| cores[..at].contains(&cores[at]));
                if twice {
                    return refuse("name each core once");
                }
                cores.iter().copied().map(Some).collect()
            }
        };
        let ring = self.ring.unwrap_or(AutoConfig::new(256));
        let mut config = self.config.clone();
        config.arena.shared |= self.share_arenas && cores.len() > 1;
        let plan = |core| Plan { core, ring, backend: self.backend, config: config.clone() };
        Ok(cores.into_iter().map(plan).collect())
    }
}

/// Several shards, each on a thread of its own.
///
/// Dropping it is [`Engine::shutdown`], without the report.
pub struct Engine {
    shards: Vec<ShardThread>,
    /// Locked only so that the engine is `Sync`.
    ended: Mutex<Receiver<Ended>>,
    drain_ns: u64,
    /// `None` only while it is being built.
    remote: Option<Remote>,
    process: Process,
}

/// One shard's thread, seen from outside.
struct ShardThread {
    control: Arc<Control>,
    /// `None` once it was joined or given up.
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Engine {
    /// One shard per core, with the default limits.
    #[must_use]
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// How many shards there are.
    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A handle for any thread and any runtime.
    ///
    /// # Panics
    /// Never: every engine that was built has one.
    #[must_use]
    pub fn remote(&self) -> Remote {
        self.remote.clone().expect("an engine that was built has a remote")
    }

    /// Starts a task on one shard: `make` is called there and makes the future, which stays
    /// there and need not be `Send`.
    ///
    /// # Errors
    /// [`EngineError::NoShard`]; [`EngineError::Closed`] or [`EngineError::Ring`] where the
    /// shard runs no more; [`EngineError::QueueFull`].
    pub fn spawn_on<F, Fut>(
        &self,
        shard: usize,
        make: F,
    ) -> Result<Joinable<Fut::Output>, EngineError>
    where
        F: FnOnce(Shard) -> Fut + Send + 'static,
        Fut: Future<Output: Send> + 'static,
    {
        let shards = self.shards();
        let thread = self.shards.get(shard).ok_or(EngineError::NoShard { shard, shards })?;
        let (teller, asked) = ask(|| Err(EngineError::Cancelled));
        let job = move |shard: &Shard| {
            if let Err(refused) = shard.admits_task() {
                return teller.tell(Err(refused));
            }
            let here = shard.clone();
            let body = async move { teller.tell(contained(|| make(here)).await) };
            // Admitted just now; and if it were not, the teller would tell so.
            drop(shard.spawn(body));
        };
        thread.control.send(Box::new(job))?;
        Ok(Joinable { asked, control: Arc::clone(&thread.control) })
    }

    /// Runs a task on every shard, and waits for all of them. The results are in the order of
    /// the shards.
    ///
    /// # Errors
    /// [`EngineError::WouldDeadlock`] on a shard's own thread; else what the first shard that
    /// failed came to, when all of them are through.
    pub fn run_on_each<F, Fut>(&self, make: F) -> Result<Vec<Fut::Output>, EngineError>
    where
        F: Fn(Shard) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: Send> + 'static,
    {
        if inside_a_shard() {
            return Err(EngineError::WouldDeadlock);
        }
        let make = Arc::new(make);
        let start = |shard| {
            let make = Arc::clone(&make);
            self.spawn_on(shard, move |shard| make(shard))
        };
        let started: Vec<_> = (0..self.shards()).map(start).collect();
        let joined: Vec<_> =
            started.into_iter().map(|started| started.and_then(Joinable::join)).collect();
        joined.into_iter().collect()
    }

    /// Accepts nothing more, ends all tasks, cancels what is in flight and waits for it, and
    /// for the threads: at most [`Config::drain_ns`] and one second. What is not over by then
    /// is left alone, its memory for ever the kernel's, and reported.
    ///
    /// On a shard's own thread it does not wait: the threads are reported as left.
    #[must_use = "it says what could not be ended"]
    pub fn shutdown(mut self) -> ShutdownReport {
        self.end()
    }

    fn end(&mut self) -> ShutdownReport {
        let mut report = ShutdownReport::default();
        for shard in &self.shards {
            shard.control.close();
        }
        let mut running = self.shards.iter().filter(|shard| shard.thread.is_some()).count();
        let slack_ns = if inside_a_shard() { 0 } else { self.drain_ns + JOIN_SLACK_NS };
        let deadline_ns = sys::now_ns().saturating_add(slack_ns);
        while running > 0 {
            let left_ns = deadline_ns.saturating_sub(sys::now_ns());
            let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
            match ended.recv_timeout(Duration::from_nanos(left_ns)) {
                Ok(ended) => {
                    running -= 1;
                    report.add(&ended);
                    if let Some(thread) = self.shards[ended.shard].thread.take() {
                        // It has said all it had to say, and a panic was among it.
                        let _ended = thread.join();
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        report.threads_left = running;
        for shard in &mut self.shards {
            // Left alone: joining could take for ever.
            drop(shard.thread.take());
        }
        self.shards.clear();
        report
    }
}

/// What `make`'s future comes to; a panic of either is an error.
async fn contained<Fut: Future>(make: impl FnOnce() -> Fut) -> Result<Fut::Output, EngineError> {
    let failed = |panic: Box<dyn Any + Send>| panicked(&*panic);
    let mut future = pin!(catch_unwind(AssertUnwindSafe(make)).map_err(failed)?);
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(failed(panic))),
        }
    })
    .await
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // A forked child has none of the threads (F26).
            leave_to_parent(std::mem::take(&mut self.shards));
        } else if !self.shards.is_empty() {
            let _nobody_asked = self.end();
        }
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("shards", &self.shards()).finish_non_exhaustive()
    }
}

/// What a shutdown came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Tasks that were not over and were dropped.
    pub tasks_ended: u32,
    /// Ops that did not come back in time. Their memory is quarantined
    /// ([`quarantined`](crate::buffer::quarantined)) and the kernel may still use it.
    pub ops_left: u32,
    /// Threads that did not end in time: a task of theirs does not yield.
    pub threads_left: usize,
    /// What went wrong in shards, for people: a broken ring, a panic.
    pub failures: Vec<String>,
}

impl ShutdownReport {
    /// Whether nothing was left behind and nothing went wrong. Tasks may have been ended.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.ops_left == 0 && self.threads_left == 0 && self.failures.is_empty()
    }

    fn add(&mut self, ended: &Ended) {
        self.tasks_ended += ended.tasks_ended;
        self.ops_left += ended.ops_left;
        if let Some(failure) = &ended.failure {
            self.failures.push(format!("shard {}: {failure}", ended.shard));
        }
    }
}

/// Waits for a task of a shard, from any thread: awaited, or blocked on by [`Joinable::join`].
/// Dropping it lets the task run on by itself.
///
/// Resolves to what the task came to, or to [`EngineError::Panicked`],
/// [`EngineError::Cancelled`] where the shard was shut down, or [`EngineError::Ring`].
///
/// # Cancel safety
/// Dropping it loses the result and nothing else.
#[must_use = "dropping it lets the task run on by itself: bind it to `_` to say so"]
pub struct Joinable<T> {
    asked: Asked<Result<T, EngineError>>,
    control: Arc<Control>,
}

impl<T> Joinable<T> {
    /// Blocks this thread until the task is over.
    ///
    /// # Errors
    /// As awaiting it, and [`EngineError::WouldDeadlock`] on a shard's own thread: the task
    /// runs on then.
    pub fn join(self) -> Result<T, EngineError> {
        if inside_a_shard() {
            return Err(EngineError::WouldDeadlock);
        }
        let Self { asked, control } = self;
        control.explain(asked.wait())
    }
}

impl<T> Future for Joinable<T> {
    type Output = Result<T, EngineError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.asked).poll(cx);
        polled.map(|result| self.control.explain(result))
    }
}

impl<T> fmt::Debug for Joinable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Joinable")
    }
}
