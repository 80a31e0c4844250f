//! The life of one shard's thread: bound to a core, a ring of its own, tasks until it is told
//! to stop, and a drain that ends in time.
//!
//! Data flow: [`Plan`] → [`start`] → the thread → its mailbox, once it runs → jobs through
//! [`Control`] → [`Ended`], whatever happened.
//!
//! Not here: the engine around it (`engine`), the loop itself (`shard::run`).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use super::ShardThread;
use crate::answer::{Asked, Teller, ask};
use crate::buffer::Arena;
use crate::config::Config;
use crate::error::EngineError;
use crate::ring::AutoRing;
use crate::ring::auto::{AutoConfig, Backend};
use crate::route::Mailbox;
use crate::shard::{Shard, panicked};

/// The most tasks that wait to be started.
const JOBS_MAX: usize = 4096;

/// What one shard is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The core to bind it to.
    pub(super) core: Option<usize>,
    pub(super) ring: AutoConfig,
    pub(super) backend: Backend,
    pub(super) config: Config,
}

/// What a thread says when it is over.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) shard: usize,
    pub(super) tasks_ended: u32,
    pub(super) ops_left: u32,
    pub(super) failure: Option<String>,
}

/// Starts something on the shard's thread.
pub(super) type Job = Box<dyn FnOnce(&Shard) + Send>;

/// What other threads need of a shard that runs.
pub(super) type Running = (Arc<Mailbox>, Arena);

/// The answer of a thread that starts.
pub(super) type Started = Asked<Result<Running, EngineError>>;

/// What other threads tell a shard's thread. Locked, because it is rare.
#[derive(Default)]
pub(super) struct Control {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Who serves the jobs, where there are none.
    serving: Option<Waker>,
    closed: bool,
    broken: Option<Errno>,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that could panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job over.
    pub(super) fn send(&self, job: Job) -> Result<(), EngineError> {
        let serving = {
            let mut state = self.lock();
            if let Some(errno) = state.broken {
                return Err(EngineError::Ring { errno });
            }
            if state.closed {
                return Err(EngineError::Closed);
            }
            if state.jobs.len() >= JOBS_MAX {
                return Err(EngineError::QueueFull { queue: "tasks to start" });
            }
            state.jobs.push_back(job);
            state.serving.take()
        };
        serving.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// The thread is to end. Jobs that have not started are dropped, which answers them.
    pub(super) fn close(&self) {
        let (serving, jobs) = {
            let mut state = self.lock();
            state.closed = true;
            (state.serving.take(), std::mem::take(&mut state.jobs))
        };
        drop(jobs);
        serving.into_iter().for_each(Waker::wake);
    }

    fn broke(&self, errno: Errno) {
        self.lock().broken = Some(errno);
    }

    /// What was cancelled because the ring broke is told so.
    pub(super) fn explain<T>(&self, result: Result<T, EngineError>) -> Result<T, EngineError> {
        match (result, self.lock().broken) {
            (Err(EngineError::Cancelled), Some(errno)) => Err(EngineError::Ring { errno }),
            (result, _) => result,
        }
    }

    /// Starts jobs on the shard until the engine is closed.
    async fn serve(&self, shard: &Shard) {
        poll_fn(|cx| {
            loop {
                // Cloned before the lock: it may run anything.
                let waker = cx.waker().clone();
                let job = {
                    let mut state = self.lock();
                    if state.closed {
                        return Poll::Ready(());
                    }
                    let job = state.jobs.pop_front();
                    if job.is_none() {
                        state.serving = Some(waker);
                    }
                    job
                };
                let Some(job) = job else { return Poll::Pending };
                job(shard);
            }
        })
        .await;
    }
}

/// The cores that this process may use.
pub(super) fn allowed_cores() -> Vec<usize> {
    let Ok(allowed) = sched_getaffinity(Pid::from_raw(0)) else { return vec![0] };
    (0..CpuSet::count()).filter(|core| allowed.is_set(*core) == Ok(true)).collect()
}

fn bind_to(core: usize) -> Result<(), EngineError> {
    let pin = |errno| EngineError::Pin { core, errno };
    let mut set = CpuSet::new();
    set.set(core).map_err(pin)?;
    sched_setaffinity(Pid::from_raw(0), &set).map_err(pin)
}

/// Starts the thread of one shard. It runs once the second of the two has answered.
pub(super) fn start(
    shard: usize,
    plan: Plan,
    ended: Sender<Ended>,
) -> Result<(ShardThread, Started), EngineError> {
    let control = Arc::new(Control::default());
    let (teller, started) = ask(|| Err(EngineError::Closed));
    let there = Arc::clone(&control);
    let body = move || {
        let lived = AssertUnwindSafe(|| live(shard, &plan, &there, teller));
        let end = catch_unwind(lived).unwrap_or_else(|panic| {
            // Not of a task: those are contained. Whoever waits is told by what was dropped.
            let failure = Some(panicked(&*panic).to_string());
            Ended { shard, tasks_ended: 0, ops_left: 0, failure }
        });
        there.close();
        // Nobody listens where the engine has given up.
        let _heard = ended.send(end);
    };
    let thread = std::thread::Builder::new().name(format!("mfio-shard-{shard}"));
    let errno =
        |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EAGAIN));
    let thread: JoinHandle<()> =
        thread.spawn(body).map_err(|error| EngineError::Thread { errno: errno(error) })?;
    Ok((ShardThread { control, thread: Some(thread) }, started))
}

type StartTeller = Teller<Result<Running, EngineError>>;

fn live(number: usize, plan: &Plan, control: &Control, teller: StartTeller) -> Ended {
    let mut end = Ended { shard: number, tasks_ended: 0, ops_left: 0, failure: None };
    let shard = match make(plan) {
        Ok(shard) => shard,
        Err(error) => {
            teller.tell(Err(error));
            return end;
        }
    };
    teller.tell(Ok((shard.mailbox(), shard.arena().clone())));
    // Tasks may hold the shard: dropping it here, in the middle of a panic, would end nothing,
    // and whoever waits for it elsewhere would wait for ever.
    match catch_unwind(AssertUnwindSafe(|| shard.block_on(control.serve(&shard)))) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            if let EngineError::Ring { errno } = &error {
                control.broke(*errno);
            }
            end.failure = Some(error.to_string());
        }
        // Of somebody's waker: those of tasks are contained.
        Err(panic) => end.failure = Some(panicked(&*panic).to_string()),
    }
    control.close();
    end.tasks_ended = shard.tasks();
    end.ops_left = shard.shutdown();
    end
}

fn make(plan: &Plan) -> Result<Shard, EngineError> {
    if let Some(core) = plan.core {
        bind_to(core)?;
    }
    // Here, because a ring belongs to the thread that makes it (F24).
    let ring = AutoRing::new(plan.backend, &plan.ring)?;
    Shard::with_ring(ring, &plan.config)
}
