//! The client: an [`Fs`] whose files are at a server.
//!
//! Data flow: packet or operation on a handle → queue → [`Driver`] → connection → the same,
//! answered. The driver is a future; the thread that serves the connection runs it, one of its
//! own, or the caller's executor. Handles need no driving: they can be used in every executor,
//! and blocked on. Of those who block on one that came of [`NetFs::connect`], the first serves
//! the connection meanwhile, so that an answer wakes no other thread. Where that thread computes
//! between two waits, what arrives stays in the kernel's buffers, for 10 ms at most; whoever wants
//! it received at the same time awaits in an executor of another kind.
//!
//! When the connection is cut, everything under way on it fails, once, with `ECONNRESET`. With
//! a way to reconnect, what was not sent yet waits for the next connection; files and
//! directories that were open fail with `ESTALE` there, and are opened anew.
//!
//! A waker, an output or an owner of bytes that panics is its caller's matter: the panic hook
//! reports it, a packet that it leaves unfinished is aborted, and the connection goes on.
//!
//! Not here: what is sent (`wire`), the other end (`server`).

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::future::Future;
use core::net::SocketAddr;
use core::pin::Pin;
use core::time::Duration;

use async_io::Timer;
use mfio_core::{BackendBusy, BackendHandle, IoBackend};
use mfio_rt::portable::{Portable, PortableStream};
use mfio_rt::{Error, ErrorKind, Fs, Op, StreamHandle, Tcp};

use crate::auth::Secret;
use crate::carrier::{Carrier, Cut, within};

mod calls;
mod dir;
mod file;
mod locked;
mod locks;
mod pending;
mod session;
mod shared;

pub use dir::{NetDir, NetEntries};
pub use file::NetFile;

use session::Agreed;
use shared::{Opened, Phase, Shared, User};

/// How to connect.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// What the server knows too. Without one, a server that wants it is refused, and the
    /// other way round.
    pub secret: Option<Secret>,
    /// Every frame has a CRC-32C, where the server agrees.
    pub checksums: bool,
    /// A server that says nothing for this long, although asked, is taken for dead. Bytes that
    /// come or go are signs of life, however long the frame is that they belong to; bytes that
    /// wait in the system's own buffers are none.
    pub silence_max: Duration,
    /// How often a new connection is tried after one was cut; 0 never. Each attempt waits
    /// twice as long as the one before, from 50 ms on.
    pub reconnects_max: u32,
}

impl Default for Config {
    /// No secret, no checksums, 30 s of silence, 8 attempts.
    fn default() -> Self {
        Self {
            secret: None,
            checksums: false,
            silence_max: Duration::from_secs(30),
            reconnects_max: 8,
        }
    }
}

impl Config {
    /// Sets [`Config::secret`](field@Self::secret).
    #[must_use]
    pub fn secret(mut self, secret: Option<Secret>) -> Self {
        self.secret = secret;
        self
    }

    /// Sets [`Config::checksums`](field@Self::checksums).
    #[must_use]
    pub const fn checksums(mut self, checksums: bool) -> Self {
        self.checksums = checksums;
        self
    }

    /// Sets [`Config::silence_max`](field@Self::silence_max).
    #[must_use]
    pub const fn silence_max(mut self, silence_max: Duration) -> Self {
        self.silence_max = silence_max;
        self
    }

    /// Sets [`Config::reconnects_max`](field@Self::reconnects_max).
    #[must_use]
    pub const fn reconnects_max(mut self, reconnects_max: u32) -> Self {
        self.reconnects_max = reconnects_max;
        self
    }
}

/// A way to a new connection.
type Connect<C> = Box<dyn FnMut() -> Connecting<C> + Send>;
type Connecting<C> = Pin<Box<dyn Future<Output = Result<C, Error>> + Send>>;

/// Who serves the carrier of a driver.
trait Hosting<C> {
    async fn host<F: Future>(carrier: &C, work: F) -> F::Output;
}

/// Whoever did before.
struct Elsewhere;

impl<C> Hosting<C> for Elsewhere {
    async fn host<F: Future>(_carrier: &C, work: F) -> F::Output {
        work.await
    }
}

/// The driver's own task.
struct Here;

impl<C: StreamHandle> Hosting<C> for Here {
    async fn host<F: Future>(carrier: &C, work: F) -> F::Output {
        carrier.hosting(work).await
    }
}

/// What makes a connection work: run it until it returns why the connection has ended.
///
/// Dropped, it cuts the connection.
#[must_use = "nothing is sent or received unless it runs"]
pub struct Driver<C> {
    shared: Arc<Shared>,
    carrier: Option<C>,
    agreed: Agreed,
    config: Config,
    connect: Option<Connect<C>>,
}

impl<C: Carrier> Driver<C> {
    /// Carries requests and replies, reconnecting where it can, until all handles are gone and
    /// everything is answered ([`Cut::Finished`]) or there is no connection any more.
    ///
    /// # Cancel safety
    /// Dropping it cuts the connection: what is under way fails with `ECONNRESET`.
    pub async fn run(self) -> Cut {
        self.run_hosted::<Elsewhere>().await
    }

    async fn run_hosted<H: Hosting<C>>(mut self) -> Cut {
        loop {
            let Some(carrier) = self.carrier.take() else { return Cut::Ended };
            let silence_max = self.config.silence_max;
            let work = session::run(&self.shared, &carrier, self.agreed, silence_max);
            let cut = H::host(&carrier, work).await;
            drop(carrier);
            let phase = if self.connect.is_some() { Phase::Between } else { Phase::Down };
            locked::call(|| self.shared.cut(phase));
            let fatal = matches!(cut, Cut::Finished | Cut::Wire(_) | Cut::Secret);
            if fatal || !self.reconnect().await {
                locked::call(|| self.shared.cut(Phase::Down));
                return cut;
            }
        }
    }

    /// Tries for a new connection; whether there is one.
    async fn reconnect(&mut self) -> bool {
        let Some(connect) = &mut self.connect else { return false };
        let mut pause = Duration::from_millis(50);
        for _ in 0..self.config.reconnects_max {
            if self.shared.lock().is_unused() {
                return false;
            }
            if let Ok(carrier) = connect().await
                && let Ok((carrier, agreed)) = greeted(carrier, &self.config).await
            {
                self.shared.up(agreed.limits);
                (self.carrier, self.agreed) = (Some(carrier), agreed);
                return true;
            }
            Timer::after(pause).await;
            pause *= 2;
        }
        false
    }
}

impl<C> Drop for Driver<C> {
    fn drop(&mut self) {
        self.shared.cut(Phase::Down);
    }
}

impl<C> fmt::Debug for Driver<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

/// Says hello on a new connection, within the time that silence may take.
async fn greeted<C: Carrier>(carrier: C, config: &Config) -> Result<(C, Agreed), Cut> {
    let agreed = within(config.silence_max, session::greet(&carrier, config)).await;
    Ok((carrier, agreed.ok_or(Cut::Silent)??))
}

fn refused(cut: Cut) -> Error {
    let kind = match cut {
        Cut::Secret | Cut::Goodbye(crate::wire::Reason::Secret) => ErrorKind::PermissionDenied,
        Cut::Goodbye(crate::wire::Reason::Crowded) => ErrorKind::Busy,
        Cut::Silent => ErrorKind::TimedOut,
        Cut::Wire(_) => ErrorKind::Unsupported,
        _ => ErrorKind::ConnectionReset,
    };
    Error::new(Op::Connect, kind)
}

/// A file system at a server; clones share the connection. See the [module](self).
#[derive(Clone)]
pub struct NetFs {
    root: NetDir,
}

impl NetFs {
    /// Says hello over `carrier`, and returns the file system and what must run for it to
    /// work. For executors of your own; [`NetFs::over`] has a thread for it.
    ///
    /// # Errors
    /// `PermissionDenied` where the secrets differ, `Busy` where the server has too many
    /// connections, `Unsupported` where it does not speak this version of the protocol,
    /// `TimedOut`, `ConnectionReset`.
    ///
    /// # Cancel safety
    /// The carrier is dropped.
    pub async fn start<C: Carrier>(carrier: C, config: Config) -> Result<(Self, Driver<C>), Error> {
        Self::start_beside(None, carrier, config).await
    }

    /// As `start`, where `net` serves `carrier` and runs the driver.
    async fn start_beside<C: Carrier>(
        net: Option<Portable>,
        carrier: C,
        config: Config,
    ) -> Result<(Self, Driver<C>), Error> {
        let (carrier, agreed) = greeted(carrier, &config).await.map_err(refused)?;
        let shared = Arc::new(Shared::new(agreed.limits));
        let user = Arc::new(User { shared: Arc::clone(&shared), net });
        let root = NetDir(Arc::new(Opened { number: 0, epoch: None, user }));
        let driver = Driver { shared, carrier: Some(carrier), agreed, config, connect: None };
        Ok((Self { root }, driver))
    }

    /// As [`NetFs::start`], with a thread that runs it. There is no way to reconnect.
    ///
    /// # Errors
    /// As [`NetFs::start`], and those of starting a thread.
    pub fn over<C>(carrier: C, config: Config) -> Result<Self, Error>
    where
        C: Carrier + Send + Sync + 'static,
    {
        let (fs, driver) = async_io::block_on(Self::start(carrier, config))?;
        spawn(driver.run())?;
        Ok(fs)
    }

    /// Connects by TCP to a server, with a runtime for the connection, and reconnects when it
    /// is cut.
    ///
    /// # Errors
    /// As [`NetFs::over`], `ConnectionRefused`, `Unreachable`.
    pub fn connect(address: SocketAddr, config: Config) -> Result<Self, Error> {
        let net = Portable::new()?;
        let mut dial = dialing(net.clone(), address);
        let (fs, mut driver) = async_io::block_on(async {
            let carrier = dial().await?;
            Self::start_beside(Some(net.clone()), carrier, config).await
        })?;
        driver.connect = Some(dial);
        net.spawn(async move {
            // Whoever waited has been told.
            let _cut = driver.run_hosted::<Here>().await;
        });
        Ok(fs)
    }
}

fn dialing(net: Portable, address: SocketAddr) -> Connect<PortableStream> {
    Box::new(move || {
        let net = net.clone();
        Box::pin(async move {
            let stream = net.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    })
}

fn spawn(work: impl Future<Output = Cut> + Send + 'static) -> Result<(), Error> {
    let thread = std::thread::Builder::new().name(String::from("mfio-netfs"));
    let spawned = thread.spawn(move || async_io::block_on(work));
    let failed = |error: std::io::Error| {
        let errno = error.raw_os_error().unwrap_or(0);
        Error::new(Op::Start, ErrorKind::Os).with_errno(errno)
    };
    spawned.map(drop).map_err(failed)
}

impl Fs for NetFs {
    type Dir = NetDir;
    type File = NetFile;

    fn current_dir(&self) -> &NetDir {
        &self.root
    }
}

/// Completions come from whoever runs the driver.
impl IoBackend for NetFs {
    fn get_backend(&self) -> Result<Option<BackendHandle<'_>>, BackendBusy> {
        self.root.get_backend()
    }
}

impl fmt::Debug for NetFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetFs")
    }
}
