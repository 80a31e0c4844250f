//! Files of a shard against the rules that every target must pass, on the kernel ring and on
//! the thread ring, alone and under layers.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::layer::map::{Extent, Map};
use mfio_core::layer::stripe::Stripe;
use mfio_core::layer::window::Window;
use mfio_core::{IoWrite, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::{Config, DirectMode, File, OpenOptions, Shard};

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

fn layers_over_files_conform<R: Ring>(ring: impl Fn() -> R) {
    const DIRECT: DirectMode = DirectMode::Buffered;
    let fixed = Shape { len: 12_000, grows: false, ..shape(DIRECT) };
    let window = |contents: Vec<u8>| {
        let mut inside = vec![1; 100];
        inside.extend(&contents);
        inside.extend([2; 50]);
        Window::new(open(&shard(ring()), &inside, DIRECT), 100, contents.len() as u64)
    };
    check_shaped(window, fixed);

    let extents = |len| {
        let half = len / 2;
        vec![Extent { from: 0, len: half, to: half }, Extent { from: half, len: half, to: 0 }]
    };
    let map = |contents: Vec<u8>| {
        let (left, right) = contents.split_at(contents.len() / 2);
        let file = open(&shard(ring()), &[right, left].concat(), DIRECT);
        Map::new(file, extents(contents.len() as u64)).unwrap()
    };
    check_shaped(map, fixed);

    // Three files of one shard: what they share is driven once.
    let stripe = |contents: Vec<u8>| {
        let shard = shard(ring());
        let files = (0..3).map(|_| open(&shard, &[0; 4000], DIRECT)).collect();
        let stripe = Stripe::new(files, 500, 4000);
        let (result, _) = block_on(&stripe, stripe.write_exact(0, contents)).unwrap();
        result.unwrap();
        stripe
    };
    check_shaped(stripe, fixed);

    // And of a shard each: nobody can wait for all of them at once.
    let apart = |contents: Vec<u8>| {
        let files = (0..2).map(|_| open(&shard(ring()), &[0; 6000], DIRECT)).collect();
        let stripe = Stripe::new(files, 500, 6000);
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
fn layers_on_the_thread_ring_conform() {
    layers_over_files_conform(|| ThreadRing::new(2, 8).unwrap());
}

#[test]
fn layers_on_the_kernel_ring_conform() {
    if kernel_ring().is_some() {
        layers_over_files_conform(|| kernel_ring().unwrap());
    }
}
