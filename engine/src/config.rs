//! The limits of a shard, with names, checked once.
//!
//! Not here: what a ring can do (`ring::Limits`), what a target demands (`target`).

use crate::buffer::{ArenaConfig, SizeClass};
use crate::error::EngineError;
use crate::shard::BypassMode;

/// The limits of one shard.
#[derive(Clone, Debug)]
pub struct Config {
    /// The most ops in flight. Fewer where the ring's completion queue is smaller (F20). Ops on
    /// sockets, which wait for a peer, are beside them: at most three for each that is open.
    pub in_flight_max: u32,
    /// The most views accepted and not yet started; more are refused, as back-pressure (F19).
    pub backlog_max: u32,
    /// The registered memory.
    pub arena: ArenaConfig,
    /// How long a shutdown waits for ops in flight, in nanoseconds. What is not drained by
    /// then is quarantined (F02).
    pub drain_ns: u64,
    /// Keep histograms of how long ops take, for
    /// [`MetricsReader::latency`](crate::MetricsReader::latency). Costs one clock read per op,
    /// one per batch of completions, and about 90 KiB.
    pub latency: bool,
    /// Count the ops that the kernel hands to its workers, for
    /// [`MetricsReader::punts`](crate::MetricsReader::punts). Needs a mounted tracefs and
    /// `CAP_PERFMON` (Linux 5.8); without them the shard works, and the number is unknown.
    /// Costs the kernel a count per punt and a few stores when the thread is switched.
    pub count_punts: bool,
    /// Whether an op with nothing else in flight may bypass the ring.
    pub bypass: BypassMode,
    /// The most tasks of the shard's own executor at a time, `block_on`'s future not counted.
    pub tasks_max: u32,
    /// The most packets and requests from other threads that wait for the shard; more are
    /// refused, as back-pressure.
    pub mailbox_max: u32,
    /// Whether a read that fails with `EIO` is read again in halves, down to the block, so that
    /// everything that can be read is, and the failed ranges are exact. Costs up to two ops for
    /// each block of it, each of which a dying device may take its time for.
    pub bisect_reads: bool,
    /// Whether neighbouring entries of a batch go as one op (`Metrics::coalesced`).
    pub coalesce: bool,
    /// Who goes first, and who waits where.
    pub classes: ClassLimits,
}

/// The limits of the classes of traffic; foreground's own room is [`Config::backlog_max`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClassLimits {
    /// The most log views accepted and not yet started.
    pub log_backlog_max: u32,
    /// The most background views accepted and not yet started.
    pub background_backlog_max: u32,
    /// Bytes of foreground ops, in proportion, where both classes wait for slots.
    pub foreground_share: u32,
    /// Bytes of background ops, likewise.
    pub background_share: u32,
    /// The most background ops in flight; at most three quarters of `in_flight_max`.
    pub background_in_flight_max: u32,
    /// Let fewer in while foreground ops suffer. Without it, background traffic takes what it
    /// gets.
    pub adaptive: bool,
}

impl ClassLimits {
    /// 256 and 1024 views of room, shares of 8 to 1, at most 64 background ops, adaptive.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            log_backlog_max: 256,
            background_backlog_max: 1024,
            foreground_share: 8,
            background_share: 1,
            background_in_flight_max: 64,
            adaptive: true,
        }
    }
}

impl Default for ClassLimits {
    fn default() -> Self {
        Self::new()
    }
}

impl Config {
    /// 256 ops in flight, 1024 waiting, 4 MiB of 4 KiB buffers and eight of 128 KiB for
    /// bouncing, five seconds to drain,
    /// 1024 tasks, and 1024 messages from other threads.
    #[must_use]
    pub fn new() -> Self {
        let classes = vec![
            SizeClass { bytes: 4 << 10, count: 1024 },
            SizeClass { bytes: 128 << 10, count: 8 },
        ];
        Self {
            in_flight_max: 256,
            backlog_max: 1024,
            arena: ArenaConfig::new(classes),
            drain_ns: 5_000_000_000,
            latency: false,
            count_punts: false,
            bypass: BypassMode::Auto,
            tasks_max: 1024,
            mailbox_max: 1024,
            bisect_reads: true,
            coalesce: true,
            classes: ClassLimits::new(),
        }
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// [`EngineError::Config`] naming the limit and what it must be; [`EngineError::Arena`].
    pub fn validate(&self) -> Result<(), EngineError> {
        let at_least_one = [
            ("in_flight_max", self.in_flight_max),
            ("backlog_max", self.backlog_max),
            ("tasks_max", self.tasks_max),
            ("mailbox_max", self.mailbox_max),
            ("classes.log_backlog_max", self.classes.log_backlog_max),
            ("classes.background_backlog_max", self.classes.background_backlog_max),
            ("classes.foreground_share", self.classes.foreground_share),
            ("classes.background_share", self.classes.background_share),
            ("classes.background_in_flight_max", self.classes.background_in_flight_max),
        ];
        for (limit, value) in at_least_one {
            if value == 0 {
                return Err(EngineError::Config { limit, must: "be at least 1" });
            }
        }
        if self.in_flight_max > 1 << 16 {
            return Err(EngineError::Config { limit: "in_flight_max", must: "be at most 65536" });
        }
        for (limit, value) in [("tasks_max", self.tasks_max), ("mailbox_max", self.mailbox_max)] {
            if value > 1 << 20 {
                return Err(EngineError::Config { limit, must: "be at most 1048576" });
            }
        }
        self.arena.validate().map_err(EngineError::Arena)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}
