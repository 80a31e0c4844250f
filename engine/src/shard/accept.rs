//! The order in which the entries of a batch are accepted, and accepting them.
//!
//! Data flow: staged entry → [`Turn`] → sorted → alone, straight to the ring; or with its
//! neighbours, as a group; or left for the next time, where there is no room.
//!
//! Not here: what users hold of a batch (`batch`), what a group of neighbours is (`group`).

use super::Inner;
use super::class::Class;
use super::group::Staged;
use crate::ring::Ring;

/// Whose turn it is when a batch is accepted. In the order of these, neighbours come one behind
/// the other. One word, for which sorting has networks without branches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn(u64);

impl Turn {
    const INDEX_BITS: u32 = 15;
    /// Of offsets, in units of [`Turn::UNIT_BYTES`].
    const OFFSET_BITS: u32 = 40;
    const UNIT_BYTES: u64 = 512;
    /// Offsets of which a turn tells everything.
    const OFFSETS: u64 = ((1 << Self::OFFSET_BITS) - 1) * Self::UNIT_BYTES;
    /// Entries that a batch can have.
    pub(crate) const ENTRIES_MAX: usize = 1 << Self::INDEX_BITS;

    /// The turn of the entry at `index`, and whether the order of turns is that of
    /// [`Staged::key`] also for this one.
    #[inline]
    pub(crate) fn of(staged: &Staged, index: u16) -> (Self, bool) {
        let (kind, offset) = (staged.kind(), staged.offset_bytes);
        let at = (offset & Self::OFFSETS) / Self::UNIT_BYTES;
        let turn = kind << (Self::OFFSET_BITS + Self::INDEX_BITS) | at << Self::INDEX_BITS;
        let kinds = u64::MAX >> (Self::OFFSET_BITS + Self::INDEX_BITS);
        (Self(turn | u64::from(index)), (offset & !Self::OFFSETS) | (kind & !kinds) == 0)
    }

    /// Whether `next` may begin where `len_bytes` from here on end, as far as turns tell.
    #[inline]
    const fn may_adjoin(self, len_bytes: u64, next: Self) -> bool {
        let apart = (next.0 >> Self::INDEX_BITS).wrapping_sub(self.0 >> Self::INDEX_BITS);
        // Of both ends, up to a unit is not told.
        apart.wrapping_sub(len_bytes / Self::UNIT_BYTES) <= 1
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "cut to the bits of an index")]
    pub(crate) const fn index(self) -> usize {
        self.0 as usize & (Self::ENTRIES_MAX - 1)
    }
}

impl<R: Ring> Inner<R> {
    /// Accepts what `order` names, sorted, of `staged`, as far as there is room; returns how
    /// many are left, which `order` then begins with.
    ///
    /// A function of its own, so that the loop has the registers to itself.
    #[inline(never)]
    pub(super) fn accept(&self, staged: &mut [Option<Staged>], order: &mut [Turn]) -> usize {
        let mut core = self.core.borrow_mut();
        let (mut at, mut left) = (0, 0);
        while at < order.len() {
            let (turn, next) = (order[at], order.get(at + 1));
            let len_bytes = staged[turn.index()].as_ref().map_or(0, Staged::len_bytes);
            let adjoins = next.is_some_and(|&next| {
                turn.may_adjoin(len_bytes, next) && adjoin(staged, turn.index(), next.index())
            });
            let alone = !adjoins || !core.coalesce;
            let first = &mut staged[turn.index()];
            if alone && core.accept_straight(first) {
                at += 1;
                continue;
            }
            // What follows may change anything.
            core.credit = 0;
            let room = core.room_in(first.as_ref().map_or(Class::default(), |first| first.class));
            if room == 0 {
                order[left] = order[at];
                (at, left) = (at + 1, left + 1);
                continue;
            }
            let run = if alone { 1 } else { core.run_length(staged, &order[at..]).min(room) };
            let turns = &order[at..at + run];
            let mut parts = turns.iter().filter_map(|turn| staged[turn.index()].take());
            if run > 1 {
                core.accept_group(&mut parts);
            } else if let Some(single) = parts.next() {
                core.accept_single(single);
            }
            at += run;
        }
        let news = core.has_news();
        drop(core);
        if news {
            self.deliver();
        }
        left
    }
}

/// Whether the one entry begins where the other ends.
#[cold]
#[inline(never)]
fn adjoin(staged: &[Option<Staged>], first: usize, next: usize) -> bool {
    let both = staged[first].as_ref().zip(staged[next].as_ref());
    both.is_some_and(|(first, next)| first.adjoins(next))
}

#[cfg(test)]
mod tests {
    use mfio_core::{Packet, Read, Write};
    use proptest::prelude::*;

    use super::*;
    use crate::shard::durable::How;
    use crate::shard::group::StagedView;

    fn staged(target: u32, is_read: bool, offset_bytes: u64, len: usize) -> Staged {
        let view = match is_read {
            true => StagedView::Read(Packet::<Read, _>::new(vec![0; len]).send().1),
            false => StagedView::Write(Packet::<Write, _>::new(vec![0; len]).send().1),
        };
        Staged { target, class: Class::Foreground, offset_bytes, how: How::PLAIN, view }
    }

    /// Offsets near each other, aligned or not, and near the last that a turn can tell.
    fn offsets() -> impl Strategy<Value = u64> {
        let near = prop_oneof![(0..32_u64).prop_map(|at| at * 512), 0..4096_u64];
        (near, prop_oneof![3 => Just(0), 1 => Just(1 << 48), 1 => Just(1 << 50)])
            .prop_map(|(at, base)| base + at)
    }

    proptest! {
        /// Where turns say that theirs is the order of keys, it is; and of two entries that
        /// adjoin, the turns never say that they cannot.
        #[test]
        fn turns_order_and_adjoin_as_the_entries_do(
            one in (0..70_u32, any::<bool>(), offsets(), 1..2048_usize),
            other in (0..70_u32, any::<bool>(), offsets(), 1..2048_usize),
            neighbours: bool,
        ) {
            let first = staged(one.0, one.1, one.2, one.3);
            let second = match neighbours {
                true => staged(one.0, one.1, one.2 + one.3 as u64, other.3),
                false => staged(other.0, other.1, other.2, other.3),
            };
            let ((turn, exact), (next, next_exact)) = (Turn::of(&first, 7), Turn::of(&second, 9));
            prop_assert_eq!((turn.index(), next.index()), (7, 9));
            if exact && next_exact && first.key() != second.key() {
                prop_assert_eq!(turn < next, first.key() < second.key());
            }
            if first.adjoins(&second) {
                prop_assert!(turn.may_adjoin(first.len_bytes(), next));
            }
            prop_assert!(!neighbours || first.adjoins(&second));
        }
    }
}
