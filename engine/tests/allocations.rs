//! No heap allocation per I/O once warm, on the packet path and for awaited packets.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

mod counting;

use std::path::Path;

use mfio_core::{CompletionQueue, IoRead, Packet, PacketIoExt, Read, Write, block_on};
use mfio_engine::buffer::ArenaBuf;
use mfio_engine::nvme::identify::IDENTIFY_BYTES;
use mfio_engine::nvme::{Controller, Namespace};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{Poll, Ring, Wait};
use mfio_engine::target::{NvmeFacts, TargetKind};
use mfio_engine::{Batch, Config, DirectMode, Direction, Durability, Durable, File};
use mfio_engine::{OpenOptions, Shard, SyncMethod, WriteAt};

const BLOCK: usize = 4096;
const DEPTH: u64 = 32;
const BLOCKS: u64 = 1024;

/// How many allocations `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = counting::of_thread();
    work();
    counting::of_thread() - before
}

/// Keeps [`DEPTH`] reads and writes in flight until `ios` have completed.
fn packets<R: Ring>(
    file: &File<R>,
    reads: &mut CompletionQueue<Read, ArenaBuf>,
    writes: &mut CompletionQueue<Write, ArenaBuf>,
    ios: u64,
) {
    let mut at = 0_u64;
    let mut completed = 0;
    while completed < ios {
        file.shard().turn(Wait::at_least(8)).unwrap();
        while let Some((tag, done)) = reads.pop() {
            assert!(done.is_ok());
            at = (at + 7) % BLOCKS;
            completed += 1;
            reads.send(file, at * BLOCK as u64, done.into_packet(), tag).unwrap();
        }
        while let Some((tag, done)) = writes.pop() {
            assert!(done.is_ok());
            at = (at + 7) % BLOCKS;
            completed += 1;
            writes.send(file, at * BLOCK as u64, done.into_packet(), tag).unwrap();
        }
    }
}

fn steady_state<R: Ring>(ring: R, name: &str, ios: u64, latency: bool) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, vec![1; BLOCK * 1024]).unwrap();
    let config = Config { latency, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let reader = latency.then(|| shard.metrics_reader());
    let options =
        OpenOptions { write: true, direct: DirectMode::PreferDirect, ..OpenOptions::default() };
    let file = shard.open(&path, &options).unwrap();

    let mut reads = CompletionQueue::new();
    let mut writes = CompletionQueue::new();
    for tag in 0..DEPTH {
        let read = Packet::new(shard.arena().alloc(BLOCK).unwrap());
        let mut ones = shard.arena().alloc(BLOCK).unwrap();
        ones.fill(1);
        let write = Packet::new(ones);
        reads.send(&file, tag * BLOCK as u64, read, tag).unwrap();
        // The writes leave the blocks as they are.
        if tag % 4 == 0 {
            writes.send(&file, tag * BLOCK as u64, write, tag).unwrap();
        }
    }
    packets(&file, &mut reads, &mut writes, 2_000);
    let queued = allocations(|| packets(&file, &mut reads, &mut writes, ios));
    drop((reads, writes));
    while !shard.is_idle() {
        shard.turn(Wait::at_least(1)).unwrap();
    }

    if let Some(latency) = reader.and_then(|reader| reader.latency(Direction::Read)) {
        assert!(latency.count() > ios / 2, "latencies are counted meanwhile");
    }
    let mut batch = shard.batch::<32, ArenaBuf>();
    // Long enough to have met the most groups that these batches make at a time.
    batches(&file, &mut batch, ios);
    let batched = allocations(|| batches(&file, &mut batch, ios));
    drop(batch);
    let coalesced = shard.metrics().coalesced;

    // One call makes its waker and its future; what is left over is the cost per I/O.
    block_on(&shard, awaited(&file, 100)).unwrap();
    let few = allocations(|| block_on(&shard, awaited(&file, 1)).unwrap());
    let many = allocations(|| block_on(&shard, awaited(&file, 1 + ios / 100)).unwrap());
    println!("{name}: {batched} allocations in {ios} batched I/Os, {coalesced} joined");
    println!("{name}: {queued} allocations in {ios} queued I/Os, {few} to start awaiting");
    drop((file, shard));
    std::fs::remove_file(path).unwrap();
    assert!(coalesced > ios / 4, "neighbours are joined: {coalesced}");
    assert_eq!(batched, 0, "batches allocate nothing once warm");
    assert_eq!(queued, 0, "the packet path allocates nothing once warm");
    assert_eq!(many, few, "awaiting allocates nothing per I/O once warm");
}

/// Reads and rewrites blocks in batches, some of them neighbours, until `ios` are done.
fn batches<R: Ring>(file: &File<R>, batch: &mut Batch<32, ArenaBuf, R>, ios: u64) {
    let arena = file.shard().arena();
    let mut done = 0;
    while done < ios {
        for at in 0..32 {
            let mut buffer = arena.alloc(BLOCK).unwrap();
            let block = (done / 32 * 7 + at + at / 5) % BLOCKS * BLOCK as u64;
            if at % 11 < 9 {
                batch.push_read(file, block, buffer).unwrap();
            } else {
                buffer.fill(1);
                batch.push_write(file, block, buffer).unwrap();
            }
        }
        batch.submit().unwrap();
        while batch.ready() < 32 {
            file.shard().turn(Wait::at_least(1)).unwrap();
        }
        while let Some(reaped) = batch.reap() {
            reaped.result.unwrap();
            done += 1;
        }
    }
}

/// A buffer out of the arena, read, written durably, given back; a value in the future itself;
/// a flush.
async fn awaited<R: Ring>(file: &File<R>, rounds: u64) {
    for at in 0..rounds {
        let at = at % BLOCKS * BLOCK as u64;
        let buffer = file.shard().arena().alloc(BLOCK).unwrap();
        let done = file.io(at, Packet::<Read, _>::new(buffer)).await;
        assert!(done.is_ok());
        let packet = Packet::<Write, _>::new(done.into_buffer());
        assert!(file.io(Durable(at), packet).await.is_ok());
        assert_eq!(file.read_value::<u8>(at).await, Ok(1));
        file.sync(Durability::Data).await.unwrap();
    }
}

#[test]
fn steady_state_on_the_kernel_ring_allocates_nothing() {
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => {
            steady_state(ring, "allocations-kernel", 100_000, false);
            let ring = KernelRing::new(&KernelConfig::new(64)).unwrap();
            steady_state(ring, "allocations-kernel-latency", 10_000, true);
        }
        Err(error) => println!("SKIP: {error}; the thread ring runs the same shard"),
    }
}

#[test]
fn steady_state_on_the_thread_ring_allocates_nothing() {
    steady_state(ThreadRing::new(2, 64).unwrap(), "allocations-threads", 10_000, false);
    steady_state(ThreadRing::new(2, 64).unwrap(), "allocations-threads-latency", 1_000, true);
}

/// Lone reads and writes, in a queue and awaited, with a trial among them.
fn lone_steady_state(directory: &Path, ios: u64) {
    let ring = match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => ring,
        Err(error) => return println!("SKIP: {error}"),
    };
    let Ok(directory) = tempfile::tempdir_in(directory) else {
        return println!("SKIP: nothing can be made in {}", directory.display());
    };
    let path = directory.path().join("lone");
    std::fs::write(&path, vec![1; BLOCK * 64]).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let options = OpenOptions::new().write(true).direct(DirectMode::Buffered);
    let file = shard.open(&path, &options).unwrap();
    let mut reads = CompletionQueue::new();
    let mut read = Some(Packet::<Read, _>::new(shard.arena().alloc(BLOCK).unwrap()));
    let mut queued = |ios: u64| {
        for at in 0..ios {
            let packet = read.take().unwrap();
            reads.send(&file, at % 64 * BLOCK as u64, packet, at).unwrap();
            let done = loop {
                shard.turn_into(Wait::at_least(1), &mut reads).unwrap();
                if let Some((_tag, done)) = reads.pop() {
                    break done;
                }
            };
            assert!(done.is_ok());
            read = Some(done.into_packet());
        }
    };
    let awaited = async |ios: u64| {
        let mut packet = Packet::<Write, _>::new(shard.arena().alloc(BLOCK).unwrap());
        for at in 0..ios {
            let done = file.io(at % 64 * BLOCK as u64, packet).await;
            assert!(done.is_ok());
            packet = done.into_packet();
        }
    };
    queued(200);
    block_on(&shard, awaited(200)).unwrap();
    let before = shard.metrics().inline_ops;
    let reading = allocations(|| queued(ios));
    let few = allocations(|| block_on(&shard, awaited(1)).unwrap());
    let many = allocations(|| block_on(&shard, awaited(ios)).unwrap());
    let inline = shard.metrics().inline_ops - before;
    println!("{reading} allocations in {ios} lone reads, {inline} of {} ops inline", 2 * ios);
    assert_eq!((reading, many), (0, few), "lone ops allocate nothing once warm");
}

#[test]
fn lone_ops_allocate_nothing_once_warm() {
    lone_steady_state(Path::new("/dev/shm"), 70_000);
    lone_steady_state(Path::new(env!("CARGO_TARGET_TMPDIR")), 10_000);
}

/// Chains, durable writes by each method, ranges and copies.
async fn ordered<R: Ring>(file: &File<R>, rounds: u64) {
    let page = |file: &File<R>| file.shard().arena().alloc(BLOCK).unwrap();
    for at in 0..rounds {
        let at = at % (BLOCKS / 4) * 4 * BLOCK as u64;
        let mut ones = page(file);
        ones.fill(1);
        let chain = file.chain().write_at(at, ones).sync(Durability::Data);
        let chain = chain.read_at(at, page(file)).write_from_previous(at + BLOCK as u64);
        let (result, mut buffers) = chain.sync(Durability::Full).commit().await;
        result.unwrap();
        let mut buffer = buffers.take(2).unwrap();
        for method in SyncMethod::ALL {
            if file.set_sync_method(method).is_ok() {
                let (written, back) = file.write_durable_at(at, buffer).await;
                written.unwrap();
                buffer = back;
            }
        }
        let full = WriteAt::new(at).durability(Durability::Full);
        assert!(file.io(full, Packet::<Write, _>::new(buffer)).await.is_ok());
        file.write_zeroes(at + 2 * BLOCK as u64, BLOCK as u64).await.unwrap();
        let copied = file.copy_range_to(at, BLOCK as u64, file, at + 3 * BLOCK as u64).await;
        assert_eq!(copied, Ok(BLOCK as u64));
    }
}

fn ordered_steady_state<R: Ring>(ring: R, name: &str, rounds: u64) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, vec![1; BLOCK * 1024]).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let options =
        OpenOptions { write: true, direct: DirectMode::PreferDirect, ..OpenOptions::default() };
    let file = shard.open(&path, &options).unwrap();
    block_on(&shard, ordered(&file, 8)).unwrap();
    let few = allocations(|| block_on(&shard, ordered(&file, 1)).unwrap());
    let many = allocations(|| block_on(&shard, ordered(&file, 1 + rounds)).unwrap());
    println!("{name}: {few} allocations to start, {many} for {rounds} rounds of durable writes");
    drop((file, shard));
    std::fs::remove_file(path).unwrap();
    assert_eq!(many, few, "chains and durable writes allocate nothing once warm");
}

#[test]
fn chains_and_durable_writes_on_the_kernel_ring_allocate_nothing() {
    match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => ordered_steady_state(ring, "allocations-ordered-kernel", 200),
        Err(error) => println!("SKIP: {error}; the thread ring runs the same shard"),
    }
}

#[test]
fn chains_and_durable_writes_on_the_thread_ring_allocate_nothing() {
    ordered_steady_state(ThreadRing::new(2, 64).unwrap(), "allocations-ordered-threads", 200);
}

/// What the controller of [`null_namespace`] says that it can do: everything; and one namespace.
fn null_facts() -> NvmeFacts {
    let mut bytes = [0; IDENTIFY_BYTES];
    (bytes[525], bytes[520], bytes[521]) = (1, 0xff, 1);
    let controller = Controller::parse(&bytes);
    let mut bytes = [0; IDENTIFY_BYTES];
    bytes[..8].copy_from_slice(&(1_u64 << 20).to_le_bytes());
    // Blocks of 4096 bytes; a copy of at most 4 of them.
    (bytes[130], bytes[74], bytes[76]) = (12, 4, 4);
    NvmeFacts::new(1, &controller, &Namespace::parse(&bytes).unwrap())
}

/// `/dev/null`, which carries out any command at once and moves nothing.
fn null_namespace(shard: &Shard<KernelRing>) -> File<KernelRing> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("allocations-null");
    std::fs::write(&path, [0; BLOCK]).unwrap();
    let mut geometry = mfio_engine::target::open(&path, &OpenOptions::new()).unwrap().geometry;
    std::fs::remove_file(path).unwrap();
    let facts = null_facts();
    (geometry.kind, geometry.direct) = (TargetKind::NvmeNamespace, true);
    (geometry.offset_align, geometry.mem_align) = (4096, 4096);
    geometry.len_bytes = facts.blocks << 12;
    geometry.facts.nvme = Some(facts);
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    shard.adopt("/dev/null", null, geometry)
}

/// Each command that there is, awaited.
async fn commands<R: Ring>(file: &File<R>, rounds: u64) {
    let page = || file.shard().arena().alloc(BLOCK).unwrap();
    for at in 0..rounds {
        let at = at % BLOCKS * BLOCK as u64;
        let done = file.io(at, Packet::<Read, _>::new(page())).await;
        assert!(done.is_ok());
        let packet = Packet::<Write, _>::new(done.into_buffer());
        assert!(file.io(Durable(at), packet).await.is_ok());
        file.sync(Durability::Data).await.unwrap();
        file.write_zeroes(at, 2 * BLOCK as u64).await.unwrap();
        file.discard(at, 2 * BLOCK as u64).await.unwrap();
        let (same, _) = file.compare_at(at, page()).await;
        same.unwrap();
        file.copy_within(at, BLOCK as u64, at + (8 << 20)).await.unwrap();
    }
}

fn commands_allocate_nothing(name: &str, file: &File<KernelRing>, ios: u64) {
    let shard = file.shard();
    let mut reads = CompletionQueue::new();
    let mut writes = CompletionQueue::new();
    for tag in 0..DEPTH {
        let page = || Packet::new(shard.arena().alloc(BLOCK).unwrap());
        reads.send(file, tag * BLOCK as u64, page(), tag).unwrap();
        if tag % 4 == 0 {
            let page = Packet::new(shard.arena().alloc(BLOCK).unwrap());
            writes.send(file, tag * BLOCK as u64, page, tag).unwrap();
        }
    }
    packets(file, &mut reads, &mut writes, 2_000);
    let queued = allocations(|| packets(file, &mut reads, &mut writes, ios));
    drop((reads, writes));
    while !shard.is_idle() {
        shard.turn(Wait::at_least(1)).unwrap();
    }
    let before = shard.metrics().coalesced;
    let mut batch = shard.batch::<32, ArenaBuf>();
    batches(file, &mut batch, ios);
    let batched = allocations(|| batches(file, &mut batch, ios));
    drop(batch);
    let coalesced = shard.metrics().coalesced - before;
    block_on(shard, commands(file, 100)).unwrap();
    let few = allocations(|| block_on(shard, commands(file, 1)).unwrap());
    let many = allocations(|| block_on(shard, commands(file, 1 + ios / 100)).unwrap());
    println!("{name}: {queued} allocations in {ios} queued, {batched} in {ios} batched commands");
    println!("{name}: {few} to start awaiting, {many} in {} rounds of each kind", 1 + ios / 100);
    assert!(coalesced > ios / 4, "neighbours are one command: {coalesced}");
    assert_eq!((queued, batched), (0, 0), "commands allocate nothing once warm");
    assert_eq!(many, few, "awaiting them allocates nothing once warm");
}

#[test]
fn commands_to_a_namespace_allocate_nothing_once_warm() {
    let shard = || match KernelRing::new(&KernelConfig::new(64)) {
        Ok(ring) => Some(Shard::with_ring(ring, &Config::new()).unwrap()),
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    };
    let Some(of_null) = shard() else { return };
    let null = null_namespace(&of_null);
    if block_on(&of_null, null.sync(Durability::Data)).unwrap().is_ok() {
        commands_allocate_nothing("/dev/null", &null, 50_000);
    } else {
        println!("SKIP: /dev/null takes no commands on this kernel (Linux 6.11)");
    }
    // And a real one, in the guest (`scripts/guest/smoke`).
    let Some(path) = std::env::var_os("MFIO_NG4K") else { return };
    for poll in [Poll::Interrupt, Poll::Polled] {
        let shard = shard().unwrap();
        let options = OpenOptions::new().write(true).allow_device_write(true).poll(poll);
        let file = shard.open(Path::new(&path), &options.direct(DirectMode::Direct)).unwrap();
        commands_allocate_nothing(&format!("a namespace, {poll:?}"), &file, 2_000);
    }
}
