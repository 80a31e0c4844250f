//! This engine: a shard, buffers of its arena; a task per read in flight, or one loop over a
//! completion queue, or one over a batch, which joins neighbours.

use std::io;
use std::rc::Rc;

use mfio_core::{CompletionQueue, Packet, Read};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Config, DirectMode, File, OpenOptions, Shard};

use crate::work::{BLOCK, Spent, Work};

/// The most reads in flight of a batch, whose storage is inline.
const BATCH: usize = 128;

/// A shard, its file and a buffer per read.
struct Set {
    shard: Shard<KernelRing>,
    file: File<KernelRing>,
    buffers: Vec<ArenaBuf>,
}

fn set(work: &Work) -> io::Result<Set> {
    let mut config = Config::new();
    config.in_flight_max = work.depth;
    config.backlog_max = work.depth;
    let class = SizeClass { bytes: BLOCK as u32, count: work.depth + 8 };
    config.arena = ArenaConfig::new(vec![class]);
    let ring = KernelRing::new(&KernelConfig::new(work.depth)).map_err(io::Error::other)?;
    let shard = Shard::with_ring(ring, &config).map_err(io::Error::other)?;
    let direct = if work.direct { DirectMode::Direct } else { DirectMode::Buffered };
    let options = OpenOptions::new().direct(direct);
    let file = shard.open(&work.path, &options).map_err(io::Error::other)?;
    let buffers = (0..work.depth).map(|_| shard.arena().alloc(BLOCK).expect("one per read"));
    let buffers = buffers.collect();
    Ok(Set { shard, file, buffers })
}

/// Reads with a task per read in flight.
///
/// # Errors
/// The first that fails.
pub fn tasks(work: &Rc<Work>) -> io::Result<Spent> {
    let Set { shard, file, buffers } = set(work)?;
    let lane = |mut buffer: ArenaBuf| {
        let (file, work) = (file.clone(), Rc::clone(work));
        shard.spawn(async move {
            while let Some(offset) = work.next() {
                let (read, back) = file.read_exact_at(offset, buffer).await;
                read.map_err(io::Error::other)?;
                buffer = back;
            }
            Ok::<_, io::Error>(())
        })
    };
    let lanes = buffers.into_iter().map(lane).collect::<Result<Vec<_>, _>>();
    let lanes = lanes.map_err(io::Error::other)?;
    let all = async {
        for lane in lanes {
            lane.await.map_err(io::Error::other)??;
        }
        Ok(work.spent())
    };
    shard.block_on(all).map_err(io::Error::other)?
}

/// Reads with packets on a completion queue.
///
/// # Errors
/// The first that fails.
pub fn queue(work: &Work) -> io::Result<Spent> {
    let Set { shard, file, buffers } = set(work)?;
    let mut queue = CompletionQueue::<Read, ArenaBuf>::new();
    let mut idle: Vec<_> = buffers.into_iter().map(Packet::new).collect();
    let (at_once, mut in_flight) = ((work.depth / 4).clamp(1, 32), 0);
    loop {
        while let Some(packet) = idle.pop() {
            let Some(offset) = work.next() else { break };
            queue.send(&file, offset, packet, 0).map_err(|_full| io::Error::other("full"))?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(work.spent());
        }
        shard.turn(Wait::at_least(at_once.min(in_flight))).map_err(io::Error::other)?;
        while let Some((_tag, done)) = queue.pop() {
            if !done.is_ok() {
                return Err(io::Error::other("a read failed"));
            }
            idle.push(done.into_packet());
            in_flight -= 1;
        }
    }
}

/// Reads with one batch, at most [`BATCH`] at a time.
///
/// # Errors
/// The first that fails.
pub fn batch(work: &Work) -> io::Result<Spent> {
    let Set { shard, file, buffers: mut idle } = set(work)?;
    idle.truncate(BATCH);
    let mut batch = Box::new(shard.batch::<BATCH, ArenaBuf>());
    let (at_once, mut in_flight) = ((work.depth / 4).clamp(1, 32), 0);
    loop {
        while let Some(buffer) = idle.pop() {
            let Some(offset) = work.next() else { break };
            let pushed = batch.push_read(&file, offset, buffer);
            pushed.map_err(|_full| io::Error::other("full"))?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return Ok(work.spent());
        }
        batch.submit().map_err(io::Error::other)?;
        shard.turn(Wait::at_least(at_once.min(in_flight))).map_err(io::Error::other)?;
        while let Some(page) = batch.reap() {
            page.result.map_err(io::Error::other)?;
            idle.push(page.buffer);
            in_flight -= 1;
        }
    }
}
