//! The lock that an opener takes before anything of a file is read.
//!
//! Data flow: descriptor → `flock(2)`, tried again until the patience ends → held or refused.
//!
//! Not here: what is done under the lock (`open`).

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::geometry::errno_of;
use super::refusal::OpenError;
use crate::sys;

/// How long an open waits for another process's lock, or for a device that others have open, in
/// milliseconds.
pub const LOCK_WAIT_MS_MAX: u64 = 2_000;

/// What is done between two attempts: giving up the processor for a moment.
pub(crate) fn pause() {
    sys::pause(Duration::from_millis(5));
}

/// How long something that began then has taken, in milliseconds.
pub(super) fn waited_ms(started_ns: u64) -> u64 {
    (sys::now_ns() - started_ns) / 1_000_000
}

/// Takes the lock, shared or `exclusive`; calls `pause` between two attempts.
///
/// # Errors
/// [`OpenError::Locked`] where another process held it all of the time; [`OpenError::Os`].
pub(super) fn lock(
    path: &Path,
    file: &File,
    exclusive: bool,
    pause: &mut dyn FnMut(),
) -> Result<(), OpenError> {
    let started_ns = sys::now_ns();
    loop {
        let attempt = if exclusive { file.try_lock() } else { file.try_lock_shared() };
        let waited_ms = waited_ms(started_ns);
        match attempt {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if waited_ms >= LOCK_WAIT_MS_MAX => {
                return Err(OpenError::Locked { path: path.to_owned(), waited_ms });
            }
            Err(TryLockError::WouldBlock) => pause(),
            Err(TryLockError::Error(error)) => {
                let errno = errno_of(&error);
                return Err(OpenError::Os { path: path.to_owned(), call: "flock", errno });
            }
        }
    }
}
