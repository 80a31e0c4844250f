//! Connections of a shard, beyond what every network must do (`rt_suites`): whose memory it is
//! meanwhile (`packets`), queues that are too short (`queues`), and what is left when something
//! goes (`ends`).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]
#![allow(clippy::mem_forget, reason = "callers may forget futures")]

use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::block_on;
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::net::{ShardNet, ShardStream};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Config, Shard};
use mfio_rt::Tcp;

mod ends;
mod packets;
mod queues;

/// A shard on io_uring whose queue has `entries`, which is shorter than what is asked of it.
fn shard(entries: u32) -> Option<Shard<KernelRing>> {
    Some(on_ring(ring(entries)?))
}

/// Those that take many connections by one op, where the kernel can, and those that take each by
/// one of its own.
fn accepting() -> Vec<Shard<KernelRing>> {
    let one_by_one = ring(8).map(KernelRing::accepting_one_by_one);
    ring(8).into_iter().chain(one_by_one).map(on_ring).collect()
}

fn ring(entries: u32) -> Option<KernelRing> {
    let made = KernelRing::new(&KernelConfig::new(entries));
    made.inspect_err(|error| println!("SKIP {error}")).ok()
}

fn on_ring(ring: KernelRing) -> Shard<KernelRing> {
    let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 4 }]);
    let config = Config { in_flight_max: 4, backlog_max: 8, arena, ..Config::new() };
    Shard::with_ring(ring, &config).unwrap()
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A connection of the shard, and its peer.
fn pair<R: Ring>(net: &ShardNet<R>) -> (ShardStream<R>, TcpStream) {
    let listener = TcpListener::bind(here()).unwrap();
    let address = listener.local_addr().unwrap();
    let stream = block_on(net, net.connect(address)).unwrap().unwrap();
    (stream, listener.accept().unwrap().0)
}

fn begin<T>(future: &mut Pin<Box<impl Future<Output = T>>>) {
    let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "it has to wait");
}

fn drain<R: Ring>(shard: &Shard<R>) {
    for _ in 0..1000 {
        if shard.in_flight() == 0 {
            return;
        }
        shard.turn(Wait::at_least(1)).unwrap();
    }
    panic!("{} ops are still in flight", shard.in_flight());
}

async fn both<A, B>(one: impl Future<Output = A>, other: impl Future<Output = B>) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    poll_fn(|cx| {
        if first.is_none()
            && let Poll::Ready(value) = one.as_mut().poll(cx)
        {
            first = Some(value);
        }
        if second.is_none()
            && let Poll::Ready(value) = other.as_mut().poll(cx)
        {
            second = Some(value);
        }
        if first.is_some() && second.is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    (first.unwrap(), second.unwrap())
}

/// Ends peers that are silent when a test has hung, so that it fails and does not hang.
fn rescue(silent: Vec<TcpStream>) -> (mpsc::Sender<()>, thread::JoinHandle<bool>) {
    let (over, waits) = mpsc::channel::<()>();
    let rescue = thread::spawn(move || {
        let hangs = waits.recv_timeout(Duration::from_secs(20)) == Err(RecvTimeoutError::Timeout);
        for peer in silent.iter().filter(|_| hangs) {
            peer.shutdown(std::net::Shutdown::Both).unwrap();
        }
        hangs
    });
    (over, rescue)
}

/// A few turns, for whatever is under way without an end.
fn drain_all<R: Ring>(shard: &Shard<R>) {
    for _ in 0..10 {
        shard.turn(Wait::NONE).unwrap();
    }
}

#[test]
fn bytes_go_by_the_ring_where_it_can_and_by_threads_where_it_cannot() {
    if let Some(shard) = shard(8) {
        assert!(ShardNet::new(&shard).unwrap().is_on_ring());
        assert!(shard.features().in_use.contains(&"SEND_RECV"));
    }
    let ring = ThreadRing::new(1, 8).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    assert!(!ShardNet::new(&shard).unwrap().is_on_ring());
}
