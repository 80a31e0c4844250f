//! What a shard counts. Plain integers of one thread: counting costs an addition.
//!
//! Data flow: shard → [`Metrics`] → once per turn, if anybody reads → [`MetricsReader`], which
//! any thread may hold.
//!
//! Not here: how they cross to other threads (`publish`), latencies (`latency`), their text
//! (`display`).

mod display;
mod latency;
mod publish;
mod punts;

pub(crate) use latency::Stamps;
pub use latency::{Direction, Histogram};
pub(crate) use publish::Published;
pub use publish::{LATENCY_CLASSES, MetricsReader};
pub use punts::{PuntCounter, Punts, punts};

/// Declares the counters once: as fields, and as words that another thread can be shown.
macro_rules! counters {
    ($(#[$of:meta])* pub struct $name:ident {
        $($(#[$doc:meta])* pub $field:ident: u64,)*
    }) => {
        $(#[$of])*
        pub struct $name {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl $name {
            /// How many counters there are.
            pub(crate) const COUNT: usize = [$(stringify!($field)),*].len();

            /// Every counter with its name, in the order of the fields.
            #[must_use]
            pub const fn named(&self) -> [(&'static str, u64); Self::COUNT] {
                [$((stringify!($field), self.$field)),*]
            }

            #[inline]
            const fn words(&self) -> [u64; Self::COUNT] {
                [$(self.$field),*]
            }

            const fn from_words(words: [u64; Self::COUNT]) -> Self {
                let [$($field),*] = words;
                Self { $($field),* }
            }
        }
    };
}

counters! {
/// Counters of one shard since it was made.
///
/// What is done on the scratch space of a calibration
/// ([`File::calibrate`](crate::File::calibrate)) counts as `ops`, `enters` and `submitted`,
/// because the ring had that to do, and neither as bytes, flushes or acknowledgements nor with
/// its latencies, which are the user's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Ops pushed: reads, writes and flushes, each retry again.
    pub ops: u64,
    /// Calls of `enter`: the system calls of a kernel ring.
    pub enters: u64,
    /// Calls of `enter` that failed and were made again (F21).
    pub enter_errors: u64,
    /// Completions that moved less than asked for (F11).
    pub short_transfers: u64,
    /// Ops issued again after EAGAIN or EINTR (F23).
    pub retries: u64,
    /// Flushes issued.
    pub flushes: u64,
    /// Flushes that failed; each has poisoned its target (F37).
    pub flush_failures: u64,
    /// Durable writes whose flush was linked to them and had to be issued again (F14).
    pub chains_broken: u64,
    /// Ops in flight whose caller left.
    pub cancels: u64,
    /// Cancel requests that found room in the submission queue.
    pub cancels_sent: u64,
    /// Completions with the tag of an earlier occupant; dropped (F04).
    pub stale_completions: u64,
    /// Ops that went through a bounce buffer.
    pub bounced: u64,
    /// Ops that the ring took: fewer than `ops` where some wait for the next `enter`.
    pub submitted: u64,
    /// Bytes of users' data that ops have read. What was rounded out is not counted.
    pub read_bytes: u64,
    /// Bytes of users' data that ops have written, durably or not.
    pub written_bytes: u64,
    /// Calls of `sync` and durable writes that were told they are durable.
    pub durable_acknowledged: u64,
    /// The most ops that waited in the submission queue for an `enter`.
    pub sq_ops_max: u64,
    /// The most ops in flight: what the completion queue had to have room for.
    pub in_flight_max: u64,
    /// The most views that a turn found accepted and not started.
    pub backlog_max: u64,
    /// Turns that did or waited for anything, or found nothing to do.
    pub turns: u64,
    /// Chains accepted.
    pub chains: u64,
    /// Chains of which something had to be launched again: a step was short, interrupted, or
    /// cut off from the one before it.
    pub chains_relaunched: u64,
    /// Ops executed by a plain system call, because nothing else was in flight.
    pub inline_ops: u64,
    /// Entries of batches that went together with their neighbours, as one op.
    pub coalesced: u64,
    /// Of those, the ones that were issued again by themselves: the op was not whole.
    pub uncoalesced: u64,
    /// Ops done by a plain call that blocked the shard, because the kernel had no worker for
    /// them: raise the limit on processes (`ulimit -u`, the pids cgroup) (F30).
    pub in_place: u64,
}
}

impl Metrics {
    /// Ops that one call of `enter` submitted, on average; 0 before the first.
    #[must_use]
    pub fn ops_per_enter(&self) -> f64 {
        ratio(self.submitted, self.enters)
    }

    /// Flushes that one durable acknowledgement has cost, on average: 1 without, and less with
    /// group commit. 0 before the first.
    #[must_use]
    pub fn flushes_per_commit(&self) -> f64 {
        ratio(self.flushes, self.durable_acknowledged)
    }

    /// An op is over and has moved so many of the user's bytes.
    #[inline]
    pub(crate) fn moved(&mut self, is_read: bool, bytes: u64) {
        let counter = if is_read { &mut self.read_bytes } else { &mut self.written_bytes };
        *counter += bytes;
    }

    /// Notes how full the queues are, before an `enter` empties them.
    #[inline]
    pub(crate) fn queues(&mut self, in_flight: u32) {
        self.turns += 1;
        let in_flight = u64::from(in_flight);
        if in_flight > self.in_flight_max || self.ops > self.submitted + self.sq_ops_max {
            self.fuller(in_flight);
        }
    }

    /// The queues are fuller than ever before.
    #[cold]
    #[inline(never)]
    fn fuller(&mut self, in_flight: u64) {
        self.in_flight_max = self.in_flight_max.max(in_flight);
        self.sq_ops_max = self.sq_ops_max.max(self.ops.saturating_sub(self.submitted));
    }
}

#[allow(clippy::cast_precision_loss, reason = "an average")]
fn ratio(of: u64, per: u64) -> f64 {
    if per == 0 { 0.0 } else { of as f64 / per as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_fields_in_their_order() {
        let mut words = [0; Metrics::COUNT];
        (1..).zip(&mut words).for_each(|(value, word)| *word = value);
        let metrics = Metrics::from_words(words);
        assert_eq!(metrics.words(), words);
        assert_eq!((metrics.ops, metrics.enters), (1, 2));
        assert_eq!(metrics.named()[0], ("ops", 1));
        assert!(metrics.named().iter().all(|&(_, value)| value > 0));
    }

    #[test]
    fn averages_of_nothing_are_nothing() {
        let metrics = Metrics::default();
        assert!(metrics.ops_per_enter().abs() < f64::EPSILON);
        let metrics = Metrics { submitted: 64, enters: 4, ..metrics };
        assert!((metrics.ops_per_enter() - 16.0).abs() < f64::EPSILON);
        let metrics = Metrics { flushes: 1, durable_acknowledged: 4, ..metrics };
        assert!((metrics.flushes_per_commit() - 0.25).abs() < f64::EPSILON);
    }
}
