//! Decides what the next I/O is: direction, file, offset and length.
//!
//! A [`Shape`] and a seed go in, a fixed sequence of [`Step`]s comes out: the same seed gives
//! the same sequence on every machine and under every engine. On the hot path a step costs one
//! random number and one multiplication for the block index.
//!
//! Not here: buffers and their content (`content`), time limits (`run::control`).

mod block_sizes;
mod distribution;
mod file_choice;
mod place;
mod plain;

use fio_compat::{Distribution, FileService, Strided};

use crate::ioengine::Operation;
use crate::random::Random;

pub(crate) use block_sizes::Blocks;
use file_choice::FileChoice;
use place::FileState;
use plain::Plain;

/// Nothing was written since the last flush.
const CLEAN: (u64, u64) = (u64::MAX, u64::MAX);
const READ: usize = 0;
const WRITE: usize = 1;
const TRIM: usize = 2;
const OPERATIONS: [Operation; 3] = [Operation::Read, Operation::Write, Operation::Trim];

/// The part of one file that a job works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Region {
    /// First byte.
    pub(crate) start_bytes: u64,
    /// Length; what does not fill a block is never touched.
    pub(crate) len_bytes: u64,
}

/// Which directions a job has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Reads only.
    Read,
    /// Writes only.
    Write,
    /// So many of a hundred I/Os are reads.
    Both { read_percent: u8 },
    /// Trims only.
    Trim,
    /// Each block is trimmed and then written.
    TrimWrite,
    /// What a trace says: whether it reads, writes and trims.
    Trace([bool; 3]),
}

impl Mix {
    /// Whether there are reads, writes and trims.
    pub(crate) const fn directions(self) -> [bool; 3] {
        match self {
            Self::Read => [true, false, false],
            Self::Write => [false, true, false],
            Self::Both { .. } => [true, true, false],
            Self::Trim => [false, false, true],
            Self::TrimWrite => [false, true, true],
            Self::Trace(directions) => directions,
        }
    }
}

/// What is rarely asked for about places and files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Places {
    /// Alignment of random offsets by direction; 0 is the shortest block.
    pub(crate) align: [u64; 3],
    /// Share of random I/Os in a random job.
    pub(crate) percent_random: [u8; 3],
    /// Distribution of random offsets.
    pub(crate) distribution: [Distribution; 3],
    /// Full cycles instead of draws.
    pub(crate) lfsr: bool,
    /// I/Os per random offset (`runs`), or bytes added after each I/O.
    pub(crate) number: Option<i64>,
    /// Whether `number` counts I/Os.
    pub(crate) runs: bool,
    /// A run repeats its offset instead of going on behind it.
    pub(crate) identical: bool,
    /// Zones with gaps.
    pub(crate) strided: Option<Strided>,
    /// How files take turns, and after how many I/Os.
    pub(crate) files: (FileService, u64),
}

impl Default for Places {
    fn default() -> Self {
        Self {
            align: [0; 3],
            percent_random: [100; 3],
            distribution: Default::default(),
            lfsr: false,
            number: None,
            runs: false,
            identical: false,
            strided: None,
            files: (FileService::RoundRobin, 1),
        }
    }
}

/// Everything that determines the sequence, apart from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Where; one per file, in the order of the engine's files.
    pub(crate) regions: Vec<Region>,
    /// Lengths of reads, writes and trims; or of sequential and random I/Os.
    pub(crate) blocks: [Blocks; 3],
    /// The lengths go by pattern and not by direction.
    pub(crate) blocks_by_pattern: bool,
    /// Directions.
    pub(crate) mix: Mix,
    /// Offsets are drawn instead of following each other.
    pub(crate) random: bool,
    /// Touch every block once per pass.
    pub(crate) random_map: bool,
    /// Stop after this much; `None` goes on until told to stop.
    pub(crate) limit_bytes: Option<u64>,
    /// Each pass over the regions begins with a page cache that holds nothing of them.
    pub(crate) renews: bool,
    /// Stop after so many I/Os.
    pub(crate) limit_ios: Option<u64>,
    /// Flush after so many writes; 0 never.
    pub(crate) flush_every: u64,
    /// How to flush.
    pub(crate) flush: Operation,
    /// The rest.
    pub(crate) places: Places,
}

impl Shape {
    /// The lengths of a direction, for sequential or random I/O.
    pub(crate) fn blocks_of(&self, direction: usize, random: bool) -> &Blocks {
        &self.blocks[if self.blocks_by_pattern { usize::from(random) } else { direction }]
    }

    /// The lengths that occur.
    fn used(&self) -> impl Iterator<Item = &Blocks> {
        let partly = self.places.percent_random.iter().any(|percent| *percent < 100);
        let used = if self.blocks_by_pattern {
            [!self.random || partly, self.random, false]
        } else {
            self.mix.directions()
        };
        self.blocks.iter().zip(used).filter(|(_, used)| *used).map(|(blocks, _)| blocks)
    }

    /// The unit of random offsets: the smallest I/O of the directions in use.
    pub(crate) fn unit_bytes(&self) -> u32 {
        self.used().map(Blocks::least).min().unwrap_or(1).max(1)
    }

    /// What one pass over all regions amounts to, whole units only.
    pub(crate) fn pass_bytes(&self) -> u64 {
        let unit = u64::from(self.unit_bytes());
        self.regions.iter().map(|region| region.len_bytes / unit * unit).sum()
    }

    /// Whether all I/Os have the same length. Random maps and the ends of regions cut only
    /// where lengths differ.
    pub(crate) fn is_uniform(&self) -> bool {
        let unit = Blocks::One(self.unit_bytes());
        self.used().all(|blocks| *blocks == unit)
    }

    /// The largest I/O, which a buffer must hold.
    pub(crate) fn buffer_bytes(&self) -> u32 {
        self.used().map(Blocks::most).max().unwrap_or(1)
    }

    /// Whether a random map is kept: it makes sense only where every block has the same chance.
    pub(crate) fn has_map(&self) -> bool {
        let plain = !self.places.lfsr && self.places.strided.is_none();
        self.random_map && self.can_be_mapped() && plain
    }

    /// The length of the zones, where each block of one is to be touched once per round; a full
    /// cycle (`lfsr`) is nothing else.
    pub(crate) fn zone_bytes_mapped(&self) -> Option<u64> {
        let mapped = self.can_be_mapped() && (self.random_map || self.places.lfsr);
        self.places.strided.filter(|_| mapped).map(|zone| zone.range_bytes)
    }

    fn can_be_mapped(&self) -> bool {
        let places = &self.places;
        let even = places.distribution.iter().all(|kind| *kind == Distribution::Random);
        let whole = places.percent_random == [100; 3] && places.align == [0; 3];
        self.random && even && whole && !places.identical
    }

    /// Whether the short way of `place` will do.
    fn is_simple(&self) -> bool {
        let places = Places { files: self.places.files, ..Places::default() };
        self.is_uniform() && self.places == places
    }

    /// What a pass over one region amounts to ends somewhere: `has_map`, a cycle, or in order.
    fn is_bounded(&self) -> bool {
        !self.random || self.has_map() || self.places.lfsr
    }
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// An I/O, or a flush with length 0.
    Do { operation: Operation, file: u32, offset_bytes: u64, len_bytes: u32 },
    /// The amount is done.
    Finished,
    /// Nothing is due before that.
    Wait { until_ns: u64 },
    /// A pause; `drain` waits for what is in flight first.
    Think { spin_ns: u64, sleep_ns: u64, drain: bool },
    /// A pass is over, and the next wants the page cache without what this one left there.
    Renew,
}

/// Whatever feeds the worker's loop with steps.
pub(crate) trait Steps {
    /// What to do next.
    fn step(&mut self) -> Step;

    /// How many of the next steps are sure to be transfers on the first file that have no time,
    /// and what they do: [`Steps::quick`] tells them sooner.
    #[inline(always)]
    fn quick_count(&self) -> (u64, Operation) {
        (0, Operation::Read)
    }

    /// The next step where [`Steps::quick_count`] has one: where it goes, and its length.
    #[inline(always)]
    fn quick(&mut self) -> (u64, u32) {
        (0, 0)
    }

    /// When the I/O of the last step was due; 0 where it had no time. Without a default: steps
    /// that are made of others have to hand theirs on.
    fn scheduled_ns(&self) -> u64;
}

/// Produces the sequence.
pub(crate) struct Generator {
    plain: Plain,
    simple: bool,
    files: Vec<FileState>,
    file: usize,
    choice: FileChoice,
    blocks: [Blocks; 3],
    blocks_by_pattern: bool,
    places: Places,
    mix: Mix,
    random: bool,
    flush_every: u64,
    flush: Operation,
    bytes_left: u64,
    /// Where passes are told apart: what one amounts to, and what is left after this one.
    pass_bytes: u64,
    bytes_beyond: u64,
    ios_left: u64,
    writes_to_flush: u64,
    flush_due: bool,
    /// The block that was trimmed last and is written next.
    trimmed: Option<(u32, u64, u32)>,
    /// The direction of the next I/O of a mixed job, in place of the draw.
    forced: Option<usize>,
    /// From where to where was written since the last flush.
    dirty: (u64, u64),
    offsets: Random,
    choices: Random,
    sizes: Random,
}

impl Generator {
    /// A generator at its start. `seed` decides everything that is drawn.
    pub(crate) fn new(shape: &Shape, seed: u64) -> Self {
        let unit = u64::from(shape.unit_bytes());
        let files = shape.regions.iter().map(|region| FileState::new(shape, *region, seed));
        let files: Vec<FileState> = files.collect();
        let hopeless = files.is_empty() || files.iter().any(|file| file.units == 0);
        let pass = files.iter().map(|file| file.units * unit).collect();
        let rule = shape.places.files;
        let limit = if hopeless { 0 } else { shape.limit_bytes.unwrap_or(u64::MAX) };
        let pass_bytes = shape.pass_bytes();
        let first = if shape.renews { limit.min(pass_bytes) } else { limit };
        Self {
            plain: Plain::of(shape),
            simple: shape.is_simple(),
            choice: FileChoice::new(rule, pass, shape.is_bounded(), unit, seed ^ 0x6669_6c65),
            files,
            file: 0,
            blocks: shape.blocks.clone(),
            blocks_by_pattern: shape.blocks_by_pattern,
            places: shape.places.clone(),
            mix: shape.mix,
            random: shape.random,
            flush_every: shape.flush_every,
            flush: shape.flush,
            bytes_left: first,
            pass_bytes,
            bytes_beyond: limit - first,
            ios_left: shape.limit_ios.unwrap_or(u64::MAX),
            writes_to_flush: shape.flush_every,
            flush_due: false,
            trimmed: None,
            forced: None,
            dirty: CLEAN,
            offsets: Random::new(seed),
            choices: Random::new(seed ^ 0x5bd1_e995_0000_0001),
            sizes: Random::new(seed ^ 0x7369_7a65),
        }
    }

    /// Whether the job both reads and writes, so that a direction can be forced.
    pub(crate) const fn is_mixed(&self) -> bool {
        matches!(self.mix, Mix::Both { .. })
    }

    /// Makes the next I/O of a mixed job one of that direction: 0 reads, 1 writes.
    pub(crate) const fn force(&mut self, direction: usize) {
        self.forced = Some(direction);
    }

    /// What comes after the end of a pass: another, or nothing.
    #[cold]
    fn pass_step(&mut self) -> Step {
        let next = self.bytes_beyond.min(self.pass_bytes);
        if next == 0 || self.ios_left == 0 {
            return Step::Finished;
        }
        self.bytes_beyond -= next;
        self.bytes_left = next;
        Step::Renew
    }

    #[cold]
    fn flush_step(&mut self) -> Step {
        self.flush_due = false;
        let file = u32::try_from(self.file).unwrap_or(0);
        let (mut offset_bytes, mut len_bytes) = (0, 0);
        if self.flush == Operation::SyncRange {
            let (from, to) = std::mem::replace(&mut self.dirty, CLEAN);
            offset_bytes = from;
            len_bytes = u32::try_from(to - from).unwrap_or(0);
        }
        Step::Do { operation: self.flush, file, offset_bytes, len_bytes }
    }

    #[inline]
    fn note_write(&mut self, offset_bytes: u64, len_bytes: u32) {
        if self.flush == Operation::SyncRange {
            let end = offset_bytes + u64::from(len_bytes);
            let before = if self.dirty == CLEAN { 0 } else { self.dirty.1 };
            self.dirty = (self.dirty.0.min(offset_bytes), before.max(end));
        }
        if self.flush_every > 0 {
            self.writes_to_flush -= 1;
            if self.writes_to_flush == 0 {
                self.writes_to_flush = self.flush_every;
                self.flush_due = true;
            }
        }
    }
}

impl Steps for Generator {
    #[inline(always)]
    fn step(&mut self) -> Step {
        if self.plain.granted == 0 {
            return self.slow_step();
        }
        let (offset_bytes, len_bytes) = self.quick();
        Step::Do { operation: self.plain.operation, file: 0, offset_bytes, len_bytes }
    }

    #[inline(always)]
    fn quick_count(&self) -> (u64, Operation) {
        (self.plain.granted, self.plain.operation)
    }

    #[inline(always)]
    fn quick(&mut self) -> (u64, u32) {
        (self.plain.draw(&mut self.offsets), self.plain.len_bytes)
    }

    #[inline(always)]
    fn scheduled_ns(&self) -> u64 {
        0
    }
}

impl Generator {
    /// A step that is no [`Steps::quick`] one, or of which it was not known yet.
    #[inline(never)]
    fn slow_step(&mut self) -> Step {
        if !self.plain.is_plain() {
            return self.any_step();
        }
        let unit = u64::from(self.plain.len_bytes);
        let granted = self.ios_left.min(self.bytes_left.div_ceil(unit));
        if granted == 0 {
            return self.pass_step();
        }
        self.plain.granted = granted;
        self.ios_left -= granted;
        self.bytes_left = self.bytes_left.saturating_sub(granted.saturating_mul(unit));
        self.step()
    }

    /// A step of any job.
    fn any_step(&mut self) -> Step {
        if let Some((file, offset_bytes, len_bytes)) = self.trimmed.take() {
            self.note_write(offset_bytes, len_bytes);
            return Step::Do { operation: Operation::Write, file, offset_bytes, len_bytes };
        }
        if self.flush_due {
            return self.flush_step();
        }
        if self.bytes_left == 0 || self.ios_left == 0 {
            return self.pass_step();
        }
        let direction = match self.mix {
            Mix::Read => READ,
            Mix::Write => WRITE,
            Mix::Both { read_percent } => {
                let drawn = usize::from(self.choices.below(100) >= u64::from(read_percent));
                self.forced.take().unwrap_or(drawn)
            }
            Mix::Trim | Mix::TrimWrite => TRIM,
            Mix::Trace(_) => return Step::Finished,
        };
        if self.files.len() > 1 {
            self.file = self.choice.next();
        }
        let (at, len_bytes) = self.place(direction);
        let offset_bytes = self.files[self.file].region.start_bytes + at;
        if self.files.len() > 1 {
            self.choice.note(u64::from(len_bytes));
        }
        self.bytes_left = self.bytes_left.saturating_sub(u64::from(len_bytes));
        self.ios_left -= 1;
        if direction == WRITE {
            self.note_write(offset_bytes, len_bytes);
        }
        let file = u32::try_from(self.file).unwrap_or(0);
        if self.mix == Mix::TrimWrite {
            self.trimmed = Some((file, offset_bytes, len_bytes));
        }
        Step::Do { operation: OPERATIONS[direction], file, offset_bytes, len_bytes }
    }

    #[inline]
    fn place(&mut self, direction: usize) -> (u64, u32) {
        let state = &mut self.files[self.file];
        let fixed = if self.blocks_by_pattern { usize::from(self.random) } else { direction };
        if self.simple
            && let Blocks::One(wanted) = self.blocks[fixed]
        {
            return match self.random {
                true => state.random(wanted, &mut self.offsets),
                false => state.sequential(direction, wanted),
            };
        }
        let percent = u64::from(self.places.percent_random[direction]);
        let random = self.random && (percent == 100 || self.choices.below(100) < percent);
        let by = if self.blocks_by_pattern { usize::from(random) } else { direction };
        let draws = (&mut self.offsets, &mut self.sizes);
        state.place_any(&self.places, (direction, random), &self.blocks[by], draws)
    }
}

#[cfg(test)]
mod tests;
