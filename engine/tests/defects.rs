//! Runtime defects of the system that came before, R1 to R20: none of them in a shard that
//! serves files and connections.
//!
//! Names are asked for by the threads of the portable runtime; what of R9, R10 and R19 can go
//! wrong between them and a shard is tested here. R7 (system calls per operation) is counted in
//! `net` and `kernel_ring`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::RefCell;
use std::fs;
use std::future::{Future, poll_fn};
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
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
use mfio_rt::conformance::{bytes_of, defects, files, get, names, put, streams};
use mfio_rt::portable::{Portable, PortableConfig};
use mfio_rt::{DirHandle, FileHandle, Fs, ListenOptions, ListenerHandle};
use mfio_rt::{OpenOptions, StreamHandle, SyncLevel, Tcp, Whole};

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
    files_hold!(defects::work_goes_on_after_everything_was_cancelled);
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
        let bytes = fs::read(temp.path().join("file")).unwrap();
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
fn r06_packets_of_exactly_4_gib_are_moved_whole() {
    for shard in shards() {
        let (fs, _temp) = files_of(&shard);
        let zeros = now(&fs, fs.open("/dev/zero", &OpenOptions::new().read(true))).unwrap();
        now(&fs, defects::four_gigabytes_are_read_whole(&zeros));
        // Memory of that length, which nobody touches: neither the allocator nor this device.
        let memory = fs::read_to_string("/proc/meminfo").unwrap();
        let kib = memory.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        if kib < 6 << 20 {
            println!("SKIP the write: {kib} KiB of memory");
            continue;
        }
        let null = now(&fs, fs.open("/dev/null", &OpenOptions::new().write(true))).unwrap();
        let before = shard.metrics();
        let done = now(&fs, null.io(0, Packet::<Write, _>::new(vec![0; 4 << 30])));
        assert_eq!(done.result(), Ok(()));
        let after = shard.metrics();
        assert_eq!(after.written_bytes - before.written_bytes, 4 << 30);
        assert_eq!(after.bounced, before.bounced, "from where it lies");
    }
}

#[test]
fn r06_short_transfers_are_continued() {
    files_hold!(defects::short_transfers_are_continued);
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

/// The only thread is stuck and its queue is full: whoever asks for what threads do waits without
/// blocking, and bytes, lengths and flushes go by the ring meanwhile.
#[test]
fn r10_names_that_wait_block_neither_their_caller_nor_the_shard() {
    for shard in shards() {
        let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut config = PortableConfig::default();
        config.threads = NonZeroUsize::MIN;
        config.queued_max = NonZeroUsize::new(2).unwrap();
        let threads = Portable::with_config(temp.path(), &config).unwrap();
        let fs = ShardFs::with_threads(&shard, &threads);
        let file = now(&fs, fs.open("file", &BOTH)).unwrap();
        let release = defects::occupy(&now(&threads, threads.open("busy", &BOTH)).unwrap());
        let dir = fs.current_dir();
        let mut waiting: Vec<_> =
            (0..100).map(|_| Box::pin(dir.set_permissions("file", 0o600))).collect();
        for future in &mut waiting {
            assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        assert_eq!(threads.queued(), 2);
        now(&fs, async {
            assert_eq!(file.write_exact(0, bytes_of(6, 10_000)).await.0, Ok(()));
            file.sync(SyncLevel::Data).await.unwrap();
            file.set_len(5000).await.unwrap();
            assert!(file.read_exact(0, vec![0; 5000]).await.1 == bytes_of(6, 10_000)[..5000]);
        });
        // Some are given up, and leave their place to the others.
        waiting.truncate(60);
        assert!(waiting.iter_mut().all(|future| {
            future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        }));
        drop(release);
        for future in waiting {
            now(&fs, future).unwrap();
        }
    }
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
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
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
fn r14_room_for_made_up_bytes_is_counted_in_bytes() {
    streams_hold!(streams::made_up_bytes_go_through_whole);
}

#[test]
fn r15_no_tail_of_an_earlier_packet_is_written() {
    files_hold!(
        defects::nothing_of_an_earlier_packet_is_written,
        files::bytes_that_are_made_up_are_written_whole
    );
}

/// What is sent is queued, alone or not, and nothing is asked of the kernel before the shard is
/// driven.
#[test]
fn r16_sending_never_waits_for_the_disk() {
    for shard in shards() {
        let (fs, _temp) = files_of(&shard);
        let file = now(&fs, fs.open("file", &BOTH)).unwrap();
        assert_eq!(now(&fs, file.write_exact(0, vec![7; 1 << 20])).0, Ok(()));
        let calls = || {
            let metrics = shard.metrics();
            (metrics.enters, metrics.inline_ops, metrics.in_place)
        };
        let before = calls();
        let (mut written, view) = Packet::<Write, _>::new(vec![8; 4096]).send();
        file.send_io(0, view).unwrap();
        assert!(!written.is_done(), "queued, and not done by the caller");
        let (mut read, view) = Packet::<Read, _>::new(vec![0; 1 << 20]).send();
        file.send_io(4096, view).unwrap();
        assert!(!read.is_done(), "queued, and not done by the caller");
        assert_eq!(calls(), before);
        now(&fs, poll_fn(|cx| written.poll_done(cx)));
        now(&fs, poll_fn(|cx| read.poll_done(cx)));
        assert!(written.into_completed().unwrap().is_ok());
        assert_eq!(read.into_completed().unwrap().contiguous_bytes(), (1 << 20) - 4096);
        // Alone, a read may go by a plain call later, but not now.
        let before = calls();
        let (mut read, view) = Packet::<Read, _>::new(vec![0; 4096]).send();
        file.send_io(0, view).unwrap();
        assert_eq!((read.is_done(), calls()), (false, before));
        now(&fs, poll_fn(|cx| read.poll_done(cx)));
        assert_eq!(read.into_completed().unwrap().bytes(), [8; 4096]);
    }
}

#[test]
fn r16_what_is_read_at_once_is_what_is_there() {
    files_hold!(defects::what_is_read_at_once_is_what_is_there);
}

#[test]
fn r17_idle_connections_take_little_memory() {
    fn resident() -> u64 {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }
    for shard in shards() {
        let net = ShardNet::new(&shard).unwrap();
        // Other tests of this process take memory too, but not always: the old design had 400 MiB
        // here.
        let rounds = (0..5).map(|_| {
            let listener = TcpListener::bind(here()).unwrap();
            let address = listener.local_addr().unwrap();
            let connect = |_| now(&net, net.connect(address)).unwrap();
            let _warm = connect(0);
            let before = resident();
            let streams: Vec<_> = (0..100).map(connect).collect();
            resident().saturating_sub(before) / streams.len() as u64
        });
        let each = rounds.min().unwrap();
        assert!(each < 1 << 20, "{each} bytes for a connection");
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
fn r19_files_keep_the_rules_of_names() {
    files_hold!(
        names::metadata_follows_what_happens,
        names::renaming_replaces_like_by_like,
        names::a_directory_does_not_move_into_itself,
        names::names_of_one_file_share_it,
        names::walk_dirs,
        names::copies_are_equal
    );
}

/// Transfers belong to a file and not to its name, whatever becomes of that meanwhile.
#[test]
fn r19_renames_and_removals_under_transfers_change_nothing_for_them() {
    for shard in shards() {
        let (fs, _temp) = files_of(&shard);
        now(&fs, async {
            let dir = fs.current_dir();
            dir.create_dir("below", 0o755).await.unwrap();
            for round in 0..20_u64 {
                put(dir, "replaced", bytes_of(round, 3000)).await;
                let replaced = fs.open("replaced", &BOTH).await.unwrap();
                let file = fs.open("file", &BOTH).await.unwrap();
                let (mut sent, view) = Packet::<Write, _>::new(bytes_of(round, 100_000)).send();
                file.send_io(0, view).unwrap();
                dir.rename("file", dir, "below/file").await.unwrap();
                dir.rename("below/file", dir, "replaced").await.unwrap();
                poll_fn(|cx| sent.poll_done(cx)).await;
                assert!(sent.into_completed().unwrap().is_ok());
                assert!(get(dir, "replaced").await == bytes_of(round, 100_000), "{round}");
                // What was replaced lives on in its handle.
                let (read, found) = replaced.read_exact(0, vec![0; 3000]).await;
                assert_eq!(read, Ok(()));
                assert!(found == bytes_of(round, 3000));
                assert_eq!(replaced.metadata().await.unwrap().len, 3000);
                dir.remove_file("replaced").await.unwrap();
                assert_eq!(file.write_exact(0, vec![1; 10]).await.0, Ok(()));
                assert_eq!(file.metadata().await.unwrap().len, 100_000, "not a stale one");
            }
        });
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
