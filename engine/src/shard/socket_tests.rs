//! Sockets on a ring that answers as a test says: kernels that will not wait although they are
//! to, that send nothing, and that cannot take many connections by one op.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::IntoRawFd;
use std::os::unix::net::UnixStream;

use mfio_core::{Error, IoRead, IoWrite};
use mfio_rt::{ListenOptions, ListenerHandle, StreamHandle, Tcp, Whole};

use super::*;
use crate::net::{ShardNet, ShardStream};
use crate::ring::SocketKind;

const EAGAIN: i32 = -(Errno::EAGAIN as i32);
/// How often a refused op is tried again.
const REFUSALS_MAX: usize = super::super::lanes::REFUSALS_MAX as usize;

fn network(takes_many: bool) -> (Scripted, ShardNet<Scripted>) {
    let ring = Scripted::new();
    (ring.0.borrow_mut().networked, ring.0.borrow_mut().takes_many) = (true, takes_many);
    let shard = Shard::with_ring(ring.clone(), &Config::new()).unwrap();
    let net = ShardNet::new(&shard).unwrap();
    assert!(net.is_on_ring());
    (ring, net)
}

/// A stream of the shard, and another holder of the same connection.
fn stream(net: &ShardNet<Scripted>) -> (ShardStream<Scripted>, UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let other = ours.try_clone().unwrap();
    (net.adopt(ours).unwrap(), other, theirs)
}

impl Scripted {
    /// The only op on a socket that waits in the ring.
    fn asked(&self) -> (SocketOp, Tag) {
        let script = self.0.borrow();
        let [asked] = script.sockets[..] else { panic!("{} ops wait", script.sockets.len()) };
        asked
    }

    /// Ends that op, and gives the shard a turn.
    fn reply(&self, net: &ShardNet<Scripted>, result: i32) {
        let (_, tag) = self.asked();
        self.0.borrow_mut().sockets.clear();
        self.0.borrow_mut().done.push(Completion { tag, result, more: false });
        net.shard().turn(Wait::NONE).unwrap();
    }

    fn is_unasked(&self) -> bool {
        self.0.borrow().sockets.is_empty()
    }
}

/// Whether the mode of a descriptor is not to wait.
fn is_nonblocking(fd: i32) -> bool {
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap();
    let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_NONBLOCK != 0
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn errno<T: std::fmt::Debug>(result: Result<T, Error>) -> Option<i32> {
    result.unwrap_err().errno()
}

fn ready<T>(polled: Poll<T>) -> T {
    let Poll::Ready(value) = polled else { panic!("it still waits") };
    value
}

/// Whatever mode it came in, and whatever mode making it took.
#[test]
fn ring_is_given_sockets_in_the_mode_that_waits() {
    let (ring, net) = network(true);
    let (ours, _theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let adopted = net.adopt(ours).unwrap();
    let mut read = pin!(adopted.read_exact(Whole, vec![0; 3]));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    assert!(!is_nonblocking(ring.asked().0.fd), "adopted");
    ring.reply(&net, 3);
    assert_eq!(ready(poll(read, Waker::noop())).0, Ok(()));

    let peer = TcpListener::bind(here()).unwrap();
    let mut connect = pin!(net.connect(peer.local_addr().unwrap()));
    assert!(poll(connect.as_mut(), Waker::noop()).is_pending());
    let (op, _) = ring.asked();
    assert!(matches!(op.kind, SocketKind::Writable), "it is asked when it is made");
    assert!(!is_nonblocking(op.fd), "connected");
    ring.reply(&net, i32::from(libc::POLLOUT));
    assert!(ready(poll(connect, Waker::noop())).is_ok());

    let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
    let mut accept = pin!(listener.accept());
    assert!(poll(accept.as_mut(), Waker::noop()).is_pending());
    assert!(!is_nonblocking(ring.asked().0.fd), "listening");
}

/// Another holder has it not wait, again and again, and this kernel heeds that.
#[test]
fn f23_stream_that_the_kernel_will_not_wait_for_is_told_to_and_given_up_after_its_retries() {
    for is_read in [true, false] {
        let (ring, net) = network(true);
        let (stream, other, _theirs) = stream(&net);
        let mut packet: Pin<Box<dyn Future<Output = _>>> = if is_read {
            Box::pin(stream.read_exact(Whole, vec![0; 3]))
        } else {
            Box::pin(stream.write_exact((), vec![1; 3]))
        };
        assert!(poll(packet.as_mut(), Waker::noop()).is_pending());
        for refusal in 0..REFUSALS_MAX {
            other.set_nonblocking(true).unwrap();
            ring.reply(&net, EAGAIN);
            assert!(!is_nonblocking(ring.asked().0.fd), "told to wait after {refusal}");
            assert!(poll(packet.as_mut(), Waker::noop()).is_pending(), "gave up at {refusal}");
        }
        ring.reply(&net, EAGAIN);
        assert!(ring.is_unasked(), "asked for ever");
        assert_eq!(
            errno(ready(poll(packet.as_mut(), Waker::noop())).0),
            Some(Errno::EAGAIN as i32)
        );
        // The other direction has its own count.
        let mut other_way: Pin<Box<dyn Future<Output = _>>> = if is_read {
            Box::pin(stream.write_exact((), vec![1; 3]))
        } else {
            Box::pin(stream.read_exact(Whole, vec![0; 3]))
        };
        assert!(poll(other_way.as_mut(), Waker::noop()).is_pending());
        ring.reply(&net, 3);
        assert_eq!(ready(poll(other_way.as_mut(), Waker::noop())).0, Ok(()));
    }
}

#[test]
fn f23_refusals_of_a_stream_count_while_nothing_comes_through() {
    for is_read in [true, false] {
        let (ring, net) = network(true);
        let (stream, _other, _theirs) = stream(&net);
        let mut packet: Pin<Box<dyn Future<Output = _>>> = if is_read {
            Box::pin(stream.read_exact(Whole, vec![0; 10]))
        } else {
            Box::pin(stream.write_exact((), vec![1; 10]))
        };
        assert!(poll(packet.as_mut(), Waker::noop()).is_pending());
        for _ in 0..10 {
            (0..REFUSALS_MAX).for_each(|_| ring.reply(&net, EAGAIN));
            assert!(poll(packet.as_mut(), Waker::noop()).is_pending());
            ring.reply(&net, 1);
        }
        assert_eq!(ready(poll(packet.as_mut(), Waker::noop())).0, Ok(()));
    }
}

#[test]
fn f13_send_that_moves_nothing_ends_its_direction() {
    let (ring, net) = network(true);
    let (stream, _other, _theirs) = stream(&net);
    let mut first = pin!(stream.write_exact((), vec![1; 100]));
    let mut second = pin!(stream.write_exact((), vec![2; 100]));
    let mut read = pin!(stream.read_exact(Whole, vec![0; 3]));
    assert!(poll(first.as_mut(), Waker::noop()).is_pending());
    assert!(poll(second.as_mut(), Waker::noop()).is_pending());
    ring.reply(&net, 60);
    ring.reply(&net, 0);
    assert!(ring.is_unasked(), "asked for ever");
    assert_eq!(errno(ready(poll(first, Waker::noop())).0), Some(Errno::EIO as i32));
    // What follows would be taken for the rest of the first.
    assert_eq!(errno(ready(poll(second, Waker::noop())).0), Some(Errno::EIO as i32));
    assert!(poll(read.as_mut(), Waker::noop()).is_pending());
    ring.reply(&net, 3);
    assert_eq!(ready(poll(read, Waker::noop())).0, Ok(()), "the other direction works on");
}

/// Memory would be shown that was never filled.
#[test]
fn f04_more_bytes_than_were_asked_for_are_not_believed() {
    for result in [101, i32::MAX, i32::MIN] {
        let (ring, net) = network(true);
        let (stream, _other, _theirs) = stream(&net);
        let mut read = pin!(stream.read_exact(Whole, vec![0; 100]));
        assert!(poll(read.as_mut(), Waker::noop()).is_pending());
        ring.reply(&net, result);
        assert!(ring.is_unasked());
        assert_eq!(errno(ready(poll(read, Waker::noop())).0), Some(Errno::EIO as i32));
    }
}

/// A connection of `listener`'s, as the kernel hands it over.
fn handed_over(address: SocketAddr) -> (TcpStream, i32) {
    let near = TcpListener::bind(address).unwrap();
    let peer = TcpStream::connect(near.local_addr().unwrap()).unwrap();
    (peer, near.accept().unwrap().0.into_raw_fd())
}

fn takes_many(op: SocketOp) -> bool {
    let SocketKind::Accept { many } = op.kind else { panic!("{op:?}") };
    many
}

/// A kernel that has the op but not its flag: each connection by an op of its own, from then on
/// and for every listener.
#[test]
fn f33_kernel_that_refuses_to_take_many_is_asked_for_one_at_a_time() {
    let (ring, net) = network(true);
    for round in 0..2 {
        let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
        let mut accept = pin!(listener.accept());
        assert!(poll(accept.as_mut(), Waker::noop()).is_pending());
        if round == 0 {
            assert!(takes_many(ring.asked().0));
            ring.reply(&net, -(Errno::EINVAL as i32));
            assert!(poll(accept.as_mut(), Waker::noop()).is_pending(), "nobody is told");
        }
        assert!(!takes_many(ring.asked().0), "in round {round}");
        let (peer, taken) = handed_over(here());
        ring.reply(&net, taken);
        assert!(ring.is_unasked(), "nobody asks for another");
        let (stream, from) = ready(poll(accept, Waker::noop())).unwrap();
        assert_eq!(from, peer.local_addr().unwrap());
        assert_eq!(stream.peer_addr().unwrap(), from);
    }
    // Of one that was asked for one, it is an error like any other, and told once.
    let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
    let mut accept = pin!(listener.accept());
    assert!(poll(accept.as_mut(), Waker::noop()).is_pending());
    ring.reply(&net, -(Errno::EINVAL as i32));
    assert_eq!(ready(poll(accept, Waker::noop())).unwrap_err().errno(), Some(Errno::EINVAL as i32));
}

#[test]
fn accept_that_the_kernel_refuses_is_told_or_asked_again() {
    let (ring, net) = network(false);
    let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
    let mut accept = Box::pin(listener.accept());
    assert!(poll(accept.as_mut(), Waker::noop()).is_pending());
    assert!(!takes_many(ring.asked().0));
    for errno in [Errno::EINTR, Errno::EAGAIN, Errno::ECANCELED] {
        ring.reply(&net, -(errno as i32));
        assert!(poll(accept.as_mut(), Waker::noop()).is_pending(), "asked again after {errno}");
    }
    ring.reply(&net, -(Errno::EMFILE as i32));
    let refused = ready(poll(accept.as_mut(), Waker::noop())).unwrap_err();
    assert_eq!(refused.errno(), Some(Errno::EMFILE as i32));
    let mut accept = pin!(listener.accept());
    assert!(poll(accept.as_mut(), Waker::noop()).is_pending(), "told once");
    let (_peer, taken) = handed_over(here());
    ring.reply(&net, taken);
    assert!(ready(poll(accept, Waker::noop())).is_ok(), "and takes again");
}
