//! F44: sectors of 4096 bytes. The stage is a loop device with them, bare or with a mounted
//! ext4, where `MFIO_FAULT_PATH` is a directory.

use std::cell::Cell;
use std::path::Path;

use mfio_core::block_on;
use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::layer::window::Window;
use mfio_engine::ring::auto::Backend;
use mfio_engine::{Config, DirectMode, Shard};

use crate::stage::{Skip, device_options, file_options, path, ring, shards, verified_work};

/// Small limits, so that the rules meet them.
fn shard(backend: Backend) -> Shard {
    let config = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
    Shard::with_ring(ring(backend), &config).unwrap()
}

const SHAPE: Shape = Shape { len: 20_480, read_align: 1, write_align: 4096, grows: true };

fn device_conforms(device: &Path, backend: Backend) {
    let number = Cell::new(0);
    let make = |contents: Vec<u8>| {
        let shard = shard(backend);
        let file = shard.open(device, &device_options(DirectMode::Direct)).unwrap();
        assert_eq!(file.geometry().offset_align, 4096);
        // A device does not grow, and its end is elsewhere.
        let base = number.replace((number.get() + 1) % 64) * 65_536;
        let window = Window::new(file.clone(), base, contents.len() as u64);
        block_on(&shard, file.write_all_at(base, contents)).unwrap().0.unwrap();
        window
    };
    check_shaped(make, Shape { grows: false, ..SHAPE });
}

fn files_conform(directory: &Path, backend: Backend) {
    let name = directory.join("conforming");
    let make = |contents: Vec<u8>| {
        std::fs::write(&name, contents).unwrap();
        let file = shard(backend).open(&name, &file_options(DirectMode::Direct)).unwrap();
        assert_eq!(file.geometry().offset_align, 4096);
        std::fs::remove_file(&name).unwrap();
        file
    };
    check_shaped(make, SHAPE);
}

pub(crate) fn check() -> Result<(), Skip> {
    let path = path();
    let is_device = !path.is_dir();
    for (name, shard) in shards() {
        let backend = if name == "threads" { Backend::Threads } else { Backend::RequireRing };
        if is_device {
            device_conforms(&path, backend);
            let file = shard.open(&path, &device_options(DirectMode::Direct)).unwrap();
            shard.block_on(verified_work(&file, 64)).unwrap();
        } else {
            files_conform(&path, backend);
            let file = shard.open(&path.join("work"), &file_options(DirectMode::Direct)).unwrap();
            shard.block_on(verified_work(&file, 64)).unwrap();
        }
        println!("{name}: conforms on {}", path.display());
    }
    Ok(())
}
