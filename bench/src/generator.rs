//! Decides what the next I/O is: direction, file, offset and length.
//!
//! A [`Shape`] and a seed go in, a fixed sequence of [`Step`]s comes out: the same seed gives
//! the same sequence on every machine and under every engine. On the hot path a step costs one
//! random number and one multiplication for the block index.
//!
//! Not here: buffers and their content (`content`), time limits (`run::control`).

use crate::ioengine::Operation;
use crate::random::Random;
use crate::random_map::RandomMap;

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
}

/// Everything that determines the sequence, apart from the seed.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Where; one per file, in the order of the engine's files.
    pub(crate) regions: Vec<Region>,
    /// Bytes per read.
    pub(crate) read_bytes: u32,
    /// Bytes per write.
    pub(crate) write_bytes: u32,
    /// Directions.
    pub(crate) mix: Mix,
    /// Offsets are drawn instead of following each other.
    pub(crate) random: bool,
    /// Touch every block once per pass.
    pub(crate) random_map: bool,
    /// Stop after this much; `None` goes on until told to stop.
    pub(crate) limit_bytes: Option<u64>,
    /// Stop after so many I/Os.
    pub(crate) limit_ios: Option<u64>,
    /// Flush after so many writes; 0 never.
    pub(crate) flush_every: u64,
    /// How to flush.
    pub(crate) flush: Operation,
}

impl Shape {
    /// The unit of random offsets: the smallest I/O of the directions in use.
    pub(crate) fn unit_bytes(&self) -> u32 {
        match self.mix {
            Mix::Read => self.read_bytes,
            Mix::Write => self.write_bytes,
            Mix::Both { .. } => self.read_bytes.min(self.write_bytes),
        }
        .max(1)
    }

    /// What one pass over all regions amounts to, whole units only.
    pub(crate) fn pass_bytes(&self) -> u64 {
        let unit = u64::from(self.unit_bytes());
        self.regions.iter().map(|region| region.len_bytes / unit * unit).sum()
    }

    /// Whether all I/Os have the same length. Random maps and the ends of regions cut only
    /// where the directions differ.
    pub(crate) fn is_uniform(&self) -> bool {
        !matches!(self.mix, Mix::Both { .. }) || self.read_bytes == self.write_bytes
    }

    /// The largest I/O, which a buffer must hold.
    pub(crate) fn buffer_bytes(&self) -> u32 {
        match self.mix {
            Mix::Read => self.read_bytes,
            Mix::Write => self.write_bytes,
            Mix::Both { .. } => self.read_bytes.max(self.write_bytes),
        }
    }
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// An I/O, or a flush with length 0.
    Do { operation: Operation, file: u32, offset_bytes: u64, len_bytes: u32 },
    /// The amount is done.
    Finished,
}

/// Whatever feeds the worker's loop with steps.
pub(crate) trait Steps {
    /// What to do next.
    fn step(&mut self) -> Step;
}

/// State of one file.
struct FileState {
    region: Region,
    units: u64,
    /// Next offset per direction, relative to the region: read, write.
    cursor: [u64; 2],
    map: Option<RandomMap>,
}

/// What most jobs are: random, one direction, one file, no map, no flushes.
#[derive(Clone, Copy, Debug)]
struct Plain {
    operation: Operation,
    start_bytes: u64,
    units: u64,
    len_bytes: u32,
}

impl Plain {
    fn of(shape: &Shape) -> Option<Self> {
        let (operation, len_bytes) = match shape.mix {
            Mix::Read => (Operation::Read, shape.read_bytes),
            Mix::Write if shape.flush_every == 0 => (Operation::Write, shape.write_bytes),
            _ => return None,
        };
        let [region] = shape.regions[..] else { return None };
        let units = region.len_bytes / u64::from(len_bytes.max(1));
        let plain = Self { operation, start_bytes: region.start_bytes, units, len_bytes };
        (shape.random && !shape.random_map && units > 0).then_some(plain)
    }
}

/// Produces the sequence.
pub(crate) struct Generator {
    plain: Option<Plain>,
    files: Vec<FileState>,
    file: usize,
    read_bytes: u32,
    write_bytes: u32,
    unit: u64,
    mix: Mix,
    random: bool,
    flush_every: u64,
    flush: Operation,
    bytes_left: u64,
    ios_left: u64,
    writes_to_flush: u64,
    flush_due: bool,
    offsets: Random,
    choices: Random,
}

impl Generator {
    /// A generator at its start. `seed` decides everything that is drawn.
    pub(crate) fn new(shape: &Shape, seed: u64) -> Self {
        let unit = u64::from(shape.unit_bytes());
        let files = shape.regions.iter().map(|region| {
            let units = region.len_bytes / unit;
            let map = (shape.random_map && shape.random).then(|| RandomMap::new(units));
            FileState { region: *region, units, cursor: [0; 2], map }
        });
        let files: Vec<FileState> = files.collect();
        let hopeless = files.is_empty() || files.iter().any(|file| file.units == 0);
        Self {
            plain: Plain::of(shape),
            files,
            file: 0,
            read_bytes: shape.read_bytes,
            write_bytes: shape.write_bytes,
            unit,
            mix: shape.mix,
            random: shape.random,
            flush_every: shape.flush_every,
            flush: shape.flush,
            bytes_left: if hopeless { 0 } else { shape.limit_bytes.unwrap_or(u64::MAX) },
            ios_left: shape.limit_ios.unwrap_or(u64::MAX),
            writes_to_flush: shape.flush_every,
            flush_due: false,
            offsets: Random::new(seed),
            choices: Random::new(seed ^ 0x5bd1_e995_0000_0001),
        }
    }

    #[cold]
    fn flush_step(&mut self) -> Step {
        self.flush_due = false;
        let file = u32::try_from(self.file).unwrap_or(0);
        Step::Do { operation: self.flush, file, offset_bytes: 0, len_bytes: 0 }
    }

    #[inline]
    fn note_write(&mut self) {
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
        let Some(plain) = &self.plain else { return self.any_step() };
        if self.bytes_left == 0 || self.ios_left == 0 {
            return Step::Finished;
        }
        let (len_bytes, unit) = (plain.len_bytes, u64::from(plain.len_bytes));
        self.bytes_left = self.bytes_left.saturating_sub(unit);
        self.ios_left -= 1;
        let offset_bytes = plain.start_bytes + self.offsets.below(plain.units) * unit;
        Step::Do { operation: plain.operation, file: 0, offset_bytes, len_bytes }
    }
}

impl Generator {
    /// A step of any job.
    #[inline(never)]
    fn any_step(&mut self) -> Step {
        if self.flush_due {
            return self.flush_step();
        }
        if self.bytes_left == 0 || self.ios_left == 0 {
            return Step::Finished;
        }
        let write = match self.mix {
            Mix::Read => false,
            Mix::Write => true,
            Mix::Both { read_percent } => self.choices.below(100) >= u64::from(read_percent),
        };
        if self.files.len() > 1 {
            self.file = (self.file + 1) % self.files.len();
        }
        let wanted = if write { self.write_bytes } else { self.read_bytes };
        let state = &mut self.files[self.file];
        let (at, len_bytes) = if self.random {
            state.random(wanted, self.unit, &mut self.offsets)
        } else {
            state.sequential(usize::from(write), wanted, self.unit)
        };
        let offset_bytes = state.region.start_bytes + at;
        self.bytes_left = self.bytes_left.saturating_sub(u64::from(len_bytes));
        self.ios_left -= 1;
        if write {
            self.note_write();
        }
        let operation = if write { Operation::Write } else { Operation::Read };
        let file = u32::try_from(self.file).unwrap_or(0);
        Step::Do { operation, file, offset_bytes, len_bytes }
    }
}

impl FileState {
    /// Offset relative to the region, and the length that fits there.
    #[inline]
    fn sequential(&mut self, direction: usize, wanted: u32, unit: u64) -> (u64, u32) {
        let usable = self.units * unit;
        let len = u64::from(wanted).min(usable);
        let mut at = self.cursor[direction];
        if at + len > usable {
            at = 0;
        }
        self.cursor[direction] = at + len;
        (at, u32::try_from(len).unwrap_or(wanted))
    }

    #[inline]
    fn random(&mut self, wanted: u32, unit: u64, offsets: &mut Random) -> (u64, u32) {
        if u64::from(wanted) == unit {
            let drawn = offsets.below(self.units);
            let Some(map) = &mut self.map else { return (drawn * unit, wanted) };
            return (map.take(drawn, 1).0 * unit, wanted);
        }
        self.random_long(wanted, unit, offsets)
    }

    /// The direction with the larger block: it must start early enough to end inside.
    fn random_long(&mut self, wanted: u32, unit: u64, offsets: &mut Random) -> (u64, u32) {
        let count = u64::from(wanted).div_ceil(unit);
        let drawn = offsets.below(self.units.saturating_sub(count - 1).max(1));
        let (first, count) = match &mut self.map {
            Some(map) => map.take(drawn, count),
            None => (drawn, count.min(self.units)),
        };
        let len = (count * unit).min(u64::from(wanted));
        (first * unit, u32::try_from(len).unwrap_or(wanted))
    }
}

#[cfg(test)]
mod tests;
