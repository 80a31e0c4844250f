//! Makes one file: its directories, its space, its contents.
//!
//! Data flow: path, lengths and the job's `Layout` -> `fallocate(2)` or its like -> random data
//! where the job reads -> `fsync(2)`.
//!
//! Not here: which files lack something (`layout`), opening them for the job (`layout`).

use std::fs::{File, OpenOptions, create_dir_all};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use fio_compat::{Fallocate, Layout};
use nix::fcntl::{FallocateFlags, fallocate, posix_fallocate};
use nix::libc;

use crate::random::Random;

const CHUNK_BYTES: usize = 1 << 20;

/// What a file is to become.
pub(super) struct Wanted<'a> {
    pub(super) path: &'a Path,
    /// Its length at present, and the length it needs.
    pub(super) from: u64,
    pub(super) needed: u64,
    /// Whether it is filled with data.
    pub(super) filled: bool,
    pub(super) layout: &'a Layout,
}

/// The missing directories of `path`.
pub(super) fn directories(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => create_dir_all(parent),
        None => Ok(()),
    }
}

impl Wanted<'_> {
    /// Makes or extends the file.
    ///
    /// # Errors
    /// What the system refused, and `EINTR` after a signal.
    pub(super) fn make(&self, signal: &AtomicUsize) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(self.path)?;
        self.allocate(&file)?;
        if !self.filled {
            return Ok(());
        }
        self.fill(&file, signal)?;
        if self.layout.create_fsync { file.sync_all() } else { Ok(()) }
    }

    /// Space for the file. One that is filled gets its length by being filled, so that whoever
    /// is killed meanwhile leaves no file behind that looks whole.
    fn allocate(&self, file: &File) -> io::Result<()> {
        let too_long = |_| io::Error::from_raw_os_error(libc::EFBIG);
        let from = i64::try_from(self.from).map_err(too_long)?;
        let len = i64::try_from(self.needed.saturating_sub(self.from)).map_err(too_long)?;
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        if len == 0 {
            return Ok(());
        }
        match (self.layout.fallocate, self.filled) {
            (Fallocate::None, _) | (Fallocate::Truncate, true) => Ok(()),
            (Fallocate::Truncate, false) => file.set_len(self.needed),
            (Fallocate::Native, true) => {
                // It is a favour to the file system, which may decline.
                fallocate(file, keep, from, len).ok();
                Ok(())
            }
            (Fallocate::Native, false) => fallocate(file, FallocateFlags::empty(), from, len)
                .or_else(|_| file.set_len(self.needed)),
            (Fallocate::Posix, false) => Ok(posix_fallocate(file, from, len)?),
            (Fallocate::Posix, true) | (Fallocate::Keep, _) => {
                Ok(fallocate(file, keep, from, len)?)
            }
        }
    }

    fn fill(&self, file: &File, signal: &AtomicUsize) -> io::Result<()> {
        let mut random = Random::new(self.from ^ 0x6d66_696f);
        let mut chunk = vec![0_u8; CHUNK_BYTES];
        let mut at = self.from;
        while at < self.needed {
            if signal.load(Ordering::Relaxed) != 0 {
                return Err(io::Error::from_raw_os_error(libc::EINTR));
            }
            for word in chunk.chunks_exact_mut(8) {
                word.copy_from_slice(&random.next().to_le_bytes());
            }
            let left = usize::try_from(self.needed - at).unwrap_or(usize::MAX);
            let part = &chunk[..left.min(CHUNK_BYTES)];
            file.write_all_at(part, at)?;
            at += u64::try_from(part.len()).unwrap_or(0);
        }
        Ok(())
    }
}

/// Reads `path` from `start` to `end`, so that it is in the page cache.
///
/// # Errors
/// What the system refused.
pub(super) fn read_through(path: &Path, start: u64, end: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut at = start;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        match file.read_at(&mut chunk[..left.min(CHUNK_BYTES)], at) {
            Ok(0) => break,
            Ok(bytes) => at += u64::try_from(bytes).unwrap_or(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
