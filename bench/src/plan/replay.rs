//! The plan of a job that follows a trace.
//!
//! Data flow: `read_iolog` -> the trace of this clone, looked through -> targets and directions
//! as the trace has them. Guards of devices and files see what the trace does, not `rw`.
//!
//! Not here: the trace itself (`trace`), following it (`run::replay`).

use std::path::PathBuf;
use std::sync::Arc;

use fio_compat::{Job, Rw};

use super::{Kind, Plan, Target, check_engine, look};
use crate::generator::{Blocks, Mix, Places, Region, Shape};
use crate::ioengine::Operation;
use crate::trace::{Found, Trace};

/// What `O_DIRECT` needs at least.
const SECTOR_BYTES: u64 = 512;

/// The plan of one clone.
///
/// # Errors
/// One line: what is wrong with the trace, or with what it names.
pub(super) fn plan(job: &Job, clone: u32) -> Result<Plan, String> {
    let labels = &job.replay.read;
    let label = &labels[clone as usize % labels.len()];
    let trace = Trace::look_through(label, &job.replay)?;
    let found = trace.found();
    let mut job = job.clone();
    job.rw = rw(found);
    check_names(&job, found)?;
    let align = found.align_bytes();
    if job.direct && job.ioengine.moves_data() && align < SECTOR_BYTES {
        return Err(format!(
            "{label} has I/O that is aligned to {align} bytes only; direct=1 needs \
             {SECTOR_BYTES}, so use direct=0 (replay_align moves offsets, not lengths)"
        ));
    }
    let mut targets = Vec::new();
    for (name, end_bytes) in &found.files {
        let path = PathBuf::from(name);
        let kind = look(&job, &path)?;
        check_engine(&job, &path, kind)?;
        check_fits(&path, kind, *end_bytes, found)?;
        let region = Region { start_bytes: 0, len_bytes: (*end_bytes).max(1) };
        targets.push(Target { path, kind, region });
    }
    let shape = shape(&job, found, targets.iter().map(|target| target.region).collect());
    Ok(Plan { job, clone, targets, shape, trace: Some(Arc::new(trace)) })
}

/// The word that allows what the trace does.
fn rw(found: &Found) -> Rw {
    match found.directions {
        [true, false, false] | [false, false, false] => Rw::Read,
        [false, true, _] => Rw::Write,
        [false, false, true] => Rw::Trim,
        [true, _, _] => Rw::ReadWrite,
    }
}

/// Who names files means those; a trace that names others must not touch them.
fn check_names(job: &Job, found: &Found) -> Result<(), String> {
    if job.filenames.is_empty() {
        return Ok(());
    }
    match found.files.iter().find(|(name, _)| !job.filenames.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "the trace is about {name}, which filename does not name; to send its I/O elsewhere \
             use replay_redirect, else remove filename"
        )),
    }
}

fn check_fits(path: &std::path::Path, kind: Kind, end: u64, found: &Found) -> Result<(), String> {
    let shown = path.display();
    match kind {
        Kind::Block { len_bytes } | Kind::Namespace { len_bytes, .. } if end > len_bytes => {
            Err(format!(
                "{shown} holds {len_bytes} bytes, but the trace ends at {end}; use replay_scale"
            ))
        }
        Kind::Namespace { .. } if found.directions[2] => {
            Err(format!("{shown}: trims are not sent as NVMe commands; use replay_skip=trim"))
        }
        Kind::Namespace { block_bytes, .. } if found.align_bytes() < u64::from(block_bytes) => {
            Err(format!("{shown} has blocks of {block_bytes} bytes, and the trace smaller ones"))
        }
        _ => Ok(()),
    }
}

/// Lengths for buffers and amounts for the progress; the generator has no part in a trace.
fn shape(job: &Job, found: &Found, regions: Vec<Region>) -> Shape {
    let [read, write] = [found.blocks(0), found.blocks(1)];
    let any = read.clone().or_else(|| write.clone()).unwrap_or(Blocks::One(4096));
    let amount = found.bytes.saturating_mul(job.loops.max(1));
    Shape {
        regions,
        blocks: [read.unwrap_or_else(|| any.clone()), write.unwrap_or_else(|| any.clone()), any],
        blocks_by_pattern: false,
        mix: Mix::Trace(found.directions),
        random: false,
        random_map: false,
        limit_bytes: (!job.time_based).then_some(amount),
        renews: false,
        limit_ios: job.number_ios,
        flush_every: 0,
        flush: Operation::Fsync,
        places: Places::default(),
    }
}
