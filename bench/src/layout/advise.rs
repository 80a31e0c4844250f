//! Tells the kernel of an open file what the job is going to do with it.
//!
//! Data flow: job and file -> `posix_fadvise(2)`, `fcntl(2)`.
//!
//! Not here: opening the file (`layout`); engines that open for themselves pass the advice on.

use std::fs::File;

use fio_compat::{FileAdvice, Job, WriteLife};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::ioengine::set_write_hint;

/// Whether the kernel is told that offsets are random; `None` tells it nothing.
pub(crate) fn is_random(job: &Job) -> Option<bool> {
    match job.layout.advice {
        FileAdvice::None => None,
        FileAdvice::Pattern => Some(job.rw.is_random()),
        FileAdvice::Random => Some(true),
        FileAdvice::Sequential => Some(false),
    }
}

/// Gives the page cache its advice. A file system that does not take it reads as it always does.
pub(super) fn access(file: &File, job: &Job) {
    let advice = match is_random(job) {
        None => return,
        Some(true) => PosixFadviseAdvice::POSIX_FADV_RANDOM,
        Some(false) => PosixFadviseAdvice::POSIX_FADV_SEQUENTIAL,
    };
    posix_fadvise(file, 0, 0, advice).ok();
}

/// Tells the file system how long what is written is expected to live.
///
/// # Errors
/// What the file system said.
pub(super) fn life(file: &File, job: &Job) -> nix::Result<()> {
    // The numbers of `RWH_WRITE_LIFE_*`, of which 0 is "nothing was said".
    let number = match job.layout.write_life {
        None => return Ok(()),
        Some(WriteLife::None) => 1,
        Some(WriteLife::Short) => 2,
        Some(WriteLife::Medium) => 3,
        Some(WriteLife::Long) => 4,
        Some(WriteLife::Extreme) => 5,
    };
    if job.rw.writes_data() { set_write_hint(file, number) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ioengine::write_hint;

    #[test]
    fn write_hint_reaches_the_inode_of_a_file_that_is_written() {
        let path = std::env::temp_dir().join(format!("mfio-hint-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let mut job = Job::new("h");
        life(&file, &job).unwrap();
        assert_eq!(write_hint(&file).unwrap(), 0);
        job.layout.write_life = Some(WriteLife::Short);
        life(&file, &job).unwrap();
        assert_eq!(write_hint(&file).unwrap(), 0, "a job that reads says nothing");
        job.rw = fio_compat::Rw::Write;
        let lives = [(WriteLife::None, 1), (WriteLife::Short, 2), (WriteLife::Extreme, 5)];
        for (life_of, number) in lives {
            job.layout.write_life = Some(life_of);
            life(&file, &job).unwrap();
            assert_eq!(write_hint(&file).unwrap(), number);
        }
    }

    #[test]
    fn fadvise_hint_follows_the_pattern_unless_told_otherwise() {
        let mut job = Job::new("a");
        assert_eq!(is_random(&job), Some(false));
        job.rw = fio_compat::Rw::RandRead;
        assert_eq!(is_random(&job), Some(true));
        job.layout.advice = FileAdvice::Sequential;
        assert_eq!(is_random(&job), Some(false));
        job.layout.advice = FileAdvice::None;
        assert_eq!(is_random(&job), None);
    }
}
