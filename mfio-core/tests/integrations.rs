//! Backends in the tasks of real runtimes, woken by a descriptor.
#![cfg(all(unix, feature = "std"))]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::VecDeque;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;

use mfio_core::backend::integration::Null;
use mfio_core::backend::{PollSource, Turn};
use mfio_core::mem::Mem;
use mfio_core::{
    BackendBusy, BackendHandle, Drive, IoBackend, IoRead, PacketIo, PollingHandle, Read, Refused,
    View, block_on,
};

/// Fills reads with what another thread says, which it says through a socket. With `full` it
/// says so by draining the socket: the descriptor then becomes writable, never readable.
struct Socket {
    ours: fs::File,
    theirs: fs::File,
    queue: Mutex<VecDeque<View<Read>>>,
    turn: Turn,
    drives: AtomicUsize,
    writable: bool,
    /// Bytes that the other thread writes, or is about to. For Miri, whose sockets cannot be
    /// made non-blocking.
    bytes: Arc<AtomicUsize>,
}

impl Socket {
    fn readable() -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        if cfg!(not(miri)) {
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
        }
        // As files, which are read by a call that Miri knows for sockets too.
        let [ours, theirs] = [ours, theirs].map(|end| fs::File::from(OwnedFd::from(end)));
        let (queue, turn, drives, bytes) = Default::default();
        Self { ours, theirs, queue, turn, drives, writable: false, bytes }
    }

    /// One of each kind. Under Miri only those that need not be non-blocking; `backends` has a
    /// source that only ever becomes writable, without a descriptor.
    fn each() -> Vec<Self> {
        if cfg!(miri) { vec![Self::readable()] } else { vec![Self::readable(), Self::writable()] }
    }

    /// C15: one that only ever becomes writable.
    fn writable() -> Self {
        let mut socket = Self { writable: true, ..Self::readable() };
        socket.fill();
        socket
    }

    fn fill(&mut self) {
        while (&self.ours).write(&[0; 4096]).is_ok() {}
    }

    /// Whether the other side has done its part since last time.
    fn take_event(&self) -> bool {
        if self.writable {
            let mut event = false;
            while (&self.ours).write(&[0; 4096]).is_ok() {
                event = true;
            }
            return event;
        }
        if cfg!(miri) {
            let bytes = self.bytes.swap(0, Ordering::SeqCst);
            (&self.ours).read_exact(&mut vec![0; bytes]).unwrap();
            return bytes > 0;
        }
        let mut bytes = [0; 64];
        let mut event = false;
        while (&self.ours).read(&mut bytes).is_ok_and(|read| read > 0) {
            event = true;
        }
        event
    }
}

impl PacketIo<Read, u64> for Socket {
    fn send_io(&self, _at: u64, view: View<Read>) -> Result<(), Refused<Read>> {
        self.queue.lock().unwrap().push_back(view);
        let mut theirs = self.theirs.try_clone().unwrap();
        let (writable, bytes) = (self.writable, Arc::clone(&self.bytes));
        thread::spawn(move || {
            if writable {
                // All of it: a socket counts as writable only when most of it is free.
                while theirs.read(&mut [0; 4096]).is_ok_and(|read| read > 0) {}
            } else {
                bytes.fetch_add(1, Ordering::SeqCst);
                theirs.write_all(&[1]).unwrap();
            }
        });
        Ok(())
    }
}

impl Drive for Socket {
    fn poll_drive(&self, _cx: &mut Context<'_>) {
        self.drives.fetch_add(1, Ordering::Relaxed);
        if self.take_event() {
            let views = std::mem::take(&mut *self.queue.lock().unwrap());
            for view in views {
                let bytes = vec![5; usize::try_from(view.len()).unwrap()];
                view.fill_from(&bytes);
            }
        }
    }
}

impl IoBackend for Socket {
    fn polling_handle(&self) -> Option<PollingHandle<'_>> {
        let (readable, writable) = (!self.writable, self.writable);
        Some(PollingHandle { source: PollSource::Fd(self.ours.as_fd()), readable, writable })
    }

    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.turn).map(Some)
    }

    fn poll_backend(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<BackendHandle<'_>>, BackendBusy>> {
        self.turn.poll_acquire(self, cx).map_ok(Some)
    }

    fn stop_waiting(&self, waker: &Waker) {
        self.turn.stop_waiting(waker);
    }
}

fn rounds(many: usize) -> usize {
    if cfg!(miri) { 3 } else { many }
}

/// A future's borrow of its backend, checked when the future goes.
struct Guard<'a>(&'a Checked);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        assert_eq!(self.0.alive.load(Ordering::SeqCst), 1, "the backend went first");
        self.0.log.fetch_add(1, Ordering::SeqCst);
    }
}

struct Checked {
    target: Mem,
    alive: AtomicUsize,
    log: &'static AtomicUsize,
}

impl IoBackend for Checked {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.target.get_backend()
    }
}

impl Drop for Checked {
    fn drop(&mut self) {
        self.alive.store(0, Ordering::SeqCst);
        // The future before it has counted already.
        assert_eq!(self.log.fetch_add(1, Ordering::SeqCst) % 2, 1);
    }
}

fn checked(log: &'static AtomicUsize) -> Checked {
    Checked { target: Mem::polled(vec![1; 4], 1), alive: AtomicUsize::new(1), log }
}

/// C13: a host that owns its backend drops the future that borrows it first.
#[test]
fn c13_owned_backend_outlives_the_future_that_borrows_it() {
    static LOG: AtomicUsize = AtomicUsize::new(0);
    async fn work(backend: &Checked) -> u8 {
        let _guard = Guard(backend);
        backend.target.read_value::<u8>(0).await.unwrap()
    }
    async fn stuck(backend: &Checked) {
        let _guard = Guard(backend);
        std::future::pending().await
    }
    let executor = Mem::default();
    let run = Null::new(checked(&LOG)).run_with(work);
    assert_eq!(block_on(&executor, run).unwrap(), Ok(1));
    assert_eq!(LOG.load(Ordering::SeqCst), 2);
    // Cancelled in the middle.
    let mut run = Box::pin(Null::new(checked(&LOG)).run_with(stuck));
    assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(run);
    assert_eq!(LOG.load(Ordering::SeqCst), 4);
}

#[test]
fn null_host_drives_a_backend_that_has_a_descriptor_anywhere() {
    for socket in Socket::each() {
        let null = Null::new(&socket);
        let read = null.run(socket.read_value::<u32>(0));
        assert_eq!(block_on(&Mem::default(), read).unwrap().unwrap(), Ok(0x0505_0505));
        // Nothing parks in it, so blocking on it polls.
        assert_eq!(block_on(&socket, socket.read_value::<u8>(0)).unwrap(), Ok(5));
    }
}

#[cfg(feature = "tokio")]
mod tokio {
    use super::*;
    use ::tokio::runtime::Builder;
    use mfio_core::backend::integration::Tokio;

    /// C15: interest in writing is interest in writing.
    #[test]
    fn c15_descriptor_wakes_the_task_by_the_event_it_names() {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        for socket in Socket::each() {
            runtime.block_on(async {
                let host = Tokio::new(&socket).unwrap();
                for _ in 0..rounds(100) {
                    let read = host.run(socket.read_value::<u32>(0)).await.unwrap();
                    assert_eq!(read, Ok(0x0505_0505));
                }
            });
            let drives = socket.drives.load(Ordering::Relaxed);
            assert!(drives < 2_000, "{drives} drives for 100 reads: it spins");
        }
    }

    #[test]
    fn many_tasks_on_many_threads_share_one_send_backend() {
        let runtime = Builder::new_multi_thread().worker_threads(4).enable_io().build().unwrap();
        runtime.block_on(async {
            let host = Arc::new(Tokio::new(Socket::readable()).unwrap());
            let tasks: Vec<_> = (0..16)
                .map(|_| {
                    let host = Arc::clone(&host);
                    ::tokio::spawn(async move {
                        for _ in 0..rounds(50) {
                            let read = host.backend().read_value::<u32>(0);
                            assert_eq!(host.run(read).await.unwrap(), Ok(0x0505_0505));
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }

    #[test]
    fn any_backend_is_hosted_by_a_current_thread_runtime_and_owned_by_it() {
        let runtime = Builder::new_current_thread().enable_io().build().unwrap();
        let target = Mem::polled(vec![3; 8], 1);
        let read = runtime.block_on(Tokio::run_with(target, async |target: &Mem| {
            target.read_exact(4, vec![0; 4]).await.1
        }));
        assert_eq!(read.unwrap(), [3; 4]);
        let socket = Socket::readable();
        let read = runtime.block_on(Tokio::run_with(socket, async |socket: &Socket| {
            socket.read_value::<u8>(0).await
        }));
        assert_eq!(read.unwrap(), Ok(5));
    }
}

#[cfg(feature = "async-io")]
mod async_io {
    use super::*;
    use mfio_core::backend::integration::AsyncIo;

    #[test]
    // Under Miri, `tokio::c15_descriptor_wakes_the_task_by_the_event_it_names` runs instead.
    #[cfg_attr(miri, ignore = "Miri has no timerfd_create, which this reactor is made with")]
    fn c15_descriptor_wakes_the_task_by_the_event_it_names() {
        for socket in Socket::each() {
            let host = AsyncIo::new(&socket).unwrap();
            ::async_io::block_on(async {
                for _ in 0..rounds(100) {
                    let read = host.run(socket.read_value::<u32>(0)).await.unwrap();
                    assert_eq!(read, Ok(0x0505_0505));
                }
            });
            let drives = socket.drives.load(Ordering::Relaxed);
            assert!(drives < 2_000, "{drives} drives for 100 reads: it spins");
        }
    }

    #[test]
    // Under Miri, `tokio::many_tasks_on_many_threads_share_one_send_backend` runs instead.
    #[cfg_attr(miri, ignore = "Miri has no timerfd_create, which this reactor is made with")]
    fn threads_share_one_host() {
        let host = AsyncIo::new(Socket::readable()).unwrap();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..rounds(100) {
                        let read = host.run(host.backend().read_value::<u8>(0));
                        assert_eq!(::async_io::block_on(read).unwrap(), Ok(5));
                    }
                });
            }
        });
        let read = AsyncIo::run_with(host.into_backend(), async |socket: &Socket| {
            socket.read_value::<u8>(0).await
        });
        assert_eq!(::async_io::block_on(read).unwrap(), Ok(5));
    }
}
