//! Which way the bytes go, named from the user's side.
//!
//! Not here: what backends do with it (`view`).

use core::mem::size_of_val;

use bytemuck::Pod;

use super::complex::{Absorbed, Generated, Inline, Sink, Source};
use super::raw::{Handle, Hold, StableBytes, StableBytesMut};

mod sealed {
    pub trait Sealed {}

    /// Stores a buffer, and makes the one hold over it. Out of reach of other crates: a read-only
    /// owner in a packet that is to be filled would be written to.
    pub trait Arm<P> {
        fn arm(armed: &mut Armed<'_>);
        fn store(self, armed: &mut Armed<'_>);
        fn bytes(&self) -> u64;
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

/// The packet and the target exchange their bytes: what was in the packet is in the target
/// afterwards, and the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadWrite;

impl sealed::Sealed for Read {}
impl sealed::Sealed for ReadWrite {}
impl sealed::Sealed for Write {}

impl Perms for Read {
    const NAME: &'static str = "read";
}

impl Perms for Write {
    const NAME: &'static str = "write";
}

impl Perms for ReadWrite {
    const NAME: &'static str = "exchange";
}

/// What a packet of direction `P` can own: for [`Write`] every [`StableBytes`] and
/// [`Generated`] source, for [`Read`] every [`StableBytesMut`] and [`Absorbed`] sink, for
/// [`ReadWrite`] every [`StableBytesMut`]; an [`Inline`] value for each.
pub trait Buffer<P: Perms>: sealed::Arm<P> + Send + 'static {
    /// How many bytes a packet over all of it has.
    fn byte_len(&self) -> u64 {
        sealed::Arm::bytes(self)
    }
}

impl<P: Perms, B: sealed::Arm<P> + Send + 'static> Buffer<P> for B {}

/// Implements `Arm` for an owner of bytes, by the methods of `Handle` that arm and store it.
macro_rules! arm {
    (
        $perms:ty, [$($generics:tt)*], $owner:ty,
        |$this:ident| $len:expr, |$handle:ident| $arm:expr, $put:ident
    ) => {
        impl<$($generics)*> sealed::Arm<$perms> for $owner {
            #[inline(always)]
            fn arm(armed: &mut sealed::Armed<'_>) {
                let $handle = &mut *armed.handle;
                armed.hold = Some($arm);
            }
            #[inline(always)]
            fn store(self, armed: &mut sealed::Armed<'_>) {
                armed.handle.$put(self);
            }
            fn bytes(&self) -> u64 {
                let $this = self;
                $len
            }
        }
    };
}

arm!(Read, [B: StableBytesMut], B, |b| b.len() as u64, |h| h.arm_mut::<B>(), put_mut);
arm!(Write, [B: StableBytes], B, |b| b.len() as u64, |h| h.arm_ref::<B>(), put_ref);
arm!(ReadWrite, [B: StableBytesMut], B, |b| b.len() as u64, |h| h.arm_mut::<B>(), put_mut);
arm!(Write, [S: Source], Generated<S>, |b| b.0.len(), |h| h.arm_source::<S>(), put);
arm!(Read, [S: Sink], Absorbed<S>, |b| b.0.len(), |h| h.arm_sink::<S>(), put);
arm!(Read, [T: Pod + Send], Inline<T>, |b| size_of_val(b) as u64, |h| h
    .arm_inline::<T>(true), put);
arm!(Write, [T: Pod + Send], Inline<T>, |b| size_of_val(b) as u64, |h| h
    .arm_inline::<T>(false), put);
arm!(ReadWrite, [T: Pod + Send], Inline<T>, |b| size_of_val(b) as u64, |h| h
    .arm_inline::<T>(true), put);

/// The hold over all of the buffer in `handle`. Always inlined, as what it calls: it is a dozen
/// stores whose addresses and values the sender has in registers.
#[inline(always)]
pub(super) fn hold_of<P: Perms, B: Buffer<P>>(handle: &mut Handle) -> Hold {
    let mut armed = sealed::Armed { handle, hold: None };
    <B as sealed::Arm<P>>::arm(&mut armed);
    armed.hold.expect("both implementations arm")
}

/// Stores `buffer` in a handle that stores nothing.
#[inline(always)]
pub(super) fn store<P: Perms, B: Buffer<P>>(handle: &mut Handle, buffer: B) {
    sealed::Arm::<P>::store(buffer, &mut sealed::Armed { handle, hold: None });
}
