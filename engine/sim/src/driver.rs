//! Sends packets and flushes, polls, turns and drops, and hands what comes back to the checker.
//!
//! Data flow: [`Driver`] → file of the shard → ring; completion queues and futures → [`Sent`] →
//! `packets`. Futures are polled only when they were woken, so a lost wake-up shows as an op
//! that never ends.
//!
//! Not here: which of these happens next (`life`).

use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};
use std::sync::Arc;
use std::task::Wake;

use mfio_core::{CompletionQueue, IoFut, Packet, PacketIo, PacketIoExt, Read, Write};
use mfio_engine::buffer::ArenaBuf;
use mfio_engine::ring::Wait;
use mfio_engine::ring::sim::{SimControl, SimRing};
use mfio_engine::{Class, Commit, Durability, Durable, EngineError, File, IoError, Shard, SyncFut};

use crate::chains::{Link, Linked};
use crate::history::Handle;
use crate::mailbox::Elsewhere;
use crate::model::Issued;
use crate::packets::{Kind, Knowledge, Sent};
use crate::stamp::{self, ZEROES};
use crate::world::World;

use self::batches::Batched;

mod batches;
mod end;
mod script;

type SimFile = File<SimRing>;

/// The most futures under way at a time.
const FUTURES_MAX: usize = 8;

/// Says that a future was woken.
#[derive(Debug, Default)]
pub(crate) struct Flag(pub(crate) AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A future under way.
enum Under<'a> {
    Read(IoFut<'a, SimFile, Read, ArenaBuf, u64>),
    Write(IoFut<'a, SimFile, Write, ArenaBuf, u64>),
    Durable(IoFut<'a, SimFile, Write, ArenaBuf, Durable>),
    Flush(SyncFut<SimRing>),
    Range(Pin<Box<dyn Future<Output = Result<(), IoError>> + 'a>>),
    Chain(Box<Commit<SimRing>>),
    TwinFlush(SyncFut<SimRing>),
}

struct Waiting<'a> {
    under: Under<'a>,
    sent: Sent,
    polled: bool,
    /// The engine had room for it when it was polled, so it has taken it over.
    accepted: bool,
    flag: Arc<Flag>,
    waker: Waker,
    /// Of a chain.
    steps: Vec<Linked>,
}

/// One shard with one file, everything under way on it, and the world it is held against.
pub(crate) struct Driver<'a> {
    pub(crate) world: &'a mut World,
    pub(crate) control: SimControl,
    pub(crate) knowledge: Knowledge,
    pub(crate) calm: bool,
    pub(crate) shard: &'a Shard<SimRing>,
    file: &'a SimFile,
    /// Another handle of the same file: what is poisoned is the file.
    twin: &'a SimFile,
    /// Where chains copy to, one at a time, so that it is known what must be there.
    copies: &'a SimFile,
    copying: bool,
    /// The same file, for each class of traffic.
    files: [SimFile; 3],
    batches: Vec<Batched>,
    reads: CompletionQueue<Read, ArenaBuf>,
    writes: CompletionQueue<Write, ArenaBuf>,
    /// What the tags of the completion queues stand for.
    sent: Vec<Option<Sent>>,
    free: Vec<usize>,
    futures: Vec<Waiting<'a>>,
    /// Flags of futures that are over, for the next ones.
    flags: Vec<(Arc<Flag>, Waker)>,
    /// Another thread, in some lives.
    pub(crate) elsewhere: Option<Elsewhere>,
}

impl<'a> Driver<'a> {
    pub(crate) fn new(
        world: &'a mut World,
        control: SimControl,
        shard: &'a Shard<SimRing>,
        [file, twin]: [&'a SimFile; 2],
        copies: &'a SimFile,
    ) -> Self {
        Self {
            world,
            control,
            knowledge: Knowledge::default(),
            calm: false,
            shard,
            file,
            twin,
            copies,
            copying: false,
            files: [Class::Log, Class::Foreground, Class::Background].map(|c| file.with_class(c)),
            batches: Batched::all(shard),
            reads: CompletionQueue::new(),
            writes: CompletionQueue::new(),
            sent: Vec::new(),
            free: Vec::new(),
            futures: Vec::with_capacity(FUTURES_MAX),
            flags: Vec::new(),
            elsewhere: None,
        }
    }

    pub(crate) fn under_way(&self) -> usize {
        let batched: usize = self.batches.iter().map(Batched::under_way).sum();
        let elsewhere = self.elsewhere.as_ref().map_or(0, Elsewhere::under_way);
        let queued = self.reads.in_flight() + self.writes.in_flight();
        queued + self.futures.len() + batched + elsewhere
    }

    pub(crate) fn futures(&self) -> usize {
        self.futures.len()
    }

    pub(crate) fn has_room_for_a_future(&self) -> bool {
        self.futures.len() < FUTURES_MAX
    }

    /// A buffer for `len` bytes; `None` when the arena has none at the moment.
    pub(crate) fn buffer(&self, len: usize) -> Option<ArenaBuf> {
        self.shard.arena().alloc(len)
    }

    /// Sends a packet through a completion queue.
    pub(crate) fn send(&mut self, kind: Kind, offset: usize, mut buffer: ArenaBuf) {
        let range = self.stamped(kind, offset, &mut buffer);
        let tag = self.free.pop().unwrap_or_else(|| {
            self.sent.push(None);
            self.sent.len() - 1
        });
        let at = offset as u64;
        let class = self.world.random.below(6) as usize;
        let handle = self.draw_handle();
        let file = match handle {
            Handle::First => self.files.get(class).unwrap_or(self.file),
            Handle::Twin => self.twin,
        };
        self.world.coverage.in_class += u64::from(file.class() != Class::Foreground);
        let accepted = match kind {
            Kind::Read => self.reads.send(file, at, Packet::new(buffer), tag as u64).is_ok(),
            Kind::Durable => {
                let at = Durable(at);
                self.writes.send(file, at, Packet::new(buffer), tag as u64).is_ok()
            }
            _ => self.writes.send(file, at, Packet::new(buffer), tag as u64).is_ok(),
        };
        if accepted {
            self.sent[tag] = Some(self.issue(kind, range));
            if kind != Kind::Read {
                self.world.model.accept_write_through(range, handle);
            }
        } else {
            self.world.coverage.refused += 1;
            self.free.push(tag);
        }
    }

    /// Makes a future of a packet; it is sent when it is first polled.
    pub(crate) fn make_future(&mut self, kind: Kind, offset: usize, mut buffer: ArenaBuf) {
        let range = self.stamped(kind, offset, &mut buffer);
        let at = offset as u64;
        let under = match kind {
            Kind::Read => Under::Read(self.file.io(at, Packet::new(buffer))),
            Kind::Durable => {
                let at = Durable(at);
                Under::Durable(self.file.io(at, Packet::new(buffer)))
            }
            _ => Under::Write(self.file.io(at, Packet::new(buffer))),
        };
        self.wait_for(under, Sent { kind, issued: 0, range, calm: false });
    }

    /// Asks for a flush, which is on its way from now on.
    pub(crate) fn make_flush(&mut self) {
        let range = Issued { sequence: 0, offset: 0, len: 0 };
        let sent = self.issue(Kind::Flush, range);
        let durability = self.world.random.pick(&[Durability::Data, Durability::Full]);
        let under = match self.draw_handle() {
            Handle::First => Under::Flush(self.file.sync(durability)),
            Handle::Twin => Under::TwinFlush(self.twin.sync(durability)),
        };
        self.wait_for(under, sent);
    }

    /// Which handle of the file something goes through.
    fn draw_handle(&mut self) -> Handle {
        let drawn = self.world.random.below(256) < self.world.scenario.weights.twin;
        self.world.coverage.through_twin += u64::from(drawn);
        if drawn { Handle::Twin } else { Handle::First }
    }

    /// Makes a future that zeroes a range.
    pub(crate) fn make_zeros(&mut self, offset: usize, len: usize) {
        let sequence = self.world.model.next_sequence() | ZEROES;
        let (at, bytes) = (offset as u64, len as u64);
        let size = self.world.model.size_bytes();
        let mut range = Issued { sequence, offset, len };
        let file = self.file;
        let under: Pin<Box<dyn Future<Output = _>>> = match self.world.random.below(4) {
            0 => Box::pin(file.discard(at, bytes)),
            1 => Box::pin(file.punch_hole(at, bytes)),
            2 if offset < size => {
                // A simulated file keeps its size, and what is cut off comes back as zeros.
                range.len = size - offset;
                Box::pin(file.set_len(at))
            }
            _ => Box::pin(file.write_zeroes(at, bytes)),
        };
        self.wait_for(
            Under::Range(under),
            Sent { kind: Kind::Zero, issued: 0, range, calm: false },
        );
    }

    /// Whether no chain that copies is, or may be, under way.
    pub(crate) fn may_copy(&self) -> bool {
        !self.copying
    }

    /// Makes a future of a chain.
    pub(crate) fn make_chain(&mut self, steps: Vec<(Link, usize, Option<ArenaBuf>)>) {
        let (mut chain, mut linked) = (self.file.chain(), Vec::new());
        for (link, offset, buffer) in steps {
            let mut range = Issued { sequence: 0, offset, len: 0 };
            let at = offset as u64;
            chain = match (link, buffer) {
                (Link::Read, Some(buffer)) => {
                    range.len = buffer.len();
                    chain.read_at(at, buffer)
                }
                (Link::Write, Some(mut buffer)) => {
                    range = self.stamped(Kind::Write, offset, &mut buffer);
                    chain.write_at(at, buffer)
                }
                (Link::Copy, _) => {
                    self.copying = true;
                    chain.on(self.copies).write_from_previous(at).on(self.file)
                }
                _ => {
                    let level = self.world.random.pick(&[Durability::Data, Durability::Full]);
                    chain.sync(level)
                }
            };
            linked.push(Linked { link, range });
        }
        let range = Issued { sequence: 0, offset: 0, len: 0 };
        let sent = Sent { kind: Kind::Chain, issued: 0, range, calm: false };
        self.wait_for(Under::Chain(Box::new(chain.commit())), sent);
        if let Some(waiting) = self.futures.last_mut() {
            waiting.steps = linked;
        }
    }

    fn wait_for(&mut self, under: Under<'a>, sent: Sent) {
        let (flag, waker) = self.flags.pop().unwrap_or_else(|| {
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(Arc::clone(&flag));
            (flag, waker)
        });
        flag.0.store(true, Ordering::Relaxed);
        let polled = sent.kind == Kind::Flush;
        let (accepted, steps) = (polled, Vec::new());
        self.futures.push(Waiting { under, sent, polled, accepted, flag, waker, steps });
    }

    /// Gives a write its number and its bytes.
    fn stamped(&mut self, kind: Kind, offset: usize, buffer: &mut ArenaBuf) -> Issued {
        let len = buffer.len();
        if kind == Kind::Read {
            return Issued { sequence: 0, offset, len };
        }
        let sequence = self.world.model.next_sequence();
        stamp::fill(buffer, sequence, offset);
        Issued { sequence, offset, len }
    }

    /// Tells the model that something is in the engine's hands now.
    pub(crate) fn issue(&mut self, kind: Kind, range: Issued) -> Sent {
        self.world.coverage.ops += 1;
        let issued = match kind {
            Kind::Read => self.world.model.issue_read(),
            Kind::Flush => self.world.model.tick(),
            Kind::Write | Kind::Durable | Kind::Zero => self.world.model.issue_write(range),
            Kind::Chain => 0,
        };
        Sent { kind, issued, range, calm: self.calm }
    }

    /// One turn of the shard, and whatever it brings.
    pub(crate) fn turn(&mut self, wait: Wait) {
        if wait.min > 0 && self.waits_elsewhere() {
            self.park();
        } else if let Err(error) = self.shard.turn(wait)
            && !matches!(error, EngineError::Busy)
        {
            self.world.violate(format!("a turn failed: {error}"));
        }
        self.audit();
        self.collect();
        if self.control.has_complaints()
            && let Some(first) = self.control.complaints().first()
        {
            self.world.violate(format!("the kernel complains: {first}"));
        }
        let (ours, theirs) = (self.shard.in_flight() as usize, self.control.in_flight());
        if ours != theirs {
            self.world.violate(format!("the shard counts {ours} ops in flight, the ring {theirs}"));
        }
        if self.shard.is_idle() {
            self.idle();
        }
    }

    /// Between turns, the books of the shard balance; where it decides as usual, nothing waits
    /// that could start.
    fn audit(&mut self) {
        let strict = self.calm || self.world.scenario.ring.knobs == 0;
        self.world.coverage.audits += 1;
        self.world.coverage.strict_audits += u64::from(strict);
        let found = self.shard.audit(strict);
        self.world.require("between turns", found);
    }

    /// Takes completed packets and polls futures that were woken.
    pub(crate) fn collect(&mut self) {
        self.collect_batches();
        self.collect_elsewhere();
        while let Some((tag, done)) = self.reads.pop() {
            if let Some(sent) = self.take_tag(tag) {
                self.world.read_done(sent, done);
            }
        }
        while let Some((tag, done)) = self.writes.pop() {
            if let Some(sent) = self.take_tag(tag) {
                self.world.write_done(sent, &done, &mut self.knowledge);
            }
        }
        let mut at = 0;
        while at < self.futures.len() {
            let woken = self.futures[at].flag.0.swap(false, Ordering::Relaxed);
            if !woken || !self.poll(at) {
                at += 1;
            }
        }
    }

    fn take_tag(&mut self, tag: u64) -> Option<Sent> {
        let at = usize::try_from(tag).unwrap_or(usize::MAX);
        let sent = self.sent.get_mut(at).and_then(Option::take);
        if sent.is_some() {
            self.free.push(at);
        } else {
            self.world.violate(format!("packet {tag} completed twice"));
        }
        sent
    }

    /// Polls one future; true if it is over, and another one in its place.
    fn poll(&mut self, at: usize) -> bool {
        if !self.futures[at].polled {
            let Sent { kind, range, .. } = self.futures[at].sent;
            self.futures[at].sent = self.issue(kind, range);
            if kind == Kind::Chain {
                let steps = &self.futures[at].steps;
                self.futures[at].sent.issued = self.world.issue_chain(steps);
            }
            self.futures[at].polled = true;
        }
        let Self { world, futures, knowledge, file, .. } = self;
        let waiting = &mut futures[at];
        let sent = waiting.sent;
        if !waiting.accepted {
            let mut nobody = Context::from_waker(Waker::noop());
            waiting.accepted = PacketIo::<Read, u64>::poll_ready(*file, &mut nobody).is_ready();
            if waiting.accepted && sent.kind == Kind::Chain {
                world.accept_chain(&waiting.steps);
            } else if waiting.accepted && sent.kind == Kind::Zero && world.writes_zeros() {
                // The writes that take its place come later, and count when they are over.
            } else if waiting.accepted && sent.kind != Kind::Read {
                world.model.accept_write(sent.range);
            }
        }
        let mut context = Context::from_waker(&waiting.waker);
        match &mut waiting.under {
            Under::Read(future) => match Pin::new(future).poll(&mut context) {
                Poll::Ready(done) => world.read_done(sent, done),
                Poll::Pending => return false,
            },
            Under::Write(future) => match Pin::new(future).poll(&mut context) {
                Poll::Ready(done) => world.write_done(sent, &done, knowledge),
                Poll::Pending => return false,
            },
            Under::Durable(future) => match Pin::new(future).poll(&mut context) {
                Poll::Ready(done) => world.write_done(sent, &done, knowledge),
                Poll::Pending => return false,
            },
            Under::Flush(future) => match Pin::new(future).poll(&mut context) {
                Poll::Ready(result) => {
                    let result = result.map_err(|error| error.error.kind());
                    world.flush_done(sent, Handle::First, result, knowledge);
                }
                Poll::Pending => return false,
            },
            Under::TwinFlush(future) => match Pin::new(future).poll(&mut context) {
                Poll::Ready(result) => {
                    let result = result.map_err(|error| error.error.kind());
                    world.flush_done(sent, Handle::Twin, result, knowledge);
                }
                Poll::Pending => return false,
            },
            Under::Range(future) => match future.as_mut().poll(&mut context) {
                Poll::Ready(result) => {
                    world.range_done(sent, result.map_err(|error| error.error), knowledge);
                }
                Poll::Pending => return false,
            },
            Under::Chain(future) => match Pin::new(future).poll(&mut context) {
                Poll::Ready((result, buffers)) => {
                    world.chain_done(sent, &waiting.steps, result, buffers, knowledge);
                }
                Poll::Pending => return false,
            },
        }
        let over = self.futures.swap_remove(at);
        // One that was dropped is over when nothing is under way.
        self.copying &= !over.steps.iter().any(|step| step.link == Link::Copy);
        self.flags.push((over.flag, over.waker));
        true
    }

    /// Drops a future, whatever it waits for.
    pub(crate) fn drop_future(&mut self, at: usize) {
        let Waiting { under, sent, polled, steps, .. } = self.futures.swap_remove(at);
        drop(under);
        if !polled {
            self.world.coverage.dropped_unpolled += 1;
            return;
        }
        self.world.coverage.dropped_in_flight += 1;
        if sent.kind == Kind::Chain {
            return self.world.forget_chain(sent, &steps);
        }
        self.forget(sent);
    }

    /// Nobody waits for `sent` any more; the engine may still be at it.
    fn forget(&mut self, sent: Sent) {
        match sent.kind {
            Kind::Read => self.world.model.end_read(sent.issued),
            Kind::Write | Kind::Durable | Kind::Zero => {
                self.world.model.abandon_write(sent.range);
            }
            Kind::Flush | Kind::Chain => {}
        }
    }
}
