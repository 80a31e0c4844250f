//! Paths: from a directory along names, links and `..` to the last component.
//!
//! Data flow: start and path → [`Walk::walk_to_last`] → a directory and a [`Last`] component →
//! [`Walk::walk_to_end`] → an inode, or the place where one could be.
//!
//! One component at a time with one list of what is left: links are counted, and nothing
//! recurses. The rules are Linux's, which POSIX leaves room for.
//!
//! Not here: what is done at the end of a path (`names`).

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::inode::{Body, Inode, Volume};
use crate::error::ErrorKind;
use crate::options::Follow;

/// Symbolic links that one path may pass.
const LINKS_MAX: u32 = 40;
/// The longest name.
const NAME_BYTES_MAX: usize = 255;
/// The longest path, and the longest target of a symbolic link.
const PATH_BYTES_MAX: usize = 4095;

/// The last component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Name(Vec<u8>),
    Dot,
    DotDot,
    /// There is none: the path is `/`.
    Root,
}

/// A directory, and the component that is meant in it.
pub(super) struct Place {
    pub(super) dir: Arc<Inode>,
    pub(super) last: Last,
    /// A slash follows: it must be a directory.
    pub(super) slash: bool,
}

pub(super) struct Walk<'a> {
    volume: &'a Volume,
    /// Out of this directory no path may lead.
    confined_to: Option<&'a Arc<Inode>>,
    at: Arc<Inode>,
    rest: Vec<u8>,
    links: u32,
}

/// Checks that the bytes can be a path at all.
pub(super) fn check_path(path: &[u8]) -> Result<(), ErrorKind> {
    if path.contains(&0) {
        return Err(ErrorKind::InvalidName);
    }
    match path.len() {
        0 => Err(ErrorKind::NotFound),
        1..=PATH_BYTES_MAX => Ok(()),
        _ => Err(ErrorKind::NameTooLong),
    }
}

impl<'a> Walk<'a> {
    pub(super) fn new(
        volume: &'a Volume,
        start: &'a Arc<Inode>,
        confined: bool,
        path: &[u8],
    ) -> Result<Self, ErrorKind> {
        check_path(path)?;
        let confined_to = confined.then_some(start);
        let at = Arc::clone(start);
        let mut walk = Self { volume, confined_to, at, rest: path.to_vec(), links: 0 };
        walk.enter_root()?;
        Ok(walk)
    }

    /// An absolute path starts at the root.
    fn enter_root(&mut self) -> Result<(), ErrorKind> {
        if self.rest.first() == Some(&b'/') {
            if self.confined_to.is_some() {
                return Err(ErrorKind::Escapes);
            }
            self.at = Arc::clone(&self.volume.root);
        }
        Ok(())
    }

    /// Splits the next component off; whether more follow, and whether a slash does.
    fn next(&mut self) -> Option<(Vec<u8>, bool, bool)> {
        let start = self.rest.iter().position(|&byte| byte != b'/')?;
        let end = self.rest[start..].iter().position(|&byte| byte == b'/');
        let end = end.map_or(self.rest.len(), |end| start + end);
        let component = self.rest[start..end].to_vec();
        self.rest.drain(..end);
        let slash = !self.rest.is_empty();
        let more = self.rest.iter().any(|&byte| byte != b'/');
        Some((component, more, slash))
    }

    fn go_up(&self) -> Result<Arc<Inode>, ErrorKind> {
        if self.confined_to.is_some_and(|limit| Arc::ptr_eq(limit, &self.at)) {
            return Err(ErrorKind::Escapes);
        }
        Ok(self.at.parent())
    }

    /// Continues at the target of a link, then with what was left.
    fn follow(&mut self, target: &[u8]) -> Result<(), ErrorKind> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(ErrorKind::LinkLoop);
        }
        let mut rest = target.to_vec();
        rest.append(&mut self.rest);
        self.rest = rest;
        self.enter_root()
    }

    /// Walks to the directory of the last component.
    pub(super) fn walk_to_last(&mut self) -> Result<Place, ErrorKind> {
        loop {
            let Some((component, more, slash)) = self.next() else {
                return Ok(Place { dir: Arc::clone(&self.at), last: Last::Root, slash: true });
            };
            if !more {
                let last = match component.as_slice() {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name(component),
                };
                return Ok(Place { dir: Arc::clone(&self.at), last, slash });
            }
            match component.as_slice() {
                b"." => {}
                b".." => self.at = self.go_up()?,
                name => {
                    let found = lookup(&self.at, name)?.ok_or(ErrorKind::NotFound)?;
                    match &found.body {
                        Body::Directory(_) => self.at = found,
                        Body::Symlink(target) => self.follow(target)?,
                        Body::File(_) => return Err(ErrorKind::NotADirectory),
                    }
                }
            }
        }
    }

    /// What is at the end, and where: links are followed where `follow` says, or where a slash
    /// does. `None` where there is nothing of that name.
    pub(super) fn walk_to_end(
        &mut self,
        follow: Follow,
    ) -> Result<(Place, Option<Arc<Inode>>), ErrorKind> {
        loop {
            let place = self.walk_to_last()?;
            let found = match &place.last {
                Last::Dot | Last::Root => Some(Arc::clone(&place.dir)),
                Last::DotDot => Some(self.go_up()?),
                Last::Name(name) => lookup(&place.dir, name)?,
            };
            if let Some(inode) = &found
                && let Body::Symlink(target) = &inode.body
                && (follow == Follow::Yes || place.slash)
            {
                // `rest` holds the slashes behind it, which now stand behind its target.
                self.follow(target)?;
                continue;
            }
            if place.slash && found.as_ref().is_some_and(|inode| !inode.is_dir()) {
                return Err(ErrorKind::NotADirectory);
            }
            return Ok((place, found));
        }
    }

    /// As [`Walk::walk_to_end`], where a file may be made: a slash behind its name is refused.
    pub(super) fn walk_to_place(
        &mut self,
        follow: Follow,
    ) -> Result<(Place, Option<Arc<Inode>>), ErrorKind> {
        loop {
            let place = self.walk_to_last()?;
            let Last::Name(name) = &place.last else {
                let up = place.last == Last::DotDot;
                let found = if up { self.go_up()? } else { Arc::clone(&place.dir) };
                return Ok((place, Some(found)));
            };
            if place.slash {
                return Err(ErrorKind::IsADirectory);
            }
            let found = lookup(&place.dir, name)?;
            match &found {
                Some(inode) if follow == Follow::Yes => match &inode.body {
                    Body::Symlink(target) => self.follow(target)?,
                    _ => return Ok((place, found)),
                },
                _ => return Ok((place, found)),
            }
        }
    }

    /// As [`Walk::walk_to_end`], where there must be something.
    pub(super) fn find(mut self, follow: Follow) -> Result<Arc<Inode>, ErrorKind> {
        self.walk_to_end(follow)?.1.ok_or(ErrorKind::NotFound)
    }
}

/// What `name` is in `dir`, if anything. A directory that was removed has no names, however
/// long.
pub(super) fn lookup(dir: &Inode, name: &[u8]) -> Result<Option<Arc<Inode>>, ErrorKind> {
    if name.len() > NAME_BYTES_MAX && !is_removed(dir) {
        return Err(ErrorKind::NameTooLong);
    }
    Ok(dir.child(name))
}

pub(super) fn is_removed(dir: &Inode) -> bool {
    dir.listed(|listed| listed.removed).unwrap_or(true)
}
