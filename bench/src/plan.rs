//! Turns validated jobs into work that can start, or into one sentence why it cannot.
//!
//! Data flow: `Job` -> targets looked at, never touched -> regions, amounts, one [`Plan`] per
//! job. Nothing is created or written before every job of the run has passed.
//!
//! Not here: the options themselves (`fio_compat`), creating files (`layout`).

mod memory;
mod region;
mod replay;
mod shape;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fio_compat::{EngineOptions, IoEngine, Job, SyncFileRange, SyncIo, Verify};
use mfio_engine::OpenOptions;
use mfio_engine::target::{OpenError, Opened, open};
use nix::unistd::{AccessFlags, access};

use crate::advice;
use crate::generator::{Blocks, Mix, Region, Shape};
use crate::layout::{direct_works, direct_works_on, no_direct};
use crate::trace::Trace;
use crate::verify::Scheme;

use region::Part;
pub(crate) use shape::unlinks_each_loop;

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

    /// Whether it is, or will be, a file that is made and deleted, and not a device.
    pub(crate) const fn is_a_file(&self) -> bool {
        matches!(self.kind, Kind::Missing | Kind::Regular { .. })
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
    /// The trace it follows instead.
    pub(crate) trace: Option<Arc<Trace>>,
}

impl Plan {
    /// The directions of its main phase: reads, writes, trims.
    pub(crate) fn directions(&self) -> [bool; 3] {
        match self.shape.mix {
            _ if self.job.content.verify_only => [true, false, false],
            Mix::Both { read_percent } => [read_percent > 0, read_percent < 100, false],
            mix => mix.directions(),
        }
    }
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
    if !job.replay.read.is_empty() {
        return replay::plan(job, clone);
    }
    let unit = job.block_min_bytes().max(1);
    let paths = region::paths(job, clone);
    let files = u64::try_from(paths.len()).unwrap_or(1).max(1);
    let mut targets = Vec::new();
    for (path, file) in paths.into_iter().zip(0..) {
        let kind = look(job, &path)?;
        check_engine(job, &path, kind)?;
        let part = Part { job, clone, unit, file, files };
        let region = part.region(&path, kind)?;
        targets.push(Target { path, kind, region });
    }
    check_direct(job)?;
    memory::check(job)?;
    let shape = shape::shape(job, targets.iter().map(|target| target.region).collect())?;
    check_verify(job, &shape)?;
    Ok(Plan { job: job.clone(), clone, targets, shape, trace: None })
}

/// Finds out what is at `path` without changing anything.
fn look(job: &Job, path: &Path) -> Result<Kind, String> {
    if !job.ioengine.moves_data() {
        return Ok(Kind::Unused);
    }
    let shown = path.display();
    let facts = match path.metadata() {
        Ok(facts) => facts,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return missing(job, path).map(|()| Kind::Missing);
        }
        Err(error) => {
            return Err(format!("cannot look at {shown}: {}", advice::with_remedy(&error)));
        }
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
    access(path, mode).map_err(|errno| format!("cannot open {shown}: {}", advice::told(errno)))?;
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
    let pvsync2 = job.ioengine_requested == "pvsync2";
    if job.hipri && job.ioengine != IoEngine::IoUring && !pvsync2 {
        return Err(format!(
            "engine {} does not poll; hipri needs io_uring",
            job.ioengine.as_str()
        ));
    }
    if job.hipri && !namespace && !job.direct {
        return Err("hipri needs direct=1: nothing completes in the page cache".into());
    }
    let EngineOptions { uncached, nowait, atomic, force_async, .. } = job.engine;
    let flagged = uncached || nowait || atomic || force_async > 0;
    // Where two engines are compared, the job was checked with neither.
    if flagged && !pvsync2 && (job.ioengine == IoEngine::Psync || !job.ioengine.moves_data()) {
        return Err(format!(
            "engine {} has no uncached, nowait, atomic or force_async",
            job.ioengine.as_str()
        ));
    }
    if namespace && job.layout.pre_read {
        return Err(format!("{shown}: pre_read fills a page cache, which a namespace has not"));
    }
    if job.sqthread_poll && job.ioengine != IoEngine::IoUring {
        return Err(format!(
            "engine {} has no kernel thread that submits; sqthread_poll needs io_uring",
            job.ioengine.as_str()
        ));
    }
    let durability = job.durability;
    if namespace
        && (job.rw.trims()
            || durability.sync != SyncIo::None
            || durability.sync_file_range != SyncFileRange::default())
    {
        return Err(format!(
            "{shown}: trims, sync=1 and sync_file_range are not sent as NVMe commands; use the \
             block device of the namespace"
        ));
    }
    match kind {
        Kind::Namespace { block_bytes, .. }
            if !job.block_min_bytes().is_multiple_of(u64::from(block_bytes)) =>
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
    if is_among_devices(path) {
        return Err(format!(
            "there is no device {shown}, and no file is made in its place: correct the name \
             (lsblk lists devices), or make that file yourself"
        ));
    }
    // Of a name made of filename_format, the missing directories are made as well.
    let made = job.workload.filename_format.is_some() && job.filenames.is_empty();
    let parents = path.ancestors().skip(1);
    let parent = parents.into_iter().find(|parent| !made || parent.exists());
    let parent = parent.filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let facts = parent.metadata().map_err(|error| {
        format!("cannot create {shown}: {}: {}", parent.display(), advice::with_remedy(&error))
    })?;
    if !facts.is_dir() {
        return Err(format!("cannot create {shown}: {} is not a directory", parent.display()));
    }
    access(parent, AccessFlags::W_OK)
        .map_err(|errno| format!("cannot create {shown}: {}", advice::told(errno)))?;
    if job.direct && !direct_works(parent) {
        return Err(no_direct(path));
    }
    Ok(())
}

/// Whether a file at `path` would lie on the file system of the device nodes, in memory, where it
/// passes for a device: a mistyped name would be measured as one.
fn is_among_devices(path: &Path) -> bool {
    let device_of = |path: &Path| path.metadata().ok().map(|facts| facts.dev());
    let nodes = device_of(Path::new("/dev"));
    nodes.is_some()
        && nodes != device_of(Path::new("/"))
        && path.parent().and_then(device_of) == nodes
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
    size.map_err(|error| format!("cannot open {}: {}", path.display(), advice::with_remedy(&error)))
}

/// `O_DIRECT` with a block the device cannot address fails at the first I/O; say so before.
fn check_direct(job: &Job) -> Result<(), String> {
    const SECTOR: u64 = 512;
    let used = (0..3).zip(job.blocks_in_use()).filter(|(_, used)| *used);
    let mut sizes = used.flat_map(|(direction, _)| {
        let (least, most) = job.block_range(direction);
        let split = job.workload.bs_split[direction].iter().map(|share| share.bytes);
        split.chain([least, most])
    });
    let aligns = job.workload.block_align.iter().flatten().copied();
    let unaligned = sizes.any(|bytes| !bytes.is_multiple_of(SECTOR))
        || aligns.into_iter().any(|bytes| !bytes.is_multiple_of(SECTOR));
    let anyhow = job.workload.bs_unaligned && job.workload.bs_range.iter().any(Option::is_some);
    let unaligned = unaligned || anyhow;
    if job.direct && job.ioengine.moves_data() && unaligned {
        return Err("direct=1 needs a bs that is a multiple of 512; use direct=0 instead".into());
    }
    Ok(())
}

fn check_verify(job: &Job, shape: &Shape) -> Result<(), String> {
    if job.verify == Verify::None {
        return Ok(());
    }
    let method = job.verify.as_str();
    let block = verify_block_bytes(job, shape);
    let least = scheme(job).block_bytes_min();
    if (block as usize) < least {
        return Err(format!("verify={method} needs blocks of at least {least} bytes"));
    }
    let used = shape.mix.directions();
    if used[0] && used[1] && shape.blocks[0] != shape.blocks[1] {
        return Err(format!("verify={method} needs the same bs for reads and writes"));
    }
    let mut lengths = shape.blocks.iter().zip(used).filter(|(_, used)| *used);
    if lengths.any(|(blocks, _)| !is_multiple(blocks, block)) {
        let what = "verify_interval or the smallest block";
        return Err(format!("verify={method} needs sizes that are multiples of {block} ({what})"));
    }
    let aligns = shape.places.align.iter().any(|align| !align.is_multiple_of(u64::from(block)));
    let number = shape.places.number.filter(|_| !shape.places.runs).unwrap_or(0).unsigned_abs();
    if aligns || !number.is_multiple_of(u64::from(block)) {
        return Err(format!("verify={method} needs offsets that are multiples of {block}"));
    }
    if !job.ioengine.moves_data() {
        let engine = job.ioengine.as_str();
        return Err(format!("verify={method} needs an engine that stores data; {engine} does not"));
    }
    Ok(())
}

/// The unit in which content is verified.
pub(crate) fn verify_block_bytes(job: &Job, shape: &Shape) -> u32 {
    match u32::try_from(job.content.verify_interval) {
        Ok(interval @ 1..) => interval.min(shape.buffer_bytes()),
        _ => shape.unit_bytes(),
    }
}

/// How blocks are made and checked.
pub(crate) fn scheme(job: &Job) -> Scheme {
    Scheme {
        method: job.verify,
        header_at: usize::try_from(job.content.verify_offset).unwrap_or(usize::MAX / 2),
        pattern: job.content.verify_pattern.clone(),
    }
}

/// Whether every length is a whole number of units.
fn is_multiple(blocks: &Blocks, unit: u32) -> bool {
    match blocks {
        Blocks::One(bytes) => bytes.is_multiple_of(unit),
        Blocks::Range { least, step, .. } => {
            least.is_multiple_of(unit) && step.is_multiple_of(unit)
        }
        Blocks::Split(list) => list.iter().all(|(bytes, _)| bytes.is_multiple_of(unit)),
    }
}
