//! Directory handles on threads.
//!
//! Data flow: [`DirHandle`] call → thread → one call of [`sys`](super::sys) → result, or an
//! error with path and operation. Listings are fetched some hundred names at a time.
//!
//! Not here: what the system is asked (`sys`).

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io;

use super::errno;
use super::file::PortableFile;
use super::pool::Pool;
use super::sys;
use crate::error::{Error, ErrorKind, Op};
use crate::fs::{DirHandle, Entries};
use crate::metadata::{DirEntry, Metadata, Times};
use crate::options::{Follow, OpenOptions};

/// Names fetched by one visit to a thread.
const BATCH_NAMES: usize = 256;

/// An open directory; clones are the same directory.
#[derive(Clone)]
pub struct PortableDir {
    pool: Pool,
    pub(super) dir: Arc<sys::Dir>,
}

impl PortableDir {
    pub(super) fn new(pool: Pool, dir: sys::Dir) -> Self {
        Self { pool, dir: Arc::new(dir) }
    }

    /// Does `work` with this directory and `path` on a thread.
    async fn call<T: Send + 'static>(
        &self,
        op: Op,
        path: &[u8],
        work: impl FnOnce(&sys::Dir, &[u8]) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        if path.contains(&0) {
            return Err(Error::new(op, ErrorKind::InvalidName).at(path));
        }
        let (dir, owned) = (Arc::clone(&self.dir), Box::<[u8]>::from(path));
        let done = self.pool.call(op, move || work(&dir, &owned)).await;
        let done = done.map_err(|error| error.at(path))?;
        done.map_err(|error| errno::of(op, &error).at(path))
    }

    /// As `call`, for two paths.
    async fn call_two(
        &self,
        op: Op,
        path: &[u8],
        to: &Self,
        to_path: &[u8],
        work: impl FnOnce(&sys::Dir, &[u8], &sys::Dir, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<(), Error> {
        if to_path.contains(&0) {
            return Err(Error::new(op, ErrorKind::InvalidName).at(to_path));
        }
        let (to, to_path) = (Arc::clone(&to.dir), Box::<[u8]>::from(to_path));
        self.call(op, path, move |dir, path| work(dir, path, &to, &to_path)).await
    }
}

impl DirHandle for PortableDir {
    type File = PortableFile;
    type Entries = PortableEntries;

    async fn open_file(
        &self,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<PortableFile, Error> {
        let (path, wanted) = (path.as_ref(), *options);
        options.check().map_err(|error| error.at(path))?;
        let opened = self.call(Op::Open, path, move |dir, path| dir.open_file(path, &wanted));
        Ok(PortableFile::new(self.pool.clone(), opened.await?, options))
    }

    async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<Self, Error> {
        let opened = self.call(Op::OpenDir, path.as_ref(), sys::Dir::open_dir).await?;
        Ok(Self::new(self.pool.clone(), opened))
    }

    async fn confined(&self) -> Result<Self, Error> {
        let opened = self.call(Op::OpenDir, b".", |dir, _| dir.confined()).await?;
        Ok(Self::new(self.pool.clone(), opened))
    }

    async fn read_dir(&self) -> Result<PortableEntries, Error> {
        let opened = self.call(Op::ReadDir, b".", |dir, _| dir.entries()).await?;
        let (pool, state) = (self.pool.clone(), State::Idle(opened));
        Ok(PortableEntries { pool, fetched: VecDeque::new(), state })
    }

    async fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let make = move |dir: &sys::Dir, path: &[u8]| dir.create_dir(path, mode);
        self.call(Op::CreateDir, path.as_ref(), make).await
    }

    async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        self.call(Op::RemoveFile, path.as_ref(), sys::Dir::remove_file).await
    }

    async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        self.call(Op::RemoveDir, path.as_ref(), sys::Dir::remove_dir).await
    }

    async fn rename(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        self.call_two(Op::Rename, path, to, to_path, sys::Dir::rename).await
    }

    async fn hard_link(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        self.call_two(Op::HardLink, path, to, to_path, sys::Dir::hard_link).await
    }

    async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (path, target) = (path.as_ref(), target.as_ref());
        if target.contains(&0) {
            return Err(Error::new(Op::Symlink, ErrorKind::InvalidName).at(path));
        }
        let target = Box::<[u8]>::from(target);
        self.call(Op::Symlink, path, move |dir, path| dir.symlink(&target, path)).await
    }

    async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        self.call(Op::ReadLink, path.as_ref(), sys::Dir::read_link).await
    }

    async fn metadata(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Metadata, Error> {
        let look = move |dir: &sys::Dir, path: &[u8]| dir.metadata(path, follow);
        self.call(Op::Metadata, path.as_ref(), look).await
    }

    async fn set_permissions(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let set = move |dir: &sys::Dir, path: &[u8]| dir.set_mode(path, mode);
        self.call(Op::SetPermissions, path.as_ref(), set).await
    }

    async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        times: Times,
        follow: Follow,
    ) -> Result<(), Error> {
        times.check().map_err(|error| error.at(path.as_ref()))?;
        let set = move |dir: &sys::Dir, path: &[u8]| dir.set_times(path, times, follow);
        self.call(Op::SetTimes, path.as_ref(), set).await
    }

    async fn sync(&self) -> Result<(), Error> {
        self.call(Op::Sync, b".", |dir, _| dir.sync()).await
    }
}

impl fmt::Debug for PortableDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortableDir")
    }
}

/// The listing, and what one visit to a thread brought.
type Batch = (sys::Entries, VecDeque<io::Result<DirEntry>>);
type Fetching = Pin<Box<dyn Future<Output = Result<Batch, Error>> + Send>>;

/// A listing, some hundred names at a time.
pub struct PortableEntries {
    pool: Pool,
    fetched: VecDeque<io::Result<DirEntry>>,
    state: State,
}

enum State {
    Idle(sys::Entries),
    Fetching(Fetching),
    Ended,
}

impl PortableEntries {
    fn fetch(pool: Pool, mut entries: sys::Entries) -> Fetching {
        Box::pin(async move {
            let fetch = move || {
                let mut batch = VecDeque::with_capacity(BATCH_NAMES);
                while batch.len() < BATCH_NAMES {
                    let Some(entry) = entries.next() else { break };
                    let failed = entry.is_err();
                    batch.push_back(entry);
                    if failed {
                        break;
                    }
                }
                (entries, batch)
            };
            pool.call(Op::ReadDir, fetch).await
        })
    }
}

impl Entries for PortableEntries {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<DirEntry, Error>>> {
        loop {
            if let Some(entry) = self.fetched.pop_front() {
                if entry.is_err() {
                    self.state = State::Ended;
                }
                let entry = entry.map_err(|error| errno::of(Op::ReadDir, &error));
                return Poll::Ready(Some(entry));
            }
            match core::mem::replace(&mut self.state, State::Ended) {
                State::Idle(entries) => {
                    self.state = State::Fetching(Self::fetch(self.pool.clone(), entries));
                }
                State::Fetching(mut fetching) => {
                    let Poll::Ready(batch) = fetching.as_mut().poll(cx) else {
                        self.state = State::Fetching(fetching);
                        return Poll::Pending;
                    };
                    let (entries, fetched) = match batch {
                        Ok(batch) => batch,
                        Err(error) => return Poll::Ready(Some(Err(error))),
                    };
                    if !fetched.is_empty() {
                        self.state = State::Idle(entries);
                    }
                    self.fetched = fetched;
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl fmt::Debug for PortableEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortableEntries").field("fetched", &self.fetched.len()).finish()
    }
}
