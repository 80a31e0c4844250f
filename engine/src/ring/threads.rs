//! Executes ops by blocking system calls on a few threads, for where io_uring is forbidden.
//!
//! Data flow: pushed ops → (`enter`) → jobs → a worker runs a whole chain → done → (`reap`).
//! Same contract as the kernel ring: one call per op, short transfers stay short, a short or
//! failed head of a chain cancels the rest of it.
//!
//! Not here: the system calls (`sys`), when this ring is chosen (`shard`).

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{
    Completion, Features, FileRef, Limits, Op, OpKind, Poll, Ring, RingKind, RingWaker, Tag, Wait,
};
use crate::buffer::{Region, TRANSFER_BYTES_MAX, leave_to_parent};
use crate::nvme::Space;
use crate::nvme::blocking::{self, Refusal};
use crate::process::Process;
use crate::sys;

/// A namespace that is driven by commands.
type Namespace = (i32, Space);

/// One op that waits for a worker, or waits to be handed to them.
#[derive(Clone, Copy, Debug)]
struct Job {
    op: Op,
    tag: Tag,
    namespace: Option<Namespace>,
}

/// What the shard and the workers share.
#[derive(Debug)]
struct State {
    /// Whole chains, in the order of their submission.
    jobs: VecDeque<Job>,
    done: Vec<Completion>,
    /// The statuses of devices that have failed some of them.
    failed: Vec<(Tag, u16)>,
    /// A wake that no wait has consumed yet.
    woken: bool,
    /// No more jobs will come; workers end when there are none left.
    closing: bool,
    /// Somebody waits for `event` to become readable.
    watched: bool,
    /// `event` is readable.
    rung: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when jobs arrive, or none will.
    work: Condvar,
    /// Signalled when completions or a wake arrive.
    news: Condvar,
    /// Readable when completions or a wake have arrived, while somebody watches it.
    event: EventFd,
}

impl Shared {
    /// No code panics while it holds the lock, so a poisoned state is still a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something has arrived in `state`.
    fn tell(&self, mut state: MutexGuard<'_, State>) {
        if state.watched && !state.rung {
            state.rung = true;
            // Fails only when the counter is full, and then it is readable anyway.
            let _readable_anyway = self.event.write(1);
        }
        drop(state);
        self.news.notify_one();
    }
}

/// A ring without io_uring: the fallback (F31). Takes no part in speed records.
///
/// Dropping it finishes every submitted op first; ops pushed and never submitted are not run.
#[derive(Debug)]
pub struct ThreadRing {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Which has these threads.
    owner: Process,
    /// Pushed since the last `enter`.
    pushed: Vec<Job>,
    /// Something has been pushed.
    used: bool,
    /// By the index of [`FileRef::Beside`].
    namespaces: Vec<Option<Namespace>>,
    /// Statuses of what was reaped last.
    told: Vec<(Tag, u16)>,
    features: Features,
    limits: Limits,
}

impl ThreadRing {
    /// Starts `workers` threads, at least 1, for a queue of `queue_depth` ops, at least 1.
    ///
    /// # Errors
    /// `EMFILE` or `ENFILE` when no descriptor is left; else the errno of starting a thread:
    /// `EAGAIN` when a limit on processes is reached (`ulimit -u`, the pids cgroup).
    pub fn new(workers: usize, queue_depth: u32) -> Result<Self, Errno> {
        Self::start(workers.max(1), queue_depth)
    }

    fn start(workers: usize, queue_depth: u32) -> Result<Self, Errno> {
        let sq_entries = queue_depth.max(1);
        let cq_entries = sq_entries.saturating_mul(2);
        let state = State {
            jobs: VecDeque::with_capacity(cq_entries as usize),
            done: Vec::with_capacity(cq_entries as usize),
            failed: Vec::new(),
            woken: false,
            closing: false,
            watched: false,
            rung: false,
        };
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared =
            Shared { state: Mutex::new(state), work: Condvar::new(), news: Condvar::new(), event };
        let mut ring = Self {
            shared: Arc::new(shared),
            workers: Vec::with_capacity(workers),
            owner: Process::current(),
            pushed: Vec::with_capacity(sq_entries as usize),
            used: false,
            namespaces: Vec::new(),
            told: Vec::new(),
            features: Features::new(RingKind::Threads),
            limits: Limits { sq_entries, cq_entries, transfer_bytes_max: TRANSFER_BYTES_MAX },
        };
        ring.features.in_use.push("blocking threads");
        for _ in 0..workers {
            let shared = Arc::clone(&ring.shared);
            let worker = std::thread::Builder::new().name("mfio-io".to_owned());
            let started = worker.spawn(move || work(&shared));
            // On failure, dropping `ring` ends the workers that have started.
            let errno = |error: std::io::Error| error.raw_os_error().map(Errno::from_raw);
            let worker = started.map_err(|error| errno(error).unwrap_or(Errno::EAGAIN))?;
            ring.workers.push(worker);
        }
        Ok(ring)
    }

    /// Whether no op has ever been pushed.
    pub(super) const fn has_no_ops(&self) -> bool {
        !self.used
    }

    /// Notes why there is this ring and not another.
    pub(super) fn degrade(&mut self, why: String) {
        self.features.degraded.push(why);
    }

    /// Hands everything pushed to the workers; returns how many ops that were.
    fn submit(&mut self) -> u32 {
        let Some(last) = self.pushed.last_mut() else { return 0 };
        // As in the kernel, a chain ends where its submit ends (F15).
        last.op.link = false;
        let count = u32::try_from(self.pushed.len()).expect("no more than sq_entries");
        self.shared.lock().jobs.extend(self.pushed.drain(..));
        if count == 1 {
            self.shared.work.notify_one();
        } else {
            self.shared.work.notify_all();
        }
        count
    }

    /// Sleeps until `wait` is over or the ring is woken.
    fn sleep(&self, wait: Wait) {
        let mut state = self.shared.lock();
        while state.done.len() < wait.min as usize && !state.woken {
            let Some(deadline_ns) = wait.deadline_ns else {
                state = self.shared.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left_ns = deadline_ns.saturating_sub(sys::now_ns());
            if left_ns == 0 {
                return;
            }
            let waited = self.shared.news.wait_timeout(state, Duration::from_nanos(left_ns));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.woken = false;
    }
}

impl Ring for ThreadRing {
    type Waker = ThreadWaker;

    fn now_ns(&self) -> u64 {
        sys::now_ns()
    }

    fn reserve(&mut self, count: u32) -> bool {
        self.pushed.len() + count as usize <= self.limits.sq_entries as usize
    }

    fn push(&mut self, op: Op, tag: Tag) {
        assert!(self.reserve(1), "room in the queue was reserved before the push");
        let namespace = match op.file {
            FileRef::Beside(index) => self.namespaces.get(index as usize).copied().flatten(),
            _ => None,
        };
        self.used = true;
        self.pushed.push(Job { op, tag, namespace });
    }

    fn enter(&mut self, wait: Wait) -> Result<u32, Errno> {
        let count = self.submit();
        if wait.min > 0 {
            self.sleep(wait);
        }
        Ok(count)
    }

    fn reap(&mut self, into: &mut Vec<Completion>) {
        let mut state = self.shared.lock();
        into.append(&mut state.done);
        self.told.clear();
        self.told.append(&mut state.failed);
        if state.rung {
            state.rung = false;
            // Empty already only if somebody else read it, and then it is not readable either.
            let _emptied = self.shared.event.read();
        }
    }

    /// Nothing to register: a system call takes any memory.
    fn register_buffers(&mut self, _region: &Region) {}

    fn register_file(&mut self, fd: i32) -> FileRef {
        FileRef::Plain(fd)
    }

    fn unregister_file(&mut self, file: FileRef) {
        if let FileRef::Beside(index) = file
            && let Some(namespace) = self.namespaces.get_mut(index as usize)
        {
            *namespace = None;
        }
    }

    fn register_namespace(&mut self, fd: i32, space: Space, poll: Poll) -> Option<FileRef> {
        if poll != Poll::Interrupt {
            let _not_polled = self.register_polled(fd, poll);
        }
        let free = self.namespaces.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.namespaces.push(None);
            self.namespaces.len() - 1
        });
        self.namespaces[at] = Some((fd, space));
        u32::try_from(at).ok().map(FileRef::Beside)
    }

    fn register_polled(&mut self, _fd: i32, _poll: Poll) -> Option<FileRef> {
        let text = "polled I/O: blocking threads sleep until an op is over; it takes io_uring";
        if !self.features.degraded.iter().any(|told| told == text) {
            self.features.degraded.push(text.to_owned());
        }
        None
    }

    fn device_status(&self, tag: Tag) -> Option<u16> {
        self.told.iter().find(|(of, _)| *of == tag).map(|(_, status)| *status)
    }

    /// Cancels an op that no worker has begun and that begins its chain, with all of its
    /// chain. Others run to their end, as ops in the kernel may.
    fn cancel(&mut self, tag: Tag) -> bool {
        let mut state = self.shared.lock();
        let State { jobs, done, .. } = &mut *state;
        let Some(at) = jobs.iter().position(|job| job.tag == tag) else { return true };
        let begins_chain = at == 0 || !jobs[at - 1].op.link;
        let mut goes_on = begins_chain;
        while goes_on && let Some(job) = jobs.remove(at) {
            done.push(completion(job.tag, Err(Errno::ECANCELED)));
            goes_on = job.op.link;
        }
        self.shared.tell(state);
        true
    }

    fn waker(&self) -> ThreadWaker {
        ThreadWaker(Arc::clone(&self.shared))
    }

    fn features(&self) -> &Features {
        &self.features
    }

    fn limits(&self) -> Limits {
        self.limits
    }

    fn poll_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.shared.event.as_fd())
    }

    fn watch(&mut self) {
        let mut state = self.shared.lock();
        if !state.watched {
            state.watched = true;
            // What arrived before counts too.
            self.shared.tell(state);
        }
    }
}

impl Drop for ThreadRing {
    fn drop(&mut self) {
        if !self.owner.is_current() {
            // Its threads are the parent's: none to be told or waited for (F26).
            return leave_to_parent(std::mem::take(&mut self.workers));
        }
        self.shared.lock().closing = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker does not panic; if one did, its ops are lost with this ring anyway.
            let _ended = worker.join();
        }
    }
}

/// Ends a blocking wait of one [`ThreadRing`], whatever it waits for.
#[derive(Clone, Debug)]
pub struct ThreadWaker(Arc<Shared>);

impl RingWaker for ThreadWaker {
    fn wake(&self) {
        let mut state = self.0.lock();
        state.woken = true;
        self.0.tell(state);
    }
}

/// What a worker does all its life.
fn work(shared: &Shared) {
    let mut chain = Vec::new();
    loop {
        let mut state = shared.lock();
        while state.jobs.is_empty() {
            if state.closing {
                return;
            }
            state = shared.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        while let Some(job) = state.jobs.pop_front() {
            chain.push(job);
            if !job.op.link {
                break;
            }
        }
        drop(state);
        run_chain(shared, &chain);
        chain.clear();
    }
}

/// Runs ops one after the other; after one that was not whole, the rest is cancelled.
fn run_chain(shared: &Shared, chain: &[Job]) {
    let mut broken = false;
    for job in chain {
        let (result, status) = if broken { (Err(Errno::ECANCELED), None) } else { run(job) };
        let whole_bytes = job.op.memory.map_or(0, |memory| memory.len_bytes());
        broken = broken || result != Ok(whole_bytes);
        let mut state = shared.lock();
        state.failed.extend(status.map(|status| (job.tag, status)));
        state.done.push(completion(job.tag, result));
        shared.tell(state);
    }
}

/// Runs one op; with the status of a device that has failed it.
fn run(job: &Job) -> (Result<u32, Errno>, Option<u16>) {
    let Some((fd, space)) = &job.namespace else { return (execute(&job.op), None) };
    match blocking::run(*fd, space, &job.op) {
        Ok(bytes) => (Ok(bytes), None),
        Err(Refusal { errno, status }) => (Err(errno), status.map(|status| status.to_bits())),
    }
}

/// Executes an op on a plain descriptor by the system call of its name. May block.
pub(crate) fn execute(op: &Op) -> Result<u32, Errno> {
    let FileRef::Plain(fd) = op.file else {
        // This ring never hands out a registered file.
        return Err(Errno::EBADF);
    };
    match (op.kind, op.memory) {
        (OpKind::Read, Some(memory)) => sys::pread(fd, memory, op.offset_bytes),
        (OpKind::Write, Some(memory)) if op.dsync || op.atomic => {
            let dsync = if op.dsync { libc::RWF_DSYNC } else { 0 };
            let atomic = if op.atomic { libc::RWF_ATOMIC } else { 0 };
            sys::pwritev2(fd, memory, op.offset_bytes, dsync | atomic)
        }
        (OpKind::Write, Some(memory)) => sys::pwrite(fd, memory, op.offset_bytes),
        (OpKind::ReadVectored, Some(memory)) => sys::preadv(fd, memory, op.offset_bytes),
        (OpKind::WriteVectored, Some(memory)) => sys::pwritev(fd, memory, op.offset_bytes),
        (OpKind::Read | OpKind::Write, None) => Err(Errno::EFAULT),
        (OpKind::ReadVectored | OpKind::WriteVectored, None) => Err(Errno::EFAULT),
        (OpKind::Fdatasync, _) => sys::fdatasync(fd).map(|()| 0),
        (OpKind::Fsync, _) => sys::fsync(fd).map(|()| 0),
        (OpKind::Nop, _) => Ok(0),
        (OpKind::Truncate, _) => sys::ftruncate(fd, op.len_bytes).map(|()| 0),
        (kind, _) => match kind.fallocate_mode() {
            Some(mode) => sys::fallocate(fd, mode, op.offset_bytes, op.len_bytes).map(|()| 0),
            None => Err(Errno::EINVAL),
        },
    }
}

fn completion(tag: Tag, result: Result<u32, Errno>) -> Completion {
    let result = match result {
        Ok(bytes) => i32::try_from(bytes).expect("a transfer is shorter than 2 GiB"),
        Err(errno) => -(errno as i32),
    };
    Completion { tag, result, more: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nop(link: bool) -> Op {
        let (kind, file) = (OpKind::Nop, FileRef::Plain(-1));
        Op { link, ..Op::on(kind, file) }
    }

    fn tag(slot: u32) -> Tag {
        Tag { slot, generation: 0 }
    }

    #[test]
    fn f03_cancel_reaches_a_chain_that_has_not_begun_and_nothing_else() {
        // Without workers, nothing ever begins.
        let mut ring = ThreadRing::start(0, 8).unwrap();
        for (slot, link) in [(1, false), (2, true), (3, true), (4, false), (5, false)] {
            ring.push(nop(link), tag(slot));
        }
        assert_eq!(ring.enter(Wait::NONE), Ok(5));
        let mut done = Vec::new();
        let mut cancelled = |ring: &mut ThreadRing, slot| {
            done.clear();
            assert!(ring.cancel(tag(slot)));
            ring.reap(&mut done);
            done.iter().map(|done| (done.tag.slot, done.result)).collect::<Vec<_>>()
        };
        let errno = -(Errno::ECANCELED as i32);
        assert_eq!(cancelled(&mut ring, 3), []);
        assert_eq!(cancelled(&mut ring, 2), [(2, errno), (3, errno), (4, errno)]);
        assert_eq!(cancelled(&mut ring, 2), []);
        assert_eq!(cancelled(&mut ring, 5), [(5, errno)]);
        assert_eq!(cancelled(&mut ring, 1), [(1, errno)]);
    }

    #[test]
    fn dropped_ring_has_finished_what_was_submitted() {
        let mut ring = ThreadRing::new(2, 64).unwrap();
        for slot in 0..64 {
            ring.push(nop(slot % 2 == 0), tag(slot));
        }
        ring.enter(Wait::NONE).unwrap();
        let shared = Arc::clone(&ring.shared);
        drop(ring);
        assert_eq!(shared.lock().done.len(), 64);
    }

    #[test]
    fn f19_full_queue_refuses_all_or_nothing() {
        let mut ring = ThreadRing::new(1, 2).unwrap();
        assert!(!ring.reserve(3));
        ring.push(nop(false), tag(0));
        assert!(!ring.reserve(2));
        assert!(ring.reserve(1));
    }
}
