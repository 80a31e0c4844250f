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
    /// As `Polled`, but before the kernel asks for an op the first time it sleeps, for half of
    /// the shortest time that an op has taken (`IORING_SETUP_HYBRID_IOPOLL`, Linux 6.13): about
    /// as short, for less of the core. The whole shard sleeps with it. It is the same as `Polled`
    /// where the kernel cannot, and the ring's features say which of them it is.
    Hybrid,
}

/// A thread of the kernel that takes what is queued, so that submitting costs no system call
/// (`IORING_SETUP_SQPOLL`). It uses all of a core while there is work, and `idle_ms` after it;
/// on a machine without a core to spare for each shard it costs more than it saves (F35).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SqPoll {
    /// How long it looks at an empty queue before it sleeps, in milliseconds; 0 is the kernel's
    /// choice, a second. It is woken with the next submit, by a system call.
    pub idle_ms: u32,
    /// The core that it is bound to; `None` for any.
    pub cpu: Option<u32>,
}
