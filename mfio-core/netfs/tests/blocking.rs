//! Threads that block on one client: one of them serves the connection, all are answered.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread;

use mfio_core::{IoRead as _, IoWrite as _, block_on};
use mfio_netfs::{Config, NetFile, NetFs, Server, ServerConfig};
use mfio_rt::conformance::bytes_of;
use mfio_rt::portable::Portable;
use mfio_rt::virt::VirtFs;
use mfio_rt::{Fs as _, ListenOptions, ListenerHandle as _, OpenOptions, Tcp as _};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);

/// A client of a server that is blocked on by a thread of its own.
fn client() -> NetFs {
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let (fs, net) = (VirtFs::new(), Portable::new().unwrap());
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = block_on(&net, net.bind(any, &ListenOptions::new())).unwrap().unwrap();
        tell.send(listener.local_addr().unwrap()).unwrap();
        block_on(&listener, async {
            let server = Server::new(fs.current_dir(), ServerConfig::default()).await.unwrap();
            server.serve(&listener, |_| {}).await;
        })
        .unwrap();
    });
    NetFs::connect(told.recv().unwrap(), Config::default()).unwrap()
}

async fn written_and_read(file: &NetFile, seed: u64) {
    let len = [0, 1, 5000, 70_000, 2_000_000][usize::try_from(seed % 5).unwrap()];
    let bytes = bytes_of(seed, len);
    assert_eq!(file.write_exact(seed, bytes.clone()).await.0, Ok(()));
    let (read, found) = file.read_exact(seed, vec![0; len]).await;
    assert_eq!(read, Ok(()));
    assert!(found == bytes, "{len} bytes");
}

#[test]
fn threads_that_block_on_one_client_are_all_answered() {
    let fs = client();
    thread::scope(|scope| {
        for thread in 0..4_u64 {
            let fs = &fs;
            scope.spawn(move || {
                let name = thread.to_string();
                let file = block_on(fs, fs.open(&name, &BOTH)).unwrap().unwrap();
                for seed in 0..40 {
                    match thread {
                        // An executor that knows nothing of the connection.
                        0 => async_io::block_on(written_and_read(&file, seed)),
                        1 => block_on(&file, written_and_read(&file, seed)).unwrap(),
                        _ => block_on(fs, written_and_read(&file, seed)).unwrap(),
                    }
                }
            });
        }
    });
}

#[test]
fn a_thread_that_does_something_else_between_two_waits_keeps_no_other_waiting() {
    let fs = client();
    block_on(&fs, async {
        let file = fs.open("file", &BOTH).await.unwrap();
        written_and_read(&file, 4).await;
        // It has served the connection, and would again; but what it does now needs others to.
        let other = fs.clone();
        thread::spawn(move || {
            let file = async_io::block_on(other.open("other", &BOTH)).unwrap();
            async_io::block_on(written_and_read(&file, 4));
        })
        .join()
        .unwrap();
        block_on(&fs, written_and_read(&file, 3)).unwrap();
        written_and_read(&file, 4).await;
    })
    .unwrap();
}
