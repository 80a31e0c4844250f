//! RAID-0: neighbouring units of the address space lie on different targets.
//!
//! Data flow: byte offset → unit → target by turns, and the row of units there.
//!
//! Not here: sending (`spread`).

use alloc::vec::Vec;

use super::spread::{Piece, Route, Spread};

/// Where the bytes of a [`Stripe`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StripeRoute {
    targets: u64,
    unit_bytes: u64,
    len_bytes: u64,
}

impl Route for StripeRoute {
    fn first_piece(&self, at: u64, _len: u64) -> Piece {
        if at >= self.len_bytes {
            return Piece::End;
        }
        let (unit, within) = (at / self.unit_bytes, at % self.unit_bytes);
        let (row, target) = (unit / self.targets, unit % self.targets);
        // A row ends inside a target's length, so neither overflows.
        let there = row * self.unit_bytes + within;
        let target = usize::try_from(target).expect("less than the number of targets");
        Piece::On { target, at: there, len: self.unit_bytes - within }
    }
}

/// Targets of equal length as one: unit by unit in turn, RAID-0. A view over many units is
/// done by all targets at once.
///
/// ```
/// use mfio_core::layer::stripe::Stripe;
/// use mfio_core::{IoRead, block_on, mem::Mem};
/// let halves = vec![Mem::from(b"ab56ef".to_vec()), Mem::from(b"1278xx".to_vec())];
/// let stripe = Stripe::new(halves, 2, 4);
/// let (result, bytes) = block_on(&stripe, stripe.read_exact(0, vec![0; 8])).unwrap();
/// assert_eq!((result, &bytes[..]), (Ok(()), &b"ab125678"[..]));
/// ```
pub type Stripe<T> = Spread<T, StripeRoute>;

impl<T> Stripe<T> {
    /// Stripes units of `unit_bytes` over `targets`, using the first `target_bytes` of each,
    /// rounded down to whole units.
    ///
    /// # Panics
    /// If there is no target, if `unit_bytes` is 0, or if the sum of the lengths is more than
    /// a `u64` holds.
    #[must_use]
    pub fn new(targets: Vec<T>, unit_bytes: u64, target_bytes: u64) -> Self {
        assert!(!targets.is_empty(), "a stripe over no targets");
        assert!(unit_bytes > 0, "a stripe of empty units");
        let count = targets.len() as u64;
        let len_bytes = (target_bytes / unit_bytes * unit_bytes).checked_mul(count);
        let len_bytes = len_bytes.expect("a stripe is at most as long as a u64 counts");
        Self::over(targets, StripeRoute { targets: count, unit_bytes, len_bytes })
    }
}
