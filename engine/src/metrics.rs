//! What a shard counts. Plain integers of one thread: counting costs an addition.
//!
//! Not here: latencies; whoever needs them stamps packets.

/// Counters of one shard since it was made.
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
    /// Entries of batches that went together with their neighbours, as one op.
    pub coalesced: u64,
    /// Of those, the ones that were issued again by themselves: the op was not whole.
    pub uncoalesced: u64,
}
