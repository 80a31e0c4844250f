//! Queues that are too short for what waits in them: peers that say nothing take nothing from
//! files, from other peers, or from the arena.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::{
    Absorbed, IoRead, IoWrite, Packet, PacketIo, PacketIoExt, Read, Sent, Sink, Write, block_on,
};
use mfio_engine::fs::ShardFs;
use mfio_engine::net::{ShardNet, ShardStream};
use mfio_engine::ring::kernel::KernelRing;
use mfio_engine::ring::{Ring, Wait};
use mfio_rt::conformance::{bytes_of, get, put};
use mfio_rt::{Fs, ListenOptions, ListenerHandle, Shutdown, StreamHandle, Tcp, Whole};

use super::{both, drain, here, pair, rescue, shard};

/// A read of three bytes on each stream, which waits.
fn reads_of_three(streams: &[ShardStream<KernelRing>]) -> Vec<Sent<Read, Vec<u8>>> {
    let read = |stream: &ShardStream<KernelRing>| {
        let (sent, view) = Packet::<Read, _>::new(vec![0; 3]).send();
        stream.send_io(Whole, view).unwrap();
        sent
    };
    streams.iter().map(read).collect()
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
    let mut sent = reads_of_three(&streams);
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
        let mut sent = reads_of_three(&streams);
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
