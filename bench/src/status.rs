//! Reports of the results so far: when one is due, and what it says.
//!
//! Data flow: `--status-interval`, SIGUSR1 or a file in the temporary directory -> due -> live
//! results -> the texts of a report.
//!
//! Not here: collecting live results (`run::conductor`).

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fio_compat::Invocation;

use crate::disk::Disks;
use crate::report::{Frame, rendered, status_report};
use crate::run::Live;

/// The file by which fio is asked for a report; it is removed when it was seen.
const FILE: &str = "fio-dump-status";

/// How often that file is looked for.
const LOOK_NS: u64 = 250_000_000;

/// When reports are due, and their contents.
pub(crate) struct Status<'a> {
    invocation: &'a Invocation,
    disks: &'a Disks,
    asked: Arc<AtomicBool>,
    begun_unix_ms: u64,
    file: PathBuf,
    /// When the last interval ended, and when the file was last looked for.
    last_ns: u64,
    looked_ns: u64,
}

impl<'a> Status<'a> {
    /// Reports as the invocation wants them; `asked` is set by the signal.
    pub(crate) fn new(
        invocation: &'a Invocation,
        disks: &'a Disks,
        asked: Arc<AtomicBool>,
        begun_unix_ms: u64,
    ) -> Self {
        let file = std::env::temp_dir().join(FILE);
        Self { invocation, disks, asked, begun_unix_ms, file, last_ns: 0, looked_ns: 0 }
    }

    /// The jobs begin.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.last_ns = now_ns;
    }

    /// Whether a report is due; asking again says no.
    pub(crate) fn is_due(&mut self, now_ns: u64) -> bool {
        let interval = self.invocation.status_interval_ns;
        let by_time = interval.is_some_and(|interval_ns| now_ns >= self.last_ns + interval_ns);
        if by_time {
            // Reports that take long do not pile up.
            self.last_ns = now_ns;
        }
        let mut by_file = false;
        if now_ns >= self.looked_ns + LOOK_NS {
            self.looked_ns = now_ns;
            by_file = std::fs::remove_file(&self.file).is_ok();
        }
        self.asked.swap(false, Ordering::Relaxed) || by_file || by_time
    }

    /// The report in every format asked for.
    pub(crate) fn texts(&self, live: Vec<Live<'_>>) -> Vec<String> {
        let frame = Frame {
            invocation: self.invocation,
            begun_unix_ms: self.begun_unix_ms,
            disk_util: self.disks.used(),
            warnings: Vec::new(),
        };
        rendered(&status_report(frame, live), self.invocation)
    }
}
