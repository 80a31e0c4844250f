//! Makes the files a plan needs, and takes back what must not stay.
//!
//! Data flow: targets -> missing or short files made (`create`) -> open files in the job's mode,
//! with advice for the kernel (`advise`). Every file this run created is known to [`Created`].
//!
//! Not here: whether a file may be created (`plan`).

mod advise;
mod create;

use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use fio_compat::{Fallocate, SyncIo};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::libc;

use crate::advice::with_remedy;
use crate::plan::{Kind, Plan, Target};
use create::Wanted;

pub(crate) use advise::is_random;

/// Files that are removed when this is dropped, however the run ends.
#[derive(Debug, Default)]
pub(crate) struct Created {
    remove: Vec<PathBuf>,
}

impl Created {
    /// Removes the target at the end, unless it is a device.
    pub(crate) fn removes(&mut self, target: &Target) {
        if target.is_a_file() {
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
        // A file that fills its file system has no length to be given.
        let filling = plan.job.workload.fill_device && target.path.exists();
        let present = || target.path.metadata().map_or(0, |facts| facts.len());
        let laid_out = !filling && !plan.job.layout.create_on_open;
        target.is_a_file() && laid_out && present() < target.needed_bytes()
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
/// that are only written are given their space as `fallocate` says, unless `filled`.
///
/// # Errors
/// One line. A file that this call created is removed again.
pub(crate) fn prepare(plan: &Plan, filled: bool, signal: &AtomicUsize) -> Result<(), String> {
    for target in lacking(plan) {
        let present = target.path.metadata().ok().map(|facts| facts.len());
        let filled = filled || plan.job.rw.reads() || plan.job.layout.overwrite;
        let shown = target.path.display();
        make_directories(plan, target)?;
        if plan.job.workload.fill_device {
            let made = File::create(&target.path).map(drop);
            made.map_err(|error| format!("cannot create {shown}: {}", with_remedy(&error)))?;
            continue;
        }
        let (path, from) = (target.path.as_path(), present.unwrap_or(0));
        let (needed, layout) = (target.needed_bytes(), &plan.job.layout);
        let wanted = Wanted { path, from, needed, filled, layout };
        if let Err(error) = wanted.make(signal) {
            if present.is_none() {
                drop(remove_file(&target.path));
            }
            let what = match layout.fallocate {
                _ if error.kind() == io::ErrorKind::StorageFull => "",
                Fallocate::Native | Fallocate::None | Fallocate::Truncate => "",
                _ => " (fallocate=native and none go without)",
            };
            return Err(format!("cannot lay out {shown}: {}{what}", with_remedy(&error)));
        }
    }
    Ok(())
}

/// Directories in a name that was made of `filename_format` are made with the file.
fn make_directories(plan: &Plan, target: &Target) -> Result<(), String> {
    if plan.job.workload.filename_format.is_none() || !target.is_a_file() {
        return Ok(());
    }
    let shown = target.path.display();
    create::directories(&target.path)
        .map_err(|error| format!("cannot make the directories of {shown}: {}", with_remedy(&error)))
}

/// `pre_read`: reads what the job is going to read, so that it finds it in the page cache.
///
/// # Errors
/// What the system refused.
pub(crate) fn pre_read(plan: &Plan) -> io::Result<()> {
    let used = plan.targets.iter().filter(|target| target.kind != Kind::Unused);
    for target in used.filter(|_| plan.job.layout.pre_read) {
        let region = target.region;
        create::read_through(&target.path, region.start_bytes, target.needed_bytes())?;
    }
    Ok(())
}

/// `unlink_each_loop`: deletes the files of the plan, whose contents live on as long as they
/// are open.
pub(crate) fn unlink(plan: &Plan) {
    for target in plan.targets.iter().filter(|target| target.is_a_file()) {
        // Another clone may have deleted it already.
        drop(remove_file(&target.path));
    }
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
        let makes = made_at_open(plan, target);
        if makes {
            make_directories(plan, target)?;
        }
        let flags = flags(job, direct) | if makes { libc::O_CREAT } else { 0 };
        let file = open_one(&target.path, (reads, job.rw.writes()), flags)
            .map_err(|error| cannot_open(&target.path, job.direct, &error))?;
        if job.invalidate && !job.direct && !job.layout.pre_read {
            forget_cached(&file);
        }
        advise::access(&file, job);
        advise::life(&file, job).map_err(|errno| {
            let shown = target.path.display();
            format!("{shown} takes no write_hint: {}; remove write_hint", errno.desc())
        })?;
        files.push(file);
    }
    Ok(files)
}

/// Whether the file is made by being opened: because it was asked for, or because the loop
/// before has deleted it.
fn made_at_open(plan: &Plan, target: &Target) -> bool {
    let layout = &plan.job.layout;
    let wanted = layout.create_on_open || layout.unlink_each_loop;
    wanted && target.is_a_file() && plan.job.allow_file_create
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
    format!("cannot open {shown}: {}", with_remedy(error))
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
