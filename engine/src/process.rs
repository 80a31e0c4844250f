//! Which process something belongs to.
//!
//! Data flow: set-up → [`Process`], kept beside what was made → compared where that is taken
//! down. A forked child inherits every object, but not the memory of arenas and queues, and the
//! ring behind an inherited descriptor is its parent's: what it takes down must touch neither
//! (F26). Asking is a system call, so nothing asks that runs for every transfer.
//!
//! Not here: what is left undone in a child (each `Drop`), memory that no child inherits
//! (`buffer::arena`, `ring::kernel`).

/// A process, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// The one that asks.
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// Whether it is the one that asks; else that one was forked from it.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }
}
