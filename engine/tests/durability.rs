//! How writes become durable on real files: levels, methods, and what a failed flush does.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::path::{Path, PathBuf};

use mfio_core::{ErrorKind, IoWrite, Packet, PacketIoExt, Write, block_on};
use mfio_engine::fs::ShardFs;
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::sim::{FaultRates, FileSpec, SimConfig, SimDevice, SimRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::target::{Inode, OpenError};
use mfio_engine::{
    AtomicWrite, Config, DirectMode, Durability, Durable, EngineError, MethodReport, OpenOptions,
    Shard, SyncMethod, SyncSource, WriteAt,
};
use mfio_rt::{FileHandle, Fs, SyncLevel};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

fn kernel_ring() -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(64))
        .map_err(|error| println!("SKIP kernel ring: {error}; the thread ring runs the same"))
        .ok()
}

fn writable(direct: DirectMode) -> OpenOptions {
    OpenOptions { write: true, create: true, direct, ..OpenOptions::default() }
}

fn levels<R: Ring>(ring: R, name: &str, direct: DirectMode) {
    let path = path(name);
    std::fs::write(&path, vec![0; 256 << 10]).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let file = shard.open(&path, &writable(direct)).unwrap();
    let is_direct = file.geometry().direct;
    let mut byte = 0;
    for method in SyncMethod::ALL {
        let chosen = file.set_sync_method(method);
        assert_eq!(chosen.is_err(), method == SyncMethod::Dsync && !is_direct);
        for level in [Durability::None, Durability::Data, Durability::Full, Durability::Fua] {
            byte += 1;
            let mut page = shard.arena().alloc(4096).unwrap();
            page.fill(byte);
            let before = shard.metrics().flushes;
            let at = WriteAt::new(u64::from(byte) * 4096).durability(level);
            let done = block_on(&shard, file.io(at, Packet::<Write, _>::new(page))).unwrap();
            let flushes = shard.metrics().flushes - before;
            if level == Durability::Fua && !is_direct {
                assert_eq!(done.result().unwrap_err().kind(), ErrorKind::Unsupported);
                continue;
            }
            done.result().unwrap();
            let by_itself = level == Durability::Fua
                || (level == Durability::Data && file.sync_method().method == SyncMethod::Dsync);
            let expected = u64::from(level != Durability::None && !by_itself);
            assert_eq!(flushes, expected, "{level:?} by {method:?}");
            let seen = std::fs::read(&path).unwrap();
            assert_eq!(seen[usize::from(byte) * 4096 + 4095], byte);
        }
    }
    block_on(&shard, file.sync(Durability::None)).unwrap().unwrap();
    block_on(&shard, file.sync(Durability::Fua)).unwrap().unwrap();
    drop((file, shard));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn every_level_is_kept_by_every_method_on_both_rings() {
    levels(ThreadRing::new(2, 64).unwrap(), "levels-threads", DirectMode::Buffered);
    levels(ThreadRing::new(2, 64).unwrap(), "levels-threads-direct", DirectMode::PreferDirect);
    if let Some(ring) = kernel_ring() {
        levels(ring, "levels-kernel", DirectMode::PreferDirect);
    }
}

#[test]
fn first_durable_write_measures_and_later_targets_reuse_it() {
    let Some(ring) = kernel_ring() else { return };
    let (one, two) = (path("measured-1"), path("measured-2"));
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let file = shard.open(&one, &writable(DirectMode::PreferDirect)).unwrap();
    assert_eq!(file.sync_method().source, SyncSource::Facts);
    let mut page = shard.arena().alloc(4096).unwrap();
    page.fill(1);
    let (written, page) = block_on(&shard, file.write_durable_at(0, page)).unwrap();
    written.unwrap();
    let report = file.sync_method();
    println!("{report:?}");
    assert_eq!(std::fs::metadata(&one).unwrap().len(), 4096, "the user's file was not measured on");
    if report.source == SyncSource::Measured {
        let took = |at: usize| matches!(report.methods[at], MethodReport::Took { .. });
        assert!(took(0) && took(1) && (took(2) || !file.geometry().direct));
        let other = shard.open(&two, &writable(DirectMode::PreferDirect)).unwrap();
        let ops = shard.metrics().ops;
        let (written, _) = block_on(&shard, other.write_durable_at(0, page)).unwrap();
        written.unwrap();
        assert_eq!(other.sync_method(), report);
        assert!(shard.metrics().ops - ops <= 2, "nothing is measured twice");
        drop(other);
        std::fs::remove_file(two).unwrap();
    } else {
        println!("SKIP: {:?}", report.unmeasured);
    }
    // The caller's word is what counts. Through the page cache now, so not past it (F45).
    drop(file);
    let chosen = writable(DirectMode::Buffered).lock(false).sync_method(Some(SyncMethod::Dsync));
    assert!(shard.open(&one, &chosen).is_err(), "RWF_DSYNC needs direct I/O");
    let chosen = chosen.sync_method(Some(SyncMethod::WriteThenFlush));
    let file = shard.open(&one, &chosen).unwrap();
    assert_eq!(file.sync_method().source, SyncSource::Chosen);
    std::fs::remove_file(one).unwrap();
}

const INODE: Inode = Inode { device: u64::MAX, number: 1, special: 0 };

#[test]
fn f37_failed_flush_on_one_shard_poisons_the_handles_of_every_other() {
    let spec = FileSpec::direct(64 << 10);
    let device = SimDevice::new(&[spec]);
    let rates = FaultRates { flush_fail: u16::MAX, ..FaultRates::NONE };
    let failing = SimConfig { faults: rates, ..SimConfig::calm(1) };
    let shard = |config| Shard::with_ring(SimRing::new(config, &device), &Config::new()).unwrap();
    let (bad, good) = (shard(failing), shard(SimConfig::calm(2)));
    let open = |shard: &Shard<SimRing>, number| {
        let inode = Inode { number, ..INODE };
        shard.adopt_simulated_inode("shared", device.fd(0), device.geometry(0), inode)
    };
    let (here, there, elsewhere) = (open(&bad, 1), open(&good, 1), open(&good, 2));
    let page = |shard: &Shard<SimRing>| shard.arena().alloc(4096).unwrap();
    block_on(&good, there.write_all_at(0, page(&good))).unwrap().0.unwrap();
    let error = block_on(&bad, here.sync(Durability::Data)).unwrap().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Poisoned);

    assert!(here.is_poisoned() && there.is_poisoned() && !elsewhere.is_poisoned());
    let error = block_on(&good, there.sync(Durability::Data)).unwrap().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Poisoned);
    let (written, _) = block_on(&good, there.write_all_at(0, page(&good))).unwrap();
    assert_eq!(written.unwrap_err().error.kind(), ErrorKind::Poisoned);
    let error = block_on(&good, there.discard(0, 4096)).unwrap().unwrap_err();
    assert_eq!((error.op, error.error.kind()), ("discard", ErrorKind::Poisoned));
    let chain = there.chain().write_at(0, page(&good)).sync(Durability::Data);
    let (result, _) = block_on(&good, chain.commit()).unwrap();
    assert_eq!(result.unwrap_err().io.error.kind(), ErrorKind::Poisoned);
    block_on(&good, there.read_exact_at(0, page(&good))).unwrap().0.unwrap();

    // An open starts afresh; the handles from before do not.
    let again = open(&good, 1);
    block_on(&good, again.write_durable_at(0, page(&good))).unwrap().0.unwrap();
    assert!(there.is_poisoned() && !again.is_poisoned());
}

#[test]
fn f37_failed_write_that_flushes_itself_poisons_like_a_flush() {
    let device = SimDevice::new(&[FileSpec::direct(64 << 10)]);
    let rates = FaultRates { flush_fail: u16::MAX, ..FaultRates::NONE };
    let config = SimConfig { faults: rates, ..SimConfig::calm(1) };
    let shard = Shard::with_ring(SimRing::new(config, &device), &Config::new()).unwrap();
    let file = shard.adopt_simulated("dsync", device.fd(0), device.geometry(0));
    file.set_sync_method(SyncMethod::Dsync).unwrap();
    let page = shard.arena().alloc(4096).unwrap();
    let done = block_on(&shard, file.io(Durable(0), Packet::<Write, _>::new(page))).unwrap();
    assert_eq!(done.result().unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(file.is_poisoned());
    assert_eq!(shard.metrics().flush_failures, 1);
}

#[test]
fn f42_full_device_fails_a_write_that_flushes_itself_and_poisons_nothing() {
    // Space for one page, of two.
    let spec = FileSpec { space_sectors: Some(8), ..FileSpec::direct(64 << 10) };
    let device = SimDevice::new(&[spec]);
    let ring = SimRing::new(SimConfig::calm(1), &device);
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let file = shard.adopt_simulated("dsync", device.fd(0), device.geometry(0));
    file.set_sync_method(SyncMethod::Dsync).unwrap();
    let write = |at| {
        let page = shard.arena().alloc(4096).unwrap();
        block_on(&shard, file.write_durable_at(at, page)).unwrap().0
    };
    write(0).unwrap();
    assert_eq!(write(8192).unwrap_err().error.kind(), ErrorKind::NoSpace);
    assert!(!file.is_poisoned(), "nothing was lost");
    device.add_space(0, 8);
    write(8192).unwrap();
    write(0).unwrap();
}

#[test]
fn f40_atomic_write_survives_power_loss_as_a_whole_or_not_at_all() {
    let mut survived = [0; 2];
    for seed in 0..64 {
        let device = SimDevice::new(&[FileSpec::direct(64 << 10)]);
        let ring = SimRing::new(SimConfig::calm(seed), &device);
        let control = ring.control();
        let shard = Shard::with_ring(ring, &Config::new()).unwrap();
        let file = shard.adopt_simulated("atomic", device.fd(0), device.geometry(0));
        file.assume_atomic(AtomicWrite { min_bytes: 512, max_bytes: 16384, segments_max: 1 });
        let write = |offset, len: usize, address: usize| {
            let mut memory = shard.arena().alloc(32 << 10).unwrap();
            memory.fill(7);
            let packet = Packet::<Write, _>::new(memory[address..address + len].to_vec());
            let done = block_on(&shard, file.io(WriteAt::new(offset).atomic(), packet)).unwrap();
            done.result().map_err(|error| error.kind())
        };
        if seed == 0 {
            assert_eq!(write(0, 12288, 0), Err(ErrorKind::Unsupported));
            assert_eq!(write(4096, 8192, 0), Err(ErrorKind::Misaligned));
            file.assume_atomic(AtomicWrite { min_bytes: 512, max_bytes: 32768, segments_max: 1 });
            assert_eq!(shard.metrics().ops, 0, "refused before anything was issued");
        }
        let mut memory = shard.arena().alloc(16384).unwrap();
        memory.fill(7);
        let mut queue = mfio_core::CompletionQueue::<Write, _>::new();
        queue.send(&file, WriteAt::new(16384).atomic(), Packet::new(memory), 0).unwrap();
        shard.turn(mfio_engine::ring::Wait::NONE).unwrap();
        control.crash();
        let mut seen = [0; 16384];
        device.peek(0, 16384, &mut seen);
        assert!(seen.iter().all(|byte| *byte == seen[0]), "seed {seed} tore it");
        survived[usize::from(seen[0] == 7)] += 1;
        drop(queue);
    }
    assert!(survived[0] > 8 && survived[1] > 8, "{survived:?}");
}

#[test]
fn atomic_write_needs_a_target_that_makes_them() {
    let path = path("atomic");
    std::fs::write(&path, vec![0; 64 << 10]).unwrap();
    let shard = Shard::with_ring(ThreadRing::new(1, 8).unwrap(), &Config::new()).unwrap();
    let file = shard.open(&path, &writable(DirectMode::PreferDirect)).unwrap();
    let mut page = shard.arena().alloc(4096).unwrap();
    page.fill(1);
    let (written, _) = block_on(&shard, file.write_atomic_at(4096, page)).unwrap();
    match file.atomic_unit() {
        Some(unit) => println!("{unit:?}: {written:?}"),
        None => assert_eq!(written.unwrap_err().error.kind(), ErrorKind::Unsupported),
    }
    std::fs::remove_file(path).unwrap();
}

/// An ext4 on a loop device whose memory gives out: writes fit into the page cache, and their
/// write-back fails.
struct FullDisk {
    place: PathBuf,
    device: String,
}

impl FullDisk {
    fn new(name: &str) -> Option<Self> {
        let place = path(name);
        std::fs::create_dir_all(place.join("memory")).ok()?;
        std::fs::create_dir_all(place.join("disk")).ok()?;
        let mut disk = Self { place, device: String::new() };
        run("mount", &["-t", "tmpfs", "-o", "size=8m", "tmpfs", &disk.at("memory")])?;
        let image = disk.at("memory/image");
        run("truncate", &["-s", "64M", &image])?;
        run("mkfs.ext4", &["-q", "-O", "^has_journal", &image])?;
        disk.device = run("losetup", &["-f", "--show", &image])?.trim().to_owned();
        run("mount", &[&disk.device, &disk.at("disk")])?;
        Some(disk)
    }

    fn at(&self, name: &str) -> String {
        self.place.join(name).display().to_string()
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let _unmounted = run("umount", &[&self.at("disk")]);
        if !self.device.is_empty() {
            let _detached = run("losetup", &["-d", &self.device]);
        }
        let _unmounted = run("umount", &[&self.at("memory")]);
    }
}

fn run(program: &str, words: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(words).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn f37_real_failed_flush_poisons_every_handle_until_the_file_is_opened_again() {
    let Some(disk) = FullDisk::new("fsyncgate") else {
        return println!("SKIP: needs root, loop devices, tmpfs and mkfs.ext4");
    };
    let victim = PathBuf::from(disk.at("disk/victim"));
    let here = Shard::with_ring(ThreadRing::new(1, 8).unwrap(), &Config::new()).unwrap();
    let options = writable(DirectMode::Buffered).lock(false);
    let first = here.open(&victim, &options).unwrap();
    // On another thread's shard, on the other ring where there is one.
    let (ask, asked) = std::sync::mpsc::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    let path = victim.clone();
    let other = std::thread::spawn(move || {
        fn watch<R: Ring>(ring: R, path: &Path, tell: &dyn Fn(bool), ask: &dyn Fn()) {
            let shard = Shard::with_ring(ring, &Config::new()).unwrap();
            let options = writable(DirectMode::Buffered).lock(false);
            let file = shard.open(path, &options).unwrap();
            block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();
            tell(file.is_poisoned());
            ask();
            let refused = block_on(&shard, file.sync(Durability::Data)).unwrap().is_err();
            tell(refused && file.is_poisoned());
        }
        let (tell, ask) = (|seen| tell.send(seen).unwrap(), || asked.recv().unwrap());
        match kernel_ring() {
            Some(ring) => watch(ring, &path, &tell, &ask),
            None => watch(ThreadRing::new(1, 8).unwrap(), &path, &tell, &ask),
        }
    });
    assert!(!told.recv().unwrap());
    let (written, _) = block_on(&here, first.write_all_at(0, vec![1_u8; 24 << 20])).unwrap();
    written.unwrap();
    let error = block_on(&here, first.sync(Durability::Data)).unwrap().unwrap_err();
    assert_eq!(error.error.kind(), ErrorKind::Poisoned, "{error}");
    // The kernel would say yes by now, or soon.
    for _ in 0..3 {
        assert!(block_on(&here, first.sync(Durability::Data)).unwrap().is_err());
    }
    ask.send(()).unwrap();
    assert!(told.recv().unwrap(), "the other shard's handle is poisoned");
    other.join().unwrap();

    // An open begins with a flush of its own (F38), which finds out that there is data that
    // will never be there. That is told, and the next open is of those who have heard it.
    let refused = here.open(&victim, &options).unwrap_err();
    let lost = matches!(refused, EngineError::Open(OpenError::LostData { .. }));
    assert!(lost, "{refused}");
    assert!(refused.to_string().contains("the next open will succeed"), "{refused}");
    let again = here.open(&victim, &options).unwrap();
    assert!(!again.is_poisoned() && first.is_poisoned());
    drop((first, again, here));
}

/// A handle that appends does so by a thread, and hears of lost writes all the same.
#[test]
fn f37_handle_that_appends_is_poisoned_with_the_others_of_the_file() {
    let path = path("appended");
    std::fs::write(&path, b"before").unwrap();
    let shard = Shard::with_ring(ThreadRing::new(1, 8).unwrap(), &Config::new()).unwrap();
    let fs = ShardFs::at(&shard, path.parent().unwrap()).unwrap();
    let options = mfio_rt::OpenOptions::new().append(true);
    let log = block_on(&fs, fs.open("appended", &options)).unwrap().unwrap();
    let append = |bytes: &'static [u8]| block_on(&fs, log.write_exact(0, bytes)).unwrap().0;
    append(b", then").unwrap();
    block_on(&fs, log.sync(SyncLevel::Data)).unwrap().unwrap();

    // A flush of the same file fails elsewhere in this process.
    let inode = Inode::of(&std::fs::File::open(&path).unwrap()).unwrap();
    let device = SimDevice::new(&[FileSpec::direct(64 << 10)]);
    let faults = FaultRates { flush_fail: u16::MAX, ..FaultRates::NONE };
    let failing = SimConfig { faults, ..SimConfig::calm(1) };
    let bad = Shard::with_ring(SimRing::new(failing, &device), &Config::new()).unwrap();
    let there = bad.adopt_simulated_inode("appended", device.fd(0), device.geometry(0), inode);
    block_on(&bad, there.sync(Durability::Data)).unwrap().unwrap_err();

    assert!(log.as_file().is_poisoned());
    for level in [SyncLevel::Data, SyncLevel::All] {
        let error = block_on(&fs, log.sync(level)).unwrap().unwrap_err();
        assert_eq!((error.op(), error.kind()), (mfio_rt::Op::Sync, mfio_rt::ErrorKind::Os));
    }
    // As often as there is room for, and more: a refused write takes none.
    for _ in 0..300 {
        assert_eq!(append(b", never").unwrap_err().kind(), ErrorKind::Poisoned);
    }
    assert_eq!(std::fs::read(&path).unwrap(), b"before, then");
    let again = block_on(&fs, fs.open("appended", &options)).unwrap().unwrap();
    block_on(&fs, again.write_exact(0, &b", after"[..])).unwrap().0.unwrap();
    block_on(&fs, again.sync(SyncLevel::All)).unwrap().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"before, then, after");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn f37_real_failed_flush_of_what_was_appended_is_not_forgotten() {
    let Some(disk) = FullDisk::new("fsyncgate-append") else {
        return println!("SKIP: needs root, loop devices, tmpfs and mkfs.ext4");
    };
    let shard = Shard::with_ring(ThreadRing::new(1, 8).unwrap(), &Config::new()).unwrap();
    let fs = ShardFs::at(&shard, Path::new(&disk.at("disk"))).unwrap();
    let options = mfio_rt::OpenOptions::new().append(true).create(true);
    let log = block_on(&fs, fs.open("victim", &options)).unwrap().unwrap();
    block_on(&fs, log.write_exact(0, vec![1_u8; 24 << 20])).unwrap().0.unwrap();
    // The kernel would say yes the second time.
    for _ in 0..3 {
        let error = block_on(&fs, log.sync(SyncLevel::Data)).unwrap().unwrap_err();
        assert_eq!((error.op(), error.kind()), (mfio_rt::Op::Sync, mfio_rt::ErrorKind::Os));
    }
    let (written, _) = block_on(&fs, log.write_exact(0, vec![1_u8; 100])).unwrap();
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Poisoned);
    drop((log, fs, shard));
}

/// Writes record after record, each followed by its mark in the same chain, until the power
/// goes; returns the youngest mark and the oldest sector of the record that are left.
fn marks_after_power_loss(seed: u64) -> (u8, u8) {
    let device = SimDevice::new(&[FileSpec::direct(64 << 10)]);
    // No submit is cut and no flush fails: the order of a chain is the kernel's then.
    let faults = FaultRates { partial_submit: 0, flush_fail: 0, ..FaultRates::HOSTILE };
    let ring = SimRing::new(SimConfig { faults, ..SimConfig::calm(seed) }, &device);
    let control = ring.control();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let file = shard.adopt_simulated("ordered", device.fd(0), device.geometry(0));
    let mut turns = mfio_engine::ring::sim::Random::new(seed).between(1, 120);
    'power: for number in 1..=20_u8 {
        let page = |byte| {
            let mut page = shard.arena().alloc(4096).unwrap();
            page.fill(byte);
            page
        };
        let chain = file.chain().write_at(0, page(number)).sync(Durability::Data);
        let mut chain = Box::pin(chain.write_at(8192, page(number)).commit());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        while chain.as_mut().poll(&mut context).is_pending() {
            if turns == 0 {
                control.crash();
                break 'power;
            }
            turns -= 1;
            let _busy = shard.turn(mfio_engine::ring::Wait::at_least(1));
        }
    }
    control.crash();
    let (mut mark, mut record) = ([0; 4096], [0; 4096]);
    device.peek(0, 8192, &mut mark);
    device.peek(0, 0, &mut record);
    (*mark.iter().max().unwrap(), *record.iter().min().unwrap())
}

#[test]
fn f14_power_loss_never_leaves_a_later_step_without_the_flushed_one_before_it() {
    let mut marked = 0;
    for seed in 0..500 {
        let (mark, record) = marks_after_power_loss(seed);
        assert!(record >= mark, "seed {seed}: mark {mark} stands without its record ({record})");
        marked += u32::from(mark > 0);
    }
    assert!(marked > 250, "only {marked} runs came to a mark");
}
