//! Makes the files a plan needs, and takes back what must not stay.
//!
//! Data flow: targets -> missing or short files filled with random data and made durable ->
//! open files in the job's mode. Every file this run created is known to [`Created`].
//!
//! Not here: whether a file may be created (`plan`).

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use fio_compat::SyncIo;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

use crate::plan::{Kind, Plan, Target, reason};
use crate::random::Random;

const CHUNK_BYTES: usize = 1 << 20;

/// Files that are removed when this is dropped, however the run ends.
#[derive(Debug, Default)]
pub(crate) struct Created {
    remove: Vec<PathBuf>,
}

impl Created {
    /// Removes the target at the end, unless it is a device.
    pub(crate) fn removes(&mut self, target: &Target) {
        if matches!(target.kind, Kind::Missing | Kind::Regular { .. }) {
            self.remove.push(target.path.clone());
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        for path in &self.remove {
            // Already gone is as good; anything else has nobody left to be told.
            drop(remove_file(path));
        }
    }
}

/// The targets that are not long enough at this moment.
fn lacking(plan: &Plan) -> impl Iterator<Item = &Target> {
    plan.targets.iter().filter(|target| {
        let usable = matches!(target.kind, Kind::Missing | Kind::Regular { .. });
        // A file that fills its file system has no length to be given.
        let filling = plan.job.workload.fill_device && target.path.exists();
        let present = || target.path.metadata().map_or(0, |facts| facts.len());
        usable && !filling && present() < target.needed_bytes()
    })
}

/// How many files a layout would write, and their bytes; `None` when everything is there.
pub(crate) fn outstanding(plan: &Plan) -> Option<(u64, u64)> {
    if plan.job.workload.fill_device {
        return None;
    }
    let count = u64::try_from(lacking(plan).count()).unwrap_or(0);
    let bytes = lacking(plan).map(Target::needed_bytes).sum();
    (count > 0).then_some((count, bytes))
}

/// Creates or extends the plan's files. Jobs that read find random data, as with fio; files
/// that are only written are given their length and stay sparse unless `filled`.
///
/// # Errors
/// One line. A file that this call created is removed again.
pub(crate) fn prepare(plan: &Plan, filled: bool, signal: &AtomicUsize) -> Result<(), String> {
    for target in lacking(plan) {
        let present = target.path.metadata().ok().map(|facts| facts.len());
        let filled = filled || plan.job.rw.reads();
        if plan.job.workload.fill_device {
            let made = File::create(&target.path).map(drop);
            let shown = target.path.display();
            made.map_err(|error| format!("cannot create {shown}: {}", reason(&error)))?;
            continue;
        }
        if let Err(error) = lay_out(target, present.unwrap_or(0), filled, signal) {
            if present.is_none() {
                drop(remove_file(&target.path));
            }
            let shown = target.path.display();
            return Err(format!("cannot lay out {shown}: {}", reason(&error)));
        }
    }
    Ok(())
}

fn lay_out(target: &Target, from: u64, filled: bool, signal: &AtomicUsize) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&target.path)?;
    if !filled {
        return file.set_len(target.needed_bytes());
    }
    let mut random = Random::new(from ^ 0x6d66_696f);
    let mut chunk = vec![0_u8; CHUNK_BYTES];
    let mut at = from;
    while at < target.needed_bytes() {
        if signal.load(Ordering::Relaxed) != 0 {
            return Err(io::Error::from_raw_os_error(libc::EINTR));
        }
        for word in chunk.chunks_exact_mut(8) {
            word.copy_from_slice(&random.next().to_le_bytes());
        }
        let left = usize::try_from(target.needed_bytes() - at).unwrap_or(usize::MAX);
        let part = &chunk[..left.min(CHUNK_BYTES)];
        file.write_all_at(part, at)?;
        at += u64::try_from(part.len()).unwrap_or(0);
    }
    file.sync_all()
}

/// Opens the plan's files as the job wants them, page cache dropped if it asks for that.
///
/// # Errors
/// One line; for a refused `O_DIRECT` it names the remedy.
pub(crate) fn open(plan: &Plan) -> Result<Vec<File>, String> {
    let job = &plan.job;
    let used = plan.targets.iter().filter(|target| target.kind != Kind::Unused);
    let mut files = Vec::new();
    for target in used {
        let reads = job.rw.reads() || job.verify != fio_compat::Verify::None;
        // A namespace is past the page cache in any case, and knows no O_DIRECT.
        let direct = job.direct && !matches!(target.kind, Kind::Namespace { .. });
        let file = open_one(&target.path, (reads, job.rw.writes()), flags(job, direct))
            .map_err(|error| cannot_open(&target.path, job.direct, &error))?;
        if job.invalidate && !job.direct {
            forget_cached(&file);
        }
        files.push(file);
    }
    Ok(files)
}

/// Drops what the page cache holds of `file` and need not write first.
pub(crate) fn forget_cached(file: &File) {
    // Advice: a file system that does not take it simply stays warm.
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).ok();
}

/// What `direct` and `sync` ask of an open file.
fn flags(job: &fio_compat::Job, direct: bool) -> i32 {
    let through = match job.durability.sync {
        SyncIo::None => 0,
        SyncIo::Sync => libc::O_SYNC,
        SyncIo::Dsync => libc::O_DSYNC,
    };
    through | if direct { libc::O_DIRECT } else { 0 }
}

fn open_one(path: &Path, (reads, writes): (bool, bool), flags: i32) -> io::Result<File> {
    OpenOptions::new().read(reads).write(writes).custom_flags(flags).open(path)
}

fn cannot_open(path: &Path, direct: bool, error: &io::Error) -> String {
    let shown = path.display();
    if direct && error.raw_os_error() == Some(libc::EINVAL) {
        return no_direct(path);
    }
    format!("cannot open {shown}: {}", reason(error))
}

/// Whether files in `directory` can be opened with `O_DIRECT`, tried on an unnamed file. Only
/// `EINVAL` is a refusal; whatever else goes wrong says nothing about `O_DIRECT`.
pub(crate) fn direct_works(directory: &Path) -> bool {
    let flags = libc::O_TMPFILE | libc::O_DIRECT;
    let tried = OpenOptions::new().read(true).write(true).custom_flags(flags).open(directory);
    tried.err().and_then(|error| error.raw_os_error()) != Some(libc::EINVAL)
}

/// Whether the file at `path` can be opened with `O_DIRECT`; as [`direct_works`].
pub(crate) fn direct_works_on(path: &Path) -> bool {
    let tried = OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    tried.err().and_then(|error| error.raw_os_error()) != Some(libc::EINVAL)
}

/// The line about a refused `O_DIRECT`.
pub(crate) fn no_direct(path: &Path) -> String {
    format!("{}: this file system does not support direct=1; use direct=0", path.display())
}
