//! What a power cut now could leave of a file: every content of every sector.
//!
//! Data flow: the two images of a file and the writes that run → [`Survivors`] → a checker that
//! holds each content against what it knows. Sectors survive independently of each other, so
//! the contents of the single sectors say everything about the many images they combine to.
//!
//! Not here: cutting the power (`steps`), writes that survive as a whole or not at all: of
//! those that run, nothing is said.

use core::ops::Range;

use super::device::SECTOR_BYTES;
use super::flight::Phase;
use super::kernel::Kernel;
use crate::ring::OpKind;

/// The most writes to one sector whose combinations are told, the oldest first.
const RUNNING_MAX: usize = 8;

const SECTOR: usize = SECTOR_BYTES as usize;

/// What a power cut could leave of each sector of a file.
#[derive(Clone, Debug, Default)]
pub struct Survivors {
    /// Sector and content, in the order of the sectors.
    contents: Vec<(usize, [u8; SECTOR])>,
    images: u64,
}

impl Survivors {
    /// Every sector with each content it could have, one or more.
    pub fn contents(&self) -> impl Iterator<Item = (usize, &[u8])> {
        self.contents.iter().map(|(sector, bytes)| (*sector, bytes.as_slice()))
    }

    /// How many images of the whole file they combine to.
    #[must_use]
    pub const fn images(&self) -> u64 {
        self.images
    }
}

/// A write that runs, and what it may bring to one sector.
struct Running {
    within: Range<usize>,
    bytes: [u8; SECTOR],
}

impl Kernel {
    pub(super) fn survivors(&self, file: usize) -> Survivors {
        let mut found = Survivors { contents: Vec::new(), images: 1 };
        let count = self.device.with(file, |file| file.sectors.len());
        for sector in 0..count {
            let running = self.running(file, sector);
            let first = found.contents.len();
            self.device.with(file, |file| {
                let place = sector * SECTOR..(sector + 1) * SECTOR;
                let image = |bytes: &[u8]| <[u8; SECTOR]>::try_from(bytes).unwrap_or([0; SECTOR]);
                let durable = image(&file.durable[place.clone()]);
                found.contents.push((sector, durable));
                if running.is_empty() && !file.sectors[sector].dirty {
                    return;
                }
                // Any of the writes that run may have come through, in any combination.
                for mask in 0_u32..1 << running.len() {
                    let mut bytes = image(&file.cache[place.clone()]);
                    for (at, write) in running.iter().enumerate() {
                        if mask >> at & 1 == 1 {
                            let within = write.within.clone();
                            bytes[within.clone()].copy_from_slice(&write.bytes[within]);
                        }
                    }
                    if found.contents[first..].iter().all(|(_, other)| *other != bytes) {
                        found.contents.push((sector, bytes));
                    }
                }
            });
            let variants = found.contents.len() - first;
            found.images = found.images.saturating_mul(variants as u64);
        }
        found
    }

    /// The writes that run and touch `sector` of `file`.
    fn running(&self, file: usize, sector: usize) -> Vec<Running> {
        let mut found = Vec::new();
        for flight in &self.flights {
            if found.len() == RUNNING_MAX {
                break;
            }
            let runs = matches!(flight.phase, Phase::Running | Phase::Copied);
            let Some(memory) = &flight.memory else { continue };
            if !runs || flight.kind != OpKind::Write || flight.file != file || flight.atomic {
                continue;
            }
            let start = usize::try_from(flight.offset_bytes).unwrap_or(usize::MAX);
            let end = start.saturating_add(flight.moved_bytes as usize);
            let place = sector * SECTOR..(sector + 1) * SECTOR;
            let (from, to) = (start.max(place.start), end.min(place.end));
            if from >= to {
                continue;
            }
            let within = from - place.start..to - place.start;
            let mut bytes = [0; SECTOR];
            let skipped = u32::try_from(from - start).expect("a transfer is short");
            memory.gather(skipped, &mut bytes[within.clone()]);
            found.push(Running { within, bytes });
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::pin::pin;
    use std::task::{Context, Waker};

    use crate::ring::Wait;
    use crate::ring::sim::{Choices, FileSpec, SimConfig, SimDevice, SimRing};
    use crate::{Config, Shard};

    /// A sector and the first byte of what it holds.
    type Contents = BTreeSet<(usize, u8)>;

    /// Two writes that overlap, the power cut after some turns: what was said to be possible,
    /// and what is there, by the choices.
    fn cut(choices: &Choices, turns: u32) -> (Contents, Contents) {
        let device = SimDevice::new(&[FileSpec::direct(2048)]);
        let ring = SimRing::scripted(SimConfig::calm(0), &device, choices);
        let power = ring.control();
        let shard = Shard::with_ring(ring, &Config::new()).unwrap();
        let file = shard.open_simulated(&device, 0);
        let mut cx = Context::from_waker(Waker::noop());
        let buffer = |byte| {
            let mut buffer = shard.arena().alloc(1024).unwrap();
            buffer.fill(byte);
            buffer
        };
        let mut first = pin!(file.write_all_at(0, buffer(1)));
        let mut second = pin!(file.write_all_at(512, buffer(2)));
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        for _ in 0..turns {
            let deadline_ns = power.next_event_ns();
            shard.turn(Wait { min: u32::from(deadline_ns.is_some()), deadline_ns }).unwrap();
        }
        let survivors = power.survivors(0);
        let said = survivors.contents().map(|(sector, bytes)| (sector, bytes[0])).collect();
        power.crash();
        let mut left = vec![0; 2048];
        device.peek(0, 0, &mut left);
        (said, left.chunks(512).map(|sector| sector[0]).enumerate().collect())
    }

    #[test]
    fn f40_what_is_said_to_survive_is_what_power_cuts_leave() {
        let mut most = 0;
        for turns in 0..6 {
            let choices = Choices::new(0);
            let (said, mut left) = cut(&choices, turns);
            while choices.next() {
                left.extend(cut(&choices, turns).1);
            }
            assert_eq!(said, left, "after {turns} turns");
            most = most.max(said.len());
        }
        // Sector 1 may hold what was there, or either write; its neighbours one of two.
        assert_eq!(most, 2 + 3 + 2 + 1);
    }
}
