//! Where segments come from: a directory of files, or files that somebody else has made.
//!
//! Data flow: [`SegmentStore::existing`] when a log is opened; [`SegmentStore::grow`] ahead of
//! need, as a future that the log polls beside its own work. A segment that is made is written
//! over with zeroes before it gets its name, because a durable write to an extent that was
//! only allocated costs a journal commit as well.
//!
//! Not here: what is in a segment (`format`), which one is next (`commit`).

use std::fs;
use std::future::Future;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use mfio_core::AlignedBuf;

use super::error::WalError;
use crate::error::EngineError;
use crate::ring::Ring;
use crate::shard::{Durability, File, Shard};
use crate::target::{DirectMode, OpenOptions, open};

/// A segment being made.
pub type Growing<R> = Pin<Box<dyn Future<Output = Result<File<R>, WalError>>>>;

/// The files of one log.
pub trait SegmentStore<R: Ring> {
    /// Opens every segment that exists, whatever it holds, in any order. Called once, before
    /// anything else; takes whatever lock keeps others away.
    ///
    /// # Errors
    /// [`WalError::Directory`] or [`WalError::Open`]; nothing was changed.
    fn existing(&mut self, shard: &Shard<R>) -> Result<Vec<File<R>>, WalError>;

    /// Begins to make one more segment of `segment_bytes`, all of it written and durable, also
    /// its name. `None`: there will be no more.
    fn grow(&mut self, shard: &Shard<R>, segment_bytes: u64) -> Option<Growing<R>>;

    /// A number that was never drawn before: the salt of a segment.
    fn draw(&mut self) -> u64;
}

/// How much is written at a time when a segment is made.
const ZEROES_BYTES: usize = 256 << 10;

/// What the names of segments end in.
const SEGMENT_SUFFIX: &str = "segment";

/// What the name of a segment ends in until it is one.
const NEW_SUFFIX: &str = "new";

/// Segments as files of one directory: `00000000.segment`, …. The numbers say nothing of the
/// order, which is written inside. The file `lock` is locked as long as the store lives, and
/// each segment as long as it is open: a killed predecessor's last writes may still be landing
/// while its segments are locked (F46).
#[derive(Debug)]
pub struct SegmentDir {
    path: PathBuf,
    direct: DirectMode,
    lock: Option<fs::File>,
    next_name: u32,
}

impl SegmentDir {
    /// The directory `path`, which is made when the log is opened, with segments that bypass
    /// the page cache where the file system can.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), direct: DirectMode::PreferDirect, lock: None, next_name: 0 }
    }

    /// Sets whether transfers bypass the page cache.
    #[must_use]
    pub fn direct(self, direct: DirectMode) -> Self {
        Self { direct, ..self }
    }

    fn options(&self) -> OpenOptions {
        OpenOptions::new().write(true).direct(self.direct)
    }

    /// Makes the directory, and those above it, where there are none, and their names durable
    /// (F39): also of one that is there, whose maker may have been killed before it was.
    fn make(path: &Path) -> Result<(), WalError> {
        let failed = |error| WalError::directory(path, error);
        let Some(above) = path.parent() else { return Ok(()) };
        let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
        let is_new = !path.is_dir();
        if is_new {
            Self::make(above)?;
            fs::create_dir_all(path).map_err(failed)?;
        }
        match fs::File::open(above) {
            Ok(above) => above.sync_all().map_err(failed),
            // Somebody else made it here, and answers for it.
            Err(error) if !is_new && error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Names of segments, and of what was to become one.
    fn names(&self) -> Result<(Vec<u32>, Vec<PathBuf>), WalError> {
        let failed = |error| WalError::directory(&self.path, error);
        let (mut segments, mut unfinished) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
            match (number, path.extension().and_then(|suffix| suffix.to_str())) {
                (Some(number), Some(SEGMENT_SUFFIX)) => segments.push(number),
                (Some(_), Some(NEW_SUFFIX)) => unfinished.push(path),
                _ => {}
            }
        }
        segments.sort_unstable();
        Ok((segments, unfinished))
    }

    fn path_of(&self, number: u32, suffix: &str) -> PathBuf {
        self.path.join(format!("{number:08}.{suffix}"))
    }
}

impl<R: Ring + 'static> SegmentStore<R> for SegmentDir {
    fn existing(&mut self, shard: &Shard<R>) -> Result<Vec<File<R>>, WalError> {
        Self::make(&self.path)?;
        let lock = OpenOptions::new().write(true).create(true);
        let lock = open(&self.path.join("lock"), &lock);
        self.lock = Some(lock.map_err(|error| WalError::directory(&self.path, error))?.file);
        let (segments, unfinished) = self.names()?;
        for path in unfinished {
            fs::remove_file(&path).map_err(|error| WalError::directory(&path, error))?;
        }
        // Of a segment that has its name, but not durably: its maker was killed in between.
        let folder = fs::File::open(&self.path).and_then(|folder| folder.sync_all());
        folder.map_err(|error| WalError::directory(&self.path, error))?;
        self.next_name = segments.last().map_or(0, |last| last + 1);
        let mut files = Vec::with_capacity(segments.len());
        for number in segments {
            let path = self.path_of(number, SEGMENT_SUFFIX);
            let file = shard.open(&path, &self.options());
            files.push(file.map_err(|error| WalError::of_engine(&path, error))?);
        }
        Ok(files)
    }

    fn grow(&mut self, shard: &Shard<R>, segment_bytes: u64) -> Option<Growing<R>> {
        let number = self.next_name;
        self.next_name += 1;
        let unfinished = self.path_of(number, NEW_SUFFIX);
        let path = self.path_of(number, SEGMENT_SUFFIX);
        let (shard, options) = (shard.clone(), self.options());
        Some(Box::pin(async move {
            let made = make_segment(&shard, &options, &unfinished, &path, segment_bytes).await;
            if made.is_err() {
                // It may not even exist; what is left over is removed by the next open.
                let _gone = fs::remove_file(&unfinished);
            }
            made
        }))
    }

    fn draw(&mut self) -> u64 {
        RandomState::new().build_hasher().finish()
    }
}

/// Makes one segment: allocated, written, durable, named, and the name durable. Only making
/// the empty file and renaming it are calls that block.
async fn make_segment<R: Ring>(
    shard: &Shard<R>,
    options: &OpenOptions,
    unfinished: &Path,
    path: &Path,
    segment_bytes: u64,
) -> Result<File<R>, WalError> {
    let failed = |error| WalError::directory(unfinished, error);
    let of_engine = |error: EngineError| WalError::of_engine(unfinished, error);
    let empty = fs::File::create(unfinished).map_err(failed)?;
    allocate(&empty, segment_bytes).map_err(failed)?;
    drop(empty);
    let file = shard.open(unfinished, options).map_err(of_engine)?;
    let mut zeroes = AlignedBuf::new(ZEROES_BYTES, 4096);
    let mut at = 0;
    while at < segment_bytes {
        let left = usize::try_from(segment_bytes - at).unwrap_or(usize::MAX);
        if left < ZEROES_BYTES {
            zeroes = AlignedBuf::new(left, 4096);
        }
        let written;
        (written, zeroes) = file.write_all_at(at, zeroes).await;
        written.map_err(WalError::open)?;
        at += zeroes.len() as u64;
    }
    file.sync(Durability::Full).await.map_err(WalError::open)?;
    fs::rename(unfinished, path).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let folder_file = fs::File::open(folder).map_err(failed)?;
    // A directory is flushed like a file (F39), and so by the ring.
    let folder = shard.adopt(&folder.display().to_string(), folder_file, file.geometry());
    folder.sync(Durability::Full).await.map_err(WalError::open)?;
    Ok(file)
}

/// Claims the space at once, so that a full file system says so here and the file is in few
/// pieces; where the file system cannot, writing claims it.
fn allocate(file: &fs::File, bytes: u64) -> std::io::Result<()> {
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};
    let len = i64::try_from(bytes).map_err(|_| std::io::ErrorKind::InvalidInput)?;
    match fallocate(file, FallocateFlags::empty(), 0, len) {
        Ok(()) => Ok(()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => file.set_len(bytes),
        Err(errno) => Err(errno.into()),
    }
}

/// Segments that somebody else has made and keeps others away from: files of a simulated
/// device, or one file each on a system of the caller's own. There are never more of them.
#[derive(Debug)]
pub struct PremadeSegments<R: Ring> {
    files: Vec<File<R>>,
    salt: u64,
}

impl<R: Ring> PremadeSegments<R> {
    /// These files. `salt` must be another one each time the log is opened.
    #[must_use]
    pub fn new(files: Vec<File<R>>, salt: u64) -> Self {
        Self { files, salt }
    }
}

impl<R: Ring> SegmentStore<R> for PremadeSegments<R> {
    fn existing(&mut self, _shard: &Shard<R>) -> Result<Vec<File<R>>, WalError> {
        Ok(std::mem::take(&mut self.files))
    }

    fn grow(&mut self, _shard: &Shard<R>, _segment_bytes: u64) -> Option<Growing<R>> {
        None
    }

    fn draw(&mut self) -> u64 {
        // The increment and the finish of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
        self.salt = self.salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.salt;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
