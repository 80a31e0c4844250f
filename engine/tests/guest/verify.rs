//! Blocks that say where they belong and which write they are of, written in random order with
//! many in flight, and read back.

use mfio_core::{AlignedBuf, block_on};
use mfio_engine::ring::Wait;
use mfio_engine::{DirectMode, Durability};

use crate::device::{Guest, Kernel, KernelFile, Random, destructive, kernel_shard, patiently};

const BLOCK: usize = 4096;
const BLOCKS: u64 = 2048;
const WRITES: u64 = 6000;
const IN_FLIGHT: usize = 32;

fn block(at: u64, version: u64) -> AlignedBuf {
    let mut block = AlignedBuf::new(BLOCK, BLOCK);
    for (number, sector) in (0_u64..).zip(block.chunks_mut(512)) {
        sector[..8].copy_from_slice(&at.to_le_bytes());
        sector[8..16].copy_from_slice(&version.to_le_bytes());
        sector[16..24].copy_from_slice(&number.to_le_bytes());
        let mut fill = Random(at << 32 ^ version << 8 ^ number);
        for byte in &mut sector[24..] {
            *byte = fill.below(256).to_le_bytes()[0];
        }
    }
    block
}

/// Writes at random, never two of one block at a time; the newest version of each block.
fn write_all(shard: &Kernel, file: &KernelFile, seed: u64) -> Vec<u64> {
    let mut random = Random(seed);
    let mut newest = vec![0; usize::try_from(BLOCKS).unwrap()];
    let mut batch = shard.batch::<IN_FLIGHT, AlignedBuf>();
    let (mut under_way, mut version, mut ended) = (Vec::new(), 0, 0);
    while ended < WRITES {
        while version < WRITES && under_way.len() < IN_FLIGHT {
            let at = random.below(BLOCKS);
            if under_way.iter().any(|&(_, other)| other == at) {
                continue;
            }
            version += 1;
            newest[usize::try_from(at).unwrap()] = version;
            let index = batch.push_write(file, at * BLOCK as u64, block(at, version)).unwrap();
            under_way.push((index, at));
        }
        batch.submit().unwrap();
        shard.turn(Wait::at_least(1)).unwrap();
        while let Some(reaped) = batch.reap() {
            reaped.result.unwrap();
            under_way.retain(|&(index, _)| index != reaped.index);
            ended += 1;
        }
    }
    newest
}

fn read_all(shard: &Kernel, file: &KernelFile, newest: &[u64]) {
    let mut batch = shard.batch::<IN_FLIGHT, AlignedBuf>();
    let numbered: Vec<(u64, u64)> = (0..).zip(newest.iter().copied()).collect();
    for some in numbered.chunks(IN_FLIGHT) {
        let push = |&(at, _): &(u64, u64)| {
            batch.push_read(file, at * BLOCK as u64, AlignedBuf::new(BLOCK, BLOCK)).unwrap()
        };
        let pushed: Vec<usize> = some.iter().map(push).collect();
        block_on(shard, batch.run()).unwrap();
        for (index, &(at, version)) in pushed.into_iter().zip(some) {
            let reaped = batch.take(index).unwrap();
            reaped.result.unwrap();
            let expected =
                if version == 0 { AlignedBuf::new(BLOCK, BLOCK) } else { block(at, version) };
            assert!(reaped.buffer[..] == expected[..], "block {at} is not version {version}");
        }
    }
}

fn verified(variable: &str) {
    let Some(guest) = Guest::alone() else { return };
    let Some(path) = guest.device(variable) else { return };
    let shard = kernel_shard();
    let file = shard.open(&path, &destructive(DirectMode::Direct)).unwrap();
    let zeroes = AlignedBuf::new(1 << 20, BLOCK);
    let mut left = vec![zeroes];
    for at in 0..(BLOCKS * BLOCK as u64) >> 20 {
        let (done, zeroes) =
            block_on(&shard, file.write_all_at(at << 20, left.pop().unwrap())).unwrap();
        done.unwrap();
        left.push(zeroes);
    }
    let newest = write_all(&shard, &file, 7);
    read_all(&shard, &file, &newest);
    block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();
    drop(file);
    // And as another process would find them.
    let file = patiently(&shard, || shard.open(&path, &destructive(DirectMode::Direct)));
    read_all(&shard, &file, &newest);
    drop(file);
    assert_eq!((shard.in_flight(), shard.shutdown()), (0, 0));
}

#[test]
fn random_writes_to_nvme_of_512_byte_blocks_are_read_back() {
    verified("MFIO_NVME512");
}

#[test]
fn random_writes_to_nvme_of_4096_byte_blocks_are_read_back() {
    verified("MFIO_NVME4K");
}

#[test]
fn random_writes_to_null_blk_are_read_back() {
    verified("MFIO_NULLMEM");
}
