//! What the errors of a listener mean for the server.
//!
//! Data flow: error → one connection that was gone again, or something scarce, or the end of the
//! listener → try again at once, later, or never.
//!
//! Not here: who is accepted (`server`).

use core::time::Duration;
use std::io;

use mfio_rt::{Error, ErrorKind};

/// Connections in a row that were gone again, after which even those are waited for.
const GONE_MAX: u32 = 16;
/// The first pause, and the longest: each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// For how long the same is told once.
const UNTOLD: Duration = Duration::from_secs(10);

enum Means {
    /// It was about one connection, which is gone: the next one may be there.
    Gone,
    /// Something is used up, or unknown: it may be there again later.
    Scarce,
    /// Nobody will ever be accepted.
    Over,
}

fn meaning(error: &Error) -> Means {
    match error.kind() {
        ErrorKind::BadHandle | ErrorKind::InvalidInput | ErrorKind::Closed => Means::Over,
        // Linux tells the errors of a connection that waits by this call: see accept(2).
        ErrorKind::ConnectionReset
        | ErrorKind::TimedOut
        | ErrorKind::Unreachable
        | ErrorKind::PermissionDenied => Means::Gone,
        _ if error.errno().is_some_and(is_gone) => Means::Gone,
        _ => Means::Scarce,
    }
}

/// Whether the system's number says that there is no connection, or no longer.
fn is_gone(errno: i32) -> bool {
    use io::ErrorKind as Std;
    let kind = io::Error::from_raw_os_error(errno).kind();
    matches!(kind, Std::Interrupted | Std::WouldBlock) || is_protocol_error(errno)
}

/// What `std` has no kind for.
#[cfg(unix)]
fn is_protocol_error(errno: i32) -> bool {
    errno == rustix::io::Errno::PROTO.raw_os_error()
}

#[cfg(not(unix))]
fn is_protocol_error(_errno: i32) -> bool {
    false
}

/// How long a server tries, and what it has told of that.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// Errors since somebody was accepted.
    row: u32,
    told: Option<Error>,
    /// For how long nothing but that has happened.
    untold: Duration,
}

impl Patience {
    /// Somebody was accepted.
    pub(super) fn renew(&mut self) {
        if self.row > 0 {
            *self = Self::default();
        }
    }

    /// How long to wait after `error`, none where the next may be there at once; `None` where
    /// the listener is of no use any more.
    pub(super) fn after(&mut self, error: &Error) -> Option<Duration> {
        let before = match meaning(error) {
            Means::Over => return None,
            Means::Gone if self.row < GONE_MAX => None,
            Means::Gone => Some(self.row - GONE_MAX),
            Means::Scarce => Some(self.row),
        };
        self.row = self.row.saturating_add(1);
        let pause = |before: u32| PAUSE_MIN.saturating_mul(1 << before.min(16)).min(PAUSE_MAX);
        Some(before.map_or(Duration::ZERO, pause))
    }

    /// Whether `error`, after which there is a pause, is to be told.
    pub(super) fn tells(&mut self, error: &Error, pause: Duration) -> bool {
        let same = self.told.as_ref() == Some(error) && self.untold < UNTOLD;
        if same {
            self.untold += pause;
        } else {
            (self.told, self.untold) = (Some(error.clone()), pause);
        }
        !same
    }
}

#[cfg(test)]
mod tests {
    use mfio_rt::Op;

    use super::*;

    /// By the system's own numbers, whichever system it is.
    #[test]
    fn connections_that_were_gone_again_are_told_from_what_is_scarce() {
        #[cfg(unix)]
        {
            use rustix::io::Errno;
            for (errno, gone) in [
                (Errno::INTR, true),
                (Errno::AGAIN, true),
                (Errno::PROTO, true),
                (Errno::MFILE, false),
                (Errno::NOBUFS, false),
            ] {
                let error = Error::new(Op::Accept, ErrorKind::Os).with_errno(errno.raw_os_error());
                assert_eq!(matches!(meaning(&error), Means::Gone), gone, "{errno}");
            }
        }
        let scarce = Error::new(Op::Accept, ErrorKind::TooManyOpen);
        assert!(matches!(meaning(&scarce), Means::Scarce));
        assert!(matches!(meaning(&Error::new(Op::Accept, ErrorKind::Closed)), Means::Over));
    }
}
