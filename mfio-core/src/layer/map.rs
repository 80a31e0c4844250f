//! A non-linear address space in a linear one: virtual memory over physical memory.
//!
//! Data flow: byte offset → the extent it falls into → the offset that the extent leads to.
//! What no extent covers is a hole and fails alone.
//!
//! Not here: sending (`spread`).

use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use super::spread::{Piece, Route, Spread};

/// A range of the address space of a [`Map`] and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the map's address space.
    pub from: u64,
    /// Length in bytes. Empty extents are ignored.
    pub len: u64,
    /// First byte on the target.
    pub to: u64,
}

/// Extents that are not a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadExtent {
    /// The extent ends behind what a `u64` counts, in the map or on the target.
    TooLong(Extent),
    /// The extent begins inside another one.
    Overlaps(Extent),
}

impl fmt::Display for BadExtent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::TooLong(extent) | Self::Overlaps(extent)) = self;
        write!(f, "{} bytes from {} to {}: ", extent.len, extent.from, extent.to)?;
        f.write_str(match self {
            Self::TooLong(_) => "the extent ends behind the address space",
            Self::Overlaps(_) => "the extent begins inside another one",
        })
    }
}

impl core::error::Error for BadExtent {}

/// Where the bytes of a [`Map`] are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRoute {
    /// Sorted by `from`, neither empty nor overlapping, and none that continues another.
    extents: Vec<Extent>,
}

impl MapRoute {
    fn new(mut extents: Vec<Extent>) -> Result<Self, BadExtent> {
        extents.retain(|extent| extent.len > 0);
        extents.sort_unstable_by_key(|extent| extent.from);
        let mut sorted = Vec::<Extent>::with_capacity(extents.len());
        for extent in extents {
            if extent.from.max(extent.to).checked_add(extent.len).is_none() {
                return Err(BadExtent::TooLong(extent));
            }
            match sorted.last_mut() {
                Some(last) if last.from + last.len > extent.from => {
                    return Err(BadExtent::Overlaps(extent));
                }
                Some(last)
                    if last.from + last.len == extent.from && last.to + last.len == extent.to =>
                {
                    last.len += extent.len;
                }
                _ => sorted.push(extent),
            }
        }
        Ok(Self { extents: sorted })
    }
}

impl Route for MapRoute {
    fn first_piece(&self, at: u64, _len: u64) -> Piece {
        let next = self.extents.partition_point(|extent| extent.from <= at);
        let covering = next.checked_sub(1).map(|last| self.extents[last]);
        match (covering, self.extents.get(next)) {
            (Some(extent), _) if at - extent.from < extent.len => {
                let within = at - extent.from;
                Piece::On { target: 0, at: extent.to + within, len: extent.len - within }
            }
            (_, Some(next)) => Piece::Hole { len: next.from - at },
            (_, None) => Piece::End,
        }
    }
}

/// A non-linear address space in a linear target. Ranges between extents fail as
/// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange) while the others succeed; behind the
/// last extent is the end. Extents may lead to the same bytes.
///
/// ```
/// use mfio_core::layer::map::{Extent, Map};
/// use mfio_core::{Packet, PacketIoExt, Read, block_on, mem::Mem};
/// let extents = vec![Extent { from: 0, len: 2, to: 4 }, Extent { from: 6, len: 4, to: 0 }];
/// let map = Map::new(Mem::from(b"ABCDef".to_vec()), extents).unwrap();
/// let done = block_on(&map, map.io(0, Packet::<Read, _>::new(vec![b'.'; 10]))).unwrap();
/// let failed = done.failed_ranges();
/// assert_eq!((failed[0].start, failed[0].end), (2, 6));
/// assert_eq!(done.into_buffer(), b"ef....ABCD");
/// ```
pub type Map<T> = Spread<T, MapRoute>;

impl<T> Map<T> {
    /// Maps `extents`, in any order, into `target`.
    ///
    /// # Errors
    /// [`BadExtent`], naming the first that cannot be.
    pub fn new(target: T, extents: Vec<Extent>) -> Result<Self, BadExtent> {
        MapRoute::new(extents).map(|route| Self::over(vec![target], route))
    }
}
