//! What a device that lies leaves behind is told by the header of each sector, by name (F41).
//!
//! The engine itself does not claim to notice: it hands out what the device returned.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use engine_sim::{Damage, seal, verify};
use mfio_core::block_on;
use mfio_engine::buffer::{ArenaConfig, SizeClass};
use mfio_engine::ring::sim::{FileSpec, Lie, SimConfig, SimDevice, SimRing};
use mfio_engine::{Config, File, Shard};

const SECTOR: usize = 512;

struct Bench {
    shard: Shard<SimRing>,
    file: File<SimRing>,
    device: SimDevice,
}

fn bench() -> Bench {
    let device = SimDevice::new(&[FileSpec::direct(64 << 10)]);
    let arena = ArenaConfig::new(vec![SizeClass { bytes: 4096, count: 8 }]);
    let config = Config { arena, ..Config::new() };
    let shard = Shard::with_ring(SimRing::new(SimConfig::calm(1), &device), &config).unwrap();
    let file = shard.adopt_simulated("lies", device.fd(0), device.geometry(0));
    Bench { shard, file, device }
}

impl Bench {
    /// Writes one sector through the engine, which is told that all went well.
    fn write(&self, sequence: u32, sector: u32) {
        let mut buffer = self.shard.arena().alloc(SECTOR).unwrap();
        let offset = sector as usize * SECTOR;
        seal(&mut buffer, sequence, offset);
        let (result, _) =
            block_on(&self.shard, self.file.write_all_at(offset as u64, buffer)).unwrap();
        result.unwrap();
    }

    /// Reads one sector through the engine and looks at its header.
    fn check(&self, sequence: u32, sector: u32) -> Result<(), Damage> {
        let buffer = self.shard.arena().alloc(SECTOR).unwrap();
        let offset = u64::from(sector) * SECTOR as u64;
        let (result, buffer) =
            block_on(&self.shard, self.file.read_exact_at(offset, buffer)).unwrap();
        result.unwrap();
        verify(buffer[..].try_into().unwrap(), sequence, sector)
    }
}

#[test]
fn f41_lost_write_is_named() {
    let bench = bench();
    bench.device.lie(0, Lie::LostWrite);
    bench.write(1, 3);
    assert_eq!(bench.check(1, 3), Err(Damage::Lost { found: 0 }));
    bench.write(2, 3);
    assert_eq!(bench.check(2, 3), Ok(()));
    bench.device.lie(0, Lie::LostWrite);
    bench.write(3, 3);
    assert_eq!(bench.check(3, 3), Err(Damage::Lost { found: 2 }));
    let name = bench.check(3, 3).unwrap_err().to_string();
    assert_eq!(name, "lost write: write #2 is still there");
}

#[test]
fn f41_misdirected_write_is_named_at_both_places() {
    let bench = bench();
    bench.write(1, 5);
    bench.write(2, 9);
    bench.device.lie(0, Lie::MisdirectedWrite { to_bytes: 9 * SECTOR as u64 });
    bench.write(3, 5);
    assert_eq!(bench.check(3, 5), Err(Damage::Lost { found: 1 }));
    assert_eq!(bench.check(2, 9), Err(Damage::Misdirected { found: 3, meant_for: 5 }));
    let name = bench.check(2, 9).unwrap_err().to_string();
    assert_eq!(name, "misdirected write: #3 for sector 5 is there");
}

#[test]
fn f41_rotten_sector_is_named_and_heals_when_it_is_written() {
    let bench = bench();
    bench.write(1, 7);
    for bytes in [7 * 512..7 * 512 + 1, 8 * 512 - 3..8 * 512] {
        let count = usize::try_from(bytes.end - bytes.start).unwrap();
        bench.device.rot(0, bytes);
        assert_eq!(bench.check(1, 7), Err(Damage::Rotten { bytes: count }));
        bench.write(1, 7);
        assert_eq!(bench.check(1, 7), Ok(()));
    }
    bench.device.rot(0, 7 * 512..8 * 512);
    assert_eq!(bench.check(1, 7).unwrap_err().to_string(), "rotten sector: 512 bytes are wrong");
}

#[test]
fn f41_lies_can_be_switched_off_and_on() {
    let bench = bench();
    bench.device.lie(0, Lie::LostWrite);
    bench.write(1, 0);
    bench.device.rot(0, 512..513);
    bench.device.show_lies(0, false);
    assert_eq!(bench.check(1, 0), Ok(()));
    bench.device.show_lies(0, true);
    assert_eq!(bench.check(1, 0), Err(Damage::Lost { found: 0 }));
}
