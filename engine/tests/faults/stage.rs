//! What the cases share: where the stage is, shards of both kinds, and work that is verified.

use std::path::PathBuf;

use mfio_core::{AlignedBuf, ErrorKind};
use mfio_engine::ring::AutoRing;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::{Config, DirectMode, Durability, File, IoError, OpenOptions, Shard};

use crate::stamped::{BLOCK, sequence_of, stamp};

/// The fault cannot be had here, and why.
pub(crate) struct Skip(pub(crate) String);

/// What the script says about its stage.
pub(crate) fn told(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("the script sets {name}"))
}

pub(crate) fn path() -> PathBuf {
    PathBuf::from(told("MFIO_FAULT_PATH"))
}

pub(crate) fn ring(backend: Backend) -> AutoRing {
    AutoRing::new(backend, &AutoConfig::new(64)).unwrap()
}

/// A shard on io_uring, where it is allowed, and one on threads.
pub(crate) fn shards() -> Vec<(&'static str, Shard)> {
    let mut shards = Vec::new();
    match AutoRing::new(Backend::RequireRing, &AutoConfig::new(64)) {
        Ok(ring) => shards.push(("io_uring", ring)),
        Err(error) => println!("without io_uring: {error}"),
    }
    shards.push(("threads", ring(Backend::Threads)));
    let shard = |ring| Shard::with_ring(ring, &Config::new()).unwrap();
    shards.into_iter().map(|(name, ring)| (name, shard(ring))).collect()
}

/// For reading and writing, and for making a file.
pub(crate) fn file_options(direct: DirectMode) -> OpenOptions {
    OpenOptions::new().write(true).create(true).direct(direct)
}

/// For writing to a block device past the page cache or through it.
pub(crate) fn device_options(direct: DirectMode) -> OpenOptions {
    OpenOptions::new().write(true).allow_device_write(true).direct(direct)
}

/// `len` bytes as write `sequence` puts them at `offset`.
pub(crate) fn stamped_at(offset: u64, sequence: u64, len: usize) -> AlignedBuf {
    let mut bytes = AlignedBuf::new(len, BLOCK);
    stamp(&mut bytes, offset, sequence);
    bytes
}

/// Every block of `bytes`, which were read at `offset`, is of write `sequence`.
pub(crate) fn assert_stamped(bytes: &[u8], offset: u64, sequence: u64) {
    for (block, at) in bytes.chunks_exact(BLOCK).zip((offset..).step_by(BLOCK)) {
        assert_eq!(sequence_of(block, at), Ok(sequence));
    }
}

pub(crate) fn kind(result: &Result<(), IoError>) -> Option<ErrorKind> {
    result.as_ref().err().map(|error| error.error.kind())
}

/// Writes, some of them durably, and reads back what they have left; registered memory where
/// there is any, several in flight.
pub(crate) async fn verified_work(file: &File, rounds: u64) {
    const LANES: u64 = 16;
    let shard = file.shard();
    let lane = |lane: u64| {
        let (file, shard) = (file.clone(), shard.clone());
        async move {
            for round in 0..rounds {
                let at = (lane + round % 4 * LANES) * BLOCK as u64;
                let mut page = shard.arena().alloc(BLOCK).unwrap();
                stamp(&mut page, at, round);
                let (written, mut page) = if (lane + round).is_multiple_of(4) {
                    file.write_durable_at(at, page).await
                } else {
                    file.write_all_at(at, page).await
                };
                written.unwrap();
                page.fill(0xee);
                let (read, page) = file.read_exact_at(at, page).await;
                read.unwrap();
                assert_stamped(&page, at, round);
            }
            file.sync(Durability::Data).await.unwrap();
        }
    };
    let lanes: Vec<_> = (0..LANES).map(|number| shard.spawn(lane(number)).unwrap()).collect();
    for lane in lanes {
        lane.await.unwrap();
    }
}
