//! Scarcity on the real ring: everything still works, or fails by name and alone.
//!
//! Limits are set in a child process, which is this binary again. What needs root and a tool
//! (`losetup`, `mount`) says loudly that it was skipped where they are missing.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

#[path = "../src/target/loop_device.rs"]
mod loop_device;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};

use mfio_core::{AlignedBuf, ErrorKind, block_on};
use mfio_engine::buffer::{HugePages, SizeClass};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::{AutoRing, Wait};
use mfio_engine::target::OpenError;
use mfio_engine::{Config, DirectMode, Durability, EngineError, File, IoError, OpenOptions, Shard};

use loop_device::Loop;

const PAGE: usize = 4096;
/// Set in the child that runs one test under its limits.
const CHILD: &str = "MFIO_DEGRADATION_CHILD";

type Kernel = Shard<KernelRing>;

fn shard(config: &KernelConfig, limits: &Config) -> Option<Kernel> {
    match KernelRing::new(config) {
        Ok(ring) => Some(Shard::with_ring(ring, limits).unwrap()),
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    }
}

fn usual() -> Option<Kernel> {
    shard(&KernelConfig::new(64), &Config::new())
}

fn writing(direct: DirectMode) -> OpenOptions {
    OpenOptions { write: true, create: true, direct, ..OpenOptions::default() }
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Runs `test` of this binary again, behind `limits` of the shell and without the right to
/// lock more memory than its limit. True in the child.
fn under(test: &str, limits: &str) -> bool {
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let binary = std::env::current_exe().unwrap();
    let unprivileged = "setpriv --bounding-set -ipc_lock --inh-caps -ipc_lock --";
    let without = Command::new("sh").args(["-c", &format!("{unprivileged} true")]).output();
    // Whoever may not give the right away does not have it either.
    let prefix = if without.is_ok_and(|done| done.status.success()) { unprivileged } else { "" };
    let script = format!("{limits}; exec {prefix} \"$0\" --exact {test} --nocapture");
    let child = Command::new("sh").arg("-c").arg(script).arg(binary).env(CHILD, "1").output();
    let child = child.unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "the child failed");
    false
}

type Written = (Result<(), IoError>, AlignedBuf);
type Pending<'a> = Pin<Box<dyn Future<Output = Written> + 'a>>;

fn page_of(byte: u8, len: usize) -> AlignedBuf {
    let mut page = AlignedBuf::new(len, PAGE);
    page.fill(byte);
    page
}

fn write(shard: &Kernel, file: &File<KernelRing>, at: u64, byte: u8, len: usize) {
    let (written, _) = block_on(shard, file.write_all_at(at, page_of(byte, len))).unwrap();
    written.unwrap();
}

fn check(shard: &Kernel, file: &File<KernelRing>, at: u64, byte: u8, len: usize) {
    let (read, page) = block_on(shard, file.read_exact_at(at, page_of(!byte, len))).unwrap();
    read.unwrap();
    assert!(page.iter().all(|&found| found == byte), "{len} bytes at {at} hold {byte}");
}

/// Drives all futures until each is done.
fn finish(shard: &Kernel, pending: Vec<Pending<'_>>) -> Vec<Written> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut pending: Vec<_> = pending.into_iter().map(|future| (future, None)).collect();
    while pending.iter().any(|(_, done)| done.is_none()) {
        for (future, done) in &mut pending {
            if done.is_none()
                && let Poll::Ready(result) = future.as_mut().poll(&mut cx)
            {
                *done = Some(result);
            }
        }
        shard.turn(Wait::at_least(1)).unwrap();
    }
    pending.into_iter().filter_map(|(_, done)| done).collect()
}

#[test]
fn f32_memlock_of_64_kib_registers_a_prefix_and_says_so_once() {
    let test = "f32_memlock_of_64_kib_registers_a_prefix_and_says_so_once";
    if !under(test, "ulimit -l 64") {
        return;
    }
    // A huge page counts whole against the limit, so none of an arena on such pages fits.
    let mut limits = Config::new();
    limits.arena.huge_pages = HugePages::Never;
    let Some(shard) = shard(&KernelConfig::new(64), &limits) else { return };
    let registered = shard.arena().region().registered_bytes();
    let told = shard.features().degraded;
    println!("{registered} of {} bytes registered: {told:?}", shard.arena().bytes());
    assert!(registered > 0 && registered <= 64 << 10);
    assert_eq!(told.iter().filter(|text| text.contains("RLIMIT_MEMLOCK")).count(), 1);
    // All of the arena works, whichever part of it an op lies in.
    let directory = scratch();
    let file =
        shard.open(&directory.path().join("file"), &writing(DirectMode::PreferDirect)).unwrap();
    let mut pages: Vec<_> = (0..64).map_while(|_| shard.arena().alloc(PAGE)).collect();
    assert_eq!(pages.len(), 64);
    for round in 0..4_u8 {
        for (number, mut page) in (0_u8..).zip(std::mem::take(&mut pages)) {
            page.fill(number ^ round);
            let at = u64::from(number) * PAGE as u64;
            let (written, mut page) = block_on(&shard, file.write_all_at(at, page)).unwrap();
            written.unwrap();
            page.fill(0xEE);
            let (read, page) = block_on(&shard, file.read_exact_at(at, page)).unwrap();
            read.unwrap();
            assert!(page.iter().all(|&byte| byte == number ^ round));
            pages.push(page);
        }
    }
    block_on(&shard, file.sync(Durability::Data)).unwrap().unwrap();
    assert_eq!(shard.shutdown(), 0);
}

/// A large arena is registered piece by piece only where nothing can stand against the rest.
#[test]
fn f32_memlock_of_8_mib_is_told_at_setup_of_an_arena_of_64_mib() {
    let test = "f32_memlock_of_8_mib_is_told_at_setup_of_an_arena_of_64_mib";
    if !under(test, "ulimit -l 8192") {
        return;
    }
    for huge_pages in [HugePages::Never, HugePages::Auto] {
        let mut limits = Config::new();
        limits.arena.huge_pages = huge_pages;
        limits.arena.classes = vec![SizeClass { bytes: 1 << 20, count: 64 }];
        let Some(shard) = shard(&KernelConfig::new(64), &limits) else { return };
        let registered = shard.arena().region().registered_bytes();
        let told = shard.features().degraded;
        println!("{registered} of {} bytes registered: {told:?}", shard.arena().bytes());
        // How much of it others have locked is not known here: the limit is the user's.
        assert!(registered <= 8 << 20, "{registered}");
        assert_eq!(told.iter().filter(|text| text.contains("RLIMIT_MEMLOCK")).count(), 1);
        assert_eq!(shard.register(shard.arena()), registered, "there is no more to be had");
        assert_eq!(shard.features().degraded.len(), told.len());
        let directory = scratch();
        let options = writing(DirectMode::PreferDirect);
        let file = shard.open(&directory.path().join("file"), &options).unwrap();
        let buffers: Vec<_> = (0..64).map_while(|_| shard.arena().alloc(1 << 20)).collect();
        assert_eq!(buffers.len(), 64);
        for (number, mut buffer) in (0_u8..).zip(buffers) {
            buffer.fill(number);
            let at = u64::from(number) << 20;
            block_on(&shard, file.write_all_at(at, buffer)).unwrap().0.unwrap();
            check(&shard, &file, at, number, PAGE);
        }
        assert_eq!(shard.shutdown(), 0);
    }
}

/// Writes and reads all of an arena of which `registered` bytes, at least and at most, could be
/// registered.
fn arena_works(registered: std::ops::RangeInclusive<usize>) {
    let mut limits = Config::new();
    limits.arena.huge_pages = HugePages::Never;
    let Some(shard) = shard(&KernelConfig::new(64), &limits) else { return };
    let (bytes, all) = (shard.arena().region().registered_bytes(), shard.arena().bytes());
    let told = shard.features().degraded;
    println!("{bytes} of {all} bytes registered: {told:?}");
    assert!(registered.contains(&bytes), "{bytes}");
    let explained = told.iter().filter(|text| text.contains("RLIMIT_MEMLOCK")).count();
    assert_eq!(explained, usize::from(bytes < all), "{told:?}");
    let directory = scratch();
    let options = writing(DirectMode::PreferDirect);
    let file = shard.open(&directory.path().join("file"), &options).unwrap();
    let pages: Vec<_> = (0..64).map_while(|_| shard.arena().alloc(PAGE)).collect();
    for (number, mut page) in (0_u8..).zip(pages) {
        page.fill(number);
        let at = u64::from(number) * PAGE as u64;
        block_on(&shard, file.write_all_at(at, page)).unwrap().0.unwrap();
        check(&shard, &file, at, number, PAGE);
    }
    assert_eq!(shard.shutdown(), 0);
}

/// Where even the queues count as locked memory there is no ring, and the engine goes without.
#[test]
fn f32_memlock_of_nothing_is_explained_once_and_everything_works() {
    let test = "f32_memlock_of_nothing_is_explained_once_and_everything_works";
    if !under(test, "ulimit -l 0") {
        return;
    }
    let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(64)).unwrap();
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let features = shard.features();
    println!("{features:?}");
    assert_eq!(shard.arena().region().registered_bytes(), 0);
    let explained = features.degraded.iter().filter(|text| text.contains("RLIMIT_MEMLOCK"));
    assert_eq!(explained.count(), 1, "{features:?}");
    let directory = scratch();
    let options = writing(DirectMode::PreferDirect);
    let file = shard.open(&directory.path().join("file"), &options).unwrap();
    for number in 0..64_u8 {
        let mut page = shard.arena().alloc(PAGE).unwrap();
        page.fill(number);
        let at = u64::from(number) * PAGE as u64;
        let (written, mut page) = block_on(&shard, file.write_durable_at(at, page)).unwrap();
        written.unwrap();
        page.fill(0xEE);
        let (read, page) = block_on(&shard, file.read_exact_at(at, page)).unwrap();
        read.unwrap();
        assert!(page.iter().all(|&byte| byte == number));
    }
    assert_eq!(shard.shutdown(), 0);
}

#[test]
fn f32_memlock_of_8_mib_is_enough_for_the_usual_arena() {
    let test = "f32_memlock_of_8_mib_is_enough_for_the_usual_arena";
    if under(test, "ulimit -l 8192") {
        let usual: usize = 1024 * 4096 + 8 * (128 << 10);
        arena_works(usual..=usual + (1 << 20));
    }
}

#[test]
fn f36_no_descriptor_left_is_an_open_error_and_the_open_files_work() {
    let test = "f36_no_descriptor_left_is_an_open_error_and_the_open_files_work";
    if !under(test, "ulimit -n 64") {
        return;
    }
    let Some(shard) = usual() else { return };
    let directory = scratch();
    let path = |number: u8| directory.path().join(number.to_string());
    let open = |number| shard.open(&path(number), &writing(DirectMode::Buffered));
    // What a shard that is blocked on wants for itself, it has from now on.
    block_on(&shard, async {}).unwrap();
    let mut files = Vec::new();
    let refused = loop {
        match open(u8::try_from(files.len()).unwrap()) {
            Ok(file) => files.push(file),
            Err(error) => break error,
        }
    };
    println!("{} files, then: {refused}", files.len());
    assert!(matches!(refused, EngineError::Open(OpenError::Os { .. })));
    let told = refused.to_string();
    assert!(told.contains("EMFILE") && told.contains("close files, or raise"), "{told}");
    assert!((32..64).contains(&files.len()));
    for (number, file) in (0_u8..).zip(&files) {
        write(&shard, file, 0, number, PAGE);
    }
    for (number, file) in (0_u8..).zip(&files) {
        check(&shard, file, 0, number, PAGE);
    }
    // One descriptor is free: the refused open took it, found none for the directory, and gave
    // it back. It is enough for a file that is there, and not for making one.
    let there = OpenOptions { create: false, lock: false, ..writing(DirectMode::Buffered) };
    let again = shard.open(&path(0), &there).unwrap();
    check(&shard, &again, 0, 0, PAGE);
    assert!(matches!(shard.open(&path(1), &there), Err(EngineError::Open(OpenError::Os { .. }))));
    drop(again);
    assert!(open(100).unwrap_err().to_string().contains("EMFILE"));
    drop(files.pop());
    files.push(open(100).unwrap());
    write(&shard, files.last().unwrap(), 0, 100, PAGE);
}

/// Sixty-four writers on a queue of four entries, one in three durable by a chain.
#[test]
fn f20_four_entries_serve_sixty_four_writers_with_chains() {
    let Some(shard) = shard(&KernelConfig::new(4), &Config::new()) else { return };
    let directory = scratch();
    let file =
        shard.open(&directory.path().join("file"), &writing(DirectMode::PreferDirect)).unwrap();
    for round in 0..20_u8 {
        let writes = (0..64_u8).map(|number| -> Pending<'_> {
            let (at, page) = (u64::from(number) * PAGE as u64, page_of(number ^ round, PAGE));
            if number % 3 == 0 {
                Box::pin(file.write_durable_at(at, page))
            } else {
                Box::pin(file.write_all_at(at, page))
            }
        });
        let written = finish(&shard, writes.collect());
        assert!(written.iter().all(|(result, _)| result.is_ok()), "{written:?}");
        for number in 0..64_u8 {
            check(&shard, &file, u64::from(number) * PAGE as u64, number ^ round, PAGE);
        }
    }
    let metrics = shard.metrics();
    println!("{metrics:?}");
    assert!(metrics.flushes > 0 && metrics.flush_failures == 0);
    assert_eq!((shard.in_flight(), shard.shutdown()), (0, 0));
}

/// Runs a command that needs rights; `None`, with the reason printed, where it fails.
fn rooted(what: &str) -> Option<String> {
    let done = Command::new("sh").args(["-c", what]).output().ok()?;
    if done.status.success() {
        return Some(String::from_utf8_lossy(&done.stdout).trim().to_owned());
    }
    let error = String::from_utf8_lossy(&done.stderr);
    println!("SKIP: `{what}` needs root and its tool: {}", error.trim());
    None
}

/// Undoes `rooted` things, the last first.
struct Undo(Vec<String>);

impl Drop for Undo {
    fn drop(&mut self) {
        for what in self.0.drain(..).rev() {
            let _said = rooted(&what);
        }
    }
}

/// A loop device of 8 MiB with sectors of `sector` bytes, and the file behind it.
fn device_of(directory: &Path, sector: u32) -> Option<(Loop, PathBuf)> {
    let image = directory.join(format!("image{sector}"));
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|at| u8::try_from(at / 512 % 251).unwrap()).collect();
    std::fs::write(&image, &bytes).unwrap();
    let device = Loop::over(&image, &[&format!("--sector-size={sector}")])?;
    Some((device, image))
}

#[test]
fn f44_devices_with_either_sector_size_are_read_at_any_offset() {
    let directory = scratch();
    for sector in [512, 4096] {
        let Some((device, image)) = device_of(directory.path(), sector) else { return };
        let Some(shard) = usual() else { return };
        let direct = OpenOptions { direct: DirectMode::Direct, ..OpenOptions::default() };
        let file = shard.open(device.path(), &direct).unwrap();
        let geometry = file.geometry();
        println!("{geometry:?}");
        assert_eq!((geometry.offset_align, geometry.len_bytes), (sector, 8 << 20));
        let expected = std::fs::read(&image).unwrap();
        for (at, len) in
            [(0, 4096), (512, 512), (1, 1), (4095, 2), (5000, 100_000), ((8 << 20) - 7, 7)]
        {
            let page = AlignedBuf::new(len, PAGE);
            let (read, page) = block_on(&shard, file.read_exact_at(at as u64, page)).unwrap();
            read.unwrap();
            assert_eq!(page[..], expected[at..at + len], "{len} bytes at {at}, sector {sector}");
        }
        let beyond = file.read_exact_at((8 << 20) - 512, AlignedBuf::new(4096, PAGE));
        let error = block_on(&shard, beyond).unwrap().0.unwrap_err();
        assert_eq!((error.error.kind(), error.done_bytes), (ErrorKind::UnexpectedEof, 512));
    }
}

/// Writes more than fits, in one batch, beside somebody whose range is there already.
fn fill_up(shard: &Kernel, directory: &Path, direct: DirectMode) {
    let neighbour = shard.open(&directory.join("neighbour"), &writing(direct)).unwrap();
    for at in 0..16 {
        write(shard, &neighbour, at * PAGE as u64, 0x77, PAGE);
    }
    block_on(shard, neighbour.sync(Durability::Data)).unwrap().unwrap();
    let path = directory.join("greedy");
    let greedy = shard.open(&path, &writing(direct)).unwrap();
    let chunk = 64 << 10;
    let mut writes: Vec<Pending<'_>> = Vec::new();
    for number in 0..160_u8 {
        let at = u64::from(number) * chunk as u64;
        writes.push(Box::pin(greedy.write_all_at(at, page_of(number, chunk))));
        // The neighbour overwrites what it has, in the same batch.
        let at = u64::from(number) % 16 * PAGE as u64;
        writes.push(Box::pin(neighbour.write_all_at(at, page_of(0x77, PAGE))));
    }
    let mut whole = Vec::new();
    for (number, (result, _)) in finish(shard, writes).into_iter().enumerate() {
        let of_greedy = number % 2 == 0;
        match result {
            Ok(()) if of_greedy => whole.push(u8::try_from(number / 2).unwrap()),
            Ok(()) => {}
            Err(error) => {
                assert!(of_greedy, "the neighbour has its space: {error}");
                assert_eq!(error.error.kind(), ErrorKind::NoSpace, "{error}");
                assert!(error.done_bytes < chunk as u64);
            }
        }
    }
    println!("{direct:?}: {} of 160 chunks fitted", whole.len());
    assert!(!whole.is_empty() && whole.len() < 160);
    for &number in &whole {
        check(shard, &greedy, u64::from(number) * chunk as u64, number, chunk);
    }
    for at in 0..16 {
        check(shard, &neighbour, at * PAGE as u64, 0x77, PAGE);
    }
    // Space returns, and the same shard and neighbour go on.
    drop(greedy);
    std::fs::remove_file(path).unwrap();
    block_on(shard, neighbour.sync(Durability::Full)).unwrap().unwrap();
    let again = shard.open(&directory.join("again"), &writing(direct)).unwrap();
    write(shard, &again, 0, 0x33, chunk);
    check(shard, &again, 0, 0x33, chunk);
    assert!(!neighbour.is_poisoned());
}

#[test]
fn f42_full_file_system_fails_what_does_not_fit_and_nothing_else() {
    let directory = scratch();
    let Some(shard) = usual() else { return };
    let small = directory.path().join("small");
    std::fs::create_dir(&small).unwrap();
    let at = small.display();
    if rooted(&format!("mount -t tmpfs -o size=4m tmpfs {at}")).is_some() {
        let _unmount = Undo(vec![format!("umount {at}")]);
        fill_up(&shard, &small, DirectMode::Buffered);
    }
    for sector in [512, 4096] {
        let Some((device, _)) = device_of(directory.path(), sector) else { return };
        let device = device.path().display();
        let made = rooted(&format!("mkfs.ext4 -q -F -O ^has_journal -m 0 {device}"));
        let Some(_) = made.and_then(|_| rooted(&format!("mount {device} {at}"))) else { return };
        let _unmount = Undo(vec![format!("umount {at}")]);
        fill_up(&shard, &small, DirectMode::Direct);
        fill_up(&shard, &small, DirectMode::Buffered);
    }
}
