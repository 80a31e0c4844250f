//! The hostile answers to [`Knob`]s, counted.
//!
//! Data flow: the shard asks → a draw, as often as `SimConfig::knobs` says → the usual answer or
//! another → [`KnobCounts`] of those that were another.
//!
//! Not here: what the answers do (the shard).

use super::kernel::Kernel;
use crate::ring::Knob;

/// How often each knob was turned, in one simulated ring or (added up) in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnobCounts([u64; Knob::ALL.len()]);

impl KnobCounts {
    /// Adds the counts of another ring.
    pub fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
    }

    /// Every count with its name, in the order of [`Knob::ALL`].
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Knob::ALL.map(Knob::name).into_iter().zip(self.0)
    }
}

impl Kernel {
    /// The answer to `knob`, of which the usual one is `usual`.
    pub(super) fn turn_knob(&mut self, knob: Knob, usual: usize) -> usize {
        if !self.random.chance(self.config.knobs) {
            return usual;
        }
        let most = u32::try_from(usual).unwrap_or(u32::MAX);
        let answer = match (knob, most) {
            (Knob::BackOff, _) => self.random.pick(&[0, 0, 64]),
            (_, 0) => 1,
            _ if self.random.one_in(2) => 1,
            _ => self.random.between(1, most) as usize,
        };
        if answer != usual {
            self.knobs.0[knob as usize] += 1;
            self.trace.fold(knob as u64 ^ ((answer as u64) << 8));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::sim::{SimConfig, SimDevice};

    #[test]
    fn answers_are_usual_unless_asked_otherwise_and_keep_to_their_limits() {
        let kernel =
            |knobs| Kernel::new(SimConfig { knobs, ..SimConfig::calm(1) }, SimDevice::new(&[]));
        let (mut calm, mut hostile) = (kernel(0), kernel(32768));
        for knob in Knob::ALL {
            for usual in [0, 1, 16, usize::MAX] {
                assert_eq!(calm.turn_knob(knob, usual), usual);
            }
        }
        for _ in 0..1000 {
            assert!((1..=16).contains(&hostile.turn_knob(Knob::CoalescedParts, 16)));
            assert!(hostile.turn_knob(Knob::HoldFlush, 0) <= 1);
            hostile.turn_knob(Knob::BackOff, 1);
        }
        let counts: Vec<u64> = hostile.knobs.fields().map(|(_, count)| count).collect();
        assert_eq!(counts.iter().filter(|count| **count > 100).count(), 3, "{counts:?}");
        assert_eq!(calm.knobs, KnobCounts::default());
    }
}
