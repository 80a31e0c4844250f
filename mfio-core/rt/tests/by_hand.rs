//! Wakers made by hand: to drop one that was cloned may run anything, unlike with `Wake`.
#![cfg(feature = "std")]
#![allow(unsafe_code, reason = "makes a waker whose clones are counted by nobody")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::ptr::null;
use std::sync::{OnceLock, mpsc};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};
use std::thread;
use std::time::Duration;

use mfio_core::{PacketIo, Read, block_on};
use mfio_rt::portable::{Portable, PortableListener, PortableStream};
use mfio_rt::{ListenOptions, ListenerHandle, Tcp, Whole};

static STREAM: OnceLock<PortableStream> = OnceLock::new();
static LISTENER: OnceLock<PortableListener> = OnceLock::new();
static CALLS: RawWakerVTable = RawWakerVTable::new(clone, nothing, nothing, dropped);

fn clone(_: *const ()) -> RawWaker {
    RawWaker::new(null(), &CALLS)
}

fn nothing(_: *const ()) {}

/// Comes back to whatever it waited for.
fn dropped(_: *const ()) {
    let mut cx = Context::from_waker(Waker::noop());
    if let Some(stream) = STREAM.get() {
        assert!(PacketIo::<Read, Whole>::poll_ready(stream, &mut cx).is_ready());
    }
    if let Some(listener) = LISTENER.get() {
        assert!(pin!(listener.accept()).poll(&mut cx).is_pending());
    }
}

/// Runs `work` with a waker that comes back, and returns whether it has ended within a minute.
fn ends(work: fn(&mut Context<'_>)) -> bool {
    let (finish, finished) = mpsc::channel();
    thread::spawn(move || {
        // SAFETY: the functions ask nothing of the data, and may be called by any thread.
        let waker = unsafe { Waker::new(null(), &CALLS) };
        work(&mut Context::from_waker(&waker));
        finish.send(()).unwrap();
    });
    finished.recv_timeout(Duration::from_secs(60)).is_ok()
}

#[test]
fn waker_that_is_not_kept_may_come_back_to_its_connection() {
    let fs = Portable::new().unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let _theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    STREAM.set(fs.adopt(listener.accept().unwrap().0).unwrap()).unwrap();
    assert!(ends(|cx| {
        assert!(PacketIo::<Read, Whole>::poll_ready(STREAM.get().unwrap(), cx).is_ready());
    }));
}

#[test]
fn waker_that_is_known_may_come_back_to_its_listener() {
    let fs = Portable::new().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = block_on(&fs, fs.bind(any, &ListenOptions::new())).unwrap().unwrap();
    LISTENER.set(listener).unwrap();
    assert!(ends(|cx| {
        let mut accept = pin!(LISTENER.get().unwrap().accept());
        // The second time it is there already.
        assert!(accept.as_mut().poll(cx).is_pending());
        assert!(accept.as_mut().poll(cx).is_pending());
    }));
}
