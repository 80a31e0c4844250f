//! Turns validated jobs into work that can start, or into one sentence why it cannot.
//!
//! Data flow: `Job` -> targets looked at, never touched -> regions, amounts, one [`Plan`] per
//! job. Nothing is created or written before every job of the run has passed.
//!
//! Not here: the options themselves (`fio_compat`), creating files (`layout`).

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use fio_compat::{IoEngine, Job, Verify};
use mfio_engine::OpenOptions;
use mfio_engine::target::{OpenError, Opened, open};
use nix::unistd::{AccessFlags, access};

use crate::generator::{Mix, Region, Shape};
use crate::ioengine::Operation;
use crate::layout::{direct_works, direct_works_on, no_direct};
use crate::verify::HEADER_BYTES;

/// What a path is at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing is there yet.
    Missing,
    /// A regular file of this length.
    Regular { len_bytes: u64 },
    /// A block device of this size.
    Block { len_bytes: u64 },
    /// An NVMe namespace by its character device (`/dev/ngXnY`), which takes commands.
    Namespace { len_bytes: u64, block_bytes: u32 },
    /// The `null` engine touches nothing.
    Unused,
}

impl Kind {
    /// Whether it is a device, whose size is given and whose contents are nobody's file.
    pub(crate) const fn is_device(self) -> bool {
        matches!(self, Self::Block { .. } | Self::Namespace { .. })
    }
}

/// One file or device of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What it is.
    pub(crate) kind: Kind,
    /// The part the job works on.
    pub(crate) region: Region,
}

impl Target {
    /// How long the file must be before the job starts.
    pub(crate) fn needed_bytes(&self) -> u64 {
        self.region.start_bytes + self.region.len_bytes
    }

    /// Whether both are the same bytes, in part.
    fn overlaps(&self, other: &Self) -> bool {
        self.path == other.path
            && self.region.start_bytes < other.needed_bytes()
            && other.region.start_bytes < self.needed_bytes()
    }
}

/// One clone of one job, ready to be laid out and run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// The job.
    pub(crate) job: Job,
    /// Which clone of it, from 0.
    pub(crate) clone: u32,
    /// Its files.
    pub(crate) targets: Vec<Target>,
    /// The sequence of I/Os.
    pub(crate) shape: Shape,
}

/// Looks at the targets of all jobs; a plan per clone, in order of definition.
///
/// # Errors
/// One line: what is wrong and what to write instead.
pub(crate) fn survey(jobs: &[Job]) -> Result<Vec<Plan>, String> {
    let mut plans = Vec::new();
    for job in jobs {
        for clone in 0..job.numjobs {
            plans.push(one(job, clone).map_err(|text| format!("job `{}`: {text}", job.name))?);
        }
    }
    let stages = stages(&plans);
    for (plan, stage) in plans.iter().zip(&stages) {
        let others = plans.iter().zip(&stages).filter(|(other, at)| {
            *at == stage && other.job.rw.writes() && !std::ptr::eq(*other, plan)
        });
        check_undisturbed(plan, others.map(|(other, _)| other))?;
    }
    Ok(plans)
}

/// The number of the stage of each plan: a `stonewall` begins a new one.
pub(crate) fn stages(plans: &[Plan]) -> Vec<u32> {
    let mut stage = 0;
    let number = |(index, plan): (usize, &Plan)| {
        stage += u32::from(index > 0 && plan.job.stonewall && plan.clone == 0);
        stage
    };
    plans.iter().enumerate().map(number).collect()
}

/// Blocks that others overwrite meanwhile are right or wrong by chance, so verifying refuses.
fn check_undisturbed<'a>(
    plan: &Plan,
    mut writers: impl Iterator<Item = &'a Plan>,
) -> Result<(), String> {
    if plan.job.verify == Verify::None {
        return Ok(());
    }
    let shares = |writer: &Plan| {
        let pairs = plan
            .targets
            .iter()
            .flat_map(|mine| writer.targets.iter().map(move |theirs| (mine, theirs)));
        pairs.into_iter().any(|(mine, theirs)| mine.overlaps(theirs))
    };
    match writers.find(|writer| shares(writer)) {
        None => Ok(()),
        Some(writer) => Err(format!(
            "job `{}`: verify needs the blocks to itself, but job `{}` writes to them at the same \
             time; give each its own filename or offset, or stonewall",
            plan.job.name, writer.job.name
        )),
    }
}

fn one(job: &Job, clone: u32) -> Result<Plan, String> {
    let unit = job.bs.min_bytes(job.rw);
    let paths = paths(job, clone);
    let count = u64::try_from(paths.len()).unwrap_or(1).max(1);
    let mut targets = Vec::new();
    for path in paths {
        let kind = look(job, &path)?;
        check_engine(job, &path, kind)?;
        let region = region(job, &path, kind, count, unit)?;
        targets.push(Target { path, kind, region });
    }
    check_direct(job)?;
    let shape = shape(job, targets.iter().map(|target| target.region).collect())?;
    check_verify(job, &shape)?;
    Ok(Plan { job: job.clone(), clone, targets, shape })
}

/// fio's rule: the names given, else a device the job is named after, else `name.clone.file`.
fn paths(job: &Job, clone: u32) -> Vec<PathBuf> {
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
    vec![directory.join(format!("{}.{clone}.0", job.name))]
}

/// Finds out what is at `path` without changing anything.
fn look(job: &Job, path: &Path) -> Result<Kind, String> {
    if job.ioengine == IoEngine::Null {
        return Ok(Kind::Unused);
    }
    let shown = path.display();
    let facts = match path.metadata() {
        Ok(facts) => facts,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return missing(job, path).map(|()| Kind::Missing);
        }
        Err(error) => return Err(format!("cannot look at {shown}: {}", reason(&error))),
    };
    if facts.is_dir() {
        return Err(format!("{shown} is a directory; name a file, or use directory={shown}"));
    }
    if facts.file_type().is_block_device() {
        return Ok(Kind::Block { len_bytes: device_bytes(path)? });
    }
    if facts.file_type().is_char_device()
        && let Some(namespace) = namespace(path)?
    {
        return Ok(namespace);
    }
    if !facts.is_file() {
        return Err(format!("{shown} is neither a regular file nor a block device"));
    }
    let mode = if job.rw.writes() { AccessFlags::W_OK } else { AccessFlags::R_OK };
    access(path, mode).map_err(|errno| format!("cannot open {shown}: {}", errno.desc()))?;
    if job.direct && !direct_works_on(path) {
        return Err(no_direct(path));
    }
    Ok(Kind::Regular { len_bytes: facts.len() })
}

/// The NVMe namespace at `path`; `None` where that is another kind of character device.
fn namespace(path: &Path) -> Result<Option<Kind>, String> {
    let options = OpenOptions::new().lock(false).sync_on_open(false);
    match open(path, &options) {
        Ok(Opened { geometry, .. }) => Ok(Some(Kind::Namespace {
            len_bytes: geometry.len_bytes,
            block_bytes: geometry.offset_align,
        })),
        Err(OpenError::NoPositions { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the engine of the job can drive what is there in the way the job wants.
fn check_engine(job: &Job, path: &Path, kind: Kind) -> Result<(), String> {
    let shown = path.display();
    let namespace = matches!(kind, Kind::Namespace { .. });
    if namespace && job.ioengine != IoEngine::IoUring {
        return Err(format!(
            "{shown} is an NVMe namespace, which takes commands only; use \
             ioengine=io_uring_cmd, or its block device"
        ));
    }
    if !namespace && job.ioengine_requested == "io_uring_cmd" {
        return Err(format!(
            "ioengine=io_uring_cmd sends NVMe commands, which {shown} does not take; name a \
             namespace by its character device (/dev/ng0n1), or use ioengine=io_uring"
        ));
    }
    if job.hipri && job.ioengine != IoEngine::IoUring {
        return Err(format!(
            "engine {} does not poll; hipri needs io_uring",
            job.ioengine.as_str()
        ));
    }
    if job.hipri && !namespace && !job.direct {
        return Err("hipri needs direct=1: nothing completes in the page cache".into());
    }
    if job.sqthread_poll && job.ioengine != IoEngine::IoUring {
        return Err(format!(
            "engine {} has no kernel thread that submits; sqthread_poll needs io_uring",
            job.ioengine.as_str()
        ));
    }
    match kind {
        Kind::Namespace { block_bytes, .. }
            if !job.bs.min_bytes(job.rw).is_multiple_of(u64::from(block_bytes)) =>
        {
            Err(format!("{shown} has blocks of {block_bytes} bytes; bs must be a multiple"))
        }
        _ => Ok(()),
    }
}

/// Whether a file could be created at `path`.
fn missing(job: &Job, path: &Path) -> Result<(), String> {
    let shown = path.display();
    if !job.allow_file_create {
        return Err(format!("{shown} does not exist and allow_file_create=0 forbids to create it"));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let facts = parent.metadata().map_err(|error| {
        format!("cannot create {shown}: {}: {}", parent.display(), reason(&error))
    })?;
    if !facts.is_dir() {
        return Err(format!("cannot create {shown}: {} is not a directory", parent.display()));
    }
    access(parent, AccessFlags::W_OK)
        .map_err(|errno| format!("cannot create {shown}: {}", errno.desc()))?;
    if job.direct && !direct_works(parent) {
        return Err(no_direct(path));
    }
    Ok(())
}

/// The system's words without Rust's `(os error N)`.
pub(crate) fn reason(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => nix::errno::Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    }
}

fn device_bytes(path: &Path) -> Result<u64, String> {
    let size = File::open(path).and_then(|mut device| device.seek(SeekFrom::End(0)));
    size.map_err(|error| format!("cannot open {}: {}", path.display(), reason(&error)))
}

fn region(job: &Job, path: &Path, kind: Kind, files: u64, unit: u64) -> Result<Region, String> {
    let shown = path.display();
    let present = match kind {
        Kind::Regular { len_bytes }
        | Kind::Block { len_bytes }
        | Kind::Namespace { len_bytes, .. } => Some(len_bytes),
        Kind::Missing | Kind::Unused => None,
    };
    let whole = present.unwrap_or(0);
    let relative = |extent| matches!(extent, fio_compat::Extent::Percent(_));
    if present.is_none() && (job.size.is_none_or(relative) || relative(job.offset)) {
        let why =
            if kind == Kind::Unused { "the null engine has no file" } else { "it is missing" };
        return Err(format!("you need to specify size= in bytes for {shown}: {why}"));
    }
    let start_bytes = job.offset.resolve(whole, unit);
    let len_bytes = match job.size {
        Some(fio_compat::Extent::Bytes(bytes)) => bytes / files,
        Some(extent) => extent.resolve(whole, unit),
        None => whole.saturating_sub(start_bytes),
    };
    if job.size.is_none() && len_bytes == 0 {
        return Err(format!("{shown} is empty; you need to specify size="));
    }
    if len_bytes < unit {
        return Err(format!("size={len_bytes} of {shown} is smaller than one block (bs={unit})"));
    }
    let end = start_bytes.checked_add(len_bytes).filter(|end| *end <= i64::MAX.cast_unsigned());
    let Some(end) = end else {
        return Err(format!("offset and size of {shown} exceed what a file can hold"));
    };
    if kind.is_device() && end > whole {
        return Err(format!("{shown} holds {whole} bytes, but the job ends at {end}"));
    }
    Ok(Region { start_bytes, len_bytes })
}

/// `O_DIRECT` with a block the device cannot address fails at the first I/O; say so before.
fn check_direct(job: &Job) -> Result<(), String> {
    const SECTOR: u64 = 512;
    let unaligned = !job.bs.read_bytes.is_multiple_of(SECTOR) && job.rw.reads()
        || !job.bs.write_bytes.is_multiple_of(SECTOR) && job.rw.writes();
    if job.direct && job.ioengine != IoEngine::Null && unaligned {
        return Err("direct=1 needs a bs that is a multiple of 512; use direct=0 instead".into());
    }
    Ok(())
}

fn check_verify(job: &Job, shape: &Shape) -> Result<(), String> {
    if job.verify == Verify::None {
        return Ok(());
    }
    let block = verify_block_bytes(shape);
    if (block as usize) < HEADER_BYTES {
        return Err(format!("verify=crc32c needs a bs of at least {HEADER_BYTES} bytes"));
    }
    if matches!(shape.mix, Mix::Both { .. }) && shape.read_bytes != shape.write_bytes {
        return Err("verify=crc32c needs the same bs for reads and writes".into());
    }
    if job.ioengine == IoEngine::Null {
        return Err("verify=crc32c needs an engine that stores data; null does not".into());
    }
    Ok(())
}

/// The unit in which content is verified.
pub(crate) fn verify_block_bytes(shape: &Shape) -> u32 {
    if shape.mix == Mix::Read { shape.read_bytes } else { shape.write_bytes }
}

fn block(bytes: u64) -> Result<u32, String> {
    const MAX: u32 = 1 << 30;
    let fits = u32::try_from(bytes).ok().filter(|bytes| (1..=MAX).contains(bytes));
    fits.ok_or_else(|| format!("bs={bytes} is not between 1 and {MAX} bytes"))
}

fn shape(job: &Job, regions: Vec<Region>) -> Result<Shape, String> {
    let (fsync, fdatasync) = (u64::from(job.fsync), u64::from(job.fdatasync));
    let mix = match (job.rw.reads(), job.rw.writes()) {
        (true, true) => Mix::Both { read_percent: job.rwmixread_percent },
        (_, false) => Mix::Read,
        (false, true) => Mix::Write,
    };
    let mut shape = Shape {
        regions,
        read_bytes: block(job.bs.read_bytes)?,
        write_bytes: block(job.bs.write_bytes)?,
        mix,
        random: job.rw.is_random(),
        random_map: !job.norandommap,
        limit_bytes: None,
        limit_ios: job.number_ios,
        flush_every: if fsync > 0 { fsync } else { fdatasync },
        flush: if fsync > 0 { Operation::Fsync } else { Operation::Fdatasync },
    };
    let pass = match job.io_size {
        Some(extent) => extent.resolve(shape.pass_bytes(), u64::from(shape.unit_bytes())),
        None => shape.pass_bytes(),
    };
    // Passes that are verified are made one by one, each followed by its verification.
    let verified = job.verify != Verify::None && job.rw.writes();
    shape.limit_bytes = match (job.time_based, verified) {
        (_, true) => Some(pass),
        (true, false) => None,
        (false, false) => Some(pass.saturating_mul(job.loops.max(1))),
    };
    Ok(shape)
}
