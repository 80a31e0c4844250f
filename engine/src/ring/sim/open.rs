//! What a process that opens a simulated file does to it: a flush of all that others have left.
//!
//! Data flow: `Shard::open_simulated_inode` → [`SimDevice::sync`] → the file's durable image.
//!
//! Not here: flushes that go through a ring (`steps`).

use nix::errno::Errno;

use super::device::SimDevice;
use super::random::Random;

impl SimDevice {
    /// The `fsync(2)` of an open, with nothing in flight: saves every dirty sector of `file`.
    ///
    /// # Errors
    /// `EIO`, in `rate` of 65,536 cases: half of the dirty sectors are lost then, reads still
    /// see them, and the next call succeeds (F37).
    ///
    /// # Panics
    /// When the device has no such file.
    pub fn sync(&self, file: usize, rate: u16, random: &mut Random) -> Result<(), Errno> {
        let fails = random.chance(rate);
        self.with(file, |file| {
            if fails {
                file.fail_flush(random);
                return Err(Errno::EIO);
            }
            // All that was written is covered, however its write ended.
            file.flush(u64::MAX, random);
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{FileSpec, SimConfig, SimRing};
    use super::*;
    use crate::buffer::{Arena, ArenaConfig, SizeClass};
    use crate::ring::{Op, OpKind, Ring, Tag, Wait};

    /// A device of which one sector holds ones that no flush has saved.
    fn written() -> SimDevice {
        let device = SimDevice::new(&[FileSpec::direct(4096)]);
        let arena = Arena::new(&ArenaConfig::new(vec![SizeClass { bytes: 512, count: 1 }]));
        let mut buffer = arena.unwrap().alloc(512).unwrap();
        buffer.fill(1);
        let mut ring = SimRing::new(SimConfig::calm(1), &device);
        let file = ring.register_file(device.fd(0));
        let op = Op::transfer(OpKind::Write, file, 0, buffer.mem_range());
        ring.push(op, Tag { slot: 0, generation: 0 });
        ring.enter(Wait::at_least(1)).unwrap();
        ring.reap(&mut Vec::new());
        device
    }

    fn durable(device: &SimDevice) -> u8 {
        let mut byte = [0];
        device.peek_durable(0, 0, &mut byte);
        byte[0]
    }

    #[test]
    fn f38_sync_of_an_open_saves_what_nobody_flushed() {
        let device = written();
        assert_eq!(durable(&device), 0);
        device.sync(0, 0, &mut Random::new(1)).unwrap();
        assert_eq!(durable(&device), 1);
    }

    #[test]
    fn f37_sync_of_an_open_fails_once_and_then_succeeds_without_saving() {
        let mut lost = 0;
        for seed in 0..64 {
            let (device, mut random) = (written(), Random::new(seed));
            assert_eq!(device.sync(0, u16::MAX, &mut random), Err(Errno::EIO));
            device.sync(0, 0, &mut random).unwrap();
            lost += u32::from(durable(&device) == 0);
        }
        assert!((10..54).contains(&lost), "{lost}");
    }
}
