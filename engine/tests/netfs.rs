//! A file system across connections of the engine: server and client of `mfio-netfs` over
//! `net`, on both rings, in every host; what is exported is memory, or files of the same shard.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use async_io::Timer;
use mfio_core::backend::integration::{AsyncIo, Tokio};
use mfio_core::{ErrorKind as ByteKind, IoRead, IoWrite};
use mfio_engine::fs::ShardFs;
use mfio_engine::net::{ShardListener, ShardNet, ShardStream};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing};
use mfio_engine::ring::{AutoRing, Wait};
use mfio_engine::{Config as ShardConfig, Shard};
use mfio_netfs::{Carrier, Config, Cut, Event, NetFs, Secret, Server, ServerConfig};
use mfio_rt::conformance::{all, bytes_of, files, get, listed, names, put};
use mfio_rt::virt::VirtFs;
use mfio_rt::{
    DirHandle, ErrorKind, Fs, ListenOptions, ListenerHandle, OpenOptions, StreamHandle, Tcp,
};

const BOTH: OpenOptions = OpenOptions::new().read(true).write(true).create(true);
const RINGS: [Backend; 2] = [Backend::Auto, Backend::Threads];

/// On io_uring, or on threads; on those too where io_uring is forbidden.
fn shard(backend: Backend) -> Shard {
    if backend == Backend::Auto
        && let Err(error) = KernelRing::new(&KernelConfig::new(8))
    {
        println!("SKIP kernel ring: {error}; the thread ring runs the same");
    }
    let ring = AutoRing::new(backend, &AutoConfig::new(32)).unwrap();
    let config = ShardConfig { in_flight_max: 32, backlog_max: 64, ..ShardConfig::new() };
    Shard::with_ring(ring, &config).unwrap()
}

fn here() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// Not on a shard, and needing none: completions come from the thread of the connection.
fn block_on<T>(fs: &NetFs, future: impl Future<Output = T>) -> T {
    mfio_core::block_on(fs, future).unwrap()
}

type Work<'a> = Pin<&'a mut dyn Future<Output = ()>>;
/// What drives a shard for as long as there is work.
type Host = fn(&ShardNet, Work<'_>);

fn by_itself(net: &ShardNet, work: Work<'_>) {
    net.shard().block_on(work).unwrap();
}

fn tokio(net: &ShardNet, work: Work<'_>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async { Tokio::new(net).unwrap().run(work).await.unwrap() });
}

/// The reactor and the executor that smol is made of.
fn smol(net: &ShardNet, work: Work<'_>) {
    async_io::block_on(async { AsyncIo::new(net).unwrap().run(work).await.unwrap() });
}

/// What a server exports.
enum Exported {
    Memory(VirtFs),
    /// The files of a folder, by the ring that carries the connections.
    Files(PathBuf),
}

/// A server with a shard and a thread of its own, which ends when this is dropped.
struct Serving {
    address: SocketAddr,
    stop: Sender<()>,
    /// Why each connection has ended, and how many ops never came back.
    ended: Receiver<(Vec<Cut>, u32)>,
}

impl Serving {
    fn start(backend: Backend, host: Host, exported: Exported, config: ServerConfig) -> Self {
        let (tell, told) = mpsc::channel();
        let ((stop, stopped), (end, ended)) = (mpsc::channel(), mpsc::channel());
        thread::spawn(move || {
            let shard = shard(backend);
            let net = ShardNet::new(&shard).unwrap();
            let cuts = RefCell::new(Vec::new());
            let work = pin!(async {
                let listener = net.bind(here(), &ListenOptions::new()).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let told = |event| {
                    if let Event::Disconnected(_, cut) = event {
                        cuts.borrow_mut().push(cut);
                    }
                };
                let stopped = until_dropped(&stopped);
                match exported {
                    Exported::Memory(fs) => serve(&fs, &listener, config, told, stopped).await,
                    Exported::Files(path) => {
                        let fs = ShardFs::at(&shard, &path).unwrap();
                        serve(&fs, &listener, config, told, stopped).await;
                    }
                }
            });
            host(&net, work);
            let left = shard.shutdown();
            let _nobody_asks = end.send((cuts.take(), left));
        });
        Self { address: told.recv().unwrap(), stop, ended }
    }

    /// Ends the server, connections and all.
    fn stop(self) -> (Vec<Cut>, u32) {
        drop(self.stop);
        self.ended.recv().unwrap()
    }
}

async fn serve<F: Fs>(
    fs: &F,
    listener: &ShardListener,
    config: ServerConfig,
    told: impl Fn(Event),
    stopped: impl Future<Output = ()>,
) {
    let server = Server::new(fs.current_dir(), config).await.unwrap();
    let (mut stopped, mut serving) = (pin!(stopped), pin!(server.serve(listener, told)));
    poll_fn(|cx| match stopped.as_mut().poll(cx) {
        Poll::Ready(()) => Poll::Ready(()),
        Poll::Pending => serving.as_mut().poll(cx).map(drop),
    })
    .await;
}

async fn until_dropped(sender: &Receiver<()>) {
    while sender.try_recv() != Err(TryRecvError::Disconnected) {
        Timer::after(Duration::from_millis(2)).await;
    }
}

/// A client with a shard and a thread of its own, which ends with the last handle or the
/// connection, and tells why.
fn client(
    backend: Backend,
    host: Host,
    address: SocketAddr,
    config: Config,
) -> (NetFs, Receiver<Cut>) {
    let ((tell, told), (end, ended)) = (mpsc::channel(), mpsc::channel());
    thread::spawn(move || {
        let shard = shard(backend);
        let net = ShardNet::new(&shard).unwrap();
        let work = pin!(async {
            let stream = net.connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let (fs, driver) = NetFs::start(stream, config).await.unwrap();
            tell.send(fs).unwrap();
            drop(tell);
            let _nobody_asks = end.send(driver.run().await);
        });
        host(&net, work);
    });
    (told.recv().unwrap(), ended)
}

fn of_memory(backend: Backend, host: Host) -> (NetFs, Serving) {
    let config = ServerConfig::default();
    let serving = Serving::start(backend, host, Exported::Memory(VirtFs::new()), config);
    (client(backend, host, serving.address, Config::default()).0, serving)
}

/// With checksums and a secret.
fn of_files(backend: Backend, host: Host) -> (NetFs, (Serving, tempfile::TempDir)) {
    let temp = folder();
    let secret = Some(Secret::new(*b"sixteen bytes or more"));
    let config = ServerConfig::default().secret(secret.clone());
    let serving = Serving::start(backend, host, Exported::Files(temp.path().into()), config);
    let config = Config::default().secret(secret).checksums(true);
    (client(backend, host, serving.address, config).0, (serving, temp))
}

mod kernel_exporting_memory {
    use super::{Backend, by_itself, of_memory};
    mfio_rt::fs_suite!(of_memory(Backend::Auto, by_itself), super::block_on);
}

mod kernel_exporting_files {
    use super::{Backend, by_itself, of_files};
    mfio_rt::fs_suite!(of_files(Backend::Auto, by_itself), super::block_on);
}

mod kernel_tokio {
    use super::{Backend, of_files, tokio};
    mfio_rt::fs_suite!(of_files(Backend::Auto, tokio), super::block_on);
}

mod kernel_smol {
    use super::{Backend, of_files, smol};
    mfio_rt::fs_suite!(of_files(Backend::Auto, smol), super::block_on);
}

mod threads_exporting_files {
    use super::{Backend, by_itself, of_files};
    mfio_rt::fs_suite!(of_files(Backend::Threads, by_itself), super::block_on);
}

#[test]
fn streams_of_a_shard_are_carriers() {
    fn carries<C: Carrier>() {}
    carries::<ShardStream>();
    carries::<ShardStream<KernelRing>>();
}

/// A server of one connection that is a task of the shard.
async fn served_beside(shard: &Shard, net: &ShardNet, path: &Path) -> SocketAddr {
    let listener = net.bind(here(), &ListenOptions::new()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let fs = ShardFs::at(shard, path).unwrap();
    let task = shard.spawn(async move {
        let server = Server::new(fs.current_dir(), ServerConfig::default()).await.unwrap();
        server.serve(&listener, |_| {}).await;
    });
    // It runs until the shard ends.
    drop(task.unwrap());
    address
}

/// Server, client and program take turns on one thread and one ring, with the disk behind.
#[test]
fn one_shard_is_server_client_and_disk_at_once() {
    for backend in RINGS {
        let (shard, temp) = (shard(backend), folder());
        let net = ShardNet::new(&shard).unwrap();
        let done = shard.block_on(async {
            let address = served_beside(&shard, &net, temp.path()).await;
            let stream = net.connect(address).await.unwrap();
            let (fs, driver) = NetFs::start(stream, Config::default()).await.unwrap();
            let driving = shard.spawn(driver.run()).unwrap();
            names::renaming_replaces_like_by_like(&fs).await;
            files::all_rules_run_side_by_side(&fs).await;
            files::many_transfers_are_under_way_at_once(&fs).await;
            put(fs.current_dir(), "long", bytes_of(7, 9 << 20)).await;
            assert!(get(fs.current_dir(), "long").await == bytes_of(7, 9 << 20));
            drop(fs);
            driving.await.unwrap()
        });
        assert_eq!(done.unwrap(), Cut::Finished);
        assert!(std::fs::read(temp.path().join("long")).unwrap() == bytes_of(7, 9 << 20));
        assert_eq!(shard.shutdown(), 0);
    }
}

#[test]
fn several_clients_of_one_server_see_what_the_others_did() {
    for (server, clients) in [(RINGS[0], RINGS[0]), (RINGS[0], RINGS[1]), (RINGS[1], RINGS[0])] {
        let memory = Exported::Memory(VirtFs::new());
        let serving = Serving::start(server, by_itself, memory, ServerConfig::default());
        let connect = |_| client(clients, by_itself, serving.address, Config::default());
        let connected: Vec<_> = (0..4).map(connect).collect();
        for (number, (fs, _)) in (0_u64..).zip(&connected) {
            block_on(fs, put(fs.current_dir(), format!("{number}"), bytes_of(number, 200_000)));
        }
        for (fs, _) in &connected {
            assert_eq!(block_on(fs, listed(fs.current_dir())), ["0", "1", "2", "3"]);
            for number in 0..4 {
                let found = block_on(fs, get(fs.current_dir(), format!("{number}")));
                assert!(found == bytes_of(number, 200_000));
            }
        }
        for (fs, ended) in connected {
            drop(fs);
            assert_eq!(ended.recv().unwrap(), Cut::Finished);
        }
        let (cuts, left) = serving.stop();
        assert_eq!((cuts.len() <= 4, left), (true, 0));
        assert!(cuts.iter().all(|cut| *cut == Cut::Ended), "{cuts:?}");
    }
}

/// Forwards connections to `to` until they are all shut down at once.
fn forwarding(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<TcpStream>>>) {
    let listener = TcpListener::bind(here()).unwrap();
    let (address, open) = (listener.local_addr().unwrap(), Arc::new(Mutex::new(Vec::new())));
    let kept = Arc::clone(&open);
    thread::spawn(move || {
        let (near, far) = (listener.accept().unwrap().0, TcpStream::connect(to).unwrap());
        let clone = |stream: &TcpStream| stream.try_clone().unwrap();
        kept.lock().unwrap().extend([clone(&near), clone(&far)]);
        for (mut from, mut to) in [(clone(&near), clone(&far)), (far, near)] {
            thread::spawn(move || io::copy(&mut from, &mut to));
        }
    });
    (address, open)
}

const PAGE: usize = 3000;

/// 1000 operations at once, of which `cut` interrupts some: every one has a result, and every
/// page whose write was said to be done is in `found` afterwards, which has none but whole ones.
fn interrupted(fs: &NetFs, cut: impl Fn(), found: impl Fn() -> Vec<u8>) {
    let results = block_on(fs, async {
        let file = &fs.open("file", &BOTH).await.unwrap();
        let cut = &cut;
        let operations = (0..1000_u64).map(|number| -> Pin<Box<dyn Future<Output = bool> + '_>> {
            Box::pin(async move {
                if number == 500 {
                    // Some of those before are over by then, and none of those after is sent.
                    thread::park_timeout(Duration::from_millis(3));
                    cut();
                }
                let at = number * PAGE as u64;
                match number % 4 {
                    0 | 1 => file.write_exact(at, vec![7; PAGE]).await.0.is_ok(),
                    2 => {
                        let (read, error, _) = file.read_some(at, vec![0; PAGE]).await;
                        read == PAGE as u64 && error.is_none()
                    }
                    _ => fs.current_dir().create_dir(format!("d{number}"), 0o755).await.is_ok(),
                }
            })
        });
        let results = all(operations.collect()).await;
        let after = fs.current_dir().create_dir("after", 0o755).await.unwrap_err();
        assert!(matches!(after.kind(), ErrorKind::NotConnected | ErrorKind::ConnectionReset));
        let (after, _) = file.write_exact(0, vec![1; 10]).await;
        assert!(matches!(after.unwrap_err().kind(), ByteKind::Closed | ByteKind::Aborted));
        results
    });
    assert_eq!(results.len(), 1000);
    let done = results.iter().filter(|&&done| done).count();
    println!("{done} of 1000 were done before the cut");
    assert!(done < 1000, "it came too late");
    let found = found();
    for (number, page) in found.chunks(PAGE).enumerate() {
        let whole = page.iter().all(|&byte| byte == 7) && page.len() == PAGE;
        assert!(whole || page.iter().all(|&byte| byte == 0), "page {number} is torn");
        assert!(whole || number % 4 > 1 || !results[number], "page {number} was acknowledged");
    }
}

/// As n03 and n12, with the engine at both ends.
#[test]
fn connection_that_is_cut_under_1000_operations_gives_each_one_result() {
    for backend in RINGS {
        let temp = folder();
        let exported = Exported::Files(temp.path().into());
        let serving = Serving::start(backend, by_itself, exported, ServerConfig::default());
        let (address, open) = forwarding(serving.address);
        let (fs, ended) = client(backend, by_itself, address, Config::default());
        let cut = || {
            for stream in open.lock().unwrap().drain(..) {
                let _already = stream.shutdown(std::net::Shutdown::Both);
            }
        };
        let serving = Cell::new(Some(serving));
        interrupted(&fs, cut, || {
            // Whatever it had received before is done by then.
            let (cuts, left) = serving.take().unwrap().stop();
            assert!(matches!(cuts[..], [] | [Cut::Ended | Cut::Broken(_)]), "{cuts:?}");
            assert_eq!(left, 0);
            std::fs::read(temp.path().join("file")).unwrap()
        });
        let cut = ended.recv().unwrap();
        assert!(matches!(cut, Cut::Ended | Cut::Broken(_)), "{cut:?}");
    }
}

/// The server goes with its shard, in the middle of everything.
#[test]
fn server_whose_shard_ends_cuts_its_clients() {
    for backend in RINGS {
        let temp = folder();
        let exported = Exported::Files(temp.path().into());
        let serving = Serving::start(backend, by_itself, exported, ServerConfig::default());
        let (fs, ended) = client(backend, by_itself, serving.address, Config::default());
        let serving = Cell::new(Some(serving));
        let left = Cell::new(u32::MAX);
        let cut = || left.set(serving.take().unwrap().stop().1);
        interrupted(&fs, cut, || std::fs::read(temp.path().join("file")).unwrap_or_default());
        assert_eq!(left.get(), 0, "everything came back");
        let cut = ended.recv().unwrap();
        assert!(matches!(cut, Cut::Ended | Cut::Broken(_)), "{cut:?}");
    }
}

/// A client that is dropped fails what it has under way, and leaves nothing in the ring.
#[test]
fn dropped_driver_leaves_the_shard_as_it_was() {
    for backend in RINGS {
        let (shard, temp) = (shard(backend), folder());
        let net = ShardNet::new(&shard).unwrap();
        shard
            .block_on(async {
                let address = served_beside(&shard, &net, temp.path()).await;
                for round in 0..5_u64 {
                    let stream = net.connect(address).await.unwrap();
                    let (fs, driver) = NetFs::start(stream, Config::default()).await.unwrap();
                    let driving = shard.spawn(driver.run()).unwrap();
                    put(fs.current_dir(), "file", bytes_of(round, 2 << 20)).await;
                    let file = fs.open("file", &BOTH).await.unwrap();
                    let mut reading = pin!(file.read_exact(0, vec![0; 2 << 20]));
                    poll_fn(|cx| {
                        assert!(reading.as_mut().poll(cx).is_pending());
                        Poll::Ready(())
                    })
                    .await;
                    driving.abort();
                    let error = reading.await.0.unwrap_err();
                    // Sent and not answered, or not even sent.
                    let told = (error.kind(), error.errno());
                    let cut = [(ByteKind::Aborted, Some(104)), (ByteKind::Closed, Some(107))];
                    assert!(cut.contains(&told), "{told:?}");
                    assert!(driving.await.is_err(), "aborted");
                }
            })
            .unwrap();
        // What is left waits for connections that nobody makes any more.
        for _ in 0..200 {
            shard.turn(Wait::NONE).unwrap();
            mfio_core::block_on(&net, Timer::after(Duration::from_millis(2))).unwrap();
            if shard.in_flight() <= 1 {
                break;
            }
        }
        assert!(shard.in_flight() <= 1, "{} ops are left", shard.in_flight());
        assert_eq!(shard.shutdown(), 0);
    }
}
