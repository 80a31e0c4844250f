//! What is received by one op of many shots (`IORING_RECV_MULTISHOT`), and what that saves a
//! server beside an op for each read. On this rests why reads of streams are single ops.
//!
//! Data flow: peers write → a bare ring of the `io-uring` crate, by each way in turn → messages,
//! ops and processor time.
//!
//! Not here: the same of whole shards (`examples/receive.rs`).
#![allow(clippy::print_stdout, reason = "a skipped test says why, others say what they saw")]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use io_uring::squeue::Entry;
use io_uring::types::Fd;
use io_uring::{IoUring, cqueue, opcode};
use mfio_core::AlignedBuf;
use nix::errno::Errno;
use nix::sys::time::TimeValLike;
use nix::time::{ClockId, clock_gettime};

const CONNECTIONS: usize = 64;
const BUFFERS: u16 = 256;
const BUFFER_BYTES: usize = 4096;
/// In the user data of a send, beside the number of its connection.
const ANSWER: u64 = 1 << 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// An op for each message, into its own memory.
    Each,
    /// An op for what fits into a buffer of the connection, and a copy.
    Ahead,
    /// One op for all, into buffers that the ring shares out, and a copy.
    Many,
}

/// A ring of buffers, as `io_uring_register_buf_ring(3)` has it: 16 bytes for each buffer, and
/// the number of those that were ever given, in the last two of the first.
struct Provided {
    entries: AlignedBuf,
    memory: Vec<u8>,
    given: u16,
}

impl Provided {
    /// `None` where the kernel has no such thing.
    fn new(ring: &IoUring) -> Option<Self> {
        let entries = AlignedBuf::new(usize::from(BUFFERS) * 16, 4096);
        let memory = vec![0; usize::from(BUFFERS) * BUFFER_BYTES];
        let mut provided = Self { entries, memory, given: 0 };
        let at = provided.entries.as_mut().as_mut_ptr().addr() as u64;
        // SAFETY: lifetime: both memories are dropped after the ring. Aliasing: the kernel reads
        // and writes them in calls that this thread makes. Bounds: 16 bytes for each entry.
        let made = unsafe { ring.submitter().register_buf_ring_with_flags(at, BUFFERS, 0, 0) };
        made.ok()?;
        (0..BUFFERS).for_each(|id| provided.give(id));
        Some(provided)
    }

    fn give(&mut self, id: u16) {
        let at = usize::from(self.given % BUFFERS) * 16;
        let addr = self.memory[usize::from(id) * BUFFER_BYTES..].as_ptr().addr() as u64;
        let entries = self.entries.as_mut();
        entries[at..at + 8].copy_from_slice(&addr.to_ne_bytes());
        entries[at + 8..at + 12].copy_from_slice(&4096_u32.to_ne_bytes());
        entries[at + 12..at + 14].copy_from_slice(&id.to_ne_bytes());
        self.given = self.given.wrapping_add(1);
        entries[14..16].copy_from_slice(&self.given.to_ne_bytes());
    }
}

struct Connection {
    end: TcpStream,
    peer: TcpStream,
    /// What is read into: the message itself, or ahead of it.
    memory: Vec<u8>,
    message: Vec<u8>,
    have: usize,
    /// Messages that were written, and those that were taken.
    written: u8,
    taken: u8,
}

struct Server {
    // Dropped first, with all of its ops behind it.
    ring: IoUring,
    way: Way,
    answers: bool,
    provided: Option<Provided>,
    connections: Vec<Connection>,
    answer: Vec<u8>,
    /// Connections with no op in the ring.
    idle: VecDeque<usize>,
    ops: usize,
    starved: usize,
}

impl Server {
    fn new(way: Way, bytes: usize, answers: bool) -> Option<Self> {
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(512);
        let ring = builder.build(256).inspect_err(|error| println!("SKIP: no ring: {error}"));
        let ring = ring.ok()?;
        let provided = match way {
            Way::Many => Some(Provided::new(&ring).or_else(|| {
                println!("SKIP: no rings of buffers (Linux 5.19)");
                None
            })?),
            _ => None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = |_| {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let end = listener.accept().unwrap().0;
            for stream in [&peer, &end] {
                stream.set_nodelay(true).unwrap();
            }
            let memory = vec![0; if way == Way::Each { bytes } else { BUFFER_BYTES }];
            let message = vec![0; bytes];
            Connection { end, peer, memory, message, have: 0, written: 0, taken: 0 }
        };
        let connections = (0..CONNECTIONS).map(connection).collect();
        let (answer, idle) = (vec![1; bytes], (0..CONNECTIONS).collect());
        Some(Self { ring, way, answers, provided, connections, answer, idle, ops: 0, starved: 0 })
    }

    fn push(&mut self, entry: Entry, user_data: u64) {
        self.ops += 1;
        // SAFETY: lifetime: what is read into and sent is dropped after the ring, and is never
        // moved or grown; ops that are left then wait for peers that write no more. Aliasing: it
        // is looked at when the completion has come. Bounds: the length is that of the memory.
        unsafe { self.ring.submission().push(&entry.user_data(user_data)) }.unwrap();
    }

    /// Has every connection wait for what comes next.
    fn arm(&mut self) {
        while let Some(at) = self.idle.pop_front() {
            let connection = &mut self.connections[at];
            let fd = Fd(connection.end.as_raw_fd());
            let entry = match self.way {
                Way::Many => opcode::RecvMulti::new(fd, 0).build(),
                Way::Each | Way::Ahead => {
                    let have = if self.way == Way::Each { connection.have } else { 0 };
                    let memory = &mut connection.memory[have..];
                    let len = u32::try_from(memory.len()).unwrap();
                    opcode::Recv::new(fd, memory.as_mut_ptr(), len).build()
                }
            };
            self.push(entry, at as u64);
        }
    }

    /// Takes `bytes` that have come; returns how many messages they complete.
    fn take(&mut self, at: usize, buffer: Option<u16>, mut bytes: usize) -> usize {
        let connection = &mut self.connections[at];
        let Connection { memory, message, have, .. } = connection;
        let (mut from, mut messages) = (0, 0);
        while bytes > 0 {
            let some = bytes.min(message.len() - *have);
            let to = &mut message[*have..*have + some];
            match (&self.provided, buffer) {
                (Some(provided), Some(id)) => {
                    let from = usize::from(id) * BUFFER_BYTES + from;
                    to.copy_from_slice(&provided.memory[from..from + some]);
                }
                _ if self.way == Way::Ahead => to.copy_from_slice(&memory[from..from + some]),
                _ => {}
            }
            (*have, from, bytes) = (*have + some, from + some, bytes - some);
            if *have == message.len() {
                let seen = if self.way == Way::Each { &*memory } else { &*message };
                let ends = (seen[0], seen[seen.len() - 1]);
                assert_eq!(ends, (connection.taken, connection.taken), "in order");
                connection.taken = connection.taken.wrapping_add(1);
                (*have, messages) = (0, messages + 1);
            }
        }
        messages
    }

    /// Serves `many` messages of each connection; nanoseconds of processor time for it.
    fn round(&mut self, many: usize) -> Result<i64, Errno> {
        self.arm();
        self.ring.submit().unwrap();
        for _ in 0..many {
            for connection in &mut self.connections {
                let message = vec![connection.written; connection.message.len()];
                connection.peer.write_all(&message).unwrap();
                connection.written = connection.written.wrapping_add(1);
            }
        }
        let clock = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().num_nanoseconds();
        let started = clock();
        let (mut wanted, mut unsent) = (many * CONNECTIONS, 0);
        while wanted + unsent > 0 {
            self.ring.submit_and_wait(1).unwrap();
            let seen: Vec<_> = self.ring.completion().collect();
            for cqe in seen {
                let (user_data, result) = (cqe.user_data(), cqe.result());
                if user_data >= ANSWER {
                    unsent -= 1;
                    continue;
                }
                let at = usize::try_from(user_data).unwrap();
                if !cqueue::more(cqe.flags()) {
                    self.idle.push_back(at);
                }
                let Ok(bytes) = usize::try_from(result) else {
                    match Errno::from_raw(-result) {
                        Errno::ENOBUFS => self.starved += 1,
                        errno => return Err(errno),
                    }
                    continue;
                };
                let buffer = cqueue::buffer_select(cqe.flags());
                let messages = self.take(at, buffer, bytes);
                if let (Some(provided), Some(id)) = (&mut self.provided, buffer) {
                    provided.give(id);
                }
                wanted -= messages;
                for _ in 0..if self.answers { messages } else { 0 } {
                    let fd = Fd(self.connections[at].end.as_raw_fd());
                    let len = u32::try_from(self.answer.len()).unwrap();
                    let entry = opcode::Send::new(fd, self.answer.as_ptr(), len).build();
                    self.push(entry, ANSWER | user_data);
                    unsent += 1;
                }
            }
            self.arm();
        }
        self.ring.submit().unwrap();
        let spent = clock() - started;
        let mut answer = self.answer.clone();
        for connection in self.connections.iter_mut().filter(|_| self.answers) {
            for _ in 0..many {
                connection.peer.read_exact(&mut answer).unwrap();
            }
        }
        Ok(spent)
    }
}

/// `None`, with the reason printed, where the kernel cannot.
fn serve(way: Way, bytes: usize, many: usize, answers: bool) -> Option<Server> {
    let mut server = Server::new(way, bytes, answers)?;
    for _ in 0..10 {
        match server.round(many) {
            Err(Errno::EINVAL) if way == Way::Many => {
                println!("SKIP: no receive of many shots (Linux 6.0)");
                return None;
            }
            ended => drop(ended.unwrap()),
        }
    }
    Some(server)
}

/// What is saved is ops, and for messages that come together it is what any read ahead saves.
#[test]
fn receive_of_many_shots_needs_no_further_op_and_ends_where_buffers_do() {
    let messages = |many: usize| 10 * many * CONNECTIONS;
    for (way, each) in [(Way::Each, 1), (Way::Ahead, 1), (Way::Many, 0)] {
        let Some(server) = serve(way, 64, 1, true) else { continue };
        // And the answers, and those that wait now.
        assert_eq!(server.ops, messages(1) * (each + 1) + CONNECTIONS, "{way:?}");
    }
    for (way, least) in [(Way::Each, messages(16)), (Way::Ahead, 0), (Way::Many, 0)] {
        let Some(server) = serve(way, 64, 16, false) else { continue };
        let ops = server.ops - CONNECTIONS;
        assert!((least..=least.max(messages(1))).contains(&ops), "{way:?}: {ops}");
    }
    // Four times as much as there are buffers for.
    if let Some(server) = serve(Way::Many, BUFFER_BYTES, 16, false) {
        assert!(server.starved > 0, "it goes on with an op for each time that they ran out");
        assert!(server.ops >= CONNECTIONS + server.starved, "{}", server.ops);
    }
}

/// `taskset -c 0 cargo test -p mfio-engine --lib -- --ignored --nocapture shots_save`
#[test]
#[ignore = "a measurement"]
fn shots_save_this_much_processor_time() {
    // In turns, and each with the caches to itself.
    for (bytes, at_a_time) in [64, 512, 4096].into_iter().flat_map(|at| [(at, 1), (at, 300)]) {
        for (many, answers) in [(1, true), (1, false), (16, false)] {
            let server = |way| Server::new(way, bytes, answers);
            let ways = [Way::Each, Way::Ahead, Way::Many].map(|way| (server(way), Vec::new()));
            let [(Some(each), a), (Some(ahead), b), (Some(shots), c)] = ways else { return };
            let mut ways = [(each, a), (ahead, b), (shots, c)];
            for _ in 0..300 / at_a_time {
                for (server, ns) in &mut ways {
                    for _ in 0..at_a_time {
                        ns.push(server.round(many).unwrap() as f64 / (many * CONNECTIONS) as f64);
                    }
                }
            }
            let [each, ahead, shots] = ways.map(|(_, mut ns)| {
                ns.sort_by(f64::total_cmp);
                ns[ns.len() / 2]
            });
            println!(
                "{bytes:>4} bytes, {many:>2} at once, answered {answers}, {at_a_time:>3} rounds \
                 by turns: ns each {each:.0} \
                 ahead {ahead:.0} ({:.2}) many shots {shots:.0} ({:.2})",
                each / ahead,
                each / shots
            );
        }
    }
}
