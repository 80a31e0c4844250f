//! Driving a backend from inside a task of any runtime.
//!
//! Data flow: host polls → the user's future, then the backend, both with one waker → again at
//! once if that waker was used meanwhile, else back to the host until it is.
//!
//! Not here: telling the host which descriptors to watch (`integration`).

use alloc::sync::Arc;
use alloc::task::Wake;
use core::future::{Future, poll_fn};
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicU8, Ordering};
use core::task::{Context, Poll, Waker};

use super::block::Turnstile;
use super::{BackendBusy, IoBackend, poll_custom};

/// How often one poll by the host goes round before others of the host's tasks get a turn.
const ROUNDS_MAX: usize = 32;

/// Being polled: a wake needs only to be remembered.
const RUNNING: u8 = 1;
/// Woken since the last round began.
const WOKEN: u8 = 2;

/// The waker that everything inside is polled with.
struct Relay {
    state: AtomicU8,
    host: Waker,
}

impl Wake for Relay {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) == 0 {
            self.host.wake_by_ref();
        }
    }
}

/// What remains of an embedded backend between two polls. The right to drive does not: it is
/// held only while driving, so that tasks on several threads can take turns, and the future
/// can move between them.
pub(super) struct Embedded<'a, B: IoBackend + ?Sized> {
    backend: &'a B,
    turnstile: Turnstile<'a, B>,
    relay: Option<(Arc<Relay>, Waker)>,
    /// Whether the last round drove: false where no driving is needed.
    pub(super) drove: bool,
}

impl<'a, B: IoBackend + ?Sized> Embedded<'a, B> {
    pub(super) fn new(backend: &'a B) -> Self {
        Self { backend, turnstile: Turnstile::new(backend), relay: None, drove: false }
    }

    pub(super) fn poll<F: Future>(
        &mut self,
        mut future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, BackendBusy>> {
        let (relay, waker) = self.relay_to(cx.waker());
        let mut inner = Context::from_waker(&waker);
        for _ in 0..ROUNDS_MAX {
            relay.state.swap(RUNNING, Ordering::AcqRel);
            if let Poll::Ready(output) = future.as_mut().poll(&mut inner) {
                // Left running: a wake that comes later disturbs nobody.
                return Poll::Ready(Ok(output));
            }
            let ready = match self.turnstile.poll(&mut inner) {
                Poll::Ready(Err(busy)) => return Poll::Ready(Err(busy)),
                Poll::Ready(Ok(Some(handle))) => {
                    self.drove = true;
                    handle.poll_drive(&mut inner);
                    poll_custom(self.backend, &mut inner)
                }
                Poll::Ready(Ok(None)) | Poll::Pending => false,
            };
            let quiet = || {
                let (running, order) = (RUNNING, Ordering::AcqRel);
                relay.state.compare_exchange(running, 0, order, Ordering::Acquire).is_ok()
            };
            if !ready && quiet() {
                return Poll::Pending;
            }
        }
        relay.state.store(WOKEN, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn relay_to(&mut self, host: &Waker) -> (Arc<Relay>, Waker) {
        match &self.relay {
            Some((relay, waker)) if relay.host.will_wake(host) => {
                (Arc::clone(relay), waker.clone())
            }
            _ => {
                let relay = Arc::new(Relay { state: AtomicU8::new(RUNNING), host: host.clone() });
                let waker = Waker::from(Arc::clone(&relay));
                self.relay = Some((Arc::clone(&relay), waker.clone()));
                (relay, waker)
            }
        }
    }
}

/// Runs `future` in whatever runtime polls the result, driving `backend` whenever it is
/// polled. `Send` where `future` is and the backend is `Sync`.
///
/// The host polls again when something wakes: a packet that another thread completed, a
/// [custom source](super::PollSource::Custom). Where the backend has a descriptor, its owner
/// watches it and wakes; [`integration`](super::integration) does both for known hosts.
///
/// ```
/// use mfio_core::{IoRead, mem::Mem};
/// use mfio_core::backend::{SpinPark, block_on_with, with_backend};
/// let (one, other) = (Mem::polled(vec![7; 4], 2), Mem::polled(vec![8; 4], 2));
/// let both = async { (one.read_value::<u8>(0).await, other.read_value::<u8>(0).await) };
/// // Here the host is another backend's `block_on`.
/// let read = block_on_with(&one, &SpinPark, with_backend(&other, both)).unwrap().unwrap();
/// assert_eq!(read, (Ok(7), Ok(8)));
/// ```
///
/// # Errors
/// [`BackendBusy`] where the backend is being driven by somebody who cannot be waited for: a
/// blocking call further up on this thread, or another thread of a backend that threads do not
/// share. `future` may have run in part, and is dropped.
///
/// # Cancel safety
/// Dropping it drops `future`; packets under way stay with the backend, which somebody else
/// must drive for them to complete.
pub async fn with_backend<B, F>(backend: &B, future: F) -> Result<F::Output, BackendBusy>
where
    B: IoBackend + ?Sized,
    F: Future,
{
    let mut embedded = Embedded::new(backend);
    let mut future = pin!(future);
    poll_fn(|cx| embedded.poll(future.as_mut(), cx)).await
}
