//! Advisory locks on files: many who share, or one alone.
//!
//! Data flow: a handle's token asks → holders, or a waker that waits → woken when something is
//! given back.
//!
//! Not here: who closes handles (`file`).

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::task::{Context, Poll, Waker};

use mfio_core::wakers::wake_all;

use crate::lock::Lock;
use crate::options::LockKind;

type Wakers = BTreeMap<u64, Waker>;

#[derive(Default)]
struct Holders {
    exclusive: Option<u64>,
    shared: Vec<u64>,
    waiting: Wakers,
    /// Numbers of those who wait.
    last: u64,
}

/// Who has a file locked, by the tokens of their handles.
#[derive(Default)]
pub(super) struct FileLock(Lock<Holders>);

impl Holders {
    /// Takes the token's lock away; who may have it now.
    fn forget(&mut self, token: u64) -> Wakers {
        let had = self.exclusive == Some(token) || self.shared.contains(&token);
        self.exclusive = self.exclusive.filter(|&holder| holder != token);
        self.shared.retain(|&holder| holder != token);
        if had { core::mem::take(&mut self.waiting) } else { Wakers::new() }
    }

    /// What the token had before is given up first, as by Linux. Whether it has the lock now,
    /// and who may have one besides.
    fn take(&mut self, token: u64, kind: LockKind) -> (bool, Wakers) {
        let woken = self.forget(token);
        let taken = match kind {
            LockKind::Shared => self.exclusive.is_none(),
            LockKind::Exclusive => self.exclusive.is_none() && self.shared.is_empty(),
        };
        match kind {
            LockKind::Shared if taken => self.shared.push(token),
            LockKind::Exclusive if taken => self.exclusive = Some(token),
            _ => {}
        }
        (taken, woken)
    }
}

fn wake(woken: Wakers) {
    wake_all(woken.into_values());
}

impl FileLock {
    /// Takes the lock, if nobody stands against it.
    pub(super) fn try_take(&self, token: u64, kind: LockKind) -> bool {
        let (taken, woken) = self.0.with(|holders| holders.take(token, kind));
        wake(woken);
        taken
    }

    /// Takes the lock when nobody stands against it.
    pub(super) async fn wait(&self, token: u64, kind: LockKind) {
        let number = self.0.with(|holders| {
            holders.last += 1;
            holders.last
        });
        let waiting = Waiting { lock: self, number };
        poll_fn(|cx| waiting.poll_take(token, kind, cx)).await;
    }

    pub(super) fn give_back(&self, token: u64) {
        wake(self.0.with(|holders| holders.forget(token)));
    }
}

/// One who waits, with a waker among the others or not.
struct Waiting<'a> {
    lock: &'a FileLock,
    number: u64,
}

impl Waiting<'_> {
    fn poll_take(&self, token: u64, kind: LockKind, cx: &Context<'_>) -> Poll<()> {
        // Cloned and dropped outside the lock: both may run anything.
        let waker = cx.waker().clone();
        let (taken, woken, unused) = self.lock.0.with(|holders| {
            let (taken, woken) = holders.take(token, kind);
            let unused = match taken {
                true => Some(waker),
                false => holders.waiting.insert(self.number, waker),
            };
            (taken, woken, unused)
        });
        drop(unused);
        wake(woken);
        if taken { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let gone = self.lock.0.with(|holders| holders.waiting.remove(&self.number));
        drop(gone);
    }
}
