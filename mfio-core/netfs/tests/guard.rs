//! What guards a server and a client: no peer has more than its share of turns, places, handles
//! or patience.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod peer;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use mfio_core::{
    BackendBusy, BackendHandle, IoBackend, IoRead as _, PacketIo, Read, Refused, View, Write,
};
use mfio_netfs::wire::{HEADER_BYTES, Header, Reply, Request, frame};
use mfio_netfs::{Config, Duplex, Event, NetFs, Secret, Server, ServerConfig};
use mfio_rt::portable::{Portable, PortableListener};
use mfio_rt::virt::VirtFs;
use mfio_rt::{
    DirEntry, DirHandle as _, DirHandleExt as _, Entries as _, Error, ErrorKind, FileHandle as _,
    FileKind, Follow, Fs, ListenOptions, ListenerHandle, Op, OpenOptions, Tcp as _, Times,
    Timestamp, Whole,
};

use peer::{Raw, block_on, framed, hello, listening, lying, pause};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// One connection to a file system of its own.
fn connection<F: Fs>(make: impl FnOnce() -> F + Send + 'static, config: ServerConfig) -> Duplex {
    let (ours, theirs) = Duplex::pair(20_000);
    std::thread::spawn(move || {
        let fs = make();
        block_on(&fs, async {
            let server = Server::new(fs.current_dir(), config).await.unwrap();
            server.serve_connection(theirs).await
        })
    });
    ours
}

/// Says `first`, and then `again` for ever, without ever making the server wait; takes all that
/// it says.
struct Flood {
    first: Vec<u8>,
    again: Vec<u8>,
    said: Cell<usize>,
    heard: Rc<Cell<u64>>,
}

impl Flood {
    fn of(first: &[Request], again: &Request) -> Self {
        let mut said = [hello(), framed(0, &Request::Proof { code: [0; 32] }, &[])].concat();
        said.extend(first.iter().flat_map(|request| framed(1, request, &[])));
        let (again, heard) = (framed(2, again, &[]), Rc::default());
        Self { first: said, again, said: Cell::new(0), heard }
    }

    fn say<P>(&self, mut view: View<Read>) -> Result<(), Refused<Read, P>> {
        let from = self.said.get();
        let to = from + usize::try_from(view.len()).unwrap();
        let byte = |at: usize| match self.first.get(at) {
            Some(byte) => *byte,
            None => self.again[(at - self.first.len()) % self.again.len()],
        };
        view.write_at(0, &(from..to).map(byte).collect::<Vec<u8>>());
        self.said.set(to);
        view.filled();
        Ok(())
    }
}

impl PacketIo<Read, ()> for Flood {
    fn send_io(&self, (): (), view: View<Read>) -> Result<(), Refused<Read, ()>> {
        self.say(view)
    }
}

impl PacketIo<Read, Whole> for Flood {
    fn send_io(&self, _: Whole, view: View<Read>) -> Result<(), Refused<Read, Whole>> {
        self.say(view)
    }
}

impl PacketIo<Write, ()> for Flood {
    fn send_io(&self, (): (), view: View<Write>) -> Result<(), Refused<Write, ()>> {
        self.heard.set(self.heard.get() + view.len());
        view.written();
        Ok(())
    }
}

/// What is sent in each of 100 turns of a server that `flood` speaks to.
fn turns(first: &[Request], again: &Request) -> Vec<u64> {
    let (tell, told) = mpsc::channel();
    let (first, again) = (first.to_vec(), again.clone());
    std::thread::spawn(move || {
        let fs = VirtFs::new();
        let server = Server::new(fs.current_dir(), ServerConfig::default());
        let server = block_on(&fs, server).unwrap();
        let flood = Flood::of(&first, &again);
        let heard = Rc::clone(&flood.heard);
        let mut serving = pin!(server.serve_connection(flood));
        for _ in 0..100 {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(serving.as_mut().poll(&mut cx).is_pending());
            tell.send(heard.take()).unwrap();
        }
    });
    let turn = || told.recv_timeout(Duration::from_secs(60)).expect("others have a turn");
    (0..100).map(|_| turn()).collect()
}

#[test]
fn a_peer_that_sends_without_end_leaves_turns_to_others() {
    turns(&[], &Request::Close { handle: 77 });
    turns(&[], &Request::Cancel { request: 77 });
    turns(&[], &Request::Read { file: 77, at: 0, len: 1 });
}

#[test]
fn operations_that_never_wait_leave_turns_to_others() {
    let open = Request::OpenFile { dir: 0, path: b"file"[..].into(), options: BOTH };
    let heard = turns(&[open], &Request::SetLen { file: 1, len: 0 });
    let most = heard.iter().max().unwrap() / HEADER_BYTES as u64;
    assert!(most <= 70, "{most} operations in one turn");
    let all = heard.iter().sum::<u64>() / HEADER_BYTES as u64;
    assert!(all > 3000, "{all} operations in 100 turns");
}

/// A client with the secret, or why not.
/// A peer that asks for much and takes nothing costs its server no turns.
#[test]
fn what_is_not_taken_is_waited_for() {
    let (ours, theirs) = Duplex::pair(20_000);
    let polls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&polls);
    std::thread::spawn(move || {
        let fs = VirtFs::new();
        block_on(&fs, async {
            let server = Server::new(fs.current_dir(), ServerConfig::default()).await.unwrap();
            let mut serving = pin!(server.serve_connection(theirs));
            poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                serving.as_mut().poll(cx)
            })
            .await
        })
    });
    let raw = Raw::new(ours);
    raw.say(framed(1, &Request::OpenFile { dir: 0, path: b"f"[..].into(), options: BOTH }, &[]));
    let (_, Reply::Opened { handle }) = raw.reply() else { panic!("it is not opened") };
    raw.say(framed(2, &Request::SetLen { file: handle, len: 64 << 10 }, &[]));
    assert!(matches!(raw.reply(), (2, Reply::Done { .. })));
    let read = Request::Read { file: handle, at: 0, len: 64 << 10 };
    raw.say((3..20).flat_map(|id| framed(id, &read, &[])).collect());
    pause(Duration::from_millis(50));
    let before = polls.load(Ordering::Relaxed);
    pause(Duration::from_millis(300));
    let spent = polls.load(Ordering::Relaxed) - before;
    assert!(spent < 50, "{spent} turns for a peer that takes nothing");
    // And all of it comes once it is taken.
    let total = (0..).try_fold(0, |taken, _| {
        let header = Header::decode(&raw.hear(HEADER_BYTES).try_into().unwrap()).unwrap();
        drop(raw.hear((header.body_len + header.data_len) as usize));
        let taken = taken + u64::from(header.data_len);
        if taken < 17 * (64 << 10) { Ok(taken) } else { Err(taken) }
    });
    assert_eq!(total, Err(17 * (64 << 10)));
}

fn knowing(address: SocketAddr) -> Result<NetFs, Error> {
    let config = Config::default().silence_max(Duration::from_secs(5)).reconnects_max(0);
    NetFs::connect(address, config.secret(Some(Secret::new(*b"sixteen bytes or more"))))
}

fn guarded() -> ServerConfig {
    ServerConfig::default().secret(Some(Secret::new(*b"sixteen bytes or more")))
}

#[test]
fn who_has_proved_nothing_keeps_nobody_out() {
    let address = listening(VirtFs::new(), guarded().connections_max(2));
    let silent = [(); 20].map(|()| TcpStream::connect(address).unwrap());
    let one = knowing(address).unwrap();
    let two = knowing(address).unwrap();
    assert_eq!(knowing(address).unwrap_err().kind(), ErrorKind::Busy);
    // Nor does who is told to try later; and a place that is given back is there again.
    drop(two);
    let three = (0..100).find_map(|_| {
        pause(Duration::from_millis(50));
        knowing(address).ok()
    });
    for net in [one, three.expect("there is a place")] {
        assert!(!block_on(&net, net.current_dir().exists("file")).unwrap());
    }
    drop(silent);
}

#[test]
fn where_too_many_knock_the_oldest_is_cut() {
    let address =
        listening(VirtFs::new(), guarded().greetings_max(4).greeting_max(Duration::from_secs(600)));
    let mut silent: Vec<TcpStream> =
        (0..12).map(|_| TcpStream::connect(address).unwrap()).collect();
    let net = knowing(address).unwrap();
    // The last three, and the client, were the four that might stay.
    for stream in silent.drain(..9) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!((&stream).read(&mut [0; 1]).unwrap(), 0);
    }
    for stream in silent {
        stream.set_nonblocking(true).unwrap();
        let waits = (&stream).read(&mut [0; 1]).unwrap_err();
        assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
    }
    assert!(!block_on(&net, net.current_dir().exists("file")).unwrap());
}

/// Bytes that come one after another are no silence, however long the frame is that they
/// belong to.
#[test]
fn a_slow_server_is_not_a_silent_one() {
    let config = Config::default().silence_max(Duration::from_secs(1));
    let net = lying(config, |raw| {
        let header = frame(Reply::Data {}.kind(), raw.next(), &[], 300).unwrap();
        raw.say(header.encode().to_vec());
        for _ in 0..30 {
            raw.say(vec![7; 10]);
            pause(Duration::from_millis(100));
        }
    });
    let (read, bytes) = block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        file.read_exact(0, vec![0; 300]).await
    });
    assert_eq!((read, bytes), (Ok(()), vec![7; 300]));
}

#[test]
fn a_slow_client_is_not_a_silent_one() {
    let config = ServerConfig::default().idle_max(Duration::from_secs(1));
    let raw = Raw::new(connection(VirtFs::new, config));
    raw.say(framed(1, &Request::OpenFile { dir: 0, path: b"f"[..].into(), options: BOTH }, &[]));
    let (_, Reply::Opened { handle }) = raw.reply() else { panic!("it opens") };
    let write = framed(2, &Request::Write { file: handle, at: 0 }, &[7; 300]);
    for (at, byte) in write.iter().enumerate() {
        raw.say(vec![*byte]);
        if at % 10 == 9 {
            pause(Duration::from_millis(100));
        }
    }
    let (id, reply) = raw.reply();
    assert!(id == 2 && matches!(&reply, Reply::Written { failed } if failed.is_empty()));
    // And one that takes slowly what it asked for.
    let len = 300_000;
    raw.say(framed(3, &Request::SetLen { file: handle, len }, &[]));
    assert!(matches!(raw.reply(), (3, Reply::Done {})));
    raw.say(framed(4, &Request::Read { file: handle, at: 0, len }, &[]));
    drop(raw.hear(HEADER_BYTES));
    for _ in 0..30 {
        drop(raw.hear(1000));
        pause(Duration::from_millis(100));
    }
    assert_eq!(raw.hear(270_000).len(), 270_000);
    raw.say(framed(5, &Request::Ping {}, &[]));
    assert!(matches!(raw.reply(), (5, Reply::Done {})));
}

#[test]
fn handles_are_counted_before_they_are_open() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    let config = ServerConfig::default().handles_max(3);
    let raw = Raw::new(connection(move || Portable::at(&path).unwrap(), config));
    let open = Request::OpenFile { dir: 0, path: b"file"[..].into(), options: BOTH };
    let failing = Request::OpenDir { dir: 0, path: b"none"[..].into() };
    // What fails gives its place back.
    (1..50).for_each(|id| raw.say(framed(id, &failing, &[])));
    (1..50).for_each(|_| assert!(matches!(raw.reply().1, Reply::Failed { .. })));
    raw.say((1..=200).flat_map(|id| framed(id, &open, &[])).collect());
    let replies: Vec<Reply> = (0..200).map(|_| raw.reply().1).collect();
    let opened = replies.iter().filter(|reply| matches!(reply, Reply::Opened { .. }));
    assert_eq!(opened.count(), 3);
    raw.say([framed(1, &Request::Close { handle: 1 }, &[]), framed(2, &open, &[])].concat());
    assert!(matches!(raw.reply(), (2, Reply::Opened { .. })));
}

/// A connection has its share, whatever the others have taken.
#[test]
fn handles_of_all_connections_are_bounded_and_shared() {
    let fs = VirtFs::new();
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let config = ServerConfig::default().connections_max(5).handles_all_max(100);
        let server = block_on(&fs, Server::new(fs.current_dir(), config)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (ours, theirs) = Duplex::pair(20_000);
                tell.send(ours).unwrap();
                scope.spawn(|| block_on(&fs, server.serve_connection(theirs)));
            }
        });
    });
    let fill = |raw: &Raw| {
        let open = Request::OpenDir { dir: 0, path: b"."[..].into() };
        raw.say((0..100).flat_map(|id| framed(id, &open, &[])).collect());
        let replies = (0..100).map(|_| raw.reply().1);
        replies.filter(|reply| matches!(reply, Reply::Opened { .. })).count()
    };
    let [one, two, three, four] = [(); 4].map(|()| Raw::new(told.recv().unwrap()));
    assert_eq!([fill(&one), fill(&two), fill(&three)], [60, 10, 10]);
    // What one gives back others may have, be it by closing it or by leaving.
    let close = |handle| framed(1, &Request::Close { handle }, &[]);
    one.say([(1..=20).flat_map(close).collect(), framed(2, &Request::Ping {}, &[])].concat());
    assert!(matches!(one.reply(), (2, Reply::Done {})));
    assert_eq!(fill(&two), 20);
    drop((one, two));
    let mut held = 0;
    let all = (0..200).any(|_| {
        pause(Duration::from_millis(50));
        held += fill(&four);
        held == 60
    });
    assert!(all, "{held} of what was given back");
}

/// A listener that fails as it is told to, and else takes who has connected to another.
struct Failing<L, E> {
    behind: L,
    asked: Cell<usize>,
    error: E,
}

impl<L, E: Fn(usize) -> Option<Error>> Failing<L, E> {
    fn new(behind: L, error: E) -> Self {
        Self { behind, asked: Cell::new(0), error }
    }
}

impl<L: IoBackend, E> IoBackend for Failing<L, E> {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.behind.get_backend()
    }
}

impl<L: ListenerHandle, E: Fn(usize) -> Option<Error>> ListenerHandle for Failing<L, E> {
    type Stream = L::Stream;

    fn local_addr(&self) -> Result<SocketAddr, Error> {
        self.behind.local_addr()
    }

    async fn accept(&self) -> Result<(L::Stream, SocketAddr), Error> {
        let asked = self.asked.replace(self.asked.get() + 1);
        match (self.error)(asked) {
            Some(error) => Err(error),
            None => self.behind.accept().await,
        }
    }
}

fn bound(net: &Portable) -> PortableListener {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    block_on(net, net.bind(any, &ListenOptions::new())).unwrap()
}

/// Serves for so long with a listener that fails as `error` says: how often that was asked, the
/// errors that were told, and why it has ended, if it has.
fn failing(
    time: Duration,
    error: impl Fn(usize) -> Option<Error>,
) -> (usize, Vec<Error>, Option<Error>) {
    let (fs, net) = (VirtFs::new(), Portable::new().unwrap());
    let listener = Failing::new(bound(&net), error);
    let told = RefCell::new(Vec::new());
    let server = block_on(&fs, Server::new(fs.current_dir(), ServerConfig::default())).unwrap();
    let ended = block_on(&net, async {
        let serving = pin!(server.serve(&listener, |event| {
            let Event::Refused(error) = event else { panic!("{event}") };
            told.borrow_mut().push(error);
        }));
        let timer = async_io::Timer::after(time);
        match futures_util::future::select(serving, timer).await {
            futures_util::future::Either::Left((error, _)) => Some(error),
            futures_util::future::Either::Right(_) => None,
        }
    });
    (listener.asked.get(), told.into_inner(), ended)
}

#[test]
fn what_is_scarce_is_waited_for_ever_longer_and_told_once() {
    for kind in [ErrorKind::TooManyOpen, ErrorKind::OutOfMemory, ErrorKind::Os] {
        let error = || Error::new(Op::Accept, kind);
        let time = Duration::from_millis(700);
        let (asked, told, ended) = failing(time, |_| Some(error()));
        // After 0, 5, 15, 35, 75, 155, 315 and 635 ms.
        assert!((2..=8).contains(&asked), "{asked} times");
        assert_eq!((told, ended), (vec![error()], None));
    }
}

#[test]
fn connections_that_are_always_gone_again_keep_nobody_busy() {
    let gone = || Error::new(Op::Accept, ErrorKind::ConnectionReset).with_errno(103);
    let (asked, told, ended) = failing(Duration::from_millis(700), |_| Some(gone()));
    assert!((17..=24).contains(&asked), "{asked} times");
    assert_eq!((told, ended), (vec![gone()], None));
}

#[test]
fn a_listener_that_is_over_ends_the_server_and_says_why() {
    for kind in [ErrorKind::BadHandle, ErrorKind::InvalidInput, ErrorKind::Closed] {
        let over = || Error::new(Op::Accept, kind);
        let gone = || Error::new(Op::Accept, ErrorKind::ConnectionReset);
        let time = Duration::from_secs(60);
        let (asked, told, ended) =
            failing(time, |asked| Some(if asked < 2 { gone() } else { over() }));
        assert_eq!((asked, told, ended), (3, vec![gone()], Some(over())));
    }
}

#[test]
fn whoever_connects_is_served_when_the_errors_have_passed() {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (fs, net) = (VirtFs::new(), Portable::new().unwrap());
        let kinds = [ErrorKind::TooManyOpen, ErrorKind::ConnectionReset, ErrorKind::Os];
        let error = |asked: usize| {
            let kind = kinds.get(asked % 4)?;
            Some(Error::new(Op::Accept, *kind).with_errno(24))
        };
        let listener = Failing::new(bound(&net), error);
        tell.send(listener.local_addr().unwrap()).unwrap();
        let server = Server::new(fs.current_dir(), ServerConfig::default());
        let server = block_on(&fs, server).unwrap();
        block_on(&listener, server.serve(&listener, |_| {}))
    });
    let address = told.recv().unwrap();
    let all = [(); 5].map(|()| NetFs::connect(address, Config::default()).unwrap());
    for net in all {
        assert!(!block_on(&net, net.current_dir().exists("file")).unwrap());
    }
}

/// What the protocol has no form for fails alone, and costs nobody the connection.
#[test]
fn what_cannot_be_sent_is_refused_before_it_is() {
    let net = NetFs::over(connection(VirtFs::new, ServerConfig::default()), Config::default());
    let net = net.unwrap();
    block_on(&net, async {
        let mut options = BOTH;
        options.mode = 0o100_644;
        let file = net.open("file", &options).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().mode, 0o644);
        let never = Some(Timestamp { secs: 0, nanos: 1_000_000_000 });
        for (accessed, modified) in [(never, None), (None, never)] {
            let times = Times { accessed, modified };
            let refused = file.set_times(times).await.unwrap_err();
            assert_eq!((refused.op(), refused.kind()), (Op::SetTimes, ErrorKind::InvalidInput));
            let refused = net.current_dir().set_times("file", times, Follow::Yes).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let neither = OpenOptions::new().create(true);
        let refused = net.open("other", &neither).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        assert!(file.metadata().await.is_ok(), "the same connection");
    });
}

/// Memory of the server has not the alignment that the client's has.
#[test]
fn direct_files_are_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    let duplex = connection(move || Portable::at(&path).unwrap(), ServerConfig::default());
    let net = NetFs::over(duplex, Config::default()).unwrap();
    let refused = block_on(&net, net.open("file", &BOTH.direct(true))).unwrap_err();
    assert_eq!((refused.op(), refused.kind()), (Op::Open, ErrorKind::Unsupported));
    assert!(!block_on(&net, net.current_dir().exists("file")).unwrap(), "nothing is created");
}

#[test]
fn names_come_before_the_error_that_ends_their_listing() {
    let (tell, told) = mpsc::channel();
    let net = lying(Config::default(), move |raw| {
        let named = |name: &[u8]| DirEntry { name: name.to_vec(), kind: FileKind::File };
        let entries = vec![named(b"a"), named(b"b")];
        raw.answer(raw.next(), &Reply::Entries { ended: false, entries });
        let error = Error::new(Op::ReadDir, ErrorKind::Os).with_errno(5);
        let ahead = raw.next();
        told.recv().unwrap();
        raw.answer(ahead, &Reply::Failed { error });
        told.recv().unwrap();
    });
    block_on(&net, async {
        let mut entries = net.current_dir().read_dir().await.unwrap();
        assert_eq!(entries.next().await.unwrap().unwrap().name, b"a");
        tell.send(()).unwrap();
        // The answer comes meanwhile.
        pause(Duration::from_millis(300));
        assert_eq!(entries.next().await.unwrap().unwrap().name, b"b");
        assert_eq!(entries.next().await.unwrap().unwrap_err().errno(), Some(5));
        assert!(entries.next().await.is_none());
        tell.send(()).unwrap();
    });
}

/// Neither side looks again at what nothing has come up for: that would cost a system call and a
/// walk over everything each time.
#[test]
fn a_request_costs_each_side_one_turn() {
    const READS: u64 = 300;
    let (tell, told) = mpsc::channel();
    let turns = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&turns);
    std::thread::spawn(move || {
        let (fs, net) = (VirtFs::new(), Portable::new().unwrap());
        let listener = bound(&net);
        tell.send(listener.local_addr().unwrap()).unwrap();
        let server = Server::new(fs.current_dir(), ServerConfig::default());
        let server = block_on(&fs, server).unwrap();
        block_on(&listener, async {
            let mut serving = pin!(server.serve(&listener, |_| {}));
            poll_fn(|cx| {
                counted.fetch_add(1, Ordering::Relaxed);
                serving.as_mut().poll(cx)
            })
            .await
        })
    });
    let net = NetFs::connect(told.recv().unwrap(), Config::default()).unwrap();
    let file = block_on(&net, net.open("file", &BOTH)).unwrap();
    block_on(&net, file.set_len(4096)).unwrap();
    let before = turns.load(Ordering::Relaxed);
    let mut polls = 0;
    block_on(&net, async {
        let mut reading = pin!(async {
            for _ in 0..READS {
                assert_eq!(file.read_exact(0, vec![1; 4096]).await.0, Ok(()));
            }
        });
        poll_fn(|cx| {
            polls += 1;
            reading.as_mut().poll(cx)
        })
        .await;
    });
    let turns = turns.load(Ordering::Relaxed) - before;
    let most = READS + READS / 2;
    assert!(turns <= most && polls <= most, "{turns} turns and {polls} polls for {READS} reads");
}

/// A carrier that counts what is asked in one breath.
struct Counting(Duplex, Arc<AtomicU64>);

impl<P> PacketIo<Read, P> for Counting
where
    Duplex: PacketIo<Read, P>,
{
    fn send_io(&self, param: P, view: View<Read>) -> Result<(), Refused<Read, P>> {
        self.0.send_io(param, view)
    }
}

impl PacketIo<Write, ()> for Counting {
    fn send_io(&self, param: (), view: View<Write>) -> Result<(), Refused<Write, ()>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.send_io(param, view)
    }
}

/// How often a client asks to remove what `make` has made.
fn asked_to_remove(make: impl AsyncFnOnce(&VirtFs) + Send + 'static) -> u64 {
    let (ours, theirs) = Duplex::pair(50_000);
    std::thread::spawn(move || {
        let fs = VirtFs::new();
        block_on(&fs, async {
            make(&fs).await;
            let config = ServerConfig::default().handles_max(70);
            let server = Server::new(fs.current_dir(), config).await.unwrap();
            server.serve_connection(theirs).await
        })
    });
    let asked = Arc::<AtomicU64>::default();
    let carrier = Counting(ours, Arc::clone(&asked));
    let net = NetFs::over(carrier, Config::default()).unwrap();
    let before = asked.load(Ordering::Relaxed);
    block_on(&net, net.current_dir().remove_dir_all("top")).unwrap();
    let after = asked.load(Ordering::Relaxed);
    assert!(!block_on(&net, net.current_dir().exists("top")).unwrap());
    after - before
}

/// A chain of so many directories.
async fn chain(fs: &VirtFs, top: &str, levels: usize) {
    fs.current_dir().create_dir_all(top, 0o755).await.unwrap();
    let mut at = fs.current_dir().open_dir(top).await.unwrap();
    for _ in 0..levels {
        at.create_dir("d", 0o755).await.unwrap();
        at = at.open_dir("d").await.unwrap();
    }
}

#[test]
fn removing_a_deep_tree_takes_requests_in_proportion_to_its_depth() {
    // Every level is walked to, listed, tried, and removed; some of them are walked to again.
    for levels in [20, 300, 1000, 3000] {
        let asked = asked_to_remove(async move |fs| chain(fs, "top", levels).await);
        let each = asked / levels as u64;
        assert!((6..=20).contains(&each), "{asked} requests for {levels} levels");
    }
}

#[test]
fn removing_a_wide_tree_takes_requests_in_proportion_to_its_width() {
    for width in [10, 100, 1000] {
        let asked = asked_to_remove(async move |fs| {
            for number in 0..width {
                chain(fs, &format!("top/{number}"), 1).await;
            }
        });
        let each = asked / width;
        assert!((6..=20).contains(&each), "{asked} requests for {width} directories");
    }
}
