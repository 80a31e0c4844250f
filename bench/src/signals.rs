//! SIGINT and SIGTERM as one number that everybody may look at, SIGUSR1 as a request.
//!
//! The first signal asks for an orderly end with a full report; one that comes a second or more
//! after it ends at once. `timeout(1)` sends its signal twice in a moment and means it once.
//!
//! Not here: what an orderly end is (`run::conductor`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::iterator;

/// The exit code of an interrupted run, as with fio.
pub(crate) const EXIT_CODE: u8 = 128;

/// Whoever sends a second signal after that much insists.
const PATIENCE: Duration = Duration::from_secs(1);

/// The signal received, or 0.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    received: Arc<AtomicUsize>,
    status: Arc<AtomicBool>,
}

impl Signals {
    /// Starts listening.
    ///
    /// # Errors
    /// What the system refused.
    pub(crate) fn listen() -> io::Result<Self> {
        let signals = Self::default();
        let insists = Arc::new(AtomicBool::new(false));
        let mut first = iterator::Signals::new([SIGINT, SIGTERM])?;
        for signal in [SIGINT, SIGTERM] {
            flag::register_conditional_shutdown(signal, EXIT_CODE.into(), Arc::clone(&insists))?;
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&signals.received), number)?;
        }
        flag::register(SIGUSR1, Arc::clone(&signals.status))?;
        // Sleeps until there is a signal; it ends with the process.
        thread::Builder::new().name("signals".into()).spawn(move || {
            if first.forever().next().is_some() {
                thread::sleep(PATIENCE);
                insists.store(true, Ordering::Relaxed);
            }
        })?;
        Ok(signals)
    }

    /// Is set by SIGUSR1, which asks for a report of the results so far.
    pub(crate) fn status(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.status)
    }

    /// What the workers' conductor watches.
    pub(crate) fn flag(&self) -> &AtomicUsize {
        &self.received
    }

    /// The signal received, if any.
    pub(crate) fn received(&self) -> Option<usize> {
        Some(self.received.load(Ordering::Relaxed)).filter(|signal| *signal != 0)
    }
}
