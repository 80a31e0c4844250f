//! Counts what the simulated kernel did and folds it into one number.
//!
//! Data flow: every step of the kernel → a counter of [`SimStats`] and a word of the `Trace`.
//! The counters prove that a fault really happened in a run; the trace proves that two runs
//! of one seed took the same path.
//!
//! Not here: deciding that something happens (`kernel`).

/// How many counters [`SimStats`] has.
const FIELDS: usize = 36;

/// What happened in one simulated kernel, or (added up) in many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimStats {
    /// Steps of the kernel: submissions, starts, copies, completions.
    pub kernel_steps: u64,
    /// Ops consumed by `enter`, cancel requests not counted.
    pub ops: u64,
    /// Transfers that moved fewer bytes than asked for, but some.
    pub short_transfers: u64,
    /// Writes that moved nothing.
    pub zero: u64,
    /// Ops answered with `EAGAIN`, or interrupted unasked.
    pub eagain: u64,
    /// Ops failed with `EIO`.
    pub eio: u64,
    /// Writes refused for lack of space.
    pub enospc: u64,
    /// Transfers refused because they were not aligned.
    pub misaligned: u64,
    /// Cancel requests that reached their op before it had started.
    pub cancels_before: u64,
    /// Cancel requests that reached their op while it ran.
    pub cancels_during: u64,
    /// Cancel requests that found no op, or one that had already finished.
    pub cancels_after: u64,
    /// Times the completion queue became full.
    pub cq_full: u64,
    /// Completions that found the queue full and waited in the overflow list.
    pub cq_overflows: u64,
    /// Times `enter` itself failed.
    pub enter_errors: u64,
    /// Times `enter` consumed only a part of what was queued.
    pub partial_submits: u64,
    /// Chains cut in two by a partial submit.
    pub chains_cut: u64,
    /// Followers cancelled because their head was short or failed.
    pub chains_broken: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Flushes that failed and lost data.
    pub flush_failures: u64,
    /// Completions posted for tags that had already completed, or with `more` set.
    pub duplicates: u64,
    /// Power losses.
    pub crashes: u64,
    /// Ops on ranges that succeeded.
    pub ranges: u64,
    /// Writes with `RWF_DSYNC` that have saved their bytes.
    pub dsync_writes: u64,
    /// Transfers with memory in several pieces.
    pub vectored: u64,
    /// Cancel requests that did not find their op although it ran.
    pub cancels_missed: u64,
    /// Ops that completed as cancelled with every byte moved (F17).
    pub cancelled_whole: u64,
    /// Times that bytes moved after a cancel request had been answered (F03).
    pub late_copies: u64,
    /// Times `reap` saw only a part of what was there a moment later.
    pub partial_reaps: u64,
    /// Times `enter` failed with `EINTR`, nothing being in flight.
    pub eintr_idle: u64,
    /// As `eintr_idle`, with ops in flight.
    pub eintr_busy: u64,
    /// Times `enter` failed with `EAGAIN`, nothing being in flight.
    pub eagain_idle: u64,
    /// As `eagain_idle`, with ops in flight.
    pub eagain_busy: u64,
    /// Times `enter` failed with `EBUSY`, nothing being in flight.
    pub ebusy_idle: u64,
    /// As `ebusy_idle`, with ops in flight.
    pub ebusy_busy: u64,
    /// Times `enter` failed with `ENOMEM`, nothing being in flight.
    pub enomem_idle: u64,
    /// As `enomem_idle`, with ops in flight.
    pub enomem_busy: u64,
}

impl SimStats {
    /// Adds the counters of another kernel.
    pub fn add(&mut self, other: &Self) {
        for ((_, mine), (_, theirs)) in self.fields_mut().into_iter().zip(other.fields()) {
            *mine += theirs;
        }
    }

    /// Every counter with its name, in a fixed order.
    #[must_use]
    pub fn fields(&self) -> [(&'static str, u64); FIELDS] {
        let mut copy = *self;
        copy.fields_mut().map(|(name, value)| (name, *value))
    }

    fn fields_mut(&mut self) -> [(&'static str, &mut u64); FIELDS] {
        [
            ("kernel steps", &mut self.kernel_steps),
            ("ops", &mut self.ops),
            ("short transfers", &mut self.short_transfers),
            ("zero writes", &mut self.zero),
            ("EAGAIN", &mut self.eagain),
            ("EIO", &mut self.eio),
            ("ENOSPC", &mut self.enospc),
            ("misaligned", &mut self.misaligned),
            ("cancels before", &mut self.cancels_before),
            ("cancels during", &mut self.cancels_during),
            ("cancels after", &mut self.cancels_after),
            ("CQ full", &mut self.cq_full),
            ("CQ overflows", &mut self.cq_overflows),
            ("enter errors", &mut self.enter_errors),
            ("partial submits", &mut self.partial_submits),
            ("chains cut", &mut self.chains_cut),
            ("chains broken", &mut self.chains_broken),
            ("flushes", &mut self.flushes),
            ("flush failures", &mut self.flush_failures),
            ("duplicates", &mut self.duplicates),
            ("crashes", &mut self.crashes),
            ("ops on ranges", &mut self.ranges),
            ("dsync writes", &mut self.dsync_writes),
            ("vectored", &mut self.vectored),
            ("cancels missed", &mut self.cancels_missed),
            ("cancelled but whole", &mut self.cancelled_whole),
            ("copies after a cancel", &mut self.late_copies),
            ("partial reaps", &mut self.partial_reaps),
            ("enter EINTR, idle", &mut self.eintr_idle),
            ("enter EINTR, in flight", &mut self.eintr_busy),
            ("enter EAGAIN, idle", &mut self.eagain_idle),
            ("enter EAGAIN, in flight", &mut self.eagain_busy),
            ("enter EBUSY, idle", &mut self.ebusy_idle),
            ("enter EBUSY, in flight", &mut self.ebusy_busy),
            ("enter ENOMEM, idle", &mut self.enomem_idle),
            ("enter ENOMEM, in flight", &mut self.enomem_busy),
        ]
    }
}

/// A hash of everything that happened so far, in order (FNV-1a over words, with a rotation so
/// that the high bits take part).
#[derive(Clone, Copy, Debug)]
pub struct Trace(u64);

impl Trace {
    /// The hash of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    /// Takes one word in. Never an address: those differ between two runs of one seed.
    #[inline]
    pub fn fold(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }

    /// The hash of all words so far.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{SimStats, Trace};

    #[test]
    fn adding_counters_adds_every_field() {
        let mut ones = SimStats::default();
        for (_, value) in ones.fields_mut() {
            *value = 1;
        }
        let mut sum = ones;
        sum.add(&ones);
        assert!(sum.fields().iter().all(|(_, value)| *value == 2));
    }

    #[test]
    fn trace_depends_on_the_order_of_its_words() {
        let (mut a, mut b) = (Trace::new(), Trace::new());
        a.fold(1);
        a.fold(2);
        b.fold(2);
        b.fold(1);
        assert_ne!(a.value(), b.value());
    }
}
