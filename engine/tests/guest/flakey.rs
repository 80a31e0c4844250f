//! Devices that begin to fail: what of a batch fails, what a failed flush means, and what has
//! nothing to do with it.

use std::path::{Path, PathBuf};

use mfio_core::{AlignedBuf, Error, ErrorKind, Packet, PacketIoExt, Read, block_on};
use mfio_engine::target::OpenError;
use mfio_engine::wal::{PremadeSegments, Wal, WalConfig, WalError};
use mfio_engine::{DirectMode, Durability, EngineError, IoError, OpenOptions, SyncMethod};
use nix::errno::Errno;

use crate::device::{Guest, Kernel, KernelFile, destructive, kernel_shard, page, patiently};
use crate::mapper::Mapped;

/// Sectors of each device here.
const SECTORS: u64 = 16 << 11;
const EIO: i32 = 5;
const EIO_ERROR: Error = Error::os(EIO);

/// A device over the first sectors of `under` that works, until it is told otherwise.
struct Flakey {
    mapped: Mapped,
    under: PathBuf,
}

impl Flakey {
    fn over(under: &Path) -> Self {
        Self { mapped: Mapped::linear("mfio-flakey", under, 0, SECTORS), under: under.to_owned() }
    }

    fn works(&self) {
        self.mapped.change(&format!("0 {SECTORS} linear {} 0", self.under.display()));
    }

    /// Never up, always down, and then `feature`.
    fn fails_by(&self, feature: &str) {
        let under = self.under.display();
        self.mapped.change(&format!("0 {SECTORS} flakey {under} 0 0 600 1 {feature}"));
    }
}

fn write(shard: &Kernel, file: &KernelFile, at: u64, byte: u8) -> Result<(), IoError> {
    block_on(shard, file.write_all_at(at, page(byte))).unwrap().0
}

fn read(shard: &Kernel, file: &KernelFile, at: u64) -> u8 {
    let (result, bytes) = block_on(shard, file.read_exact_at(at, page(0xEE))).unwrap();
    result.unwrap();
    assert!(bytes.iter().all(|&byte| byte == bytes[0]));
    bytes[0]
}

#[test]
fn f37_flush_that_the_device_fails_poisons_the_target_until_it_is_reopened() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME512") else { return };
    let Some(beside) = guest.device("MFIO_NVME4K") else { return };
    for method in SyncMethod::ALL {
        let flakey = Flakey::over(&under);
        let shard = kernel_shard();
        let options = destructive(DirectMode::Direct).sync_method(Some(method));
        let file = shard.open(&flakey.mapped.path(), &options).unwrap();
        let neighbour = shard.open(&beside, &options).unwrap();
        write(&shard, &file, 0, 1).unwrap();
        write(&shard, &file, 4096, 1).unwrap();
        block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();

        write(&shard, &file, 0, 2).unwrap();
        flakey.fails_by("error_writes");
        let error = write(&shard, &file, 8192, 2).unwrap_err();
        let name = flakey.mapped.path().display().to_string();
        let expected = IoError {
            op: "write",
            target: name.clone(),
            offset_bytes: 8192,
            len_bytes: 4096,
            done_bytes: 0,
            error: EIO_ERROR,
        };
        assert_eq!(error, expected, "{method:?}");
        assert!(!file.is_poisoned(), "a write that failed says so, and nothing else is in doubt");
        assert_eq!(read(&shard, &file, 0), 2, "reads are not affected");

        // The device fails the flush; from now on it works again, and nobody is to believe it.
        let error = block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap_err();
        assert_eq!((error.op, error.target.as_str()), ("fdatasync", name.as_str()));
        assert_eq!((error.error.kind(), error.error.errno()), (ErrorKind::Poisoned, Some(EIO)));
        flakey.works();
        assert!(file.is_poisoned());
        for _ in 0..2 {
            let again = block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap_err();
            assert_eq!(again.error.kind(), ErrorKind::Poisoned);
            let refused = write(&shard, &file, 0, 3).unwrap_err();
            assert_eq!(refused.error.kind(), ErrorKind::Poisoned);
        }
        let (durable, _) = block_on(&shard, file.write_durable_at(0, page(3))).unwrap();
        assert_eq!(durable.unwrap_err().error.kind(), ErrorKind::Poisoned);
        assert_eq!(read(&shard, &file, 4096), 1);

        // The neighbour on the same shard has noticed nothing.
        let (durable, _) = block_on(&shard, neighbour.write_durable_at(0, page(9))).unwrap();
        durable.unwrap();
        assert_eq!(read(&shard, &neighbour, 0), 9);

        drop(file);
        let file = patiently(&shard, || shard.open(&flakey.mapped.path(), &options));
        let (durable, _) = block_on(&shard, file.write_durable_at(0, page(4))).unwrap();
        durable.unwrap();
        assert_eq!(read(&shard, &file, 0), 4);
        drop((file, neighbour));
        assert_eq!((shard.in_flight(), shard.shutdown()), (0, 0));
    }
}

/// A durable write that fails on its own way, by each method, is not acknowledged.
#[test]
fn f37_durable_write_to_a_device_that_fails_is_not_acknowledged() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME512") else { return };
    for method in SyncMethod::ALL {
        let flakey = Flakey::over(&under);
        let shard = kernel_shard();
        let options = destructive(DirectMode::Direct).sync_method(Some(method));
        let file = shard.open(&flakey.mapped.path(), &options).unwrap();
        let (durable, _) = block_on(&shard, file.write_durable_at(0, page(1))).unwrap();
        durable.unwrap();
        flakey.fails_by("error_writes");
        let (durable, _) = block_on(&shard, file.write_durable_at(0, page(2))).unwrap();
        let error = durable.unwrap_err();
        println!("{method:?}: {error}");
        assert_eq!((error.op, error.offset_bytes, error.len_bytes), ("durable write", 0, 4096));
        flakey.works();
        assert_eq!(read(&shard, &file, 0), 1, "nothing of it was written");
    }
}

/// One half of the device is bad. Of a batch over both, each entry has its own result.
#[test]
fn f43_batch_over_a_bad_half_fails_where_it_is_bad_and_nowhere_else() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME512") else { return };
    let (at, half) = (under.display(), SECTORS / 2);
    let good = format!("0 {half} linear {at} 0");
    let bad = format!("{half} {half} flakey {at} {half} 0 600 1 error_writes");
    let device = Mapped::linear("mfio-half", &under, 0, SECTORS);
    let shard = kernel_shard();
    // Opened before: a device that fails its flush is refused.
    let file = shard.open(&device.path(), &destructive(DirectMode::Direct)).unwrap();
    device.change(&format!("{good}\n{bad}"));
    let reader = OpenOptions::new().lock(false).direct(DirectMode::Direct);
    let refused = shard.open(&device.path(), &reader).unwrap_err();
    assert!(
        matches!(
            refused,
            EngineError::Open(OpenError::LostData { errno: Errno::EIO, .. })
                | EngineError::Open(OpenError::Unexamined { errno: Errno::EIO, .. })
        ),
        "{refused}"
    );
    let middle = half * 512;
    let mut batch = shard.batch::<32, AlignedBuf>();
    let offset = |entry: u64| middle - 16 * 8192 + entry * 8192;
    for entry in 0..32 {
        batch.push_write(&file, offset(entry), page(7)).unwrap();
    }
    block_on(&shard, batch.run()).unwrap();
    for entry in 0..32 {
        let result = batch.take(usize::try_from(entry).unwrap()).unwrap().result;
        if offset(entry) < middle {
            result.unwrap();
            assert_eq!(read(&shard, &file, offset(entry)), 7);
        } else {
            let error = result.unwrap_err();
            assert_eq!((error.offset_bytes, error.error), (offset(entry), EIO_ERROR));
        }
    }
    // Neighbours are joined into one op, which fails; each is told what became of it alone.
    let push =
        |entry: u64| batch.push_write(&file, middle - 4 * 4096 + entry * 4096, page(8)).unwrap();
    let pushed: Vec<usize> = (0..8).map(push).collect();
    block_on(&shard, batch.run()).unwrap();
    for (entry, index) in pushed.into_iter().enumerate() {
        let result = batch.take(index).unwrap().result;
        assert_eq!(result.is_ok(), entry < 4, "{entry}: {result:?}");
    }
    assert!(!file.is_poisoned());
}

/// A few sectors are bad. A read of much more loses those, and no others.
#[test]
fn f43_read_over_bad_sectors_loses_only_their_blocks() {
    let Some(guest) = Guest::alone() else { return };
    for (variable, block) in [("MFIO_NVME512", 512), ("MFIO_NVME4K", 4096)] {
        let Some(under) = guest.device(variable) else { return };
        let shard = kernel_shard();
        let (at, bad) = (under.display(), 4096 + 40);
        let sectors = block / 512;
        let device = Mapped::linear("mfio-bad", &under, 0, SECTORS);
        let file = shard.open(&device.path(), &destructive(DirectMode::Direct)).unwrap();
        let mut contents = AlignedBuf::new(256 << 10, 4096);
        for (number, chunk) in contents.chunks_mut(512).enumerate() {
            chunk.fill(u8::try_from(number % 251).unwrap());
        }
        let base = 4096 * 512;
        let (done, contents) = block_on(&shard, file.write_all_at(base, contents)).unwrap();
        done.unwrap();
        let after = bad + sectors;
        device.change(&format!(
            "0 {bad} linear {at} 0\n{bad} {sectors} error\n{after} {} linear {at} {after}",
            SECTORS - after
        ));
        let buffer = AlignedBuf::new(256 << 10, 4096);
        let done = block_on(&shard, file.io(base, Packet::<Read, _>::new(buffer))).unwrap();
        let failed = done.failed_ranges();
        println!("{variable}: {failed:?}");
        assert!(failed.iter().all(|range| range.error == EIO_ERROR));
        let lost = (bad * 512 - base, (bad + sectors) * 512 - base);
        assert_eq!(failed.iter().map(|range| range.end - range.start).sum::<u64>(), block);
        assert!(failed.iter().all(|range| lost.0 <= range.start && range.end <= lost.1));
        let bytes = done.into_buffer();
        let whole = |&(at, _): &(usize, _)| !(lost.0..lost.1).contains(&(at as u64));
        let mut wrong = bytes.iter().zip(contents.iter()).enumerate().filter(whole);
        assert!(wrong.all(|(_, (is, was))| is == was));
    }
}

const LOG: WalConfig =
    WalConfig { segment_bytes: 1 << 20, block_bytes_max: 16 << 10, ..WalConfig::new() };

/// The device loses every write from some moment on, and says nothing: so does a cache whose
/// power fails. What was acknowledged before that is there afterwards, and what is there is a
/// beginning of what was appended.
#[test]
fn f38_log_on_a_device_that_drops_its_writes_keeps_what_was_acknowledged_before() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME512") else { return };
    let zeroes = std::fs::OpenOptions::new().write(true).open(&under).unwrap();
    let all_of_it = vec![0; usize::try_from(SECTORS * 512).unwrap()];
    std::os::unix::fs::FileExt::write_all_at(&zeroes, &all_of_it, 0).unwrap();
    zeroes.sync_all().unwrap();
    drop(zeroes);
    let flakey = Flakey::over(&under);
    let record = |number: u64| format!("record {number} {}", "x".repeat((number % 600) as usize));
    let (mut acknowledged, mut appended) = (0_u64, 0_u64);
    for life in 0..6 {
        flakey.works();
        let shard = kernel_shard();
        let file = shard.open(&flakey.mapped.path(), &destructive(DirectMode::Direct)).unwrap();
        file.set_sync_method(SyncMethod::ALL[life % 3]).unwrap();
        let store = PremadeSegments::new(vec![file], 77 + life as u64);
        let mut found = Vec::new();
        let visit = async |_lsn, bytes: &[u8]| {
            found.push(bytes.to_vec());
            Ok(())
        };
        let opened = block_on(&shard, Wal::open(&shard, store, &LOG, visit)).unwrap();
        let (log, report) = opened.unwrap();
        println!("life {life}: {acknowledged} acknowledged, {appended} appended: {report:?}");
        assert!(found.len() as u64 >= acknowledged && found.len() as u64 <= appended);
        for (number, bytes) in (1..).zip(&found) {
            assert_eq!(*bytes, record(number).into_bytes());
        }
        appended = found.len() as u64;
        for _ in 0..40 {
            appended += 1;
            block_on(&shard, log.append(record(appended).as_bytes())).unwrap().unwrap();
        }
        acknowledged = appended;
        flakey.fails_by("drop_writes");
        for _ in 0..10 {
            appended += 1;
            block_on(&shard, log.append(record(appended).as_bytes())).unwrap().unwrap();
        }
    }
}

/// The device fails its writes from some moment on: the log says so, acknowledges nothing
/// more, and the next one finds all that was acknowledged.
#[test]
fn f37_log_on_a_device_that_fails_is_poisoned_and_the_next_one_finds_the_acknowledged() {
    let Some(guest) = Guest::alone() else { return };
    let Some(under) = guest.device("MFIO_NVME4K") else { return };
    let zeroes = vec![0; usize::try_from(SECTORS * 512).unwrap()];
    let device = std::fs::OpenOptions::new().write(true).open(&under).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&device, &zeroes, 0).unwrap();
    device.sync_all().unwrap();
    drop(device);
    let flakey = Flakey::over(&under);
    for method in SyncMethod::ALL {
        flakey.works();
        let shard = kernel_shard();
        let open = || {
            let options = destructive(DirectMode::Direct);
            let file = patiently(&shard, || shard.open(&flakey.mapped.path(), &options));
            file.set_sync_method(method).unwrap();
            PremadeSegments::new(vec![file], 5)
        };
        let opened =
            block_on(&shard, Wal::open(&shard, open(), &LOG, async |_, _| Ok(()))).unwrap();
        let (log, before) = opened.unwrap();
        for number in 0..20_u8 {
            block_on(&shard, log.append(&[number; 100])).unwrap().unwrap();
        }
        flakey.fails_by("error_writes");
        let error = block_on(&shard, log.append(b"not any more")).unwrap().unwrap_err();
        println!("{method:?}: {error}");
        assert!(matches!(error, WalError::Poisoned { .. }));
        flakey.works();
        let error = block_on(&shard, log.append(b"nor now")).unwrap().unwrap_err();
        assert!(matches!(error, WalError::Poisoned { .. }));
        drop(log);
        let opened =
            block_on(&shard, Wal::open(&shard, open(), &LOG, async |_, _| Ok(()))).unwrap();
        let (_log, after) = opened.unwrap();
        assert!((20..=21).contains(&(after.records - before.records)), "{before:?}, {after:?}");
    }
}
