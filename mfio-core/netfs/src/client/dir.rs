//! Directory handles of a client, and listings that are fetched ahead.
//!
//! Data flow: [`DirHandle`] call → request → reply. A listing asks for the next names while
//! those before are looked at, the more of them the longer it is.
//!
//! Not here: which paths lead where (the server says).

use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};

use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_rt::Times;
use mfio_rt::{DirEntry, DirHandle, Entries, Error, ErrorKind, Follow, Metadata, Op, OpenOptions};

use super::file::NetFile;
use super::pending::{Pending, ask, ask_at, ask_to_open, strange};
use super::shared::{Opened, path_of};
use crate::wire::{PATH_BYTES_MAX, Reply, Request};

/// Names asked for at first.
const FIRST_NAMES: u32 = 128;
/// Names in hand below which more are asked for.
const FETCHED_AHEAD: usize = 1024;

/// An open directory at the server; clones are the same. It stays that directory: after a
/// reconnect it fails with `ESTALE`, unless it is the exported one. Files past the page cache
/// (`OpenOptions::direct`) are refused as `Unsupported`.
#[derive(Clone)]
pub struct NetDir(pub(super) Arc<Opened>);

impl NetDir {
    fn number(&self) -> u64 {
        self.0.number
    }

    async fn ask(&self, request: Request, op: Op, path: &[u8]) -> Result<Reply, Error> {
        ask_at(request, op, path, vec![Arc::clone(&self.0)]).await
    }

    async fn done(&self, request: Request, op: Op, path: &[u8]) -> Result<(), Error> {
        match self.ask(request, op, path).await? {
            Reply::Done {} => Ok(()),
            _ => Err(strange(op)),
        }
    }

    /// The handle that a request opens.
    async fn opened(&self, request: Request, op: Op, path: &[u8]) -> Result<Arc<Opened>, Error> {
        ask_to_open(request, op, path, &self.0).await
    }

    async fn done_two(
        &self,
        request: Request,
        op: Op,
        (path, to, to_path): (&[u8], &Self, &[u8]),
    ) -> Result<(), Error> {
        if !Arc::ptr_eq(&self.0.user.shared, &to.0.user.shared) {
            return Err(Error::new(op, ErrorKind::Escapes).at(path));
        }
        if to_path.len() > PATH_BYTES_MAX {
            return Err(Error::new(op, ErrorKind::NameTooLong).at(to_path));
        }
        let keep = vec![Arc::clone(&self.0), Arc::clone(&to.0)];
        match ask_at(request, op, path, keep).await? {
            Reply::Done {} => Ok(()),
            _ => Err(strange(op)),
        }
    }
}

impl DirHandle for NetDir {
    type File = NetFile;
    type Entries = NetEntries;

    async fn open_file(
        &self,
        path: impl AsRef<[u8]>,
        options: &OpenOptions,
    ) -> Result<NetFile, Error> {
        let (dir, path) = (self.number(), path.as_ref());
        options.check().map_err(|error| error.at(path))?;
        let request = Request::OpenFile { dir, path: path_of(path), options: *options };
        Ok(NetFile(self.opened(request, Op::Open, path).await?))
    }

    async fn open_dir(&self, path: impl AsRef<[u8]>) -> Result<Self, Error> {
        let (dir, path) = (self.number(), path.as_ref());
        let request = Request::OpenDir { dir, path: path_of(path) };
        Ok(Self(self.opened(request, Op::OpenDir, path).await?))
    }

    async fn confined(&self) -> Result<Self, Error> {
        let request = Request::Confined { dir: self.number() };
        Ok(Self(self.opened(request, Op::OpenDir, b".").await?))
    }

    async fn read_dir(&self) -> Result<NetEntries, Error> {
        let request = Request::ReadDir { dir: self.number() };
        let listing = self.opened(request, Op::ReadDir, b".").await?;
        Ok(NetEntries {
            fetched: VecDeque::new(),
            given: 0,
            asked: None,
            failed: None,
            listing: Some(listing),
        })
    }

    async fn create_dir(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let (dir, path) = (self.number(), path.as_ref());
        let request = Request::CreateDir { dir, path: path_of(path), mode };
        self.done(request, Op::CreateDir, path).await
    }

    async fn remove_file(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (dir, path) = (self.number(), path.as_ref());
        self.done(Request::RemoveFile { dir, path: path_of(path) }, Op::RemoveFile, path).await
    }

    async fn remove_dir(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (dir, path) = (self.number(), path.as_ref());
        self.done(Request::RemoveDir { dir, path: path_of(path) }, Op::RemoveDir, path).await
    }

    async fn rename(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        let request = Request::Rename {
            dir: self.number(),
            path: path_of(path),
            to: to.number(),
            to_path: path_of(to_path),
        };
        self.done_two(request, Op::Rename, (path, to, to_path)).await
    }

    async fn hard_link(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        let request = Request::HardLink {
            dir: self.number(),
            path: path_of(path),
            to: to.number(),
            to_path: path_of(to_path),
        };
        self.done_two(request, Op::HardLink, (path, to, to_path)).await
    }

    async fn symlink(&self, target: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let (target, path) = (target.as_ref(), path.as_ref());
        if target.len() > PATH_BYTES_MAX {
            return Err(Error::new(Op::Symlink, ErrorKind::NameTooLong).at(path));
        }
        let (dir, target) = (self.number(), path_of(target));
        let request = Request::Symlink { dir, target, path: path_of(path) };
        self.done(request, Op::Symlink, path).await
    }

    async fn read_link(&self, path: impl AsRef<[u8]>) -> Result<Vec<u8>, Error> {
        let (dir, path) = (self.number(), path.as_ref());
        let request = Request::ReadLink { dir, path: path_of(path) };
        match self.ask(request, Op::ReadLink, path).await? {
            Reply::Target { path } => Ok(path.into_vec()),
            _ => Err(strange(Op::ReadLink)),
        }
    }

    async fn metadata(&self, path: impl AsRef<[u8]>, follow: Follow) -> Result<Metadata, Error> {
        let (dir, path) = (self.number(), path.as_ref());
        let request = Request::Metadata { dir, path: path_of(path), follow };
        match self.ask(request, Op::Metadata, path).await? {
            Reply::Facts { facts } => Ok(facts),
            _ => Err(strange(Op::Metadata)),
        }
    }

    async fn set_permissions(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let (dir, path) = (self.number(), path.as_ref());
        let request = Request::SetPermissions { dir, path: path_of(path), mode };
        self.done(request, Op::SetPermissions, path).await
    }

    async fn set_times(
        &self,
        path: impl AsRef<[u8]>,
        times: Times,
        follow: Follow,
    ) -> Result<(), Error> {
        let (dir, path) = (self.number(), path.as_ref());
        times.check().map_err(|error| error.at(path))?;
        let request = Request::SetTimes { dir, path: path_of(path), times, follow };
        self.done(request, Op::SetTimes, path).await
    }

    async fn sync(&self) -> Result<(), Error> {
        let request = Request::SyncDir { dir: self.number() };
        match ask(request, Op::Sync, vec![Arc::clone(&self.0)]).await? {
            Reply::Done {} => Ok(()),
            _ => Err(strange(Op::Sync)),
        }
    }
}

impl IoBackend for NetDir {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.0.user.get_backend()
    }
}

impl fmt::Debug for NetDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetDir({})", self.0.number)
    }
}

/// A listing at the server, fetched ahead.
pub struct NetEntries {
    fetched: VecDeque<DirEntry>,
    given: u64,
    asked: Option<Pending>,
    /// Why it has ended, told when the names before have been.
    failed: Option<Error>,
    /// `None` when it has ended.
    listing: Option<Arc<Opened>>,
}

impl NetEntries {
    /// Asks for the next names, unless that was done or there are none.
    fn ask(&mut self) {
        if self.asked.is_some() {
            return;
        }
        let Some(listing) = &self.listing else { return };
        let entries_max = FIRST_NAMES.saturating_mul((self.given + 1).ilog2() + 1);
        let request = Request::NextEntries { listing: listing.number, entries_max };
        self.asked = Pending::new(request, Op::ReadDir, vec![Arc::clone(listing)]);
    }
}

impl Entries for NetEntries {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<DirEntry, Error>>> {
        loop {
            // Ahead of need, but never more than one answer ahead.
            if self.fetched.len() < FETCHED_AHEAD {
                self.ask();
            }
            if let Some(asked) = &mut self.asked
                && let Poll::Ready(answer) = Pin::new(asked).poll(cx)
            {
                self.take(answer);
                continue;
            }
            return match self.fetched.pop_front() {
                Some(entry) => Poll::Ready(Some(Ok(entry))),
                None if self.asked.is_some() => Poll::Pending,
                None => Poll::Ready(self.failed.take().map(Err)),
            };
        }
    }
}

impl NetEntries {
    fn take(&mut self, answer: Result<Reply, Error>) {
        self.asked = None;
        let (ended, entries) = match answer {
            Ok(Reply::Entries { ended, entries }) => (ended, Ok(entries)),
            Ok(_) => (true, Err(strange(Op::ReadDir))),
            Err(error) => (true, Err(error)),
        };
        if ended {
            self.listing = None;
        }
        match entries {
            Ok(entries) => {
                self.given += entries.len() as u64;
                self.fetched.extend(entries);
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

impl fmt::Debug for NetEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetEntries").field("fetched", &self.fetched.len()).finish()
    }
}
