//! What network file systems got wrong before, each with a test (N1 to N13, F49).
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod peer;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;
use std::time::Duration;

use mfio_core::{ErrorKind as ByteKind, IoRead, IoWrite, Packet, PacketIoExt, Write};
use mfio_netfs::wire::{HEADER_BYTES, Header, Reason, Reply, Request, frame};
use mfio_netfs::{Config, Cut, Duplex, NetFs, Secret, Server, ServerConfig};
use mfio_rt::conformance::{all, bytes_of, get, listed, put};
use mfio_rt::virt::VirtFs;
use mfio_rt::{DirHandle, DirHandleExt, Entries, ErrorKind, FileHandle, Follow, Fs, LockKind};
use mfio_rt::{OpenOptions, SyncLevel};

use peer::{Raw, block_on, framed, listening, lying};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// One connection to `fs`, and what the server says when it has ended.
fn connection(fs: &VirtFs, config: ServerConfig, between: usize) -> (Duplex, mpsc::Receiver<Cut>) {
    let (ours, theirs) = Duplex::pair(between);
    let (tell, told) = mpsc::channel();
    let fs = fs.clone();
    std::thread::spawn(move || {
        let cut = block_on(&fs, async {
            let server = Server::new(fs.current_dir(), config).await.unwrap();
            server.serve_connection(theirs).await
        });
        let _nobody_asks = tell.send(cut);
    });
    (ours, told)
}

fn client(fs: &VirtFs) -> NetFs {
    let (ours, _) = connection(fs, ServerConfig::default(), 50_000);
    NetFs::over(ours, Config::default()).unwrap()
}

/// Nothing here needs driving.
fn async_io_block_on<T>(future: impl Future<Output = T>) -> T {
    block_on(&VirtFs::new(), future)
}

fn names_are_listed(names: usize) {
    let fs = VirtFs::new();
    block_on(&fs, async {
        for name in 0..names {
            let new = OpenOptions::new().write(true).create(true);
            fs.open(format!("{name:06}"), &new).await.unwrap();
        }
    });
    let net = client(&fs);
    let found = block_on(&net, listed(net.current_dir()));
    assert_eq!(found.len(), names);
    assert!(found.iter().enumerate().all(|(at, name)| *name == format!("{at:06}")));
}

#[test]
fn n01_directories_with_127_128_and_100000_entries_are_listed() {
    [0, 1, 127, 128, 129, 100_000].into_iter().for_each(names_are_listed);
}

#[test]
fn n02_zero_length_writes_succeed() {
    let net = client(&VirtFs::new());
    block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        for _ in 0..100 {
            assert_eq!(file.write_exact(7, Vec::new()).await.0, Ok(()));
            assert_eq!(file.read_exact(7, Vec::new()).await.0, Ok(()));
        }
        assert_eq!(file.metadata().await.unwrap().len, 0);
    });
}

#[test]
fn n03_a_cut_in_the_middle_of_1000_operations_gives_each_one_result() {
    let fs = VirtFs::new();
    // So narrow that most of them are under way or waiting when it is cut.
    let (ours, _) = connection(&fs, ServerConfig::default(), 1000);
    let breaker = ours.breaker();
    let net = NetFs::over(ours, Config::default()).unwrap();
    let (done, failed) = block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        let (file, net, breaker) = (&file, &net, &breaker);
        let operations = (0..1000_u64).map(|number| -> Pin<Box<dyn Future<Output = bool> + '_>> {
            Box::pin(async move {
                if number == 500 {
                    breaker.cut();
                }
                match number % 3 {
                    0 => file.write_exact(number, vec![1; 3000]).await.0.is_ok(),
                    1 => {
                        let (read, error, _) = file.read_some(number, vec![0; 3000]).await;
                        // The end of the connection is not the end of the file.
                        assert!(read > 0 || error.is_some() || number < 1000);
                        error.is_none()
                    }
                    _ => net.current_dir().create_dir(format!("d{number}"), 0o755).await.is_ok(),
                }
            })
        });
        let results = all(operations.collect()).await;
        assert_eq!(results.len(), 1000);
        let after = net.current_dir().create_dir("after", 0o755).await.unwrap_err();
        assert_eq!(after.kind(), ErrorKind::NotConnected);
        let (after, _) = file.write_exact(0, vec![1; 10]).await;
        assert_eq!(after.unwrap_err().kind(), ByteKind::Closed);
        let done = results.iter().filter(|&&done| done).count();
        (done, results.len() - done)
    });
    assert!(failed > 100, "{done} done, {failed} failed");
}

#[test]
fn n03_bytes_under_way_at_a_cut_fail_as_cut_and_never_as_the_end_of_the_file() {
    let net = lying(Config::default(), |raw| {
        let header = frame(Reply::Data {}.kind(), raw.next(), &[], 1000).unwrap();
        raw.say([&header.encode()[..], &[7; 10]].concat());
    });
    let (read, error, _) = block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        file.read_some(0, vec![0; 1000]).await
    });
    let error = error.expect("not the end of the file");
    assert_eq!((read, error.kind(), error.errno()), (0, ByteKind::Aborted, Some(104)));
}

/// Bytes that nobody asked for, or for another place, reach no buffer.
#[test]
fn f49_a_hostile_server_fails_what_is_under_way() {
    for (place, len) in [(1, 1000), (0, 1001), (1000, 0), (u64::MAX, 1), (0, 0)] {
        let net = lying(Config::default(), move |raw| {
            let mut header = frame(Reply::Data {}.kind(), raw.next(), &[], len).unwrap();
            header.place = place;
            raw.say([&header.encode()[..], &vec![7; usize::try_from(len).unwrap()]].concat());
        });
        let (error, bytes) = block_on(&net, async {
            let file = net.open("file", &BOTH).await.unwrap();
            let (_, error, bytes) = file.read_some(0, vec![0; 1000]).await;
            (error.unwrap(), bytes)
        });
        assert_eq!(error.errno(), Some(104), "{place} {len}");
        assert_eq!(bytes, [0; 1000], "{place} {len}");
    }
}

/// Forwards connections to `to` until they are all shut down at once.
fn forwarding(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (address, open) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&open);
    std::thread::spawn(move || {
        for near in listener.incoming() {
            let (near, far) = (near.unwrap(), TcpStream::connect(to).unwrap());
            let clone = |stream: &TcpStream| stream.try_clone().unwrap();
            kept.lock().unwrap().extend([clone(&near), clone(&far)]);
            for (mut from, mut to) in [(clone(&near), clone(&far)), (far, near)] {
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    (address, open)
}

#[test]
fn n03_a_new_connection_serves_on_and_old_handles_say_so() {
    let (address, open) = forwarding(listening(VirtFs::new(), ServerConfig::default()));
    let net = NetFs::connect(address, Config::default()).unwrap();
    block_on(&net, async {
        let dir = net.current_dir();
        let file = net.open("file", &BOTH).await.unwrap();
        assert_eq!(file.write_exact(0, vec![1; 100]).await.0, Ok(()));
        let (inside, mut waits) = (dir.open_dir(".").await.unwrap(), Vec::new());
        for _ in 0..3 {
            for stream in open.lock().unwrap().drain(..) {
                let _already = stream.shutdown(std::net::Shutdown::Both);
            }
            // Each of these fails as cut, or waits for the next connection; none hangs.
            for _ in 0..20 {
                waits.push(dir.exists("file").await);
            }
            assert_eq!(get(dir, "file").await, [1; 100], "served on");
        }
        for failed in waits.into_iter().filter_map(Result::err) {
            assert_eq!((failed.kind(), failed.errno()), (ErrorKind::ConnectionReset, Some(104)));
        }
        let error = file.write_exact(0, vec![2; 100]).await.0.unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ByteKind::Closed, Some(116)));
        let error = inside.metadata(".", Follow::Yes).await.unwrap_err();
        assert_eq!((error.kind(), error.errno()), (ErrorKind::NotConnected, Some(116)));
        assert_eq!(get(dir, "file").await, [1; 100]);
    });
}

#[test]
fn one_connection_too_many_is_told_so() {
    let address = listening(VirtFs::new(), ServerConfig::default().connections_max(1));
    let net = NetFs::connect(address, Config::default()).unwrap();
    block_on(&net, put(net.current_dir(), "file", vec![1; 100]));
    let crowded = NetFs::connect(address, Config::default()).unwrap_err();
    assert_eq!(crowded.kind(), ErrorKind::Busy, "{crowded}");
}

#[test]
fn n04_unknown_ids_are_answered_and_harm_nobody() {
    let (ours, _) = connection(&VirtFs::new(), ServerConfig::default(), 50_000);
    let raw = Raw::new(ours);
    raw.ask(1, &Request::Close { handle: 77 });
    raw.ask(2, &Request::Read { file: 77, at: 0, len: 10 });
    let (id, reply) = raw.reply();
    assert!(id == 2 && matches!(reply, Reply::Missing { at: 0, len: 10, .. }), "{reply:?}");
    raw.ask(3, &Request::Write { file: 77, at: 0 });
    let (id, reply) = raw.reply();
    assert!(id == 3 && matches!(&reply, Reply::Written { failed } if failed.len() == 1));
    raw.ask(4, &Request::SetLen { file: 77, len: 0 });
    assert!(matches!(raw.reply(), (4, Reply::Failed { .. })));
    raw.ask(5, &Request::OpenDir { dir: 77, path: b"x"[..].into() });
    assert!(matches!(raw.reply(), (5, Reply::Failed { .. })));
    raw.ask(6, &Request::NextEntries { listing: 0, entries_max: 1 });
    assert!(matches!(raw.reply(), (6, Reply::Failed { .. })));
    raw.ask(7, &Request::Cancel { request: 1234 });
    raw.ask(8, &Request::Close { handle: 0 });
    raw.ask(9, &Request::Ping {});
    assert!(matches!(raw.reply(), (9, Reply::Done {})));
}

#[test]
fn n05_hostile_frames_end_their_connection_and_no_other() {
    let fs = VirtFs::new();
    let net = client(&fs);
    let header =
        |body_len, data_len, kind| Header { body_len, data_len, kind, ..Header::default() };
    let mut bombs = vec![
        header(u32::MAX, 0, 1).encode().to_vec(),
        header(0, u32::MAX, 21).encode().to_vec(),
        header(0, 0, 255).encode().to_vec(),
        [&header(1, 0, 1).encode()[..], &[9]].concat(),
        header(0, 5, 32).encode().to_vec(),
        vec![0xff; HEADER_BYTES],
    ];
    bombs.extend((0..40).map(|seed| bytes_of(seed + 1, HEADER_BYTES)));
    for bomb in bombs {
        let (ours, told) = connection(&fs, ServerConfig::default(), 50_000);
        let raw = Raw::new(ours);
        raw.say(bomb.clone());
        let (_, reply) = raw.reply();
        assert_eq!(reply, Reply::Goodbye { reason: Reason::Protocol }, "{bomb:?}");
        assert!(matches!(told.recv().unwrap(), Cut::Wire(_)));
        block_on(&net, put(net.current_dir(), "alive", vec![1]));
    }
    // Not even a hello.
    let (ours, told) = connection(&fs, ServerConfig::default(), 50_000);
    let done = async_io_block_on(ours.io((), Packet::<Write, _>::new(vec![b'G'; 64])));
    assert!(done.is_ok());
    assert!(matches!(told.recv().unwrap(), Cut::Wire(_)));
}

#[test]
fn n06_handles_are_freed_and_limited() {
    let fs = VirtFs::new();
    let (ours, _) = connection(&fs, ServerConfig::default().handles_max(10), 50_000);
    let net = NetFs::over(ours, Config::default()).unwrap();
    block_on(&net, async {
        for _ in 0..70_000 / 100 {
            let dir = net.current_dir().open_dir(".").await.unwrap();
            drop(dir.read_dir().await.unwrap());
        }
        let mut open = Vec::new();
        let refused = loop {
            match net.current_dir().open_dir(".").await {
                Ok(dir) => open.push(dir),
                Err(error) => break error,
            }
        };
        assert_eq!((open.len(), refused.kind()), (10, ErrorKind::TooManyOpen));
    });
}

#[test]
fn n07_over_long_requests_are_refused_and_never_cut_short() {
    let net = client(&VirtFs::new());
    let long = "x/".repeat(50_000);
    block_on(&net, async {
        let dir = net.current_dir();
        let refused = dir.create_dir(&long, 0o755).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NameTooLong);
        let refused = dir.symlink(&long, "link").await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NameTooLong);
        let refused = dir.rename("a", dir, &long).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NameTooLong);
        assert!(listed(dir).await.is_empty());
    });
    let (ours, _) = connection(&VirtFs::new(), ServerConfig::default(), 50_000);
    let raw = Raw::new(ours);
    let options = BOTH;
    raw.ask(1, &Request::OpenFile { dir: 0, path: b"file"[..].into(), options });
    let (_, Reply::Opened { handle }) = raw.reply() else { panic!("it opens") };
    raw.ask(2, &Request::Read { file: handle, at: 0, len: u64::MAX });
    let (_, reply) = raw.reply();
    assert!(matches!(reply, Reply::Missing { at: 0, len: u64::MAX, .. }), "{reply:?}");
}

#[test]
fn n08_only_who_knows_the_secret_gets_in_and_nobody_gets_out() {
    let fs = VirtFs::new();
    block_on(&fs, async {
        fs.current_dir().create_dir("inside", 0o755).await.unwrap();
        put(fs.current_dir(), "outside", vec![1]).await;
    });
    let secret = |bytes: &[u8]| Some(Secret::new(bytes));
    let inside = block_on(&fs, fs.current_dir().open_dir("inside")).unwrap();
    let connect = |ours: Option<Secret>, theirs: Option<Secret>| {
        let (end, other) = Duplex::pair(1000);
        let (fs, inside) = (fs.clone(), inside.clone());
        std::thread::spawn(move || {
            block_on(&fs, async {
                let config = ServerConfig::default().secret(theirs);
                let server = Server::new(&inside, config).await.unwrap();
                server.serve_connection(other).await
            })
        });
        NetFs::over(end, Config::default().secret(ours))
    };
    let wrong = [
        (None, secret(b"one")),
        (secret(b"one"), None),
        (secret(b"one"), secret(b"two")),
        (secret(b""), secret(b"two")),
    ];
    for (ours, theirs) in wrong {
        assert_eq!(connect(ours, theirs).unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
    let net = connect(secret(b"one"), secret(b"one")).unwrap();
    block_on(&net, async {
        let dir = net.current_dir();
        for path in ["../outside", "/../outside", "a/../../outside", "..", "/.."] {
            assert!(net.open(path, &OpenOptions::new().read(true)).await.is_err(), "{path}");
            assert!(dir.open_dir(path).await.is_err(), "{path}");
        }
        dir.symlink("../outside", "link").await.unwrap();
        assert!(net.open("link", &OpenOptions::new().read(true)).await.is_err());
        dir.create_dir("deeper", 0o755).await.unwrap();
        let deeper = dir.open_dir("deeper").await.unwrap();
        assert!(deeper.open_file("../../outside", &OpenOptions::new().read(true)).await.is_err());
        assert!(deeper.open_dir("..").await.is_ok(), "still inside");
        let confined = deeper.confined().await.unwrap();
        assert!(confined.open_dir("..").await.is_err(), "asked to be confined");
        assert!(confined.open_dir("/").await.is_err(), "asked to be confined");
    });
}

/// Completions that send again, from inside the driver.
#[test]
fn n09_a_completion_may_send_again() {
    let net = client(&VirtFs::new());
    block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        for round in 0..200_u64 {
            assert_eq!(file.write_value(round * 8, round).await, Ok(()));
            assert_eq!(file.read_value::<u64>(round * 8).await, Ok(round));
        }
    });
}

#[test]
fn n10_writes_that_were_not_answered_are_not_successes() {
    let net = lying(Config::default(), |raw| {
        raw.next();
    });
    let error = block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        file.write_exact(0, vec![1; 1000]).await.0.unwrap_err()
    });
    assert_eq!((error.kind(), error.errno()), (ByteKind::Aborted, Some(104)));
}

#[test]
fn n11_a_stuck_peer_delays_nobody_and_is_cut_off() {
    let fs = VirtFs::new();
    block_on(&fs, put(fs.current_dir(), "long", bytes_of(2, 4 << 20)));
    let config = || ServerConfig::default().idle_max(Duration::from_secs(2)).bytes_max(1 << 20);
    let (ours, told) = connection(&fs, config(), 1000);
    let raw = Raw::new(ours);
    let options = OpenOptions::new().read(true);
    raw.ask(1, &Request::OpenFile { dir: 0, path: b"long"[..].into(), options });
    let (_, Reply::Opened { handle }) = raw.reply() else { panic!("it opens") };
    // Asks for much and takes nothing.
    for id in 2..6 {
        raw.ask(id, &Request::Read { file: handle, at: 0, len: 4 << 20 });
    }
    let net = client(&fs);
    block_on(&net, async {
        for _ in 0..50 {
            assert_eq!(get(net.current_dir(), "long").await.len(), 4 << 20);
        }
    });
    assert!(matches!(told.recv().unwrap(), Cut::Silent));
}

#[test]
fn n12_a_torn_write_changes_nothing() {
    let fs = VirtFs::new();
    block_on(&fs, put(fs.current_dir(), "file", vec![7; 1000]));
    let (ours, told) = connection(&fs, ServerConfig::default(), 50_000);
    let raw = Raw::new(ours);
    raw.ask(1, &Request::OpenFile { dir: 0, path: b"file"[..].into(), options: BOTH });
    let (_, Reply::Opened { handle }) = raw.reply() else { panic!("it opens") };
    let request = Request::Write { file: handle, at: 0 };
    let body = request.body();
    let header = frame(request.kind(), 2, &body, 1000).unwrap();
    raw.say([&header.encode()[..], &body, &[9; 10]].concat());
    drop(raw);
    assert_eq!(told.recv().unwrap(), Cut::Ended);
    assert_eq!(block_on(&fs, get(fs.current_dir(), "file")), [7; 1000]);
}

/// Every byte of a frame is a byte of the message or zero, and it has only one form.
#[test]
fn n13_nothing_but_the_message_is_on_the_wire() {
    let header = frame(32, 5, &[], 0).unwrap().encode();
    let mut expected = [0; HEADER_BYTES];
    (expected[8], expected[16]) = (32, 5);
    assert_eq!(header, expected);
    let ping = Request::Ping {}.body();
    assert!(ping.is_empty());
    assert_eq!(Request::Close { handle: 3 }.body(), [3, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn dropped_operations_never_reach_another_file() {
    let net = client(&VirtFs::new());
    block_on(&net, async {
        for round in 0..50_u8 {
            let doomed = net.open("doomed", &BOTH).await.unwrap();
            {
                let mut write = pin!(doomed.write_exact(0, vec![0xdd; 10_000]));
                let mut open = pin!(net.open("doomed", &BOTH));
                std::future::poll_fn(|cx| {
                    let _dropped = (write.as_mut().poll(cx), open.as_mut().poll(cx).is_ready());
                    Poll::Ready(())
                })
                .await;
            }
            drop(doomed);
            let other = net.open("other", &BOTH).await.unwrap();
            assert_eq!(other.write_exact(0, vec![round; 100]).await.0, Ok(()));
            assert_eq!(get(net.current_dir(), "other").await, [round; 100]);
        }
    });
}

/// A server that grants a lock at the moment at which it is given up.
#[test]
fn lock_granted_to_nobody_is_given_back_before_another_is_taken() {
    let (tell, told) = mpsc::channel();
    let net = lying(Config::default(), move |raw| {
        let (mut waits, mut held) = (None, Vec::new());
        loop {
            let (id, request) = raw.request();
            match request {
                Request::Lock { wait: true, .. } => {
                    waits = Some(id);
                    continue;
                }
                Request::Cancel { .. } => {
                    // Whatever the client asks next is on its way by now.
                    async_io_block_on(async_sleep(100));
                    held.push("waited");
                    raw.answer(waits.take().unwrap(), &Reply::Done {});
                    continue;
                }
                Request::Lock { wait: false, .. } => held.push("taken"),
                Request::Unlock { .. } => held.clear(),
                Request::SyncFile { .. } => tell.send(held.clone()).unwrap(),
                _ => return,
            }
            raw.answer(id, &Reply::Done {});
        }
    });
    block_on(&net, async {
        let file = net.open("file", &BOTH).await.unwrap();
        for dropped in [true, false] {
            {
                let mut waiting = pin!(file.lock(LockKind::Exclusive));
                let begun = std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx)));
                assert!(begun.await.is_pending());
                // So that it is sent.
                async_sleep(50).await;
            }
            if dropped {
                // Asked and given up as well: it is neither sent nor in the way.
                let mut asked = pin!(file.try_lock(LockKind::Shared));
                let begun = std::future::poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx)));
                assert!(begun.await.is_pending());
            }
            file.try_lock(LockKind::Shared).await.unwrap();
            for _ in 0..2 {
                file.sync(SyncLevel::Data).await.unwrap();
            }
            assert_eq!(told.try_iter().last().unwrap(), ["taken"], "it stays locked");
        }
    });
}

#[test]
fn wait_given_up_in_the_same_breath_is_cancelled() {
    let fs = VirtFs::new();
    let held = block_on(&fs, fs.open("file", &BOTH)).unwrap();
    block_on(&fs, held.try_lock(LockKind::Exclusive)).unwrap();
    let (ours, _) = connection(&fs, ServerConfig::default(), 50_000);
    let raw = Raw::new(ours);
    raw.ask(1, &Request::OpenFile { dir: 0, path: b"file"[..].into(), options: BOTH });
    let (_, Reply::Opened { handle: file }) = raw.reply() else { panic!("it opens") };
    let wait = Request::Lock { file, kind: LockKind::Shared, wait: true };
    raw.say([framed(5, &wait, &[]), framed(6, &Request::Cancel { request: 5 }, &[])].concat());
    raw.ask(7, &Request::Ping {});
    let mut heard = [raw.reply(), {
        raw.ask(8, &Request::Ping {});
        raw.reply()
    }];
    heard.sort_by_key(|(id, _)| *id);
    assert!(
        matches!(&heard[0], (5, Reply::Failed { error }) if error.kind() == ErrorKind::Cancelled),
        "{heard:?}"
    );
}

#[test]
fn waits_of_one_connection_are_bounded() {
    let fs = VirtFs::new();
    let held = block_on(&fs, fs.open("file", &BOTH)).unwrap();
    block_on(&fs, held.try_lock(LockKind::Exclusive)).unwrap();
    let raw = Raw::new(connection(&fs, ServerConfig::default(), 50_000).0);
    raw.ask(1, &Request::OpenFile { dir: 0, path: b"file"[..].into(), options: BOTH });
    let (_, Reply::Opened { handle: file }) = raw.reply() else { panic!("it opens") };
    for id in 10..75 {
        raw.ask(id, &Request::Lock { file, kind: LockKind::Shared, wait: true });
    }
    raw.ask(99, &Request::Ping {});
    let (id, reply) = raw.reply();
    assert!(matches!(reply, Reply::Failed { .. }) && id == 74, "{id} {reply:?}");
}

#[test]
fn keepalive_keeps_a_quiet_connection_and_silence_is_noticed() {
    let config = ServerConfig::default().idle_max(Duration::from_millis(400));
    let (ours, _) = connection(&VirtFs::new(), config, 50_000);
    let net = NetFs::over(ours, Config::default()).unwrap();
    async_io_block_on(async_sleep(1200));
    block_on(&net, put(net.current_dir(), "file", vec![1]));
    // The other end is there and says nothing.
    let (ours, theirs) = Duplex::pair(1000);
    let config = Config::default().silence_max(Duration::from_millis(100));
    let error = NetFs::over(ours, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(theirs);
}

async fn async_sleep(millis: u64) {
    let (tell, told) = mpsc::channel::<()>();
    let _timed_out = told.recv_timeout(Duration::from_millis(millis));
    drop(tell);
}

#[test]
fn listings_that_are_given_up_are_closed() {
    let fs = VirtFs::new();
    block_on(&fs, async {
        for name in 0..3000 {
            put(fs.current_dir(), format!("{name}"), Vec::new()).await;
        }
    });
    let (ours, _) = connection(&fs, ServerConfig::default().handles_max(3), 50_000);
    let net = NetFs::over(ours, Config::default()).unwrap();
    block_on(&net, async {
        for _ in 0..100 {
            let mut entries = net.current_dir().read_dir().await.unwrap();
            assert!(entries.next().await.unwrap().is_ok());
        }
    });
}

/// Everything that a server sends, looked through for what another client has read.
#[test]
fn f50_no_byte_of_a_used_buffer_reaches_another_request() {
    const STALE: u8 = 0xee;
    let fs = VirtFs::new();
    block_on(&fs, async {
        put(fs.current_dir(), "long", vec![STALE; 3 << 20]).await;
        put(fs.current_dir(), "short", vec![1; 1000]).await;
        let hole = fs.open("hole", &BOTH).await.unwrap();
        hole.set_len(600_000).await.unwrap();
    });
    let read = |raw: &Raw, id: u64, name: &str, at: u64, len: u64| {
        let options = OpenOptions::new().read(true);
        let path = name.as_bytes().into();
        raw.ask(id, &Request::OpenFile { dir: 0, path, options });
        let (_, Reply::Opened { handle }) = raw.reply() else { panic!("it opens") };
        raw.ask(id + 1, &Request::Read { file: handle, at, len });
        let (mut left, mut heard) = (len, Vec::new());
        while left > 0 {
            let header = raw.hear(HEADER_BYTES);
            heard.extend_from_slice(&header);
            let header = Header::decode(&header.try_into().unwrap()).unwrap();
            let body = raw.hear(header.body_len as usize);
            heard.extend(raw.hear(header.data_len as usize));
            left -= match Reply::decode(header.kind, &body).unwrap() {
                Reply::Data {} => u64::from(header.data_len),
                Reply::Missing { len, .. } => len,
                other => panic!("{other:?}"),
            };
            heard.extend(body);
        }
        heard
    };
    let connect = || Raw::new(connection(&fs, ServerConfig::default(), 50_000).0);
    let (one, other) = (connect(), connect());
    let stale = |bytes: &[u8]| bytes.windows(8).any(|window| window == [STALE; 8]);
    let mut id = 1;
    for round in 0..20 {
        assert!(stale(&read(&one, id, "long", 0, 3 << 20)), "the pattern is found where it is");
        let places = [(0, 300_000), (999, 2), (round * 100, 5000), (2000, 10), (0, 2 << 20)];
        for (at, len) in places {
            for raw in [&one, &other] {
                id += 2;
                assert!(!stale(&read(raw, id, "short", at, len)), "{at} {len}");
                id += 2;
                assert!(!stale(&read(raw, id, "hole", at, len)), "{at} {len}");
            }
        }
        id += 2;
    }
}
