//! When what a job writes becomes durable.
//!
//! Data flow: `options` parses text into these -> the bench opens files and flushes.
//!
//! Not here: `fsync`, `fdatasync` and `end_fsync`, which are plain fields of a job.

/// How files are opened for durability (`sync`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SyncIo {
    /// Writes end in a cache.
    #[default]
    None,
    /// `O_SYNC`.
    Sync,
    /// `O_DSYNC`.
    Dsync,
}

/// Parts of `sync_file_range(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SyncFileRange {
    /// Wait for earlier write-out first.
    pub wait_before: bool,
    /// Start write-out.
    pub write: bool,
    /// Wait for it.
    pub wait_after: bool,
    /// After every so many writes; 0 is never.
    pub every: u32,
}

/// Everything above, for one job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Durability {
    /// How files are opened.
    pub sync: SyncIo,
    /// Write out what was written last.
    pub sync_file_range: SyncFileRange,
    /// fsync each file before it is closed.
    pub fsync_on_close: bool,
}
