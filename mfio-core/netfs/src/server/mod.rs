//! The server: one directory of any file system, for whoever knows the secret.
//!
//! Data flow: listener → a session for each connection → operations on the directory → replies.
//! No path leads out of the directory: it is [confined](mfio_rt::DirHandle::confined), and so is
//! all that is opened in it.
//!
//! Connections share nothing but the file system: each has its own window of requests and
//! bytes, waits for its own peer alone, and ends alone when that peer breaks the rules.
//!
//! Not here: what is asked (`wire`), who listens where (the program).

use alloc::boxed::Box;
use alloc::string::String;
use core::cell::RefCell;
use core::fmt;
use core::future::{Future, poll_fn};
use core::net::SocketAddr;
use core::pin::Pin;
use core::time::Duration;

use async_io::Timer;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use mfio_rt::{DirHandle, Error, ListenerHandle, StreamHandle};

use crate::auth::Secret;
use crate::carrier::{Carrier, Cut, within};

mod accept;
mod answer;
mod door;
mod gate;
mod handles;
mod reads;
mod session;

use accept::Patience;
use door::{Door, Greetings};
use gate::Attendance;
use handles::Places;
use session::Session;

/// Limits of a server. They are per connection, where nothing else is said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServerConfig {
    /// What clients must know. Without one, everybody who can connect is served.
    pub secret: Option<Secret>,
    /// Connections at the same time that have proved that they know the secret; more are told
    /// to try later.
    pub connections_max: usize,
    /// Connections that have yet to prove it. They count apart, so that who does not know the
    /// secret keeps nobody out who does; where there are more, the oldest of them is cut.
    pub greetings_max: usize,
    /// Requests without their last reply.
    pub requests_max: u32,
    /// Bytes of data in memory.
    pub bytes_max: u64,
    /// Open files, directories and listings.
    pub handles_max: usize,
    /// Those of all connections together. Each may always have its share of one half; the other
    /// half is for whoever comes first. Where the exported file system opens a file for each,
    /// keep it below what the process may open, with room for the connections themselves.
    pub handles_all_max: usize,
    /// A peer from which no byte comes, and that takes none, for this long is cut off.
    pub idle_max: Duration,
    /// How long a hello may take.
    pub greeting_max: Duration,
}

impl Default for ServerConfig {
    /// No secret; 64 connections of 256 requests, 16 MiB and 4096 handles, 65,536 together; 64
    /// that say hello, for 10 s at most; 60 s idle.
    fn default() -> Self {
        Self {
            secret: None,
            connections_max: 64,
            greetings_max: 64,
            requests_max: 256,
            bytes_max: 16 << 20,
            handles_max: 4096,
            handles_all_max: 65_536,
            idle_max: Duration::from_secs(60),
            greeting_max: Duration::from_secs(10),
        }
    }
}

/// The setters differ only in the field.
macro_rules! setters {
    ($($field:ident: $ty:ty)*) => {
        $(
            #[doc = concat!("Sets [`ServerConfig::", stringify!($field), "`](field@Self::",
                stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $ty) -> Self {
                self.$field = $field;
                self
            }
        )*
    };
}

impl ServerConfig {
    setters! {
        secret: Option<Secret> connections_max: usize greetings_max: usize requests_max: u32
        bytes_max: u64 handles_max: usize handles_all_max: usize idle_max: Duration
        greeting_max: Duration
    }
}

/// What a server tells of its connections.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// One has begun.
    Connected(SocketAddr),
    /// One has ended, and why.
    Disconnected(SocketAddr, Cut),
    /// One could not be taken; the server goes on. While nothing but the same happens again,
    /// it is told once in some ten seconds.
    Refused(Error),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected(from) => write!(f, "{from}: connected"),
            Self::Disconnected(from, cut) => write!(f, "{from}: {cut}"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// Serves one directory.
pub struct Server<D> {
    root: D,
    config: ServerConfig,
    door: Door,
    places: Places,
}

impl<D: DirHandle> Server<D> {
    /// Exports `dir`, and nothing outside it.
    ///
    /// # Errors
    /// `Unsupported` where the file system cannot confine a directory.
    ///
    /// # Cancel safety
    /// Nothing is exported.
    pub async fn new(dir: &D, config: ServerConfig) -> Result<Self, Error> {
        let places = Places::new(config.handles_all_max, config.connections_max);
        Ok(Self { root: dir.confined().await?, config, door: Door::default(), places })
    }

    /// Serves one connection until it ends; why it did. How many there are is the caller's
    /// affair: [`ServerConfig::connections_max`](field@ServerConfig::connections_max) is for
    /// [`Server::serve`], which counts this one, too.
    ///
    /// # Cancel safety
    /// The connection is cut. What was started is finished or not, as the file system says.
    pub async fn serve_connection<C: Carrier>(&self, carrier: C) -> Cut {
        self.serve_or_refuse(&carrier, &Greetings::default(), usize::MAX).await
    }

    async fn serve_or_refuse<C: Carrier>(
        &self,
        carrier: &C,
        greetings: &Greetings,
        places: usize,
    ) -> Cut {
        let greeting = greetings.begin(self.config.greetings_max);
        let admit = || {
            greeting.over();
            self.door.enter(places)
        };
        let greet = greeting.unless_cut(door::greet(carrier, &self.config, admit));
        let (checked, _place) = match within(self.config.greeting_max, greet).await {
            Some(Ok(admitted)) => admitted,
            Some(Err(cut)) => return cut,
            None => return Cut::Silent,
        };
        drop(greeting);
        let Ok(root) = self.root.confined().await else { return Cut::Ended };
        Session::new(root, &self.config, &self.places).run(carrier, checked).await
    }

    /// Serves all who connect, until the future is dropped, or nobody can connect any more: then
    /// why, which is `BadHandle`, `InvalidInput` or `Closed`.
    ///
    /// Other errors of the listener do not end it. After a connection that was gone again the
    /// next one is taken at once; where there are too many open files, or too little memory, it
    /// is tried again after 5 ms, and then after twice as long each time, up to a second.
    ///
    /// # Cancel safety
    /// All connections are cut.
    pub async fn serve<L: ListenerHandle>(&self, listener: &L, told: impl Fn(Event)) -> Error {
        type Connection<'a> = Pin<Box<dyn Future<Output = (SocketAddr, Cut)> + 'a>>;
        let greetings = Greetings::default();
        let mut connections: FuturesUnordered<Connection<'_>> = FuturesUnordered::new();
        let patience = RefCell::new(Patience::default());
        // What keeps it from accepting may last, and must not keep it busy.
        let accept = async || loop {
            let error = match listener.accept().await {
                Ok(accepted) => {
                    patience.borrow_mut().renew();
                    return Ok(accepted);
                }
                Err(error) => error,
            };
            let pause = patience.borrow_mut().after(&error);
            let Some(pause) = pause else { return Err(error) };
            if patience.borrow_mut().tells(&error, pause) {
                told(Event::Refused(error));
            }
            if !pause.is_zero() {
                Timer::after(pause).await;
            }
        };
        // One at a time, and asked only when it has woken: not whenever a connection has.
        let mut accepting = FuturesUnordered::new();
        let attendance = Attendance::new();
        loop {
            if accepting.is_empty() {
                accepting.push(accept());
            }
            let accepted = poll_fn(|cx| {
                attendance.poll(cx, &mut connections, |(from, cut)| {
                    told(Event::Disconnected(from, cut));
                });
                accepting.poll_next_unpin(cx)
            })
            .await;
            let (stream, from) = match accepted {
                Some(Ok(accepted)) => accepted,
                Some(Err(error)) => return error,
                None => continue,
            };
            told(Event::Connected(from));
            // A stream that refuses is merely slower.
            let _slower = stream.set_nodelay(true);
            let (greetings, places) = (&greetings, self.config.connections_max);
            connections.push(Box::pin(async move {
                let serving = self.serve_or_refuse(&stream, greetings, places);
                (from, stream.hosting(serving).await)
            }));
        }
    }
}

impl<D> fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A future of a session.
type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Reads a secret as it stands in a file: without white space at its ends.
///
/// # Errors
/// A line for the operator, where it is shorter than 16 bytes.
pub fn secret_of_file(bytes: &[u8]) -> Result<Secret, String> {
    let secret = bytes.trim_ascii();
    if secret.len() < 16 {
        return Err(String::from(
            "the secret is shorter than 16 bytes: make one with `openssl rand -hex 32`",
        ));
    }
    Ok(Secret::new(secret))
}
