//! How completions, and submissions, are polled for where they can be.
//!
//! Not here: polling (`kernel::beside`), choosing it for a target (`target::OpenOptions`).

/// How a ring learns that an op on a target has completed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Poll {
    /// By an interrupt; who waits sleeps.
    #[default]
    Interrupt,
    /// By asking the device, over and over, while ops are in flight (`IORING_SETUP_IOPOLL`):
    /// shorter, for all of a core. The driver must have queues for it (`nvme.poll_queues`).
    Polled,
    /// As `Polled`, after sleeping for about half of the time that ops take
    /// (`IORING_SETUP_HYBRID_IOPOLL`, Linux 6.13); `Polled` where the kernel cannot.
    Hybrid,
}
