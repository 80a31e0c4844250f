//! Who is let in: hello, the secret, and whether there is a place.
//!
//! Data flow: connection → hello and proof, while not too many others are at that → a place
//! among the sessions, given back when the session ends. Who has not proved anything takes no
//! place from those who have: where too many knock, the oldest is cut.
//!
//! Not here: what a session does (`session`), who connects (`server`).

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Poll, Waker};

use mfio_core::wakers::wake_all;

use super::ServerConfig;
use crate::auth::{Side, nonce};
use crate::carrier::{Carrier, Cut, Egress, Head, receive_bytes, receive_header};
use crate::carrier::{receive_hello, verify};
use crate::wire::{Flags, Hello, Limits, Reason, Reply, Request, WireError};

/// Says hello, and lets in who knows the secret, where `admit` has a place for him. Whether
/// frames have checksums, and the place.
pub(super) async fn greet<C: Carrier, T>(
    carrier: &C,
    config: &ServerConfig,
    admit: impl FnOnce() -> Option<T>,
) -> Result<(bool, T), Cut> {
    let theirs = receive_hello(carrier).await?;
    let flags = Flags { checksums: theirs.flags.checksums, secret: config.secret.is_some() };
    let idle_ms = u32::try_from(config.idle_max.as_millis()).unwrap_or(u32::MAX);
    let limits = Limits { requests: config.requests_max, bytes: config.bytes_max, idle_ms };
    let ours = Hello { flags, nonce: nonce().map_err(|_| Cut::Secret)?, limits };
    let mut egress = Egress::new(carrier, false);
    egress.raw(&ours.encode());
    egress.flush().await?;
    let checked = flags.checksums;
    let header = receive_header(carrier, checked).await?;
    if header.data_len != 0 {
        return Err(WireError::Unasked.into());
    }
    let body = receive_bytes(carrier, header.body_len).await?;
    verify(&header, &body, &[])?;
    let Request::Proof { code } = Request::decode(header.kind, &body)? else {
        return Err(WireError::Unasked.into());
    };
    let secret = config.secret.as_ref();
    let proven = secret.is_none_or(|s| s.proves(Side::Client, &theirs, &ours, &code));
    let place = if proven { admit().ok_or(Reason::Crowded) } else { Err(Reason::Secret) };
    let reply = match &place {
        Err(reason) => Reply::Goodbye { reason: *reason },
        Ok(_) => {
            let proof = secret.map(|secret| secret.proof(Side::Server, &theirs, &ours));
            Reply::Proven { code: proof.unwrap_or_default() }
        }
    };
    let mut egress = Egress::new(carrier, checked);
    egress.push(Head { kind: reply.kind(), id: 0, place: 0, body: &reply.body() }, &[])?;
    egress.flush().await?;
    Ok((checked, place.map_err(Cut::Goodbye)?))
}

/// How many sessions there are.
#[derive(Debug, Default)]
pub(super) struct Door(AtomicUsize);

/// Held by a session while it lasts.
pub(super) struct Place<'d>(&'d Door);

impl Door {
    /// A place, unless `places` are taken.
    pub(super) fn enter(&self, places: usize) -> Option<Place<'_>> {
        let more = |taken: usize| (taken < places).then_some(taken + 1);
        let entered = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        entered.is_ok().then_some(Place(self))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Those that have not proved anything yet, the oldest first.
#[derive(Default)]
pub(super) struct Greetings(RefCell<VecDeque<Rc<Knock>>>);

#[derive(Default)]
struct Knock {
    cut: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// One of them.
pub(super) struct Greeting<'g> {
    among: &'g Greetings,
    knock: Rc<Knock>,
}

impl Greetings {
    /// One more; where there are `most` already, the oldest is cut.
    pub(super) fn begin(&self, most: usize) -> Greeting<'_> {
        let mut knocks = self.0.borrow_mut();
        let many = (knocks.len() + 1).saturating_sub(most.max(1));
        let cut: Vec<_> = knocks.drain(..many).collect();
        let knock = Rc::<Knock>::default();
        knocks.push_back(Rc::clone(&knock));
        // Told with nothing borrowed: a waker may run anything.
        drop(knocks);
        let greeting = Greeting { among: self, knock };
        cut.iter().for_each(|oldest| oldest.cut.set(true));
        wake_all(cut.iter().filter_map(|oldest| oldest.waker.take()));
        greeting
    }
}

impl Greeting<'_> {
    /// It has proved what it had to: it is not one of them any more.
    pub(super) fn over(&self) {
        self.among.0.borrow_mut().retain(|knock| !Rc::ptr_eq(knock, &self.knock));
    }

    /// `work`, unless this is cut before that is done.
    pub(super) async fn unless_cut<T>(
        &self,
        work: impl Future<Output = Result<T, Cut>>,
    ) -> Result<T, Cut> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.knock.cut.get() {
                return Poll::Ready(Err(Cut::Goodbye(Reason::Crowded)));
            }
            let old = self.knock.waker.replace(Some(cx.waker().clone()));
            drop(old);
            work.as_mut().poll(cx)
        })
        .await
    }
}

impl Drop for Greeting<'_> {
    fn drop(&mut self) {
        self.over();
    }
}
