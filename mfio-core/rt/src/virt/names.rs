//! What may be done with names: make, remove, move, link.
//!
//! Data flow: two walked places → the rules → entries, link counts and times, all under the
//! lock of the volume, so that others see each change before or after.
//!
//! The order in which refusals are found is Linux's, so that a program meets the same ones.
//!
//! Not here: paths (`walk`), contents (`sparse`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::inode::{Body, Directory, Inode, Target, Volume};
use super::sparse::{Sparse, Usage};
use super::walk::{Last, Place, Walk, check_path, is_removed, lookup};
use crate::error::ErrorKind;
use crate::lock::Lock;
use crate::options::{Follow, OpenOptions};

/// The most names of one file, and the most directories in one directory.
const LINKS_MAX: u64 = 65_000;

/// Where a path starts.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) volume: &'a Volume,
    pub(super) dir: &'a Arc<Inode>,
    pub(super) confined: bool,
}

impl<'a> Base<'a> {
    pub(super) fn walk(self, path: &[u8]) -> Result<Walk<'a>, ErrorKind> {
        Walk::new(self.volume, self.dir, self.confined, path)
    }

    pub(super) fn find(self, path: &[u8], follow: Follow) -> Result<Arc<Inode>, ErrorKind> {
        self.volume.names.with(|()| self.walk(path)?.find(follow))
    }

    /// The directory in which a new name is made, and the name.
    fn vacancy(self, path: &[u8], is_dir: bool) -> Result<(Arc<Inode>, Vec<u8>), ErrorKind> {
        let Place { dir, last, slash } = self.walk(path)?.walk_to_last()?;
        let Last::Name(name) = last else { return Err(ErrorKind::AlreadyExists) };
        if lookup(&dir, &name)?.is_some() {
            return Err(ErrorKind::AlreadyExists);
        }
        if slash && !is_dir {
            return Err(ErrorKind::NotFound);
        }
        if is_removed(&dir) {
            return Err(ErrorKind::NotFound);
        }
        Ok((dir, name))
    }

    pub(super) fn create_dir(self, path: &[u8], mode: u32) -> Result<(), ErrorKind> {
        self.volume.names.with(|()| {
            let (dir, name) = self.vacancy(path, true)?;
            if links(&dir) >= LINKS_MAX {
                return Err(ErrorKind::TooManyLinks);
            }
            let body = Body::Directory(Directory::default());
            // Linux takes the sticky bit from `mkdir`, and not the other two.
            let mode = mode & 0o1777 & !self.volume.umask;
            let made = self.volume.make(body, mode).ok_or(ErrorKind::NoSpace)?;
            made.listed(|listed| listed.parent = Some(Arc::clone(&dir)));
            self.enter(&dir, name, made);
            Ok(())
        })
    }

    pub(super) fn symlink(self, target: &[u8], path: &[u8]) -> Result<(), ErrorKind> {
        check_path(target)?;
        self.volume.names.with(|()| {
            let (dir, name) = self.vacancy(path, false)?;
            let target = Target::new(target, &self.volume.usage).ok_or(ErrorKind::NoSpace)?;
            let made = self.volume.make(Body::Symlink(target), 0o777);
            let made = made.ok_or(ErrorKind::NoSpace)?;
            self.enter(&dir, name, made);
            Ok(())
        })
    }

    /// The file behind `path`, made if need be.
    pub(super) fn open_file(
        self,
        path: &[u8],
        options: &OpenOptions,
    ) -> Result<Arc<Inode>, ErrorKind> {
        self.volume.names.with(|()| {
            let inode = self.find_or_make(path, options)?;
            let Body::File(bytes) = &inode.body else { return Err(ErrorKind::IsADirectory) };
            if options.truncate {
                bytes.with(|bytes| bytes.set_len(0));
                let now = self.volume.now();
                inode.facts.with(|facts| facts.touch(now));
            }
            Ok(inode)
        })
    }

    fn find_or_make(self, path: &[u8], options: &OpenOptions) -> Result<Arc<Inode>, ErrorKind> {
        let follow = if options.nofollow { Follow::No } else { Follow::Yes };
        if !(options.create || options.create_new) {
            let found = self.walk(path)?.find(follow)?;
            let is_link = matches!(found.body, Body::Symlink(_));
            return if is_link { Err(ErrorKind::LinkLoop) } else { Ok(found) };
        }
        let mut walk = self.walk(path)?;
        let follow = if options.create_new { Follow::No } else { follow };
        let (place, found) = walk.walk_to_place(follow)?;
        match (found, place.last) {
            (Some(_), _) if options.create_new => Err(ErrorKind::AlreadyExists),
            (Some(found), _) => match found.body {
                Body::Symlink(_) => Err(ErrorKind::LinkLoop),
                Body::Directory(_) => Err(ErrorKind::IsADirectory),
                Body::File(_) => Ok(found),
            },
            (None, Last::Name(name)) => {
                if is_removed(&place.dir) {
                    return Err(ErrorKind::NotFound);
                }
                let bytes = Sparse::new(Arc::clone(&self.volume.usage));
                let mode = options.mode & 0o7777 & !self.volume.umask;
                let made = self.volume.make(Body::File(Lock::new(bytes)), mode);
                let made = made.ok_or(ErrorKind::NoSpace)?;
                self.enter(&place.dir, name, Arc::clone(&made));
                Ok(made)
            }
            (None, _) => Err(ErrorKind::NotFound),
        }
    }

    pub(super) fn remove_file(self, path: &[u8]) -> Result<(), ErrorKind> {
        self.volume.names.with(|()| {
            let Place { dir, last, slash } = self.walk(path)?.walk_to_last()?;
            let Last::Name(name) = last else { return Err(ErrorKind::IsADirectory) };
            let found = lookup(&dir, &name)?.ok_or(ErrorKind::NotFound)?;
            if found.is_dir() {
                return Err(ErrorKind::IsADirectory);
            }
            if slash {
                return Err(ErrorKind::NotADirectory);
            }
            self.leave(&dir, &name, &found);
            Ok(())
        })
    }

    pub(super) fn remove_dir(self, path: &[u8]) -> Result<(), ErrorKind> {
        self.volume.names.with(|()| {
            let Place { dir, last, .. } = self.walk(path)?.walk_to_last()?;
            let name = match last {
                Last::Name(name) => name,
                Last::Dot => return Err(ErrorKind::InvalidInput),
                Last::DotDot => return Err(ErrorKind::NotEmpty),
                Last::Root => return Err(ErrorKind::Busy),
            };
            let found = lookup(&dir, &name)?.ok_or(ErrorKind::NotFound)?;
            if !found.is_dir() {
                return Err(ErrorKind::NotADirectory);
            }
            if !is_empty(&found) {
                return Err(ErrorKind::NotEmpty);
            }
            self.leave(&dir, &name, &found);
            Ok(())
        })
    }

    pub(super) fn hard_link(
        self,
        path: &[u8],
        to: Base<'_>,
        to_path: &[u8],
    ) -> Result<(), ErrorKind> {
        self.volume.names.with(|()| {
            let found = self.walk(path)?.find(Follow::No)?;
            let (dir, name) = to.vacancy(to_path, false)?;
            if found.is_dir() {
                return Err(ErrorKind::PermissionDenied);
            }
            match links(&found) {
                0 => return Err(ErrorKind::NotFound),
                LINKS_MAX.. => return Err(ErrorKind::TooManyLinks),
                _ => {}
            }
            // Its first name is counted with the file itself.
            if !self.volume.usage.with(Usage::take_node) {
                return Err(ErrorKind::NoSpace);
            }
            let now = self.volume.now();
            found.facts.with(|facts| (facts.links, facts.changed) = (facts.links + 1, now));
            self.enter(&dir, name, found);
            Ok(())
        })
    }

    pub(super) fn rename(self, path: &[u8], to: Base<'_>, to_path: &[u8]) -> Result<(), ErrorKind> {
        self.volume.names.with(|()| {
            let from = self.walk(path)?.walk_to_last()?;
            let target = to.walk(to_path)?.walk_to_last()?;
            let (Last::Name(name), Last::Name(new_name)) = (from.last, target.last) else {
                return Err(ErrorKind::Busy);
            };
            let moved = lookup(&from.dir, &name)?.ok_or(ErrorKind::NotFound)?;
            if is_removed(&target.dir) {
                return Err(ErrorKind::NotFound);
            }
            let replaced = lookup(&target.dir, &new_name)?;
            if !moved.is_dir() && (from.slash || target.slash) {
                return Err(ErrorKind::NotADirectory);
            }
            if moved.is_dir() && is_at_or_below(&target.dir, &moved) {
                return Err(ErrorKind::InvalidInput);
            }
            if let Some(replaced) = &replaced {
                if Arc::ptr_eq(replaced, &moved) {
                    return Ok(());
                }
                if replaced.is_dir() && is_at_or_below(&from.dir, replaced) {
                    return Err(ErrorKind::NotEmpty);
                }
                check_replacement(&moved, replaced)?;
            }
            let is_other_dir = !Arc::ptr_eq(&from.dir, &target.dir);
            let full = moved.is_dir() && is_other_dir && links(&target.dir) >= LINKS_MAX;
            if full && replaced.is_none() {
                return Err(ErrorKind::TooManyLinks);
            }
            if let Some(replaced) = &replaced {
                self.leave(&target.dir, &new_name, replaced);
            }
            from.dir.listed(|listed| listed.entries.remove(&name));
            if moved.is_dir() {
                from.dir.facts.with(|facts| facts.links -= 1);
                moved.listed(|listed| listed.parent = Some(Arc::clone(&target.dir)));
            }
            let now = self.volume.now();
            from.dir.facts.with(|facts| facts.touch(now));
            moved.facts.with(|facts| facts.changed = now);
            self.enter(&target.dir, new_name, moved);
            Ok(())
        })
    }

    /// Gives `inode` a name in `dir`.
    fn enter(self, dir: &Arc<Inode>, name: Vec<u8>, inode: Arc<Inode>) {
        let is_dir = inode.is_dir();
        dir.listed(|listed| listed.entries.insert(name, inode));
        let now = self.volume.now();
        dir.facts.with(|facts| {
            facts.links += u64::from(is_dir);
            facts.touch(now);
        });
    }

    /// Takes the name of `inode` in `dir` away.
    fn leave(self, dir: &Arc<Inode>, name: &[u8], inode: &Arc<Inode>) {
        dir.listed(|listed| listed.entries.remove(name));
        let is_dir = inode.is_dir();
        let now = self.volume.now();
        dir.facts.with(|facts| {
            facts.links -= u64::from(is_dir);
            facts.touch(now);
        });
        let left = inode.facts.with(|facts| {
            facts.links = if is_dir { 0 } else { facts.links - 1 };
            facts.changed = now;
            facts.links
        });
        if left > 0 {
            self.volume.usage.with(|usage| usage.nodes -= 1);
        }
        inode.listed(|listed| listed.removed = true);
    }
}

fn links(inode: &Inode) -> u64 {
    inode.facts.with(|facts| facts.links)
}

fn is_empty(dir: &Inode) -> bool {
    dir.listed(|listed| listed.entries.is_empty()).unwrap_or(true)
}

/// Whether `dir` is `above` or lies somewhere in it.
fn is_at_or_below(dir: &Arc<Inode>, above: &Arc<Inode>) -> bool {
    let mut at = Arc::clone(dir);
    loop {
        if Arc::ptr_eq(&at, above) {
            return true;
        }
        let parent = at.parent();
        if Arc::ptr_eq(&parent, &at) {
            return false;
        }
        at = parent;
    }
}

/// Whether `moved` may take the place of `replaced`.
fn check_replacement(moved: &Inode, replaced: &Inode) -> Result<(), ErrorKind> {
    match (moved.is_dir(), replaced.is_dir()) {
        (true, false) => Err(ErrorKind::NotADirectory),
        (false, true) => Err(ErrorKind::IsADirectory),
        (true, true) if !is_empty(replaced) => Err(ErrorKind::NotEmpty),
        _ => Ok(()),
    }
}
