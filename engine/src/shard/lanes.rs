//! What a shard remembers of its sockets: the packets of each direction in order, and which ops
//! are in the ring.
//!
//! A lane has one op in the ring at most: what is sent next goes when it is known how far the
//! last one got, so that no byte overtakes another (R11). The memory of that op, with the packet
//! it belongs to, stays here until its own completion (F01, R5); the descriptor stays open as
//! long. The tags of sockets lie behind those of the slot table.
//!
//! Data flow: view → [`Entry`] → [`Flight`] → completion → the rest of the entry, or the next.
//!
//! Not here: starting and judging ops (`socket`).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::Waker;

use mfio_core::{Error, Gone, Lent, PacketId, Perms, Read, View, Write};
use nix::errno::Errno;
use socket2::Socket as Descriptor;

use super::body::{contained, copy_out};
use super::direction::Direction;
use crate::buffer::{MemRange, quarantine};
use crate::ring::{SOCKET_SLOTS_FROM, SocketKind, Tag};

/// The most packets that wait in one direction of a connection.
const WAITING_MAX: usize = 64;
/// Sockets that there are tags for, with `Tag::INTERNAL` left out.
const SOCKETS_MAX: u32 = (1 << 29) - 1;
/// Bytes that one op moves at most: others are to get a turn.
const OP_BYTES_MAX: u64 = 1 << 20;
/// Connections that are taken before anybody asks for them.
pub(super) const TAKEN_MAX: usize = 64;
/// How often in a row the kernel may say that it would have to wait, although it is to.
pub(super) const REFUSALS_MAX: u8 = 8;
/// Bytes that are copied at a time where a packet lends none.
const PIECE_BYTES: u64 = 64 << 10;

/// Which op of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
    Watch,
}

/// Names a socket of a shard, for as long as its handle lives and any op of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketId {
    at: u32,
    generation: u32,
}

impl SocketId {
    pub(super) const fn tag(self, way: Way) -> Tag {
        Tag { slot: SOCKET_SLOTS_FROM + self.at * 4 + way as u32, generation: self.generation }
    }

    const fn of(tag: Tag) -> (Self, Way) {
        let place = tag.slot - SOCKET_SLOTS_FROM;
        let way = match place % 4 {
            0 => Way::Read,
            1 => Way::Write,
            _ => Way::Watch,
        };
        (Self { at: place / 4, generation: tag.generation }, way)
    }
}

/// A packet that waits for its turn, or for more of it.
pub(super) struct Entry<D: Perms> {
    pub(super) view: View<D>,
    /// It ends when all of it is there.
    pub(super) whole: bool,
    /// Some of its packet is through.
    pub(super) started: bool,
    /// Its first bytes, where they were copied for an op that did not send them: whoever had
    /// them may have gone since.
    pub(super) unsent: Vec<u8>,
    /// It has not taken what was received for it.
    pub(super) spoilt: bool,
}

/// The bytes that an op moves: the packet's own, or a copy where it lends none.
enum Bytes<D: Perms> {
    Lent(Lent<D>),
    Copied(View<D>, Vec<u8>),
}

/// Whether an op is to be stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    #[default]
    No,
    /// The ring has had no room to be asked.
    Wanted,
    Asked,
}

/// What an op in the ring has of a packet.
pub(super) struct Flight<D: Perms> {
    bytes: Bytes<D>,
    pub(super) whole: bool,
    pub(super) started: bool,
    /// Nobody waits for the packet any more.
    pub(super) abandoned: bool,
    pub(super) stop: Stop,
}

impl<D: Lanes> Flight<D> {
    /// What the ring is to move next of `entry`; the packet, where its bytes have gone.
    pub(super) fn prepare(entry: Entry<D>) -> Result<(Self, MemRange), View<D>> {
        let Entry { view, whole, started, unsent, spoilt: _ } = entry;
        let (bytes, memory) = match view.try_alloc(1) {
            Ok(lent) => {
                let memory = memory(lent.as_ptr(), lent.len().min(OP_BYTES_MAX));
                (Bytes::Lent(lent), memory)
            }
            Err(view) => {
                let mut piece = unsent;
                if piece.is_empty() {
                    let len = view.len().min(PIECE_BYTES);
                    piece.resize(usize::try_from(len).expect("a piece is short"), 0);
                    let Ok(()) = D::copy_out(&view, &mut piece) else { return Err(view) };
                }
                // Where its bytes lie does not change when the vector is moved.
                let memory = memory(piece.as_mut_ptr(), piece.len() as u64);
                (Bytes::Copied(view, piece), memory)
            }
        };
        let flight = Self { bytes, whole, started, abandoned: false, stop: Stop::No };
        Ok((flight, memory))
    }

    pub(super) fn packet_id(&self) -> PacketId {
        match &self.bytes {
            Bytes::Lent(lent) => lent.packet_id(),
            Bytes::Copied(view, _) => view.packet_id(),
        }
    }

    /// The most that the op can have moved.
    fn most(&self) -> u64 {
        match &self.bytes {
            Bytes::Lent(lent) => lent.len().min(OP_BYTES_MAX),
            Bytes::Copied(_, piece) => piece.len() as u64,
        }
    }

    /// How many bytes `result` says have been moved; `None` for an errno, and for more than
    /// there can be.
    pub(super) fn moved(&self, result: i32) -> Option<u64> {
        u64::try_from(result).ok().filter(|moved| *moved <= self.most())
    }

    /// What was taken of the lane, with the first `moved` bytes in it.
    pub(super) fn land(self, moved: u64) -> Entry<D> {
        let Self { bytes, whole, started, .. } = self;
        let (view, unsent, spoilt) = match bytes {
            Bytes::Lent(lent) => (lent.into_view(), Vec::new(), false),
            Bytes::Copied(mut view, mut piece) => {
                let moved = usize::try_from(moved).unwrap_or(0).min(piece.len());
                let taken = moved == 0 || D::copy_in(&mut view, &piece[..moved]);
                piece.drain(..moved);
                (view, if D::IS_READ { Vec::new() } else { piece }, !taken)
            }
        };
        Entry { view, whole, started, unsent, spoilt }
    }

    /// The first `moved` bytes, which are nobody's, and the packet that they were meant for.
    pub(super) fn salvage(self, moved: u64) -> (Vec<u8>, View<D>) {
        let moved = usize::try_from(moved).unwrap_or(0);
        match self.bytes {
            Bytes::Lent(mut lent) => (D::received(&mut lent, moved), lent.into_view()),
            Bytes::Copied(view, mut piece) => {
                piece.truncate(moved);
                (piece, view)
            }
        }
    }
}

fn memory(at: *mut u8, len: u64) -> MemRange {
    let len = u32::try_from(len).expect("an op is short");
    MemRange::of_raw(at, len, None).expect("an op is neither empty nor too long")
}

/// One direction of a connection.
pub(super) struct Lane<D: Perms> {
    pub(super) entries: VecDeque<Entry<D>>,
    pub(super) flight: Option<Flight<D>>,
    pub(super) reserved: usize,
    /// Who waits for room, or for the lane to be idle.
    pub(super) waiting: Vec<Waker>,
    /// What everything fails with from now on.
    pub(super) error: Option<Error>,
    /// In the backlog until the ring has room.
    pub(super) queued: bool,
    /// What came for packets that nobody waited for any more: it is for the next.
    pub(super) kept: VecDeque<u8>,
    /// How often in a row the kernel would not wait.
    pub(super) refusals: u8,
}

impl<D: Perms> Default for Lane<D> {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            flight: None,
            reserved: 0,
            waiting: Vec::new(),
            error: None,
            queued: false,
            kept: VecDeque::new(),
            refusals: 0,
        }
    }
}

impl<D: Perms> Lane<D> {
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() + self.reserved < WAITING_MAX
    }

    /// Promises room for `views` packets, or not.
    pub(super) fn reserve(&mut self, views: usize) -> bool {
        let wanted = self.reserved.saturating_add(views);
        let fits = self.entries.len().saturating_add(wanted) <= WAITING_MAX;
        if fits {
            self.reserved = wanted;
        }
        fits
    }

    /// Whether some of `packet` is through, as far as the rest of it waits here.
    pub(super) fn has_begun(&self, packet: PacketId) -> bool
    where
        D: Lanes,
    {
        let of_it = |entry: &Entry<D>| entry.started && entry.view.packet_id() == packet;
        let flies = |flight: &Flight<D>| flight.started && flight.packet_id() == packet;
        self.flight.as_ref().is_some_and(flies) || self.entries.iter().any(of_it)
    }

    /// Some of `packet` is through: what else waits of it is to follow.
    pub(super) fn begin(&mut self, packet: PacketId) {
        let rest = self.entries.iter_mut().filter(|entry| entry.view.packet_id() == packet);
        rest.for_each(|entry| entry.started = true);
    }

    /// Takes out a view of `packet`, until there is none.
    pub(super) fn take_out(&mut self, packet: PacketId) -> Option<View<D>> {
        let at = self.entries.iter().position(|entry| entry.view.packet_id() == packet)?;
        self.entries.remove(at).map(|entry| entry.view)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.flight.is_none()
    }
}

/// A direction, and where its lane is.
pub(super) trait Lanes: Direction {
    const WAY: Way;
    fn lane(socket: &mut Socket) -> &mut Lane<Self>
    where
        Self: Sized;
    fn op(memory: MemRange) -> SocketKind;
    /// Takes what is to be sent out of a packet.
    fn copy_out(view: &View<Self>, to: &mut [u8]) -> Result<(), Gone>
    where
        Self: Sized;
    /// Puts what was received into a packet; false where it does not take it.
    fn copy_in(view: &mut View<Self>, from: &[u8]) -> bool
    where
        Self: Sized;
    /// The first bytes of what was received in place.
    fn received(lent: &mut Lent<Self>, bytes: usize) -> Vec<u8>
    where
        Self: Sized;
}

impl Lanes for Read {
    const WAY: Way = Way::Read;

    fn lane(socket: &mut Socket) -> &mut Lane<Self> {
        &mut socket.reads
    }

    fn op(memory: MemRange) -> SocketKind {
        SocketKind::Receive(memory)
    }

    fn copy_out(_view: &View<Self>, _to: &mut [u8]) -> Result<(), Gone> {
        Ok(())
    }

    fn copy_in(view: &mut View<Self>, from: &[u8]) -> bool {
        contained(|| view.write_at(0, from))
    }

    fn received(lent: &mut Lent<Self>, bytes: usize) -> Vec<u8> {
        lent.as_mut_slice()[..bytes].to_vec()
    }
}

impl Lanes for Write {
    const WAY: Way = Way::Write;

    fn lane(socket: &mut Socket) -> &mut Lane<Self> {
        &mut socket.writes
    }

    fn op(memory: MemRange) -> SocketKind {
        SocketKind::Send(memory)
    }

    fn copy_out(view: &View<Self>, to: &mut [u8]) -> Result<(), Gone> {
        // What is not made up has gone, too.
        copy_out(view, to).map_err(|_| Gone)
    }

    fn copy_in(_view: &mut View<Self>, _from: &[u8]) -> bool {
        true
    }

    fn received(_lent: &mut Lent<Self>, _bytes: usize) -> Vec<u8> {
        Vec::new()
    }
}

/// A wait for a connection to be made, or for those that are to be taken.
#[derive(Default)]
pub(super) struct Watch {
    /// The op is in the ring.
    pub(super) in_ring: bool,
    /// It takes one connection after the other.
    pub(super) many: bool,
    pub(super) stop: Stop,
    pub(super) wakers: Vec<Waker>,
    pub(super) queued: bool,
    /// Connections that were taken and are nobody's yet.
    pub(super) taken: VecDeque<OwnedFd>,
    /// Why the last one was not taken.
    pub(super) error: Option<Errno>,
}

/// A connection, or what takes connections.
pub(super) struct Socket {
    pub(super) descriptor: Rc<Descriptor>,
    pub(super) reads: Lane<Read>,
    pub(super) writes: Lane<Write>,
    pub(super) watch: Watch,
    /// What is watched for: that a connection is made, else those to be taken.
    pub(super) connects: bool,
    /// Its handle has gone.
    pub(super) closing: bool,
}

impl Socket {
    pub(super) fn ops(&self) -> usize {
        let lanes = [self.reads.flight.is_some(), self.writes.flight.is_some()];
        lanes.into_iter().chain([self.watch.in_ring]).filter(|in_ring| *in_ring).count()
    }

    /// Wants every op of it stopped.
    pub(super) fn stop(&mut self) {
        let wanted = |stop: &mut Stop| {
            if *stop == Stop::No {
                *stop = Stop::Wanted;
            }
        };
        self.reads.flight.iter_mut().for_each(|flight| wanted(&mut flight.stop));
        self.writes.flight.iter_mut().for_each(|flight| wanted(&mut flight.stop));
        if self.watch.in_ring {
            wanted(&mut self.watch.stop);
        }
    }
}

struct Place {
    generation: u32,
    socket: Option<Socket>,
}

/// The sockets of a shard.
///
/// Dropped with ops in the ring, it keeps their memory for ever: the kernel may still write to
/// it (F02).
#[derive(Default)]
pub(super) struct SocketTable {
    places: Vec<Place>,
    free: Vec<u32>,
    /// Ops in the ring.
    pub(super) in_flight: usize,
    /// The kernel has refused to take many connections by one op.
    pub(super) one_by_one: bool,
    /// Some op is to be stopped, and the ring had no room to be asked.
    pub(super) owes_stops: bool,
}

impl SocketTable {
    /// `None` when there are no more tags.
    pub(super) fn add(&mut self, socket: Socket) -> Option<SocketId> {
        let at = match self.free.pop() {
            Some(at) => at,
            None => {
                let at = u32::try_from(self.places.len()).ok().filter(|at| *at < SOCKETS_MAX)?;
                self.places.push(Place { generation: 0, socket: None });
                at
            }
        };
        let place = &mut self.places[at as usize];
        place.socket = Some(socket);
        Some(SocketId { at, generation: place.generation })
    }

    pub(super) fn find(&mut self, id: SocketId) -> Option<&mut Socket> {
        let place = self.places.get_mut(id.at as usize)?;
        place.socket.as_mut().filter(|_| place.generation == id.generation)
    }

    /// The socket that has this op in the ring.
    pub(super) fn of(&mut self, tag: Tag) -> Option<(SocketId, Way)> {
        let (id, way) = SocketId::of(tag);
        let socket = self.find(id)?;
        let in_ring = match way {
            Way::Read => socket.reads.flight.is_some(),
            Way::Write => socket.writes.flight.is_some(),
            Way::Watch => socket.watch.in_ring,
        };
        in_ring.then_some((id, way))
    }

    /// Forgets a socket that is closing and has no op in the ring; what closes it comes back.
    pub(super) fn retire(&mut self, id: SocketId) -> Option<Socket> {
        let socket = self.find(id)?;
        if !socket.closing || socket.ops() > 0 {
            return None;
        }
        let place = &mut self.places[id.at as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free.push(id.at);
        place.socket.take()
    }

    /// Takes the packets that wait in any direction, and who waits for room there.
    #[cold]
    pub(super) fn take_entries(&mut self) -> Vec<Inherited> {
        let sockets = self.places.iter_mut().filter_map(|place| place.socket.as_mut());
        let take = |socket: &mut Socket| Inherited {
            _reads: std::mem::take(&mut socket.reads.entries),
            _writes: std::mem::take(&mut socket.writes.entries),
            _waiting: [
                std::mem::take(&mut socket.reads.waiting),
                std::mem::take(&mut socket.writes.waiting),
            ],
        };
        sockets.map(take).collect()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = SocketId> + use<> {
        let generations: Vec<_> = self.places.iter().map(|place| place.generation).collect();
        (0_u32..).zip(generations).map(|(at, generation)| SocketId { at, generation })
    }
}

/// What waits in the directions of a socket, in a child that has nobody to tell of it.
pub(super) struct Inherited {
    _reads: VecDeque<Entry<Read>>,
    _writes: VecDeque<Entry<Write>>,
    _waiting: [Vec<Waker>; 2],
}

impl Drop for SocketTable {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            let places = core::mem::take(&mut self.places);
            quarantine(places, "ops on sockets that did not come back", self.in_flight);
        }
    }
}
