//! Damaged places of a device: what a read of much more than them brings.
#![allow(clippy::unwrap_used, reason = "a test says what it saw")]

use mfio_core::{Packet, PacketIoExt, Read, block_on};
use mfio_engine::ring::sim::{FileSpec, SimConfig, SimDevice, SimRing};
use mfio_engine::{Config, Shard};

const LEN: usize = 64 << 10;

fn contents() -> Vec<u8> {
    (0..LEN).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Reads all of a file with damage; the failed ranges, and how many ops it took.
fn read(align_bytes: u32, damage: std::ops::Range<u64>, bisect: bool) -> (Vec<(u64, u64)>, u64) {
    let spec = FileSpec {
        align_bytes,
        memory_align_bytes: align_bytes,
        ..FileSpec::buffered(u32::try_from(LEN).unwrap())
    };
    let device = SimDevice::new(&[spec]);
    device.poke(0, 0, &contents());
    device.damage(0, damage);
    let config = Config { bisect_reads: bisect, ..Config::new() };
    let shard = Shard::with_ring(SimRing::new(SimConfig::calm(3), &device), &config).unwrap();
    let file = shard.adopt_simulated("damaged", device.fd(0), device.geometry(0));
    let buffer = shard.arena().alloc(LEN).unwrap();
    let done = block_on(&shard, file.io(0, Packet::<Read, _>::new(buffer))).unwrap();
    let mut failed: Vec<(u64, u64)> = Vec::new();
    for range in done.failed_ranges() {
        assert!(range.start < range.end, "an empty range is no failure");
        match failed.last_mut() {
            Some((_, end)) if *end == range.start => *end = range.end,
            _ => failed.push((range.start, range.end)),
        }
    }
    let bytes = done.into_buffer();
    let is_bad = |at: usize| failed.iter().any(|&(s, e)| (s..e).contains(&(at as u64)));
    if bisect {
        let wanted = contents();
        let wrong = wanted.iter().zip(bytes.iter()).enumerate();
        assert_eq!(wrong.filter(|(at, (want, is))| want != is && !is_bad(*at)).count(), 0);
    }
    (failed, shard.metrics().ops)
}

#[test]
fn damaged_sectors_are_the_only_ones_that_fail() {
    let (failed, ops) = read(512, 20_000..20_500, true);
    assert_eq!(failed, [(19_968, 20_992)]);
    assert!(ops < 40, "{ops} ops");
    let (failed, _) = read(512, 0..1, true);
    assert_eq!(failed, [(0, 512)]);
    let (failed, _) = read(512, LEN as u64 - 1..LEN as u64, true);
    assert_eq!(failed, [(LEN as u64 - 512, LEN as u64)]);
    // Through the page cache, by the page.
    let (failed, _) = read(1, 20_000..20_500, true);
    assert_eq!(failed, [(16_384, 24_576)]);
}

#[test]
fn damage_everywhere_ends_and_damage_is_not_looked_for_unasked() {
    let (failed, ops) = read(512, 0..LEN as u64, true);
    assert_eq!(failed, [(0, LEN as u64)]);
    assert_eq!(ops, 2 * (LEN as u64 / 512) - 1);
    let (failed, ops) = read(512, 20_000..20_500, false);
    assert_eq!((failed, ops), (vec![(0, LEN as u64)], 1));
}
