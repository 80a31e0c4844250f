//! Every rule for file systems, on one that is at a server.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::mpsc;

use mfio_core::IoBackend;
use mfio_netfs::{Config, Duplex, NetFs, Secret, Server, ServerConfig};
use mfio_rt::portable::Portable;
use mfio_rt::virt::VirtFs;
use mfio_rt::{Fs, ListenOptions, ListenerHandle, Tcp};

fn block_on<B: IoBackend, T>(backend: &B, future: impl Future<Output = T>) -> T {
    mfio_core::block_on(backend, future).unwrap()
}

/// A server in a thread that lives as long as the program.
fn serve<F: Fs>(make: impl FnOnce() -> F + Send + 'static, config: ServerConfig) -> SocketAddr {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let (fs, net) = (make(), Portable::new().unwrap());
        block_on(&fs, async {
            let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let listener = net.bind(any, &ListenOptions::new()).await.unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let server = Server::new(fs.current_dir(), config).await.unwrap();
            server.serve(&listener, |_| {}).await;
        });
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
