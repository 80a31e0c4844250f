//! Which files a clone has, and which part of each it works on.
//!
//! Data flow: `Job`, number of the clone, what is there -> paths and [`Region`]s.
//!
//! Not here: looking at files (`plan`), the order of I/O within a region (`shape`).

use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use fio_compat::{Extent, Job};

use super::Kind;
use crate::generator::Region;
use crate::random::mix;

/// fio's rule: the names given, else a device the job is named after, else a name per file.
pub(super) fn paths(job: &Job, clone: u32) -> Vec<PathBuf> {
    let directory = match job.directories.len() {
        0 => PathBuf::new(),
        count => PathBuf::from(&job.directories[clone as usize % count]),
    };
    if !job.filenames.is_empty() {
        return job.filenames.iter().map(|name| directory.join(name)).collect();
    }
    let named = Path::new(&job.name);
    if named.metadata().is_ok_and(|facts| facts.file_type().is_block_device()) {
        return vec![named.to_path_buf()];
    }
    let format = job.workload.filename_format.as_deref().unwrap_or("$jobname.$jobnum.$filenum");
    let name = |file: u32| {
        let name = format.replace("$jobname", &job.name);
        let name = name.replace("$jobnum", &clone.to_string());
        name.replace("$filenum", &file.to_string()).replace("$clientuid", "")
    };
    (0..job.workload.nrfiles).map(|file| directory.join(name(file))).collect()
}

/// The part of one file of several that a clone works on.
pub(super) struct Part<'a> {
    pub(super) job: &'a Job,
    pub(super) clone: u32,
    /// The smallest I/O.
    pub(super) unit: u64,
    /// Number of the file, of so many.
    pub(super) file: u64,
    pub(super) files: u64,
}

impl Part<'_> {
    /// The region on `path`, which is of this kind at present.
    ///
    /// # Errors
    /// One line.
    pub(super) fn region(&self, path: &Path, kind: Kind) -> Result<Region, String> {
        let Self { job, unit, .. } = *self;
        let shown = path.display();
        let present = match kind {
            Kind::Regular { len_bytes }
            | Kind::Block { len_bytes }
            | Kind::Namespace { len_bytes, .. } => Some(len_bytes),
            Kind::Missing | Kind::Unused => None,
        };
        let own = job.workload.filesize.map(|range| self.drawn(range));
        let whole = own.or(present).unwrap_or(0);
        let relative = |extent| matches!(extent, Extent::Percent(_));
        let unsized_ = own.is_none() && !job.workload.fill_device;
        if present.is_none() && unsized_ && (job.size.is_none_or(relative) || relative(job.offset))
        {
            let unused = kind == Kind::Unused;
            let why =
                if unused { "the null engine has no file" } else { "there is no such file yet" };
            return Err(format!("you need to specify size= in bytes for {shown}: {why}"));
        }
        let too_large = || format!("offset and size of {shown} exceed what a file can hold");
        let mut start_bytes = self.start(whole).ok_or_else(too_large)?;
        if job.layout.file_append && kind.is_device() {
            return Err(format!("{shown} is a device, and nothing is appended to it"));
        }
        if job.layout.file_append {
            start_bytes = start_bytes.checked_add(present.unwrap_or(0)).ok_or_else(too_large)?;
        }
        let len_bytes = self.length(whole, start_bytes, own);
        if job.size.is_none() && len_bytes == 0 {
            return Err(format!("{shown} is empty; you need to specify size="));
        }
        if len_bytes < unit {
            return Err(format!(
                "size={len_bytes} of {shown} is smaller than one block (bs={unit})"
            ));
        }
        let end = start_bytes.checked_add(len_bytes);
        let end = end.filter(|end| *end <= i64::MAX.cast_unsigned()).ok_or_else(too_large)?;
        if kind.is_device() && end > present.unwrap_or(0) {
            return Err(format!("{shown} holds {whole} bytes, but the job ends at {end}"));
        }
        Ok(Region { start_bytes, len_bytes })
    }

    /// A file's size within `filesize`, the same on every run.
    fn drawn(&self, (low, high): (u64, u64)) -> u64 {
        let seed = self.job.randseed ^ mix(self.file) ^ mix(u64::from(self.clone) << 32);
        let drawn = low + mix(seed) % (high - low + 1);
        if low == high { low } else { (drawn - drawn % self.unit).max(low) }
    }

    /// The offset, moved on for each clone; relative ones are rounded up.
    fn start(&self, whole: u64) -> Option<u64> {
        let workload = &self.job.workload;
        let align = match workload.offset_align {
            0 => self.unit,
            align => align,
        };
        let resolve = |extent: Extent| match extent {
            Extent::Bytes(bytes) => bytes,
            Extent::Percent(_) => extent.resolve(whole, 1).next_multiple_of(align),
        };
        let increment = resolve(workload.offset_increment).checked_mul(u64::from(self.clone))?;
        resolve(self.job.offset).checked_add(increment)
    }

    fn length(&self, whole: u64, start_bytes: u64, own: Option<u64>) -> u64 {
        const ENDLESS: u64 = 1 << 60;
        let rest = whole.saturating_sub(start_bytes);
        match self.job.size {
            _ if own.is_some() => rest,
            Some(Extent::Bytes(bytes)) => {
                let even = bytes / self.files;
                if bytes.is_multiple_of(self.files * self.unit) {
                    return even;
                }
                // What does not divide goes to the first files, a block each.
                let even = even - even % self.unit;
                let odd = (bytes - even * self.files) / self.unit;
                if self.files == 1 { bytes } else { even + self.unit * u64::from(self.file < odd) }
            }
            Some(extent) => extent.resolve(whole, self.unit),
            None if self.job.workload.fill_device && whole == 0 => ENDLESS,
            None => rest,
        }
    }
}
