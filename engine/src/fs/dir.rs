//! Directory handles of a shard.
//!
//! Data flow: name → an op of the ring relative to the directory, or a thread's call where the ring
//! has none → result; of an open, the descriptor becomes a target of the ring.
//!
//! Not here: those ops (`names`), files once they are open (`file`).

use std::fmt;

use mfio_core::backend::PollingHandle;
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_rt::portable::{Portable, PortableDir, PortableEntries, error_of};
use mfio_rt::{DirHandle, Error, Follow, Metadata, Op, OpenOptions, Times};

use super::file::ShardFile;
use super::names::{RingDir, flags_of, told};
use crate::ring::{AutoRing, Ring};
use crate::shard::Shard;

/// An open directory whose files are the shard's.
pub struct ShardDir<R: Ring = AutoRing> {
    shard: Shard<R>,
    threads: Portable,
    names: PortableDir,
}

impl<R: Ring> ShardDir<R> {
    pub(super) fn new(shard: Shard<R>, threads: Portable, names: PortableDir) -> Self {
        Self { shard, threads, names }
    }

    pub(super) fn shard(&self) -> &Shard<R> {
        &self.shard
    }

    fn ring(&self) -> RingDir<'_, R> {
        RingDir { shard: &self.shard, dir: &self.names }
    }

    fn beside(&self, names: PortableDir) -> Self {
        Self::new(self.shard.clone(), self.threads.clone(), names)
    }
}

impl<R: Ring> Clone for ShardDir<R> {
    /// The same directory.
    fn clone(&self) -> Self {
        self.beside(self.names.clone())
    }
}

impl<R: Ring> DirHandle for ShardDir<R> {
    type File = ShardFile<R>;
    type Entries = PortableEntries;

    async fn open_file(
        &self,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<ShardFile<R>, Error> {
        let path = path.as_ref();
        let flags = flags_of(path, options)?;
        let opened = self.ring().open_file(path, options, flags).await;
        let opened = match told(opened, Op::Open, path) {
            Some(opened) => opened?,
            None => {
                let opened = self.names.open_file(path, options).await?.into_file();
                opened.map_err(|error| error_of(Op::Open, &error).at(path))?
            }
        };
        ShardFile::of(&self.shard, &self.threads, path, opened, options)
    }

    async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<Self, Error> {
        let path = path.as_ref();
        let opened = match told(self.ring().open_dir(path).await, Op::OpenDir, path) {
            Some(opened) => self.threads.adopt_dir(opened?, self.names.is_confined()),
            None => self.names.open_dir(path).await?,
        };
        Ok(self.beside(opened))
    }

    async fn confined(&self) -> Result<Self, Error> {
        let opened = match told(self.ring().confined().await, Op::OpenDir, b".") {
            Some(opened) => self.threads.adopt_dir(opened?, true),
            None => self.names.confined().await?,
        };
        Ok(self.beside(opened))
    }

    async fn read_dir(&self) -> Result<PortableEntries, Error> {
        self.names.read_dir().await
    }

    async fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        match told(self.ring().create_dir(path, mode).await, Op::CreateDir, path) {
            Some(done) => done,
            None => self.names.create_dir(path, mode).await,
        }
    }

    async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        match told(self.ring().remove(path, 0).await, Op::RemoveFile, path) {
            Some(done) => done,
            None => self.names.remove_file(path).await,
        }
    }

    async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        match told(self.ring().remove(path, libc::AT_REMOVEDIR).await, Op::RemoveDir, path) {
            Some(done) => done,
            None => self.names.remove_dir(path).await,
        }
    }

    async fn rename(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        match told(self.ring().rename(path, &to.ring(), to_path).await, Op::Rename, path) {
            Some(done) => done,
            None => self.names.rename(path, &to.names, to_path).await,
        }
    }

    async fn hard_link(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        match told(self.ring().hard_link(path, &to.ring(), to_path).await, Op::HardLink, path) {
            Some(done) => done,
            None => self.names.hard_link(path, &to.names, to_path).await,
        }
    }

    async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (target, path) = (target.as_ref(), path.as_ref());
        match told(self.ring().symlink(target, path).await, Op::Symlink, path) {
            Some(done) => done,
            None => self.names.symlink(target, path).await,
        }
    }

    async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.names.read_link(path).await
    }

    async fn metadata(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Metadata, Error> {
        let path = path.as_ref();
        match told(self.ring().metadata(path, follow).await, Op::Metadata, path) {
            Some(done) => done,
            None => self.names.metadata(path, follow).await,
        }
    }

    async fn set_permissions(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        self.names.set_permissions(path, mode).await
    }

    async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        times: Times,
        follow: Follow,
    ) -> Result<(), Error> {
        self.names.set_times(path, times, follow).await
    }

    async fn sync(&self) -> Result<(), Error> {
        match told(self.ring().sync().await, Op::Sync, b".") {
            Some(done) => done,
            None => self.names.sync().await,
        }
    }
}

impl<R: Ring> IoBackend for ShardDir<R> {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        self.shard.polling_handle()
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.shard.get_backend()
    }
}

impl<R: Ring> fmt::Debug for ShardDir<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardDir").finish_non_exhaustive()
    }
}
