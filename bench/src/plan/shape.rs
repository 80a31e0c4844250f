//! From the options of a job to the sequence of its I/Os.
//!
//! Data flow: `Job` and its regions -> [`Shape`].
//!
//! Not here: the regions (`region`), following the shape (`generator`).

use fio_compat::{Distribution, Extent, Job, RandomGenerator, Rw, Sequencer, Verify};

use crate::generator::{Blocks, Mix, Places, Region, Shape};
use crate::ioengine::Operation;

/// A length that an I/O may have.
fn block(bytes: u64) -> Result<u32, String> {
    const MAX: u32 = 1 << 30;
    let fits = u32::try_from(bytes).ok().filter(|bytes| (1..=MAX).contains(bytes));
    fits.ok_or_else(|| format!("bs={bytes} is not between 1 and {MAX} bytes"))
}

fn blocks(job: &Job, direction: usize) -> Result<Blocks, String> {
    let split = &job.workload.bs_split[direction];
    if !split.is_empty() {
        let mut shares = Vec::new();
        for share in split {
            shares.push((block(share.bytes)?, share.percent));
        }
        return Ok(Blocks::split(&shares));
    }
    let (least, most) = job.block_range(direction);
    let (least, most) = (block(least)?, block(most)?);
    if least == most {
        return Ok(Blocks::One(least));
    }
    let step = if job.workload.bs_unaligned { 1 } else { least };
    Ok(Blocks::Range { least, most, step })
}

fn mix(job: &Job) -> Mix {
    match job.rw {
        Rw::Read | Rw::RandRead => Mix::Read,
        Rw::Write | Rw::RandWrite => Mix::Write,
        Rw::ReadWrite | Rw::RandRw => Mix::Both { read_percent: job.rwmixread_percent },
        Rw::Trim | Rw::RandTrim => Mix::Trim,
        Rw::TrimWrite | Rw::RandTrimWrite => Mix::TrimWrite,
    }
}

fn places(job: &Job) -> Places {
    let workload = &job.workload;
    let skewed = workload.distribution.iter().any(|kind| *kind != Distribution::Random);
    Places {
        align: workload.block_align.map(Option::unwrap_or_default),
        percent_random: workload.percentage_random,
        distribution: workload.distribution.clone(),
        lfsr: workload.random_generator == RandomGenerator::Lfsr && !skewed,
        // A run of one is no run.
        number: workload.rw_number.filter(|number| *number != i64::from(job.rw.is_random())),
        runs: job.rw.is_random(),
        identical: workload.rw_sequencer == Sequencer::Identical && job.rw.is_random(),
        strided: workload.strided,
        files: (workload.file_service, workload.file_service_ios),
    }
}

/// Whether each loop has files of its own.
pub(crate) const fn unlinks_each_loop(job: &Job) -> bool {
    job.layout.unlink_each_loop && !job.time_based
}

/// Bytes of a sequential pass with gaps up to a place that is inside the region, but with less
/// than a whole block behind it: fio ends there. Behind the end it starts over.
fn until_misfit(job: &Job, shape: &Shape) -> Option<u64> {
    let ([region], None) = (&shape.regions[..], shape.places.strided) else { return None };
    let block = u64::from(shape.unit_bytes());
    let gap = shape.places.number.filter(|gap| *gap > 0 && !shape.random)?;
    let one_way = matches!(shape.mix, Mix::Read | Mix::Write | Mix::Trim);
    if job.io_size.is_some() || !one_way || !shape.is_uniform() {
        return None;
    }
    let step = block + gap.unsigned_abs();
    let last = region.len_bytes.checked_sub(1)? / step;
    (last * step + block > region.len_bytes).then_some(last * block)
}

/// The shape of a job on these regions.
///
/// # Errors
/// One line.
pub(super) fn shape(job: &Job, regions: Vec<Region>) -> Result<Shape, String> {
    let (fsync, fdatasync) = (u64::from(job.fsync), u64::from(job.fdatasync));
    let range = u64::from(job.durability.sync_file_range.every);
    let mut places = places(job);
    if places.number.is_none() {
        (places.runs, places.identical) = (false, false);
    }
    let mut shape = Shape {
        regions,
        blocks: [blocks(job, 0)?, blocks(job, 1)?, blocks(job, 2)?],
        blocks_by_pattern: job.workload.bs_is_seq_rand,
        mix: mix(job),
        random: job.rw.is_random(),
        random_map: !job.norandommap,
        limit_bytes: None,
        renews: false,
        limit_ios: job.number_ios,
        flush_every: [fsync, fdatasync, range].into_iter().find(|every| *every > 0).unwrap_or(0),
        flush: match (fsync, fdatasync) {
            (1.., _) => Operation::Fsync,
            (_, 0) if range > 0 => Operation::SyncRange,
            _ => Operation::Fdatasync,
        },
        places,
    };
    let unit = shape.unit_bytes();
    if shape.places.align.iter().any(|align| *align > 0 && *align < u64::from(unit))
        && shape.has_map()
    {
        shape.random_map = false;
    }
    let pass = match job.io_size {
        Some(Extent::Bytes(bytes)) => bytes,
        // The I/O that crosses it is made, so it is not rounded.
        Some(extent) => extent.resolve(shape.pass_bytes(), 1),
        // With `filesize`, `size` says how much is done, and not where.
        None => match (job.size, job.workload.filesize) {
            (Some(Extent::Bytes(bytes)), Some(_)) => bytes.min(shape.pass_bytes()),
            _ => shape.pass_bytes(),
        },
    };
    let pass = until_misfit(job, &shape).map_or(pass, |bytes| bytes.min(pass));
    // Passes that are verified are made one by one, each followed by its verification.
    let verified = job.verify != Verify::None && job.rw.writes_data();
    let by_loop = verified || unlinks_each_loop(job);
    shape.limit_bytes = match (job.time_based, by_loop) {
        (_, true) => Some(pass),
        (true, false) => None,
        (false, false) => Some(pass.saturating_mul(job.loops.max(1))),
    };
    let cached = !job.direct && job.ioengine.moves_data();
    shape.renews = job.invalidate && cached && !verified;
    if job.workload.fill_device && job.size.is_none() && job.io_size.is_none() {
        shape.limit_bytes = None;
    }
    Ok(shape)
}
