//! Directory handles of the in-memory file system.
//!
//! Data flow: [`DirHandle`] call → `names` → an error with path and operation.
//!
//! Not here: the rules.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Bound;
use core::task::{Context, Poll};

use super::file::VirtFile;
use super::inode::{Body, Inode, Volume};
use super::names::Base;
use super::sparse::Usage;
use crate::error::{Error, ErrorKind, Op};
use crate::fs::{DirHandle, Entries};
use crate::metadata::{DirEntry, Metadata, Times};
use crate::options::{Follow, OpenOptions};

/// An open directory of a [`VirtFs`](super::VirtFs); clones are the same directory.
#[derive(Clone)]
pub struct VirtDir {
    volume: Arc<Volume>,
    inode: Arc<Inode>,
    confined: bool,
}

impl VirtDir {
    pub(super) fn root(volume: Arc<Volume>) -> Self {
        Self { inode: Arc::clone(&volume.root), volume, confined: false }
    }

    pub(super) fn usage<R>(&self, look: impl FnOnce(&Usage) -> R) -> R {
        self.volume.usage.with(|usage| look(usage))
    }

    fn base(&self) -> Base<'_> {
        Base { volume: &self.volume, dir: &self.inode, confined: self.confined }
    }
}

/// Says of which operation and path a refusal is.
fn about(op: Op, path: &[u8]) -> impl Fn(ErrorKind) -> Error + '_ {
    move |kind| Error::new(op, kind).at(path)
}

pub(super) fn set_times(volume: &Volume, inode: &Inode, times: Times) {
    let now = volume.now();
    inode.facts.with(|facts| {
        facts.accessed = times.accessed.unwrap_or(facts.accessed);
        facts.modified = times.modified.unwrap_or(facts.modified);
        facts.changed = now;
    });
}

pub(super) fn set_permissions(volume: &Volume, inode: &Inode, mode: u32) {
    let now = volume.now();
    inode.facts.with(|facts| (facts.mode, facts.changed) = (mode & 0o7777, now));
}

impl DirHandle for VirtDir {
    type File = VirtFile;
    type Entries = VirtEntries;

    async fn open_file(
        &self,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<VirtFile, Error> {
        let path = path.as_ref();
        options.check().map_err(|error| error.at(path))?;
        let inode = self.base().open_file(path, options).map_err(about(Op::Open, path))?;
        Ok(VirtFile::new(Arc::clone(&self.volume), inode, options))
    }

    async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<Self, Error> {
        let (path, op) = (path.as_ref(), Op::OpenDir);
        let inode = self.base().find(path, Follow::Yes).map_err(about(op, path))?;
        if !inode.is_dir() {
            return Err(Error::new(op, ErrorKind::NotADirectory).at(path));
        }
        Ok(Self { volume: Arc::clone(&self.volume), inode, confined: self.confined })
    }

    async fn confined(&self) -> Result<Self, Error> {
        Ok(Self { confined: true, ..self.clone() })
    }

    async fn read_dir(&self) -> Result<VirtEntries, Error> {
        Ok(VirtEntries { dir: Arc::clone(&self.inode), after: None, volume: self.volume.clone() })
    }

    async fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        self.base().create_dir(path, mode).map_err(about(Op::CreateDir, path))
    }

    async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        self.base().remove_file(path).map_err(about(Op::RemoveFile, path))
    }

    async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        self.base().remove_dir(path).map_err(about(Op::RemoveDir, path))
    }

    async fn rename(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, op) = (path.as_ref(), Op::Rename);
        if !Arc::ptr_eq(&self.volume, &to.volume) {
            return Err(Error::new(op, ErrorKind::Escapes).at(path));
        }
        self.base().rename(path, to.base(), to_path.as_ref()).map_err(about(op, path))
    }

    async fn hard_link(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, op) = (path.as_ref(), Op::HardLink);
        if !Arc::ptr_eq(&self.volume, &to.volume) {
            return Err(Error::new(op, ErrorKind::Escapes).at(path));
        }
        self.base().hard_link(path, to.base(), to_path.as_ref()).map_err(about(op, path))
    }

    async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        self.base().symlink(target.as_ref(), path).map_err(about(Op::Symlink, path))
    }

    async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        let (path, op) = (path.as_ref(), Op::ReadLink);
        let inode = self.base().find(path, Follow::No).map_err(about(op, path))?;
        match &inode.body {
            Body::Symlink(target) => Ok(target.to_vec()),
            _ => Err(Error::new(op, ErrorKind::InvalidInput).at(path)),
        }
    }

    async fn metadata(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Metadata, Error> {
        let path = path.as_ref();
        let inode = self.base().find(path, follow).map_err(about(Op::Metadata, path))?;
        Ok(inode.metadata())
    }

    async fn set_permissions(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        let found = self.base().find(path, Follow::Yes);
        let inode = found.map_err(about(Op::SetPermissions, path))?;
        set_permissions(&self.volume, &inode, mode);
        Ok(())
    }

    async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        times: Times,
        follow: Follow,
    ) -> Result<(), Error> {
        let path = path.as_ref();
        times.check().map_err(|error| error.at(path))?;
        let inode = self.base().find(path, follow).map_err(about(Op::SetTimes, path))?;
        set_times(&self.volume, &inode, times);
        Ok(())
    }

    async fn sync(&self) -> Result<(), Error> {
        Ok(())
    }
}

impl fmt::Debug for VirtDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtDir({})", self.inode.id)
    }
}

/// A listing, in the order of the names' bytes.
pub struct VirtEntries {
    dir: Arc<Inode>,
    /// The name listed last.
    after: Option<Vec<u8>>,
    // Last, because the inodes above go before it.
    volume: Arc<Volume>,
}

impl Entries for VirtEntries {
    fn poll_next(&mut self, _cx: &mut Context<'_>) -> Poll<Option<Result<DirEntry, Error>>> {
        let after = self.after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let bounds = (after, Bound::Unbounded);
        let next = self.volume.names.with(|()| {
            self.dir.listed(|listed| {
                let next = listed.entries.range::<[u8], _>(bounds).next();
                next.map(|(name, inode)| DirEntry { name: name.clone(), kind: inode.kind() })
            })
        });
        let Some(entry) = next.flatten() else { return Poll::Ready(None) };
        self.after = Some(entry.name.clone());
        Poll::Ready(Some(Ok(entry)))
    }
}

impl fmt::Debug for VirtEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VirtEntries({})", self.dir.id)
    }
}
