//! The rules that every target must pass, on block devices: NVMe with blocks of either size,
//! null_blk, and a device that ends where the target does.

use std::path::Path;
use std::time::Duration;

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::layer::window::Window;
use mfio_core::{IoWrite, block_on};
use mfio_engine::ring::Ring;
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::target::OpenError;
use mfio_engine::{Config, DirectMode, EngineError, File, Shard};

use crate::device::{Guest, destructive, kernel_ring};
use crate::mapper::Mapped;

/// Whole blocks of any size.
const LEN: u64 = 20_480;

/// The device on a shard of its own with small limits, holding `contents` from `base` on.
fn open<R: Ring>(ring: R, path: &Path, base: u64, contents: Vec<u8>, mode: DirectMode) -> File<R> {
    let config = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    // The kernel takes a ring apart, and closes its files, some time after the ring is dropped.
    let mut opened = shard.open(path, &destructive(mode));
    for _ in 0..500 {
        let Err(EngineError::Open(OpenError::DeviceBusy { .. })) = opened else { break };
        std::thread::sleep(Duration::from_millis(10));
        opened = shard.open(path, &destructive(mode));
    }
    let file = opened.unwrap();
    block_on(&file, file.write_exact(base, contents)).unwrap().0.unwrap();
    file
}

fn shape(mode: DirectMode) -> Shape {
    let write_align = if mode == DirectMode::Buffered { 1 } else { 4096 };
    Shape { len: LEN, read_align: 1, write_align, grows: false }
}

fn device_conforms(variable: &str) {
    let Some(guest) = Guest::alone() else { return };
    let Some(path) = guest.device(variable) else { return };
    for mode in [DirectMode::Direct, DirectMode::Buffered] {
        let make = |contents| {
            Window::new(open(kernel_ring(8), &path, 1 << 20, contents, mode), 1 << 20, LEN)
        };
        check_shaped(make, shape(mode));
    }
}

#[test]
fn nvme_with_blocks_of_512_bytes_conforms() {
    device_conforms("MFIO_NVME512");
}

#[test]
fn nvme_with_blocks_of_4096_bytes_conforms() {
    device_conforms("MFIO_NVME4K");
}

#[test]
fn null_blk_conforms() {
    device_conforms("MFIO_NULLMEM");
}

/// Without a window: what lies behind the end, the kernel refuses.
fn device_that_ends_conforms<R: Ring>(ring: impl Fn() -> R) {
    let Some(guest) = Guest::alone() else { return };
    for variable in ["MFIO_NVME512", "MFIO_NVME4K"] {
        let Some(path) = guest.device(variable) else { return };
        let small = Mapped::linear("mfio-small", &path, 4096, LEN / 512);
        let at = small.path();
        let mode = DirectMode::Direct;
        check_shaped(|contents| open(ring(), &at, 0, contents, mode), shape(mode));
    }
}

#[test]
fn device_that_ends_with_the_target_conforms_on_the_kernel_ring() {
    device_that_ends_conforms(|| kernel_ring(8));
}

#[test]
fn device_that_ends_with_the_target_conforms_on_threads() {
    device_that_ends_conforms(|| ThreadRing::new(2, 8).unwrap());
}
