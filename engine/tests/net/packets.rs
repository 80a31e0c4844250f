//! Packets of one connection: whose memory it is meanwhile, and that neither a byte nor the order
//! is lost, whenever a caller goes.

use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::task::Poll;
use std::thread;

use mfio_core::{ErrorKind, IoRead, IoWrite, Packet, PacketIo, PacketIoExt, Read, Write, block_on};
use mfio_engine::net::{ShardNet, ShardStream};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::KernelRing;
use mfio_rt::conformance::bytes_of;
use mfio_rt::{Shutdown, StreamHandle, Whole};

use super::{begin, both, drain, drain_all, pair, rescue, shard};

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
