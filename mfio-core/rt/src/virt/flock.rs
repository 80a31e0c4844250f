//! Advisory locks on files: many who share, or one alone.
//!
//! Data flow: a handle's token asks → holders, or a queue of wakers → woken when something is
//! given back.
//!
//! Not here: who closes handles (`file`).

use alloc::vec::Vec;
use core::task::{Context, Poll, Waker};

use crate::lock::Lock;
use crate::options::LockKind;

#[derive(Default)]
struct Holders {
    exclusive: Option<u64>,
    shared: Vec<u64>,
    waiting: Vec<Waker>,
}

/// Who has a file locked, by the tokens of their handles.
#[derive(Default)]
pub(super) struct FileLock(Lock<Holders>);

impl Holders {
    fn forget(&mut self, token: u64) -> bool {
        let had = self.exclusive == Some(token) || self.shared.contains(&token);
        self.exclusive = self.exclusive.filter(|&holder| holder != token);
        self.shared.retain(|&holder| holder != token);
        had
    }

    fn take(&mut self, token: u64, kind: LockKind) -> bool {
        let alone = self.exclusive.is_none_or(|holder| holder == token);
        let unshared = self.shared.iter().all(|&holder| holder == token);
        match kind {
            LockKind::Shared if alone => {
                self.forget(token);
                self.shared.push(token);
                true
            }
            LockKind::Exclusive if alone && unshared => {
                self.forget(token);
                self.exclusive = Some(token);
                true
            }
            _ => false,
        }
    }
}

impl FileLock {
    /// Takes the lock, if nobody stands against it. What the token had before is kept then.
    pub(super) fn try_take(&self, token: u64, kind: LockKind) -> bool {
        let (taken, woken) = self.0.with(|holders| {
            let taken = holders.take(token, kind);
            // Sharing what was held alone lets others in.
            let woken = if taken { core::mem::take(&mut holders.waiting) } else { Vec::new() };
            (taken, woken)
        });
        woken.into_iter().for_each(Waker::wake);
        taken
    }

    pub(super) fn poll_take(&self, token: u64, kind: LockKind, cx: &mut Context<'_>) -> Poll<()> {
        if self.try_take(token, kind) {
            return Poll::Ready(());
        }
        let waker = cx.waker().clone();
        let taken = self.0.with(|holders| {
            // Given back since.
            if holders.take(token, kind) {
                return true;
            }
            if !holders.waiting.iter().any(|waiting| waiting.will_wake(&waker)) {
                holders.waiting.push(waker);
            }
            false
        });
        if taken { Poll::Ready(()) } else { Poll::Pending }
    }

    pub(super) fn give_back(&self, token: u64) {
        let woken = self.0.with(|holders| {
            if holders.forget(token) { core::mem::take(&mut holders.waiting) } else { Vec::new() }
        });
        woken.into_iter().for_each(Waker::wake);
    }
}
