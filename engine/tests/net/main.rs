//! Connections of a shard, beyond what every network must do (`rt_suites`): whose memory it is
//! meanwhile, queues that are too short, and what is left when something goes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]
#![allow(clippy::mem_forget, reason = "callers may forget futures")]

use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::{
    Absorbed, ErrorKind, IoRead, IoWrite, Packet, PacketIo, PacketIoExt, Read, Sink, Write,
    block_on,
};
use mfio_engine::buffer::{ArenaConfig, SizeClass, quarantined};
use mfio_engine::fs::ShardFs;
use mfio_engine::net::{ShardNet, ShardStream};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_engine::{Config, Shard};
use mfio_rt::conformance::{bytes_of, get, put};
use mfio_rt::{Fs, ListenOptions, ListenerHandle, Shutdown, StreamHandle, Tcp, Whole};

/// A shard on io_uring whose queue has `entries`, which is shorter than what is asked of it.
fn shard(entries: u32) -> Option<Shard<KernelRing>> {
    match KernelRing::new(&KernelConfig::new(entries)) {
        Ok(ring) => {
            let classes = vec![SizeClass { bytes: 4096, count: 4 }];
            let arena = ArenaConfig::new(classes);
            let config = Config { in_flight_max: 4, backlog_max: 8, arena, ..Config::new() };
            Some(Shard::with_ring(ring, &config).unwrap())
        }
        Err(error) => {
            println!("SKIP {error}");
            None
        }
    }
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

/// The memory of a read whose future has gone is nobody's until the kernel says so.
#[test]
fn f01_buffer_of_a_dropped_read_comes_back_behind_its_completion() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stream, mut peer) = pair(&net);
    let mut others: Vec<_> = (0..3).map(|_| shard.arena().alloc(4096).unwrap()).collect();
    let buffer = shard.arena().alloc(4096).unwrap();
    {
        let mut read = Box::pin(stream.read_exact(Whole, buffer));
        begin(&mut read);
        shard.turn(Wait::NONE).unwrap();
        assert_eq!(shard.in_flight(), 1);
    }
    assert!(shard.arena().alloc(4096).is_none(), "the kernel may still write to it");
    // The kernel does, perhaps: what it got is for the next read.
    peer.write_all(b"payload").unwrap();
    drain(&shard);
    others.push(shard.arena().alloc(4096).expect("it has come back"));
    let (read, bytes) = block_on(&net, stream.read_exact(Whole, vec![0; 7])).unwrap();
    assert_eq!((read, bytes), (Ok(()), b"payload".to_vec()));
}

/// As often as it takes for the cancel to come too late, too.
#[test]
fn f03_dropped_reads_lose_no_byte_however_late_they_are_dropped() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stream, mut peer) = pair(&net);
    for byte in bytes_of(9, 300) {
        let mut doomed = Box::pin(stream.read_exact(Whole, vec![0; 10]));
        begin(&mut doomed);
        shard.turn(Wait::NONE).unwrap();
        peer.write_all(&[byte]).unwrap();
        drop(doomed);
        let (read, found) = block_on(&net, stream.read_exact(Whole, vec![0; 1])).unwrap();
        assert_eq!((read, found), (Ok(()), vec![byte]));
    }
}

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
    let Some(shard) = shard(8) else { return };
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

/// More reads wait than the completion queue has entries, and they all end at once.
#[test]
fn f20_completions_of_more_connections_than_the_queue_has_entries_are_all_seen() {
    let Some(shard) = shard(4) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let mut streams = Vec::new();
    let mut peers = Vec::new();
    for _ in 0..200 {
        let (stream, peer) = pair(&net);
        streams.push(stream);
        peers.push(peer);
    }
    let (all, limits) = (streams.len(), shard.with_ring_ref(Ring::limits));
    assert!(all > limits.cq_entries as usize * 2, "{limits:?}");
    let mut sent: Vec<_> = streams
        .iter()
        .map(|stream| {
            let (sent, view) = Packet::<Read, _>::new(vec![0; 3]).send();
            stream.send_io(Whole, view).unwrap();
            sent
        })
        .collect();
    for _ in 0..all {
        shard.turn(Wait::NONE).unwrap();
    }
    assert_eq!(shard.in_flight() as usize, all, "each waits in the kernel");
    // Meanwhile, there is room for files.
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fs = ShardFs::at(&shard, temp.path()).unwrap();
    block_on(&fs, async {
        put(fs.current_dir(), "beside", bytes_of(3, 100_000)).await;
        assert!(get(fs.current_dir(), "beside").await == bytes_of(3, 100_000));
    })
    .unwrap();
    for peer in &mut peers {
        peer.write_all(b"abc").unwrap();
    }
    for waiting in &mut sent {
        block_on(&net, poll_fn(|cx| waiting.poll_done(cx))).unwrap();
    }
    for waiting in sent {
        assert_eq!(waiting.into_completed().unwrap().bytes(), b"abc");
    }
    assert_eq!(shard.in_flight(), 0);
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

/// Ops that wait for peers fill the queue: what is behind them goes to the kernel all the same,
/// without a completion that would make room.
#[test]
fn f19_peers_that_say_nothing_keep_nothing_else_from_the_kernel() {
    for hosted in [false, true] {
        let Some(shard) = shard(4) else { return };
        let net = ShardNet::new(&shard).unwrap();
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let fs = ShardFs::at(&shard, temp.path()).unwrap();
        let file = block_on(&fs, async {
            put(fs.current_dir(), "file", bytes_of(5, 3000)).await;
            fs.open("file", &mfio_rt::OpenOptions::new().read(true)).await.unwrap()
        })
        .unwrap();
        let (streams, mut peers): (Vec<_>, Vec<_>) = (0..13).map(|_| pair(&net)).unzip();
        drain(&shard);
        let mut sent: Vec<_> = streams
            .iter()
            .map(|stream| {
                let (sent, view) = Packet::<Read, _>::new(vec![0; 3]).send();
                stream.send_io(Whole, view).unwrap();
                sent
            })
            .collect();
        peers.pop().unwrap().write_all(b"abc").unwrap();
        let (over, rescue) = rescue(peers);
        let mut last = sent.pop().unwrap();
        let work = async {
            let (read, bytes) = file.read_exact(0, vec![0; 3000]).await;
            assert_eq!(read, Ok(()));
            assert!(bytes == bytes_of(5, 3000));
            poll_fn(|cx| last.poll_done(cx)).await;
        };
        if hosted {
            shard.block_on(work).unwrap();
        } else {
            block_on(&net, work).unwrap();
        }
        drop(over);
        assert!(!rescue.join().unwrap(), "the shard slept on ops that it had not handed over");
        assert_eq!(last.into_completed().unwrap().bytes(), b"abc");
        assert_eq!(shard.in_flight(), 12, "the others still wait");
    }
}

/// Many connections by a queue of four, in both directions, each with its own bytes.
#[test]
fn f19_queue_of_four_entries_serves_fifty_connections_and_files() {
    let Some(shard) = shard(4) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fs = ShardFs::at(&shard, temp.path()).unwrap();
    let serve = async {
        let listener = net.bind(here(), &ListenOptions::new()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut servers = Vec::new();
        for seed in 0..50_u64 {
            // The peer's end is on the same shard.
            let (stream, peer) = both(net.connect(address), listener.accept()).await;
            let (stream, (peer, _)) = (stream.unwrap(), peer.unwrap());
            let len = 1 + usize::try_from(seed * 7919 % 200_000).unwrap();
            servers.push(shard.spawn(async move {
                let bytes = bytes_of(seed, len);
                let send = async {
                    for part in bytes.chunks(30_000) {
                        let (written, _) = stream.write_exact((), part.to_vec()).await;
                        assert_eq!(written, Ok(()));
                    }
                    stream.shutdown(Shutdown::Write).await.unwrap();
                };
                let receive = peer.read_exact(Whole, vec![0; bytes.len()]);
                let (_, (read, found)) = both(send, receive).await;
                assert_eq!(read, Ok(()));
                assert!(found == bytes, "{seed}");
                let (rest, error, _) = peer.read_some((), vec![0; 10]).await;
                assert_eq!((rest, error), (0, None), "and nothing more");
            }));
        }
        for (seed, server) in (0..).zip(servers) {
            server.unwrap().await.unwrap();
            put(fs.current_dir(), format!("{seed}"), bytes_of(seed, 5000)).await;
        }
    };
    block_on(&net, serve).unwrap();
    drain(&shard);
    assert_eq!(shard.metrics().stale_completions, 0);
}

/// Dropped or not: half of a write would make what follows it mean something else.
#[test]
fn f03_write_that_is_partly_sent_is_sent_to_its_end_whoever_has_gone() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let stream = net.adopt(ours).unwrap();
    let expected = bytes_of(4, 3 << 20);
    let mut write = Box::pin(stream.write_exact((), expected.clone()));
    let mut unsent = Box::pin(stream.write_exact((), vec![0; 100]));
    begin(&mut write);
    begin(&mut unsent);
    for _ in 0..5 {
        shard.turn(Wait::NONE).unwrap();
    }
    begin(&mut write);
    drop((write, unsent));
    let received = thread::spawn(move || {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        all
    });
    let (written, _) = block_on(&net, stream.write_exact((), vec![9; 5])).unwrap();
    assert_eq!(written, Ok(()));
    drop(stream);
    let received = received.join().unwrap();
    assert_eq!(received.len(), expected.len() + 5, "all of the first, none of the second");
    assert!(received.starts_with(&expected) && received.ends_with(&[9; 5]));
}

/// A read that has completed has taken its bytes, whether or not anybody has looked.
#[test]
fn r13_read_that_completed_before_it_was_dropped_has_taken_its_bytes() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stream, mut peer) = pair(&net);
    drain(&shard);
    peer.write_all(b"onetwosix").unwrap();
    let mut read = Box::pin(stream.read_exact(Whole, vec![0; 3]));
    begin(&mut read);
    shard.turn(Wait::at_least(1)).unwrap();
    assert_eq!(shard.in_flight(), 0, "it has completed");
    drop(read);
    let (read, bytes) = block_on(&net, stream.read_exact(Whole, vec![0; 3])).unwrap();
    assert_eq!((read, bytes), (Ok(()), b"two".to_vec()), "what came first has gone");
    // Whoever cancels it and waits is told.
    let mut read = Box::pin(stream.io(Whole, Packet::<Read, _>::new(vec![0; 3])));
    begin(&mut read);
    shard.turn(Wait::at_least(1)).unwrap();
    read.cancel();
    assert_eq!(block_on(&net, read).unwrap().bytes(), b"six");
}

/// Nobody waits for a part of it that was overlooked.
#[test]
fn f03_abandoned_packet_leaves_with_all_of_its_views() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stream, mut peer) = pair(&net);
    let (mut sent, view) = Packet::<Read, _>::new(vec![0; 40]).send();
    let packet = view.packet_id();
    let mut rest = Some(view);
    while let Some(view) = rest.take() {
        let (first, others) = view.split_at(10);
        stream.send_io(Whole, first).unwrap();
        rest = (!others.is_empty()).then_some(others);
    }
    shard.turn(Wait::NONE).unwrap();
    PacketIo::<Read, Whole>::abandon(&stream, packet);
    let (over, rescue) = rescue(vec![peer.try_clone().unwrap()]);
    block_on(&net, poll_fn(|cx| sent.poll_done(cx))).unwrap();
    drop(over);
    assert!(!rescue.join().unwrap(), "a part of it was still waited for");
    let kind = sent.into_completed().unwrap().error().map(|error| error.kind());
    assert_eq!(kind, Some(ErrorKind::Cancelled));
    peer.write_all(b"next").unwrap();
    let (read, bytes) = block_on(&net, stream.read_exact(Whole, vec![0; 4])).unwrap();
    assert_eq!((read, bytes), (Ok(()), b"next".to_vec()));
}

#[test]
fn f03_packet_of_several_views_is_sent_whole_or_not_at_all() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    for begun in [true, false] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let stream = net.adopt(ours).unwrap();
        let (filler, view) = Packet::<Write, _>::new(bytes_of(4, 2 << 20)).send();
        if !begun {
            stream.send_io((), view).unwrap();
        }
        let (sent, view) = Packet::<Write, _>::new(bytes_of(5, 3 << 20)).send();
        let packet = view.packet_id();
        let (first, rest) = view.split_at((3 << 20) - 200);
        let (second, third) = rest.split_at(100);
        for view in [first, second, third] {
            stream.send_io((), view).unwrap();
        }
        for _ in 0..5 {
            shard.turn(Wait::NONE).unwrap();
        }
        PacketIo::<Write, ()>::abandon(&stream, packet);
        let received = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        assert_eq!(block_on(&net, stream.write_exact((), vec![9; 5])).unwrap().0, Ok(()));
        drop(stream);
        let received = received.join().unwrap();
        let mut expected = if begun { bytes_of(5, 3 << 20) } else { bytes_of(4, 2 << 20) };
        expected.extend([9; 5]);
        assert_eq!(received.len(), expected.len(), "begun: {begun}");
        assert!(received == expected);
        drop((filler, sent));
    }
}

/// The rest of a value that was on a stack was copied, and is sent although the stack has gone.
#[test]
fn f03_value_on_a_stack_that_is_partly_sent_is_sent_to_its_end() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    for big in [false, true] {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        socket2::SockRef::from(&ours).set_send_buffer_size(4 << 10).unwrap();
        let stream = net.adopt(ours).unwrap();
        if big {
            let mut write = Box::pin(stream.write_value((), [7_u8; 100_000]));
            begin(&mut write);
            drain_all(&shard);
        } else {
            let mut write = Box::pin(stream.write_value((), [7_u8; 60_000]));
            begin(&mut write);
            drain_all(&shard);
        }
        let received = thread::spawn(move || {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).unwrap();
            all
        });
        let (written, _) = block_on(&net, stream.write_exact((), vec![9; 5])).unwrap();
        if big {
            // Torn, and said to be: nothing follows, and the peer is not left waiting.
            assert_eq!(written.map_err(|error| error.kind()), Err(ErrorKind::Aborted));
            assert!(received.join().unwrap().len() < 100_000);
        } else {
            assert_eq!(written, Ok(()));
            drop(stream);
            let mut expected = vec![7; 60_000];
            expected.extend([9; 5]);
            assert!(received.join().unwrap() == expected);
        }
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

struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn len(&mut self, end: u64) -> usize {
        usize::try_from(self.below(end)).unwrap()
    }
}

/// Lets the other side go on, now and then.
async fn rest(turns: u64) {
    for _ in 0..turns {
        let mut asked = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut asked, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
}

/// Polls a future a few times; what it has come to, if anything, and else it is dropped.
async fn doomed<T>(future: impl Future<Output = T>, turns: u64) -> Option<T> {
    let mut future = pin!(future);
    for _ in 0..turns {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = polled {
            return Some(done);
        }
        rest(1).await;
    }
    match poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(done) => Some(done),
        Poll::Pending => None,
    }
}

fn frame(number: u32, len: usize) -> Vec<u8> {
    let mut frame = number.to_le_bytes().to_vec();
    frame.extend_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
    frame.extend(bytes_of(number.into(), len));
    frame
}

/// The numbers of the frames in `bytes`, which have nothing between them.
fn numbers_of(mut bytes: &[u8]) -> Vec<u32> {
    let mut numbers = Vec::new();
    while !bytes.is_empty() {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (number, len) = (word(0), word(4) as usize);
        assert!(bytes[8..8 + len] == bytes_of(number.into(), len), "frame {number}");
        numbers.push(number);
        bytes = &bytes[8 + len..];
    }
    numbers
}

async fn send_frames(stream: &ShardStream<KernelRing>, random: &mut Random) -> Vec<u32> {
    let mut certain = Vec::new();
    for number in 0..120 {
        let bytes = frame(number, random.len(60_000));
        if random.below(3) == 0 {
            let turns = random.below(12);
            let done = doomed(stream.write_exact((), bytes), turns).await;
            if done.is_some_and(|(result, _)| result.is_ok()) {
                certain.push(number);
            }
        } else {
            assert_eq!(stream.write_exact((), bytes).await.0, Ok(()));
            certain.push(number);
        }
        rest(random.below(3)).await;
    }
    stream.shutdown(Shutdown::Write).await.unwrap();
    certain
}

async fn receive_all(stream: &ShardStream<KernelRing>, random: &mut Random) -> Vec<u8> {
    let mut found = Vec::new();
    loop {
        let buffer = vec![0; 1 + random.len(5_000)];
        let done = match random.below(3) {
            0 => {
                let turns = random.below(4);
                match doomed(stream.io((), Packet::<Read, _>::new(buffer)), turns).await {
                    Some(done) => done,
                    None => continue,
                }
            }
            1 => stream.io(Whole, Packet::<Read, _>::new(buffer)).await,
            _ => stream.io((), Packet::<Read, _>::new(buffer)).await,
        };
        found.extend_from_slice(done.bytes());
        let kind = done.error().map(|error| error.kind());
        assert!(matches!(kind, None | Some(ErrorKind::UnexpectedEof)), "{kind:?}");
        if done.bytes().is_empty() {
            return found;
        }
        rest(random.below(3)).await;
    }
}

/// Reads and writes that are dropped at any moment: a frame arrives whole or not at all, in
/// order, and those that are said to be written do arrive.
#[test]
fn f03_packets_dropped_at_any_moment_tear_no_stream() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let mut doubtful = 0;
    for seed in 1..20_u64 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        // So little that frames are sent in parts.
        socket2::SockRef::from(&ours).set_send_buffer_size(4 << 10).unwrap();
        let (ours, theirs) = (net.adopt(ours).unwrap(), net.adopt(theirs).unwrap());
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut other = Random(random.below(u64::MAX) | 1);
        let work = both(send_frames(&ours, &mut random), receive_all(&theirs, &mut other));
        let (certain, found) = shard.block_on(work).unwrap();
        let numbers = numbers_of(&found);
        assert!(numbers.is_sorted_by(|one, next| one < next), "seed {seed}: {numbers:?}");
        assert!(certain.iter().all(|number| numbers.contains(number)), "seed {seed}");
        doubtful += 120 - certain.len();
    }
    println!("{doubtful} writes were dropped before they were over");
    assert!(doubtful > 100);
    drain(&shard);
}

/// Takes bytes and keeps none.
struct Nowhere(u64);

impl Sink for Nowhere {
    fn len(&self) -> u64 {
        self.0
    }

    fn write_at(&self, _at: u64, _from: &[u8]) {}
}

/// Reads that lend no memory take none of the arena while they wait.
#[test]
fn waiting_connections_hold_no_buffer_of_the_arena() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let mut waiting = Vec::new();
    for _ in 0..10 {
        let (stream, peer) = pair(&net);
        let (sent, view) = Packet::<Read, _>::new(Absorbed(Nowhere(1 << 20))).send();
        stream.send_io(Whole, view).unwrap();
        waiting.push((stream, peer, sent));
    }
    shard.turn(Wait::NONE).unwrap();
    let buffers: Vec<_> = (0..4).map(|_| shard.arena().alloc(4096).unwrap()).collect();
    assert_eq!(buffers.len(), 4);
}

/// One op takes them all; what nobody asks for is taken up to a limit, and what nobody got is
/// closed with the listener.
#[test]
fn connections_are_taken_in_order_with_a_limit_and_closed_with_their_listener() {
    let Some(shard) = shard(8) else { return };
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
    assert!(
        ops < 10
            || !shard.with_ring_ref(|ring| ring.features().in_use.contains(&"ACCEPT_MULTISHOT"))
    );
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

/// A few turns, for whatever is under way without an end.
fn drain_all<R: Ring>(shard: &Shard<R>) {
    for _ in 0..10 {
        shard.turn(Wait::NONE).unwrap();
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
    let Some(shard) = shard(8) else { return };
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

/// Ops that wait for peers give no memory back, so nobody waits for them to.
#[test]
fn file_that_finds_no_buffer_fails_although_peers_are_waited_for() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let fs = ShardFs::at(&shard, temp.path()).unwrap();
    block_on(&fs, put(fs.current_dir(), "file", bytes_of(3, 1000))).unwrap();
    let file = block_on(&fs, fs.open("file", &mfio_rt::OpenOptions::new().read(true)));
    let file = file.unwrap().unwrap();
    let (stream, _peer) = pair(&net);
    let (_waiting, view) = Packet::<Read, _>::new(vec![0; 10]).send();
    stream.send_io(Whole, view).unwrap();
    shard.turn(Wait::NONE).unwrap();
    let buffers: Vec<_> = (0..4).map(|_| shard.arena().alloc(4096).unwrap()).collect();
    // A packet that lends no memory has to go by a buffer of the arena.
    let packet = || Packet::<Read, _>::new(Absorbed(Nowhere(100)));
    let done = block_on(&fs, file.io(0, packet())).unwrap();
    assert_eq!(
        done.error().map(|error| error.errno()),
        Some(Some(nix::errno::Errno::ENOMEM as i32))
    );
    drop(buffers);
    assert!(block_on(&fs, file.io(0, packet())).unwrap().is_ok());
}

#[test]
fn unix_sockets_carry_packets_too() {
    let Some(shard) = shard(8) else { return };
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

/// A connection that a thread breaks while the shard sleeps in the ring.
#[test]
fn shard_that_sleeps_is_woken_by_a_peer() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stream, mut peer) = pair(&net);
    let late = thread::spawn(move || {
        thread::park_timeout(Duration::from_millis(50));
        peer.write_all(b"x").unwrap();
        peer
    });
    let enters = shard.metrics().enters;
    let (read, _) = block_on(&net, stream.read_exact(Whole, vec![0; 1])).unwrap();
    assert_eq!(read, Ok(()));
    let enters = shard.metrics().enters - enters;
    assert!(enters < 20, "it slept: {enters} calls");
    drop(late.join());
}

/// Writes wait with a limit, and the limit is the connection's own.
#[test]
fn r20_peer_that_does_not_read_fills_its_own_queue_and_no_other() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stuck, _silent) = pair(&net);
    let (other, mut peer) = pair(&net);
    let mut sent = Vec::new();
    loop {
        let (waiting, view) = Packet::<Write, _>::new(vec![0; 1 << 20]).send();
        sent.push(waiting);
        if stuck.send_io((), view).is_err() {
            break;
        }
        shard.turn(Wait::NONE).unwrap();
    }
    assert!(sent.len() > 64, "{}", sent.len());
    let mut room = pin!(poll_fn(|cx| PacketIo::<Write, ()>::poll_ready(&stuck, cx)));
    assert!(room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let (written, _) = block_on(&net, other.write_exact((), b"free".to_vec())).unwrap();
    assert_eq!(written, Ok(()));
    let mut bytes = [0; 4];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"free");
    drop(stuck);
    let mut failed = 0;
    for mut waiting in sent {
        block_on(&net, poll_fn(|cx| waiting.poll_done(cx))).unwrap();
        failed += u32::from(!waiting.into_completed().unwrap().is_ok());
    }
    assert!(failed >= 64, "what was not sent is said not to be: {failed}");
}

/// Whoever reads in place gets the bytes in place: no copy, and no call beside the ring's.
#[test]
fn r07_exchange_of_one_packet_at_a_time_costs_few_calls() {
    let Some(shard) = shard(8) else { return };
    let net = ShardNet::new(&shard).unwrap();
    let (stream, mut peer) = pair(&net);
    let echo = thread::spawn(move || {
        let mut bytes = [0; 64];
        for _ in 0..200 {
            peer.read_exact(&mut bytes).unwrap();
            peer.write_all(&bytes).unwrap();
        }
    });
    let before = shard.metrics();
    // The shard's own loop, which submits and waits in one call.
    let ran = shard.block_on(async {
        let mut bytes = vec![5; 64];
        for _ in 0..200 {
            let (sent, back) = stream.write_exact((), bytes).await;
            assert_eq!(sent, Ok(()));
            let (read, again) = stream.read_exact(Whole, back).await;
            assert_eq!(read, Ok(()));
            bytes = again;
        }
    });
    ran.unwrap();
    let (enters, ops) = (shard.metrics().enters - before.enters, shard.metrics().ops - before.ops);
    println!("{enters} calls and {ops} ops for 200 exchanges");
    assert_eq!(ops, 400, "one op each way");
    assert!(enters <= 450, "about one call for each: {enters}");
    echo.join().unwrap();
}
