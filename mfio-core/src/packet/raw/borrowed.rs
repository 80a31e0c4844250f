//! A caller's slice as the owner of a packet's bytes, for blocking calls only.
//!
//! Not here: keeping the call from returning while the packet is under way (`crate::sync`).
#![allow(unsafe_code, reason = "a borrow whose end the blocking call enforces")]

use super::{StableBytes, StableBytesMut};

/// The address of a borrowed slice, its lifetime erased.
///
/// Whoever makes one keeps it inside a call that does not return, by any way, before the
/// packet that owns it is idle again.
pub(crate) struct Borrowed {
    ptr: *mut u8,
    len: usize,
}

impl Borrowed {
    /// Names bytes that are to be filled.
    pub(crate) fn filled(bytes: &mut [u8]) -> Self {
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len() }
    }

    /// Names bytes that are to be written somewhere. The packet must be a `Write` packet.
    pub(crate) fn written(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr().cast_mut(), len: bytes.len() }
    }
}

// SAFETY: plain bytes; the blocking call holds the borrow while any thread works on them.
unsafe impl Send for Borrowed {}

// SAFETY: the slice stays where it is and borrowed while the blocking call lasts, which is as
// long as the packet that owns this value is under way.
unsafe impl StableBytes for Borrowed {
    fn as_ptr(&self) -> *const u8 {
        self.ptr
    }
    fn len(&self) -> usize {
        self.len
    }
}

// SAFETY: as above; made from an exclusive borrow where the packet is filled.
unsafe impl StableBytesMut for Borrowed {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.ptr
    }
}
