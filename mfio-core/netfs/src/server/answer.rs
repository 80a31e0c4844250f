//! What is done for each request.
//!
//! Data flow: request → operation on the exported file system → reply. A path that leads out of
//! the directory it is relative to, but not out of the exported one, is followed from there.
//!
//! Not here: how requests come and replies go (`session`).

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::Poll;

use mfio_core::FailedRange;
use mfio_rt::{DirHandle, Entries, Error, ErrorKind, FileHandle, Follow, Op};

use super::handles::{Handle, Listing, Node, Place};
use super::session::Session;
use crate::wire::{Reply, Request};

/// The longest path that is remembered of a directory.
const PATH_KEPT: usize = 4096;
/// Bytes of names in one reply.
const ENTRIES_BYTES: usize = 48 << 10;
/// Ranges told of in one reply.
const RANGES_MAX: usize = 1024;

fn done(result: Result<(), Error>) -> Result<Reply, Error> {
    result.map(|()| Reply::Done {})
}

fn joined(path: Option<&Vec<u8>>, more: &[u8]) -> Option<Vec<u8>> {
    let path = path?;
    if path.is_empty() || more.first() == Some(&b'/') {
        let from = more.iter().take_while(|&&byte| byte == b'/').count();
        let joined = more[from..].to_vec();
        return (joined.len() <= PATH_KEPT).then_some(joined);
    }
    let joined = [path, more].join(&b'/');
    (joined.len() <= PATH_KEPT).then_some(joined)
}

impl<'s, D: DirHandle> Session<'s, D> {
    fn root(&self) -> Result<Rc<Node<D>>, Error> {
        self.handles.dir(0, Op::OpenDir)
    }

    /// `path` of `node` as a path of the exported directory, if `node` still is where it was
    /// when it was opened.
    async fn rerooted(&self, node: &Node<D>, path: &[u8]) -> Option<Vec<u8>> {
        let way = node.path.as_ref().filter(|way| !way.is_empty())?;
        let root = self.root().ok()?;
        let there = root.dir.metadata(way, Follow::Yes).await.ok()?;
        let here = node.dir.metadata(".", Follow::Yes).await.ok()?;
        if here.id.is_none() || here.id != there.id {
            return None;
        }
        joined(Some(way), path)
    }

    /// Runs `work` with `path` of `node`, from where that path stays inside.
    async fn at<T>(
        &self,
        node: &Node<D>,
        path: &[u8],
        work: impl AsyncFn(&D, &[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if path.first() == Some(&b'/') && node.path.is_some() {
            // The root of the client's file system is the exported directory.
            let from = path.iter().take_while(|&&byte| byte == b'/').count();
            let path = if from == path.len() { b"." } else { &path[from..] };
            return work(&self.root()?.dir, path).await;
        }
        match work(&node.dir, path).await {
            Err(error) if error.kind() == ErrorKind::Escapes => {
                match self.rerooted(node, path).await {
                    Some(path) => work(&self.root()?.dir, &path).await,
                    None => Err(error),
                }
            }
            result => result,
        }
    }

    /// As `at`, for two paths.
    async fn at_two(
        &self,
        (dir, path): (u64, &[u8]),
        (to, to_path): (u64, &[u8]),
        op: Op,
        work: impl AsyncFn(&D, &[u8], &D, &[u8]) -> Result<(), Error>,
    ) -> Result<Reply, Error> {
        let (from, to) = (self.handles.dir(dir, op)?, self.handles.dir(to, op)?);
        let first = work(&from.dir, path, &to.dir, to_path).await;
        let Err(error) = first else { return Ok(Reply::Done {}) };
        if error.kind() != ErrorKind::Escapes {
            return Err(error);
        }
        let whole = async |node: &Node<D>, path: &[u8]| match &node.path {
            Some(way) if way.is_empty() || path.first() == Some(&b'/') => {
                joined(Some(&Vec::new()), path)
            }
            _ => self.rerooted(node, path).await,
        };
        let (Some(path), Some(to_path)) = (whole(&from, path).await, whole(&to, to_path).await)
        else {
            return Err(error);
        };
        let root = self.root()?;
        done(work(&root.dir, &path, &root.dir, &to_path).await)
    }

    fn opened(&self, place: Place<'s>, handle: Handle<D>) -> Reply {
        Reply::Opened { handle: self.handles.insert(place, handle) }
    }

    /// Everything but reads, writes, locks that are waited for, and what is not answered.
    pub(super) async fn answer(&self, request: Request) -> Result<Reply, Error> {
        match request {
            // Its transfers would fail: what a server receives into and sends from is aligned as
            // it comes, whatever the client's memory is.
            Request::OpenFile { options, .. } if options.direct => {
                Err(Error::new(Op::Open, ErrorKind::Unsupported))
            }
            Request::OpenFile { dir, path, options } => {
                let place = self.handles.place(Op::Open)?;
                let node = self.handles.dir(dir, Op::Open)?;
                let open = async |dir: &D, path: &[u8]| dir.open_file(path, &options).await;
                let file = self.at(&node, &path, open).await?;
                Ok(self.opened(place, Handle::File(Rc::new(file))))
            }
            Request::OpenDir { dir, path } => {
                let place = self.handles.place(Op::OpenDir)?;
                let node = self.handles.dir(dir, Op::OpenDir)?;
                let open = async |dir: &D, path: &[u8]| dir.open_dir(path).await;
                let dir = self.at(&node, &path, open).await?;
                let node = Node { dir, path: joined(node.path.as_ref(), &path) };
                Ok(self.opened(place, Handle::Dir(Rc::new(node))))
            }
            Request::Confined { dir } => {
                let place = self.handles.place(Op::OpenDir)?;
                let dir = self.handles.dir(dir, Op::OpenDir)?.dir.confined().await?;
                Ok(self.opened(place, Handle::Dir(Rc::new(Node { dir, path: None }))))
            }
            Request::ReadDir { dir } => {
                let place = self.handles.place(Op::ReadDir)?;
                let entries = self.handles.dir(dir, Op::ReadDir)?.dir.read_dir().await?;
                let listing = Some(Listing { entries, left: None });
                Ok(self.opened(place, Handle::Listing(Rc::new(RefCell::new(listing)))))
            }
            Request::NextEntries { listing, entries_max } => {
                self.next_entries(listing, entries_max).await
            }
            Request::Rename { dir, path, to, to_path } => {
                let rename = async |dir: &D, path: &[u8], to: &D, to_path: &[u8]| {
                    dir.rename(path, to, to_path).await
                };
                self.at_two((dir, &path), (to, &to_path), Op::Rename, rename).await
            }
            Request::HardLink { dir, path, to, to_path } => {
                let link = async |dir: &D, path: &[u8], to: &D, to_path: &[u8]| {
                    dir.hard_link(path, to, to_path).await
                };
                self.at_two((dir, &path), (to, &to_path), Op::HardLink, link).await
            }
            request => self.answer_name(request).await,
        }
    }

    /// Operations on one name.
    async fn answer_name(&self, request: Request) -> Result<Reply, Error> {
        match request {
            Request::CreateDir { dir, path, mode } => {
                let node = self.handles.dir(dir, Op::CreateDir)?;
                let make = async |dir: &D, path: &[u8]| dir.create_dir(path, mode).await;
                done(self.at(&node, &path, make).await)
            }
            Request::RemoveFile { dir, path } => {
                let node = self.handles.dir(dir, Op::RemoveFile)?;
                let remove = async |dir: &D, path: &[u8]| dir.remove_file(path).await;
                done(self.at(&node, &path, remove).await)
            }
            Request::RemoveDir { dir, path } => {
                let node = self.handles.dir(dir, Op::RemoveDir)?;
                let remove = async |dir: &D, path: &[u8]| dir.remove_dir(path).await;
                done(self.at(&node, &path, remove).await)
            }
            Request::Symlink { dir, target, path } => {
                let node = self.handles.dir(dir, Op::Symlink)?;
                let link = async |dir: &D, path: &[u8]| dir.symlink(&*target, path).await;
                done(self.at(&node, &path, link).await)
            }
            Request::ReadLink { dir, path } => {
                let node = self.handles.dir(dir, Op::ReadLink)?;
                let read = async |dir: &D, path: &[u8]| dir.read_link(path).await;
                let path = self.at(&node, &path, read).await?;
                Ok(Reply::Target { path: path.into_boxed_slice() })
            }
            Request::Metadata { dir, path, follow } => {
                let node = self.handles.dir(dir, Op::Metadata)?;
                let look = async |dir: &D, path: &[u8]| dir.metadata(path, follow).await;
                Ok(Reply::Facts { facts: self.at(&node, &path, look).await? })
            }
            Request::SetPermissions { dir, path, mode } => {
                let node = self.handles.dir(dir, Op::SetPermissions)?;
                let set = async |dir: &D, path: &[u8]| dir.set_permissions(path, mode).await;
                done(self.at(&node, &path, set).await)
            }
            Request::SetTimes { dir, path, times, follow } => {
                let node = self.handles.dir(dir, Op::SetTimes)?;
                let set = async |dir: &D, path: &[u8]| dir.set_times(path, times, follow).await;
                done(self.at(&node, &path, set).await)
            }
            Request::SyncDir { dir } => done(self.handles.dir(dir, Op::Sync)?.dir.sync().await),
            request => self.answer_file(request).await,
        }
    }

    /// Operations on an open file.
    async fn answer_file(&self, request: Request) -> Result<Reply, Error> {
        let file = |number, op| self.handles.file(number, op);
        match request {
            Request::FileMetadata { file: number } => {
                Ok(Reply::Facts { facts: file(number, Op::Metadata)?.metadata().await? })
            }
            Request::SyncFile { file: number, level } => {
                done(file(number, Op::Sync)?.sync(level).await)
            }
            Request::SetLen { file: number, len } => {
                done(file(number, Op::SetLen)?.set_len(len).await)
            }
            Request::Allocate { file: number, at, len, how } => {
                done(file(number, Op::Allocate)?.allocate(at, len, how).await)
            }
            Request::SetFilePermissions { file: number, mode } => {
                done(file(number, Op::SetPermissions)?.set_permissions(mode).await)
            }
            Request::SetFileTimes { file: number, times } => {
                done(file(number, Op::SetTimes)?.set_times(times).await)
            }
            Request::Lock { file: number, kind, wait: false } => {
                done(file(number, Op::Lock)?.try_lock(kind).await)
            }
            Request::Lock { file: number, kind, wait: true } => {
                done(file(number, Op::Lock)?.lock(kind).await)
            }
            Request::Unlock { file: number } => done(file(number, Op::Lock)?.unlock().await),
            Request::Ping {} => Ok(Reply::Done {}),
            _ => Err(Error::new(Op::Socket, ErrorKind::Unsupported)),
        }
    }

    async fn next_entries(&self, number: u64, entries_max: u32) -> Result<Reply, Error> {
        let place = self.handles.listing(number)?;
        let taken = place.borrow_mut().take();
        // Somebody else reads it at this moment.
        let mut listing = taken.ok_or(Error::new(Op::ReadDir, ErrorKind::Busy))?;
        let (mut found, mut bytes, mut ended) = (Vec::new(), 0, false);
        let result = poll_fn(|cx| {
            while found.len() < entries_max.max(1) as usize && bytes < ENTRIES_BYTES {
                let next = match listing.left.take() {
                    Some(left) => Poll::Ready(Some(left)),
                    None => listing.entries.poll_next(cx),
                };
                match next {
                    Poll::Ready(Some(Ok(entry))) => {
                        bytes += entry.name.len() + 3;
                        found.push(entry);
                    }
                    Poll::Ready(Some(Err(error))) if found.is_empty() => {
                        return Poll::Ready(Err(error));
                    }
                    // Told when those before it have been.
                    Poll::Ready(Some(error)) => {
                        listing.left = Some(error);
                        break;
                    }
                    Poll::Ready(None) => {
                        ended = true;
                        break;
                    }
                    Poll::Pending if found.is_empty() => return Poll::Pending,
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await;
        *place.borrow_mut() = Some(listing);
        result?;
        Ok(Reply::Entries { ended, entries: found })
    }
}

/// No more ranges than a reply has room for: what is beyond is told as failed.
pub(super) fn told(mut failed: Vec<FailedRange>, len: u64) -> Vec<FailedRange> {
    if failed.len() > RANGES_MAX {
        failed.truncate(RANGES_MAX);
        if let Some(last) = failed.last_mut() {
            last.end = len;
        }
    }
    failed
}
