//! What a message costs a server whose connections are on a ring: read by an op of its own into
//! its own memory, or several of them by one op into memory that they are copied from, in turns.
//!
//! `cargo run --release -p mfio-engine --example receive`, under `taskset -c 0`.
//! Processor time of the server's thread in nanoseconds and ops of the ring, per message, as
//! medians of 200 rounds, by 64 connections. The peers write while the server stands still, and
//! it is ahead of them: its reads wait when the messages come.
#![allow(clippy::print_stdout, reason = "an example says what it measured")]

mod outcome;

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::ExitCode;
use std::rc::Rc;
use std::task::{Poll, Waker};

use mfio_core::{IoRead, IoWrite};
use mfio_engine::net::{ShardNet, ShardStream};
use mfio_engine::ring::Wait;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::{Config, Shard};
use mfio_rt::{StreamHandle, Whole};
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

const CONNECTIONS: usize = 64;
const ROUNDS: usize = 200;
const AHEAD_BYTES: usize = 4096;
/// How much is written to each connection at a time, and whether it is answered.
const SHAPES: [(usize, bool); 3] = [(1, true), (1, false), (16, false)];

type Failure = Box<dyn Error>;

#[derive(Clone, Copy, Debug)]
enum Way {
    Each,
    Ahead,
}

/// How many messages are through, and who waits for how many.
#[derive(Default)]
struct Through {
    messages: Cell<usize>,
    waiting: RefCell<Option<(usize, Waker)>>,
}

impl Through {
    fn count(&self) {
        self.messages.set(self.messages.get() + 1);
        let mut waiting = self.waiting.borrow_mut();
        if waiting.as_ref().is_some_and(|(wanted, _)| self.messages.get() >= *wanted)
            && let Some((_, waker)) = waiting.take()
        {
            waker.wake();
        }
    }

    async fn reaches(&self, wanted: usize) {
        poll_fn(|cx| {
            if self.messages.get() >= wanted {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some((wanted, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

/// Takes messages until the peer goes.
async fn serve(
    stream: ShardStream<KernelRing>,
    way: Way,
    bytes: usize,
    replies: bool,
    through: Rc<Through>,
) {
    let (mut message, mut answer) = (vec![0; bytes], vec![1; bytes]);
    let (mut ahead, mut from, mut to) = (vec![0; AHEAD_BYTES.max(bytes)], 0, 0);
    loop {
        match way {
            Way::Each => {
                let (read, memory) = stream.read_exact(Whole, message).await;
                message = memory;
                if read.is_err() {
                    return;
                }
            }
            Way::Ahead => {
                let mut have = 0;
                while have < bytes {
                    if from == to {
                        let (got, _, memory) = stream.read_some((), ahead).await;
                        (ahead, from, to) = (memory, 0, usize::try_from(got).unwrap_or(0));
                        if to == 0 {
                            return;
                        }
                    }
                    let some = (bytes - have).min(to - from);
                    message[have..have + some].copy_from_slice(&ahead[from..from + some]);
                    (have, from) = (have + some, from + some);
                }
            }
        }
        if replies {
            answer = stream.write_exact((), answer).await.1;
        }
        through.count();
    }
}

/// Nanoseconds of processor time, of this thread.
fn processor_ns() -> Result<f64, Failure> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.num_nanoseconds() as f64)
}

/// A server, and its peers.
struct Server {
    shard: Shard<KernelRing>,
    peers: Vec<TcpStream>,
    through: Rc<Through>,
    ns: Vec<f64>,
}

impl Server {
    fn new(way: Way, bytes: usize, replies: bool) -> Result<Self, Failure> {
        let ring = KernelRing::new(&KernelConfig::new(256))?;
        let shard = Shard::with_ring(ring, &Config::new())?;
        let (net, through) = (ShardNet::new(&shard)?, Rc::new(Through::default()));
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut peers = Vec::new();
        for _ in 0..CONNECTIONS {
            let peer = TcpStream::connect(listener.local_addr()?)?;
            peer.set_nodelay(true)?;
            let stream = net.adopt(listener.accept()?.0)?;
            stream.set_nodelay(true)?;
            drop(shard.spawn(serve(stream, way, bytes, replies, Rc::clone(&through)))?);
            peers.push(peer);
        }
        let server = Self { shard, peers, through, ns: Vec::new() };
        server.get_ahead()?;
        Ok(server)
    }

    /// Every connection waits for what comes next.
    fn get_ahead(&self) -> Result<(), Failure> {
        self.shard.block_on(async {})?;
        self.shard.turn(Wait::NONE)?;
        Ok(())
    }

    fn round(&mut self, message: &[u8], many: usize, replies: bool) -> Result<(), Failure> {
        for _ in 0..many {
            for peer in &mut self.peers {
                peer.write_all(message)?;
            }
        }
        let (started, messages) = (processor_ns()?, many * CONNECTIONS);
        let wanted = self.through.messages.get() + messages;
        self.shard.block_on(self.through.reaches(wanted))?;
        self.get_ahead()?;
        self.ns.push((processor_ns()? - started) / messages as f64);
        let mut answer = vec![0; message.len()];
        for peer in self.peers.iter_mut().filter(|_| replies) {
            for _ in 0..many {
                peer.read_exact(&mut answer)?;
            }
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    outcome::told(try_main())
}

fn try_main() -> Result<(), Failure> {
    println!("bytes  at once  answered   ns: each   ahead ratio   ops: each  ahead");
    for bytes in [64, 512, 4096] {
        for (many, replies) in SHAPES {
            let server = |way| Server::new(way, bytes, replies);
            let mut servers = [server(Way::Each)?, server(Way::Ahead)?];
            let message = vec![7; bytes];
            for _ in 0..ROUNDS {
                for server in &mut servers {
                    server.round(&message, many, replies)?;
                }
            }
            let ops = |server: &Server| server.shard.metrics().ops as f64;
            let per = |server| ops(server) / (ROUNDS * many * CONNECTIONS) as f64;
            let ops = (per(&servers[0]), per(&servers[1]));
            let [each, ahead] = servers.map(|mut server| {
                server.ns.sort_by(f64::total_cmp);
                server.ns[ROUNDS / 2]
            });
            println!(
                "{bytes:>5}  {many:>7}  {replies:>8}  {each:>9.0} {ahead:>7.0} {:>5.2}  \
                 {:>10.2} {:>6.2}",
                each / ahead,
                ops.0,
                ops.1
            );
        }
    }
    Ok(())
}
