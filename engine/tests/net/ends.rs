//! How connections come and go: made, taken, taken over from elsewhere, and ended with
//! whatever is under way.

use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::{ErrorKind, IoRead, IoWrite, Packet, PacketIo, Read, block_on};
use mfio_engine::buffer::quarantined;
use mfio_engine::net::ShardNet;
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Sockets, Wait};
use mfio_engine::{Config, Shard};
use mfio_rt::{ListenOptions, ListenerHandle, StreamHandle, Tcp, Whole};

use super::{accepting, begin, both, drain, drain_all, here, pair, shard};

#[test]
fn f02_forgotten_futures_leave_nothing_when_the_shard_goes() {
    let Some(shard) = shard(8) else { return };
    let before = quarantined();
    let net = ShardNet::new(&shard).unwrap();
    let mut peers = Vec::new();
    for round in 0..20 {
        let (stream, peer) = pair(&net);
        let stream = Box::leak(Box::new(stream));
        let mut read = Box::pin(stream.read_exact(Whole, vec![0_u8; 64]));
        begin(&mut read);
        let mut write = Box::pin(stream.write_exact((), vec![1_u8; 8 << 20]));
        begin(&mut write);
        if round % 2 == 0 {
            shard.turn(Wait::NONE).unwrap();
        }
        std::mem::forget((read, write));
        peers.push(peer);
    }
    assert_eq!(shard.shutdown(), 0, "everything comes back");
    assert_eq!(quarantined(), before);
    assert!(block_on(&net, net.connect(here())).unwrap().is_err(), "nothing is accepted");
}

#[test]
fn shutdown_fails_what_waits_and_what_follows() {
    for shard in accepting() {
        let net = ShardNet::new(&shard).unwrap();
        let (stream, mut peer) = pair(&net);
        let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
        let (mut sent, view) = Packet::<Read, _>::new(vec![0; 10]).send();
        stream.send_io((), view).unwrap();
        let mut accept = Box::pin(listener.accept());
        begin(&mut accept);
        shard.turn(Wait::NONE).unwrap();
        assert_eq!(shard.in_flight(), 2);
        assert_eq!(shard.shutdown(), 0);
        block_on(&net, poll_fn(|cx| sent.poll_done(cx))).unwrap();
        let kind = sent.into_completed().unwrap().error().map(|error| error.kind());
        assert_eq!(kind, Some(ErrorKind::Closed));
        assert!(block_on(&net, accept).unwrap().is_err());
        let (written, _) = block_on(&net, stream.write_exact((), vec![1])).unwrap();
        assert_eq!(written.map_err(|error| error.kind()), Err(ErrorKind::Closed));
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the peer learns of it");
    }
}

/// Another holder of a connection has it not wait. Newer kernels wait all the same; older ones
/// refuse, which is undone and not asked for ever.
#[test]
fn connection_that_somebody_makes_nonblocking_is_waited_for_all_the_same() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let other = ours.try_clone().unwrap();
    let stream = net.adopt(ours).unwrap();
    other.set_nonblocking(true).unwrap();
    let before = shard.metrics().ops;
    let mut read = Box::pin(stream.read_exact(Whole, vec![0; 3]));
    begin(&mut read);
    for _ in 0..50 {
        shard.turn(Wait::NONE).unwrap();
    }
    let ops = shard.metrics().ops - before;
    assert!(ops < 10, "asked {ops} times");
    assert_eq!(shard.in_flight(), 1, "it waits in the kernel");
    theirs.write_all(b"abc").unwrap();
    assert_eq!(block_on(&net, read).unwrap(), (Ok(()), b"abc".to_vec()));
}

/// One op takes them all, or one takes each; what nobody asks for is taken up to a limit, and what
/// nobody got is closed with the listener.
#[test]
fn connections_are_taken_in_order_with_a_limit_and_closed_with_their_listener() {
    for shard in accepting() {
        let net = ShardNet::new(&shard).unwrap();
        let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        let mut peers: Vec<_> = (0..150_u8)
            .map(|number| {
                let mut peer = TcpStream::connect(address).unwrap();
                peer.write_all(&[number]).unwrap();
                peer
            })
            .collect();
        let before = shard.metrics().ops;
        let taken = block_on(&net, async {
            let mut taken = Vec::new();
            for number in 0..100_u8 {
                let (stream, from) = listener.accept().await.unwrap();
                assert_eq!(from, peers[usize::from(number)].local_addr().unwrap());
                taken.push(stream);
            }
            taken
        })
        .unwrap();
        let ops = shard.metrics().ops - before;
        println!("{ops} ops for 100 connections");
        let many = shard.with_ring_ref(Sockets::takes_many);
        assert!(if many { ops < 10 } else { ops >= 100 }, "many by one: {many}");
        drain_all(&shard);
        for (number, stream) in (0..).zip(&taken) {
            let (read, byte) = block_on(&net, stream.read_exact(Whole, vec![0; 1])).unwrap();
            assert_eq!((read, byte), (Ok(()), vec![number]));
        }
        drop((listener, taken));
        drain(&shard);
        for peer in &mut peers {
            // The end, or a reset: all the same, it is closed.
            let mut rest = Vec::new();
            let _ended = peer.read_to_end(&mut rest);
            assert!(rest.is_empty());
        }
    }
}

/// A listener that takes nobody lets a connection hang: it waits, however often it is asked
/// after, and is given up when its future is.
#[test]
fn connect_that_hangs_waits_on_and_leaves_nothing_when_it_is_dropped() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&here().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let mut hanging: Vec<_> = (0..4).map(|_| Box::pin(net.connect(address))).collect();
    for _ in 0..10 {
        for connect in &mut hanging {
            let polled = connect.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(connected) = polled {
                panic!("nobody takes it: {connected:?}");
            }
        }
        shard.turn(Wait::NONE).unwrap();
    }
    assert_eq!(shard.in_flight(), 4);
    drop(hanging.pop());
    // Those that waited are told when the listener goes, or when the shard ends.
    let ended = thread::spawn(move || {
        thread::park_timeout(Duration::from_millis(20));
        drop(full);
    });
    ended.join().unwrap();
    assert_eq!(shard.shutdown(), 0);
    for connect in hanging {
        assert!(block_on(&net, connect).unwrap().is_err());
    }
}

/// What an accept was about to take when it was dropped is for the next.
#[test]
fn r13_accepts_that_are_dropped_lose_no_connection() {
    for shard in accepting() {
        let net = ShardNet::new(&shard).unwrap();
        let listener = block_on(&net, net.bind(here(), &ListenOptions::new())).unwrap().unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..50 {
            let mut doomed = Box::pin(listener.accept());
            begin(&mut doomed);
            shard.turn(Wait::NONE).unwrap();
            let peer = TcpStream::connect(address).unwrap();
            drop(doomed);
            let (_stream, from) = block_on(&net, listener.accept()).unwrap().unwrap();
            assert_eq!(from, peer.local_addr().unwrap());
        }
    }
}

#[test]
fn unix_sockets_carry_packets_too() {
    for shard in accepting() {
        let net = ShardNet::new(&shard).unwrap();
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket");
        assert!(net.connect_unix(&path).is_err(), "nobody listens");
        let listener = net.bind_unix(&path, 4).unwrap();
        assert!(net.bind_unix(&path, 4).is_err(), "the name is taken");
        assert!(listener.local_addr().is_err(), "it has no address of a network");
        let at = path.clone();
        let peer = thread::spawn(move || {
            let mut peer = UnixStream::connect(at).unwrap();
            peer.write_all(b"hello").unwrap();
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        block_on(&net, async {
            let stream = listener.accept_stream().await.unwrap();
            let (read, bytes) = stream.read_exact(Whole, vec![0; 5]).await;
            assert_eq!((read, bytes), (Ok(()), b"hello".to_vec()));
            assert_eq!(stream.write_exact((), b"goodbye".to_vec()).await.0, Ok(()));
            assert!(stream.peer_addr().is_err());
        })
        .unwrap();
        assert_eq!(peer.join().unwrap(), b"goodbye");
        // Both ends here.
        block_on(&net, async {
            let ours = net.connect_unix(&path).unwrap();
            let theirs = listener.accept_stream().await.unwrap();
            let (written, read) = both(
                ours.write_exact((), vec![7; 1 << 20]),
                theirs.read_exact(Whole, vec![0; 1 << 20]),
            )
            .await;
            assert_eq!((written.0, read.0), (Ok(()), Ok(())));
            assert!(read.1.iter().all(|&byte| byte == 7));
        })
        .unwrap();
    }
}

/// A connection that was made elsewhere, by either way.
#[test]
fn adopted_connections_work_on_ring_and_threads() {
    fn works<R: Ring>(shard: &Shard<R>) {
        let net = ShardNet::new(shard).unwrap();
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let stream = net.adopt(ours).unwrap();
        let echo = thread::spawn(move || {
            let mut bytes = [0; 4];
            theirs.read_exact(&mut bytes).unwrap();
            theirs.write_all(&bytes).unwrap();
        });
        block_on(&net, async {
            assert_eq!(stream.write_exact((), b"ping".to_vec()).await.0, Ok(()));
            assert_eq!(stream.read_exact(Whole, vec![0; 4]).await.1, b"ping");
        })
        .unwrap();
        echo.join().unwrap();
    }
    if let Some(shard) = shard(8) {
        works(&shard);
    }
    let ring = ThreadRing::new(1, 8).unwrap();
    works(&Shard::with_ring(ring, &Config::new()).unwrap());
}
