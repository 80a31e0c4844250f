//! Every rule for file systems, on one that is at a server.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::mpsc;

use mfio_core::IoBackend;
use mfio_core::backend::integration::{AsyncIo, Tokio};
use mfio_netfs::{Config, Duplex, NetFs, Secret, Server, ServerConfig};
use mfio_rt::portable::Portable;
use mfio_rt::virt::VirtFs;
use mfio_rt::{Fs, ListenOptions, ListenerHandle, Tcp};

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

/// A server in a thread that lives as long as the program.
fn serve<F: Fs>(make: impl FnOnce() -> F + Send + 'static, config: ServerConfig) -> SocketAddr {
    serve_in(|fs, work| block_on(fs, work), make, config)
}

type Work<'a> = Pin<&'a mut dyn Future<Output = ()>>;

/// A server in an executor.
fn serve_in<F: Fs>(
    run: impl FnOnce(&F, Work<'_>) + Send + 'static,
    make: impl FnOnce() -> F + Send + 'static,
    config: ServerConfig,
) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (fs, net) = (make(), Portable::new().unwrap());
        let work = pin!(async {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = net.bind(any, &ListenOptions::new()).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let server = Server::new(fs.current_dir(), config).await.unwrap();
            server.serve(&listener, |_| {}).await;
        });
        run(&fs, work);
    });
    told.recv().unwrap()
}

fn of_virt() -> (NetFs, ()) {
    let address = serve(VirtFs::new, ServerConfig::default());
    (NetFs::connect(address, Config::default()).unwrap(), ())
}

/// With checksums and a secret.
fn of_a_directory() -> (NetFs, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    let secret = Some(Secret::new(*b"sixteen bytes or more"));
    let config = ServerConfig::default().secret(secret.clone());
    let address = serve(move || Portable::at(Path::new(&path)).unwrap(), config);
    let config = Config::default().secret(secret).checksums(true);
    (NetFs::connect(address, config).unwrap(), temp)
}

/// A directory exported by a server in the same kind of executor as the client.
fn exported_in(run: fn(&Portable, Work<'_>)) -> (NetFs, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().to_owned();
    let make = move || Portable::at(&path).unwrap();
    let address = serve_in(run, make, ServerConfig::default());
    (NetFs::connect(address, Config::default()).unwrap(), temp)
}

fn in_memory() -> (NetFs, ()) {
    let (ours, theirs) = Duplex::pair(10_000);
    std::thread::spawn(move || {
        let fs = VirtFs::new();
        block_on(&fs, async {
            let server = Server::new(fs.current_dir(), ServerConfig::default()).await.unwrap();
            server.serve_connection(theirs).await
        })
    });
    (NetFs::over(ours, Config::default()).unwrap(), ())
}

mod loopback_exporting_virt {
    mfio_rt::fs_suite!(super::of_virt(), super::block_on);
}

mod loopback_exporting_a_directory {
    mfio_rt::fs_suite!(super::of_a_directory(), super::block_on);
}

mod memory_exporting_virt {
    mfio_rt::fs_suite!(super::in_memory(), super::block_on);
}

mod loopback_tokio {
    mfio_rt::fs_suite!(super::exported_in(|fs, work| super::tokio(fs, work)), super::tokio);
}

mod loopback_smol {
    mfio_rt::fs_suite!(super::exported_in(|fs, work| super::smol(fs, work)), super::smol);
}
