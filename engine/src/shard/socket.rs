//! Ops on sockets: started in the order of their packets, judged, and started again for what is
//! left.
//!
//! Data flow: view → lane → op of the ring → completion → the packet, in whole or in part, and
//! the next op of the lane. Where the ring has no room, the lane waits in the backlog.
//!
//! An op on a socket occupies no slot, since it may wait in the kernel for as long as a peer
//! likes: a peer that is stuck takes nothing from files or other peers. How many there can be is
//! bounded by the connections, three for each. What completes at once beyond the size of the
//! completion queue is kept by the kernel (`NODROP`, which no ring goes without).
//!
//! Not here: what is remembered (`lanes`), handles (`connection`).

use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::task::{Poll, Waker};

use mfio_core::{Error, ErrorKind, PacketId, Read, View, Write};
use nix::errno::Errno;
use socket2::Socket as Descriptor;

use super::core::{Bytes, Core, Ending, Job};
use super::lanes::{Entry, Flight, Lane, Lanes, REFUSALS_MAX, Socket, SocketId, Stop};
use super::lanes::{TAKEN_MAX, Watch, Way};
use crate::error::from_errno;
use crate::ring::{Ring, SocketKind, SocketOp, Tag};

impl<R: Ring> Core<R> {
    /// Takes a socket in; `None` where nothing is accepted any more, or too many are open.
    pub(super) fn add_socket(
        &mut self,
        descriptor: &Rc<Descriptor>,
        connects: bool,
    ) -> Option<SocketId> {
        if self.refuses {
            return None;
        }
        self.sockets.add(Socket {
            descriptor: Rc::clone(descriptor),
            reads: Lane::default(),
            writes: Lane::default(),
            watch: Watch::default(),
            connects,
            closing: false,
        })
    }

    /// Queues a packet; it comes back where there is no room.
    pub(super) fn send_to_socket<D: Lanes>(
        &mut self,
        id: SocketId,
        view: View<D>,
        whole: bool,
    ) -> Option<View<D>> {
        let refuses = self.refuses;
        let Some(socket) = self.sockets.find(id) else { return Some(view) };
        let lane = D::lane(socket);
        if lane.reserved > 0 {
            lane.reserved -= 1;
        } else if !lane.has_room() {
            return Some(view);
        }
        if refuses {
            self.endings.push(D::failed(view, ErrorKind::Closed.into()));
            return None;
        }
        let started = !D::IS_READ && lane.has_begun(view.packet_id());
        lane.entries.push_back(Entry { view, whole, started, unsent: Vec::new(), spoilt: false });
        self.serve_lane::<D>(id);
        None
    }

    /// Starts the next op of a lane, now or when the ring has room.
    fn serve_lane<D: Lanes>(&mut self, id: SocketId) {
        if !self.start_lane::<D>(id) {
            let Some(socket) = self.sockets.find(id) else { return };
            if !std::mem::replace(&mut D::lane(socket).queued, true) {
                self.queue_socket(id, D::WAY);
            }
        }
    }

    fn queue_socket(&mut self, id: SocketId, way: Way) {
        let bytes = Bytes::Socket(id, way);
        self.backlog.push_back(Job { target: 0, offset_bytes: 0, bytes });
    }

    /// Starts what waits in the backlog; false where there is still no room.
    pub(super) fn serve_queued(&mut self, id: SocketId, way: Way) -> bool {
        let served = match way {
            Way::Read => self.start_lane::<Read>(id),
            Way::Write => self.start_lane::<Write>(id),
            Way::Watch => self.start_watch(id),
        };
        if served && let Some(socket) = self.sockets.find(id) {
            match way {
                Way::Read => socket.reads.queued = false,
                Way::Write => socket.writes.queued = false,
                Way::Watch => socket.watch.queued = false,
            }
        }
        served
    }

    /// Ends what can be ended without the ring, and hands it the next op; false where it has no
    /// room for that.
    fn start_lane<D: Lanes>(&mut self, id: SocketId) -> bool {
        let usable = self.is_usable();
        let Self { sockets, ring, endings, done, .. } = self;
        let Some(socket) = sockets.find(id) else { return true };
        let fd = socket.descriptor.as_raw_fd();
        let mut torn = false;
        let lane = D::lane(socket);
        while lane.flight.is_none() {
            let Some(mut entry) = lane.entries.pop_front() else { break };
            if let Some(error) = lane.error {
                endings.push(D::failed(entry.view, error));
            } else if entry.view.is_empty() {
                done.push(D::plain(entry.view));
            } else if !lane.kept.is_empty() {
                let len = usize::try_from(entry.view.len()).unwrap_or(usize::MAX);
                let kept: Vec<u8> = lane.kept.drain(..len.min(lane.kept.len())).collect();
                entry.spoilt = !D::copy_in(&mut entry.view, &kept);
                settle(lane, endings, done, entry, kept.len() as u64);
            } else if !usable || !ring.reserve(1) {
                lane.entries.push_front(entry);
                return !usable;
            } else {
                match Flight::prepare(entry) {
                    Ok((flight, memory)) => {
                        ring.unstage();
                        ring.push_socket(SocketOp { kind: D::op(memory), fd }, id.tag(D::WAY));
                        lane.flight = Some(flight);
                        self.in_flight += 1;
                        self.metrics.ops += 1;
                        self.sockets.in_flight += 1;
                        return true;
                    }
                    Err(view) => {
                        // Part of it may be through: what follows would be misunderstood.
                        let error = Error::from(ErrorKind::Aborted);
                        lane.error = Some(error);
                        endings.push(D::failed(view, error));
                        torn = true;
                    }
                }
            }
        }
        endings.extend(lane.waiting.drain(..).map(Ending::Wake));
        if torn {
            // The peer is not to wait for the rest. There may be no connection any more.
            let _not_connected = socket.descriptor.shutdown(std::net::Shutdown::Write);
        }
        true
    }

    /// A completion of an op on a socket.
    #[cold]
    pub(super) fn complete_socket(&mut self, tag: Tag, result: i32, more: bool) {
        let Some((id, way)) = self.sockets.of(tag) else {
            self.metrics.stale_completions += 1;
            return;
        };
        if !more {
            self.in_flight -= 1;
            self.sockets.in_flight -= 1;
        } else if way != Way::Watch {
            // The others are single-shot: the completion that counts is still to come.
            return;
        }
        match way {
            Way::Read => self.lane_completed::<Read>(id, result),
            Way::Write => self.lane_completed::<Write>(id, result),
            Way::Watch => self.watched(id, result, more),
        }
        self.retire_socket(id);
    }

    /// A connection is made, or was taken, or was not.
    fn watched(&mut self, id: SocketId, result: i32, more: bool) {
        let Self { sockets, endings, .. } = self;
        let Some(socket) = sockets.find(id) else { return };
        let (accepts, closing, watch) = (!socket.connects, socket.closing, &mut socket.watch);
        let asked = watch.stop != Stop::No || closing;
        watch.in_ring = more;
        if !more {
            watch.stop = Stop::No;
        }
        let mut refuses_many = false;
        if accepts && let Some(taken) = crate::sys::handed_over(result) {
            if !closing {
                watch.taken.push_back(taken);
            }
            if more && watch.taken.len() >= TAKEN_MAX && watch.stop == Stop::No {
                // The others wait where the peers see it.
                watch.stop = Stop::Wanted;
            }
        } else if accepts && !asked {
            match errno_of(result) {
                Errno::EINTR | Errno::ECANCELED => {}
                Errno::EAGAIN => wait_in_kernel(&socket.descriptor),
                Errno::EINVAL if watch.many => refuses_many = true,
                errno => watch.error = Some(errno),
            }
        }
        endings.extend(watch.wakers.drain(..).map(Ending::Wake));
        sockets.one_by_one |= refuses_many;
        self.stop_ops(id);
    }

    /// The next connection that was taken.
    pub(super) fn poll_accept(
        &mut self,
        id: SocketId,
        waker: &mut Option<Waker>,
    ) -> Poll<Result<OwnedFd, Errno>> {
        let refuses = self.refuses;
        let Some(socket) = self.sockets.find(id) else { return Poll::Ready(Err(Errno::EBADF)) };
        if let Some(taken) = socket.watch.taken.pop_front() {
            return Poll::Ready(Ok(taken));
        }
        match socket.watch.error.take() {
            Some(errno) => return Poll::Ready(Err(errno)),
            None if refuses => return Poll::Ready(Err(Errno::ECANCELED)),
            None => {}
        }
        if let Some(waker) = waker.take() {
            self.watch_socket(id, waker);
        }
        Poll::Pending
    }

    fn lane_completed<D: Lanes>(&mut self, id: SocketId, result: i32) {
        let Self { sockets, endings, done, .. } = self;
        let Some(socket) = sockets.find(id) else { return };
        let lane = D::lane(socket);
        let Some(flight) = lane.flight.take() else { return };
        let packet = flight.packet_id();
        // Of a packet that is partly sent, the rest must follow.
        let gone = flight.abandoned && (D::IS_READ || !flight.started);
        let mut refused = false;
        match flight.moved(result) {
            Some(moved) if D::IS_READ && (gone || lane.error.is_some()) => {
                let (bytes, view) = flight.salvage(moved);
                lane.kept.extend(bytes);
                let error = lane.error.unwrap_or(ErrorKind::Cancelled.into());
                endings.push(D::failed(view, error));
            }
            Some(0) if D::IS_READ => {
                endings.push(D::failed(flight.land(0).view, ErrorKind::UnexpectedEof.into()));
            }
            Some(0) => {
                // Something was to be sent and nothing was: that could go on for ever (F13).
                let error = *lane.error.get_or_insert(from_errno(Errno::EIO));
                endings.push(D::failed(flight.land(0).view, error));
            }
            Some(moved) => {
                lane.refusals = 0;
                if !D::IS_READ {
                    lane.begin(packet);
                }
                settle(lane, endings, done, flight.land(moved), moved);
            }
            None => match errno_of(result) {
                Errno::ECANCELED | Errno::EINTR | Errno::EAGAIN if gone => {
                    endings.push(D::failed(flight.land(0).view, ErrorKind::Cancelled.into()));
                    cancel_waiting(lane, endings, packet);
                }
                Errno::ECANCELED | Errno::EINTR => lane.entries.push_front(flight.land(0)),
                Errno::EAGAIN if lane.refusals < REFUSALS_MAX => {
                    lane.refusals += 1;
                    refused = true;
                    lane.entries.push_front(flight.land(0));
                }
                errno => {
                    let error = *lane.error.get_or_insert(from_errno(errno));
                    endings.push(D::failed(flight.land(0).view, error));
                }
            },
        }
        endings.extend(lane.waiting.drain(..).map(Ending::Wake));
        if refused {
            wait_in_kernel(&socket.descriptor);
        }
        self.serve_lane::<D>(id);
    }

    /// The caller of `packet` has gone: it is taken out, unless part of it has been sent.
    pub(super) fn abandon_in_socket<D: Lanes>(&mut self, id: SocketId, packet: PacketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        let lane = D::lane(socket);
        if !D::IS_READ && lane.has_begun(packet) {
            return;
        }
        let flight = lane.flight.as_mut().filter(|flight| flight.packet_id() == packet);
        let flies = flight.is_some();
        if let Some(flight) = flight {
            flight.abandoned = true;
            if flight.stop == Stop::No {
                flight.stop = Stop::Wanted;
            }
        }
        // What is being sent may have been: whether the rest follows is not known before.
        if D::IS_READ || !flies {
            cancel_waiting(lane, &mut self.endings, packet);
            self.endings.extend(lane.waiting.drain(..).map(Ending::Wake));
        }
        if flies {
            self.stop_ops(id);
        }
    }

    /// Wakes `waker` when the socket is ready, or was, or nobody can tell any more.
    pub(super) fn watch_socket(&mut self, id: SocketId, waker: Waker) {
        let unusable = self.refuses;
        let Some(socket) = self.sockets.find(id) else { return };
        if unusable {
            return self.endings.push(Ending::Wake(waker));
        }
        let watch = &mut socket.watch;
        if !watch.wakers.iter().any(|other| other.will_wake(&waker)) {
            watch.wakers.push(waker);
        }
        if !watch.queued && !self.start_watch(id) {
            let Some(socket) = self.sockets.find(id) else { return };
            socket.watch.queued = true;
            self.queue_socket(id, Way::Watch);
        }
    }

    fn start_watch(&mut self, id: SocketId) -> bool {
        let one_by_one = self.sockets.one_by_one;
        let Some(socket) = self.sockets.find(id) else { return true };
        if socket.watch.in_ring || socket.watch.wakers.is_empty() {
            return true;
        }
        if !self.ring.reserve(1) {
            return false;
        }
        let many = self.ring.takes_many() && !one_by_one;
        let kind = if socket.connects { SocketKind::Writable } else { SocketKind::Accept { many } };
        let fd = socket.descriptor.as_raw_fd();
        (socket.watch.in_ring, socket.watch.many) = (true, many);
        self.ring.unstage();
        self.ring.push_socket(SocketOp { kind, fd }, id.tag(Way::Watch));
        self.in_flight += 1;
        self.metrics.ops += 1;
        self.sockets.in_flight += 1;
        true
    }

    /// The handle has gone: what waits fails, what is in the ring is stopped, and the descriptor
    /// is closed behind the last of it.
    pub(super) fn close_socket(&mut self, id: SocketId) {
        let Some(socket) = self.sockets.find(id) else { return };
        socket.closing = true;
        self.end_socket(id);
        self.retire_socket(id);
    }

    /// Everything of a socket fails from now on.
    fn end_socket(&mut self, id: SocketId) {
        let own = self.process.is_current();
        let Some(socket) = self.sockets.find(id) else { return };
        end_lane(&mut socket.reads, &mut self.endings);
        end_lane(&mut socket.writes, &mut self.endings);
        self.endings.extend(socket.watch.wakers.drain(..).map(Ending::Wake));
        // Taken and given to nobody.
        socket.watch.taken.clear();
        // In a forked child, connection and ops are still its parent's (F26).
        if own && socket.ops() > 0 {
            // The peer learns at once, and not when the shard gets its next turn; what waits
            // in the kernel ends by it. There may be no connection, and then nothing to end.
            let _not_connected = socket.descriptor.shutdown(std::net::Shutdown::Both);
            socket.stop();
            self.stop_ops(id);
        }
    }

    /// Everything of every socket fails from now on, except what closes them.
    pub(super) fn end_sockets(&mut self) {
        for id in self.sockets.ids() {
            self.end_socket(id);
        }
    }

    fn retire_socket(&mut self, id: SocketId) {
        // Its lanes are empty: what is dropped is a descriptor.
        drop(self.sockets.retire(id));
    }

    /// Asks the ring again to stop what it had no room to be asked for.
    #[cold]
    pub(super) fn stop_owed(&mut self) {
        self.sockets.owes_stops = false;
        for id in self.sockets.ids() {
            self.stop_ops(id);
        }
    }

    /// Asks the ring to stop what is to be stopped; the completions still come (F03).
    fn stop_ops(&mut self, id: SocketId) {
        if !self.process.is_current() {
            // The ops are the parent's, and so is the ring that would be asked (F26).
            return;
        }
        let Self { sockets, ring, metrics, .. } = self;
        let Some(socket) = sockets.find(id) else { return };
        let mut owes = false;
        let stops = [
            (socket.reads.flight.as_mut().map(|flight| &mut flight.stop), Way::Read),
            (socket.writes.flight.as_mut().map(|flight| &mut flight.stop), Way::Write),
            (Some(&mut socket.watch.stop), Way::Watch),
        ];
        for (stop, way) in stops {
            let Some(stop) = stop.filter(|stop| **stop == Stop::Wanted) else { continue };
            if ring.reserve(1) && ring.cancel(id.tag(way)) {
                *stop = Stop::Asked;
                metrics.cancels_sent += 1;
            } else {
                owes = true;
            }
        }
        sockets.owes_stops |= owes;
        self.cancels_owed |= owes;
    }
}

fn errno_of(result: i32) -> Errno {
    // More bytes than were asked for are no errno, and not to be believed.
    let errno = result.checked_neg().filter(|errno| *errno > 0);
    errno.map_or(Errno::EIO, Errno::from_raw)
}

/// The first `moved` bytes of an entry are through: it ends, or goes on in front of the others.
fn settle<D: Lanes>(
    lane: &mut Lane<D>,
    endings: &mut Vec<Ending>,
    done: &mut Vec<super::body::Body>,
    entry: Entry<D>,
    moved: u64,
) {
    let Entry { view, whole, started, unsent, spoilt } = entry;
    if spoilt {
        return endings.push(D::failed(view, ErrorKind::Aborted.into()));
    }
    if moved == view.len() {
        return done.push(D::plain(view));
    }
    let (through, rest) = view.split_at(moved);
    done.push(D::plain(through));
    if whole {
        let started = started || moved > 0;
        lane.entries.push_front(Entry { view: rest, whole, started, unsent, spoilt });
    } else {
        endings.push(D::failed(rest, ErrorKind::UnexpectedEof.into()));
    }
}

/// Nothing of `packet` is waited for any more.
fn cancel_waiting<D: Lanes>(lane: &mut Lane<D>, endings: &mut Vec<Ending>, packet: PacketId) {
    while let Some(view) = lane.take_out(packet) {
        endings.push(D::failed(view, ErrorKind::Cancelled.into()));
    }
}

/// Another holder of the connection may have told it not to wait, so that an op that is asked to
/// comes back at once. Where that cannot be undone, whoever counts the refusals ends it.
#[cold]
fn wait_in_kernel(descriptor: &Descriptor) {
    let _unchanged = descriptor.set_nonblocking(false);
}

fn end_lane<D: Lanes>(lane: &mut Lane<D>, endings: &mut Vec<Ending>) {
    let error = *lane.error.get_or_insert(ErrorKind::Closed.into());
    endings.extend(lane.entries.drain(..).map(|entry| D::failed(entry.view, error)));
    endings.extend(lane.waiting.drain(..).map(Ending::Wake));
}
