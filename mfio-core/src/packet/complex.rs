//! Packets whose bytes are not a buffer: one plain value, bytes made up on the fly, bytes that
//! go somewhere else.
//!
//! Data flow: source → [`Generated`] → copied out by the backend; backend → [`Absorbed`] →
//! sink; value ↔ [`Inline`]. Backends see no difference but that these have no address to lend
//! (the value does).
//!
//! Not here: how views get at them (`raw`).

use bytemuck::Pod;

/// Makes up the bytes of a [`Write`](crate::Write) packet when a backend copies them.
pub trait Source: Send + Sync + 'static {
    /// How many bytes there are; constant while a packet is under way.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Makes the bytes from `at` on. The range is inside; ranges may come in any order, more
    /// than once, and from several threads.
    fn read_at(&self, at: u64, to: &mut [u8]);
}

/// Takes the bytes of a [`Read`](crate::Read) packet as a backend brings them.
pub trait Sink: Send + Sync + 'static {
    /// How many bytes it takes; constant while a packet is under way.
    fn len(&self) -> u64;
    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Takes the bytes from `at` on. The range is inside; ranges may come in any order and
    /// from several threads, each byte once.
    fn write_at(&self, at: u64, from: &[u8]);
}

/// A [`Source`] as the owner of a packet's bytes.
///
/// ```
/// use mfio_core::{Generated, Packet, PacketIoExt, Source, Write, block_on, mem::Mem};
/// struct Squares;
/// impl Source for Squares {
///     fn len(&self) -> u64 { 4 }
///     fn read_at(&self, at: u64, to: &mut [u8]) {
///         for (byte, at) in to.iter_mut().zip(at..) { *byte = (at * at) as u8; }
///     }
/// }
/// let target = Mem::from(vec![0; 4]);
/// let packet = Packet::<Write, _>::new(Generated(Squares));
/// assert!(block_on(&target, target.io(0, packet)).unwrap().is_ok());
/// assert_eq!(target.snapshot(), [0, 1, 4, 9]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generated<S>(pub S);

/// A [`Sink`] as the owner of a packet's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absorbed<S>(pub S);

/// A plain value as the owner of a packet's bytes: header and bytes in one, up to 48 bytes.
///
/// ```
/// use mfio_core::{Inline, Packet, PacketIoExt, Read, block_on, mem::Mem};
/// let target = Mem::from(vec![1, 2, 3, 4]);
/// let packet = Packet::<Read, _>::new(Inline([0_u8; 2]));
/// let done = block_on(&target, target.io(1, packet)).unwrap();
/// assert_eq!(done.into_buffer(), Inline([2, 3]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Inline<T: Pod>(pub T);
