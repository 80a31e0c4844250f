//! Which process something belongs to.
//!
//! Data flow: set-up → [`Process`], kept beside what was made → compared where that is taken
//! down. A forked child inherits every object, but not the memory of arenas and queues, and the
//! ring behind an inherited descriptor is its parent's: what it takes down must touch neither
//! (F26). Asking is a system call, so nothing asks that runs for every transfer.
//!
//! The number alone does not tell: the first process of a pid namespace is 1, and so is its child
//! if that is the first one of another.
//!
//! Not here: what is left undone in a child (each `Drop`), memory that no child inherits
//! (`buffer::arena`, `ring::kernel`), counting forks (`sys::fork`).

use crate::sys;

/// A process, by its number and by how many forks it is away from its first ancestor here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    number: u32,
    generation: u32,
}

impl Process {
    /// The one that asks.
    pub(crate) fn current() -> Self {
        Self { number: std::process::id(), generation: sys::fork_generation() }
    }

    /// Whether it is the one that asks; else that one was forked from it.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// One that never asks.
    #[cfg(test)]
    pub(crate) const fn another() -> Self {
        Self { number: 0, generation: 0 }
    }

    /// The same, if it had the number of the one that asks.
    #[cfg(test)]
    pub(crate) fn renumbered(self) -> Self {
        Self { number: std::process::id(), ..self }
    }
}
