//! This engine: a shard, buffers of its arena, a future per read in flight.

use std::io;

use futures::future::try_join_all;
use mfio_core::block_on;
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Config, DirectMode, OpenOptions, Shard};

use crate::work::{BLOCK, Spent, Work};

/// Reads.
///
/// # Errors
/// The first that fails.
pub fn run(work: &Work) -> io::Result<Spent> {
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
    let lane = |mut buffer: ArenaBuf| {
        let file = &file;
        async move {
            while let Some(offset) = work.next() {
                let (read, back) = file.read_exact_at(offset, buffer).await;
                read.map_err(io::Error::other)?;
                buffer = back;
            }
            Ok::<_, io::Error>(())
        }
    };
    let buffers = (0..work.depth).map(|_| shard.arena().alloc(BLOCK).expect("one per read"));
    let buffers: Vec<_> = buffers.collect();
    block_on(&shard, try_join_all(buffers.into_iter().map(lane))).map_err(io::Error::other)??;
    Ok(work.spent())
}
