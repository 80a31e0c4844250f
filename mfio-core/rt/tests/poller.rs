//! Whoever blocks on a connection waits for its events itself, and nobody is forgotten.
#![cfg(feature = "std")]
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::future::{Future, poll_fn};
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use futures_util::future::{join, join_all};
use mfio_core::backend::{Drive, Nested, Park as _, ThreadPark};
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_core::{Packet, PacketIoExt as _, Read, Write, block_on};
use mfio_rt::conformance::bytes_of;
use mfio_rt::portable::{Portable, PortableStream};
use mfio_rt::{ListenOptions, ListenerHandle as _, StreamHandle as _, Tcp as _, Whole};
use proptest::prelude::*;
use socket2::SockRef;

fn here() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// Both ends of a connection whose buffers are as small as the system lets them be.
fn narrow_pair(net: &Portable) -> (PortableStream, PortableStream) {
    let listener = TcpListener::bind(here()).unwrap();
    SockRef::from(&listener).set_recv_buffer_size(1).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    for end in [&near, &far] {
        SockRef::from(end).set_send_buffer_size(1).unwrap();
        end.set_nodelay(true).unwrap();
    }
    (net.adopt(near).unwrap(), net.adopt(far).unwrap())
}

/// Both ends of any connection.
fn pair(net: &Portable) -> (PortableStream, PortableStream) {
    block_on(net, async {
        let listener = net.bind(here(), &ListenOptions::new()).await.unwrap();
        let near = net.connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    })
    .unwrap()
}

async fn say(stream: &PortableStream, bytes: Vec<u8>) {
    assert!(stream.io((), Packet::<Write, _>::new(bytes)).await.is_ok());
}

async fn hear(stream: &PortableStream, len: usize) -> Vec<u8> {
    let done = stream.io(Whole, Packet::<Read, _>::new(vec![0; len])).await;
    assert!(done.is_ok(), "{done:?}");
    done.into_buffer()
}

/// Says everything in packets of these lengths, all of them at once, and hears it in packets of
/// those.
async fn carried(stream: &PortableStream, other: &PortableStream, said: &[usize], heard: &[usize]) {
    let all = bytes_of(7, said.iter().sum());
    let (mut saying, mut left) = (Vec::new(), &all[..]);
    for len in said {
        let (packet, rest) = left.split_at(*len);
        left = rest;
        saying.push(say(stream, packet.to_vec()));
    }
    let hearing = async {
        let (mut found, mut lens) = (Vec::new(), heard.iter().cycle());
        while found.len() < all.len() {
            let len = (*lens.next().unwrap()).min(all.len() - found.len());
            found.extend(hear(other, len).await);
        }
        found
    };
    let (_, found) = join(join_all(saying), hearing).await;
    assert!(found == all);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// A buffer that is smaller than a packet cuts every write, and most reads.
    #[test]
    fn packets_of_any_length_arrive_in_order_through_small_buffers(
        said in prop::collection::vec(0_usize..20_000, 1..40),
        heard in prop::collection::vec(1_usize..30_000, 1..8),
        hosted: bool,
    ) {
        let net = Portable::new().unwrap();
        let (near, far) = narrow_pair(&net);
        let work = carried(&near, &far, &said, &heard);
        if hosted {
            block_on(&near, near.hosting(far.hosting(work))).unwrap();
        } else {
            block_on(&near, work).unwrap();
        }
    }
}

/// The end may come between the bytes and the call that takes them, or before anybody watches.
#[test]
fn an_end_right_behind_the_bytes_is_seen() {
    let net = Portable::new().unwrap();
    for round in 0..400_usize {
        let listener = TcpListener::bind(here()).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = thread::spawn(move || {
            listener.accept().unwrap().0.write_all(&vec![7; 100 + round]).unwrap();
        });
        let heard = async {
            let stream = net.connect(address).await.unwrap();
            let mut all = Vec::new();
            loop {
                let read = stream.io((), Packet::<Read, _>::new(vec![0; 4096])).await;
                let many = usize::try_from(read.contiguous_bytes()).unwrap();
                if many == 0 {
                    return all.len();
                }
                all.extend_from_slice(&read.into_buffer()[..many]);
            }
        };
        // By the thread of the runtime, by an executor that knows nothing of it.
        let heard =
            if round % 2 == 0 { block_on(&net, heard).unwrap() } else { async_io::block_on(heard) };
        assert_eq!(heard, 100 + round);
        peer.join().unwrap();
    }
}

async fn ping_pong(near: &PortableStream, far: &PortableStream, rounds: usize) {
    for round in 0..rounds {
        let bytes = bytes_of(round as u64, 1 + round % 5000);
        let (heard, ()) = join(hear(far, bytes.len()), say(near, bytes.clone())).await;
        assert!(heard == bytes, "round {round}");
    }
}

#[test]
fn threads_that_block_on_one_runtime_are_all_served() {
    let net = Portable::new().unwrap();
    thread::scope(|scope| {
        for thread in 0..4 {
            let (near, far) = pair(&net);
            scope.spawn(move || {
                // The right to wait comes and goes; one of them never asks for it.
                for _ in 0..50 {
                    let work = ping_pong(&near, &far, 10);
                    if thread == 0 {
                        async_io::block_on(work);
                    } else {
                        block_on(&near, work).unwrap();
                    }
                }
            });
        }
    });
}

#[test]
fn a_thread_that_stays_away_from_the_poller_keeps_no_other_waiting() {
    let net = Portable::new().unwrap();
    let (near, far) = pair(&net);
    let (third, fourth) = pair(&net);
    block_on(&near, async {
        // It has waited for events, and would again.
        ping_pong(&near, &far, 20).await;
        let (done, wait) = mpsc::channel();
        let other = thread::spawn(move || {
            async_io::block_on(ping_pong(&third, &fourth, 20));
            done.send(()).unwrap();
        });
        // What no future should do.
        wait.recv().unwrap();
        other.join().unwrap();
        ping_pong(&near, &far, 20).await;
        // The same in a call that blocks inside one that blocks.
        block_on(&near, ping_pong(&near, &far, 20)).unwrap();
    })
    .unwrap();
}

#[test]
fn a_connection_is_driven_by_one_thread_at_a_time() {
    let net = Portable::new().unwrap();
    assert!(net.get_backend().unwrap().is_none(), "there is nothing to wait for");
    let (near, far) = pair(&net);
    let seat = near.get_backend().unwrap();
    assert!(seat.is_some());
    assert!(far.get_backend().unwrap().is_none(), "somebody waits for all");
    drop(seat);
    assert!(net.get_backend().unwrap().is_some());
    drop((near, far));
    assert!(net.get_backend().unwrap().is_none());
}

/// A backend in which a thread can wait, as in a ring of the kernel.
struct Waits {
    latch: ThreadPark,
    parks: AtomicUsize,
    driven: AtomicBool,
}

impl Drive for Waits {
    fn poll_drive(&self, _cx: &mut Context<'_>) {}

    fn park(&self) -> bool {
        self.parks.fetch_add(1, Ordering::SeqCst);
        self.latch.park();
        true
    }

    fn unpark_waker(&self) -> Option<Waker> {
        Some(self.latch.unparker())
    }
}

impl IoBackend for Waits {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        BackendHandle::acquire(self, &self.driven).map(Some)
    }
}

#[test]
fn a_thread_that_needs_another_backend_waits_in_that() {
    let net = Portable::new().unwrap();
    let (near, far) = pair(&net);
    let (latch, parks) = (ThreadPark::new(), AtomicUsize::new(0));
    let other = Waits { latch, parks, driven: AtomicBool::new(false) };
    let both = Nested::new(&near, &other);
    let answer = thread::spawn(move || {
        // So that the other one sleeps.
        async_io::block_on(async_io::Timer::after(Duration::from_millis(50)));
        async_io::block_on(say(&far, vec![7; 3]));
        far
    });
    assert_eq!(block_on(&both, hear(&near, 3)).unwrap(), [7; 3]);
    let parks = other.parks.load(Ordering::SeqCst);
    assert!((1..10).contains(&parks), "it has slept, and not looked all the time: {parks}");
    drop(answer.join().unwrap());
}

#[test]
fn tasks_run_beside_connections_until_they_are_over() {
    let net = Portable::new().unwrap();
    let (told, heard) = mpsc::channel();
    let polls = Arc::new(AtomicUsize::new(0));
    // Woken while it is polled, by itself and by another thread; and later.
    let (tell, kept) = (told.clone(), Arc::new(std::sync::Mutex::new(None::<Waker>)));
    let (count, keep) = (Arc::clone(&polls), Arc::clone(&kept));
    net.spawn(poll_fn(move |cx| match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        1 => {
            let waker = cx.waker().clone();
            thread::spawn(move || waker.wake()).join().unwrap();
            Poll::Pending
        }
        2 => {
            *keep.lock().unwrap() = Some(cx.waker().clone());
            tell.send("waits").unwrap();
            Poll::Pending
        }
        _ => {
            tell.send("is over").unwrap();
            Poll::Ready(())
        }
    }));
    assert_eq!(heard.recv().unwrap(), "waits");
    // One that panics ends alone, and gives up what it holds.
    let held = told.clone();
    net.spawn(async move {
        let _held = held;
        panic!("in a task: this panic belongs to the test");
    });
    let waker = kept.lock().unwrap().take().unwrap();
    waker.wake_by_ref();
    assert_eq!(heard.recv().unwrap(), "is over");
    waker.wake();
    assert_eq!(polls.load(Ordering::SeqCst), 4, "what is over is not polled");
    // One that uses a connection.
    let (near, far) = pair(&net);
    net.spawn(async move {
        far.hosting(async {
            let bytes = hear(&far, 5000).await;
            say(&far, bytes).await;
        })
        .await;
        told.send("has echoed").unwrap();
    });
    let talk = async {
        let mut hearing = pin!(hear(&near, 5000));
        say(&near, bytes_of(3, 5000)).await;
        poll_fn(|cx| hearing.as_mut().poll(cx)).await
    };
    assert!(block_on(&near, talk).unwrap() == bytes_of(3, 5000));
    assert_eq!(heard.recv().unwrap(), "has echoed");
    assert!(heard.recv().is_err(), "all that held the other end have gone");
}

#[test]
fn a_duplicate_of_the_descriptor_tells_nothing_to_who_comes_after() {
    let net = Portable::new().unwrap();
    let listener = TcpListener::bind(here()).unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut duplicate = near.try_clone().unwrap();
    let mut far = listener.accept().unwrap().0;
    let adopted = net.adopt(near).unwrap();
    drop(adopted);
    // The same token for another connection; the old one goes on, unwatched.
    let (one, other) = pair(&net);
    far.write_all(b"unwatched").unwrap();
    block_on(&one, ping_pong(&one, &other, 100)).unwrap();
    let mut heard = [0; 9];
    duplicate.set_nonblocking(false).unwrap();
    duplicate.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"unwatched");
}
