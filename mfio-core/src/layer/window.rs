//! A part of a target as a target of its own.
//!
//! Data flow: byte offset → the same, moved by the window's base, up to its end.
//!
//! Not here: sending (`spread`).

use alloc::vec;

use super::spread::{Piece, Route, Spread};

/// Where the bytes of a [`Window`] are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowRoute {
    base: u64,
    len_bytes: u64,
}

impl Route for WindowRoute {
    fn first_piece(&self, at: u64, _len: u64) -> Piece {
        match self.len_bytes.checked_sub(at) {
            None | Some(0) => Piece::End,
            // Cut to the address space when it was made, so this does not overflow.
            Some(len) => Piece::On { target: 0, at: self.base + at, len },
        }
    }
}

/// A part of a target. What lies outside cannot be reached through it: reads behind its end
/// fail as [`ErrorKind::UnexpectedEof`](crate::ErrorKind::UnexpectedEof), writes as
/// [`ErrorKind::OutOfRange`](crate::ErrorKind::OutOfRange).
///
/// ```
/// use mfio_core::layer::window::Window;
/// use mfio_core::{IoRead, block_on, mem::Mem};
/// let window = Window::new(Mem::from(b"<inside>".to_vec()), 1, 6);
/// let (len, error, bytes) = block_on(&window, window.read_some(2, vec![0; 9])).unwrap();
/// assert_eq!((len, error, &bytes[..4]), (4, None, &b"side"[..]));
/// ```
pub type Window<T> = Spread<T, WindowRoute>;

impl<T> Window<T> {
    /// The `len_bytes` bytes of `target` from byte `base` on; shorter where the address space
    /// ends before.
    #[must_use]
    pub fn new(target: T, base: u64, len_bytes: u64) -> Self {
        let len_bytes = len_bytes.min(u64::MAX - base);
        Self::over(vec![target], WindowRoute { base, len_bytes })
    }
}
