//! Targets one after another.
//!
//! Data flow: byte offset → the target whose share it falls into, and the offset there.
//!
//! Not here: sending (`spread`).

use alloc::vec::Vec;

use super::spread::{Piece, Route, Spread};

/// Where the bytes of a [`Concat`] are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConcatRoute {
    /// One past the last byte of each target.
    ends: Vec<u64>,
}

impl Route for ConcatRoute {
    fn first_piece(&self, at: u64, _len: u64) -> Piece {
        // The first that ends behind `at`: empty ones are passed over.
        let target = self.ends.partition_point(|&end| end <= at);
        let Some(&end) = self.ends.get(target) else { return Piece::End };
        let start = target.checked_sub(1).map_or(0, |before| self.ends[before]);
        Piece::On { target, at: at - start, len: end - at }
    }
}

/// Targets one after another, as one.
///
/// ```
/// use mfio_core::layer::concat::Concat;
/// use mfio_core::{IoRead, block_on, mem::Mem};
/// let words = [b"one ".to_vec(), b"target".to_vec()];
/// let concat = Concat::new(words.map(|word| (word.len() as u64, Mem::from(word))));
/// let (result, bytes) = block_on(&concat, concat.read_exact(2, vec![0; 5])).unwrap();
/// assert_eq!((result, &bytes[..]), (Ok(()), &b"e tar"[..]));
/// ```
pub type Concat<T> = Spread<T, ConcatRoute>;

impl<T> Concat<T> {
    /// Puts the targets one after another, each with the length in bytes that is used of it.
    ///
    /// # Panics
    /// If the sum of the lengths is more than a `u64` holds.
    #[must_use]
    pub fn new(parts: impl IntoIterator<Item = (u64, T)>) -> Self {
        let (mut targets, mut ends, mut end) = (Vec::new(), Vec::new(), 0_u64);
        for (len, target) in parts {
            end = end.checked_add(len).expect("targets are at most as long as a u64 counts");
            targets.push(target);
            ends.push(end);
        }
        Self::over(targets, ConcatRoute { ends })
    }
}
