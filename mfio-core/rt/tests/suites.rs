//! Every rule, on every implementation, in every executor.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::Future;

use mfio_core::IoBackend;
use mfio_core::backend::integration::{AsyncIo, Tokio};
use mfio_rt::portable::Portable;
use mfio_rt::virt::VirtFs;

fn portable() -> (Portable, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    (Portable::at(temp.path()).unwrap(), temp)
}

fn block_on<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    mfio_core::block_on(backend, future).unwrap()
}

fn tokio<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async { Tokio::new(backend).unwrap().run(future).await.unwrap() })
}

/// The reactor and the executor that smol is made of.
fn smol<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    let host = AsyncIo::new(backend).unwrap();
    async_io::block_on(host.run(future)).unwrap()
}

mod virt_block_on {
    mfio_rt::fs_suite!((super::VirtFs::new(), ()), super::block_on);
}

mod virt_tokio {
    mfio_rt::fs_suite!((super::VirtFs::new(), ()), super::tokio);
}

mod virt_smol {
    mfio_rt::fs_suite!((super::VirtFs::new(), ()), super::smol);
}

mod portable_block_on {
    mfio_rt::fs_suite!(super::portable(), super::block_on);
    mfio_rt::tcp_suite!(super::portable(), super::block_on);
}

mod portable_tokio {
    mfio_rt::fs_suite!(super::portable(), super::tokio);
    mfio_rt::tcp_suite!(super::portable(), super::tokio);
}

mod portable_smol {
    mfio_rt::fs_suite!(super::portable(), super::smol);
    mfio_rt::tcp_suite!(super::portable(), super::smol);
}
