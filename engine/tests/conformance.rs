//! Files of a shard against the rules that every target must pass, on the kernel ring, on the
//! thread ring and on the simulated ring, alone and under layers; and one workload on all three
//! with the same outcome.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::layer::map::{Extent, Map};
use mfio_core::layer::stripe::Stripe;
use mfio_core::layer::window::Window;
use mfio_core::{Error, IoRead, IoWrite, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::sim::{FileSpec, SimConfig, SimDevice, SimRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{Config, DirectMode, Durability, File, OpenOptions, Shard};

/// A file of its own for every target; unlinked when it has been opened.
struct Fresh(PathBuf);

impl Fresh {
    fn with(contents: &[u8]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("conformance-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, contents).unwrap();
        Self(path)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// Small limits, so that the rules meet them.
fn shard<R: Ring>(ring: R) -> Shard<R> {
    let config = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
    Shard::with_ring(ring, &config).unwrap()
}

fn open<R: Ring>(shard: &Shard<R>, contents: &[u8], direct: DirectMode) -> File<R> {
    let fresh = Fresh::with(contents);
    let options = OpenOptions { write: true, direct, ..OpenOptions::default() };
    shard.open(&fresh.0, &options).unwrap()
}

fn shape(direct: DirectMode) -> Shape {
    let write_align = if direct == DirectMode::Buffered { 1 } else { 4096 };
    Shape { len: 21_000, read_align: 1, write_align, grows: true }
}

fn files_conform<R: Ring>(ring: impl Fn() -> R, direct: DirectMode) {
    let make = |contents: Vec<u8>| open(&shard(ring()), &contents, direct);
    check_shaped(make, shape(direct));
}

/// A file of a simulated device, on a shard of its own.
fn simulated(contents: &[u8], align_bytes: u32) -> File<SimRing> {
    let size_bytes = u32::try_from(contents.len()).unwrap();
    let spec = FileSpec { align_bytes, ..FileSpec::buffered(size_bytes) };
    let device = SimDevice::new(&[spec]);
    device.poke(0, 0, contents);
    let shard = shard(SimRing::new(SimConfig { sq_entries: 8, ..SimConfig::calm(1) }, &device));
    shard.adopt_simulated("simulated", device.fd(0), device.geometry(0))
}

/// `open` makes a file with these contents on a shard of its own.
fn layers_over_files_conform<R: Ring>(open: impl Fn(&[u8]) -> File<R>) {
    // Every file has whole sectors: a simulated one has no others.
    let fixed = Shape { len: 12_288, grows: false, ..shape(DirectMode::Buffered) };
    let window = |contents: Vec<u8>| {
        let mut inside = vec![1; 100];
        inside.extend(&contents);
        inside.extend([2; 412]);
        Window::new(open(&inside), 100, contents.len() as u64)
    };
    check_shaped(window, fixed);

    let extents = |len| {
        let half = len / 2;
        vec![Extent { from: 0, len: half, to: half }, Extent { from: half, len: half, to: 0 }]
    };
    let map = |contents: Vec<u8>| {
        let (left, right) = contents.split_at(contents.len() / 2);
        Map::new(open(&[right, left].concat()), extents(contents.len() as u64)).unwrap()
    };
    check_shaped(map, fixed);

    // Windows of one file, so of one shard: what they share is driven once.
    let stripe = |contents: Vec<u8>| {
        let file = open(&[0; 12_288]);
        let parts = (0..3).map(|part| Window::new(file.clone(), part * 4096, 4096)).collect();
        let stripe = Stripe::new(parts, 512, 4096);
        let (result, _) = block_on(&stripe, stripe.write_exact(0, contents)).unwrap();
        result.unwrap();
        stripe
    };
    check_shaped(stripe, fixed);

    // And of a shard each: nobody can wait for all of them at once.
    let apart = |contents: Vec<u8>| {
        let files = (0..2).map(|_| open(&[0; 6144])).collect();
        let stripe = Stripe::new(files, 512, 6144);
        let (result, _) = block_on(&stripe, stripe.write_exact(0, contents)).unwrap();
        result.unwrap();
        stripe
    };
    mfio_core::conformance::seeded_workload(apart, fixed, 7);
}

fn kernel_ring() -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(8))
        .map_err(|error| println!("SKIP kernel ring: {error}; the thread ring runs the same"))
        .ok()
}

#[test]
fn files_on_the_thread_ring_conform() {
    files_conform(|| ThreadRing::new(2, 8).unwrap(), DirectMode::Buffered);
}

#[test]
fn files_on_the_kernel_ring_conform() {
    if kernel_ring().is_some() {
        files_conform(|| kernel_ring().unwrap(), DirectMode::Buffered);
    }
}

#[test]
fn direct_files_on_the_thread_ring_conform() {
    files_conform(|| ThreadRing::new(2, 8).unwrap(), DirectMode::PreferDirect);
}

#[test]
fn direct_files_on_the_kernel_ring_conform() {
    if kernel_ring().is_some() {
        files_conform(|| kernel_ring().unwrap(), DirectMode::PreferDirect);
    }
}

#[test]
fn files_on_the_simulated_ring_conform() {
    // A simulated file has whole sectors and does not grow.
    let fixed = Shape { len: 20_992, read_align: 1, write_align: 1, grows: false };
    check_shaped(|contents| simulated(&contents, 1), fixed);
    let direct = Shape { write_align: 512, ..fixed };
    check_shaped(|contents| simulated(&contents, 512), direct);
}

#[test]
fn layers_on_the_thread_ring_conform() {
    let ring = || ThreadRing::new(2, 8).unwrap();
    layers_over_files_conform(|contents| open(&shard(ring()), contents, DirectMode::Buffered));
}

#[test]
fn layers_on_the_kernel_ring_conform() {
    if kernel_ring().is_some() {
        layers_over_files_conform(|contents| {
            open(&shard(kernel_ring().unwrap()), contents, DirectMode::Buffered)
        });
    }
}

#[test]
fn layers_on_the_simulated_ring_conform() {
    layers_over_files_conform(|contents| simulated(contents, 1));
}

/// What one step of the workload below came to.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Read(Result<(), Error>, Vec<u8>),
    Written(Result<(), Error>),
    Synced(Result<(), Error>),
}

/// A workload that depends on its seed alone: reads, writes and flushes, inside the file and
/// across its end.
fn outcomes<R: Ring>(file: &File<R>, len: u64, mut seed: u64) -> Vec<Outcome> {
    let mut next = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let step = |_| {
        let offset = next(len + 600);
        let bytes = usize::try_from(1 + next(3000)).unwrap();
        match next(5) {
            0 | 1 => {
                let (result, buffer) =
                    block_on(file, file.read_exact(offset, vec![0; bytes])).unwrap();
                Outcome::Read(result, buffer)
            }
            // Behind the end a real file grows and a simulated one does not.
            2 | 3 if offset + bytes as u64 <= len => {
                let fill = u8::try_from(next(256)).unwrap();
                let (result, _) =
                    block_on(file, file.write_exact(offset, vec![fill; bytes])).unwrap();
                Outcome::Written(result)
            }
            _ => Outcome::Synced(
                block_on(file, file.sync(Durability::Data)).unwrap().map_err(|error| error.error),
            ),
        }
    };
    (0..400).map(step).collect()
}

#[test]
fn one_workload_has_the_same_outcome_on_all_rings() {
    const LEN: u64 = 20_480;
    let contents: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
    let mut failed = 0;
    for seed in 1..=20 {
        let on_sim = outcomes(&simulated(&contents, 1), LEN, seed);
        let threads = shard(ThreadRing::new(2, 8).unwrap());
        let on_threads = outcomes(&open(&threads, &contents, DirectMode::Buffered), LEN, seed);
        assert_eq!(on_sim, on_threads, "seed {seed}");
        if let Some(ring) = kernel_ring() {
            let file = open(&shard(ring), &contents, DirectMode::Buffered);
            assert_eq!(on_sim, outcomes(&file, LEN, seed), "seed {seed}");
        }
        let is_failed = |outcome: &&Outcome| matches!(outcome, Outcome::Read(Err(_), _));
        failed += on_sim.iter().filter(is_failed).count();
    }
    assert!(failed > 100, "{failed} reads reached across the end");
}
