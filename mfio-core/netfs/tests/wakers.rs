//! Wakers and outputs of callers are anybody's code: one that panics is in nobody else's way.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

mod peer;

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use mfio_core::{Absorbed, Generated, IoRead, IoWrite, Packet, PacketIoExt, Read, Sink};
use mfio_core::{Source, Write};
use mfio_netfs::{Config, Duplex, NetFs, Server, ServerConfig};
use mfio_rt::virt::VirtFs;
use mfio_rt::{FileHandle, Fs, OpenOptions};

use peer::block_on;

/// Says that it was woken, and panics.
struct Panics(Sender<()>);

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        self.0.send(()).unwrap();
        panic!("a waker: this panic belongs to the test");
    }
}

/// Polls, and waits until that was of use. What is answered at once is asked for again.
fn woken<F: Future>(ask: impl Fn() -> F) {
    for _ in 0..1000 {
        let (tell, told) = channel();
        let waker = Waker::from(Arc::new(Panics(tell)));
        let mut asked = Box::pin(ask());
        if asked.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            return told.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }
    panic!("all are answered at once");
}

fn client() -> NetFs {
    let (ours, theirs) = Duplex::pair(50_000);
    std::thread::spawn(move || {
        let fs = VirtFs::new();
        block_on(&fs, async {
            let server = Server::new(fs.current_dir(), ServerConfig::default()).await.unwrap();
            server.serve_connection(theirs).await
        })
    });
    NetFs::over(ours, Config::default()).unwrap()
}

/// Bytes that panic when somebody looks.
struct Untouchable;

impl Source for Untouchable {
    fn len(&self) -> u64 {
        100
    }

    fn read_at(&self, _at: u64, _to: &mut [u8]) {
        panic!("a source: this panic belongs to the test");
    }
}

impl Sink for Untouchable {
    fn len(&self) -> u64 {
        100
    }

    fn write_at(&self, _at: u64, _from: &[u8]) {
        panic!("a sink: this panic belongs to the test");
    }
}

#[test]
fn caller_that_panics_costs_the_others_no_connection() {
    let net = client();
    let both = OpenOptions::new().read(true).write(true).create(true);
    let file = block_on(&net, net.open("file", &both)).unwrap();
    // Longer than what is copied into a batch, and shorter.
    for len in [100, 100_000] {
        woken(|| file.write_exact(0, vec![7; len]));
        woken(|| file.read_exact(0, vec![0; len]));
        woken(|| file.metadata());
    }
    let write = Packet::<Write, _>::new(Generated(Untouchable));
    assert!(block_on(&net, file.io(0, write)).error().is_some());
    let read = Packet::<Read, _>::new(Absorbed(Untouchable));
    assert!(block_on(&net, file.io(0, read)).error().is_some());
    // Where there is no file any more, as after another connection, this fails.
    assert_eq!(block_on(&net, file.read_exact(0, vec![0; 100])), (Ok(()), vec![7; 100]));
}
