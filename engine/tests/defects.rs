//! Runtime defects of the system that came before, R1 to R20: none of them in a shard that
//! serves files and connections.
//!
//! Those about names (R9, R10) are the portable runtime's, whose threads do that work; R14, R16
//! and R19 are of back ends that a shard does not have, and R15 of packets without a buffer.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::mpsc;
use std::task::{Context, Waker};

use mfio_core::{IoRead, IoWrite, Packet, PacketIo, PacketIoExt, Read, Write, block_on, output_fn};
use mfio_engine::fs::{ShardFile, ShardFs};
use mfio_engine::net::{ShardNet, ShardStream};
use mfio_engine::ring::Wait;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::{Config, Shard};
use mfio_rt::conformance::{files, names, streams};
use mfio_rt::{Fs, ListenOptions, ListenerHandle, OpenOptions, StreamHandle, Tcp, Whole};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

fn shards() -> Vec<Shard> {
    let make = |backend| {
        let ring = AutoRing::new(backend, &AutoConfig::new(16)).unwrap();
        let config = Config { in_flight_max: 16, backlog_max: 32, ..Config::new() };
        Shard::with_ring(ring, &config).unwrap()
    };
    vec![make(Backend::Auto), make(Backend::Threads)]
}

fn files_of(shard: &Shard) -> (ShardFs, tempfile::TempDir) {
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    (ShardFs::at(shard, temp.path()).unwrap(), temp)
}

fn now<T>(backend: &impl mfio_core::IoBackend, future: impl Future<Output = T>) -> T {
    block_on(backend, future).unwrap()
}

/// Runs a rule of `mfio-rt` on files, on every ring.
macro_rules! files_hold {
    ($($rule:path),+) => {
        for shard in shards() {
            $({
                let (fs, _temp) = files_of(&shard);
                now(&fs, $rule(&fs));
            })+
        }
    };
}

/// The same on connections.
macro_rules! streams_hold {
    ($($rule:path),+) => {
        for shard in shards() {
            let net = ShardNet::new(&shard).unwrap();
            $(now(&net, $rule(&net));)+
        }
    };
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn r01_cancelled_write_never_reaches_a_file_opened_later() {
    files_hold!(files::dropped_transfers_reach_no_other_file);
}

#[test]
fn r02_more_than_a_thousand_files_are_open_and_each_is_its_own() {
    files_hold!(files::more_than_a_thousand_files_are_open);
}

#[test]
fn r03_shard_works_on_after_everything_in_flight_was_cancelled() {
    for shard in shards() {
        let (fs, _temp) = files_of(&shard);
        let file = now(&fs, fs.open("file", &BOTH)).unwrap();
        for _ in 0..50 {
            let mut packets: Vec<_> = (0..100)
                .map(|at| Box::pin(file.io(at * 512, Packet::<Write, _>::new(vec![1; 512]))))
                .collect();
            for packet in &mut packets {
                let _begun = packet.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }
            drop(packets);
            assert_eq!(now(&fs, file.write_exact(0, vec![2; 512])).0, Ok(()));
        }
    }
}

#[test]
fn r04_shard_dropped_in_flight_gives_every_packet_an_honest_result() {
    for shard in shards() {
        let (fs, temp) = files_of(&shard);
        let file = now(&fs, fs.open("file", &BOTH)).unwrap();
        let mut sent = Vec::new();
        for at in 0..40 {
            let (waiting, view) = Packet::<Write, _>::new(vec![3; 4096]).send();
            if file.send_io(at * 4096, view).is_ok() {
                sent.push((usize::try_from(at).unwrap() * 4096, waiting));
            }
        }
        shard.turn(Wait::NONE).unwrap();
        assert!(sent.len() > 16, "some wait, some are in flight");
        drop((file, fs, shard));
        let bytes = std::fs::read(temp.path().join("file")).unwrap();
        let found = |at: usize| {
            let written = bytes.get(at..at + 4096);
            written.is_some_and(|bytes| bytes.iter().all(|&byte| byte == 3))
        };
        for (at, mut waiting) in sent {
            let done = poll_fn(|cx| waiting.poll_done(cx));
            let polled = pin!(done).poll(&mut Context::from_waker(Waker::noop()));
            assert!(polled.is_ready(), "a shard that has gone has answered");
            let done = waiting.into_completed().unwrap();
            assert!(!done.is_ok() || found(at), "what is said to be written is: {at}");
        }
    }
}

#[test]
fn r05_stream_dropped_in_flight_gives_nothing_to_the_next() {
    streams_hold!(
        streams::a_dropped_stream_fails_what_waits,
        streams::a_dropped_read_loses_no_other
    );
}

#[test]
fn r08_empty_transfers_succeed_everywhere() {
    files_hold!(files::empty_packets_succeed);
    streams_hold!(streams::empty_packets_keep_their_turn);
}

#[test]
fn r09_names_are_relative_to_the_handle_not_to_the_process() {
    files_hold!(names::operations_are_relative_to_the_handle);
}

#[test]
fn r11_stream_bytes_keep_their_order_through_short_writes() {
    streams_hold!(streams::many_writes_keep_their_order);
}

thread_local! {
    /// What a completion reaches that it cannot own: handles of a shard stay on its thread.
    static AGAIN: RefCell<Option<(ShardFile, ShardStream)>> = const { RefCell::new(None) };
}

#[test]
fn r12_completions_may_call_back_into_the_shard() {
    for shard in shards() {
        let (fs, _temp) = files_of(&shard);
        let net = ShardNet::new(&shard).unwrap();
        let listener = TcpListener::bind(here()).unwrap();
        let file = now(&fs, fs.open("file", &BOTH)).unwrap();
        let stream = now(&net, net.connect(listener.local_addr().unwrap())).unwrap();
        // On threads, the stream's completions are told elsewhere, where its handle is not.
        let on_shard = net.is_on_ring();
        AGAIN.with_borrow_mut(|again| *again = Some((file, stream)));
        let (told, heard) = mpsc::channel();
        let packet = |told: mpsc::Sender<_>| {
            let mut packet = Packet::<Write, _>::new(vec![1; 100]);
            packet.set_output(Some(output_fn(move |_| {
                AGAIN.with_borrow(|again| {
                    let (file, stream) = again.as_ref().unwrap();
                    let (waiting, view) = Packet::<Write, _>::new(vec![2; 10]).send();
                    file.send_io(200, view).unwrap();
                    told.send((waiting, stream.local_addr().is_ok())).unwrap();
                });
            })));
            packet.send()
        };
        let (mut first, view) = packet(told.clone());
        AGAIN.with_borrow(|again| again.as_ref().unwrap().0.send_io(0, view)).unwrap();
        now(&fs, poll_fn(|cx| first.poll_done(cx)));
        if on_shard {
            let (mut second, view) = packet(told.clone());
            AGAIN.with_borrow(|again| again.as_ref().unwrap().1.send_io((), view)).unwrap();
            now(&net, poll_fn(|cx| second.poll_done(cx)));
        }
        drop(told);
        let mut called = 0;
        for (mut waiting, has_address) in heard.try_iter() {
            now(&fs, poll_fn(|cx| waiting.poll_done(cx)));
            assert!(has_address && waiting.into_completed().unwrap().is_ok());
            called += 1;
        }
        assert_eq!(called, 1 + u32::from(on_shard));
        AGAIN.with_borrow_mut(Option::take);
    }
}

/// Sockets that this process has open, whose local or remote port is one of `ports`.
fn sockets_of(ports: &[u16]) -> usize {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let ours = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        let port = |field: &str| u16::from_str_radix(field.rsplit(':').next()?, 16).ok();
        // Not those that only wait for the last packet of the other side.
        let open = ["01", "02", "0A", "08"].contains(&state);
        let named = ports.contains(&port(local)?) || ports.contains(&port(remote)?);
        (open && named).then_some(())
    };
    table.lines().filter_map(ours).count()
}

#[test]
fn r13_dropped_connects_and_accepts_leave_nothing_open() {
    for shard in shards() {
        let net = ShardNet::new(&shard).unwrap();
        let listener = now(&net, net.bind(here(), &ListenOptions::new())).unwrap();
        let address = listener.local_addr().unwrap();
        for _ in 0..50 {
            let mut connect = pin!(net.connect(address));
            let _begun = connect.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        for _ in 0..50 {
            let mut accept = pin!(listener.accept());
            let _begun = accept.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        // Reads under way do not keep a dropped stream open either.
        let peer = TcpListener::bind(here()).unwrap();
        let peer_address = peer.local_addr().unwrap();
        for _ in 0..50 {
            let stream = now(&net, net.connect(peer_address)).unwrap();
            let (_sent, view) = Packet::<Read, _>::new(vec![0; 10]).send();
            stream.send_io(Whole, view).unwrap();
            shard.turn(Wait::NONE).unwrap();
        }
        drop((listener, peer));
        let ports = [address.port(), peer_address.port()];
        let mut left = usize::MAX;
        for _ in 0..200 {
            shard.turn(Wait::NONE).unwrap();
            left = sockets_of(&ports);
            if left == 0 && shard.in_flight() == 0 {
                break;
            }
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        assert_eq!((left, shard.in_flight()), (0, 0), "{:?}", shard.features().kind);
    }
}

#[test]
fn r17_idle_connections_take_little_memory() {
    fn resident() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
    for shard in shards() {
        let net = ShardNet::new(&shard).unwrap();
        let listener = TcpListener::bind(here()).unwrap();
        let address = listener.local_addr().unwrap();
        let _warm = now(&net, net.connect(address)).unwrap();
        let before = resident();
        let streams: Vec<_> = (0..100).map(|_| now(&net, net.connect(address)).unwrap()).collect();
        // Other tests of this process take memory too: the old design had 400 MiB here.
        let each = resident().saturating_sub(before) / 100;
        assert!(each < 1 << 20, "{each} bytes for a connection");
        drop(streams);
    }
}

/// What an exchange costs does not depend on how many others wait.
#[test]
fn r18_idle_connections_cost_nothing_while_another_works() {
    streams_hold!(streams::a_stuck_peer_delays_nobody);
    for shard in shards() {
        if shard.features().kind != RingKind::Kernel {
            continue;
        }
        let net = ShardNet::new(&shard).unwrap();
        let listener = TcpListener::bind(here()).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || {
            let stream = now(&net, net.connect(address)).unwrap();
            (stream, listener.accept().unwrap().0)
        };
        let (stream, peer) = connect();
        let ours = ShardNet::adopt(&net, peer).unwrap();
        let mut costs = Vec::new();
        let mut idle = Vec::new();
        for _ in 0..2 {
            let before = shard.metrics();
            now(&net, async {
                for _ in 0..100 {
                    assert_eq!(stream.write_exact((), vec![1; 100]).await.0, Ok(()));
                    assert_eq!(ours.read_exact(Whole, vec![0; 100]).await.0, Ok(()));
                }
            });
            let after = shard.metrics();
            costs.push((after.ops - before.ops, after.enters - before.enters));
            while idle.len() < 200 {
                let (stream, peer) = connect();
                let (waiting, view) = Packet::<Read, _>::new(vec![0; 10]).send();
                stream.send_io(Whole, view).unwrap();
                idle.push((stream, peer, waiting));
            }
            shard.turn(Wait::NONE).unwrap();
        }
        println!("(ops, calls) without and with 200 others: {costs:?}");
        assert_eq!(costs[0].0, costs[1].0);
        assert!(costs[1].1 <= costs[0].1 + 20, "{costs:?}");
    }
}

#[test]
fn r20_queues_are_bounded_and_their_callers_are_woken() {
    streams_hold!(streams::a_full_connection_refuses_and_recovers);
    for shard in shards() {
        let (fs, _temp) = files_of(&shard);
        let file = now(&fs, fs.open("file", &BOTH)).unwrap();
        let mut sent = Vec::new();
        let refused = loop {
            let (waiting, view) = Packet::<Write, _>::new(vec![1; 10]).send();
            sent.push(waiting);
            assert!(sent.len() < 1000, "there is a limit");
            if let Err(refused) = file.send_io(0, view) {
                break refused;
            }
        };
        now(&fs, poll_fn(|cx| PacketIo::<Write, u64>::poll_ready(&file, cx)));
        file.send_io(0, refused.view).unwrap();
        for waiting in &mut sent {
            now(&fs, poll_fn(|cx| waiting.poll_done(cx)));
        }
    }
}
