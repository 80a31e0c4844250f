//! Rules for connections, against peers of `std`.
//!
//! Data flow: see [`conformance`](super); a thread is the other end.
//!
//! Not here: more than one machine.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use mfio_core::stream::Sequential;
use mfio_core::{Absorbed, Generated, Packet, PacketIo, PacketIoExt, Read, Sink, Source, Write};
use mfio_core::{ErrorKind as ByteKind, IoRead, IoWrite};

use super::{Boxed, all, bytes_of};
use crate::error::ErrorKind;
use crate::lock::Lock;
use crate::net::{ListenOptions, ListenerHandle, Shutdown, StreamHandle, Tcp, Whole};

/// Connections at a time in the rules named `con`.
const AT_ONCE: u64 = 16;

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A peer of `std` that serves one connection.
fn peer<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (SocketAddr, JoinHandle<T>) {
    let listener = TcpListener::bind(here()).expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    (address, thread::spawn(move || serve(listener.accept().expect("somebody connects").0)))
}

fn length(seed: u64) -> usize {
    [1, 100, 65_536, 300_000][usize::try_from(seed % 4).unwrap_or(0)]
}

async fn connected<N: Tcp>(net: &N, address: SocketAddr) -> N::Stream {
    net.connect(address).await.expect("somebody listens")
}

/// Reads to the end, in parts as they come.
async fn rest<S: StreamHandle>(stream: &S) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (read, error, bytes) = stream.read_some((), vec![0; 50_000]).await;
        assert_eq!(error, None, "nothing breaks the connection");
        if read == 0 {
            return all;
        }
        all.extend_from_slice(&bytes[..usize::try_from(read).unwrap_or(0)]);
    }
}

/// Connects, and both ends know each other.
pub async fn tcp_connect<N: Tcp>(net: &N) {
    let (address, served) = peer(|stream| stream.peer_addr().expect("it is connected"));
    let stream = connected(net, address).await;
    assert_eq!(stream.peer_addr().expect("it is connected"), address);
    let ours = stream.local_addr().expect("it is connected");
    assert_eq!(served.join().expect("the peer is fine"), ours);
}

/// Takes connections, one after another.
pub async fn tcp_listen<N: Tcp>(net: &N) {
    let listener = net.bind(here(), &ListenOptions::new()).await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    for _ in 0..5 {
        let peer = thread::spawn(move || TcpStream::connect(address).expect("it listens"));
        let (stream, from) = listener.accept().await.expect("somebody connects");
        let theirs = peer.join().expect("the peer is fine");
        assert_eq!(theirs.local_addr().expect("it is connected"), from);
        assert_eq!(stream.peer_addr().expect("it is connected"), from);
    }
}

async fn receive<N: Tcp>(net: &N, seed: u64) {
    let (address, served) = peer(move |mut stream| {
        stream.write_all(&bytes_of(seed, length(seed))).expect("we read");
    });
    let stream = connected(net, address).await;
    assert!(rest(&stream).await == bytes_of(seed, length(seed)), "{seed}");
    served.join().expect("the peer is fine");
}

/// Reads what a peer sends, to the end.
pub async fn tcp_receive_seq<N: Tcp>(net: &N) {
    for seed in 0..8 {
        receive(net, seed).await;
    }
}

/// The same on several connections.
pub async fn tcp_receive_con<N: Tcp>(net: &N) {
    all((0..AT_ONCE).map(|seed| -> Boxed<'_, ()> { Box::pin(receive(net, seed)) }).collect()).await;
}

async fn send<N: Tcp>(net: &N, seed: u64) {
    let (address, served) = peer(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("we write");
        all
    });
    let stream = connected(net, address).await;
    let (result, bytes) = stream.write_exact((), bytes_of(seed, length(seed))).await;
    assert_eq!(result, Ok(()));
    drop(stream);
    assert!(served.join().expect("the peer is fine") == bytes, "{seed}");
}

/// Writes, and closes.
pub async fn tcp_send_seq<N: Tcp>(net: &N) {
    for seed in 0..8 {
        send(net, seed).await;
    }
}

/// The same on several connections.
pub async fn tcp_send_con<N: Tcp>(net: &N) {
    all((0..AT_ONCE).map(|seed| -> Boxed<'_, ()> { Box::pin(send(net, seed)) }).collect()).await;
}

fn echo(mut stream: TcpStream) {
    let mut bytes = [0; 10_000];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        stream.write_all(&bytes[..read]).expect("we read");
    }
}

async fn echo_client<N: Tcp>(net: &N, seed: u64) {
    let (address, served) = peer(echo);
    let stream = connected(net, address).await;
    let stream = &stream;
    let expected = bytes_of(seed, length(seed) * 4);
    let sent = expected.clone();
    let both: Vec<Boxed<'_, Vec<u8>>> = vec![
        Box::pin(async move {
            assert_eq!(stream.write_exact((), sent).await.0, Ok(()));
            stream.shutdown(Shutdown::Write).await.expect("it is connected");
            Vec::new()
        }),
        Box::pin(rest(stream)),
    ];
    assert!(all(both).await[1] == expected, "{seed}");
    served.join().expect("the peer is fine");
}

/// Writes and reads at the same time, and ends only one of them.
pub async fn tcp_echo_client_seq<N: Tcp>(net: &N) {
    for seed in 0..8 {
        echo_client(net, seed).await;
    }
}

/// The same on several connections.
pub async fn tcp_echo_client_con<N: Tcp>(net: &N) {
    let clients = (0..AT_ONCE).map(|seed| -> Boxed<'_, ()> { Box::pin(echo_client(net, seed)) });
    all(clients.collect()).await;
}

/// Serves one connection, not necessarily that of the peer it starts: join it in the end.
async fn echo_server<L: ListenerHandle>(listener: &L, seed: u64) -> JoinHandle<()> {
    let address = listener.local_addr().expect("it listens");
    let peer = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).expect("it listens");
        let mut back = stream.try_clone().expect("a descriptor is free");
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            back.read_to_end(&mut all).expect("it is echoed");
            all
        });
        let sent = bytes_of(seed, length(seed));
        stream.write_all(&sent).expect("it is read");
        stream.shutdown(std::net::Shutdown::Write).expect("it is connected");
        assert!(reader.join().expect("the reader is fine") == sent, "{seed}");
    });
    let (stream, _) = listener.accept().await.expect("somebody connects");
    loop {
        let (read, error, mut bytes) = stream.read_some((), vec![0; 5_000]).await;
        assert_eq!(error, None);
        if read == 0 {
            break;
        }
        bytes.truncate(usize::try_from(read).unwrap_or(0));
        assert_eq!(stream.write_exact((), bytes).await.0, Ok(()));
    }
    peer
}

/// Answers one peer after another.
pub async fn tcp_echo_server_seq<N: Tcp>(net: &N) {
    let listener = net.bind(here(), &ListenOptions::new()).await.expect("a port is free");
    for seed in 0..8 {
        echo_server(&listener, seed).await.join().expect("the peer is fine");
    }
}

/// Answers several at the same time.
pub async fn tcp_echo_server_con<N: Tcp>(net: &N) {
    let listener = net.bind(here(), &ListenOptions::new()).await.expect("a port is free");
    let servers = (0..4)
        .map(|_| -> Boxed<'_, JoinHandle<()>> { Box::pin(echo_server(&listener, 3)) })
        .collect();
    for peer in all(servers).await {
        peer.join().expect("the peer is fine");
    }
}

/// No bytes are the end, every time it is asked, and as a packet it says so.
pub async fn the_end_of_a_stream_is_told_apart_from_errors<N: Tcp>(net: &N) {
    let (address, served) = peer(|mut stream| stream.write_all(b"abc").expect("we read"));
    let stream = connected(net, address).await;
    served.join().expect("the peer is fine");
    let (result, _) = stream.read_exact(Whole, vec![0; 5]).await;
    assert_eq!(result.map_err(|error| error.kind()), Err(ByteKind::UnexpectedEof));
    for _ in 0..3 {
        let (read, error, _) = stream.read_some((), vec![0; 5]).await;
        assert_eq!((read, error), (0, None));
    }
    let mut stream = Sequential::new(stream);
    assert_eq!(stream.read_async(&mut [0; 4]).await, Ok(0));
}

/// An empty packet succeeds, before and after the end (R8).
pub async fn empty_packets_keep_their_turn<N: Tcp>(net: &N) {
    let (address, served) = peer(drop);
    let stream = connected(net, address).await;
    assert_eq!(stream.write_exact((), Vec::new()).await.0, Ok(()));
    served.join().expect("the peer is fine");
    assert_eq!(rest(&stream).await, []);
    assert_eq!(stream.read_exact((), Vec::new()).await.0, Ok(()));
    assert_eq!(stream.read_exact(Whole, Vec::new()).await.0, Ok(()));
}

/// Reads that wait for all and reads that take what comes, each in its turn.
pub async fn reads_of_a_part_and_of_the_whole_take_turns<N: Tcp>(net: &N) {
    let (address, served) = peer(|mut stream| {
        for part in bytes_of(2, 1000).chunks(7) {
            stream.write_all(part).expect("we read");
            stream.flush().expect("we read");
        }
    });
    let stream = connected(net, address).await;
    let (stream, expected) = (&stream, bytes_of(2, 1000));
    let wholes = (0..10).map(|_| -> Boxed<'_, Vec<u8>> {
        Box::pin(async move {
            let (result, bytes) = stream.read_exact(Whole, vec![0; 90]).await;
            assert_eq!(result, Ok(()));
            bytes
        })
    });
    let mut found = all(wholes.collect()).await.concat();
    found.extend(rest(stream).await);
    assert!(found == expected);
    served.join().expect("the peer is fine");
}

/// A port without a listener refuses, and so does one that is taken.
pub async fn nobody_listens_is_an_error<N: Tcp>(net: &N) {
    let listener = net.bind(here(), &ListenOptions::new()).await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let again = net.bind(address, &ListenOptions::new()).await.map(|_| ());
    assert_eq!(again.map_err(|error| error.kind()), Err(ErrorKind::AddressInUse));
    drop(listener);
    let refused = net.connect(address).await.map(|_| ());
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
}

/// What waits for a connection that is dropped fails, and is not given to another (R5).
pub async fn a_dropped_stream_fails_what_waits<N: Tcp>(net: &N) {
    for _ in 0..20 {
        let (address, _served) = peer(|mut stream| stream.read(&mut [0; 1]).is_ok());
        let stream = connected(net, address).await;
        let (mut sent, view) = Packet::<Read, _>::new(vec![0; 100]).send();
        assert!(stream.send_io(Whole, view).is_ok(), "there is room");
        drop(stream);
        poll_fn(|cx| sent.poll_done(cx)).await;
        let done = sent.into_completed().expect("it is done");
        assert!(!done.is_ok(), "nothing was sent");
        receive(net, 1).await;
    }
}

/// A read that nobody waits for any more takes no bytes from the next.
pub async fn a_dropped_read_loses_no_other<N: Tcp>(net: &N) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (address, served) = peer(move |mut stream| {
        wait.recv().expect("we say when");
        stream.write_all(b"payload").expect("we read");
    });
    let stream = connected(net, address).await;
    {
        let mut dropped = pin!(stream.read_exact(Whole, vec![0; 3]));
        let ready = poll_fn(|cx| Poll::Ready(dropped.as_mut().poll(cx).is_ready())).await;
        assert!(!ready, "nothing has come");
    }
    go.send(()).expect("the peer waits");
    assert_eq!(rest(&stream).await, b"payload");
    served.join().expect("the peer is fine");
}

/// A peer that does not read makes its writers wait, with a limit, until it reads (R20).
pub async fn a_full_connection_refuses_and_recovers<N: Tcp>(net: &N) {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (address, served) = peer(move |mut stream| {
        wait.recv().expect("we say when");
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("we write");
        all.len()
    });
    let stream = connected(net, address).await;
    let mut sent = Vec::new();
    let refused = loop {
        let (waiting, view) = Packet::<Write, _>::new(vec![1; 1 << 20]).send();
        sent.push(waiting);
        assert!(sent.len() < 10_000, "there is a limit");
        if let Err(refused) = stream.send_io((), view) {
            break refused;
        }
    };
    go.send(()).expect("the peer waits");
    poll_fn(|cx| PacketIo::<Write, ()>::poll_ready(&stream, cx)).await;
    assert!(stream.send_io((), refused.view).is_ok(), "there is room again");
    for waiting in &mut sent {
        poll_fn(|cx| waiting.poll_done(cx)).await;
    }
    let count = sent.len();
    stream.shutdown(Shutdown::Write).await.expect("it is connected");
    assert_eq!(served.join().expect("the peer is fine"), count << 20);
}

/// A peer that neither reads nor writes is nobody else's trouble.
pub async fn a_stuck_peer_delays_nobody<N: Tcp>(net: &N) {
    let listener = TcpListener::bind(here()).expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let mut stuck = Vec::new();
    for _ in 0..40 {
        let stream = connected(net, address).await;
        let (reading, view) = Packet::<Read, _>::new(vec![0; 100]).send();
        assert!(stream.send_io(Whole, view).is_ok(), "there is room");
        let (writing, view) = Packet::<Write, _>::new(vec![0; 20 << 20]).send();
        assert!(stream.send_io((), view).is_ok(), "there is room");
        stuck.push((stream, reading, writing));
    }
    for seed in 0..8 {
        echo_client(net, seed).await;
    }
    assert!(stuck.iter().all(|(_, reading, writing)| !reading.is_done() && !writing.is_done()));
}

/// A connection that the other side broke is an error, for all that waits and follows.
pub async fn a_broken_connection_fails_everything_after<N: Tcp>(net: &N) {
    let (address, served) = peer(|mut stream| {
        stream.read_exact(&mut [0]).expect("we write");
        let socket = socket2::SockRef::from(&stream);
        socket.set_linger(Some(Duration::ZERO)).expect("it is a socket");
    });
    let stream = connected(net, address).await;
    assert_eq!(stream.write_exact((), vec![1]).await.0, Ok(()));
    served.join().expect("the peer is fine");
    let mut failed = 0;
    for _ in 0..1000 {
        let (result, _) = stream.write_exact((), vec![1; 1000]).await;
        failed += u32::from(result.is_err());
        if failed == 3 {
            return;
        }
    }
    panic!("writes to a broken connection succeed");
}

struct Counting(u64);

impl Source for Counting {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, at: u64, to: &mut [u8]) {
        for (byte, at) in to.iter_mut().zip(at..) {
            *byte = (at / 3).to_le_bytes()[0];
        }
    }
}

struct Kept(u64, Arc<Lock<Vec<u8>>>);

impl Sink for Kept {
    fn len(&self) -> u64 {
        self.0
    }

    fn write_at(&self, at: u64, from: &[u8]) {
        let at = usize::try_from(at).expect("it fits in memory");
        self.1.with(|bytes| bytes[at..at + from.len()].copy_from_slice(from));
    }
}

/// Packets without a buffer, in both directions (R14).
pub async fn made_up_bytes_go_through_whole<N: Tcp>(net: &N) {
    let (address, served) = peer(echo);
    let stream = connected(net, address).await;
    let (stream, len) = (&stream, 200_000);
    let bytes = Arc::new(Lock::new(vec![0; 200_000]));
    let sink = Absorbed(Kept(len, Arc::clone(&bytes)));
    let both: Vec<Boxed<'_, bool>> = vec![
        Box::pin(async move {
            stream.io((), Packet::<Write, _>::new(Generated(Counting(len)))).await.is_ok()
        }),
        Box::pin(async move { stream.io(Whole, Packet::<Read, _>::new(sink)).await.is_ok() }),
    ];
    assert_eq!(all(both).await, [true, true]);
    let mut expected = vec![0; 200_000];
    Counting(len).read_at(0, &mut expected);
    assert!(bytes.with(|bytes| *bytes == expected));
    stream.shutdown(Shutdown::Both).await.expect("it is connected");
    served.join().expect("the peer is fine");
}

/// What was sent first goes first, however many are under way (R11).
pub async fn many_writes_keep_their_order<N: Tcp>(net: &N) {
    let (address, served) = peer(|mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).expect("we write");
        all
    });
    let stream = connected(net, address).await;
    let shared = &stream;
    let mut expected = Vec::new();
    let writes: Vec<Boxed<'_, ()>> = (0..60_u64)
        .map(|seed| -> Boxed<'_, ()> {
            let bytes = bytes_of(seed, 1 + length(seed) / 2);
            expected.extend_from_slice(&bytes);
            Box::pin(async move { assert_eq!(shared.write_exact((), bytes).await.0, Ok(())) })
        })
        .collect();
    all(writes).await;
    drop(stream);
    assert!(served.join().expect("the peer is fine") == expected);
}

/// Settings of a socket are accepted.
pub async fn settings_are_taken<N: Tcp>(net: &N) {
    let listener = net.bind(here(), &ListenOptions::new().backlog(5)).await;
    let address = listener.as_ref().expect("a port is free").local_addr().expect("it listens");
    let stream = connected(net, address).await;
    stream.set_nodelay(true).expect("it is a socket");
    stream.set_keepalive(Some(Duration::from_secs(30))).expect("it is a socket");
    stream.set_keepalive(None).expect("it is a socket");
    let shared = net.bind(here(), &ListenOptions::new().reuse_port(true)).await;
    if let Ok(shared) = &shared {
        let address = shared.local_addr().expect("it listens");
        let options = ListenOptions::new().reuse_port(true);
        net.bind(address, &options).await.expect("the address is shared");
    }
}
