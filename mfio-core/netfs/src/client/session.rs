//! One connection of a client, from its first byte to its last.
//!
//! Data flow: [`Work`] → frames → carrier; carrier → header → the packet's own bytes, or a
//! reply → whoever waits. Both directions and a watch on silence run side by side.
//!
//! Not here: what waits and what is under way (`shared`), reconnecting (`mod`).

use alloc::sync::Arc;
use alloc::vec;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
use core::time::Duration;

use async_io::Timer;
use mfio_core::{ErrorKind as ByteKind, Read, View, Write};

use super::Config;
use super::locked::call;
use super::shared::{CUT, Shared, Work};
use crate::auth::{Side, nonce};
use crate::carrier::{Carrier, Cut, Egress, Head, Ingress, Progress};
use crate::carrier::{receive_hello, receive_reply, verify};
use crate::wire::{DATA_BYTES_MAX, Flags, HELLO_BYTES, Hello, Limits, Reply, Request, WireError};

/// Up to this length data is copied into the batch of frames: one call instead of two.
const COPY_BYTES: u64 = 16 << 10;

/// What both sides agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Agreed {
    pub(crate) limits: Limits,
    pub(crate) checked: bool,
}

/// Says hello and proves the secret.
pub(crate) async fn greet<C: Carrier + ?Sized>(
    carrier: &C,
    config: &Config,
) -> Result<Agreed, Cut> {
    let secret = config.secret.is_some();
    let nonce = nonce().map_err(|_| Cut::Secret)?;
    let flags = Flags { checksums: config.checksums, secret };
    let ours = Hello { flags, nonce, limits: Limits::default() };
    let mut egress = Egress::new(carrier, false);
    egress.raw(&ours.encode());
    egress.flush().await?;
    debug_assert_eq!(ours.encode().len(), HELLO_BYTES);
    let theirs = receive_hello(carrier).await?;
    if theirs.flags.secret != secret {
        return Err(Cut::Secret);
    }
    let checked = theirs.flags.checksums;
    let proof = config.secret.as_ref().map(|secret| secret.proof(Side::Client, &ours, &theirs));
    let request = Request::Proof { code: proof.unwrap_or_default() };
    let mut egress = Egress::new(carrier, checked);
    egress.push(Head { kind: request.kind(), id: 0, place: 0, body: &request.body() }, &[])?;
    egress.flush().await?;
    match receive_reply(carrier, checked).await? {
        Reply::Proven { code } => {
            let proven = config
                .secret
                .as_ref()
                .is_none_or(|secret| secret.proves(Side::Server, &ours, &theirs, &code));
            if proven { Ok(Agreed { limits: theirs.limits, checked }) } else { Err(Cut::Secret) }
        }
        Reply::Goodbye { reason } => Err(Cut::Goodbye(reason)),
        _ => Err(WireError::Unasked.into()),
    }
}

/// Carries requests and replies until the connection ends; why it did.
pub(crate) async fn run<C: Carrier + ?Sized>(
    shared: &Shared,
    carrier: &C,
    agreed: Agreed,
    silence_max: Duration,
) -> Cut {
    let progress = Arc::<Progress>::default();
    let mut ingress = pin!(ingress(shared, carrier, agreed.checked, &progress));
    let mut egress = pin!(egress(shared, carrier, agreed.checked, &progress));
    let mut watch = pin!(watch(shared, agreed.limits.idle_ms, silence_max, &progress));
    poll_fn(|cx| {
        // Replies first: they make room for requests, which are looked at after them anyway.
        shared.driver_looks();
        if let Poll::Ready(Err(cut)) = ingress.as_mut().poll(cx) {
            return Poll::Ready(cut);
        }
        if let Poll::Ready(Err(cut)) = egress.as_mut().poll(cx) {
            return Poll::Ready(cut);
        }
        watch.as_mut().poll(cx)
    })
    .await
}

async fn egress<C: Carrier + ?Sized>(
    shared: &Shared,
    carrier: &C,
    checked: bool,
    progress: &Arc<Progress>,
) -> Result<(), Cut> {
    let mut egress = Egress::new(carrier, checked).counted(Arc::clone(progress));
    loop {
        let work = match shared.poll_work(None) {
            Poll::Ready(work) => work,
            Poll::Pending => {
                egress.flush().await?;
                poll_fn(|cx| shared.poll_work(Some(cx))).await
            }
        };
        match work {
            Work::Send { id, request, keep } => {
                let body = request.body();
                egress.push(Head { kind: request.kind(), id, place: 0, body: &body }, &[])?;
                // Closed after this has been sent, not before.
                drop(keep);
            }
            Work::Write { id, request, view, keep } => {
                write(shared, &mut egress, id, &request, view).await?;
                drop(keep);
            }
            Work::Finished => {
                egress.flush().await?;
                return Err(Cut::Finished);
            }
        }
        if egress.is_full() {
            egress.flush().await?;
        }
    }
}

async fn write<C: Carrier + ?Sized>(
    shared: &Shared,
    egress: &mut Egress<'_, C>,
    id: u64,
    request: &Request,
    view: View<Write>,
) -> Result<(), Cut> {
    let body = request.body();
    let head = Head { kind: request.kind(), id, place: 0, body: &body };
    let lent = if view.len() > COPY_BYTES { view.try_alloc(1) } else { Err(view) };
    match lent {
        Ok(lent) => {
            if let Err(cut) = egress.push(head, lent.as_slice()) {
                call(|| lent.fail(CUT));
                return Err(cut);
            }
            egress.flush().await?;
            let (result, lent) = egress.send(lent).await;
            if let Err(cut) = result {
                call(|| lent.fail(CUT));
                return Err(cut);
            }
            shared.sent(id, lent.into_view());
        }
        Err(view) => {
            let len = usize::try_from(view.len()).unwrap_or(DATA_BYTES_MAX).min(DATA_BYTES_MAX);
            let mut copy = vec![0; len];
            if !matches!(call(|| view.read_at(0, &mut copy)), Some(Ok(_))) {
                // Its caller has left, or its owner has panicked. Nothing is written, as if it had
                // been cancelled in time.
                call(|| view.fail(ByteKind::Aborted));
                return shared.forget(id);
            }
            if let Err(cut) = egress.push(head, &copy) {
                call(|| view.fail(CUT));
                return Err(cut);
            }
            egress.push_copy(&copy);
            shared.sent(id, view);
        }
    }
    Ok(())
}

async fn ingress<C: Carrier + ?Sized>(
    shared: &Shared,
    carrier: &C,
    checked: bool,
    progress: &Arc<Progress>,
) -> Result<(), Cut> {
    let data = Reply::Data {}.kind();
    let mut ingress = Ingress::new(carrier, checked, Arc::clone(progress));
    loop {
        let header = ingress.header().await?;
        if header.kind == data && header.body_len == 0 {
            let len = u64::from(header.data_len);
            let view = shared.carve(header.id, header.place, len)?;
            read(&mut ingress, view, |bytes| verify(&header, &[], bytes)).await?;
            continue;
        }
        if header.data_len != 0 {
            return Err(WireError::Unasked.into());
        }
        let body = ingress.body(&header).await?;
        verify(&header, body, &[])?;
        match Reply::decode(header.kind, body)? {
            Reply::Goodbye { reason } => return Err(Cut::Goodbye(reason)),
            reply => shared.reply(header.id, reply)?,
        }
    }
}

/// Receives the bytes of `view` to where they belong.
async fn read<C: Carrier + ?Sized>(
    ingress: &mut Ingress<'_, C>,
    view: View<Read>,
    verify: impl Fn(&[u8]) -> Result<(), WireError>,
) -> Result<(), Cut> {
    if view.is_empty() {
        let verified = verify(&[]);
        call(|| match verified {
            Ok(()) => view.filled(),
            Err(_) => view.fail(CUT),
        });
        return Ok(verified?);
    }
    match view.try_alloc(1) {
        Ok(mut lent) => {
            let ahead = ingress.ahead(lent.as_mut_slice());
            let (result, mut lent) = ingress.data(lent, ahead).await;
            if let Err(cut) = result {
                // The end of the connection is not the end of the file.
                call(|| lent.fail(CUT));
                return Err(cut);
            }
            if let Err(error) = verify(lent.as_mut_slice()) {
                call(|| lent.fail(CUT));
                return Err(error.into());
            }
            call(|| lent.done());
        }
        Err(mut view) => {
            let len = usize::try_from(view.len()).unwrap_or(DATA_BYTES_MAX).min(DATA_BYTES_MAX);
            let mut bytes = vec![0; len];
            let ahead = ingress.ahead(&mut bytes);
            let (result, bytes) = ingress.data(bytes, ahead).await;
            let result = result.and_then(|()| Ok(verify(&bytes)?));
            if let Err(cut) = result {
                call(|| view.fail(CUT));
                return Err(cut);
            }
            call(|| {
                view.write_at(0, &bytes);
                view.filled();
            });
        }
    }
    Ok(())
}

/// Asks for signs of life; returns when there are none.
async fn watch(shared: &Shared, idle_ms: u32, silence_max: Duration, progress: &Progress) -> Cut {
    // Often enough for the server not to think that we have gone.
    let ours = if idle_ms == 0 { silence_max } else { Duration::from_millis(idle_ms.into()) };
    let interval = ours.min(silence_max).max(Duration::from_millis(40)) / 4;
    let rounds_max = (silence_max.as_millis() / interval.as_millis().max(1)).max(2);
    let (mut last, mut silent) = (0, 0_u128);
    loop {
        Timer::after(interval).await;
        let now = progress.get();
        let waits = shared.lock().waits();
        if now != last {
            (last, silent) = (now, 0);
        } else if waits {
            silent += 1;
        }
        if silent >= rounds_max {
            return Cut::Silent;
        }
        if !waits {
            shared.ping();
        } else if silent > 0 && silent % 2 == 0 {
            // What is under way may take long; a ping does not.
            shared.ping();
        }
    }
}
