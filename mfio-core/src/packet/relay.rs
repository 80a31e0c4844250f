//! Views that stand in for the bytes of another packet.
//!
//! Data flow: view without an address → [`Relay`], the bytes of a packet of its own → results,
//! which [`View::settle`] hands back.
//!
//! Not here: forwarding a view as it is (`io`).

use core::fmt;

use super::complex::{Sink, Source};
use super::perms::{Perms, Read, Write};
use super::raw::SpinLock;
use super::view::View;

/// A view as the source or sink of another packet, where it has no address to lend: bytes are
/// copied through it. See [`View::settle`].
pub struct Relay<P: Perms> {
    view: SpinLock<View<P>>,
    len: u64,
}

impl<P: Perms> Relay<P> {
    /// Relays to and from `view`.
    #[must_use]
    pub fn new(view: View<P>) -> Self {
        Self { len: view.len(), view: SpinLock::new(view) }
    }

    /// The view again, to be settled.
    #[must_use = "a dropped view fails"]
    pub fn into_view(self) -> View<P> {
        self.view.into_inner()
    }
}

impl Sink for Relay<Read> {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, at: u64, from: &[u8]) {
        self.view.with(|view| view.write_at(at, from));
    }
}

impl Source for Relay<Write> {
    fn len(&self) -> u64 {
        self.len
    }

    /// Zeros where the caller has left: the view fails when it is settled or dropped anyway.
    fn read_at(&self, at: u64, to: &mut [u8]) {
        if self.view.with(|view| view.read_at(at, to)).is_err() {
            to.fill(0);
        }
    }
}

impl<P: Perms> fmt::Debug for Relay<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay<{}>({} bytes)", P::NAME, self.len)
    }
}
