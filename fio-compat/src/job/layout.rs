//! How the files of a job are made, opened, kept and left behind.
//!
//! Data flow: `options` parses text into these -> the bench lays files out and opens them.
//!
//! Not here: names, sizes and regions (`workload`, and plain fields of a job).

use crate::error::{ParseError, Warning};

use super::{Extent, Job};

/// How a file that need not be filled gets its space (`fallocate`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fallocate {
    /// Not at all: the file is made, and is empty.
    None,
    /// `fallocate(2)` where the file system can.
    #[default]
    Native,
    /// `posix_fallocate(3)`: space and length, or an error.
    Posix,
    /// `FALLOC_FL_KEEP_SIZE`: space, and no length.
    Keep,
    /// `ftruncate(2)`: length, and no space.
    Truncate,
}

impl Fallocate {
    /// fio's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Native => "native",
            Self::Posix => "posix",
            Self::Keep => "keep",
            Self::Truncate => "truncate",
        }
    }
}

/// What the kernel is told of the pattern of reads to come (`fadvise_hint`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FileAdvice {
    /// Nothing.
    None,
    /// What the job does.
    #[default]
    Pattern,
    /// That it is random, whatever the job does.
    Random,
    /// That it is sequential, whatever the job does.
    Sequential,
}

impl FileAdvice {
    /// fio's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "0",
            Self::Pattern => "1",
            Self::Random => "random",
            Self::Sequential => "sequential",
        }
    }
}

/// How long what is written is expected to live (`write_hint`, `fcntl(2)`: `F_SET_RW_HINT`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteLife {
    /// Nothing is expected.
    None,
    /// A short time.
    Short,
    /// Longer.
    Medium,
    /// Longer still.
    Long,
    /// Longest.
    Extreme,
}

impl WriteLife {
    /// fio's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Short => "short",
            Self::Medium => "medium",
            Self::Long => "long",
            Self::Extreme => "extreme",
        }
    }
}

/// Everything above, for one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// How a file gets its space.
    pub fallocate: Fallocate,
    /// Make a missing file when it is opened, empty, instead of laying it out.
    pub create_on_open: bool,
    /// Lay files out and do no I/O.
    pub create_only: bool,
    /// Lay the files of one job out after those of the other.
    pub create_serialize: bool,
    /// Flush a file that was filled.
    pub create_fsync: bool,
    /// Fill files also where the job only writes.
    pub overwrite: bool,
    /// Delete the files after each loop.
    pub unlink_each_loop: bool,
    /// Read the files once before the job, so that they are in the page cache.
    pub pre_read: bool,
    /// Begin at the end of the file.
    pub file_append: bool,
    /// What the kernel is told of the reads to come.
    pub advice: FileAdvice,
    /// What the kernel is told of what is written; `None` is nothing.
    pub write_life: Option<WriteLife>,
    /// `syncfs(2)` at the end of the writes.
    pub end_syncfs: bool,
    /// A command for the shell before the job.
    pub exec_prerun: Option<String>,
    /// A command for the shell after the job.
    pub exec_postrun: Option<String>,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            fallocate: Fallocate::default(),
            create_on_open: false,
            create_only: false,
            create_serialize: true,
            create_fsync: true,
            overwrite: false,
            unlink_each_loop: false,
            pre_read: false,
            file_append: false,
            advice: FileAdvice::default(),
            write_life: None,
            end_syncfs: false,
            exec_prerun: None,
            exec_postrun: None,
        }
    }
}

impl Job {
    /// Refuses what contradicts itself about files.
    pub(super) fn check_layout(&self, warnings: &mut Vec<Warning>) -> Result<(), ParseError> {
        let layout = &self.layout;
        if layout.pre_read && self.direct {
            let message = "pre_read fills the page cache, which direct=1 passes by";
            return Err(self.error("pre_read", message).with_remedy("remove one of the two"));
        }
        if layout.file_append && self.workload.filesize.is_some() {
            let message = "filesize says where a file ends, and file_append begins there";
            return Err(self.error("file_append", message).with_remedy("remove one of the two"));
        }
        if layout.file_append && !matches!(self.size, Some(Extent::Bytes(_))) {
            let given = if self.size.is_some() { "a percentage" } else { "nothing" };
            let message = format!("{given} says how much file_append adds to the file");
            return Err(self.error("file_append", message).with_remedy("give size=BYTES"));
        }
        if layout.unlink_each_loop && self.rw.reads() && self.loops > 1 {
            let message = "a job that reads finds nothing after unlink_each_loop";
            return Err(self.error("unlink_each_loop", message).with_remedy("use loops=1"));
        }
        if layout.write_life.is_some() && !self.rw.writes_data() {
            let message = "write_hint has no effect: the job does not write";
            warnings.push(self.warning("write_hint", message));
        }
        Ok(())
    }
}
