//! Options about the I/O engine, queue depth and batches.
//!
//! Data flow: row -> setter -> field of `Job`.
//!
//! Not here: defaults that depend on the engine or the depth (`job::validate`).

use super::{Choice, Kind, Row, digit, row};
use crate::error::Complaint;
use crate::job::{IoEngine, Job};
use crate::options::nearest;

/// The most entries a completion queue of io_uring can have.
const DEPTH_MAX: u32 = 65_536;

pub(super) const ROWS: &[Row] = &[
    row(
        "ioengine",
        &[],
        Kind::Parsed(choose),
        |job| job.ioengine_requested.clone(),
        "how I/O is issued; libaio and posixaio mean io_uring",
    ),
    row(
        "iodepth",
        &[],
        Kind::Count { min: 1, max: DEPTH_MAX, set: |job, value| job.iodepth = value },
        |job| job.iodepth.to_string(),
        "I/Os kept in flight",
    ),
    row(
        "iodepth_batch",
        &["iodepth_batch_submit"],
        Kind::Count { min: 0, max: DEPTH_MAX, set: |job, value| job.iodepth_batch = value },
        |job| job.iodepth_batch.to_string(),
        "submit when that many are queued; 0 is iodepth",
    ),
    row(
        "iodepth_batch_complete_min",
        &["iodepth_batch_complete"],
        Kind::Count {
            min: 0,
            max: DEPTH_MAX,
            set: |job, value| job.iodepth_batch_complete_min = value,
        },
        |job| job.iodepth_batch_complete_min.to_string(),
        "reap at least that many at a time; 0 polls",
    ),
    row(
        "iodepth_batch_complete_max",
        &[],
        Kind::Count {
            min: 0,
            max: DEPTH_MAX,
            set: |job, value| job.iodepth_batch_complete_max = value,
        },
        |job| job.iodepth_batch_complete_max.to_string(),
        "reap at most that many at a time",
    ),
    row(
        "iodepth_low",
        &[],
        Kind::Count { min: 0, max: DEPTH_MAX, set: |job, value| job.iodepth_low = value },
        |job| job.iodepth_low.to_string(),
        "reap until no more than that many are in flight",
    ),
    row(
        "fixedbufs",
        &[],
        Kind::Flag(|job, value| job.fixedbufs = value),
        |job| digit(job.fixedbufs),
        "registered buffers; on by default for io_uring",
    ),
    row(
        "registerfiles",
        &[],
        Kind::Flag(|job, value| job.registerfiles = value),
        |job| digit(job.registerfiles),
        "registered files; on by default for io_uring",
    ),
    row(
        "hipri",
        &[],
        Kind::Flag(|job, value| job.hipri = value),
        |job| digit(job.hipri),
        "poll for completions; the device needs poll queues",
    ),
    row(
        "sqthread_poll",
        &[],
        Kind::Flag(|job, value| job.sqthread_poll = value),
        |job| digit(job.sqthread_poll),
        "a kernel thread polls for submissions",
    ),
    row(
        "nonvectored",
        &[],
        Kind::Choice { choices: NONVECTORED, not_yet: &["0"] },
        |job| if job.nonvectored { "1" } else { "-1" }.to_owned(),
        "reads and writes of one piece; -1 and 1 both mean that",
    ),
    row(
        "cmd_type",
        &[],
        Kind::Choice { choices: COMMANDS, not_yet: &[] },
        |_| "nvme".to_owned(),
        "the commands of io_uring_cmd: nvme",
    ),
];

pub(super) const ENGINES: &[Choice] = &[
    ("io_uring", |job| set_engine(job, IoEngine::IoUring, "io_uring")),
    ("raw_uring", |job| set_engine(job, IoEngine::RawUring, "raw_uring")),
    ("psync", |job| set_engine(job, IoEngine::Psync, "psync")),
    ("null", |job| set_engine(job, IoEngine::Null, "null")),
    ("libaio", |job| set_engine(job, IoEngine::IoUring, "libaio")),
    ("posixaio", |job| set_engine(job, IoEngine::IoUring, "posixaio")),
    ("sync", |job| set_engine(job, IoEngine::Psync, "sync")),
    ("vsync", |job| set_engine(job, IoEngine::Psync, "vsync")),
    ("pvsync", |job| set_engine(job, IoEngine::Psync, "pvsync")),
    ("pvsync2", |job| set_engine(job, IoEngine::Psync, "pvsync2")),
    ("io_uring_cmd", |job| set_engine(job, IoEngine::IoUring, "io_uring_cmd")),
    ("nop", |job| set_engine(job, IoEngine::Nop, "nop")),
    ("raw_nop", |job| set_engine(job, IoEngine::RawNop, "raw_nop")),
];

const NONVECTORED: &[Choice] =
    &[("-1", |job| job.nonvectored = false), ("1", |job| job.nonvectored = true)];

const COMMANDS: &[Choice] = &[("nvme", |_| ())];

const ENGINES_NOT_YET: &[&str] = &[
    "mmap",
    "splice",
    "sg",
    "net",
    "netsplice",
    "cpuio",
    "rdma",
    "falloc",
    "ftruncate",
    "filecreate",
    "filestat",
    "filedelete",
    "dircreate",
    "dirstat",
    "dirdelete",
    "e4defrag",
    "rados",
    "rbd",
    "http",
    "gfapi",
    "gfapi_async",
    "libhdfs",
    "mtd",
    "dev-dax",
    "external",
    "libpmem",
    "ime_psync",
    "ime_psyncv",
    "ime_aio",
    "libiscsi",
    "nbd",
    "libcufile",
    "dfs",
    "nfs",
    "exec",
    "xnvme",
    "libblkio",
    "libzbc",
    "solarisaio",
    "windowsaio",
    "librpma_apm_client",
    "librpma_apm_server",
    "librpma_gpspm_client",
    "librpma_gpspm_server",
    "cpp_null",
    "pmemblk",
    "filexattr",
    "libhipfile",
    "fusion-aw-sync",
    "sheepdog",
    "guasi",
    "binject",
];

/// Sets the engine of that name, or says in fio's words that there is none.
pub(in crate::options) fn choose(job: &mut Job, name: &str) -> Result<(), Complaint> {
    if let Some((_, set)) = ENGINES.iter().find(|(known, _)| *known == name) {
        set(job);
        return Ok(());
    }
    let names = || ENGINES.iter().map(|(known, _)| *known);
    let valid = format!("valid values are {}", names().collect::<Vec<_>>().join(", "));
    if name == "mmap" {
        let message = "engine mmap not loadable: an error in mapped memory is a signal that kills \
                       the program, and no result of an I/O";
        return Err(Complaint::new(message).with_remedy("use ioengine=psync for the page cache"));
    }
    let own = if ENGINES_NOT_YET.contains(&name) { " (it is known to fio)" } else { "" };
    let message = format!("engine {name} not loadable{own}, failed to load engine");
    let hint =
        nearest(name, names()).map_or(String::new(), |near| format!("did you mean {near}? "));
    Err(Complaint::new(message).with_remedy(hint + &valid))
}

fn set_engine(job: &mut Job, engine: IoEngine, requested: &str) {
    job.ioengine = engine;
    job.ioengine_requested = requested.to_owned();
}
