//! Names by the ring: the calls that threads would make, to the flag, as ops.
//!
//! Data flow: path → [`NameOp`] → the shard → answer. In a directory that is confined, the part
//! of the path that leads to the name is opened first, so that nothing leads out, and the rest is
//! one name: by ops with their own `RESOLVE_BENEATH`, or of a kind that follows nothing.
//!
//! Whatever the ring does not take, or has not done, is for threads: [`Miss::Threads`].
//!
//! Not here: the traits (`dir`, `file`), what flags there are ([`mfio_rt::portable::asked`]).

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mfio_rt::portable::asked::{DIRECTORY_FLAGS, RESOLVE_BENEATH, WALKS_MAX};
use mfio_rt::portable::asked::{open_flags, path_flags, place_of};
use mfio_rt::portable::{PortableDir, error_of};
use mfio_rt::{Error, Follow, Metadata, Op, OpenOptions};
use nix::errno::Errno;

use crate::ring::{NameAnswer, NameEnd, NameKind, NameOp, Place, Ring};
use crate::shard::Shard;

/// Why the ring has not done it.
pub(super) enum Miss {
    /// It does not take it; nothing was done.
    Threads,
    /// The system says no.
    Failed(io::Error),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Miss {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno.into())
    }
}

/// What the ring says of `op` on `path`; `None` where threads are to be asked.
pub(super) fn told<T>(tried: Result<T, Miss>, op: Op, path: &[u8]) -> Option<Result<T, Error>> {
    match tried {
        Ok(done) => Some(Ok(done)),
        Err(Miss::Threads) => None,
        Err(Miss::Failed(error)) => Some(Err(error_of(op, &error).at(path))),
    }
}

/// Has `op` done by the ring, again where the kernel asks for that.
async fn ask<R: Ring>(
    shard: &Shard<R>,
    kind: NameKind,
    mut op: NameOp,
) -> Result<NameAnswer, Miss> {
    let mut refusal = Errno::EAGAIN;
    for _ in 0..WALKS_MAX {
        if !shard.takes_names(kind) {
            return Err(Miss::Threads);
        }
        let NameEnd { op: same, result } = shard.name(op).await;
        refusal = match result {
            Ok(answer) => return Ok(answer),
            // The shard is closing, or the kernel has no worker left (F30): it was not done.
            Err(Errno::ECANCELED) => return Err(Miss::Threads),
            Err(Errno::EINTR) => Errno::EINTR,
            // Something was renamed while the kernel walked.
            Err(Errno::EAGAIN) if matches!(same, NameOp::Open { resolve: 1.., .. }) => {
                Errno::EAGAIN
            }
            Err(errno) => return Err(errno.into()),
        };
        op = same;
    }
    Err(refusal.into())
}

/// As [`ask`], of an op that opens.
async fn ask_open<R: Ring>(shard: &Shard<R>, op: NameOp) -> Result<OwnedFd, Miss> {
    match ask(shard, NameKind::Open, op).await? {
        NameAnswer::Opened(opened) => Ok(opened),
        _ => Err(Errno::EIO.into()),
    }
}

/// As [`ask`], of an op that looks.
async fn ask_look<R: Ring>(shard: &Shard<R>, place: Place, flags: i32) -> Result<Metadata, Miss> {
    // As `fstatat(2)`, which mounts nothing.
    let flags = flags | libc::AT_NO_AUTOMOUNT;
    match ask(shard, NameKind::Look, NameOp::Look { place, flags }).await? {
        NameAnswer::Facts(metadata) => Ok(metadata),
        _ => Err(Errno::EIO.into()),
    }
}

/// Facts about what is open.
pub(super) async fn look_at<R: Ring>(shard: &Shard<R>, open: OwnedFd) -> Result<Metadata, Miss> {
    let place = Place { dir: Arc::new(open), path: CString::default() };
    ask_look(shard, place, libc::AT_EMPTY_PATH).await
}

/// A path for the kernel. Threads say what is wrong with one that it cannot be given.
fn terminated(path: &[u8]) -> Result<CString, Miss> {
    CString::new(path).map_err(|_| Miss::Threads)
}

/// The second path of an op: as an op, unlike as a call, it is looked at before anything is
/// looked up by the first, so that of two errors the other one would be told.
fn second(path: &[u8]) -> Result<&[u8], Miss> {
    let usual = 1..libc::PATH_MAX.cast_unsigned() as usize;
    if usual.contains(&path.len()) { Ok(path) } else { Err(Miss::Threads) }
}

/// A directory, and the shard whose ring is asked.
pub(super) struct RingDir<'a, R: Ring> {
    pub(super) shard: &'a Shard<R>,
    pub(super) dir: &'a PortableDir,
}

impl<R: Ring> RingDir<'_, R> {
    fn here(&self, path: &[u8]) -> Result<Place, Miss> {
        Ok(Place { dir: self.dir.descriptor(), path: terminated(path)? })
    }

    /// Opens a path, within the confinement if there is one.
    async fn open(&self, path: &[u8], flags: i32, mode: u32) -> Result<OwnedFd, Miss> {
        let resolve = if self.dir.is_confined() { RESOLVE_BENEATH } else { 0 };
        let op = NameOp::Open { place: self.here(path)?, flags, mode, resolve };
        ask_open(self.shard, op).await
    }

    /// The last component of `path`, in what it is looked for.
    async fn place(&self, path: &[u8]) -> Result<Place, Miss> {
        let (dir, last) = place_of(path, self.dir.is_confined())?;
        let Some(dir) = dir else { return self.here(last) };
        let last = terminated(last)?;
        let dir = self.open(dir, path_flags(true), 0).await?;
        Ok(Place { dir: Arc::new(dir), path: last })
    }

    async fn done(&self, kind: NameKind, op: NameOp) -> Result<(), Miss> {
        ask(self.shard, kind, op).await.map(drop)
    }

    pub(super) async fn open_file(
        &self,
        path: &[u8],
        options: &OpenOptions,
        flags: i32,
    ) -> Result<File, Miss> {
        let creates = options.create || options.create_new;
        let mode = if creates { options.mode & 0o7777 } else { 0 };
        let file = File::from(self.open(path, flags, mode).await?);
        // A directory can be opened for reading, and then not be read.
        if file.metadata()?.is_dir() {
            return Err(Errno::EISDIR.into());
        }
        Ok(file)
    }

    pub(super) async fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, Miss> {
        self.open(path, DIRECTORY_FLAGS, 0).await
    }

    /// This directory once more, opened in such a way that a kernel which cannot confine says so.
    pub(super) async fn confined(&self) -> Result<OwnedFd, Miss> {
        let (place, flags) = (self.here(b".")?, DIRECTORY_FLAGS);
        let op = NameOp::Open { place, flags, mode: 0, resolve: RESOLVE_BENEATH };
        ask_open(self.shard, op).await
    }

    pub(super) async fn create_dir(&self, path: &[u8], mode: u32) -> Result<(), Miss> {
        let (place, mode) = (self.place(path).await?, mode & 0o7777);
        self.done(NameKind::MakeDir, NameOp::MakeDir { place, mode }).await
    }

    pub(super) async fn remove(&self, path: &[u8], flags: i32) -> Result<(), Miss> {
        let place = self.place(path).await?;
        self.done(NameKind::Remove, NameOp::Remove { place, flags }).await
    }

    pub(super) async fn rename(&self, path: &[u8], to: &Self, to_path: &[u8]) -> Result<(), Miss> {
        let to_path = second(to_path)?;
        let (from, to) = (self.place(path).await?, to.place(to_path).await?);
        self.done(NameKind::Rename, NameOp::Rename { from, to }).await
    }

    pub(super) async fn hard_link(
        &self,
        path: &[u8],
        to: &Self,
        to_path: &[u8],
    ) -> Result<(), Miss> {
        if self.dir.is_confined() {
            // The op below would look behind a last `..`.
            drop(self.open(path, path_flags(false), 0).await?);
        }
        let to_path = second(to_path)?;
        let (from, to) = (self.place(path).await?, to.place(to_path).await?);
        self.done(NameKind::Link, NameOp::Link { from, to }).await
    }

    pub(super) async fn symlink(&self, target: &[u8], path: &[u8]) -> Result<(), Miss> {
        let target = terminated(target)?;
        if target.is_empty() {
            return Err(Errno::ENOENT.into());
        }
        let place = self.place(path).await?;
        self.done(NameKind::Symlink, NameOp::Symlink { target, place }).await
    }

    pub(super) async fn metadata(&self, path: &[u8], follow: Follow) -> Result<Metadata, Miss> {
        let follow = follow == Follow::Yes;
        if self.dir.is_confined() {
            return look_at(self.shard, self.open(path, path_flags(follow), 0).await?).await;
        }
        let flags = if follow { 0 } else { libc::AT_SYMLINK_NOFOLLOW };
        ask_look(self.shard, self.here(path)?, flags).await
    }

    pub(super) async fn sync(&self) -> Result<(), Miss> {
        let dir = self.dir.descriptor();
        self.done(NameKind::Sync, NameOp::Sync { dir }).await
    }
}

/// The flags of an open, or what is wrong with the options.
pub(super) fn flags_of(path: &[u8], options: &OpenOptions) -> Result<i32, Error> {
    open_flags(options).map_err(|error| error.at(path))
}
