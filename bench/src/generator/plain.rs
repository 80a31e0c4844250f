//! What most jobs are: random, one direction, one file, one length, no map, no flushes.
//!
//! Data flow: the limits of the generator -> so many I/Os are granted at once -> each draws a
//! random number, and nothing else is asked.
//!
//! Not here: the limits themselves, and all other jobs (`generator`).

use crate::ioengine::Operation;
use crate::random::Random;

use super::{Blocks, Mix, Shape};

/// The I/Os of such a job.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plain {
    pub(super) operation: Operation,
    start_bytes: u64,
    units: u64,
    /// Their length; 0 where the job is another.
    pub(super) len_bytes: u32,
    /// How many may be drawn: they were taken off the limits already.
    pub(super) granted: u64,
}

impl Plain {
    /// Nothing is granted yet.
    pub(super) fn of(shape: &Shape) -> Self {
        let other = Operation::Read;
        let none = Self { operation: other, start_bytes: 0, units: 0, len_bytes: 0, granted: 0 };
        let (operation, blocks) = match shape.mix {
            Mix::Read => (Operation::Read, &shape.blocks[0]),
            Mix::Write if shape.flush_every == 0 => (Operation::Write, &shape.blocks[1]),
            _ => return none,
        };
        let (&[region], &Blocks::One(len_bytes)) = (&shape.regions[..], blocks) else {
            return none;
        };
        let units = region.len_bytes / u64::from(len_bytes.max(1));
        let simple = shape.is_simple() && !shape.blocks_by_pattern;
        if !simple || !shape.random || shape.random_map || units == 0 {
            return none;
        }
        Self { operation, start_bytes: region.start_bytes, units, len_bytes, ..none }
    }

    /// Whether the job is such a one.
    pub(super) const fn is_plain(&self) -> bool {
        self.len_bytes > 0
    }

    /// Where the next I/O goes. Only as often as is granted.
    #[inline(always)]
    pub(super) fn draw(&mut self, offsets: &mut Random) -> u64 {
        self.granted -= 1;
        self.start_bytes + offsets.below(self.units) * u64::from(self.len_bytes)
    }
}
