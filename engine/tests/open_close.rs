//! Targets that come and go while ops on them are in flight, on the real ring.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Waker};

use mfio_core::{Completed, Packet, PacketIoExt, Read, block_on};
use mfio_engine::buffer::{ArenaBuf, ArenaConfig, SizeClass};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Config, DirectMode, OpenOptions, Shard};

const PAGE: usize = 4096;

fn shard(config: &KernelConfig) -> Option<Shard<KernelRing>> {
    match KernelRing::new(config) {
        Ok(ring) => {
            let classes = vec![SizeClass { bytes: 4096, count: 1024 }];
            // Nothing may be written into a page after it came back.
            let arena = ArenaConfig { poison_released: true, ..ArenaConfig::new(classes) };
            Some(Shard::with_ring(ring, &Config { arena, ..Config::new() }).unwrap())
        }
        Err(error) => {
            println!("SKIP: {error}");
            None
        }
    }
}

/// Descriptors of this process. Other tests of this binary open some as well, so what is
/// counted here runs alone: see `one_at_a_time`.
fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// The same of a shard without files. Whoever first blocks on a shard asks it for the
/// descriptor that a host would watch, which it keeps from then on, once in its ring and once
/// for lending out.
fn descriptors_without_files(shard: &Shard<KernelRing>) -> usize {
    let made = open_descriptors();
    block_on(shard, async {}).unwrap();
    let before = open_descriptors();
    assert!(before <= made + 2, "{made} descriptors, then {before}");
    block_on(shard, async {}).unwrap();
    assert_eq!(open_descriptors(), before, "nothing is asked for twice");
    before
}

fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Files that are each full of their own number.
fn numbered(directory: &Path, count: u8) -> Vec<PathBuf> {
    let write = |number: u8| {
        let path = directory.join(number.to_string());
        std::fs::write(&path, vec![number; 16 * PAGE]).unwrap();
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
        path
    };
    (0..count).map(write).collect()
}

fn options() -> OpenOptions {
    // Ten thousand flushes of the device are not what is tested here.
    OpenOptions { direct: DirectMode::PreferDirect, sync_on_open: false, ..OpenOptions::default() }
}

#[test]
fn r1_ten_thousand_opens_under_load_leak_no_descriptor_and_mix_no_target() {
    let _alone = one_at_a_time();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let paths = numbered(directory.path(), 16);
    let Some(shard) = shard(&KernelConfig::new(64)) else { return };
    let before = descriptors_without_files(&shard);
    let mut cx = Context::from_waker(Waker::noop());
    let mut in_flight: Vec<(usize, Reading)> = Vec::new();
    let (mut checked, mut abandoned, mut most) = (0, 0, 0);
    for number in 0..10_016_usize {
        let own = number % paths.len();
        let file = shard.open(&paths[own], &options()).unwrap();
        let page = shard.arena().alloc(PAGE).expect("verified pages come back");
        let at = ((number / paths.len() % 16) * PAGE) as u64;
        let mut read: Reading =
            Box::pin(async move { file.io(at, Packet::<Read, _>::new(page)).await });
        assert!(Future::poll(Pin::as_mut(&mut read), &mut cx).is_pending());
        if number % 8 == 7 {
            shard.turn(Wait::NONE).unwrap();
        }
        // Two of three are awaited. The third goes now, and the only handle of its file with
        // it, while its op is queued or in flight.
        if number.is_multiple_of(3) {
            abandoned += 1;
            drop(read);
        } else {
            in_flight.push((own, read));
        }
        if number % 32 == 31 {
            most = most.max(open_descriptors());
            for (own, read) in in_flight.drain(..) {
                let done = block_on(&shard, read).unwrap();
                assert!(done.result().is_ok(), "{:?}", done.result());
                let expected = u8::try_from(own).unwrap();
                assert!(done.into_buffer().iter().all(|&byte| byte == expected));
                checked += 1;
            }
            while shard.in_flight() > 0 {
                shard.turn(Wait::at_least(1)).unwrap();
            }
            assert!(shard.arena().verify_released().changed_at_bytes.is_empty());
            assert_eq!(open_descriptors(), before, "every file is closed after its last op");
        }
    }
    println!("{checked} reads checked, {abandoned} abandoned, {most} descriptors at most");
    assert!(checked + abandoned >= 9_900 && abandoned > 3_000);
    assert!(most > before, "files were open when their handles had gone");
    assert_eq!(shard.arena().in_use(), 0);
    let features = shard.features();
    assert!(!features.degraded.iter().any(|text| text.contains("entries")), "{features:?}");
}

type Reading = Pin<Box<dyn Future<Output = Completed<Read, ArenaBuf>>>>;

#[test]
fn f36_files_beyond_the_table_go_as_plain_descriptors_and_work() {
    let _alone = one_at_a_time();
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let paths = numbered(directory.path(), 24);
    let mut config = KernelConfig::new(8);
    config.files_max = 8;
    let Some(shard) = shard(&config) else { return };
    let before = descriptors_without_files(&shard);
    let files: Vec<_> = paths.iter().map(|path| shard.open(path, &options()).unwrap()).collect();
    for (number, file) in (0_u8..).zip(&files) {
        let page = shard.arena().alloc(PAGE).unwrap();
        let (read, page) = block_on(&shard, file.read_exact_at(0, page)).unwrap();
        read.unwrap();
        assert!(page.iter().all(|&byte| byte == number));
    }
    let told = shard.features().degraded;
    assert_eq!(told.iter().filter(|text| text.contains("all 8 entries are taken")).count(), 1);
    drop(files);
    assert_eq!(open_descriptors(), before);
}
