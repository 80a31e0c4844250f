//! Models of what crosses threads: messages against a shard that goes to sleep, against a mailbox
//! that is closed, against a full one, and answers against those who wait for them, in every
//! order of steps, with every value that the memory model lets a thread see. Run by
//! `scripts/loom`.
//!
//! A model fails on a panic or a deadlock: a wake-up that got lost, a message left behind. Not
//! here: packets (`mfio_core::packet::raw`), the queue itself (crossbeam's, see `sync`), the
//! eventfd of a kernel ring.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use loom::future::block_on;
use loom::model;
use loom::thread::{JoinHandle, spawn};

use crate::answer::{Asked, Teller, ask};
use crate::route::{Errand, Mail, Mailbox};
use crate::shard::{Bell, Class};
use crate::sync::{Condvar, Mutex};

/// What a ring's wait ends by: as level-triggered as an eventfd.
struct Doorstep {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Doorstep {
    fn new() -> Arc<Self> {
        Arc::new(Self { rung: Mutex::new(false), changed: Condvar::new() })
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !*rung {
            rung = self.changed.wait(rung).unwrap();
        }
        *rung = false;
    }
}

impl Wake for Doorstep {
    fn wake(self: Arc<Self>) {
        *self.rung.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// How a letter ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Taken,
    Refused,
    Dropped,
}

struct Letter(Teller<End>);

impl Mail for Letter {
    fn class(&self) -> Option<Class> {
        None
    }

    fn refuse(self) {
        self.0.tell(End::Refused);
    }
}

fn letter() -> (Letter, Asked<End>) {
    let (teller, asked) = ask(|| End::Dropped);
    (Letter(teller), asked)
}

/// A shard, as far as other threads see it.
#[derive(Clone)]
struct Site {
    mailbox: Arc<Mailbox<Letter>>,
    bell: Arc<Bell>,
    doorstep: Arc<Doorstep>,
}

impl Site {
    fn new(messages_max: u32) -> Self {
        let doorstep = Doorstep::new();
        let bell = Arc::new(Bell::new(Waker::from(Arc::clone(&doorstep))));
        let mailbox = Arc::new(Mailbox::new(messages_max, Arc::clone(&bell)));
        Self { mailbox, bell, doorstep }
    }

    fn has_work(&self) -> bool {
        self.mailbox.has_messages() || self.mailbox.has_errands()
    }

    /// Looks for work as `shard::run` does: in the ring, or for a host.
    fn until_work(&self, hosted: bool) {
        while !self.has_work() {
            if hosted {
                self.bell.hosted(&Waker::from(Arc::clone(&self.doorstep)));
            } else {
                self.bell.sleeping();
            }
            if !self.has_work() {
                self.doorstep.wait();
            }
            self.bell.awake();
        }
    }

    fn take(&self, hosted: bool) {
        loop {
            self.until_work(hosted);
            if let Some(Letter(teller)) = self.mailbox.take() {
                teller.tell(End::Taken);
                return self.mailbox.make_room(1);
            }
            loom::thread::yield_now();
        }
    }

    fn sender(&self) -> JoinHandle<Asked<End>> {
        let site = self.clone();
        spawn(move || {
            let (letter, asked) = letter();
            assert!(site.mailbox.post(letter).is_ok(), "there is room");
            asked
        })
    }
}

#[test]
fn f28_message_to_a_shard_that_goes_to_sleep_wakes_it() {
    for hosted in [false, true] {
        model(move || {
            let site = Site::new(1);
            let sender = site.sender();
            site.take(hosted);
            assert_eq!(sender.join().unwrap().wait(), End::Taken);
        });
    }
}

#[test]
fn f28_errand_for_a_shard_that_goes_to_sleep_wakes_it() {
    model(|| {
        let site = Site::new(1);
        let other = site.clone();
        let sender = spawn(move || other.mailbox.send_errand(Errand::Close { target: 7 }));
        site.until_work(false);
        let mut errands = site.mailbox.take_errands();
        while errands.is_empty() {
            // The flag of an earlier one would be seen before the errand itself.
            loom::thread::yield_now();
            errands = site.mailbox.take_errands();
        }
        assert_eq!(errands.len(), 1);
        sender.join().unwrap();
    });
}

#[test]
fn f28_two_senders_are_both_heard() {
    model(|| {
        let site = Site::new(2);
        let senders = [site.sender(), site.sender()];
        site.take(false);
        site.take(false);
        for sender in senders {
            assert_eq!(sender.join().unwrap().wait(), End::Taken);
        }
    });
}

#[test]
fn message_against_close_is_not_left_behind() {
    model(|| {
        let site = Site::new(1);
        let sender = site.sender();
        site.mailbox.close();
        // Whoever sees the other empties the mailbox; neither waits for it.
        assert_eq!(sender.join().unwrap().wait(), End::Refused);
        assert!(!site.has_work());
    });
}

#[test]
fn errand_against_close_is_not_left_behind() {
    model(|| {
        let site = Site::new(1);
        let other = site.clone();
        let sender = spawn(move || other.mailbox.send_errand(Errand::Close { target: 7 }));
        site.mailbox.close();
        sender.join().unwrap();
        assert!(site.mailbox.take_errands().is_empty());
    });
}

/// Sends, and waits for room as long as there is none.
fn send_when_there_is_room(site: &Site) -> Asked<End> {
    let (letter, asked) = letter();
    let mut unsent = Some(letter);
    block_on(poll_fn(|cx| {
        while let Some(letter) = unsent.take() {
            match site.mailbox.post(letter) {
                Ok(()) => break,
                Err(refused) => unsent = Some(refused),
            }
            if site.mailbox.poll_room(cx, Class::Foreground).is_pending() {
                return std::task::Poll::Pending;
            }
        }
        std::task::Poll::Ready(())
    }));
    asked
}

#[test]
fn refused_sender_is_woken_by_room_that_is_freed() {
    model(|| {
        let site = Site::new(1);
        let (first, _unread) = letter();
        assert!(site.mailbox.post(first).is_ok());
        let other = site.clone();
        let sender = spawn(move || send_when_there_is_room(&other));
        site.take(false);
        site.take(false);
        assert_eq!(sender.join().unwrap().wait(), End::Taken);
    });
}

#[test]
fn refused_sender_is_woken_by_close() {
    model(|| {
        let site = Site::new(1);
        let (first, first_asked) = letter();
        assert!(site.mailbox.post(first).is_ok());
        let other = site.clone();
        let sender = spawn(move || send_when_there_is_room(&other));
        site.mailbox.close();
        assert_eq!(sender.join().unwrap().wait(), End::Refused);
        assert_eq!(first_asked.wait(), End::Refused);
    });
}

#[test]
fn answer_reaches_whoever_waits_for_it() {
    for blocks in [false, true] {
        model(move || {
            let (teller, asked) = ask(|| End::Dropped);
            let worker = spawn(move || teller.tell(End::Taken));
            let answer = if blocks { asked.wait() } else { block_on(asked) };
            assert_eq!(answer, End::Taken);
            worker.join().unwrap();
        });
    }
}

#[test]
fn teller_that_is_dropped_answers_too() {
    model(|| {
        let (teller, asked) = ask(|| End::Dropped);
        let worker = spawn(move || drop(teller));
        assert_eq!(block_on(asked), End::Dropped);
        worker.join().unwrap();
    });
}

#[test]
fn answer_against_an_asker_who_gives_up_harms_neither() {
    model(|| {
        let (teller, mut asked) = ask(|| End::Dropped);
        let worker = spawn(move || teller.tell(End::Taken));
        let polled = std::pin::Pin::new(&mut asked).poll(&mut Context::from_waker(Waker::noop()));
        if let std::task::Poll::Ready(answer) = polled {
            assert_eq!(answer, End::Taken);
        }
        drop(asked);
        worker.join().unwrap();
    });
}
