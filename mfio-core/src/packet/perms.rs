//! Which way the bytes go, named from the user's side.
//!
//! Not here: what backends do with it (`view`).

use super::raw::{Handle, Hold, StableBytes, StableBytesMut};

mod sealed {
    pub trait Sealed {}

    /// Makes the one hold over a stored buffer. Out of reach of other crates: a read-only
    /// owner in a packet that is to be filled would be written to.
    pub trait Arm<P> {
        fn arm(armed: &mut Armed<'_>);
    }

    /// A stored buffer and, when armed, the hold over it.
    pub struct Armed<'a> {
        pub(super) handle: &'a mut super::Handle,
        pub(super) hold: Option<super::Hold>,
    }
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

/// Buffers that a packet of direction `P` can own: every [`StableBytes`] for [`Write`], every
/// [`StableBytesMut`] for [`Read`], and nothing else.
pub trait Buffer<P: Perms>: StableBytes + sealed::Arm<P> {}

impl<B: StableBytesMut> Buffer<Read> for B {}
impl<B: StableBytes> Buffer<Write> for B {}

impl<B: StableBytesMut> sealed::Arm<Read> for B {
    #[inline]
    fn arm(armed: &mut sealed::Armed<'_>) {
        armed.hold = Some(armed.handle.arm_mut::<B>());
    }
}

impl<B: StableBytes> sealed::Arm<Write> for B {
    #[inline]
    fn arm(armed: &mut sealed::Armed<'_>) {
        armed.hold = Some(armed.handle.arm_ref::<B>());
    }
}

/// The hold over all of the buffer in `handle`.
#[inline]
pub(super) fn hold_of<P: Perms, B: Buffer<P>>(handle: &mut Handle) -> Hold {
    let mut armed = sealed::Armed { handle, hold: None };
    <B as sealed::Arm<P>>::arm(&mut armed);
    armed.hold.expect("both implementations arm")
}
