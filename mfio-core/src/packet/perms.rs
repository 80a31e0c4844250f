//! Which way the bytes go, named from the user's side.
//!
//! Not here: what backends do with it (`view`).

use super::raw::{Handle, Hold, StableBytes, StableBytesMut};

mod sealed {
    pub trait Sealed {}
}

/// The direction of a packet: [`Read`] or [`Write`]. Sealed, because memory safety rests on
/// what the two mean.
pub trait Perms: sealed::Sealed + Copy + Send + Sync + 'static {
    /// `read` or `write`, for messages.
    const NAME: &'static str;
}

/// The packet is filled from the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read;

/// The packet is written to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write;

impl sealed::Sealed for Read {}
impl sealed::Sealed for Write {}

impl Perms for Read {
    const NAME: &'static str = "read";
}

impl Perms for Write {
    const NAME: &'static str = "write";
}

/// Buffers that a packet of direction `P` can own: readable ones for [`Write`], writable
/// ones for [`Read`]. Implemented for every such owner; nobody needs to name it in code.
pub trait Buffer<P: Perms>: StableBytes {
    /// One hold over all of the buffer that `handle` stores.
    #[doc(hidden)]
    fn arm(handle: &mut Armed<'_>);
}

/// What [`Buffer::arm`] works on; opaque outside this crate.
#[derive(Debug)]
pub struct Armed<'a> {
    handle: &'a mut Handle,
    hold: Option<Hold>,
}

impl<'a> Armed<'a> {
    /// The hold that `B` makes of the buffer in `handle`.
    #[inline]
    pub(crate) fn hold_of<P: Perms, B: Buffer<P>>(handle: &'a mut Handle) -> Hold {
        let mut armed = Armed { handle, hold: None };
        B::arm(&mut armed);
        armed.hold.expect("both implementations arm")
    }
}

impl<B: StableBytesMut> Buffer<Read> for B {
    #[inline]
    fn arm(armed: &mut Armed<'_>) {
        armed.hold = Some(armed.handle.arm_mut::<B>());
    }
}

impl<B: StableBytes> Buffer<Write> for B {
    #[inline]
    fn arm(armed: &mut Armed<'_>) {
        armed.hold = Some(armed.handle.arm_ref::<B>());
    }
}
