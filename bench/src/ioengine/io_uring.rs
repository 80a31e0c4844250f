//! The engine under test: `mfio_core` packets on an `mfio_engine` shard.
//!
//! Data flow: slot -> its packet, which owns an arena buffer -> completion queue `send` ->
//! shard -> `turn` -> completion queue `pop` -> the packet is parked in its slot again. Packets
//! and buffers are reused for ever; an I/O allocates nothing.
//!
//! Not here: retries and short transfers, which the shard deals with.

use std::future::Future;
use std::hint::cold_path;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use fio_compat::SyncIo;
use mfio_core::{Completed, CompletionQueue, Error, ErrorKind, Packet, Read, Write};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, HugePages, SizeClass};
use mfio_engine::ring::SqPoll;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing, RingError};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Access, Poll as RingPoll, Ring, Transfers, Wait};
use mfio_engine::{Config, DeviceWrite, DirectMode, Durability, EngineError, File};
use mfio_engine::{OpenOptions, Shard, SyncFut};
use nix::errno::Errno;
use nix::libc;

use super::parked::Parked;
use super::{Event, Io, IoEngine, Operation, Queued, Setup, Traits};

/// Bounce buffers beside the slots' own, for ops that are not aligned as the target demands.
const BOUNCE_BUFFERS: u32 = 8;
/// The least size of a buffer: a page, so that every buffer is aligned to one.
const PAGE_BYTES: u32 = 4096;
/// So many completions at a time are worth a loop of their own.
const SEVERAL: usize = 4;
/// Blocking threads of the fallback: more do not help on a disk that punts anyway.
const FALLBACK_THREADS: usize = 8;

/// A ring that an engine can be opened on.
pub(crate) trait MakeRing: Ring + Sized {
    /// A ring with room for `depth` ops; with `sq_thread`, a thread of the kernel submits them.
    ///
    /// # Errors
    /// What the system refused.
    fn make(depth: u32, fixed_files: bool, sq_thread: bool) -> io::Result<Self>;
}

impl MakeRing for KernelRing {
    fn make(depth: u32, fixed_files: bool, sq_thread: bool) -> io::Result<Self> {
        let mut config = KernelConfig::new(depth);
        if !fixed_files {
            config.files_max = 0;
        }
        config.sqpoll = sq_thread.then(SqPoll::default);
        Self::new(&config).map_err(io::Error::other)
    }
}

impl MakeRing for ThreadRing {
    fn make(depth: u32, _fixed_files: bool, _sq_thread: bool) -> io::Result<Self> {
        Self::new(FALLBACK_THREADS.min(depth as usize), depth).map_err(io::Error::from)
    }
}

/// Why the kernel ring is not to be had here; `None` when it is.
pub(crate) fn kernel_ring_refusal() -> Option<RingError> {
    KernelRing::new(&KernelConfig::new(1)).err().filter(RingError::is_unavailable)
}

/// Packets on a shard.
pub(crate) struct PacketEngine<R: Ring> {
    // The queues go before the shard: what they forget, the shard completes and frees.
    reads: CompletionQueue<Read, ArenaBuf>,
    writes: CompletionQueue<Write, ArenaBuf>,
    flushes: Vec<(u32, SyncFut<R>)>,
    files: Vec<File<R>>,
    parked: Parked,
    buffer_bytes: u32,
    /// Every I/O is `buffer_bytes` long, so that no buffer ever changes its length.
    uniform: bool,
    /// The result of an I/O that has not failed, where every I/O is of one length.
    usual: Option<i32>,
    /// Sent since the last turn.
    unsubmitted: bool,
    /// There may be completions that were not taken: the last `take` was given enough of them and
    /// there are more on their way, or a `commit` has reaped some.
    leftover: bool,
    shard: Shard<R>,
    traits: Traits,
}

/// What the job asks of its transfers, in the words of the engine.
fn transfers(setup: &Setup<'_>) -> Transfers {
    let asked = setup.options;
    let access = |random| if random { Access::Random } else { Access::Sequential };
    Transfers {
        access: setup.random.map(access),
        uncached: asked.uncached,
        nowait: asked.nowait,
        atomic: asked.atomic,
        async_every: asked.force_async,
        read_fua: asked.read_fua,
        write_fua: asked.write_fua,
        // No option of fio's names one.
        stream: 0,
    }
}

fn open_file<R: Ring>(shard: &Shard<R>, path: &Path, setup: &Setup<'_>) -> io::Result<File<R>> {
    let direct = setup.direct || setup.polled;
    let direct = if direct { DirectMode::Direct } else { DirectMode::Buffered };
    let mut options = OpenOptions::new().read(true).write(setup.writes).direct(direct);
    options.poll = if setup.polled { RingPoll::Polled } else { RingPoll::Interrupt };
    // Clones of a job share their file, as with fio.
    options.lock = false;
    if setup.writes {
        // Whether a device may be written was settled before the run, which holds it.
        options.device_write = match setup.even_mounted {
            true => DeviceWrite::EvenMounted,
            false => DeviceWrite::IfUnused,
        };
    }
    options.write_through = match setup.sync {
        SyncIo::None => None,
        SyncIo::Sync => Some(Durability::Full),
        SyncIo::Dsync => Some(Durability::Data),
    };
    options.transfers = transfers(setup);
    // fio opens without a flush, and so do the engines that this one is compared with.
    options.sync_on_open = false;
    shard.open(path, &options).map_err(io::Error::other)
}

/// How the note begins that names a device without queues to poll, and the one of the ring that
/// met such a device.
const UNPOLLED: &str = "hipri: ";
const REFUSED_TO_POLL: &str = "IOPOLL: a target refused";

/// Why completions on `file` are not polled for, where that was wanted.
fn unpolled<R: Ring>(file: &File<R>) -> Option<String> {
    let device = file.geometry().facts.device?;
    (device.io_poll == Some(false)).then(|| {
        let name = device.name;
        format!(
            "{UNPOLLED}{name} has no queues to poll, so its completions come by interrupts; give \
             its driver some (nvme.poll_queues=N), or leave hipri out"
        )
    })
}

impl<R: MakeRing> IoEngine for PacketEngine<R> {
    fn open(setup: &Setup<'_>) -> io::Result<Self> {
        let ring = R::make(setup.depth, setup.fixed_files, setup.sq_thread)?;
        let bytes = setup.buffer_bytes.next_multiple_of(PAGE_BYTES);
        let class = SizeClass { bytes, count: setup.depth + BOUNCE_BUFFERS };
        let mut config = Config::new();
        // One more for a flush behind a full queue.
        config.in_flight_max = setup.depth + 1;
        config.backlog_max = setup.depth.max(1);
        config.arena = ArenaConfig::new(vec![class]);
        if setup.memory.kind.is_huge() {
            config.arena.huge_pages = HugePages::Require;
        }
        let shard = Shard::with_ring(ring, &config).map_err(|error| match setup.memory.kind {
            kind if kind.is_huge() => io::Error::other(format!(
                "iomem={}: {error}; reserve huge pages (sysctl vm.nr_hugepages=N), or use \
                 iomem=mmap",
                kind.as_str()
            )),
            _ => io::Error::other(error),
        })?;
        // Not in the middle of the job.
        let _registered = shard.register(shard.arena());
        let open = |path| match setup.nowhere {
            true => shard.nowhere().ok_or_else(|| io::Error::other("nop needs io_uring")),
            false => open_file(&shard, path, setup),
        };
        let files = setup.paths.iter().map(|path| open(path)).collect::<io::Result<Vec<_>>>()?;
        let reads = (0..setup.depth).map(|_| {
            let buffer = shard.arena().alloc(setup.buffer_bytes as usize);
            Some(Packet::new(buffer.expect("the arena has a buffer per slot")))
        });
        let writes = (0..setup.depth).map(|_| None);
        let parked = Parked { reads: reads.collect(), writes: writes.collect() };
        let features = shard.features();
        let in_use = features.in_use.iter().map(|name| (*name).to_owned());
        let mut degraded = features.degraded.clone();
        if !setup.fixed_buffers && !setup.nowhere {
            degraded.push("fixedbufs=0: this engine registers its buffers all the same".into());
        }
        degraded.extend(files.iter().filter(|_| setup.polled).filter_map(unpolled));
        Ok(Self {
            parked,
            reads: CompletionQueue::new(),
            writes: CompletionQueue::new(),
            flushes: Vec::with_capacity(setup.depth as usize),
            files,
            buffer_bytes: setup.buffer_bytes,
            uniform: setup.uniform,
            usual: i32::try_from(setup.buffer_bytes).ok().filter(|_| setup.uniform),
            unsubmitted: false,
            leftover: false,
            traits: Traits { in_use: in_use.collect(), degraded },
            shard,
        })
    }

    fn traits(&self) -> Traits {
        let mut traits = self.traits.clone();
        // That a target has no queues to poll is said already, with its name.
        let unpolled = traits.degraded.iter().any(|text| text.starts_with(UNPOLLED));
        for text in self.shard.features().degraded {
            let again = unpolled && text.starts_with(REFUSED_TO_POLL);
            if !again && !traits.degraded.contains(&text) {
                traits.degraded.push(text);
            }
        }
        traits
    }

    fn synchronous(&self) -> bool {
        false
    }

    #[inline]
    fn buffer(&mut self, slot: u32) -> &mut [u8] {
        self.parked.buffer(slot as usize)
    }

    #[inline(always)]
    fn queue(&mut self, io: Io) -> Queued {
        self.unsubmitted = true;
        let file = &self.files[io.file as usize];
        let (slot, tag) = (io.slot as usize, u64::from(io.slot));
        if io.operation == Operation::Read {
            let mut packet = self.parked.take_read(slot);
            if !self.uniform {
                packet.buffer_mut().set_len_bytes(io.len_bytes as usize);
            }
            if let Err(unsent) = self.reads.send(file, io.offset_bytes, packet, tag) {
                self.parked.park_read(slot, unsent.packet);
                return Queued::Done(-libc::ENOBUFS);
            }
        } else if io.operation == Operation::Write {
            let mut packet = self.parked.take_write(slot);
            if !self.uniform {
                packet.buffer_mut().set_len_bytes(io.len_bytes as usize);
            }
            if let Err(unsent) = self.writes.send(file, io.offset_bytes, packet, tag) {
                self.parked.park_write(slot, unsent.packet);
                return Queued::Done(-libc::ENOBUFS);
            }
        } else {
            let full = io.operation == Operation::Fsync;
            let durability = if full { Durability::Full } else { Durability::Data };
            self.flushes.push((io.slot, file.sync(durability)));
        }
        Queued::Pending
    }

    #[inline]
    fn commit(&mut self) -> io::Result<()> {
        // What this reaps is there when it is asked for.
        self.leftover |= self.turn(Wait::NONE)? > 0;
        Ok(())
    }

    #[inline]
    fn reap(&mut self, min: u32, max: u32, events: &mut Vec<Event>) -> io::Result<()> {
        if self.unsubmitted || min == 0 {
            // What has completed already and was not asked for yet counts towards the minimum.
            let ready = if self.leftover { self.ready() } else { 0 };
            self.turn(Wait::at_least(min.saturating_sub(ready)))?;
        }
        let before = events.len();
        self.take(max as usize, events);
        if events.len() - before < min as usize {
            cold_path();
            self.reap_more(before, min, max, events)
        } else {
            Ok(())
        }
    }
}

impl<R: Ring> PacketEngine<R> {
    /// Completed and not taken.
    #[cold]
    fn ready(&self) -> u32 {
        let sent = self.reads.in_flight() + self.writes.in_flight() + self.flushes.len();
        u32::try_from(sent).unwrap_or(u32::MAX).saturating_sub(self.shard.in_flight())
    }

    /// Waits for what is missing of `min` since `before`.
    #[inline(never)]
    fn reap_more(
        &mut self,
        before: usize,
        min: u32,
        max: u32,
        events: &mut Vec<Event>,
    ) -> io::Result<()> {
        loop {
            let got = u32::try_from(events.len() - before).unwrap_or(u32::MAX);
            if got >= min {
                return Ok(());
            }
            self.turn(Wait::at_least(min - got))?;
            self.take(max.saturating_sub(got) as usize, events);
        }
    }

    /// How many have completed.
    #[inline(always)]
    fn turn(&mut self, wait: Wait) -> io::Result<u32> {
        self.unsubmitted = false;
        if self.reads.in_flight() == 0 {
            return self.turn_writes(wait);
        }
        self.shard.turn_into(wait, &mut self.reads).or_else(broken)
    }

    #[inline(never)]
    fn turn_writes(&mut self, wait: Wait) -> io::Result<u32> {
        self.shard.turn_into(wait, &mut self.writes).or_else(broken)
    }

    /// Moves up to `max` completions into `events` and their packets back into their slots.
    #[inline(always)]
    fn take(&mut self, max: usize, events: &mut Vec<Event>) {
        let end = events.len() + max;
        events.reserve(max);
        let several = max >= SEVERAL;
        while events.len() < end
            && let Some((slot, done)) =
                if several { self.take_reads(end, events) } else { self.next_read() }
        {
            let Some(result) = self.usual.filter(|_| done.is_ok()) else {
                self.park_unusual(slot, done, events);
                continue;
            };
            self.parked.park_read(slot as usize, done.into_packet());
            events.push(Event { slot, result });
        }
        if self.writes.in_flight() > 0 {
            cold_path();
            self.take_writes(end, events);
        }
        if !self.flushes.is_empty() {
            self.take_flushes(end, events);
        }
        let sent = self.reads.in_flight() + self.writes.in_flight() + self.flushes.len();
        self.leftover = events.len() == end && sent > 0;
    }

    /// Takes a read that has failed, or is one of several lengths.
    #[inline(never)]
    fn park_unusual(
        &mut self,
        slot: u32,
        done: Completed<Read, ArenaBuf>,
        events: &mut Vec<Event>,
    ) {
        let error = done.error();
        self.parked.park_read(slot as usize, done.into_packet());
        events.push(Event { slot, result: self.result_of(slot, error) });
    }

    /// The oldest read that has completed. Where none is in flight, no memory is looked at that is
    /// shared with other threads.
    #[inline(always)]
    fn next_read(&mut self) -> Option<(u32, Completed<Read, ArenaBuf>)> {
        if self.reads.in_flight() == 0 {
            return None;
        }
        self.reads.pop().map(|(tag, done)| (slot_of(tag), done))
    }

    /// Takes reads as long as they are as they should be, which nearly all are, and there is room
    /// for them; the first one that is not. Apart and short, so that it needs few registers.
    #[inline(never)]
    fn take_reads(
        &mut self,
        end: usize,
        events: &mut Vec<Event>,
    ) -> Option<(u32, Completed<Read, ArenaBuf>)> {
        let (places, usual) = (&mut self.parked.reads[..], self.usual);
        // Not `next_read`, which would borrow the places as well.
        while events.len() < end && self.reads.in_flight() > 0 {
            let (tag, done) = self.reads.pop()?;
            let slot = slot_of(tag);
            match (places.get_mut(slot as usize), usual) {
                (Some(place), Some(result)) if done.is_ok() && place.is_none() => {
                    *place = Some(done.into_packet());
                    events.push(Event { slot, result });
                }
                _ => return Some((slot, done)),
            }
        }
        None
    }

    #[inline(never)]
    fn take_writes(&mut self, end: usize, events: &mut Vec<Event>) {
        while events.len() < end
            && let Some((tag, done)) = self.writes.pop()
        {
            let slot = slot_of(tag);
            let usual = self.usual.filter(|_| done.is_ok());
            let error = if usual.is_none() { done.error() } else { None };
            self.parked.park_write(slot as usize, done.into_packet());
            let result = usual.unwrap_or_else(|| self.result_of(slot, error));
            events.push(Event { slot, result });
        }
    }

    /// The result of a parked slot, whose buffer gets its full length back.
    #[inline(never)]
    fn result_of(&mut self, slot: u32, error: Option<Error>) -> i32 {
        let mut len_bytes = self.buffer_bytes;
        if !self.uniform {
            let buffer = self.parked.buffer(slot as usize);
            len_bytes = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            buffer.set_len_bytes(self.buffer_bytes as usize);
        }
        match error {
            None => i32::try_from(len_bytes).unwrap_or(i32::MAX),
            Some(error) => refusal(error),
        }
    }

    #[cold]
    fn take_flushes(&mut self, end: usize, events: &mut Vec<Event>) {
        let mut context = Context::from_waker(Waker::noop());
        let mut at = 0;
        while at < self.flushes.len() && events.len() < end {
            let (slot, flush) = &mut self.flushes[at];
            match Pin::new(flush).poll(&mut context) {
                Poll::Pending => at += 1,
                Poll::Ready(result) => {
                    let result = result.map_or_else(|failed| refusal(failed.error), |()| 0);
                    events.push(Event { slot: *slot, result });
                    drop(self.flushes.swap_remove(at));
                }
            }
        }
    }
}

/// What an error of a turn means to a job.
#[cold]
#[inline(never)]
fn broken(error: EngineError) -> io::Result<u32> {
    match error {
        // Busy loses nothing: the next turn tries again.
        EngineError::Busy => Ok(0),
        EngineError::Ring { errno } => Err(errno.into()),
        error => Err(io::Error::other(error)),
    }
}

/// The tag is the slot, so nothing is cut off.
#[allow(clippy::cast_possible_truncation, reason = "made of a u32")]
#[inline]
fn slot_of(tag: u64) -> u32 {
    tag as u32
}

/// The errno that stands for a failed range, negated.
#[cold]
fn refusal(error: Error) -> i32 {
    let known = match error.kind() {
        ErrorKind::UnexpectedEof => return 0,
        ErrorKind::NoSpace => Errno::ENOSPC,
        ErrorKind::Cancelled | ErrorKind::Aborted => Errno::ECANCELED,
        ErrorKind::Misaligned => Errno::EINVAL,
        ErrorKind::Unsupported => Errno::EOPNOTSUPP,
        _ => Errno::EIO,
    };
    -error.errno().unwrap_or(known as i32)
}
