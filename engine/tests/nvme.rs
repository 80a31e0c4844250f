//! NVMe namespaces by commands, and polled I/O, against the rules that every target must pass,
//! on a real driver. Where there is no device, as outside `scripts/guest/run`, a test says so
//! and checks nothing; what polling comes to where it cannot be had is checked anywhere.
//!
//! The devices, which are overwritten: `MFIO_NVME512` and `MFIO_NG512`, `MFIO_NVME4K` and
//! `MFIO_NG4K` (block and character device of one namespace), `MFIO_NULLMEM`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::layer::window::Window;
use mfio_core::{AlignedBuf, ErrorKind, IoBackend, IoWrite, Packet, PacketIoExt, Read, block_on};
use mfio_engine::buffer::{Frames, quarantined};
use mfio_engine::nvme::{Cause, Status};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, Poll, RingKind, Wait};
use mfio_engine::target::{OpenError, TargetKind};
use mfio_engine::{
    Config, DirectMode, Durability, EngineError, File, IoError, OpenOptions, Shard, SyncMethod,
};

/// One test at a time has the devices.
fn alone() -> MutexGuard<'static, ()> {
    static DEVICES: Mutex<()> = Mutex::new(());
    DEVICES.lock().unwrap_or_else(PoisonError::into_inner)
}

fn device(name: &str) -> Option<PathBuf> {
    let in_guest = std::env::var_os("NG_GUEST").is_some();
    let usual = match name {
        "MFIO_NVME512" => "/dev/nvme0n1",
        "MFIO_NG512" => "/dev/ng0n1",
        "MFIO_NVME4K" => "/dev/nvme1n1",
        "MFIO_NG4K" => "/dev/ng1n1",
        _ => "/dev/nullb1",
    };
    let path = std::env::var_os(name).map(PathBuf::from);
    let path = path.or_else(|| in_guest.then(|| PathBuf::from(usual)));
    if path.is_none() {
        println!("SKIP: {name} names no device; scripts/guest/run has them");
    }
    path
}

fn ring(backend: Backend) -> Option<AutoRing> {
    let ring = AutoRing::new(backend, &AutoConfig::new(8));
    ring.map_err(|error| println!("SKIP: {error}")).ok()
}

const BACKENDS: [Backend; 2] = [Backend::RequireRing, Backend::Threads];

fn shard(backend: Backend) -> Option<Shard> {
    let config = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
    Some(Shard::with_ring(ring(backend)?, &config).unwrap())
}

fn writing(poll: Poll) -> OpenOptions {
    let options = OpenOptions::new().direct(DirectMode::Direct).poll(poll);
    options.write(true).allow_device_write(true)
}

/// Opens a target, once the kernel has let go of what was closed before: up to Linux 6.11, and
/// with the ring that is taken apart, that may be a second later.
fn open(shard: &Shard, path: &Path, options: &OpenOptions) -> File {
    for _ in 0..1000 {
        match shard.open(path, options) {
            Err(EngineError::Open(OpenError::DeviceBusy { .. })) => {
                shard.block_on(shard.sleep_ns(10_000_000)).unwrap();
            }
            opened => return opened.unwrap(),
        }
    }
    shard.open(path, options).unwrap()
}

/// Every way to a device that there is here, with what it is called.
fn ways() -> Vec<(String, PathBuf, Backend, Poll)> {
    let mut ways = Vec::new();
    for name in ["MFIO_NG512", "MFIO_NG4K", "MFIO_NVME512", "MFIO_NVME4K", "MFIO_NULLMEM"] {
        let Some(path) = device(name) else { continue };
        for backend in BACKENDS {
            for poll in [Poll::Interrupt, Poll::Polled] {
                let what = format!("{name} {backend:?} {poll:?}");
                ways.push((what, path.clone(), backend, poll));
            }
        }
    }
    ways
}

fn page(fill: u8) -> AlignedBuf {
    let mut page = AlignedBuf::new(4096, 4096);
    page.fill(fill);
    page
}

fn write(file: &File, at: u64, fill: u8) -> Result<(), IoError> {
    block_on(file, file.write_all_at(at, page(fill))).unwrap().0
}

fn read(file: &File, at: u64) -> Result<AlignedBuf, IoError> {
    let (result, page) = block_on(file, file.read_exact_at(at, page(0xee))).unwrap();
    result.map(|()| page)
}

fn holds(file: &File, at: u64, fill: u8) -> bool {
    read(file, at).unwrap().iter().all(|&byte| byte == fill)
}

#[test]
fn f48_every_way_to_a_device_conforms() {
    let _alone = alone();
    // The threads serve a device as they do a file, so they have their turn in the long run only.
    let all = std::env::var_os("MFIO_GUEST_ALL").is_some();
    let shown = |backend: Backend| all || backend == Backend::RequireRing;
    for (what, path, backend, poll) in ways().into_iter().filter(|way| shown(way.2)) {
        println!("{what}");
        let polled = |file: &File| {
            let geometry = file.geometry();
            assert_eq!(geometry.kind == TargetKind::NvmeNamespace, geometry.facts.nvme.is_some());
            u64::from(geometry.offset_align)
        };
        let probe = open(&shard(backend).unwrap(), &path, &writing(poll));
        let write_align = polled(&probe);
        drop(probe);
        let make = |contents: Vec<u8>| {
            let file = open(&shard(backend).unwrap(), &path, &writing(poll));
            // At the very end, so that what lies behind is behind the device.
            let base = file.geometry().len_bytes - contents.len() as u64;
            let window = Window::new(file, base, contents.len() as u64);
            block_on(&window, window.write_exact(0, contents)).unwrap().0.unwrap();
            window
        };
        check_shaped(make, Shape { len: 20_480, read_align: 1, write_align, grows: false });
        assert_eq!(quarantined(), 0);
    }
}

#[test]
fn f48_commands_and_the_block_device_see_the_same_bytes() {
    let _alone = alone();
    for (generic, block) in [("MFIO_NG512", "MFIO_NVME512"), ("MFIO_NG4K", "MFIO_NVME4K")] {
        let (Some(generic), Some(block)) = (device(generic), device(block)) else { return };
        for (turn, backend) in (0..).zip(BACKENDS) {
            let Some(shard) = shard(backend) else { continue };
            for (turn, poll) in (2 * turn..).zip([Poll::Interrupt, Poll::Polled]) {
                let fill = 10 * turn + 1;
                let file = open(&shard, &generic, &writing(poll));
                assert_eq!(file.sync_method().method, SyncMethod::Dsync);
                let (done, _) = block_on(&file, file.write_durable_at(0, page(fill))).unwrap();
                done.unwrap();
                write(&file, 4096, fill + 1).unwrap();
                block_on(&file, file.sync(Durability::Data)).unwrap().unwrap();
                block_on(&file, file.sync(Durability::Full)).unwrap().unwrap();
                let busy = shard.open(&block, &writing(poll)).unwrap_err().to_string();
                assert!(busy.contains("EBUSY"), "{busy}");
                drop(file);
                let file = open(&shard, &block, &writing(poll));
                assert!(holds(&file, 0, fill) && holds(&file, 4096, fill + 1));
                write(&file, 8192, fill + 2).unwrap();
                block_on(&file, file.sync(Durability::Data)).unwrap().unwrap();
                let (done, _) =
                    block_on(&file, file.write_durable_at(12_288, page(fill + 3))).unwrap();
                done.unwrap();
                drop(file);
                let file = shard.open(&generic, &writing(poll).write(false)).err();
                // What writes a device needs is not what reading needs.
                assert!(file.is_some_and(|error| error.to_string().contains("writing")));
                let reading = writing(poll).allow_device_write(false).write(false);
                let file = open(&shard, &generic, &reading);
                assert!(holds(&file, 8192, fill + 2) && holds(&file, 12_288, fill + 3));
                let refused = write(&file, 0, 1).unwrap_err();
                // The kernel would let root: what was opened for reading is not written.
                assert_eq!(refused.error.errno(), Some(libc::EBADF), "{refused}");
                assert!(holds(&file, 8192, fill + 2));
                for refused in [
                    block_on(&file, file.discard(0, 4096)).unwrap().unwrap_err(),
                    block_on(&file, file.write_zeroes(0, 4096)).unwrap().unwrap_err(),
                ] {
                    assert_eq!(refused.error.errno(), Some(libc::EBADF), "{refused}");
                }
                assert!(holds(&file, 0, fill));
            }
        }
    }
}

/// Runs `dd` past the page cache, in blocks of 4096 bytes, over `input`; what it puts out.
fn dd(args: &[String], input: &[u8]) -> Vec<u8> {
    let mut dd = Command::new("dd");
    dd.args(["bs=4096", "status=none"]).args(args);
    dd.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dd = dd.spawn().unwrap();
    // Less than a pipe holds, so it is written whether `dd` reads it or not.
    let _closed = dd.stdin.take().unwrap().write_all(input);
    let done = dd.wait_with_output().unwrap();
    assert!(done.status.success(), "dd {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// Four pages that are not each other's, nor another `seed`'s.
fn pages(seed: u8) -> AlignedBuf {
    let mut pages = AlignedBuf::new(4 * 4096, 4096);
    for (at, byte) in pages.iter_mut().enumerate() {
        *byte = seed.wrapping_add(at.to_le_bytes()[0]).wrapping_mul(at.to_le_bytes()[1] | 1);
    }
    pages
}

#[test]
fn f48_commands_and_dd_see_the_same_bytes() {
    let _alone = alone();
    for (generic, block) in [("MFIO_NG512", "MFIO_NVME512"), ("MFIO_NG4K", "MFIO_NVME4K")] {
        let (Some(generic), Some(block)) = (device(generic), device(block)) else { return };
        let name = block.display();
        for (turn, backend) in (0..).zip(BACKENDS) {
            let Some(shard) = shard(backend) else { continue };
            for (turn, poll) in (2 * turn..).zip([Poll::Interrupt, Poll::Polled]) {
                let ours = pages(8 * turn + 1);
                let file = open(&shard, &generic, &writing(poll));
                let at = u64::from(turn) * 65_536;
                let (done, ours) = block_on(&file, file.write_durable_at(at, ours)).unwrap();
                done.unwrap();
                drop(file);
                let from = [
                    format!("if={name}"),
                    format!("skip={}", at / 4096),
                    "count=4".to_owned(),
                    "iflag=direct".to_owned(),
                ];
                assert!(dd(&from, &[]) == ours[..], "{name} {poll:?}: dd read what we wrote");
                let theirs = pages(8 * turn + 5);
                let to = [
                    format!("of={name}"),
                    format!("seek={}", at / 4096 + 1),
                    "iflag=fullblock".to_owned(),
                    "oflag=direct".to_owned(),
                    "conv=notrunc,fsync".to_owned(),
                ];
                dd(&to, &theirs);
                let reading = writing(poll).allow_device_write(false).write(false);
                let file = open(&shard, &generic, &reading);
                let buffer = AlignedBuf::new(5 * 4096, 4096);
                let (done, found) = block_on(&file, file.read_exact_at(at, buffer)).unwrap();
                done.unwrap();
                assert!(found[..4096] == ours[..4096], "{name} {poll:?}: what dd left");
                assert!(found[4096..] == theirs[..], "{name} {poll:?}: we read what dd wrote");
            }
        }
    }
}

#[test]
fn f48_namespace_compares_and_copies_by_itself() {
    let _alone = alone();
    for (what, path, backend, poll) in ways() {
        let shard = shard(backend).unwrap();
        let file = open(&shard, &path, &writing(poll));
        if file.geometry().kind != TargetKind::NvmeNamespace {
            let submitted = shard.metrics().submitted;
            refuses_what_a_device_does_alone(&file);
            assert_eq!(shard.metrics().submitted, submitted, "{what}: before any I/O");
            continue;
        }
        let nvme = file.geometry().facts.nvme.unwrap();
        println!("{what}: compare {}, copy {} blocks", nvme.compare, nvme.copy_blocks_max);
        assert!(nvme.compare && nvme.copy_blocks_max > 0);
        // More than one command copies, of blocks of 512 bytes.
        let (from, to, len) = (0, 1 << 20, 40 * 4096_u64);
        for (at, fill) in (0..40_u64).zip(1..) {
            write(&file, from + at * 4096, fill).unwrap();
        }
        for beside in [to - 4096, to + len] {
            write(&file, beside, 0x77).unwrap();
        }
        let same = |at, fill| block_on(&file, file.compare_at(at, arena_page(&shard, fill)));
        let (first, buffer) = same(from, 1).unwrap();
        assert_eq!((first, buffer.map(|buffer| buffer[0])), (Ok(true), Some(1)));
        assert_eq!(same(from, 2).unwrap().0, Ok(false));
        assert_eq!(same(from + 4096, 2).unwrap().0, Ok(true));
        block_on(&file, file.copy_within(from, len, to)).unwrap().unwrap();
        for (at, fill) in (0..40_u64).zip(1..) {
            assert!(holds(&file, to + at * 4096, fill), "{what}: page {at}");
        }
        assert!(holds(&file, to - 4096, 0x77) && holds(&file, to + len, 0x77), "{what}: beside");
        let end = file.geometry().len_bytes;
        let kind = |error: IoError| error.error.kind();
        for (from, len, to, expected) in [
            (0, 8192, 4096, ErrorKind::OutOfRange),
            (end - 4096, 8192, 0, ErrorKind::OutOfRange),
            (0, 8192, end - 4096, ErrorKind::OutOfRange),
            (u64::MAX - 4095, 4096, 0, ErrorKind::OutOfRange),
            (100, 4096, 65_536, ErrorKind::Misaligned),
        ] {
            let refused = block_on(&file, file.copy_within(from, len, to)).unwrap();
            assert_eq!(kind(refused.unwrap_err()), expected, "{from} to {to}");
        }
        assert_eq!(kind(same(end, 1).unwrap().0.unwrap_err()), ErrorKind::OutOfRange);
        assert_eq!(kind(same(100, 1).unwrap().0.unwrap_err()), ErrorKind::Misaligned);
        assert!(!file.is_poisoned());
        drop(file);

        let reading = writing(poll).allow_device_write(false).write(false);
        let file = open(&shard, &path, &reading);
        let same = block_on(&file, file.compare_at(to, arena_page(&shard, 1))).unwrap().0;
        assert_eq!(same, Ok(true), "{what}: who reads may compare");
        let refused = block_on(&file, file.copy_within(0, 4096, 65_536)).unwrap().unwrap_err();
        assert_eq!(refused.error.errno(), Some(libc::EBADF), "{refused}");
        drop(file);

        // The same namespace behind a controller that can neither.
        let opened = mfio_engine::target::open(&path, &reading).unwrap();
        let mut geometry = opened.geometry;
        let facts = geometry.facts.nvme.as_mut().unwrap();
        (facts.compare, facts.copy_blocks_max) = (false, 0);
        let file = shard.adopt("a lesser controller", opened.file, geometry);
        refuses_what_a_device_does_alone(&file);
    }
}

fn refuses_what_a_device_does_alone(file: &File) {
    let page = arena_page(file.shard(), 1);
    let (compared, page) = block_on(file, file.compare_at(0, page)).unwrap();
    let copied = block_on(file, file.copy_within(0, 4096, 65_536)).unwrap();
    assert!(page.is_some(), "the buffer comes back");
    for refused in [compared.map(drop), copied] {
        assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::Unsupported);
    }
}

#[test]
fn f48_what_a_namespace_lacks_is_said_as_a_block_device_says_it() {
    let _alone = alone();
    for (what, path, backend, poll) in ways() {
        let shard = shard(backend).unwrap();
        let file = open(&shard, &path, &writing(poll));
        let end = file.geometry().len_bytes;
        println!("{what}: {}", file.geometry());
        write(&file, end - 4096, 7).unwrap();
        // Across the end, as much as there is.
        let long = AlignedBuf::new(8192, 4096);
        let (crossing, _) = block_on(&file, file.read_exact_at(end - 4096, long)).unwrap();
        let crossing = crossing.unwrap_err();
        assert_eq!((crossing.error.kind(), crossing.done_bytes), (ErrorKind::UnexpectedEof, 4096));
        let behind = read(&file, end).unwrap_err();
        assert_eq!(behind.error.kind(), ErrorKind::UnexpectedEof);
        let long = AlignedBuf::new(8192, 4096);
        let (crossing, _) = block_on(&file, file.write_all_at(end - 4096, long)).unwrap();
        let crossing = crossing.unwrap_err();
        assert_eq!((crossing.error.kind(), crossing.done_bytes), (ErrorKind::NoSpace, 4096));
        assert_eq!(write(&file, end, 1).unwrap_err().error.kind(), ErrorKind::NoSpace);
        assert!(holds(&file, end - 4096, 0));
        let block = u64::from(file.geometry().offset_align);
        let (odd, _) = block_on(&file, file.write_all_at(block / 2, page(1))).unwrap();
        assert_eq!(odd.unwrap_err().error.kind(), ErrorKind::Misaligned);
        assert!(!file.is_poisoned());
    }
}

#[test]
fn ranges_of_any_length_are_zeroed_and_discarded() {
    let _alone = alone();
    for (what, path, backend, poll) in ways() {
        println!("{what}");
        let shard = shard(backend).unwrap();
        let file = open(&shard, &path, &writing(poll));
        let end = file.geometry().len_bytes;
        // More blocks of 512 bytes than one command takes.
        let len = 80 << 20;
        for at in [0, 4096, len - 4096, len] {
            write(&file, at, 9).unwrap();
        }
        block_on(&file, file.write_zeroes(4096, len - 4096)).unwrap().unwrap();
        assert!(holds(&file, 0, 9) && holds(&file, len, 9), "beside the range");
        assert!(holds(&file, 4096, 0) && holds(&file, len - 4096, 0));
        write(&file, 8192, 9).unwrap();
        match block_on(&file, file.discard(8192, len)).unwrap() {
            Ok(()) => {}
            Err(error) => {
                assert!(what.contains("NULL"), "{what}: {error}");
                assert_eq!(error.error.kind(), ErrorKind::Unsupported, "{error}");
            }
        }
        assert!(holds(&file, 0, 9) && holds(&file, len + 8192, 0) || what.contains("NULL"));
        let far = block_on(&file, file.discard(end - 4096, 8192)).unwrap().unwrap_err();
        assert_eq!(far.error.kind(), ErrorKind::OutOfRange);
        for refused in [
            block_on(&file, file.preallocate(0, 4096)).unwrap(),
            block_on(&file, file.punch_hole(0, 4096)).unwrap(),
            block_on(&file, file.set_len(4096)).unwrap(),
        ] {
            assert_eq!(refused.unwrap_err().error.kind(), ErrorKind::Unsupported);
        }
        // A chain of them is done in order, though nothing is linked.
        let chain = file.chain().write_at(0, arena_page(&shard, 5)).sync(Durability::Data);
        let chain = chain.write_at(4096, arena_page(&shard, 6)).sync(Durability::Data);
        block_on(&file, chain.commit()).unwrap().0.unwrap();
        assert!(holds(&file, 0, 5) && holds(&file, 4096, 6));
        // So is a batch of neighbours, whose memory is anywhere.
        let atomic = file.atomic_unit();
        if let Some(unit) = atomic.filter(|unit| unit.min_bytes <= 4096 && unit.max_bytes >= 4096) {
            let done = block_on(&file, file.write_atomic_at(8192, page(3))).unwrap().0;
            assert!(done.is_ok(), "{unit:?}: {done:?}");
            assert!(holds(&file, 8192, 3));
        }
    }
}

fn arena_page(shard: &Shard, fill: u8) -> mfio_engine::buffer::ArenaBuf {
    let mut page = shard.arena().alloc(4096).unwrap();
    page.fill(fill);
    page
}

#[test]
fn f48_status_of_the_device_is_in_the_error() {
    let _alone = alone();
    for name in ["MFIO_NG512", "MFIO_NG4K"] {
        let Some(path) = device(name) else { return };
        for backend in BACKENDS {
            let Some(shard) = shard(backend) else { continue };
            let options = writing(Poll::Interrupt);
            let opened = (0..1000).find_map(|_| match mfio_engine::target::open(&path, &options) {
                Err(OpenError::DeviceBusy { .. }) => {
                    shard.block_on(shard.sleep_ns(10_000_000)).unwrap();
                    None
                }
                opened => Some(opened.unwrap()),
            });
            let opened = opened.unwrap();
            // As if it had been made smaller since.
            let mut geometry = opened.geometry;
            let end = geometry.len_bytes;
            let mut facts = geometry.facts.nvme.unwrap();
            facts.blocks += 1 << 20;
            geometry.facts.nvme = Some(facts);
            let file = shard.adopt("longer than it is", opened.file, geometry);
            for result in [read(&file, end).map(drop), write(&file, end, 1)] {
                let error = result.unwrap_err();
                let status = Status::from_bits(error.error.device_status().unwrap());
                assert_eq!(status.cause(), Cause::OutOfRange);
                assert_eq!(error.error.errno(), Some(libc::EREMOTEIO));
                let text = error.to_string();
                assert!(text.contains("NVMe status 0x0/0x80: LBA out of range"), "{text}");
            }
            let (done, _) = block_on(&file, file.write_durable_at(end, page(1))).unwrap();
            let error = done.unwrap_err();
            assert!(error.to_string().contains("LBA out of range"), "{error}");
            assert!(write(&file, 0, 1).is_err() == file.is_poisoned());
        }
    }
}

/// A file that cannot be polled for, where nothing else is to be had: on a file system here.
fn plain_file() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("plain");
    std::fs::write(&path, vec![7; 1 << 20]).unwrap();
    (directory, path)
}

/// The ways to the devices, and to a file of this machine.
fn everywhere(directory: &tempfile::TempDir) -> Vec<(String, PathBuf, Backend, Poll)> {
    let path = directory.path().join("plain");
    let here = BACKENDS.map(|backend| ("a file".to_owned(), path.clone(), backend, Poll::Polled));
    let mut all = ways();
    all.extend(here.into_iter().filter(|(_, _, backend, _)| ring(*backend).is_some()));
    all
}

#[test]
fn f34_file_that_cannot_be_polled_for_goes_by_interrupt() {
    let _alone = alone();
    let (_directory, path) = plain_file();
    for backend in BACKENDS {
        let Some(shard) = shard(backend) else { continue };
        let refused = shard.open(&path, &OpenOptions::new().poll(Poll::Polled)).unwrap_err();
        assert!(refused.to_string().contains("direct I/O"), "{refused}");
        let file = shard.open(&path, &writing(Poll::Polled).allow_device_write(false));
        let file = match file {
            Ok(file) => file,
            Err(error) => panic!("{error}"),
        };
        for turn in 0..3 {
            write(&file, turn * 4096, 3).unwrap();
            assert!(holds(&file, turn * 4096, 3) && holds(&file, 512 << 10, 7));
            let (done, _) = block_on(&file, file.write_durable_at(65_536, page(4))).unwrap();
            done.unwrap();
        }
        let degraded = shard.features().degraded;
        let told = degraded.iter().filter(|text| text.contains("poll")).count();
        // Said once, and not at all where the kernel does poll for such a file.
        assert!(told <= 1, "{degraded:?}");
        if shard.features().kind == RingKind::Threads {
            assert_eq!(told, 1, "{degraded:?}");
        }
        println!("{backend:?}: {degraded:?}");
        assert!(shard.metrics().retries <= 8, "{:?}", shard.metrics());
        block_on(&file, file.sync(Durability::Full)).unwrap().unwrap();
    }
}

/// Devices have queues to poll; whether the kernel pauses before it does is for it to say.
#[test]
fn f34_device_is_polled_after_a_pause_where_the_kernel_can() {
    let _alone = alone();
    for name in ["MFIO_NG4K", "MFIO_NVME512", "MFIO_NULLMEM"] {
        let Some(path) = device(name) else { return };
        let shard = shard(Backend::RequireRing).unwrap();
        let file = open(&shard, &path, &writing(Poll::Hybrid));
        for at in 0..16_u8 {
            write(&file, u64::from(at) * 4096, at + 1).unwrap();
        }
        for at in 0..16_u8 {
            assert!(holds(&file, u64::from(at) * 4096, at + 1), "{name}: page {at}");
        }
        let (done, _) = block_on(&file, file.write_durable_at(0, page(99))).unwrap();
        done.unwrap();
        assert!(holds(&file, 0, 99));
        let features = shard.features();
        let pauses = features.in_use.contains(&"HYBRID_IOPOLL");
        let told = features.degraded.iter().filter(|text| text.contains("Linux 6.13")).count();
        println!("{name}: polled, after a pause: {pauses}");
        assert_eq!(told, usize::from(!pauses), "{features:?}");
        let refused = features.degraded.iter().any(|text| text.contains("refused polled I/O"));
        assert!(!refused, "{features:?}");
    }
}

#[test]
fn neighbours_whose_memory_is_anywhere_are_one_command() {
    let _alone = alone();
    let (directory, _) = plain_file();
    for (what, path, backend, poll) in everywhere(&directory) {
        let shard = shard(backend).unwrap();
        let file = open(&shard, &path, &writing(poll).allow_device_write(what != "a file"));
        for round in 0..4_u8 {
            let mut batch = shard.batch::<8, AlignedBuf>();
            for at in 0..8_u8 {
                batch.push_write(&file, u64::from(at) * 4096, page(at + round)).unwrap();
            }
            block_on(&shard, batch.run()).unwrap();
            while let Some(done) = batch.reap() {
                done.result.unwrap();
            }
            for at in 0..8_u8 {
                batch.push_read(&file, u64::from(at) * 4096, page(0xee)).unwrap();
            }
            block_on(&shard, batch.run()).unwrap();
            while let Some(done) = batch.reap() {
                done.result.unwrap();
                let fill = done.buffer[0];
                assert!((round..8 + round).contains(&fill), "{what}");
                assert!(done.buffer.iter().all(|&byte| byte == fill), "{what}");
            }
        }
        let metrics = shard.metrics();
        println!("{what}: {} coalesced, {} not", metrics.coalesced, metrics.uncoalesced);
        assert!(metrics.coalesced >= 64 && (metrics.uncoalesced <= 8 || what == "a file"));
    }
}

#[test]
fn f28_host_hears_of_every_completion() {
    let _alone = alone();
    let (directory, _) = plain_file();
    for (what, path, backend, poll) in everywhere(&directory) {
        let shard = shard(backend).unwrap();
        let device = writing(poll).allow_device_write(what != "a file");
        let file = open(&shard, &path, &device);
        assert!(shard.poll_fd().is_some());
        let mut waits = 0;
        let again = Arc::new(Again::default());
        let waker = Waker::from(Arc::clone(&again));
        for round in 0..200_u64 {
            let packet = Packet::<Read, _>::new(page(0));
            let mut read = pin!(file.io(round % 64 * 4096, packet));
            let mut cx = Context::from_waker(Waker::noop());
            while read.as_mut().poll(&mut cx).is_pending() {
                let driver = shard.get_backend().unwrap().unwrap();
                driver.poll_drive(&mut Context::from_waker(&waker));
                drop(driver);
                if again.0.swap(false, Ordering::AcqRel) || shard.is_idle() {
                    continue;
                }
                assert!(readable(&shard), "{what}: round {round}: the host was not told");
                waits += 1;
            }
            if round % 16 == 0 {
                // Blocked on in between, it waits in the ring and hears of it there.
                assert!(shard.block_on(file.read_exact_at(0, page(1))).unwrap().0.is_ok());
            }
        }
        println!("{what}: {waits} waits of the host");
    }
}

/// A host's own queue: the shard asked to be driven again.
#[derive(Default)]
struct Again(AtomicBool);

impl Wake for Again {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whether the descriptor of the shard becomes readable within 5 s.
fn readable(shard: &Shard) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let fd = shard.poll_fd().unwrap();
    let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(5000_u16)).unwrap() == 1
}

#[test]
fn f28_wakes_from_elsewhere_end_a_wait_beside_companions() {
    let _alone = alone();
    let (directory, _) = plain_file();
    for (what, path, backend, poll) in everywhere(&directory) {
        let shard = shard(backend).unwrap();
        let device = writing(poll).allow_device_write(what != "a file");
        let file = open(&shard, &path, &device);
        let remote = shard.remote();
        let path = directory.path().join("plain");
        let (_sender, never) = channel::<()>();
        let elsewhere = std::thread::spawn(move || {
            // The way that the first of the targets goes with it (F45).
            let options = OpenOptions::new().lock(false).direct(DirectMode::PreferDirect);
            let open = remote.open(&path, &options);
            let file = block_on(&remote, open).unwrap().unwrap();
            for round in 0..100_u64 {
                if round % 10 == 0 {
                    let _timeout = never.recv_timeout(Duration::from_millis(3));
                }
                block_on(&file, file.read_exact_at(round * 512, vec![0; 512])).unwrap().0.unwrap();
            }
        });
        let own = shard.clone();
        shard
            .block_on(async {
                while !elsewhere.is_finished() {
                    file.read_exact_at(4096, page(0)).await.0.unwrap();
                    own.sleep_ns(200_000).await;
                }
            })
            .unwrap();
        elsewhere.join().unwrap();
        println!("{what}");
    }
}

/// CPU time of this thread in nanoseconds, as the scheduler counts it.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    stat.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn idle_shard_beside_companions_uses_no_processor() {
    let _alone = alone();
    let (directory, _) = plain_file();
    for (what, path, backend, poll) in everywhere(&directory) {
        let shard = shard(backend).unwrap();
        let device = writing(poll).allow_device_write(what != "a file");
        let file = open(&shard, &path, &device);
        read(&file, 0).unwrap();
        let remote = shard.remote();
        // Something to be waited for, and a wake that came while nothing slept.
        read(&file, 4096).unwrap();
        drop(remote);
        let before_ns = cpu_ns();
        let sleep = shard.sleep_ns(400_000_000);
        shard.block_on(sleep).unwrap();
        let used_ns = cpu_ns() - before_ns;
        println!("{what}: idle for 400 ms: {} µs of CPU time", used_ns / 1000);
        assert!(used_ns < 100_000_000, "{what}: {used_ns} ns");
    }
}

#[test]
fn f02_shutdown_waits_for_what_companions_have_in_flight() {
    let _alone = alone();
    let (directory, _) = plain_file();
    for (what, path, backend, poll) in everywhere(&directory) {
        // A kernel takes its time to take the ring of a device apart, which the next open needs.
        let rounds = if what == "a file" { 20 } else { 6 };
        for round in 0..rounds {
            let shard = shard(backend).unwrap();
            let device = writing(poll).allow_device_write(what != "a file");
            let file = open(&shard, &path, &device);
            let mut cx = Context::from_waker(Waker::noop());
            let mut reads: Vec<_> = (0..8)
                .map(|at| Box::pin(file.read_exact_at((round + at) % 64 * 4096, page(0))))
                .collect();
            for read in &mut reads {
                let _pending = read.as_mut().poll(&mut cx);
            }
            if round % 2 == 0 {
                shard.turn(Wait::NONE).unwrap();
            }
            if round % 3 == 0 {
                drop(reads);
                drop(file);
                drop(shard);
            } else {
                assert_eq!(shard.shutdown(), 0, "{what}");
            }
        }
        assert_eq!(quarantined(), 0);
    }
}

#[test]
fn f08_memory_that_is_registered_later_or_no_more_is_never_taken_for_other() {
    let _alone = alone();
    let (directory, _) = plain_file();
    for (what, path, backend, poll) in everywhere(&directory) {
        let shard = shard(backend).unwrap();
        let early = Frames::new(AlignedBuf::new(16 * 4096, 4096), 4096).unwrap();
        let before = Frames::new(AlignedBuf::new(16 * 4096, 4096), 4096).unwrap();
        shard.register(&early);
        shard.register(&before);
        // A gap in the table that the companion clones.
        shard.unregister(&early).unwrap();
        let device = writing(poll).allow_device_write(what != "a file");
        let file = open(&shard, &path, &device);
        let late = Frames::new(AlignedBuf::new(16 * 4096, 4096), 4096).unwrap();
        for round in 1..4_u8 {
            shard.register(&late);
            for (pool, place) in [(&before, 0_u64), (&late, 16), (&early, 32)] {
                for at in 0..8_u8 {
                    let mut frame = pool.frame(at.into()).unwrap();
                    frame.fill(at + 10 * round);
                    let offset = (place + u64::from(at)) * 4096;
                    let (done, _) = block_on(&file, file.write_all_at(offset, frame)).unwrap();
                    done.unwrap();
                }
                for at in 0..8_u8 {
                    let offset = (place + u64::from(at)) * 4096;
                    let frame = pool.frame(8 + usize::from(at)).unwrap();
                    let (done, frame) = block_on(&file, file.read_exact_at(offset, frame)).unwrap();
                    done.unwrap();
                    assert!(frame.iter().all(|&byte| byte == at + 10 * round), "{what}");
                }
            }
            shard.unregister(&late).unwrap();
            if round == 2 {
                shard.unregister(&before).unwrap();
            }
        }
    }
}
