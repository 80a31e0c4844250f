//! Batches: pushed, submitted or awaited, reaped, and dropped with entries under way.
//!
//! Data flow: drawn ranges, many of them neighbours → [`Batch`] → entries reaped one by one,
//! or all once the batch has woken its owner → checker.
//!
//! Not here: which range an entry begins at (`life`).

use core::future::Future as _;
use core::pin::Pin;
use core::sync::atomic::Ordering;
use core::task::{Context, Poll, Waker};
use std::sync::Arc;

use mfio_core::FailedRange;
use mfio_engine::buffer::ArenaBuf;
use mfio_engine::ring::sim::SimRing;
use mfio_engine::{Batch, EngineError, Reaped, Shard};

use super::{Driver, Flag};
use crate::packets::{Kind, Sent};

/// Entries of one batch.
const ENTRIES: u32 = 8;

/// Batches of one life; each is used again and again.
const BATCHES: usize = 2;

/// One batch, used or not.
pub(super) struct Batched {
    batch: Batch<{ ENTRIES as usize }, ArenaBuf, SimRing>,
    /// What its entries stand for.
    sent: [Option<Sent>; ENTRIES as usize],
    /// The engine has taken over all writes that were pushed.
    accepted: bool,
    /// It is polled when it was woken; else it is reaped now and then.
    awaited: bool,
    flag: Arc<Flag>,
    waker: Waker,
}

impl Batched {
    pub(super) fn all(shard: &Shard<SimRing>) -> Vec<Self> {
        let one = |_| {
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(Arc::clone(&flag));
            let (batch, sent) = (shard.batch(), [None; ENTRIES as usize]);
            Self { batch, sent, accepted: true, awaited: false, flag, waker }
        };
        (0..BATCHES).map(one).collect()
    }

    pub(super) fn under_way(&self) -> usize {
        self.batch.len()
    }
}

impl Driver<'_> {
    /// Fills a batch that is not in use with ranges from `offset` on, and hands it over. False
    /// when all are in use.
    pub(crate) fn make_batch(&mut self, kind: Kind, offset: usize, len: usize) -> bool {
        let Some(at) = self.batches.iter().position(|batched| batched.batch.is_empty()) else {
            return false;
        };
        let entries = self.world.random.between(2, ENTRIES) as usize;
        let first_class = self.world.random.below(8) as usize;
        let mut place = offset;
        for _ in 0..entries {
            let Some(mut buffer) = self.buffer(len) else { break };
            // Mostly neighbours, some with a gap or a class between them.
            place += if self.world.random.one_in(6) { 2 * len } else { 0 };
            let other = self.world.random.one_in(6);
            let class = if other { self.world.random.below(3) as usize } else { first_class };
            let range = self.stamped(kind, place, &mut buffer);
            place += len;
            let sent = self.issue(kind, range);
            let file = self.files.get(class).unwrap_or(self.file);
            let batched = &mut self.batches[at];
            let pushed = if kind == Kind::Read {
                batched.batch.push_read(file, range.offset as u64, buffer)
            } else {
                batched.batch.push_write(file, range.offset as u64, buffer)
            };
            match pushed {
                Ok(index) => batched.sent[index] = Some(sent),
                Err(_full) => self.world.violate(String::from("an empty batch was full")),
            }
            self.world.coverage.batch_entries += 1;
        }
        self.world.coverage.batches += 1;
        let batched = &mut self.batches[at];
        batched.accepted = false;
        batched.awaited = self.world.random.one_in(2);
        batched.flag.0.store(true, Ordering::Relaxed);
        self.go_on_with(at);
        true
    }

    /// Polls, submits and reaps.
    pub(super) fn collect_batches(&mut self) {
        // A batch may turn the shard: what is told from here on is told in one round.
        self.knowledge.poisoned_at = self.knowledge.told_at;
        for at in 0..self.batches.len() {
            if !self.batches[at].batch.is_empty() {
                self.go_on_with(at);
            }
        }
    }

    fn go_on_with(&mut self, at: usize) {
        let batched = &mut self.batches[at];
        let mut over = true;
        if batched.awaited {
            if batched.flag.0.swap(false, Ordering::Relaxed) {
                let mut context = Context::from_waker(&batched.waker);
                let polled = Pin::new(&mut batched.batch).poll(&mut context);
                over = polled == Poll::Ready(());
            } else {
                over = false;
            }
        } else if batched.batch.unsubmitted() > 0 {
            match batched.batch.submit() {
                Ok(_) | Err(EngineError::Busy) => {}
                Err(error) => self.world.violate(format!("a submit failed: {error}")),
            }
        }
        self.note_accepted(at);
        while over && let Some(reaped) = self.batches[at].batch.reap() {
            self.batch_entry_over(at, reaped);
        }
    }

    /// Once nothing is left in the batch, flushes cover all of its writes.
    fn note_accepted(&mut self, at: usize) {
        let batched = &mut self.batches[at];
        if batched.accepted || batched.batch.unsubmitted() > 0 {
            return;
        }
        batched.accepted = true;
        for sent in batched.sent.iter().flatten() {
            if sent.kind != Kind::Read {
                self.world.model.accept_write(sent.range);
            }
        }
    }

    fn batch_entry_over(&mut self, at: usize, reaped: Reaped<ArenaBuf>) {
        let Reaped { index, result, buffer } = reaped;
        let Some(sent) = self.batches[at].sent[index].take() else {
            return self.world.violate(format!("entry {index} of a batch ended twice"));
        };
        let end = sent.range.len as u64;
        // What lies behind the first failure may have been transferred; nobody relies on it.
        let failed = |error: mfio_engine::IoError| {
            vec![FailedRange { start: error.done_bytes, end, error: error.error }]
        };
        let failed = result.map_or_else(failed, |()| Vec::new());
        match sent.kind {
            Kind::Read => self.world.read_over(sent, &buffer, &failed),
            _ => self.world.write_over(sent, &failed, &mut self.knowledge),
        }
    }

    /// Drops every batch with whatever is under way in it.
    pub(super) fn forget_batches(&mut self) {
        for batched in core::mem::take(&mut self.batches) {
            self.world.coverage.dropped_in_batches += batched.batch.len() as u64;
            drop(batched.batch);
            for sent in batched.sent.into_iter().flatten() {
                self.forget(sent);
            }
        }
        self.batches = Batched::all(self.shard);
    }
}
