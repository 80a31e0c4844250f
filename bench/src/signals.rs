//! SIGINT and SIGTERM as one number that everybody may look at, SIGUSR1 as a request.
//!
//! The first signal asks for an orderly end with a full report; the second one ends at once.
//!
//! Not here: what an orderly end is (`run::conductor`).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// The exit code of an interrupted run, as with fio.
pub(crate) const EXIT_CODE: u8 = 128;

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
        let again = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Order matters: the shutdown looks at what the first signal has set.
            flag::register_conditional_shutdown(signal, EXIT_CODE.into(), Arc::clone(&again))?;
            flag::register(signal, Arc::clone(&again))?;
            let number = usize::try_from(signal).unwrap_or(0);
            flag::register_usize(signal, Arc::clone(&signals.received), number)?;
        }
        flag::register(SIGUSR1, Arc::clone(&signals.status))?;
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
