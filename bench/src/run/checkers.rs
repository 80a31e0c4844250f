//! Checks blocks on threads of their own, beside the one that reaps (`verify_async`).
//!
//! Data flow: what was read, copied, and what it must be -> one of N threads -> a verdict that
//! the worker collects when it checks the next, and at the end of its phase. Copies are used
//! again: after the first few, nothing is allocated.
//!
//! Not here: the check itself (`content`), what a verdict means for the job (`worker`).

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use crate::content::{Blocks, Mismatch, Wanted, check_blocks};
use crate::ioengine::Io;

/// Pieces of work that wait for each thread; more only hide that the threads are too slow.
const WAITING_MAX: usize = 8;

/// How often a thread that does not answer is looked after.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// Invariant behind the channels.
const ALIVE: &str = "a thread that checks ends only with its channel";

/// One read to check.
struct Task {
    io: Io,
    data: Vec<u8>,
    wanted: Vec<Wanted>,
    verdict: Result<(), Box<Mismatch>>,
}

/// Threads that check.
pub(crate) struct Checkers {
    lanes: Vec<SyncSender<Task>>,
    next: usize,
    done: Receiver<Task>,
    spare: Vec<Task>,
    outstanding: usize,
    threads: Vec<JoinHandle<()>>,
}

/// Moves the calling thread to `cpus`; none means any.
fn pin(cpus: &[u32]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu as usize)?;
    }
    if cpus.is_empty() { Ok(()) } else { sched_setaffinity(Pid::from_raw(0), &set) }
}

impl Checkers {
    /// So many threads on `cpus`, for blocks of that kind.
    ///
    /// # Errors
    /// A thread could not be started or moved.
    pub(crate) fn new(count: u32, cpus: &[u32], blocks: &Blocks) -> io::Result<Self> {
        let (to_worker, done) = channel();
        let mut checkers = Self {
            lanes: Vec::new(),
            next: 0,
            done,
            spare: Vec::new(),
            outstanding: 0,
            threads: Vec::new(),
        };
        for number in 0..count {
            let (lane, tasks) = sync_channel(WAITING_MAX);
            let (ready, moved) = channel();
            let (cpus, blocks, done) = (cpus.to_vec(), blocks.clone(), to_worker.clone());
            let body = move || {
                let settled = pin(&cpus);
                let usable = settled.is_ok();
                if ready.send(settled).is_ok() && usable {
                    work(&tasks, &done, &blocks);
                }
            };
            let thread = thread::Builder::new().name(format!("verify-{number}")).spawn(body)?;
            checkers.threads.push(thread);
            checkers.lanes.push(lane);
            moved.recv().map_err(io::Error::other)??;
        }
        Ok(checkers)
    }

    /// Hands over what was read; waits while all threads are busy and their queues full.
    pub(crate) fn give(&mut self, io: Io, data: &[u8], wanted: impl Iterator<Item = Wanted>) {
        let fresh = || Task { io, data: Vec::new(), wanted: Vec::new(), verdict: Ok(()) };
        let mut task = self.spare.pop().unwrap_or_else(fresh);
        task.io = io;
        task.data.clear();
        task.data.extend_from_slice(data);
        task.wanted.clear();
        task.wanted.extend(wanted);
        self.next = (self.next + 1) % self.lanes.len().max(1);
        self.lanes[self.next].send(task).expect(ALIVE);
        self.outstanding += 1;
    }

    /// The next verdict that is there, or, if `wait`, that is outstanding at all.
    pub(crate) fn verdict(&mut self, wait: bool) -> Option<Result<(), Box<Mismatch>>> {
        if self.outstanding == 0 {
            return None;
        }
        let mut task = if wait { self.next_done() } else { self.done.try_recv().ok()? };
        self.outstanding -= 1;
        let verdict = std::mem::replace(&mut task.verdict, Ok(()));
        self.spare.push(task);
        Some(verdict)
    }
}

impl Checkers {
    /// Waits for a thread, as long as none has ended: its task would never come back.
    fn next_done(&self) -> Task {
        loop {
            match self.done.recv_timeout(ALIVE_EVERY) {
                Ok(task) => return task,
                Err(_) => assert!(!self.threads.iter().any(JoinHandle::is_finished), "{ALIVE}"),
            }
        }
    }
}

fn work(tasks: &Receiver<Task>, done: &Sender<Task>, blocks: &Blocks) {
    while let Ok(mut task) = tasks.recv() {
        let wanted = |index: usize, _| task.wanted.get(index).copied().unwrap_or_default();
        task.verdict = check_blocks(blocks, task.io, &task.data, wanted);
        if done.send(task).is_err() {
            return;
        }
    }
}

impl Drop for Checkers {
    fn drop(&mut self) {
        self.lanes.clear();
        for thread in self.threads.drain(..) {
            // A panic of it has been printed, and `verdict` has stumbled over it.
            drop(thread.join());
        }
    }
}
