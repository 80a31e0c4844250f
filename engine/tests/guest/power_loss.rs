//! A log whose device recorded every write: at each moment at which something was durable, the
//! power fails, and the log is opened on what the device held; in the short run, at some of these
//! moments. Nothing that was acknowledged until then may be missing. And once more with any part
//! of what was written next, by the sector: until the next flush, that is what a device may do.
//!
//! Data flow: appends → acknowledged → a mark in the record, of which record it was → the
//! record replayed onto an image, up to each flush → the image opened as a log → compared.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mfio_core::block_on;
use mfio_engine::wal::{Lsn, PremadeSegments, Recovery, SegmentDir, SegmentStore, Wal, WalConfig};
use mfio_engine::{DirectMode, OpenOptions, SyncMethod};
use nix::mount::{MsFlags, mount, umount};

use crate::device::{Guest, Kernel, Random, Work, all, destructive, kernel_shard, patiently};
use crate::logged::Log;
use crate::mapper::{Mapped, run};

/// Appends of one workload.
const APPENDS: u64 = 120;
const TASKS: u64 = 2;
/// How many records behind the newest the log is truncated, now and then.
const KEPT: u64 = 20;
const SEGMENT: u64 = 64 << 10;
const SEGMENTS: u64 = 4;
/// Moments at which the power must have failed in all, where none is left out.
const MOMENTS_MIN: usize = 200;

const fn config(method: SyncMethod) -> WalConfig {
    WalConfig {
        segment_bytes: SEGMENT,
        block_bytes_max: 8 << 10,
        sync_method: Some(method),
        ..WalConfig::new()
    }
}

/// The id in front, and bytes that follow from it.
fn record_of(id: u64) -> Vec<u8> {
    let mut random = Random(id);
    let mut record = id.to_le_bytes().to_vec();
    let len = 8 + random.below(3000);
    record.resize_with(usize::try_from(len).unwrap(), || random.below(256).to_le_bytes()[0]);
    record
}

type Opened = (Wal<mfio_engine::ring::kernel::KernelRing>, Recovery, Vec<Vec<u8>>);

fn open<S>(shard: &Kernel, store: S, config: &WalConfig) -> Opened
where
    S: SegmentStore<mfio_engine::ring::kernel::KernelRing> + 'static,
{
    let mut found = Vec::new();
    let visit = async |_lsn, record: &[u8]| {
        found.push(record.to_vec());
        Ok(())
    };
    let opened = block_on(shard, Wal::open(shard, store, config, visit)).unwrap();
    let (log, report) = opened.unwrap();
    (log, report, found)
}

/// Appends, marks what was acknowledged, and truncates.
fn append_all(shard: &Kernel, log: &Opened, recorded: &Mapped) {
    let task = |task: u64| {
        let log = &log.0;
        async move {
            for count in 0..APPENDS / TASKS {
                let id = task << 32 | count;
                let lsn = log.append(&record_of(id)).await.unwrap();
                if count % marked() == marked() - 1 {
                    recorded.message(&["mark", &format!("acked-{lsn}-{id}")]);
                }
                if task == 0 && count % 8 == 7 {
                    log.truncate_before(Lsn(lsn.0.saturating_sub(KEPT))).await.unwrap();
                }
            }
        }
    };
    block_on(shard, all((0..TASKS).map(|n| Box::pin(task(n)) as Work<'_>).collect())).unwrap();
}

/// What must be found when the power fails at some moment.
struct Promised<'a> {
    /// Every record that was acknowledged by then: its number, and its id.
    acked: &'a BTreeMap<u64, u64>,
    moment: usize,
}

impl Promised<'_> {
    fn check(&self, report: &Recovery, found: &[Vec<u8>]) {
        let (moment, first) = (self.moment, report.first_lsn.0);
        let newest = self.acked.last_key_value().map_or(0, |(lsn, _)| *lsn);
        assert_eq!(report.records, found.len() as u64, "entry {moment}");
        assert!(report.next_lsn.0 > newest, "entry {moment}: {newest} is lost: {report:?}");
        assert!(first <= newest.saturating_sub(KEPT).max(1), "entry {moment}: {report:?}");
        for (lsn, id) in self.acked.range(first..) {
            let record = &found[usize::try_from(lsn - first).unwrap()];
            assert_eq!(*record, record_of(*id), "entry {moment}: record {lsn}");
        }
        for record in found {
            let id = u64::from_le_bytes(record[..8].try_into().unwrap());
            assert_eq!(*record, record_of(id), "entry {moment}: bytes that nobody wrote");
        }
    }
}

/// How often the power failed, and on how many of those the device had kept part of more.
#[derive(Default)]
struct Failures {
    whole: usize,
    torn: usize,
}

/// Calls `open_on` with an image of each moment after the mark `begin`; of one in `every`. What
/// reaches the device of later writes does so by `unit` bytes.
fn fail_everywhere(
    log: &Log,
    image_bytes: u64,
    every: usize,
    unit: usize,
    mut open_on: impl FnMut(&[u8], &Promised<'_>),
) -> Failures {
    let mut image = vec![0; usize::try_from(image_bytes).unwrap()];
    let (mut acked, mut begun, mut moments) = (BTreeMap::new(), false, 0);
    let mut failures = Failures::default();
    let mut durable_then = false;
    for (at, entry) in log.entries.iter().enumerate() {
        log.apply(entry, &mut image, |_| true);
        if let Some(mark) = &entry.mark {
            begun |= mark == "begin";
            let mut words = mark.split('-').skip(1).map_while(|word| word.parse::<u64>().ok());
            if let (true, Some(lsn), Some(id)) =
                (mark.starts_with("acked"), words.next(), words.next())
            {
                acked.insert(lsn, id);
            }
        }
        durable_then = entry.is_durable() || (durable_then && entry.mark.is_some());
        // The marks that follow are of the same moment: what they acknowledge must be in it.
        let marks_follow = log.entries.get(at + 1).is_some_and(|next| next.mark.is_some());
        if !durable_then || marks_follow || !begun {
            continue;
        }
        moments += 1;
        if moments % every != 0 {
            continue;
        }
        let promised = Promised { acked: &acked, moment: at };
        open_on(&image, &promised);
        failures.whole += 1;
        let mut torn = image.clone();
        let mut random = Random(at as u64);
        let mut kept = 0;
        for later in &log.entries[at + 1..] {
            if later.flushes_first() {
                break;
            }
            let mut tossed = None;
            log.apply(later, &mut torn, |at| {
                let (_, reaches) = tossed.filter(|&(of, _)| of == at / unit).unwrap_or_else(|| {
                    let reaches = random.below(2) == 0;
                    kept += u64::from(reaches);
                    (at / unit, reaches)
                });
                tossed = Some((at / unit, reaches));
                reaches
            });
            if later.is_durable() {
                break;
            }
        }
        if kept > 0 {
            open_on(&torn, &promised);
            failures.torn += 1;
        }
    }
    let marks = TASKS * (APPENDS / TASKS / marked());
    assert_eq!(acked.len() as u64, marks, "the record has every mark");
    failures
}

fn zero(device: &Path, bytes: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(device).unwrap();
    file.write_all_at(&vec![0; usize::try_from(bytes).unwrap()], 0).unwrap();
    file.sync_all().unwrap();
}

/// Everything that log-writes has recorded on `device`, of which it has filled the front.
fn read_log(device: &Path) -> Log {
    let file = std::fs::File::open(device).unwrap();
    let mut bytes = Vec::new();
    for mib in [4, 16, 64, 256] {
        bytes.resize(mib << 20, 0);
        file.read_exact_at(&mut bytes, 0).unwrap();
        if let Some(log) = Log::parse(bytes.clone()) {
            return log;
        }
    }
    panic!("{} is full", device.display());
}

fn is_long_run() -> bool {
    std::env::var_os("MFIO_GUEST_ALL").is_some()
}

/// Of how many moments one is looked at, where all take minutes: `in_short` of them.
fn every(in_short: usize) -> usize {
    if is_long_run() { 1 } else { in_short }
}

/// Of how many acknowledgements one is marked: a mark is a process. Those in front of which the
/// log is truncated are among them.
fn marked() -> u64 {
    if is_long_run() { 4 } else { 8 }
}

/// A device over the first bytes of `under`, all zeroes, each write to which is recorded.
fn recorded(under: &Path, log: &Path, bytes: u64) -> Mapped {
    zero(under, bytes);
    zero(log, 4096);
    let table = format!("0 {} log-writes {} {}", bytes / 512, under.display(), log.display());
    Mapped::new("mfio-recorded", &table)
}

#[test]
fn f38_log_on_a_device_loses_nothing_acknowledged_at_any_power_failure() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME512") else { return };
    let Some(log_device) = guest.device("MFIO_NULLMEM") else { return };
    let bytes = SEGMENTS * SEGMENT;
    let every = every(4);
    let directory = tempfile::tempdir().unwrap();
    let mut failures = Failures::default();
    for method in SyncMethod::ALL {
        let config = config(method);
        let recorded = recorded(&under, &log_device, bytes);
        let part = |number: u64| {
            let sectors = SEGMENT / 512;
            let name = format!("mfio-segment{number}");
            Mapped::linear(&name, &recorded.path(), number * sectors, sectors)
        };
        let parts: Vec<_> = (0..SEGMENTS).map(part).collect();
        let shard = kernel_shard();
        let of_device = destructive(DirectMode::Direct);
        let files = parts.iter().map(|part| shard.open(&part.path(), &of_device).unwrap());
        let log = open(&shard, PremadeSegments::new(files.collect(), 1), &config);
        recorded.message(&["mark", "begin"]);
        append_all(&shard, &log, &recorded);
        drop(log);
        assert_eq!(shard.shutdown(), 0);
        drop(shard);
        drop((parts, recorded));

        let shard = kernel_shard();
        let mut salt = 1000;
        let read = read_log(&log_device);
        let here = fail_everywhere(&read, bytes, every, 512, |image, promised| {
            salt += 1;
            let segment = usize::try_from(SEGMENT).unwrap();
            let options = OpenOptions::new().write(true);
            let files = image.chunks(segment).enumerate().map(|(number, contents)| {
                let path = directory.path().join(format!("{salt}-{number}"));
                std::fs::write(&path, contents).unwrap();
                let file = shard.open(&path, &options).unwrap();
                std::fs::remove_file(path).unwrap();
                file
            });
            let store = PremadeSegments::new(files.collect(), salt);
            let config = WalConfig { sync_method: Some(SyncMethod::WriteThenFlush), ..config };
            let (_log, report, found) = open(&shard, store, &config);
            promised.check(&report, &found);
        });
        let entries = read.entries.len();
        println!("{method:?}: {entries} entries, {} failures, {} torn", here.whole, here.torn);
        failures.whole += here.whole;
        failures.torn += here.torn;
    }
    let Failures { whole, torn } = failures;
    assert!(whole * every >= MOMENTS_MIN && torn * every > 50, "{whole} and {torn} of {every}");
}

struct LoopDevice(PathBuf);

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run("losetup", &["--detach", self.0.to_str().unwrap()]);
    }
}

fn mount_ext4(device: &Path, at: &Path) {
    mount(Some(device), at, Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
}

/// Segments are made, named and removed meanwhile: names must be as durable as what they name.
#[test]
fn f39_log_in_a_directory_loses_nothing_acknowledged_at_any_power_failure() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME512") else { return };
    let Some(log_device) = guest.device("MFIO_NULLMEM") else { return };
    let every = every(12);
    let bytes = 8 << 20;
    let config = config(SyncMethod::LinkedFlush);
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path().join("mounted");
    std::fs::create_dir(&at).unwrap();
    let recorded = recorded(&under, &log_device, bytes);
    let device = recorded.path();
    let device_name = device.to_str().unwrap();
    let how = ["-q", "-F", "-b", "1024", "-J", "size=1", "-E", "lazy_itable_init=0,nodiscard"];
    run("mkfs.ext4", &[&how[..], &[device_name]].concat());
    mount_ext4(&device, &at);
    let shard = kernel_shard();
    recorded.message(&["mark", "begin"]);
    let log = open(&shard, SegmentDir::new(&at.join("log")), &config);
    append_all(&shard, &log, &recorded);
    drop(log);
    patiently(&shard, || umount(&at));
    assert_eq!(shard.shutdown(), 0);
    drop((shard, recorded));

    let copy = directory.path().join("copy");
    std::fs::File::create(&copy).unwrap().set_len(bytes).unwrap();
    run("modprobe", &["loop"]);
    let device = run("losetup", &["--find", "--show", copy.to_str().unwrap()]);
    let device = LoopDevice(PathBuf::from(device));
    let shard = kernel_shard();
    let read = read_log(&log_device);
    // The file system takes it that no block of its own is torn: it writes its superblock in
    // place, with a checksum over all of it.
    let failures = fail_everywhere(&read, bytes, every, 1024, |image, promised| {
        let written = std::fs::OpenOptions::new().write(true).open(&device.0).unwrap();
        written.write_all_at(image, 0).unwrap();
        drop(written);
        mount_ext4(&device.0, &at);
        let (log, report, found) = open(&shard, SegmentDir::new(&at.join("log")), &config);
        promised.check(&report, &found);
        drop(log);
        patiently(&shard, || umount(&at));
    });
    let entries = read.entries.len();
    println!("{entries} entries, {} failures, {} torn", failures.whole, failures.torn);
    assert!(failures.whole * every >= 60 && failures.torn > 0);
}
