//! `--bandwidth-log`: the bandwidth of all jobs together, one log per direction.
//!
//! Data flow: totals of all lanes twice a second -> KiB/s -> a line in each log.
//!
//! Not here: logs of single jobs (`run::logs`).

use std::fs::File;
use std::io::Write;

use crate::run::lane::Totals;

/// How long a line stands for.
const WINDOW_NS: u64 = 500_000_000;

/// The three logs.
pub(crate) struct BandwidthLog {
    files: Vec<File>,
    begun_ns: u64,
    last_ns: u64,
    last: [Totals; 3],
    failed: Option<String>,
}

/// The names of the logs with this prefix.
pub(crate) fn names(prefix: &str) -> [String; 3] {
    ["read", "write", "trim"].map(|direction| format!("{prefix}-{direction}_bw.log"))
}

impl BandwidthLog {
    /// Creates `PREFIX-read_bw.log` and its relatives.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn create(prefix: &str) -> Result<Self, String> {
        let create = |name: String| {
            File::create(&name).map_err(|error| {
                format!("cannot write log {name}: {}", crate::plan::reason(&error))
            })
        };
        let files = names(prefix).into_iter().map(create);
        let files = files.collect::<Result<_, _>>()?;
        let last = <[Totals; 3]>::default();
        Ok(Self { files, begun_ns: 0, last_ns: 0, last, failed: None })
    }

    /// The jobs begin.
    pub(crate) fn begin(&mut self, now_ns: u64) {
        self.begun_ns = now_ns;
        self.last_ns = now_ns;
    }

    /// Adds lines if they are due, or for the rest of a window if the run has `ended`.
    pub(crate) fn tick(&mut self, now_ns: u64, totals: [Totals; 3], ended: bool) {
        let elapsed_ms = now_ns.saturating_sub(self.last_ns) / 1_000_000;
        if elapsed_ms == 0 || !ended && now_ns < self.last_ns + WINDOW_NS {
            return;
        }
        let time_ms = now_ns.saturating_sub(self.begun_ns) / 1_000_000;
        for (direction, file) in self.files.iter_mut().enumerate() {
            let bytes = totals[direction].bytes.saturating_sub(self.last[direction].bytes);
            let value = bytes * 1000 / elapsed_ms / 1024;
            let line = format!("{time_ms}, {value}, {direction}, 0, 0\n");
            if let Err(error) = file.write_all(line.as_bytes()) {
                self.failed.get_or_insert(crate::plan::reason(&error));
            }
        }
        self.last_ns = now_ns;
        self.last = totals;
    }

    /// What went wrong, if anything did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failed.as_ref().map(|why| format!("the bandwidth log is incomplete: {why}"))
    }
}
