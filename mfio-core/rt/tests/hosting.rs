//! Connections that are served by the task that uses them.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;

use mfio_core::{Packet, PacketIoExt as _, Read, Write};
use mfio_rt::conformance::bytes_of;
use mfio_rt::portable::{Portable, PortableStream};
use mfio_rt::{ListenOptions, ListenerHandle as _, StreamHandle as _, Tcp as _, Whole};

async fn pair(net: &Portable) -> (PortableStream, PortableStream) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = net.bind(any, &ListenOptions::new()).await.unwrap();
    let near = net.connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

async fn hear(stream: &PortableStream, len: usize) -> Vec<u8> {
    let done = stream.io(Whole, Packet::<Read, _>::new(vec![0; len])).await;
    assert!(done.is_ok(), "{done:?}");
    done.into_buffer()
}

async fn say(stream: &PortableStream, bytes: Vec<u8>) {
    assert!(stream.io((), Packet::<Write, _>::new(bytes)).await.is_ok());
}

/// Everything that comes, sent back.
async fn echo(stream: &PortableStream, rounds: usize, len: impl Fn(usize) -> usize) {
    for round in 0..rounds {
        say(stream, hear(stream, len(round)).await).await;
    }
}

fn len(round: usize) -> usize {
    [1, 3000, 70_000, 2 << 20][round % 4]
}

async fn talk(stream: &PortableStream, rounds: usize) {
    for round in 0..rounds {
        let bytes = bytes_of(round as u64 + 1, len(round));
        // The other side sends before it has heard all: both directions at once.
        let mut saying = pin!(say(stream, bytes.clone()));
        let mut said = false;
        let mut hearing = pin!(hear(stream, bytes.len()));
        let heard = poll_fn(|cx| {
            said = said || saying.as_mut().poll(cx).is_ready();
            hearing.as_mut().poll(cx)
        });
        assert!(heard.await == bytes, "round {round}");
        if !said {
            saying.await;
        }
    }
}

#[test]
fn a_hosted_connection_carries_what_any_other_does() {
    let net = Portable::new().unwrap();
    for (near_hosted, far_hosted) in [(true, false), (false, true), (true, true)] {
        let (near, far) = async_io::block_on(pair(&net));
        let other = std::thread::spawn(move || {
            let echoing = echo(&far, 100, len);
            if far_hosted {
                async_io::block_on(far.hosting(echoing));
            } else {
                async_io::block_on(echoing);
            }
        });
        if near_hosted {
            // A waker that does not drive the poller, and one that does.
            mfio_core::block_on(&net, near.hosting(talk(&near, 48))).unwrap();
            async_io::block_on(near.hosting(talk(&near, 52)));
        } else {
            async_io::block_on(talk(&near, 100));
        }
        other.join().unwrap();
    }
}

#[test]
fn a_host_that_goes_leaves_nothing_unserved() {
    let net = Portable::new().unwrap();
    let (near, far) = async_io::block_on(pair(&net));
    for round in 0..200_u64 {
        let bytes = bytes_of(round + 1, 50_000);
        let heard = async_io::block_on(async {
            // Under way before, while and after a host is there.
            let mut hearing = pin!(hear(&near, bytes.len()));
            let polled = poll_fn(|cx| Poll::Ready(hearing.as_mut().poll(cx).is_pending()));
            assert!(polled.await);
            {
                let mut host = pin!(near.hosting(std::future::pending::<()>()));
                let sent = bytes.clone();
                if round % 2 == 0 {
                    say(&far, sent[..10].to_vec()).await;
                }
                poll_fn(|cx| Poll::Ready(host.as_mut().poll(cx).is_pending())).await;
                let from = if round % 2 == 0 { 10 } else { 0 };
                say(&far, sent[from..].to_vec()).await;
            }
            hearing.await
        });
        assert!(heard == bytes, "round {round}");
    }
}
