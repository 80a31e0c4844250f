//! Says how hostile a simulated kernel is.
//!
//! Data flow: a workload draws a [`SimConfig`] from its seed → `kernel` asks it at each step.
//!
//! Not here: sizes and alignments of files (`device`).

use crate::ring::Plant;

/// How often each thing goes wrong, in 65,536ths: 65 is about one in a thousand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultRates {
    /// A transfer moves only a part: whole sectors of a direct file, any bytes of another.
    pub short: u16,
    /// A write moves nothing and reports no error.
    pub zero: u16,
    /// An op is answered with `EAGAIN` before it has begun.
    pub eagain: u16,
    /// An op is interrupted although nobody asked: `EINTR` or `ECANCELED`, maybe half done.
    pub interrupted: u16,
    /// A transfer fails with `EIO`, maybe half done.
    pub eio: u16,
    /// A write is short or fails with `ENOSPC` although there is space.
    pub enospc: u16,
    /// A flush fails, loses dirty sectors and marks them clean (F37).
    pub flush_fail: u16,
    /// `enter` fails with `EINTR`, sometimes after it has consumed what was queued.
    pub enter_eintr: u16,
    /// `enter` fails with `EAGAIN`, having consumed nothing.
    pub enter_eagain: u16,
    /// `enter` fails with `EBUSY`, having consumed nothing.
    pub enter_ebusy: u16,
    /// `enter` consumes a part of what was queued.
    pub partial_submit: u16,
    /// A partial submit stops inside a chain if it can, which cuts the chain in two.
    pub chain_cut: u16,
    /// An op waits long before it starts, so that a cancel finds it not begun.
    pub start_delay: u16,
    /// An op takes 20 times as long, so that later ones overtake it.
    pub delay: u16,
    /// The completion of a finished op is posted late, so that a cancel comes after it.
    pub cq_delay: u16,
    /// A transfer is copied in two steps, so that a concurrent one can come in between.
    pub torn_copy: u16,
    /// A completion with `more` set is posted before the last one.
    pub more: u16,
    /// A tag that has already completed whole completes again (F04).
    pub stale: u16,
    /// Of the sectors of a file, those where trying again is of no use: what begins in one is
    /// answered with `EAGAIN` until it is forced to a worker, or writes nothing (F13, F23).
    pub stuck: u16,
    /// `enter` fails with `ENOMEM`, having consumed nothing.
    pub enter_enomem: u16,
    /// `reap` sees only a part of what is there: the rest was posted a moment too late.
    pub partial_reap: u16,
}

impl FaultRates {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        short: 0,
        zero: 0,
        eagain: 0,
        interrupted: 0,
        eio: 0,
        enospc: 0,
        flush_fail: 0,
        enter_eintr: 0,
        enter_eagain: 0,
        enter_ebusy: 0,
        partial_submit: 0,
        chain_cut: 0,
        start_delay: 0,
        delay: 0,
        cq_delay: 0,
        torn_copy: 0,
        more: 0,
        stale: 0,
        stuck: 0,
        enter_enomem: 0,
        partial_reap: 0,
    };

    /// Everything goes wrong now and then, and most ops still succeed.
    pub const HOSTILE: Self = Self {
        short: 1024,
        zero: 128,
        eagain: 768,
        interrupted: 128,
        eio: 128,
        enospc: 64,
        flush_fail: 256,
        enter_eintr: 512,
        enter_eagain: 256,
        enter_ebusy: 256,
        partial_submit: 1024,
        chain_cut: 16384,
        start_delay: 4096,
        delay: 2048,
        cq_delay: 8192,
        torn_copy: 8192,
        more: 64,
        stale: 128,
        stuck: 256,
        enter_enomem: 128,
        partial_reap: 2048,
    };

    /// The faults that decide the outcome of a transfer, together.
    pub(super) const fn transfer_total(&self) -> u32 {
        self.short as u32
            + self.zero as u32
            + self.eagain as u32
            + self.interrupted as u32
            + self.eio as u32
            + self.enospc as u32
    }
}

/// A device that serves a few ops at a time, each for a while, in the order of their start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Ops served at a time; others wait for the next channel that is free.
    pub channels: u32,
    /// The shortest that serving one op takes.
    pub least_ns: u32,
    /// The longest. Short ones are more frequent: the time grows with the square of an even
    /// draw.
    pub most_ns: u32,
}

/// Sizes and temper of a simulated ring.
#[derive(Clone, Copy, Debug)]
pub struct SimConfig {
    /// Where the kernel's own choices come from.
    pub seed: u64,
    /// Submission queue entries.
    pub sq_entries: u32,
    /// Completion queue entries.
    pub cq_entries: u32,
    /// The longest transfer the ring recommends.
    pub transfer_bytes_max: u32,
    /// Entries of the registered file table; further files stay plain descriptors.
    pub files_registered_max: u32,
    /// The longest an undisturbed op takes.
    pub latency_ns_max: u32,
    /// What goes wrong, and how often.
    pub faults: FaultRates,
    /// The deliberate bug that is switched on in the shard above, if any.
    pub plant: Option<Plant>,
    /// How long ops take, where `latency_ns_max` is not all there is to say.
    pub service: Option<Service>,
    /// How often a [`Knob`](crate::ring::Knob) is turned, in 65,536ths. The calm part of a run
    /// has none of that.
    pub knobs: u16,
    /// What the ring can do.
    pub features: SimFeatures,
}

/// What a simulated ring can do (F33): all of it as a rule, so that what an older kernel lacks
/// can be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimFeatures {
    /// Vectored ops take registered memory.
    pub vectored_fixed: bool,
    /// How many quarters of the arena are registered, from its start: 0 to 4 (F32).
    pub registered_quarters: u8,
    /// Ops on ranges ([`OpKind::is_range`](crate::ring::OpKind::is_range)) can be pushed.
    pub ranges: bool,
}

impl SimFeatures {
    /// Everything.
    pub const ALL: Self = Self { vectored_fixed: true, registered_quarters: 4, ranges: true };
}

impl SimConfig {
    /// A kernel that works: 64 entries, no faults, no plant.
    #[must_use]
    pub const fn calm(seed: u64) -> Self {
        Self {
            seed,
            sq_entries: 64,
            cq_entries: 128,
            transfer_bytes_max: 1 << 20,
            files_registered_max: 16,
            latency_ns_max: 50_000,
            faults: FaultRates::NONE,
            plant: None,
            service: None,
            knobs: 0,
            features: SimFeatures::ALL,
        }
    }

    /// As [`SimConfig::calm`], with everything going wrong now and then.
    #[must_use]
    pub const fn hostile(seed: u64) -> Self {
        Self { faults: FaultRates::HOSTILE, ..Self::calm(seed) }
    }
}
