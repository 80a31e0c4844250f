//! Why a job failed: an errno for the report and a sentence for the person.
//!
//! Not here: complaints before the start (`plan`), how failures are counted (`main`).

use std::io;
use std::path::PathBuf;

use fio_compat::report::{EILSEQ, JobFailure};
use nix::errno::Errno;
use nix::libc;

use crate::ioengine::{Io, Operation};

/// The first failure of a job.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    errno: i32,
    io: Option<Io>,
    text: Option<String>,
}

impl Failure {
    /// An I/O was answered with this (positive) errno, or with 0: the file ended.
    pub(crate) fn io(io: Io, errno: i32) -> Self {
        Self { errno: if errno == 0 { libc::EIO } else { errno }, io: Some(io), text: None }
    }

    /// The engine itself broke.
    pub(crate) fn engine(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { errno, io: None, text: Some(error.to_string()) }
    }

    /// Data was not what it should be.
    pub(crate) fn verify() -> Self {
        Self { errno: EILSEQ, io: None, text: None }
    }

    /// The job was slower than it has to be.
    pub(crate) fn slow() -> Self {
        let text = "the job was below its rate_min (or rate_iops_min) for a rate_cycle";
        Self { errno: libc::EIO, io: None, text: Some(text.to_owned()) }
    }

    /// What goes into the report.
    pub(crate) fn report(&self) -> JobFailure {
        JobFailure::new(self.errno, Errno::from_raw(self.errno).desc())
    }

    /// fio's line for an I/O that failed; `None` where other lines say it already.
    pub(crate) fn line(&self, paths: &[PathBuf]) -> Option<String> {
        if let Some(text) = &self.text {
            return Some(format!("mfio-bench: the job failed: {text}"));
        }
        let io = self.io?;
        let path = paths.get(io.file as usize).map(|path| path.display().to_string());
        let what = match io.operation {
            Operation::Read => "read",
            Operation::Write => "write",
            Operation::Trim => "trim",
            Operation::Fsync | Operation::Fdatasync | Operation::SyncRange | Operation::SyncFs => {
                "sync"
            }
        };
        Some(format!(
            "fio: io_u error on file {}: {}: {what} offset={}, buflen={}",
            path.unwrap_or_default(),
            Errno::from_raw(self.errno).desc(),
            io.offset_bytes,
            io.len_bytes,
        ))
    }
}
