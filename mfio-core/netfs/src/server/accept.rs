//! What the errors of a listener mean for the server.
//!
//! Data flow: error → one connection that was gone again, or something scarce, or the end of the
//! listener → try again at once, later, or never.
//!
//! Not here: who is accepted (`server`).

use core::time::Duration;

use mfio_rt::{Error, ErrorKind};

/// Connections in a row that were gone again, after which even those are waited for.
const GONE_MAX: u32 = 16;
/// The first pause, and the longest: each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// For how long the same is told once.
const UNTOLD: Duration = Duration::from_secs(10);

const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const EPROTO: i32 = 71;

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
        _ if matches!(error.errno(), Some(EINTR | EAGAIN | EPROTO)) => Means::Gone,
        _ => Means::Scarce,
    }
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
