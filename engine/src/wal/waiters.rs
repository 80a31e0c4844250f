//! Who waits for a log: for a record to become durable, or for room to put one.
//!
//! A pool of nodes that are linked through their indices, so that a waiter costs no allocation
//! once the pool has grown. Data flow: append → [`Waiters::add`] → durable → wakers, handed out
//! to be called when nothing is borrowed.
//!
//! Not here: when records become durable (`commit`).

use std::task::Waker;

use super::format::Lsn;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// Names a waiter as long as it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaiterId(u32);

/// What a waiter waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// This record to be durable.
    Durable(Lsn),
    /// Room for a record of that many bytes.
    Room(usize),
}

#[derive(Debug)]
struct Node {
    wants: For,
    /// `None` once it has been called, until the waiter is polled again.
    waker: Option<Waker>,
    before: u32,
    after: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: u32,
    last: u32,
    len: usize,
}

impl List {
    const EMPTY: Self = Self { first: NONE, last: NONE, len: 0 };
}

/// The waiters of one log, in two lists.
#[derive(Debug)]
pub(super) struct Waiters {
    nodes: Vec<Node>,
    free: Vec<u32>,
    /// In the order of their records.
    durable: List,
    /// In the order of their arrival.
    room: List,
}

impl Waiters {
    pub(super) const fn new() -> Self {
        Self { nodes: Vec::new(), free: Vec::new(), durable: List::EMPTY, room: List::EMPTY }
    }

    /// All who wait.
    pub(super) const fn len(&self) -> usize {
        self.durable.len + self.room.len
    }

    fn list(&mut self, wants: For) -> &mut List {
        match wants {
            For::Durable(_) => &mut self.durable,
            For::Room(_) => &mut self.room,
        }
    }

    /// Adds a waiter behind all that wait for the same or an earlier record.
    pub(super) fn add(&mut self, wants: For, waker: Waker) -> WaiterId {
        let node = Node { wants, waker: Some(waker), before: NONE, after: NONE };
        let at = match self.free.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                let at = u32::try_from(self.nodes.len()).expect("fewer waiters than 2^32");
                self.nodes.push(node);
                // Room for all of them, so that leaving never allocates.
                self.free.reserve(self.nodes.len());
                at
            }
        };
        self.link(at);
        WaiterId(at)
    }

    fn link(&mut self, at: u32) {
        let wants = self.nodes[at as usize].wants;
        let mut before = self.list(wants).last;
        if let For::Durable(lsn) = wants {
            // Usually the newest record, so usually no step at all.
            while before != NONE
                && matches!(self.nodes[before as usize].wants, For::Durable(other) if other > lsn)
            {
                before = self.nodes[before as usize].before;
            }
        }
        let after = match before {
            NONE => std::mem::replace(&mut self.list(wants).first, at),
            _ => std::mem::replace(&mut self.nodes[before as usize].after, at),
        };
        match after {
            NONE => self.list(wants).last = at,
            _ => self.nodes[after as usize].before = at,
        }
        self.list(wants).len += 1;
        self.nodes[at as usize].before = before;
        self.nodes[at as usize].after = after;
    }

    fn unlink(&mut self, at: u32) {
        let Node { wants, before, after, .. } = self.nodes[at as usize];
        match before {
            NONE => self.list(wants).first = after,
            _ => self.nodes[before as usize].after = after,
        }
        match after {
            NONE => self.list(wants).last = before,
            _ => self.nodes[after as usize].before = before,
        }
        self.list(wants).len -= 1;
    }

    /// The waiter leaves. Its waker is handed out, to be dropped when nothing is borrowed.
    pub(super) fn remove(&mut self, id: WaiterId) -> Option<Waker> {
        self.unlink(id.0);
        self.free.push(id.0);
        self.nodes[id.0 as usize].waker.take()
    }

    /// The waiter waits for something else now.
    pub(super) fn turn_to(&mut self, id: WaiterId, wants: For) {
        self.unlink(id.0);
        self.nodes[id.0 as usize].wants = wants;
        self.link(id.0);
    }

    /// Whether calling its waker would wake `waker`'s task.
    pub(super) fn would_wake(&self, id: WaiterId, waker: &Waker) -> bool {
        self.nodes[id.0 as usize].waker.as_ref().is_some_and(|other| other.will_wake(waker))
    }

    /// Sets whom to wake; hands out the waker before it.
    pub(super) fn set_waker(&mut self, id: WaiterId, waker: Waker) -> Option<Waker> {
        self.nodes[id.0 as usize].waker.replace(waker)
    }

    /// Takes the waker out without calling it: the waiter is being polled.
    pub(super) fn hush(&mut self, id: WaiterId) -> Option<Waker> {
        self.nodes[id.0 as usize].waker.take()
    }

    /// Takes the wakers of all whose record is durable up to `durable`.
    pub(super) fn take_durable(&mut self, durable: Lsn, into: &mut Vec<Waker>) {
        let mut at = self.durable.first;
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            if matches!(node.wants, For::Durable(lsn) if lsn > durable) {
                break;
            }
            into.extend(node.waker.take());
            at = node.after;
        }
    }

    /// Takes the wakers of those who wait for room, the oldest first, as many as fit into
    /// `bytes`; of the first in any case.
    pub(super) fn take_room(&mut self, bytes: usize, into: &mut Vec<Waker>) {
        let mut left = bytes;
        let mut at = self.room.first;
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            let For::Room(len) = node.wants else { break };
            into.extend(node.waker.take());
            if len >= left {
                break;
            }
            left -= len;
            at = node.after;
        }
    }

    /// Takes the waker of every waiter.
    pub(super) fn take_all(&mut self, into: &mut Vec<Waker>) {
        for mut at in [self.durable.first, self.room.first] {
            while at != NONE {
                let node = &mut self.nodes[at as usize];
                into.extend(node.waker.take());
                at = node.after;
            }
        }
    }

    /// Takes the waker of one waiter.
    pub(super) fn take(&mut self, id: WaiterId, into: &mut Vec<Waker>) {
        into.extend(self.nodes[id.0 as usize].waker.take());
    }

    /// Whether it is the turn of `id`, or of somebody who does not wait yet, to have room.
    pub(super) fn is_next(&self, id: Option<WaiterId>) -> bool {
        self.room.first == NONE || Some(WaiterId(self.room.first)) == id
    }

    /// The waiter that waits for the oldest record, or else for room.
    pub(super) fn oldest(&self) -> Option<WaiterId> {
        [self.durable.first, self.room.first].into_iter().find(|&at| at != NONE).map(WaiterId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a sorted list.
        #[test]
        fn waiters_stay_in_the_order_of_their_records(
            steps in prop::collection::vec((0_u8..4, 0_u64..50), 1..200)
        ) {
            let mut waiters = Waiters::new();
            let mut model: Vec<(u64, WaiterId)> = Vec::new();
            for (step, lsn) in steps {
                match step {
                    0 | 1 => {
                        let id = waiters.add(For::Durable(Lsn(lsn)), Waker::noop().clone());
                        let at = model.partition_point(|(other, _)| *other <= lsn);
                        model.insert(at, (lsn, id));
                    }
                    2 if !model.is_empty() => {
                        let at = usize::try_from(lsn).unwrap() % model.len();
                        let (_, id) = model.remove(at);
                        waiters.remove(id);
                    }
                    _ => {
                        let mut woken = Vec::new();
                        waiters.take_durable(Lsn(lsn), &mut woken);
                        let due: Vec<_> =
                            model.iter().filter(|(other, _)| *other <= lsn).copied().collect();
                        prop_assert!(woken.len() <= due.len());
                        for (_, id) in due {
                            prop_assert!(!waiters.would_wake(id, Waker::noop()));
                            waiters.set_waker(id, Waker::noop().clone());
                        }
                    }
                }
                prop_assert_eq!(waiters.len(), model.len());
                prop_assert_eq!(waiters.oldest(), model.first().map(|(_, id)| *id));
            }
        }
    }
}
