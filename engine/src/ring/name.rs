//! What a ring does with names and directories, besides what it does with files.
//!
//! Data flow: [`NameOp`] and tag → [`Names::push_name`] → a completion like any other →
//! [`Names::end_of_name`], which says what has come of it. Paths, and the room for facts about a
//! file, are memory that the kernel reads and writes: an op is the ring's from the push on, with
//! the directories it starts from, until its completion. Whoever pushed it owes it nothing.
//!
//! A data ring is [restricted](super::kernel) to what opens nothing: where there is io_uring,
//! these go by another ring of the same thread, made with the first of them.
//!
//! Not here: what they are for (`shard::names`), rings without them, whose shards leave names to
//! threads (`fs`).

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mfio_rt::Metadata;
use nix::errno::Errno;

use super::Tag;

/// The slots of tags from here on are those of ops on names, up to
/// [`SOCKET_SLOTS_FROM`](super::SOCKET_SLOTS_FROM).
pub const NAME_SLOTS_FROM: u32 = 1 << 30;

/// The most ops on names that a ring has in flight. Nearly all of them go to a worker thread of
/// the kernel, of which there are few: a flush is not to stand behind a thousand names.
pub const NAMES_IN_FLIGHT_MAX: usize = 32;

/// A path, and the directory that it starts from where it does not start with a slash. Empty, it
/// is the directory itself, or the file that is open there, for ops that say so.
#[derive(Clone, Debug)]
pub struct Place {
    /// Stays open until the completion.
    pub dir: Arc<OwnedFd>,
    /// Relative to it.
    pub path: CString,
}

/// One op on names. The flags are those of the call in brackets.
#[derive(Debug)]
pub enum NameOp {
    /// Opens (`openat2(2)`); `O_CLOEXEC` is added. The answer is a descriptor.
    Open {
        /// What.
        place: Place,
        /// Of `open(2)`.
        flags: i32,
        /// Permissions of what is created; 0 where nothing can be.
        mode: u32,
        /// `RESOLVE_*`.
        resolve: u64,
    },
    /// Asks for facts (`statx(2)`).
    Look {
        /// About what.
        place: Place,
        /// `AT_SYMLINK_NOFOLLOW`, `AT_EMPTY_PATH`.
        flags: i32,
    },
    /// Makes a directory (`mkdirat(2)`).
    MakeDir {
        /// Where.
        place: Place,
        /// Its permissions, before the process's mask.
        mode: u32,
    },
    /// Removes a name (`unlinkat(2)`).
    Remove {
        /// Which.
        place: Place,
        /// `AT_REMOVEDIR`.
        flags: i32,
    },
    /// Moves a name (`renameat(2)`).
    Rename {
        /// From here.
        from: Place,
        /// To there.
        to: Place,
    },
    /// Gives a second name (`linkat(2)`), to a symbolic link itself where it is one.
    Link {
        /// The first name.
        from: Place,
        /// The second.
        to: Place,
    },
    /// Makes a symbolic link (`symlinkat(2)`).
    Symlink {
        /// What it says.
        target: CString,
        /// Where it stands.
        place: Place,
    },
    /// Makes a directory durable (`fsync(2)`).
    Sync {
        /// Which.
        dir: Arc<OwnedFd>,
    },
}

/// An op on names by its kind alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameKind {
    /// [`NameOp::Open`].
    Open,
    /// [`NameOp::Look`].
    Look,
    /// [`NameOp::MakeDir`].
    MakeDir,
    /// [`NameOp::Remove`].
    Remove,
    /// [`NameOp::Rename`].
    Rename,
    /// [`NameOp::Link`].
    Link,
    /// [`NameOp::Symlink`].
    Symlink,
    /// [`NameOp::Sync`].
    Sync,
}

/// What an op on names was for.
#[derive(Debug)]
pub enum NameAnswer {
    /// It is done.
    Done,
    /// What was opened. Dropped, it is closed.
    Opened(OwnedFd),
    /// What is known of it. When it was made is not told, as by `stat(2)`.
    Facts(Metadata),
}

/// What has come of an op on names.
#[derive(Debug)]
pub struct NameEnd {
    /// The op, which nobody reads or writes any more: it can be pushed again.
    pub op: NameOp,
    /// `ECANCELED` where it was not done, because it was cancelled, or because the kernel had no
    /// worker for it (F30).
    pub result: Result<NameAnswer, Errno>,
}

/// The part of a ring that serves names. All of it is refused unless a ring says otherwise.
pub trait Names {
    /// Whether ops of `kind` can be pushed. Probed when this is first asked, and the ring for
    /// them made; what stands in the way is noted in [`Features::degraded`](super::Features).
    fn takes_names(&mut self, kind: NameKind) -> bool {
        let _ = kind;
        false
    }

    /// Whether one more op on names can be pushed now. They have a queue of their own.
    fn has_room_for_name(&self) -> bool {
        false
    }

    /// As [`Ring::push`](super::Ring::push), with nothing staged, and with a slot between
    /// [`NAME_SLOTS_FROM`] and [`SOCKET_SLOTS_FROM`](super::SOCKET_SLOTS_FROM) in its tag that
    /// no other op in flight has.
    ///
    /// # Panics
    /// When there is [no room](Names::has_room_for_name), or the ring
    /// [does not take](Names::takes_names) such ops.
    fn push_name(&mut self, op: NameOp, tag: Tag) {
        let _ = (op, tag);
        unreachable!("a ring without ops for names is given none");
    }

    /// As [`Ring::cancel`](super::Ring::cancel), for an op on names.
    fn cancel_name(&mut self, tag: Tag) -> bool {
        let _ = tag;
        true
    }

    /// What has come of the op of `tag`, whose completion was reaped: once, and not where
    /// another op has been pushed with the same slot since.
    fn end_of_name(&mut self, tag: Tag) -> Option<NameEnd> {
        let _ = tag;
        None
    }
}

impl Names for super::threads::ThreadRing {}
#[cfg(any(test, feature = "sim"))]
impl Names for super::sim::SimRing {}
#[cfg(any(test, feature = "sim"))]
impl<R: super::Ring> Names for super::Planted<R> {}
