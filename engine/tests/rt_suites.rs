//! The rules of `mfio-rt` for file systems and networks, on shards, in every host.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::future::Future;

use mfio_core::IoBackend;
use mfio_core::backend::integration::{AsyncIo, Tokio};
use mfio_engine::fs::ShardFs;
use mfio_engine::net::ShardNet;
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::{AutoRing, Sockets};
use mfio_engine::{Config, Shard};

fn shard(backend: Backend) -> Shard {
    let ring = AutoRing::new(backend, &AutoConfig::new(32)).unwrap();
    let config = Config { in_flight_max: 32, backlog_max: 64, ..Config::new() };
    Shard::with_ring(ring, &config).unwrap()
}

/// On io_uring; where that is forbidden, the same on threads once more.
fn kernel() -> Shard {
    if let Err(error) = KernelRing::new(&KernelConfig::new(8)) {
        println!("SKIP kernel ring: {error}; the thread ring runs the same");
    }
    shard(Backend::Auto)
}

fn threads() -> Shard {
    shard(Backend::Threads)
}

fn files(shard: &Shard) -> (ShardFs, tempfile::TempDir) {
    // Not in /tmp, which may be a tmpfs: transfers are to complete later.
    let temp = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    (ShardFs::at(shard, temp.path()).unwrap(), temp)
}

/// As `kernel`, on a kernel that takes each connection by an op of its own.
fn accepting_one_by_one() -> Shard {
    match KernelRing::new(&KernelConfig::new(32)) {
        Ok(ring) => {
            let ring = AutoRing::Kernel(ring.accepting_one_by_one());
            let config = Config { in_flight_max: 32, backlog_max: 64, ..Config::new() };
            let shard = Shard::with_ring(ring, &config).unwrap();
            assert!(!shard.with_ring_ref(Sockets::takes_many));
            shard
        }
        Err(_) => kernel(),
    }
}

/// Nothing has to be kept but the network.
fn network(shard: &Shard) -> (ShardNet, ()) {
    (ShardNet::new(shard).unwrap(), ())
}

fn block_on<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    mfio_core::block_on(backend, future).unwrap()
}

fn tokio<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async { Tokio::new(backend).unwrap().run(future).await.unwrap() })
}

/// As smol does: a task of some executor, with the reactor of `async-io`.
fn smol<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    async_io::block_on(async { AsyncIo::new(backend).unwrap().run(future).await.unwrap() })
}

mod kernel_block_on {
    mfio_rt::fs_suite!(super::files(&super::kernel()), super::block_on);
    mfio_rt::tcp_suite!(super::network(&super::kernel()), super::block_on);
}

mod kernel_tokio {
    mfio_rt::fs_suite!(super::files(&super::kernel()), super::tokio);
    mfio_rt::tcp_suite!(super::network(&super::kernel()), super::tokio);
}

mod kernel_smol {
    mfio_rt::fs_suite!(super::files(&super::kernel()), super::smol);
    mfio_rt::tcp_suite!(super::network(&super::kernel()), super::smol);
}

mod threads_block_on {
    mfio_rt::fs_suite!(super::files(&super::threads()), super::block_on);
    mfio_rt::tcp_suite!(super::network(&super::threads()), super::block_on);
}

mod threads_tokio {
    mfio_rt::fs_suite!(super::files(&super::threads()), super::tokio);
    mfio_rt::tcp_suite!(super::network(&super::threads()), super::tokio);
}

mod threads_smol {
    mfio_rt::fs_suite!(super::files(&super::threads()), super::smol);
    mfio_rt::tcp_suite!(super::network(&super::threads()), super::smol);
}

mod one_by_one_block_on {
    mfio_rt::tcp_suite!(super::network(&super::accepting_one_by_one()), super::block_on);
}

mod one_by_one_tokio {
    mfio_rt::tcp_suite!(super::network(&super::accepting_one_by_one()), super::tokio);
}

mod one_by_one_smol {
    mfio_rt::tcp_suite!(super::network(&super::accepting_one_by_one()), super::smol);
}
