//! A type-erased place for the owner of a packet's bytes.
//!
//! Data flow: owner → [`Stored`] → the same owner, after the I/O.
//!
//! Not here: when the place may be touched (`handle`).
#![allow(unsafe_code, reason = "erasing and restoring the owner's type")]

use alloc::boxed::Box;
use core::any::TypeId;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::mem::{MaybeUninit, align_of, size_of};

const STORE_BYTES: usize = 48;

/// Room for the usual owners (a Vec, a Box, an arena buffer), so that wrapping one does not
/// allocate; larger ones are boxed.
#[repr(align(16))]
struct Store {
    /// In a cell, because the owner may have interior mutability and be looked at shared.
    _bytes: UnsafeCell<[MaybeUninit<u8>; STORE_BYTES]>,
}

/// The type of an owner in a [`Store`], and what drops it there.
struct Kind {
    id: TypeId,
    discard: unsafe fn(*mut Store),
}

pub(super) struct Stored {
    room: Store,
    /// Of what is stored.
    owner: Option<&'static Kind>,
}

impl Stored {
    pub(super) const fn new() -> Self {
        Self {
            room: Store { _bytes: UnsafeCell::new([MaybeUninit::uninit(); STORE_BYTES]) },
            owner: None,
        }
    }

    /// Drops what is stored.
    pub(super) fn clear(&mut self) {
        if let Some(kind) = self.owner.take() {
            // SAFETY: `owner` was set, so the room holds a value of the type that `discard`
            // was made for, and taking `owner` makes this the last look at it.
            unsafe { (kind.discard)(&raw mut self.room) };
        }
    }

    /// Stores `owner` where nothing is stored: else that is never dropped.
    #[inline]
    pub(super) fn put<B: 'static>(&mut self, owner: B) -> &mut B {
        debug_assert!(self.owner.is_none(), "one owner is stored at a time");
        Placed::put(&raw mut self.room, owner);
        self.owner = Some(Placed::<B>::KIND);
        // SAFETY: a `B` is stored, and the exclusive borrow of `self` covers it.
        unsafe { &mut *Placed::<B>::locate(&raw mut self.room) }
    }

    #[inline]
    fn check<B: 'static>(&self) {
        // The address says it nearly always; a type may have more than one.
        let known = self.owner.is_some_and(|kind| {
            core::ptr::eq(kind, Placed::<B>::KIND) || kind.id == TypeId::of::<B>()
        });
        if !known {
            other_type();
        }
    }

    pub(super) fn get<B: 'static>(&self) -> &B {
        self.check::<B>();
        // SAFETY: a `B` is stored, and the borrow of `self` covers it.
        unsafe { &*Placed::<B>::locate((&raw const self.room).cast_mut()) }
    }

    #[inline]
    pub(super) fn get_mut<B: 'static>(&mut self) -> &mut B {
        self.check::<B>();
        // SAFETY: a `B` is stored, and the exclusive borrow of `self` covers it.
        unsafe { &mut *Placed::<B>::locate(&raw mut self.room) }
    }

    #[inline]
    pub(super) fn take<B: 'static>(&mut self) -> B {
        self.check::<B>();
        self.owner = None;
        // SAFETY: a `B` is stored, and `owner` no longer says so.
        unsafe { Placed::<B>::take(&raw mut self.room) }
    }
}

/// Out of the way of those who never come here.
#[cold]
#[inline(never)]
fn other_type() -> ! {
    panic!("the packet stores another type");
}

/// A boxed or inline owner inside a [`Store`].
struct Placed<B>(PhantomData<B>);

impl<B: 'static> Placed<B> {
    const INLINE: bool = size_of::<B>() <= STORE_BYTES && align_of::<B>() <= 16;
    const KIND: &'static Kind = &Kind { id: TypeId::of::<B>(), discard: Self::discard };

    #[inline]
    fn locate(room: *mut Store) -> *mut B {
        if Self::INLINE {
            room.cast()
        } else {
            // SAFETY: an owner that does not fit inline is stored as a pointer to its box.
            unsafe { *room.cast::<*mut B>() }
        }
    }

    /// # Safety
    /// `room` holds a `B`, which is gone afterwards.
    #[inline]
    unsafe fn take(room: *mut Store) -> B {
        let at = Self::locate(room);
        if Self::INLINE {
            // SAFETY: the caller promises a `B` here and never looks at it again.
            unsafe { at.read() }
        } else {
            // SAFETY: `put` made this pointer from a box; the caller gives it up here.
            *unsafe { Box::from_raw(at) }
        }
    }

    /// # Safety
    /// As [`Placed::take`].
    unsafe fn discard(room: *mut Store) {
        // SAFETY: handed through from the caller.
        drop(unsafe { Self::take(room) });
    }

    #[inline]
    fn put(room: *mut Store, owner: B) {
        if Self::INLINE {
            // SAFETY: the room is large and aligned enough, and exclusively the caller's.
            unsafe { room.cast::<B>().write(owner) };
        } else {
            // SAFETY: a pointer fits in the room, which is exclusively the caller's.
            unsafe { room.cast::<*mut B>().write(Box::into_raw(Box::new(owner))) };
        }
    }
}
