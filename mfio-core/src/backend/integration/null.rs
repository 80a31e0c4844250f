//! The host that knows nothing: works in every executor, by asking to be polled again.
//!
//! Data flow: polled → future, backend → woken at once, as long as there is driving to do.
//!
//! Not here: hosts that sleep until a descriptor is ready (`tokio`, `async_io`).

use core::future::{Future, poll_fn};
use core::pin::pin;

use super::super::embed::Embedded;
use crate::backend::{BackendBusy, IoBackend};

/// Drives a backend in any executor, with no means of waiting but the executor's own: while a
/// future is pending its task stays runnable and uses the processor. A backend that needs no
/// driving costs nothing of the kind.
///
/// ```
/// use mfio_core::{IoRead, backend::integration::Null, mem::Mem};
/// # let executor = Mem::polled(vec![], 1);
/// # let run = |future| mfio_core::block_on(&executor, future).unwrap();
/// let read = Null::new(Mem::polled(vec![7; 4], 2))
///     .run_with(async |target: &Mem| target.read_value::<u8>(3).await);
/// // `run` is the `block_on` of whatever executor there is.
/// assert_eq!(run(Box::pin(read)).unwrap(), Ok(7));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Null<B> {
    backend: B,
}

impl<B: IoBackend> Null<B> {
    /// Hosts `backend`, which may be a reference.
    #[must_use]
    pub const fn new(backend: B) -> Self {
        Self { backend }
    }

    /// The backend.
    #[must_use]
    pub const fn backend(&self) -> &B {
        &self.backend
    }

    /// The backend back.
    #[must_use]
    pub fn into_backend(self) -> B {
        self.backend
    }

    /// Runs `future`, driving the backend.
    ///
    /// # Errors
    /// [`BackendBusy`] as [`with_backend`](crate::backend::with_backend).
    ///
    /// # Cancel safety
    /// As `with_backend`.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, BackendBusy> {
        let mut embedded = Embedded::new(&self.backend);
        let mut future = pin!(future);
        poll_fn(|cx| {
            let polled = embedded.poll(future.as_mut(), cx);
            if polled.is_pending() && embedded.drove {
                cx.waker().wake_by_ref();
            }
            polled
        })
        .await
    }

    /// Runs `work` on the backend. The future goes before the backend that it borrows, whether
    /// it ends or is dropped.
    ///
    /// # Errors
    /// As [`Null::run`].
    ///
    /// # Cancel safety
    /// As [`Null::run`]; the backend is dropped too, and does with its packets what its drop
    /// says.
    pub async fn run_with<W, T>(self, work: W) -> Result<T, BackendBusy>
    where
        W: AsyncFnOnce(&B) -> T,
    {
        // A local: locals go before what was passed in, in the reverse order.
        let host = self;
        let done = host.run(work(&host.backend)).await;
        drop(host);
        done
    }
}
