//! Hosts: runtimes in whose tasks a backend is driven, and which learn when to.
//!
//! Data flow: host event → host task → user's future → backend. All hosts have the same shape:
//! `new(backend)`, `run(future)` as often as wanted and from as many tasks, `run_with` for all
//! in one.
//!
//! Not here: threads without a runtime ([`block_on`](crate::block_on)), runtimes that need no
//! help because the backend wakes by itself ([`with_backend`](super::with_backend)).

#[cfg(all(feature = "async-io", unix))]
mod async_io;
mod null;
#[cfg(all(feature = "tokio", unix))]
mod tokio;
#[cfg(all(any(feature = "tokio", feature = "async-io"), unix))]
mod watch;

#[cfg(all(feature = "async-io", unix))]
pub use self::async_io::AsyncIo;
pub use self::null::Null;
#[cfg(all(feature = "tokio", unix))]
pub use self::tokio::Tokio;
