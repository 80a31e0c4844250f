//! The state of an open log: which block is open, which are in flight, what is durable.
//!
//! Data flow: record → open block → sealed → in flight → whole and flushed → durable, strictly
//! in the order of the records, whichever block is through first. No timer: the open block
//! grows as long as those in flight take.
//!
//! Not here: sending and waiting, which need the state not to be borrowed (`shared`).

use std::collections::VecDeque;
use std::task::Waker;

use mfio_core::{Completed, Packet, Write};

use super::config::WalConfig;
use super::error::WalError;
use super::format::{Composer, Lsn, Seal, SegmentHeader, SegmentId, SegmentState};
use super::sync::Syncing;
use super::waiters::{WaiterId, Waiters};
use crate::buffer::ArenaBuf;
use crate::ring::Ring;
use crate::shard::File;

/// A packet over the bytes of one block.
pub(super) type BlockPacket = Packet<Write, ArenaBuf>;

/// A segment in use.
#[derive(Debug)]
pub(super) struct Segment<R: Ring> {
    pub(super) file: File<R>,
    pub(super) id: SegmentId,
    pub(super) first_lsn: Lsn,
}

/// The segment that blocks go to.
#[derive(Debug)]
pub(super) struct Tail<R: Ring> {
    pub(super) segment: Segment<R>,
    /// Where the next block goes; 0 when the header is yet to be written.
    pub(super) end_bytes: u64,
    pub(super) len_bytes: u64,
    pub(super) align_bytes: u32,
}

/// A segment that nothing of the log is in, with the salt of its next use.
#[derive(Debug)]
pub(super) struct Ready<R: Ring> {
    pub(super) file: File<R>,
    pub(super) salt: u64,
}

/// The block that records go to.
#[derive(Debug)]
struct Open {
    packet: BlockPacket,
    composer: Composer,
    capacity: usize,
    offset_bytes: u64,
    first_lsn: Lsn,
}

/// A sealed block.
#[derive(Debug)]
struct InFlight<R: Ring> {
    number: u64,
    file: File<R>,
    offset_bytes: u64,
    last_lsn: Lsn,
    durable: bool,
}

/// Whether there can be another segment.
#[derive(Debug)]
pub(super) enum Growth {
    /// Nothing is being made.
    Idle,
    /// One is being made.
    Running,
    /// The last attempt failed; the next append that needs one starts another.
    Failed(WalError),
    /// Never.
    Impossible,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(super) enum Blocked {
    /// There will be room: wait for it.
    Room,
    /// There will not.
    Error(WalError),
}

/// See the module's page.
#[derive(Debug)]
pub(super) struct State<R: Ring> {
    pub(super) config: WalConfig,
    pub(super) log_id: u64,
    pub(super) next_sequence: u64,
    /// The oldest segment that is not retired.
    pub(super) start_sequence: u64,
    pub(super) next_lsn: Lsn,
    pub(super) durable_lsn: Lsn,
    pub(super) previous_crc: u32,
    /// Segments before the tail, the oldest first.
    pub(super) live: VecDeque<Segment<R>>,
    pub(super) tail: Option<Tail<R>>,
    pub(super) ready: Vec<Ready<R>>,
    pub(super) growth: Growth,
    /// An append waits for a segment.
    needs_segment: bool,
    open: Option<Open>,
    in_flight: VecDeque<InFlight<R>>,
    /// Sealed and not yet taken by the shard, the oldest first.
    outgoing: VecDeque<(u64, BlockPacket)>,
    pub(super) spare: Vec<BlockPacket>,
    next_block: u64,
    /// Records of the block sealed last.
    last_records: u32,
    pub(super) failed: Option<WalError>,
    pub(super) waiters: Waiters,
    /// Who reaps, seals and sends for all.
    pub(super) leader: Option<WaiterId>,
    /// The leader has been woken to seal.
    pub(super) seal_is_due: bool,
    /// To be called when the state is not borrowed.
    pub(super) wake: Vec<Waker>,
    pub(super) blocks: u64,
    sync: Syncing,
}

impl<R: Ring> State<R> {
    pub(super) fn new(config: WalConfig, log_id: u64) -> Self {
        let most = config.in_flight_max as usize + 1;
        Self {
            config,
            log_id,
            next_sequence: 1,
            start_sequence: 1,
            next_lsn: Lsn::FIRST,
            durable_lsn: Lsn(0),
            previous_crc: 0,
            live: VecDeque::new(),
            tail: None,
            ready: Vec::new(),
            growth: Growth::Idle,
            needs_segment: false,
            open: None,
            in_flight: VecDeque::with_capacity(most),
            outgoing: VecDeque::with_capacity(most),
            spare: Vec::with_capacity(most),
            next_block: 0,
            last_records: 0,
            failed: None,
            waiters: Waiters::new(),
            leader: None,
            seal_is_due: false,
            wake: Vec::new(),
            blocks: 0,
            sync: Syncing::default(),
        }
    }

    /// Finds out how blocks become durable, for the segment in use and all later ones.
    pub(super) async fn choose_sync_method(&mut self) {
        let tail = self.tail.as_ref().map(|tail| tail.segment.file.clone());
        let file = tail.or_else(|| self.ready.first().map(|ready| ready.file.clone()));
        let Some(file) = file else { return };
        self.sync = Syncing::choose(self.config.sync_method, &file).await;
        self.sync.apply(&file);
    }

    /// Blocks may be sealed, as far as their number goes.
    fn may_seal(&self) -> bool {
        self.in_flight.len() < self.config.in_flight_max as usize
    }

    /// Whether whoever waits alone is likely to stay alone.
    pub(super) fn is_solo(&self) -> bool {
        self.waiters.len() <= 1 && self.last_records <= 1
    }

    /// Puts a record into the open block, unless others have waited longer for room. `waiter`
    /// is who has been waiting for it.
    pub(super) fn push(&mut self, record: &[u8], waiter: Option<WaiterId>) -> Result<Lsn, Blocked> {
        if let Some(error) = &self.failed {
            return Err(Blocked::Error(error.clone()));
        }
        if !self.waiters.is_next(waiter) {
            return Err(Blocked::Room);
        }
        let waited = waiter.is_some();
        if let Some(open) = &self.open
            && !open.composer.fits(record.len(), open.capacity)
        {
            if !self.may_seal() {
                return Err(Blocked::Room);
            }
            self.seal();
        }
        if self.open.is_none() {
            self.open_block(record.len(), waited)?;
        }
        let open = self.open.as_mut().expect("opened just now if there was none");
        let lsn = self.next_lsn;
        open.composer.push(open.packet.buffer_mut(), lsn, record);
        self.next_lsn = lsn.next();
        Ok(lsn)
    }

    /// Opens a block with room for a record of `len` bytes, in the next segment if need be.
    fn open_block(&mut self, len: usize, waited: bool) -> Result<(), Blocked> {
        if self.spare.is_empty() {
            return Err(Blocked::Room);
        }
        let mut place = self.tail.as_ref().map(|tail| self.place(tail));
        if place.is_none_or(|(composer, capacity, _)| !composer.fits(len, capacity)) {
            self.begin_segment(waited)?;
            place = self.tail.as_ref().map(|tail| self.place(tail));
        }
        let (composer, capacity, offset_bytes) = place.expect("a segment was begun");
        let mut packet = self.spare.pop().expect("seen above");
        packet.buffer_mut().set_len_bytes(capacity);
        let first_lsn = self.next_lsn;
        self.open = Some(Open { packet, composer, capacity, offset_bytes, first_lsn });
        Ok(())
    }

    /// What a block behind all others in `tail` would be: empty, how long at most, and where.
    fn place(&self, tail: &Tail<R>) -> (Composer, usize, u64) {
        // The header of a segment travels with its first block.
        let start = if tail.end_bytes == 0 { tail.align_bytes as usize } else { 0 };
        let left = tail.len_bytes - tail.end_bytes;
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let capacity = left.min(self.config.block_bytes_max as usize);
        let capacity = capacity - capacity % tail.align_bytes as usize;
        (Composer::new(start, self.config.record_align), capacity, tail.end_bytes)
    }

    fn begin_segment(&mut self, waited: bool) -> Result<(), Blocked> {
        let Some(Ready { file, salt }) = self.ready.pop() else {
            return Err(self.no_segment(waited));
        };
        self.needs_segment = false;
        let id = SegmentId { log_id: self.log_id, sequence: self.next_sequence, salt };
        self.next_sequence += 1;
        self.sync.apply(&file);
        let len_bytes = file.geometry().len_bytes;
        let segment = Segment { file, id, first_lsn: self.next_lsn };
        let align_bytes = self.config.block_align_bytes;
        let tail = Tail { segment, end_bytes: 0, len_bytes, align_bytes };
        let before = self.tail.replace(tail);
        self.live.extend(before.map(|tail| tail.segment));
        Ok(())
    }

    #[cold]
    fn no_segment(&mut self, waited: bool) -> Blocked {
        match &self.growth {
            Growth::Impossible => return Blocked::Error(WalError::Full),
            Growth::Failed(error) if waited => {
                return Blocked::Error(WalError::Grow(Box::new(error.clone())));
            }
            Growth::Failed(_) => self.growth = Growth::Idle,
            Growth::Idle | Growth::Running => {}
        }
        self.needs_segment = true;
        Blocked::Room
    }

    /// Whether another segment is to be made now.
    pub(super) fn wants_segment(&self) -> bool {
        let wanted = (self.config.segments_ready as usize).max(usize::from(self.needs_segment));
        self.ready.len() < wanted && matches!(self.growth, Growth::Idle)
    }

    /// What making a segment came to.
    pub(super) fn grown(&mut self, made: Result<Ready<R>, WalError>) {
        match made {
            Ok(ready) => {
                self.growth = Growth::Idle;
                self.ready.push(ready);
            }
            Err(error) => self.growth = Growth::Failed(error),
        }
        self.wake_for_room();
    }

    /// Whoever waits for room may try again.
    pub(super) fn wake_for_room(&mut self) {
        self.waiters.take_room(self.config.block_bytes_max as usize, &mut self.wake);
    }

    /// Whether it is time to seal the open block: at once where nothing is in flight; else when
    /// it holds its share of what is not durable, so that blocks in flight are of a size.
    pub(super) fn should_seal(&self) -> bool {
        let Some(open) = &self.open else { return false };
        if !self.may_seal() || self.failed.is_some() {
            return false;
        }
        let outstanding = self.next_lsn.0 - self.durable_lsn.next().0;
        let share = u64::from(open.composer.records()) * u64::from(self.config.in_flight_max);
        self.in_flight.is_empty() || share >= outstanding
    }

    /// Whether sealing is put off until those that are about to be woken have been polled.
    pub(super) fn defers_seal(&mut self) -> bool {
        let defers = !self.wake.is_empty() && self.should_seal();
        self.seal_is_due |= defers;
        defers
    }

    /// Seals the open block if it is time.
    pub(super) fn pump(&mut self) -> bool {
        let due = self.should_seal();
        if due {
            self.seal();
        }
        due
    }

    /// Completes the open block and queues it for sending.
    fn seal(&mut self) {
        let (Some(mut open), Some(tail)) = (self.open.take(), self.tail.as_mut()) else { return };
        let Segment { id, first_lsn, .. } = tail.segment;
        let buffer = open.packet.buffer_mut();
        if open.offset_bytes == 0 {
            let header = SegmentHeader {
                state: SegmentState::Live,
                id,
                start_sequence: self.start_sequence,
                first_lsn,
                durable_lsn: self.durable_lsn,
                previous_crc: self.previous_crc,
                align_bytes: tail.align_bytes,
                block_bytes_max: self.config.block_bytes_max,
                in_flight_max: self.config.in_flight_max,
            };
            buffer[..tail.align_bytes as usize].fill(0);
            header.write(buffer);
        }
        let seal = Seal {
            id,
            first_lsn: open.first_lsn,
            durable_lsn: self.durable_lsn,
            previous_crc: self.previous_crc,
            align_bytes: tail.align_bytes as usize,
        };
        let (bytes, crc) = open.composer.seal(buffer, &seal);
        buffer.set_len_bytes(bytes);
        self.previous_crc = crc;
        tail.end_bytes += bytes as u64;
        self.last_records = open.composer.records();
        let number = self.next_block;
        self.next_block += 1;
        self.blocks += 1;
        self.in_flight.push_back(InFlight {
            number,
            file: tail.segment.file.clone(),
            offset_bytes: open.offset_bytes,
            last_lsn: self.next_lsn.previous(),
            durable: false,
        });
        self.outgoing.push_back((number, open.packet));
        if !self.spare.is_empty() {
            self.wake_for_room();
        }
    }

    fn find(&mut self, number: u64) -> Option<&mut InFlight<R>> {
        let first = self.in_flight.front()?.number;
        let at = usize::try_from(number.checked_sub(first)?).ok()?;
        self.in_flight.get_mut(at)
    }

    /// The next block to send: its number, where it goes, and the packet.
    pub(super) fn take_outgoing(&mut self) -> Option<(u64, File<R>, u64, BlockPacket)> {
        let (number, packet) = self.outgoing.pop_front()?;
        let block = self.find(number).expect("a sealed block is in flight until it is durable");
        let (file, offset_bytes) = (block.file.clone(), block.offset_bytes);
        Some((number, file, offset_bytes, packet))
    }

    /// The shard had no room for it.
    pub(super) fn put_back(&mut self, number: u64, packet: BlockPacket) {
        self.outgoing.push_front((number, packet));
    }

    /// The segment of the next block to send.
    pub(super) fn outgoing_file(&mut self) -> Option<File<R>> {
        let number = self.outgoing.front()?.0;
        self.find(number).map(|block| block.file.clone())
    }

    /// A block has come back. What is durable now reaches up to the first that has not.
    pub(super) fn completed(&mut self, number: u64, done: Completed<Write, ArenaBuf>) {
        let result = done.result();
        let done_bytes = if result.is_ok() { 0 } else { done.contiguous_bytes() };
        let mut packet = done.into_packet();
        let block = self.find(number).expect("a sealed block is in flight until it is durable");
        match result {
            Ok(()) => block.durable = true,
            Err(error) => {
                let file = block.file.clone();
                let (at, len_bytes) = (block.offset_bytes, packet.buffer_mut().len() as u64);
                let first = file.io_error("durable write", at, len_bytes, done_bytes, error);
                self.poison(first);
            }
        }
        self.spare.push(packet);
        while self.in_flight.front().is_some_and(|block| block.durable)
            && let Some(block) = self.in_flight.pop_front()
        {
            // After a failure nothing more is acknowledged, though it may well be there.
            if self.failed.is_none() {
                self.durable_lsn = block.last_lsn;
            }
        }
        if self.failed.is_none() {
            self.waiters.take_durable(self.durable_lsn, &mut self.wake);
        }
        self.wake_for_room();
    }

    /// The first failure is the last thing that happens to a log.
    #[cold]
    fn poison(&mut self, first: crate::error::IoError) {
        if self.failed.is_none() {
            let (first, durable_lsn) = (Box::new(first), self.durable_lsn);
            self.failed = Some(WalError::Poisoned { first, durable_lsn });
            self.open = None;
        }
        self.waiters.take_all(&mut self.wake);
    }

    /// What has become of a record.
    pub(super) fn outcome(&self, lsn: Lsn) -> Option<Result<(), WalError>> {
        if lsn <= self.durable_lsn {
            return Some(Ok(()));
        }
        self.failed.clone().map(Err)
    }

    /// A waiter leaves. Somebody else leads, if it did, and is woken for it. Its waker is handed
    /// out, to be dropped when nothing is borrowed.
    pub(super) fn leave(&mut self, id: WaiterId) -> Option<Waker> {
        let waker = self.waiters.remove(id);
        if self.leader == Some(id) {
            self.leader = None;
            // Whoever leads next has not been woken for it.
            self.seal_is_due = false;
        }
        // It may have been woken to use room that somebody else can use.
        self.wake_for_room();
        if self.leader.is_none()
            && let Some(next) = self.waiters.oldest()
        {
            self.waiters.take(next, &mut self.wake);
        }
        waker
    }
}
