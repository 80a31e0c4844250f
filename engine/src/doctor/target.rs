//! Findings about a file, a directory or a block device, and the disk below it.
//!
//! Data flow: path → descriptor → [`Geometry`], [`Facts`], `statvfs` → one finding each.
//!
//! Not here: reading the facts (`target`).

use std::fs::File;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;

use super::{Doctor, Finding, nvme};
use crate::target::{
    Bytes, Device, DirectMode, Facts, FileSystem, Geometry, OpenError, OpenOptions, TargetKind,
};

/// Free space below which a benchmark or a database meets `ENOSPC` soon, in bytes.
const FREE_BYTES_MIN: u64 = 1 << 30;
/// Requests shorter than this cut large transfers into many.
const TRANSFER_BYTES_MIN: u64 = 128 << 10;

/// What was found when the path was opened.
struct Found {
    file: File,
    facts: Facts,
    file_system: FileSystem,
    /// `None` of a directory.
    geometry: Option<Geometry>,
    /// Direct I/O was tried and refused.
    fell_back: bool,
}

impl Found {
    fn is_file(&self) -> bool {
        self.geometry.is_none_or(|geometry| geometry.kind == TargetKind::File)
    }

    /// The descriptor of the namespace itself, or of all of its block device.
    fn namespace(&self) -> Option<&File> {
        let device = self.facts.device.filter(|device| !device.is_partition);
        let is_whole = device.is_some_and(|device| nvme::is_nvme(device.name.as_str()));
        let is_it = self.facts.nvme.is_some() || !self.is_file() && is_whole;
        is_it.then_some(&self.file)
    }
}

pub(super) fn findings(doctor: &Doctor, path: &Path) -> Vec<Finding> {
    let found = match look(doctor, path) {
        Ok(found) => found,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![opened(&found), meaningful(&found), file_system(&found)];
    findings.extend([device(&found), direct_io(&found), alignment(&found), blocks(&found)]);
    findings.extend([nowait(&found), dax(&found), write_cache(&found), atomic_write(&found)]);
    let queue = found.facts.device;
    let of_queue: [fn(&Device) -> Finding; 8] =
        [transfer, scheduler, iostats, nomerges, poll_queues, discard, zones, write_streams];
    findings.extend(queue.iter().flat_map(|queue| of_queue.map(|judge| judge(queue))));
    findings.extend(nvme::findings(found.namespace(), queue.as_ref()));
    findings.push(free_space(&found));
    findings
}

/// Opens the path without a lock and without a flush: only looking.
fn look(doctor: &Doctor, path: &Path) -> Result<Found, Finding> {
    let failed = |error: String| {
        let remedy = "name a file, a directory, a block device or an NVMe namespace that this \
                      user may read";
        Finding::new("open", "no").wrong(error, remedy)
    };
    if path.is_dir() {
        let file = File::open(path).map_err(|error| failed(error.to_string()))?;
        let facts = Facts::of(&file, &doctor.sys);
        let file_system = FileSystem::of(&file).map_err(|errno| failed(errno.to_string()))?;
        return Ok(Found { file, facts, file_system, geometry: None, fell_back: false });
    }
    let options = OpenOptions::new().direct(DirectMode::PreferDirect).lock(false);
    let opened = crate::target::look(path, &options.sync_on_open(false));
    let opened = opened.map_err(|error| match error {
        // What the error itself advises is for who wants to open, and so to make, it.
        OpenError::Os { errno: Errno::ENOENT, .. } => Finding::new("open", "no").wrong(
            "there is nothing of this name",
            "correct the name; before a file is made, name the directory it will be in",
        ),
        error => failed(error.to_string()),
    })?;
    let geometry = match opened.geometry.kind {
        TargetKind::NvmeNamespace => opened.geometry,
        _ => Geometry::of_with(&opened.file, &doctor.sys)
            .map_err(|errno| failed(errno.to_string()))?,
    };
    Ok(Found {
        file: opened.file,
        facts: geometry.facts,
        file_system: geometry.file_system,
        geometry: Some(geometry),
        fell_back: opened.fell_back,
    })
}

fn opened(found: &Found) -> Finding {
    let kind = match found.geometry {
        None => "a directory".to_owned(),
        Some(geometry) => {
            let article = if geometry.kind == TargetKind::NvmeNamespace { "an" } else { "a" };
            format!("{article} {} of {}", geometry.kind, Bytes(geometry.len_bytes))
        }
    };
    Finding::new("open", kind)
}

fn meaningful(found: &Found) -> Finding {
    let what = "meaningful";
    let remedy = "name a file on real storage";
    let name = found.facts.device.map(|device| device.name);
    if found.file_system.is_tmpfs() {
        let why = "it is memory: no device, no alignment, no durability, and every op is punted";
        return Finding::new(what, "no").wrong(why, remedy);
    }
    if found.facts.device.is_some_and(|device| device.is_memory()) {
        let why = "the disk is memory: its figures are those of the processor";
        return Finding::new(what, "no").wrong(why, remedy);
    }
    match name.filter(|name| name.as_str().starts_with("loop")) {
        Some(name) => Finding::new(what, "hardly").degraded(
            format!("{name} is a file on another file system: two queues, two caches"),
            remedy,
        ),
        None => Finding::new(what, "yes"),
    }
}

fn file_system(found: &Found) -> Finding {
    let what = "file_system";
    let finding = Finding::new(what, found.file_system.to_string());
    if !found.is_file() {
        return finding.because("a device is on none");
    }
    let remedy = "use ext4 or xfs on a disk of this machine";
    match found.file_system.name() {
        "tmpfs" | "ramfs" | "hugetlbfs" => finding.wrong("nothing in memory is durable", remedy),
        "overlayfs" => finding.degraded(
            "what counts is the file system below, and the first write copies the whole file",
            "mount a volume there (containers: --volume)",
        ),
        "nfs" | "9p" | "fuse" => finding.degraded(
            "another machine or process does the I/O: durability and alignment are its word",
            remedy,
        ),
        "btrfs" | "zfs" | "bcachefs" => finding.degraded(
            "it writes to a new place each time: overwriting costs metadata, and direct I/O may \
             go through the cache for its checksums",
            "use ext4 or xfs; on btrfs, chattr +C on the empty file",
        ),
        "squashfs" => finding.degraded("it cannot be written", remedy),
        "unknown" => finding.unknown("the engine has not been tried on it"),
        _ => finding,
    }
}

fn device(found: &Found) -> Finding {
    let what = "device";
    let Some(device) = found.facts.device else {
        let why = "no single disk is below it, so nothing can be said of one";
        return Finding::new(what, "none").unknown(why);
    };
    let mut text = device.name.to_string();
    let model = device.model.map(|model| format!(" ({model})"));
    text.push_str(&model.unwrap_or_default());
    if device.is_partition {
        text.push_str(", a partition of it");
    }
    if device.rotational == Some(true) {
        text.push_str(", said to rotate");
    }
    if let (Some(queues), Some(requests)) = (device.hardware_queues, device.requests_max) {
        text.push_str(&format!(", hardware queues: {queues} of {requests} requests"));
    }
    Finding::new(what, text)
}

fn direct_io(found: &Found) -> Finding {
    let what = "direct_io";
    match found.geometry {
        None => Finding::new(what, "unknown").unknown("name a file in the directory"),
        Some(_) if found.fell_back => Finding::new(what, "no").degraded(
            "all goes through the page cache: copied, and flushed by others at other times",
            "use a file system with direct I/O: ext4 or xfs",
        ),
        Some(_) => Finding::new(what, "yes"),
    }
}

fn alignment(found: &Found) -> Finding {
    let what = "alignment";
    let Some(geometry) = found.geometry else {
        return Finding::new(what, "unknown").unknown("name a file in the directory");
    };
    if !geometry.direct {
        return Finding::new(what, "none").because("only direct I/O has rules");
    }
    let (offset, memory) = (geometry.offset_align.into(), geometry.mem_align.into());
    let finding =
        Finding::new(what, format!("offsets {}, memory {}", Bytes(offset), Bytes(memory)));
    if found.facts.direct_offset_bytes.is_some() {
        return finding;
    }
    finding.because("the file system does not say (Linux 6.1 does): a cautious guess")
}

fn blocks(found: &Found) -> Finding {
    let what = "blocks";
    let facts = &found.facts;
    let (Some(logical), Some(physical)) = (facts.logical_block_bytes, facts.physical_block_bytes)
    else {
        return Finding::new(what, "unknown").unknown("no device tells");
    };
    let (logical, physical) = (Bytes(logical.into()), Bytes(physical.into()));
    let finding = Finding::new(what, format!("logical {logical}, physical {physical}"));
    if logical.0 < physical.0 {
        return finding.because(format!("a write of less than {physical} reads first"));
    }
    finding
}

fn nowait(found: &Found) -> Finding {
    let what = "nowait";
    match found.facts.nowait {
        Some(true) => Finding::new(what, "yes"),
        Some(false) => Finding::new(what, "no: every op is punted").degraded(
            "each op goes to a kernel worker, which costs about 9 us and a second processor; \
             blocking calls may be quicker",
            "use ext4 or xfs on a disk that is not zram, loop or memory",
        ),
        None => Finding::new(what, "unknown").unknown("one block of a file would have to be read"),
    }
}

fn dax(found: &Found) -> Finding {
    let queue = found.facts.device.and_then(|device| device.dax);
    let value = match (found.facts.dax, queue) {
        (Some(true), _) => "yes: the file is mapped memory",
        (_, Some(true)) => "the device could, the file does not",
        _ => "no",
    };
    Finding::new("dax", value)
}

fn write_cache(found: &Found) -> Finding {
    let what = "write_cache";
    match (found.facts.volatile_cache(), found.facts.fua()) {
        (Some(false), _) => Finding::new(what, "none that is volatile")
            .because("a completed write is durable, its metadata aside"),
        (Some(true), Some(true)) => Finding::new(what, "volatile, with FUA")
            .because("a single write can be made durable without a flush of all"),
        (Some(true), _) => Finding::new(what, "volatile, without FUA").degraded(
            "every durable write flushes the whole cache",
            "commit in groups, or use a device with power-loss protection",
        ),
        (None, _) => Finding::new(what, "unknown").unknown("taken for volatile"),
    }
}

fn atomic_write(found: &Found) -> Finding {
    let what = "atomic_write";
    match found.facts.atomic_write {
        Some(atomic) => {
            let (min, max) = (atomic.min_bytes.into(), atomic.max_bytes.into());
            Finding::new(what, format!("{} to {}", Bytes(min), Bytes(max)))
        }
        None => Finding::new(what, "none").because("pages can tear: keep checksums or copies"),
    }
}

fn transfer(queue: &Device) -> Finding {
    let what = "transfer";
    let Some(bytes) = queue.transfer_bytes_max else {
        return Finding::new(what, "unknown").unknown("the queue does not say");
    };
    let pieces = queue.segments_max.map(|most| format!(" in {most} pieces"));
    let text = format!("up to {}{}", Bytes(bytes), pieces.unwrap_or_default());
    let finding = Finding::new(what, text);
    if bytes >= TRANSFER_BYTES_MIN {
        return finding;
    }
    let file = queue_file(queue, "max_sectors_kb");
    let remedy = format!("echo 1024 > {file} (the device may refuse: see max_hw_sectors_kb)");
    finding.degraded("large transfers are cut into many ops", remedy)
}

fn scheduler(queue: &Device) -> Finding {
    let what = "scheduler";
    let Some(scheduler) = queue.scheduler else {
        return Finding::new(what, "unknown").unknown("the queue does not say");
    };
    let finding = Finding::new(what, scheduler.as_str());
    if scheduler.as_str() == "none" {
        return finding;
    }
    finding.degraded(
        "it costs up to half of the I/Os per second where the device is quick",
        format!("echo none > {}", queue_file(queue, "scheduler")),
    )
}

fn iostats(queue: &Device) -> Finding {
    let what = "iostats";
    match queue.iostats {
        Some(true) => Finding::new(what, "on").degraded(
            "the kernel reads the clock for every request: up to 8 % at millions of them",
            format!("echo 0 > {}", queue_file(queue, "iostats")),
        ),
        Some(false) => Finding::new(what, "off"),
        None => Finding::new(what, "unknown").unknown("the queue does not say"),
    }
}

fn nomerges(queue: &Device) -> Finding {
    let what = "nomerges";
    match queue.nomerges {
        Some(2) => Finding::new(what, "2"),
        // Where seeking costs more than searching, merging is right.
        Some(value) if queue.rotational == Some(true) => Finding::new(what, value.to_string()),
        Some(value) => Finding::new(what, value.to_string()).degraded(
            "the kernel looks for neighbours of every request; the engine has joined them",
            format!("echo 2 > {}", queue_file(queue, "nomerges")),
        ),
        None => Finding::new(what, "unknown").unknown("the queue does not say"),
    }
}

fn poll_queues(queue: &Device) -> Finding {
    let what = "poll_queues";
    match (queue.io_poll, queue.poll_queues) {
        (Some(true), Some(count)) => Finding::new(what, count.to_string()),
        (Some(true), None) => Finding::new(what, "some"),
        (Some(false), _) if nvme::is_nvme(queue.name.as_str()) => Finding::new(
            what,
            "none; to poll for completions (hipri): nvme.poll_queues=N on the kernel's command \
             line, or modprobe nvme poll_queues=N, N the number of shards that poll",
        ),
        (Some(false), _) => Finding::new(what, "none"),
        (None, _) => Finding::new(what, "unknown").unknown("the queue does not say"),
    }
}

fn discard(queue: &Device) -> Finding {
    let what = "discard";
    match (queue.discard_bytes_max, queue.discard_granularity_bytes) {
        (Some(0), _) => Finding::new(what, "no"),
        (Some(most), Some(unit)) => {
            Finding::new(what, format!("up to {} in units of {}", Bytes(most), Bytes(unit)))
        }
        _ => Finding::new(what, "unknown").unknown("the queue does not say"),
    }
}

fn zones(queue: &Device) -> Finding {
    let what = "zones";
    match queue.zoned.as_ref().map(|model| model.as_str()) {
        Some("none") => Finding::new(what, "none"),
        Some(model) => Finding::new(what, model).degraded(
            "a zone is written in order only: the engine reads such a device and does not write it",
            "put a file system on it that knows zones (zonefs, f2fs, btrfs), and write to files",
        ),
        None => Finding::new(what, "unknown").unknown("the queue does not say"),
    }
}

fn write_streams(queue: &Device) -> Finding {
    let what = "write_streams";
    match queue.write_streams_max {
        Some(0) => Finding::new(what, "none"),
        Some(count) => Finding::new(what, count.to_string()),
        None => Finding::new(what, "unknown").unknown("the queue does not say (Linux 6.16 does)"),
    }
}

fn free_space(found: &Found) -> Finding {
    let what = "free_space";
    if !found.is_file() {
        return Finding::new(what, "all of it").because("a device has its size");
    }
    let Ok(statistics) = fstatvfs(&found.file) else {
        return Finding::new(what, "unknown").unknown("statvfs does not say");
    };
    #[allow(clippy::useless_conversion, reason = "the types differ between targets")]
    let [free, all, unit] = [
        u64::from(statistics.blocks_available()),
        u64::from(statistics.blocks()),
        u64::from(statistics.fragment_size()),
    ];
    space(free.saturating_mul(unit), all.saturating_mul(unit))
}

/// Judges free space, of `all_bytes`.
pub(super) fn space(free_bytes: u64, all_bytes: u64) -> Finding {
    let gib = 1 << 30;
    let text = format!("{} GiB of {} GiB", free_bytes / gib, all_bytes / gib);
    let finding = Finding::new("free_space", text);
    if free_bytes == 0 {
        return finding.wrong("writes fail with ENOSPC", "make room: du and df show where");
    }
    if free_bytes >= FREE_BYTES_MIN.min(all_bytes / 2) && free_bytes >= all_bytes / 20 {
        return finding;
    }
    finding.degraded("a full file system is slow, then ENOSPC", "make room: du and df show where")
}

/// The path of a setting, for a command.
fn queue_file(queue: &Device, file: &str) -> String {
    format!("/sys/block/{}/queue/{file}", queue.name)
}
