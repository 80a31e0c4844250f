//! Operations made of several others, on any directory: whole paths, whole trees, copies.
//!
//! Data flow: one call → many of [`DirHandle`] → one result. None of them recurses: a tree may
//! be deeper than any stack.
//!
//! Not here: the operations they are made of (`fs`).

use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use mfio_core::{IoRead, IoWrite};

use crate::error::{Error, ErrorKind, Op};
use crate::fs::{DirHandle, Entries, FileHandle};
use crate::metadata::FileKind;
use crate::options::{Follow, OpenOptions};

/// Bytes that a copy has under way.
const COPY_BYTES: usize = 1 << 20;
/// Handles that removing a tree holds, at most one more for a moment.
const HANDLES_HELD: usize = 64;
/// As many of them are of the levels nearest above; the others are spread over those beyond.
const NEAR: usize = HANDLES_HELD / 2;

/// What can be done with every [`DirHandle`].
#[allow(async_fn_in_trait, reason = "futures are Send where the implementation is")]
pub trait DirHandleExt: DirHandle {
    /// Makes a directory and all that are missing on the way to it. One that is there already
    /// is as good.
    ///
    /// # Errors
    /// `NotADirectory` where something else is in the way; those of [`DirHandle::create_dir`].
    ///
    /// # Cancel safety
    /// Some of them are made.
    async fn create_dir_all(&self, path: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        let path = path.as_ref();
        if path.is_empty() {
            return Err(Error::new(Op::CreateDir, ErrorKind::NotFound));
        }
        // From the front: what exists is told by the attempt, not by a look beforehand.
        let ends = (1..=path.len())
            .filter(|&at| path[at - 1] != b'/' && path.get(at).is_none_or(|&next| next == b'/'));
        for end in ends {
            match self.create_dir(&path[..end], mode).await {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                done => done?,
            }
        }
        let found = self.metadata(path, Follow::Yes).await?;
        if found.is_dir() {
            return Ok(());
        }
        Err(Error::new(Op::CreateDir, ErrorKind::NotADirectory).at(path))
    }

    /// Removes a directory and everything in it. Symbolic links are removed, not followed.
    ///
    /// # Errors
    /// `NotADirectory`, also for a symbolic link to one; the first of any removal. What
    /// somebody adds meanwhile is `NotEmpty`.
    ///
    /// # Cancel safety
    /// Removed in part.
    async fn remove_dir_all(&self, path: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = path.as_ref();
        if !self.metadata(path, Follow::No).await?.is_dir() {
            return Err(Error::new(Op::RemoveDir, ErrorKind::NotADirectory).at(path));
        }
        // One directory at a time, down or up by one name: the depth costs a name in a list.
        let mut walk = Walk { levels: Vec::new(), stride: 1 };
        let top = self.open_dir(path).await?;
        let below = empty_but_directories(&top).await?;
        walk.levels.push(Level { name: Vec::new(), below, dir: Some(Arc::new(top)) });
        loop {
            match walk.levels.last_mut().and_then(|level| level.below.pop()) {
                Some(name) => {
                    let dir = step(&*walk.reach().await?, &name).await?;
                    let below = empty_but_directories(&dir).await?;
                    walk.push(Level { name, below, dir: Some(Arc::new(dir)) });
                }
                None => match walk.levels.pop() {
                    Some(_) if walk.levels.is_empty() => return self.remove_dir(path).await,
                    Some(emptied) => walk.reach().await?.remove_dir(&emptied.name).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    /// Copies the bytes and permission bits of a file; what is at `to_path` is replaced.
    /// Returns how many bytes. Holes are written as zeros.
    ///
    /// # Errors
    /// Those of opening both; `InvalidInput` where both are the same file; the first of any
    /// read or write.
    ///
    /// # Cancel safety
    /// Copied in part.
    async fn copy(
        &self,
        path: impl AsRef<[u8]>,
        to: &Self,
        to_path: impl AsRef<[u8]>,
    ) -> Result<u64, Error> {
        let (path, to_path) = (path.as_ref(), to_path.as_ref());
        let source = self.open_file(path, &OpenOptions::new().read(true)).await?;
        let found = source.metadata().await?;
        let options = OpenOptions::new().write(true).create(true).mode(found.mode & 0o777);
        let target = to.open_file(to_path, &options).await?;
        let existing = target.metadata().await?;
        if existing.id.is_some() && existing.id == found.id {
            return Err(Error::new(Op::Open, ErrorKind::InvalidInput).at(to_path));
        }
        // Not emptied when opened: it might have been the source.
        target.set_len(0).await?;
        let (mut at, mut buffer) = (0, vec![0; COPY_BYTES]);
        loop {
            let (read, error, mut bytes) = source.read_some(at, buffer).await;
            if let Some(error) = error {
                return Err(Error::of_bytes(Op::Read, error).at(path));
            }
            if read == 0 {
                break;
            }
            bytes.truncate(usize::try_from(read).unwrap_or(COPY_BYTES));
            let (written, mut bytes) = target.write_exact(at, bytes).await;
            written.map_err(|error| Error::of_bytes(Op::Write, error).at(to_path))?;
            at += read;
            bytes.resize(COPY_BYTES, 0);
            buffer = bytes;
        }
        target.set_permissions(found.mode).await?;
        Ok(at)
    }

    /// Whether there is something behind `path`, links followed.
    ///
    /// # Errors
    /// Any but `NotFound` and `NotADirectory`: then it is not known.
    ///
    /// # Cancel safety
    /// Nothing has changed.
    async fn exists(&self, path: impl AsRef<[u8]>) -> Result<bool, Error> {
        match self.metadata(path, Follow::Yes).await {
            Ok(_) => Ok(true),
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl<D: DirHandle> DirHandleExt for D {}

/// A directory on the way down a tree that is being removed.
struct Level<D> {
    /// In the level above.
    name: Vec<u8>,
    /// What is to be emptied in it.
    below: Vec<Vec<u8>>,
    dir: Option<Arc<D>>,
}

/// From the top of a tree to where it is being removed. The top is always held.
struct Walk<D> {
    levels: Vec<Level<D>>,
    /// Of the levels that are not near, those with such a number are held.
    stride: usize,
}

impl<D: DirHandle> Walk<D> {
    fn held(&self) -> usize {
        self.levels.iter().filter(|level| level.dir.is_some()).count()
    }

    /// One level down. Where there are too many handles, every second one beyond those that are
    /// near is given back.
    fn push(&mut self, level: Level<D>) {
        self.levels.push(level);
        let far = self.levels.len().saturating_sub(NEAR);
        let Some(left) = far.checked_sub(1) else { return };
        if left % self.stride != 0 {
            self.levels[left].dir = None;
            return;
        }
        while self.held() > HANDLES_HELD {
            self.stride *= 2;
            let stride = self.stride;
            let dropped = self.levels[..far].iter_mut().enumerate();
            dropped.filter(|(at, _)| at % stride != 0).for_each(|(_, level)| level.dir = None);
        }
    }

    /// The lowest directory. Where its handle was given back, it is walked to from the nearest
    /// one above that is held, because `..` may be forbidden, or have moved. What is passed is
    /// held again as far as there is room: so each level is walked to a few times at most,
    /// however many there are below it.
    async fn reach(&mut self) -> Result<Arc<D>, Error> {
        let lowest = self.levels.len() - 1;
        let known = self.levels.iter().rposition(|level| level.dir.is_some()).unwrap_or(0);
        let room = (HANDLES_HELD.saturating_sub(self.held()) / 2).max(1);
        let apart = (lowest - known).div_ceil(room).max(1);
        let mut at = self.levels[known].dir.clone();
        for number in known + 1..=lowest {
            let above = at.take().ok_or(Error::new(Op::RemoveDir, ErrorKind::BadHandle))?;
            let below = Arc::new(step(&*above, &self.levels[number].name).await?);
            if lowest - number < room || (number - known) % apart == 0 {
                self.levels[number].dir = Some(Arc::clone(&below));
            }
            at = Some(below);
        }
        at.ok_or(Error::new(Op::RemoveDir, ErrorKind::BadHandle))
    }
}

/// Removes what can be removed at once; the names of the directories that are not empty.
async fn empty_but_directories<D: DirHandle>(at: &D) -> Result<Vec<Vec<u8>>, Error> {
    let mut entries = at.read_dir().await?;
    let mut below = Vec::new();
    // Collected first: removing while listing may skip names.
    for entry in entries.collect().await? {
        let is_dir = match entry.kind {
            FileKind::Directory => true,
            FileKind::Unknown => at.metadata(&entry.name, Follow::No).await?.is_dir(),
            _ => false,
        };
        if !is_dir {
            at.remove_file(&entry.name).await?;
            continue;
        }
        match at.remove_dir(&entry.name).await {
            Err(error) if error.kind() == ErrorKind::NotEmpty => below.push(entry.name),
            done => done?,
        }
    }
    Ok(below)
}

/// The directory `name` in `at`, and not what a symbolic link put in its place points to.
async fn step<D: DirHandle>(at: &D, name: &[u8]) -> Result<D, Error> {
    let meant = at.metadata(name, Follow::No).await?;
    let below = at.open_dir(name).await?;
    let opened = below.metadata(".", Follow::No).await?;
    if meant.is_dir() && meant.id == opened.id {
        return Ok(below);
    }
    Err(Error::new(Op::RemoveDir, ErrorKind::NotADirectory).at(name))
}
