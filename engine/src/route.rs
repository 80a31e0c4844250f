//! From any thread to a shard: the bounded mailbox.
//!
//! Data flow: packet → room taken → [`Message`] → queue → [`Bell`] → `shard::intake`. Nothing is
//! locked on the way of a packet; a full mailbox refuses it, and who waits for room then is
//! kept behind a lock. Opening and closing targets are errands, which are rare and locked.
//!
//! A closed mailbox fails what is sent to it, and what was in it, with `Closed`. Sender and
//! shard both look again after they have published, so that nothing stays behind.
//!
//! Not here: what the shard does with a message (`shard::intake`), handles (`remote`).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use mfio_core::wakers::{tell_all, wake_all};
use mfio_core::{Error, ErrorKind, Read, View, Write};

use crate::answer::Teller;
use crate::error::EngineError;
use crate::remote::{RemoteFile, RemoteTarget};
use crate::shard::{Bell, Class, Durability, WriteAt, inside_a_shard};
use crate::sync::{ArrayQueue, AtomicBool, AtomicUsize, Mutex, MutexGuard, Ordering, fence};
use crate::target::{Opened, SyncMethod};

/// What a thread sends to a shard for each packet or flush. Keeps its target open.
#[derive(Debug)]
pub(crate) enum Message {
    Read { target: Arc<RemoteTarget>, offset_bytes: u64, view: View<Read>, class: Class },
    Write { target: Arc<RemoteTarget>, at: WriteAt, view: View<Write>, class: Class },
    Sync { target: Arc<RemoteTarget>, durability: Durability, teller: Teller<Result<(), Error>> },
}

/// What a mailbox asks of that which is left in it.
pub(crate) trait Mail {
    /// Whose room on the shard it needs; `None` for a flush, which needs none.
    fn class(&self) -> Option<Class>;

    /// Ends it where no shard will.
    fn refuse(self);
}

impl Message {
    /// Which target of the shard it is for.
    pub(crate) fn target(&self) -> u32 {
        let (Self::Read { target, .. } | Self::Write { target, .. } | Self::Sync { target, .. }) =
            self;
        target.index()
    }
}

impl Mail for Message {
    #[inline]
    fn class(&self) -> Option<Class> {
        match self {
            Self::Read { class, .. } | Self::Write { class, .. } => Some(*class),
            Self::Sync { .. } => None,
        }
    }

    fn refuse(self) {
        let closed = Error::new(ErrorKind::Closed);
        match self {
            Self::Read { view, .. } => view.fail(closed),
            Self::Write { view, .. } => view.fail(closed),
            Self::Sync { teller, .. } => teller.tell(Err(closed)),
        }
    }
}

/// What is done once for a target.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few at a time, and once for a target")]
pub(crate) enum Errand {
    /// Makes an opened file a target of the shard.
    Adopt {
        opened: Box<Opened>,
        name: String,
        teller: Teller<Result<RemoteFile, EngineError>>,
        sync_method: Option<SyncMethod>,
    },
    /// The last handle of the target has gone.
    Close { target: u32 },
}

thread_local! {
    /// Room that this thread has reserved and not used: by mailbox, how much. Used at once, so
    /// it is short, and almost always empty.
    static RESERVED: RefCell<Vec<(u64, usize)>> = const { RefCell::new(Vec::new()) };
}

/// Where other threads leave what a shard is to do. Of messages, except in models (`loom_tests`).
pub(crate) struct Mailbox<M = Message> {
    /// Names it in [`RESERVED`]; its address could come to be another's.
    id: u64,
    messages: ArrayQueue<M>,
    /// How many more messages fit. Taken before a message is pushed, so that the push cannot
    /// fail; given back when it has been taken out.
    room: AtomicUsize,
    errands: Mutex<VecDeque<Errand>>,
    /// There are errands.
    errands_wait: AtomicBool,
    /// Who waits for room.
    waiting: Mutex<Vec<Waker>>,
    any_waiting: AtomicBool,
    closed: AtomicBool,
    bell: Arc<Bell>,
    /// The shard's own thread, which cannot wait for itself.
    owner: ThreadId,
}

/// No code panics while it holds one of the locks, so a poisoned state is still a whole one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<M: Mail> Mailbox<M> {
    /// For the shard of the calling thread.
    pub(crate) fn new(messages_max: u32, bell: Arc<Bell>) -> Self {
        static IDS: AtomicU64 = AtomicU64::new(0);
        let most = messages_max as usize;
        Self {
            id: IDS.fetch_add(1, Ordering::Relaxed),
            messages: ArrayQueue::new(most),
            room: AtomicUsize::new(most),
            errands: Mutex::new(VecDeque::new()),
            errands_wait: AtomicBool::new(false),
            waiting: Mutex::new(Vec::new()),
            any_waiting: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            bell,
            owner: std::thread::current().id(),
        }
    }

    /// Whether a call on this thread that blocks until the shard has answered might wait for
    /// ever.
    pub(crate) fn would_deadlock(&self) -> bool {
        inside_a_shard() || std::thread::current().id() == self.owner
    }

    /// Leaves a message for the shard. After the shard is closed, the message ends at once.
    ///
    /// # Errors
    /// Gives it back where there is no room.
    pub(crate) fn post(&self, message: M) -> Result<(), M> {
        if self.is_closed() {
            message.refuse();
            return Ok(());
        }
        let floor = self.floor(message.class());
        if !self.use_reserved() && !self.take_room(1, floor) {
            return Err(message);
        }
        let pushed = self.messages.push(message);
        assert!(pushed.is_ok(), "room was taken before the push");
        self.bell.ring();
        self.look_again();
        Ok(())
    }

    /// Leaves an errand. Dropped, and thereby answered, after the shard is closed.
    pub(crate) fn send_errand(&self, errand: Errand) {
        if self.is_closed() {
            return drop(errand);
        }
        lock(&self.errands).push_back(errand);
        self.errands_wait.store(true, Ordering::Release);
        self.bell.ring();
        self.look_again();
    }

    /// Has the shard closed the mailbox meanwhile, so that it will not look again?
    fn look_again(&self) {
        fence(Ordering::SeqCst);
        if self.is_closed() {
            self.empty_out();
        }
    }

    /// Room that traffic of `class` leaves to others: so background cannot keep them out.
    fn floor(&self, class: Option<Class>) -> usize {
        if class == Some(Class::Background) { self.messages.capacity() / 4 } else { 0 }
    }

    fn take_room(&self, count: usize, floor: usize) -> bool {
        let take = |room: usize| room.checked_sub(count).filter(|left| *left >= floor);
        self.room.fetch_update(Ordering::AcqRel, Ordering::Relaxed, take).is_ok()
    }

    fn use_reserved(&self) -> bool {
        RESERVED.with_borrow_mut(|reserved| {
            if reserved.is_empty() {
                return false;
            }
            let own = reserved.iter().position(|(mailbox, _)| *mailbox == self.id);
            let Some(at) = own else { return false };
            reserved[at].1 -= 1;
            if reserved[at].1 == 0 {
                reserved.swap_remove(at);
            }
            true
        })
    }

    /// Sets room aside for the next `count` messages of this thread: all or nothing.
    pub(crate) fn reserve(&self, count: usize, class: Class) -> bool {
        if count == 0 {
            return true;
        }
        let fits = self.take_room(count, self.floor(Some(class)));
        if fits {
            RESERVED.with_borrow_mut(|reserved| {
                let own = reserved.iter_mut().find(|(mailbox, _)| *mailbox == self.id);
                match own {
                    Some((_, already)) => *already += count,
                    None => reserved.push((self.id, count)),
                }
            });
        }
        fits
    }

    /// Gives back room that this thread has set aside.
    pub(crate) fn release(&self, count: usize) {
        let given_back = (0..count).take_while(|_| self.use_reserved()).count();
        self.make_room(given_back);
    }

    /// Ready when there is room; else `cx` is woken once there is.
    pub(crate) fn poll_room(&self, cx: &Context<'_>, class: Class) -> Poll<()> {
        let floor = self.floor(Some(class));
        let has_room = || self.room.load(Ordering::Acquire) > floor || self.is_closed();
        if has_room() {
            return Poll::Ready(());
        }
        // Cloned outside the lock: that may run anything.
        let waker = cx.waker().clone();
        let already = {
            let mut waiting = lock(&self.waiting);
            let already = waiting.iter().any(|waiting| waiting.will_wake(&waker));
            if already {
                Some(waker)
            } else {
                waiting.push(waker);
                None
            }
        };
        drop(already);
        self.any_waiting.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if has_room() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// `count` messages have been taken out.
    pub(crate) fn make_room(&self, count: usize) {
        if count == 0 {
            return;
        }
        self.room.fetch_add(count, Ordering::AcqRel);
        self.wake_waiting();
    }

    fn wake_waiting(&self) {
        fence(Ordering::SeqCst);
        if self.any_waiting.load(Ordering::Relaxed) {
            self.any_waiting.store(false, Ordering::Relaxed);
            let waiting = std::mem::take(&mut *lock(&self.waiting));
            wake_all(waiting);
        }
    }

    /// The oldest message. The shard gives its room back by `make_room`.
    pub(crate) fn take(&self) -> Option<M> {
        self.messages.pop()
    }

    /// How many messages there are.
    pub(crate) fn messages(&self) -> usize {
        self.messages.len()
    }

    pub(crate) fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    pub(crate) fn has_errands(&self) -> bool {
        self.errands_wait.load(Ordering::Acquire)
    }

    /// The oldest errand.
    pub(crate) fn take_errand(&self) -> Option<Errand> {
        let mut errands = lock(&self.errands);
        let errand = errands.pop_front();
        if errand.is_none() {
            // Whoever sends one after this says so after this.
            self.errands_wait.store(false, Ordering::Relaxed);
        }
        errand
    }

    pub(crate) fn take_errands(&self) -> VecDeque<Errand> {
        self.errands_wait.store(false, Ordering::Relaxed);
        std::mem::take(&mut *lock(&self.errands))
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing is taken out by the shard any more: everything in it, and everything that is
    /// sent to it from now on, ends as `Closed`.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.empty_out();
    }

    fn empty_out(&self) {
        let messages = std::iter::from_fn(|| {
            let message = self.messages.pop()?;
            self.room.fetch_add(1, Ordering::AcqRel);
            Some(Emptied::Message(message))
        });
        tell_all(messages.chain([Emptied::Errands, Emptied::Waiting]), |emptied| match emptied {
            Emptied::Message(message) => message.refuse(),
            Emptied::Errands => drop(self.take_errands()),
            Emptied::Waiting => self.wake_waiting(),
        });
    }
}

/// Whom the end of a mailbox concerns.
enum Emptied<M> {
    Message(M),
    /// Dropped, they answer.
    Errands,
    /// Those who wait for room.
    Waiting,
}

impl<M: Mail> fmt::Debug for Mailbox<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("messages", &self.messages.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_reserved_and_forgotten_is_not_that_of_a_later_mailbox() {
        let fresh = || Mailbox::<Message>::new(1, Arc::new(Bell::new(Waker::noop().clone())));
        let mut mailbox = fresh();
        assert!(mailbox.reserve(1, Class::Foreground) && !mailbox.reserve(1, Class::Foreground));
        mailbox = fresh();
        assert!(!mailbox.use_reserved(), "it was another's room");
        assert!(mailbox.reserve(1, Class::Foreground) && mailbox.use_reserved());
    }
}
