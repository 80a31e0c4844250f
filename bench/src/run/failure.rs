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
    /// A latency was too high: how long the I/O took, and the limit that it broke.
    late_ns: Option<(u64, u64)>,
}

impl Failure {
    /// An I/O was answered with this (positive) errno, or with 0: the file ended.
    pub(crate) fn io(io: Io, errno: i32) -> Self {
        let errno = if errno == 0 { libc::EIO } else { errno };
        Self { errno, io: Some(io), text: None, late_ns: None }
    }

    /// The engine itself broke.
    pub(crate) fn engine(error: &io::Error) -> Self {
        let errno = error.raw_os_error().unwrap_or(libc::EIO);
        Self { errno, io: None, text: Some(error.to_string()), late_ns: None }
    }

    /// Data was not what it should be.
    pub(crate) fn verify() -> Self {
        Self { errno: EILSEQ, io: None, text: None, late_ns: None }
    }

    /// The job was slower than it has to be.
    pub(crate) fn slow() -> Self {
        let text = "the job was below its rate_min (or rate_iops_min) for a rate_cycle";
        Self { errno: libc::EIO, io: None, text: Some(text.to_owned()), late_ns: None }
    }

    /// An I/O took longer than `max_latency`.
    pub(crate) fn late(io: Io, took_ns: u64, most_ns: u64) -> Self {
        let late_ns = Some((took_ns, most_ns));
        Self { errno: libc::ETIMEDOUT, io: Some(io), text: None, late_ns }
    }

    /// No depth keeps the latency that the job is to keep.
    pub(crate) fn hopeless(text: String) -> Self {
        Self { errno: libc::ETIMEDOUT, io: None, text: Some(text), late_ns: Some((0, 0)) }
    }

    /// What goes into the report.
    pub(crate) fn report(&self) -> JobFailure {
        // "Connection timed out" is what the system has to say about these.
        let text = Errno::from_raw(self.errno).desc();
        JobFailure::new(
            self.errno,
            if self.late_ns.is_some() { "max latency exceeded" } else { text },
        )
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
        if let Some((took_ns, most_ns)) = self.late_ns {
            // What a short transfer had moved before belongs to the I/O.
            let skipped = io.skip_bytes;
            return Some(format!(
                "fio: latency of {took_ns} nsec exceeds specified max ({most_ns} nsec): {} {what} \
                 offset={}, buflen={}",
                path.unwrap_or_default(),
                io.offset_bytes - u64::from(skipped),
                io.len_bytes + skipped,
            ));
        }
        Some(format!(
            "fio: io_u error on file {}: {}: {what} offset={}, buflen={}",
            path.unwrap_or_default(),
            Errno::from_raw(self.errno).desc(),
            io.offset_bytes,
            io.len_bytes,
        ))
    }
}
