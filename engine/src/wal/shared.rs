//! What every handle and every future of a log shares: sending, reaping, and who does it.
//!
//! Of those who wait, one leads: whatever completes wakes it, and it reaps, seals, sends and
//! makes segments for all. When it leaves, another is woken to lead. Where the shard runs
//! tasks, one of them stands by for a leader that is not polled any more (`relay`). Data flow:
//! poll → leader → [`Shared::drive`] → wakers of those whose record is durable, called when
//! nothing is borrowed.
//!
//! Not here: the state itself (`commit`), the futures (`mod`).

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use mfio_core::wakers::wake_all;
use mfio_core::{CompletionQueue, PacketIo, Write};

use super::commit::{BlockPacket, Growth, Ready, State};
use super::error::WalError;
use super::format::SegmentId;
use super::recover;
use super::relay::Relay;
use super::segment::{Growing, SegmentStore};
use super::waiters::WaiterId;
use crate::buffer::ArenaBuf;
use crate::ring::Ring;
use crate::shard::{Durable, File, Shard};

/// The blocks under way.
type Blocks = CompletionQueue<Write, ArenaBuf>;

/// A segment being marked as free.
type Marking = Pin<Box<dyn Future<Output = Result<ArenaBuf, WalError>>>>;

/// The store, and the segment that it is making.
pub(super) struct Workshop<R: Ring> {
    pub(super) store: Box<dyn SegmentStore<R>>,
    pub(super) making: Option<Growing<R>>,
}

/// See the module's page.
pub(super) struct Shared<R: Ring> {
    pub(super) shard: Shard<R>,
    pub(super) state: RefCell<State<R>>,
    pub(super) workshop: RefCell<Workshop<R>>,
    pub(super) truncating: Cell<bool>,
    /// Marks the oldest segment as free. Outlives a truncation that is dropped: its write may
    /// still be on its way, and must not come after the next use of the segment has begun.
    marking: RefCell<Option<Marking>>,
    /// Polling that has panicked: its write may still be on its way, and nobody hears when it has
    /// come. The oldest segment is not used again.
    pub(super) spoilt: Cell<bool>,
    /// The waker of everything that is waited for, as such and to be called.
    pub(super) relay: Arc<Relay>,
    relay_waker: Waker,
    blocks: RefCell<Blocks>,
    driving: Cell<bool>,
}

/// Sends one block: the only place that says how a block becomes durable.
fn issue<R: Ring>(
    blocks: &mut Blocks,
    file: &File<R>,
    offset_bytes: u64,
    packet: BlockPacket,
    number: u64,
) -> Result<(), BlockPacket> {
    let sent = blocks.send(file, Durable(offset_bytes), packet, number);
    sent.map_err(|unsent| unsent.packet)
}

impl<R: Ring> Shared<R> {
    pub(super) fn new(shard: Shard<R>, state: State<R>, store: Box<dyn SegmentStore<R>>) -> Self {
        let relay = Arc::new(Relay::default());
        Self {
            shard,
            state: RefCell::new(state),
            workshop: RefCell::new(Workshop { store, making: None }),
            truncating: Cell::new(false),
            marking: RefCell::new(None),
            spoilt: Cell::new(false),
            relay_waker: Waker::from(Arc::clone(&relay)),
            relay,
            blocks: RefCell::new(CompletionQueue::new()),
            driving: Cell::new(false),
        }
    }

    /// Hands sealed blocks to the shard. False where it has no room for one.
    pub(super) fn send_sealed(&self) -> bool {
        // Taken already: somebody polls inside a waker that the shard is calling. Whoever
        // holds it goes on.
        let Ok(mut blocks) = self.blocks.try_borrow_mut() else { return true };
        loop {
            let next = self.state.borrow_mut().take_outgoing();
            let Some((number, file, offset_bytes, packet)) = next else { return true };
            if let Err(packet) = issue(&mut blocks, &file, offset_bytes, packet, number) {
                self.state.borrow_mut().put_back(number, packet);
                return false;
            }
        }
    }

    /// Takes in what has completed; with `cx`, what completes next wakes it.
    pub(super) fn reap(&self, mut cx: Option<&mut Context<'_>>) {
        let Ok(mut blocks) = self.blocks.try_borrow_mut() else { return };
        let mut done = blocks.pop();
        loop {
            while let Some((number, completed)) = done {
                self.state.borrow_mut().completed(number, completed);
                done = blocks.pop();
            }
            let Some(cx) = cx.as_deref_mut() else { return };
            match blocks.poll_pop(cx) {
                Poll::Ready(None) | Poll::Pending => return,
                Poll::Ready(more) => done = more,
            }
        }
    }

    /// Everything that one of the waiters, or the log's task, does for all of them.
    pub(super) fn drive(&self) {
        if self.driving.replace(true) {
            return;
        }
        let mut driving = Driving { shared: self, over: false };
        self.relay.serve();
        let cx = &mut Context::from_waker(&self.relay_waker);
        let mut deferred = false;
        self.state.borrow_mut().seal_is_due = false;
        loop {
            self.reap(Some(cx));
            if self.state.borrow_mut().defers_seal() {
                // Those whose records are durable now are about to append their next ones:
                // sealing waits until they have done so. Else groups would stay apart that
                // came apart once, a record here and the rest there.
                deferred = true;
                break;
            }
            let sealed = self.state.borrow_mut().pump();
            if !self.send_sealed() {
                let file = self.state.borrow_mut().outgoing_file();
                let Some(file) = file else { continue };
                if PacketIo::<Write, Durable>::poll_ready(&file, cx).is_pending() {
                    break;
                }
            } else if !sealed {
                break;
            }
        }
        self.grow(cx);
        driving.over = true;
        drop(driving);
        self.call_wakers();
        if deferred {
            // Behind those who have been woken.
            self.relay.call();
        }
    }

    /// Marks the oldest segment as free, durably, or goes on with it. True if it may be used again.
    pub(super) async fn mark_free(&self, file: &File<R>, id: SegmentId) -> Result<bool, WalError>
    where
        R: 'static,
    {
        if self.marking.borrow().is_none() {
            let bytes = file.geometry().offset_align.max(512);
            let buffer = recover::buffer(&self.shard, bytes)?;
            let file = file.clone();
            let marked =
                async move { recover::mark_free(&file, &id, id.sequence + 1, buffer).await };
            *self.marking.borrow_mut() = Some(Box::pin(marked));
        }
        let marked = poll_fn(|cx| {
            // Out of its place meanwhile: where polling panics, because a waker does, the next
            // truncation begins anew.
            let Some(mut marking) = self.marking.take() else {
                unreachable!("one truncation at a time, and this one has begun it");
            };
            let spoilt = self.spoilt.replace(true);
            let polled = marking.as_mut().poll(cx);
            self.spoilt.set(spoilt);
            if polled.is_pending() {
                *self.marking.borrow_mut() = Some(marking);
            }
            polled
        });
        marked.await?;
        Ok(!self.spoilt.get())
    }

    /// Makes segments ahead of need.
    fn grow(&self, cx: &mut Context<'_>) {
        let wants = self.state.borrow().wants_segment();
        let Ok(mut workshop) = self.workshop.try_borrow_mut() else { return };
        if !wants && workshop.making.is_none() {
            return;
        }
        loop {
            if workshop.making.is_none() {
                if !self.state.borrow().wants_segment() {
                    return;
                }
                let bytes = self.state.borrow().config.segment_bytes;
                workshop.making = workshop.store.grow(&self.shard, bytes);
                let running = workshop.making.is_some();
                let mut state = self.state.borrow_mut();
                state.growth = if running { Growth::Running } else { Growth::Impossible };
                if !running {
                    state.wake_for_room();
                }
            }
            let Some(mut making) = workshop.making.take() else { return };
            // Out of its place meanwhile: what panics is not polled again.
            let mut unmade = Unmade(Some(&self.state));
            let Poll::Ready(made) = making.as_mut().poll(cx) else {
                unmade.0 = None;
                workshop.making = Some(making);
                return;
            };
            let made = made.map(|file| Ready { file, salt: workshop.store.draw() });
            unmade.0 = None;
            self.state.borrow_mut().grown(made);
        }
    }

    /// Calls the wakers that have been collected, with nothing borrowed.
    pub(super) fn call_wakers(&self) {
        let mut wake = {
            let mut state = self.state.borrow_mut();
            if state.wake.is_empty() {
                return;
            }
            std::mem::take(&mut state.wake)
        };
        wake_all(wake.drain(..));
        // Kept for its room, unless more have come meanwhile.
        let mut state = self.state.borrow_mut();
        if state.wake.is_empty() {
            state.wake = wake;
        }
    }

    /// A waiter has arrived, or is polled again. Leads if nobody does; whether now or after
    /// the others who have something to append is what `deferred` says.
    pub(super) fn attend(&self, id: WaiterId, arrives: bool, cx: &mut Context<'_>) {
        let mut state = self.state.borrow_mut();
        let leads = *state.leader.get_or_insert(id) == id;
        if leads {
            // Clones a waker and drops another, with nothing borrowed: both may run anything.
            drop(state);
            self.relay.set_leader(Some(cx.waker()));
            state = self.state.borrow_mut();
        }
        let due = arrives && state.should_seal();
        if leads && due && !state.is_solo() {
            // Sealed when every task that is about to append has done so: that is when this
            // one is polled again. Nothing is lost, as nothing is submitted before.
            let woken = std::mem::replace(&mut state.seal_is_due, true);
            drop(state);
            if !woken {
                self.relay.call();
            }
        } else if leads {
            drop(state);
            self.drive();
        } else if due && !state.seal_is_due || !arrives && state.wants_segment() {
            state.seal_is_due |= due;
            drop(state);
            self.relay.call();
        }
    }

    /// Something was put, or was not, by somebody who does not wait: whoever leads acts for it.
    pub(super) fn nudge(&self) {
        let state = self.state.borrow();
        let due = state.leader.is_some() && (state.should_seal() || state.wants_segment());
        drop(state);
        if due {
            self.relay.call();
        }
    }

    /// A waiter leaves.
    pub(super) fn leave(&self, id: WaiterId) {
        let (waker, led, others) = {
            let mut state = self.state.borrow_mut();
            let led = state.leader == Some(id);
            (state.leave(id), led, state.waiters.len() > 0)
        };
        drop(waker);
        if led {
            self.relay.set_leader(None);
        }
        self.call_wakers();
        if led && others {
            // Whoever was woken to lead may not be polled any more.
            self.relay.call();
        }
    }
}

impl<R: Ring> Drop for Shared<R> {
    /// The log's task ends.
    fn drop(&mut self) {
        self.relay.set_leader(None);
        self.relay.call();
    }
}

/// Somebody drives; nobody does any more when this is dropped, also because a waker or a store has
/// panicked. The log would stand still for ever.
struct Driving<'a, R: Ring> {
    shared: &'a Shared<R>,
    over: bool,
}

impl<R: Ring> Drop for Driving<'_, R> {
    fn drop(&mut self) {
        self.shared.driving.set(false);
        if !self.over {
            // Others go on. Two panics at once would end the process.
            drop(catch_unwind(AssertUnwindSafe(|| self.shared.relay.call())));
        }
    }
}

/// A segment being made. Where making it panics, the next append that needs one starts another.
struct Unmade<'a, R: Ring>(Option<&'a RefCell<State<R>>>);

impl<R: Ring> Drop for Unmade<'_, R> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            let mut state = state.borrow_mut();
            state.growth = Growth::Idle;
            state.wake_for_room();
        }
    }
}

/// Ends a truncation, also one that is dropped.
pub(super) struct Truncation<'a, R: Ring>(pub(super) &'a Shared<R>);

impl<R: Ring> Drop for Truncation<'_, R> {
    fn drop(&mut self) {
        self.0.truncating.set(false);
    }
}
