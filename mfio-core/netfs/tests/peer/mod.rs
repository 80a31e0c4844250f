//! A peer that says what it likes, as a client or as a server, and servers for it to speak to.
//!
//! Data flow: bytes of a test → [`Wire`] → client or server under test → bytes → header and
//! message. Not here: what is said.
#![allow(dead_code, reason = "each test uses what it needs")]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use mfio_core::{IoBackend, Packet, PacketIoExt as _, Read, Write};
use mfio_netfs::wire::{Flags, HEADER_BYTES, Header, Hello, Limits, Reply, Request, frame};
use mfio_netfs::{Config, Duplex, NetFs, Server, ServerConfig};
use mfio_rt::portable::Portable;
use mfio_rt::virt::VirtFs;
use mfio_rt::{Fs, ListenOptions, ListenerHandle as _, OpenOptions, Tcp as _, Whole};

/// Blocks on what nobody else blocks on.
pub(crate) fn block_on<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    mfio_core::block_on(backend, future).unwrap()
}

/// Lets others go on for so long.
pub(crate) fn pause(time: Duration) {
    let (tell, told) = mpsc::channel::<()>();
    let _timed_out = told.recv_timeout(time);
    drop(tell);
}

/// A server of `fs` over TCP, in a thread that waits for its sockets as the program does.
pub(crate) fn listening<F: Fs + Send + 'static>(fs: F, config: ServerConfig) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let net = Portable::new().unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = block_on(&net, net.bind(any, &ListenOptions::new())).unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        let server = block_on(&fs, Server::new(fs.current_dir(), config)).unwrap();
        panic!("{}", block_on(&listener, server.serve(&listener, |_| {})));
    });
    told.recv().unwrap()
}

/// A frame that asks.
pub(crate) fn framed(id: u64, request: &Request, data: &[u8]) -> Vec<u8> {
    let body = request.body();
    let header = frame(request.kind(), id, &body, data.len() as u64).unwrap();
    [&header.encode()[..], &body, data].concat()
}

/// What a client begins with.
pub(crate) fn hello() -> Vec<u8> {
    Hello { flags: Flags::default(), nonce: [1; 32], limits: Limits::default() }.encode().to_vec()
}

/// What a peer speaks through.
pub(crate) trait Wire {
    /// Sends all of it.
    fn say(&self, bytes: Vec<u8>);
    /// The next so many bytes.
    fn hear(&self, len: usize) -> Vec<u8>;
}

impl Wire for Duplex {
    fn say(&self, bytes: Vec<u8>) {
        let done = self.io((), Packet::<Write, _>::new(bytes));
        assert!(block_on(&VirtFs::new(), done).is_ok());
    }

    fn hear(&self, len: usize) -> Vec<u8> {
        let done = self.io(Whole, Packet::<Read, _>::new(vec![0; len]));
        block_on(&VirtFs::new(), done).bytes().to_vec()
    }
}

impl Wire for TcpStream {
    fn say(&self, bytes: Vec<u8>) {
        (&*self).write_all(&bytes).unwrap();
    }

    fn hear(&self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        (&*self).read_exact(&mut bytes).unwrap();
        bytes
    }
}

/// A peer that says what it likes.
pub(crate) struct Raw<W = Duplex>(pub(crate) W);

impl<W: Wire> Raw<W> {
    /// A client that was let in.
    pub(crate) fn new(wire: W) -> Self {
        let raw = Self(wire);
        raw.say([hello(), framed(0, &Request::Proof { code: [0; 32] }, &[])].concat());
        assert!(Hello::decode(&raw.hear(64).try_into().unwrap()).is_ok());
        assert!(matches!(raw.reply(), (0, Reply::Proven { .. })));
        raw
    }

    pub(crate) fn say(&self, bytes: Vec<u8>) {
        self.0.say(bytes);
    }

    pub(crate) fn hear(&self, len: usize) -> Vec<u8> {
        self.0.hear(len)
    }

    pub(crate) fn header(&self) -> Header {
        Header::decode(&self.hear(HEADER_BYTES).try_into().unwrap()).unwrap()
    }

    pub(crate) fn ask(&self, id: u64, request: &Request) {
        self.say(framed(id, request, &[]));
    }

    /// The next answer, without its data.
    pub(crate) fn reply(&self) -> (u64, Reply) {
        let header = self.header();
        let body = self.hear(header.body_len as usize);
        drop(self.hear(header.data_len as usize));
        (header.id, Reply::decode(header.kind, &body).unwrap())
    }

    /// The handle of a file that opens.
    pub(crate) fn open(&self, name: &str, options: OpenOptions) -> u64 {
        self.ask(1, &Request::OpenFile { dir: 0, path: name.as_bytes().into(), options });
        let (_, Reply::Opened { handle }) = self.reply() else { panic!("it opens") };
        handle
    }

    /// The number of the next request, as a server.
    pub(crate) fn next(&self) -> u64 {
        let header = self.header();
        drop(self.hear((header.body_len + header.data_len) as usize));
        header.id
    }

    /// The next request that has no data, as a server.
    pub(crate) fn request(&self) -> (u64, Request) {
        let header = self.header();
        let body = self.hear(header.body_len as usize);
        (header.id, Request::decode(header.kind, &body).unwrap())
    }

    pub(crate) fn answer(&self, id: u64, reply: &Reply) {
        let body = reply.body();
        let header = frame(reply.kind(), id, &body, 0).unwrap();
        self.say([&header.encode()[..], &body].concat());
    }
}

/// A client of a server that lets in, opens something, and then does as `then` says, and goes.
pub(crate) fn lying(config: Config, then: impl FnOnce(&Raw) + Send + 'static) -> NetFs {
    let (ours, theirs) = Duplex::pair(100_000);
    std::thread::spawn(move || {
        let raw = Raw(theirs);
        drop(raw.hear(64));
        let limits = Limits { requests: 100, bytes: 1 << 20, idle_ms: 0 };
        raw.say(Hello { flags: Flags::default(), nonce: [2; 32], limits }.encode().to_vec());
        raw.answer(raw.next(), &Reply::Proven { code: [0; 32] });
        raw.answer(raw.next(), &Reply::Opened { handle: 1 });
        then(&raw);
    });
    NetFs::over(ours, config).unwrap()
}
