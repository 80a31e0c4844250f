//! Where in a file the next I/O goes, and how much of its length fits there.
//!
//! Data flow: direction, wanted length, random numbers -> offset relative to the region.
//! Simple jobs (one size, one distribution) take the short way; zones, strides, alignment,
//! skewed distributions and runs of several I/Os take `place_any`.
//!
//! Not here: which file (`file_choice`), which direction (`generator`).

use fio_compat::{Distribution, Strided};

use super::block_sizes::Blocks;
use super::distribution::{Cycle, Drawer};
use super::{Places, Region, Shape};
use crate::random::Random;
use crate::random_map::RandomMap;

/// A length that fits is found within so many draws, or the shortest is taken.
const FIT_DRAWS: u32 = 32;

/// A random offset and what follows it, for `rw=randread:8`.
#[derive(Clone, Copy, Debug, Default)]
struct Run {
    left: u64,
    at: u64,
    next: u64,
}

/// State of one file.
pub(super) struct FileState {
    pub(super) region: Region,
    pub(super) units: u64,
    unit: u64,
    /// Next offset per direction, relative to the region: read, write, trim.
    cursor: [u64; 3],
    /// Whether a direction has begun, after which a stride is added.
    begun: [bool; 3],
    map: Option<RandomMap>,
    /// With zones, what was touched in the present one since it was entered.
    zone_map: Option<RandomMap>,
    cycle: Option<Cycle>,
    drawers: Vec<Drawer>,
    align: [u64; 3],
    run: [Run; 3],
    zone_start: u64,
    zone_done: u64,
}

impl FileState {
    pub(super) fn new(shape: &Shape, region: Region, seed: u64) -> Self {
        let unit = u64::from(shape.unit_bytes());
        let units = region.len_bytes / unit;
        let places = &shape.places;
        let mut random = Random::new(seed ^ region.start_bytes);
        let align = [0, 1, 2].map(|direction| {
            let least = u64::from(shape.blocks_of(direction, shape.random).least());
            let wanted = places.align[direction];
            if wanted == 0 { least.max(1) } else { wanted }
        });
        let mut drawers = Vec::new();
        if shape.random && places.distribution.iter().any(|kind| *kind != Distribution::Random) {
            for (kind, align) in places.distribution.iter().zip(align) {
                let blocks = (units * unit).saturating_sub(1) / align + 1;
                drawers.push(Drawer::new(kind, blocks, align, &mut random));
            }
        }
        let zone_map = shape
            .zone_bytes_mapped()
            .map(|range_bytes| RandomMap::new((range_bytes / unit).min(units).max(1)));
        let lfsr = shape.random && places.lfsr && drawers.is_empty() && zone_map.is_none();
        let cycle = lfsr.then(|| Cycle::new(units, &mut random));
        let map = shape.has_map().then(|| RandomMap::new(units));
        Self {
            region,
            units,
            unit,
            cursor: [0; 3],
            begun: [false; 3],
            map,
            zone_map,
            cycle,
            drawers,
            align,
            run: [Run::default(); 3],
            zone_start: 0,
            zone_done: 0,
        }
    }

    /// Offset relative to the region, and the length that fits there.
    #[inline]
    pub(super) fn sequential(&mut self, direction: usize, wanted: u32) -> (u64, u32) {
        let usable = self.units * self.unit;
        let len = u64::from(wanted).min(usable);
        let mut at = self.cursor[direction];
        if at + len > usable {
            at = 0;
        }
        self.cursor[direction] = at + len;
        (at, u32::try_from(len).unwrap_or(wanted))
    }

    /// A random block of the one size there is.
    #[inline]
    pub(super) fn random(&mut self, wanted: u32, offsets: &mut Random) -> (u64, u32) {
        let drawn = offsets.below(self.units);
        let Some(map) = &mut self.map else { return (drawn * self.unit, wanted) };
        (map.take(drawn, 1).0 * self.unit, wanted)
    }

    /// The general case; `random` is drawn before, because it depends on a percentage.
    pub(super) fn place_any(
        &mut self,
        places: &Places,
        (direction, random): (usize, bool),
        blocks: &Blocks,
        (offsets, sizes): (&mut Random, &mut Random),
    ) -> (u64, u32) {
        let usable = self.units * self.unit;
        let (low, high) = self.window(places.strided, usable);
        let mut wanted = u64::from(blocks.draw(sizes));
        let at = if random {
            self.random_offset(places, direction, (low, high), u64::from(blocks.least()), offsets)
        } else {
            self.next_offset(places, direction, (low, high), u64::from(blocks.least()))
        };
        let mut draws = 0;
        while at + wanted > high {
            draws += 1;
            let shortest = draws >= FIT_DRAWS;
            wanted = u64::from(if shortest { blocks.least() } else { blocks.draw(sizes) });
            if shortest {
                break;
            }
        }
        let (at, len) = match (&mut self.zone_map, &mut self.map) {
            (Some(map), _) if random => {
                let (first, count) = map.take((at - low) / self.unit, wanted.div_ceil(self.unit));
                (low + first * self.unit, (count * self.unit).min(wanted))
            }
            (None, Some(map)) if random => {
                let (first, count) = map.take(at / self.unit, wanted.div_ceil(self.unit));
                (first * self.unit, (count * self.unit).min(wanted))
            }
            _ => (at, wanted.min(usable)),
        };
        self.cursor[direction] = at + len;
        self.run[direction].next = at + len;
        self.begun[direction] = true;
        self.zone_done += len;
        (at, u32::try_from(len).unwrap_or(u32::MAX))
    }

    /// The part of the region that may be used now: all of it, or the present zone.
    fn window(&mut self, strided: Option<Strided>, usable: u64) -> (u64, u64) {
        let Some(zone) = strided else { return (0, usable) };
        if self.zone_done >= zone.size_bytes {
            self.zone_done = 0;
            self.zone_start += zone.range_bytes + zone.skip_bytes;
            if self.zone_start + self.unit > usable {
                self.zone_start = 0;
            }
            self.cursor = [self.zone_start; 3];
            self.begun = [false; 3];
            let range_bytes = zone.range_bytes.min(usable - self.zone_start);
            if let Some(map) = &mut self.zone_map {
                *map = RandomMap::new((range_bytes / self.unit).max(1));
            }
        }
        (self.zone_start, (self.zone_start + zone.range_bytes).min(usable))
    }

    fn next_offset(
        &self,
        places: &Places,
        direction: usize,
        (low, high): (u64, u64),
        least: u64,
    ) -> u64 {
        let at = self.cursor[direction];
        let add =
            if self.begun[direction] && !places.runs { places.number.unwrap_or(0) } else { 0 };
        let next = at.checked_add_signed(add).filter(|next| *next >= low);
        match next {
            Some(next) if next.checked_add(least).is_some_and(|end| end <= high) => next,
            // Behind the end it starts over, before the start it goes on at the end.
            _ if add >= 0 => low,
            _ => high.saturating_sub(add.unsigned_abs().max(least)).max(low),
        }
    }

    fn random_offset(
        &mut self,
        places: &Places,
        direction: usize,
        (low, high): (u64, u64),
        least: u64,
        offsets: &mut Random,
    ) -> u64 {
        if places.runs && self.run[direction].left > 0 {
            let run = &mut self.run[direction];
            run.left -= 1;
            let at = if places.identical { run.at } else { run.next };
            if at >= low && at + least <= high {
                return at;
            }
        }
        let align = self.align[direction];
        let count = (high - low).saturating_sub(least) / align + 1;
        let drawn = match (&mut self.cycle, self.drawers.get(direction)) {
            (Some(cycle), _) => cycle.next() * self.unit / align,
            (None, Some(drawer)) => drawer.draw(offsets) % count,
            (None, None) => offsets.below(count),
        };
        let at = low + drawn.min(count - 1) * align;
        if places.runs {
            let left = places.number.unwrap_or(1).unsigned_abs().saturating_sub(1);
            self.run[direction] = Run { left, at, next: at };
        }
        at
    }
}
