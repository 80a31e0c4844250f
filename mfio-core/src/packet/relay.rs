//! Views that stand in for the bytes of another packet.
//!
//! Data flow: view without an address → [`Relay`], the bytes of a packet of its own → results,
//! which [`View::settle`] hands back.
//!
//! Not here: forwarding a view as it is (`io`).

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::any::TypeId;
use core::fmt;

use super::complex::{Sink, Source};
use super::perms::{Perms, Read, Write};
use super::raw::SpinLock;
use super::view::View;

/// A view as the source or sink of another packet, where it has no address to lend: bytes are
/// copied through it. See [`View::settle`].
///
/// The view's own bytes may be a source or a sink, which is anybody's code: nothing is locked while
/// it runs, and it may come back to the relay. What is written meanwhile waits its turn in a copy,
/// in order.
pub struct Relay<P: Perms> {
    way: Way<P>,
    len: u64,
}

enum Way<P: Perms> {
    /// Any number at a time copy out.
    Out(View<P>),
    /// One at a time copies in, and afterwards what others have brought meanwhile.
    In(SpinLock<Passing<P>>),
}

struct Passing<P: Perms> {
    /// `None` while somebody writes.
    view: Option<View<P>>,
    behind: VecDeque<(u64, Vec<u8>)>,
}

impl<P: Perms> Relay<P> {
    /// Relays to and from `view`.
    #[must_use]
    pub fn new(view: View<P>) -> Self {
        let len = view.len();
        let way = if TypeId::of::<P>() == TypeId::of::<Read>() {
            Way::In(SpinLock::new(Passing { view: Some(view), behind: VecDeque::new() }))
        } else {
            Way::Out(view)
        };
        Self { way, len }
    }
}

impl Relay<Read> {
    /// The view again, to be settled.
    ///
    /// # Panics
    /// Where the view's own sink panics: what was left over because it did so before is written
    /// now.
    #[must_use = "a dropped view fails"]
    pub fn into_view(self) -> View<Read> {
        match self.way {
            Way::Out(view) => view,
            Way::In(passing) => {
                let Passing { view, behind } = passing.into_inner();
                let mut view = view.expect("nobody writes, as nobody else has the relay");
                behind.into_iter().for_each(|(at, bytes)| view.write_at(at, &bytes));
                view
            }
        }
    }
}

impl Relay<Write> {
    /// The view again, to be settled.
    #[must_use = "a dropped view fails"]
    pub fn into_view(self) -> View<Write> {
        match self.way {
            Way::Out(view) => view,
            Way::In(_) => unreachable!("only a view to be filled is passed on one at a time"),
        }
    }
}

/// The right to write; whoever has it puts the view back, also when the view's own sink panics.
struct Writing<'a> {
    passing: &'a SpinLock<Passing<Read>>,
    view: Option<View<Read>>,
}

impl Writing<'_> {
    /// What others have brought meanwhile; where that is nothing, the right is given back.
    fn next(&mut self) -> Option<(u64, Vec<u8>)> {
        let Self { passing, view } = self;
        passing.with(|passing| {
            let next = passing.behind.pop_front();
            if next.is_none() {
                passing.view = view.take();
            }
            next
        })
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let Self { passing, view } = self;
        if view.is_some() {
            passing.with(|passing| passing.view = view.take());
        }
    }
}

impl Sink for Relay<Read> {
    fn len(&self) -> u64 {
        self.len
    }

    fn write_at(&self, at: u64, from: &[u8]) {
        let Way::In(passing) = &self.way else {
            unreachable!("a view to be filled is passed on one at a time")
        };
        let mut copied = None;
        let view = loop {
            let found = passing.with(|passing| match (passing.view.take(), copied.take()) {
                (Some(view), _) => Some(Some(view)),
                (None, Some(bytes)) => {
                    passing.behind.push_back((at, bytes));
                    Some(None)
                }
                (None, None) => None,
            });
            match found {
                Some(Some(view)) => break view,
                // Whoever writes, who may be further up this stack, writes this next.
                Some(None) => return,
                None => copied = Some(from.to_vec()),
            }
        };
        let mut writing = Writing { passing, view: Some(view) };
        let write = |writing: &mut Writing<'_>, at, from: &[u8]| {
            writing.view.as_mut().expect("it is put back at the end").write_at(at, from);
        };
        write(&mut writing, at, from);
        while let Some((at, bytes)) = writing.next() {
            write(&mut writing, at, &bytes);
        }
    }
}

impl Source for Relay<Write> {
    fn len(&self) -> u64 {
        self.len
    }

    /// Zeros where the caller has left: the view fails when it is settled or dropped anyway.
    fn read_at(&self, at: u64, to: &mut [u8]) {
        let Way::Out(view) = &self.way else { unreachable!("anybody may copy out") };
        if view.read_at(at, to).is_err() {
            to.fill(0);
        }
    }
}

impl<P: Perms> fmt::Debug for Relay<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay<{}>({} bytes)", P::NAME, self.len)
    }
}
