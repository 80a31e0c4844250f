//! What names stand for: files, directories, symbolic links, each alive as long as a name or a
//! handle is.
//!
//! Data flow: [`Volume`] → [`Inode`] → its [`Facts`] and [`Body`], one lock each. Whatever
//! changes names holds the lock of the volume; at most one inode is locked inside it.
//!
//! Not here: paths (`walk`), rules for names (`names`).

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;

use super::flock::FileLock;
use super::sparse::{Sparse, Usage};
use crate::lock::Lock;
use crate::metadata::{FileKind, Metadata, Timestamp};

/// Everything that the handles of one file system share.
pub(super) struct Volume {
    pub(super) root: Arc<Inode>,
    /// Held by whatever changes or follows names.
    pub(super) names: Lock<()>,
    pub(super) usage: Arc<Lock<Usage>>,
    next_id: Lock<u64>,
    clock: Clock,
    pub(super) umask: u32,
}

enum Clock {
    /// One nanosecond for each time that was asked for.
    Counting(Lock<u64>),
    Given(fn() -> Timestamp),
}

const NANOS: u64 = 1_000_000_000;

impl Volume {
    pub(super) fn new(usage: Usage, clock: Option<fn() -> Timestamp>, umask: u32) -> Self {
        let usage = Arc::new(Lock::new(usage));
        usage.with(|usage| usage.nodes += 1);
        let body = Body::Directory(Directory::default());
        let now = clock.map_or_else(Timestamp::default, |clock| clock());
        let facts = Facts::new(0o755, 2, now);
        let root = Inode::new(1, body, facts, Arc::clone(&usage));
        Self {
            root: Arc::new(root),
            names: Lock::new(()),
            usage,
            next_id: Lock::new(2),
            clock: clock.map_or_else(|| Clock::Counting(Lock::new(0)), Clock::Given),
            umask,
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        match &self.clock {
            Clock::Given(clock) => clock(),
            Clock::Counting(count) => count.with(|count| {
                *count += 1;
                let nanos = u32::try_from(*count % NANOS).unwrap_or(0);
                Timestamp { secs: i64::try_from(*count / NANOS).unwrap_or(i64::MAX), nanos }
            }),
        }
    }

    /// A number that nothing else of this file system has, or had.
    pub(super) fn next_number(&self) -> u64 {
        self.next_id.with(|next| {
            *next += 1;
            *next - 1
        })
    }

    /// A new inode; `None` where the file system has as many as it may.
    pub(super) fn make(&self, body: Body, mode: u32) -> Option<Arc<Inode>> {
        if !self.usage.with(Usage::take_node) {
            return None;
        }
        let id = self.next_number();
        let links = if matches!(body, Body::Directory(_)) { 2 } else { 1 };
        let facts = Facts::new(mode, links, self.now());
        Some(Arc::new(Inode::new(id, body, facts, Arc::clone(&self.usage))))
    }
}

impl Drop for Volume {
    /// Takes the tree apart without recursion: it may be deeper than the stack.
    fn drop(&mut self) {
        let mut rest: Vec<Arc<Inode>> = Vec::new();
        rest.push(Arc::clone(&self.root));
        while let Some(inode) = rest.pop() {
            if let Body::Directory(directory) = &inode.body {
                let entries = directory.0.with(|inner| {
                    inner.parent = None;
                    core::mem::take(&mut inner.entries)
                });
                rest.extend(entries.into_values());
            }
        }
    }
}

pub(super) struct Inode {
    pub(super) id: u64,
    pub(super) body: Body,
    pub(super) facts: Lock<Facts>,
    pub(super) lock: FileLock,
    usage: Arc<Lock<Usage>>,
}

pub(super) enum Body {
    File(Lock<Sparse>),
    Directory(Directory),
    Symlink(Target),
}

/// Up to this length the target of a link is part of its node.
const TARGET_BYTES_FREE: usize = 60;

/// Where a symbolic link points to. A long one takes a page of the capacity, into which any
/// that a path may be fits.
pub(super) struct Target {
    bytes: Box<[u8]>,
    usage: Option<Arc<Lock<Usage>>>,
}

impl Target {
    /// `None` where there is no room for it.
    pub(super) fn new(bytes: &[u8], usage: &Arc<Lock<Usage>>) -> Option<Self> {
        let long = bytes.len() > TARGET_BYTES_FREE;
        if long && !usage.with(Usage::take_page) {
            return None;
        }
        Some(Self { bytes: bytes.into(), usage: long.then(|| Arc::clone(usage)) })
    }
}

impl Deref for Target {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            usage.with(|usage| usage.pages -= 1);
        }
    }
}

#[derive(Default)]
pub(super) struct Directory(pub(super) Lock<Listed>);

#[derive(Default)]
pub(super) struct Listed {
    pub(super) entries: BTreeMap<Vec<u8>, Arc<Inode>>,
    /// What `..` is. None for the root, which is its own.
    pub(super) parent: Option<Arc<Inode>>,
    /// Removed, and alive only in handles: nothing can be made in it.
    pub(super) removed: bool,
}

/// What is told of an inode besides its contents.
pub(super) struct Facts {
    pub(super) mode: u32,
    pub(super) links: u64,
    pub(super) accessed: Timestamp,
    pub(super) modified: Timestamp,
    pub(super) changed: Timestamp,
    created: Timestamp,
}

impl Facts {
    fn new(mode: u32, links: u64, now: Timestamp) -> Self {
        Self { mode, links, accessed: now, modified: now, changed: now, created: now }
    }

    /// The contents have changed.
    pub(super) fn touch(&mut self, now: Timestamp) {
        (self.modified, self.changed) = (now, now);
    }
}

impl Inode {
    fn new(id: u64, body: Body, facts: Facts, usage: Arc<Lock<Usage>>) -> Self {
        Self { id, body, facts: Lock::new(facts), lock: FileLock::default(), usage }
    }

    pub(super) fn kind(&self) -> FileKind {
        match &self.body {
            Body::File(_) => FileKind::File,
            Body::Directory(_) => FileKind::Directory,
            Body::Symlink(_) => FileKind::Symlink,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    /// The entries, if it is a directory.
    pub(super) fn listed<R>(&self, work: impl FnOnce(&mut Listed) -> R) -> Option<R> {
        match &self.body {
            Body::Directory(directory) => Some(directory.0.with(work)),
            _ => None,
        }
    }

    pub(super) fn child(&self, name: &[u8]) -> Option<Arc<Inode>> {
        self.listed(|listed| listed.entries.get(name).cloned()).flatten()
    }

    /// What `..` of this directory is.
    pub(super) fn parent(self: &Arc<Self>) -> Arc<Self> {
        let parent = self.listed(|listed| listed.parent.clone()).flatten();
        parent.unwrap_or_else(|| Arc::clone(self))
    }

    pub(super) fn metadata(&self) -> Metadata {
        let (len, allocated) = match &self.body {
            Body::File(bytes) => bytes.with(|bytes| (bytes.len(), bytes.allocated_bytes())),
            Body::Directory(directory) => {
                (directory.0.with(|listed| listed.entries.len() as u64), 0)
            }
            Body::Symlink(target) => (target.len() as u64, 0),
        };
        self.facts.with(|facts| Metadata {
            links: Some(facts.links),
            id: Some((0, self.id)),
            allocated_bytes: Some(allocated),
            accessed: Some(facts.accessed),
            modified: Some(facts.modified),
            changed: Some(facts.changed),
            created: Some(facts.created),
            ..Metadata::new(self.kind(), len, facts.mode)
        })
    }
}

impl Drop for Inode {
    /// A removed directory keeps the one above alive. Removed together, they may be a chain
    /// longer than the stack, so it is taken apart link by link.
    fn drop(&mut self) {
        self.usage.with(|usage| usage.nodes -= 1);
        let Body::Directory(directory) = &mut self.body else { return };
        let mut above = directory.0.get_mut().parent.take();
        while let Some(mut inode) = above.and_then(Arc::into_inner) {
            above = match &mut inode.body {
                Body::Directory(directory) => directory.0.get_mut().parent.take(),
                _ => None,
            };
        }
    }
}
