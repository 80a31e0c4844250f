//! Refuses to write reports, logs and traces over what the jobs of a run use.
//!
//! Data flow: what is to be written and where, plans -> nothing, or one line.
//!
//! Not here: writing it (`output`, `bandwidth_log`, `run::logs`, `run::record`), what jobs
//! themselves write (`device`).

use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::plan::Plan;

/// Whether a file may be made at `name`, which `what` describes: not on a device, nor where the
/// jobs' data or the traces they follow are or will be.
///
/// # Errors
/// One line.
pub(crate) fn check(what: &str, name: &str, plans: &[Plan]) -> Result<(), String> {
    let path = Path::new(name);
    let facts = path.metadata().ok();
    if facts.as_ref().is_some_and(|facts| facts.file_type().is_block_device()) {
        return Err(format!("{what} is a block device; name a file"));
    }
    let targets = plans.iter().flat_map(|plan| &plan.targets).map(|target| target.path.as_path());
    let read = plans.iter().flat_map(|plan| &plan.job.replay.read).map(Path::new);
    let same = |other: &&Path| match (&facts, other.metadata()) {
        (Some(one), Ok(other)) => (one.dev(), one.ino()) == (other.dev(), other.ino()),
        // Of what is not there yet, only the names can be the same.
        (None, Err(_)) => place(path).is_some_and(|one| Some(one) == place(other)),
        _ => false,
    };
    match targets.chain(read).find(same) {
        None => Ok(()),
        Some(path) => Err(format!(
            "{what} would overwrite {}, which a job uses; name another file",
            path.display()
        )),
    }
}

/// The directory and the name in it.
fn place(path: &Path) -> Option<(PathBuf, &OsStr)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new(".")).canonicalize().ok()?;
    Some((parent, path.file_name()?))
}
