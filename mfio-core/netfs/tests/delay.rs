//! What a stuck peer costs the others, measured (F49): over TCP, one server, one thread.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(clippy::print_stdout, reason = "the figures are what this test is for")]

mod peer;

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use mfio_core::{IoRead as _, block_on};
use mfio_netfs::wire::{HEADER_BYTES, Request, frame};
use mfio_netfs::{Config, NetFs, ServerConfig};
use mfio_rt::conformance::{bytes_of, put};
use mfio_rt::portable::Portable;
use mfio_rt::{DirHandle as _, Follow, Fs as _, OpenOptions};
use peer::{Raw, listening};

const FILE_BYTES: usize = 8 << 20;
const READ_BYTES: usize = 64 << 10;
const ROUNDS: u64 = 300;

#[allow(clippy::disallowed_methods, reason = "a delay between processes is real time")]
fn now() -> Instant {
    Instant::now()
}

/// Asks for more than any buffer holds, and takes nothing.
fn reads_no_replies(address: SocketAddr) -> Raw<TcpStream> {
    let raw = Raw::new(TcpStream::connect(address).unwrap());
    let file = raw.open("file", OpenOptions::new().read(true));
    for id in 2..50 {
        raw.ask(id, &Request::Read { file, at: 0, len: 4 << 20 });
    }
    raw
}

/// Sends half a header, and nothing more.
fn sends_half_a_frame(address: SocketAddr) -> Raw<TcpStream> {
    let raw = Raw::new(TcpStream::connect(address).unwrap());
    let header = frame(Request::Ping {}.kind(), 1, &[], 0).unwrap();
    raw.say(header.encode()[..HEADER_BYTES / 2].to_vec());
    raw
}

/// Announces bytes to write, and sends half of them.
fn sends_half_of_a_write(address: SocketAddr) -> Raw<TcpStream> {
    let raw = Raw::new(TcpStream::connect(address).unwrap());
    let file = raw.open("file", OpenOptions::new().read(true).write(true));
    let request = Request::Write { file, at: 0 };
    let body = request.body();
    let header = frame(request.kind(), 2, &body, 1 << 20).unwrap();
    let half = vec![9; 1 << 19];
    raw.say([&header.encode()[..], &body, &half].concat());
    raw
}

/// Says nothing at all.
fn says_nothing(address: SocketAddr) -> Raw<TcpStream> {
    Raw(TcpStream::connect(address).unwrap())
}

/// What each of many reads and looks takes another client: median and the longest, in µs.
fn delays(address: SocketAddr) -> [u128; 2] {
    let net = NetFs::connect(address, Config::default()).unwrap();
    let mut delays = block_on(&net, async {
        let file = net.open("file", &OpenOptions::new().read(true)).await.unwrap();
        let (mut delays, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
        for round in 0..ROUNDS {
            let started = now();
            let at = round * READ_BYTES as u64 % FILE_BYTES as u64;
            let read;
            (read, buffer) = file.read_exact(at, buffer).await;
            read.unwrap();
            net.current_dir().metadata("file", Follow::Yes).await.unwrap();
            delays.push(started.elapsed().as_micros());
        }
        delays
    })
    .unwrap();
    delays.sort_unstable();
    [delays[delays.len() / 2], delays[delays.len() - 1]]
}

/// A kind of peer.
type Stuck = fn(SocketAddr) -> Raw<TcpStream>;

#[test]
fn f49_a_stuck_peer_does_not_delay_another_client() {
    let directory = tempfile::tempdir().unwrap();
    let fs = Portable::at(directory.path()).unwrap();
    block_on(&fs, put(fs.current_dir(), "file", bytes_of(1, FILE_BYTES))).unwrap();
    // Nobody is cut off while this is measured.
    let config = ServerConfig::default().idle_max(Duration::from_secs(600));
    let address = listening(fs, config);
    let [alone, alone_max] = delays(address);
    println!("64 KiB and a look, alone: median {alone} us, longest {alone_max} us");
    let peers: [(&str, Stuck); 4] = [
        ("reads no replies", reads_no_replies),
        ("sends half a frame", sends_half_a_frame),
        ("sends half of a write", sends_half_of_a_write),
        ("says nothing", says_nothing),
    ];
    let mut stuck = Vec::new();
    for (what, peer) in peers {
        stuck.extend((0..4).map(|_| peer(address)));
        let [median, longest] = delays(address);
        println!("beside peers that {what}: median {median} us, longest {longest} us");
        // What a wait for such a peer would take is seconds; this machine may be busy.
        assert!(median <= 20 * alone + 20_000, "{what}: {median} us instead of {alone} us");
        assert!(longest <= alone_max + 3_000_000, "{what}: {longest} us, alone {alone_max} us");
    }
}
