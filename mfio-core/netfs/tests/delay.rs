//! What a stuck peer costs the others, measured (F49): over TCP, one server, one thread.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]
#![allow(clippy::print_stdout, reason = "the figures are what this test is for")]

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mfio_core::{IoRead as _, block_on};
use mfio_netfs::wire::{Flags, HEADER_BYTES, Header, Hello, Limits, Reply, Request, frame};
use mfio_netfs::{Config, NetFs, Server, ServerConfig};
use mfio_rt::conformance::{bytes_of, put};
use mfio_rt::portable::Portable;
use mfio_rt::{DirHandle as _, Follow, Fs as _, ListenOptions, ListenerHandle as _};
use mfio_rt::{OpenOptions, Tcp as _};

const FILE_BYTES: usize = 8 << 20;
const READ_BYTES: usize = 64 << 10;
const ROUNDS: u64 = 300;

#[allow(clippy::disallowed_methods, reason = "a delay between processes is real time")]
fn now() -> Instant {
    Instant::now()
}

/// A server that cuts nobody off while this is measured.
fn listening(directory: &tempfile::TempDir) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    let fs = Portable::at(directory.path()).unwrap();
    std::thread::spawn(move || {
        block_on(&fs, async {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = fs.bind(any, &ListenOptions::new()).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let config = ServerConfig::default().idle_max(Duration::from_secs(600));
            let server = Server::new(fs.current_dir(), config).await.unwrap();
            server.serve(&listener, |_| {}).await;
        })
    });
    told.recv().unwrap()
}

/// A peer that says what it likes, and is let in.
struct Raw(TcpStream);

impl Raw {
    fn connect(address: SocketAddr) -> Self {
        let mut raw = Self(TcpStream::connect(address).unwrap());
        let (flags, limits) = (Flags::default(), Limits::default());
        raw.0.write_all(&Hello { flags, nonce: [1; 32], limits }.encode()).unwrap();
        raw.0.read_exact(&mut [0; 64]).unwrap();
        raw.ask(0, &Request::Proof { code: [0; 32] });
        assert!(matches!(raw.reply(), Reply::Proven { .. }));
        raw
    }

    fn ask(&mut self, id: u64, request: &Request) {
        let body = request.body();
        let header = frame(request.kind(), id, &body, 0).unwrap();
        self.0.write_all(&[&header.encode()[..], &body].concat()).unwrap();
    }

    fn reply(&mut self) -> Reply {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).unwrap();
        let header = Header::decode(&header).unwrap();
        let mut body = vec![0; header.body_len as usize];
        self.0.read_exact(&mut body).unwrap();
        Reply::decode(header.kind, &body).unwrap()
    }

    fn open(&mut self, options: OpenOptions) -> u64 {
        self.ask(1, &Request::OpenFile { dir: 0, path: b"file"[..].into(), options });
        let Reply::Opened { handle } = self.reply() else { panic!("it opens") };
        handle
    }
}

/// Asks for more than any buffer holds, and takes nothing.
fn reads_no_replies(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    let file = raw.open(OpenOptions::new().read(true));
    for id in 2..50 {
        raw.ask(id, &Request::Read { file, at: 0, len: 4 << 20 });
    }
    raw
}

/// Sends half a header, and nothing more.
fn sends_half_a_frame(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    let header = frame(Request::Ping {}.kind(), 1, &[], 0).unwrap();
    raw.0.write_all(&header.encode()[..HEADER_BYTES / 2]).unwrap();
    raw
}

/// Announces bytes to write, and sends half of them.
fn sends_half_of_a_write(address: SocketAddr) -> Raw {
    let mut raw = Raw::connect(address);
    let file = raw.open(OpenOptions::new().read(true).write(true));
    let request = Request::Write { file, at: 0 };
    let body = request.body();
    let header = frame(request.kind(), 2, &body, 1 << 20).unwrap();
    let half = vec![9; 1 << 19];
    raw.0.write_all(&[&header.encode()[..], &body, &half].concat()).unwrap();
    raw
}

/// Says nothing at all.
fn says_nothing(address: SocketAddr) -> Raw {
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
type Stuck = fn(SocketAddr) -> Raw;

#[test]
fn f49_a_stuck_peer_does_not_delay_another_client() {
    let directory = tempfile::tempdir().unwrap();
    let fs = Portable::at(directory.path()).unwrap();
    block_on(&fs, put(fs.current_dir(), "file", bytes_of(1, FILE_BYTES))).unwrap();
    let address = listening(&directory);
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
