//! Cases of the failure catalogue on the real kernel: opens that nobody waits for, a request of
//! 3 GiB, threads that leave, devices that shrink, and who may touch a ring at all.
//!
//! Loop devices need root; where there are none, the test says so and names what stands in.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw")]
#![allow(clippy::disallowed_methods, reason = "a test waits for other threads")]

#[path = "../src/target/loop_device.rs"]
mod loop_device;

use std::future::Future;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mfio_core::{AlignedBuf, Packet, PacketIoExt, Read, block_on};
use mfio_engine::ring::auto::Backend;
use mfio_engine::ring::kernel::{KernelConfig, KernelRing, KernelWaker};
use mfio_engine::ring::threads::ThreadRing;
use mfio_engine::ring::{AutoRing, Ring, Wait};
use mfio_engine::{
    Config, DirectMode, Engine, File, IoError, OpenOptions, Remote, RemoteFile, Shard, Shards,
};

use loop_device::Loop;

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn kernel_ring(depth: u32) -> Option<KernelRing> {
    KernelRing::new(&KernelConfig::new(depth))
        .map_err(|error| println!("SKIP kernel ring: {error}; the thread ring runs the same"))
        .ok()
}

fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Descriptors of this process that are open on `path`.
fn descriptors_on(path: &Path) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
    all.filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|on| on == path)).count()
}

/// The one resource that an op of the engine returns is a descriptor, by an open from afar: the
/// ring itself opens nothing, so there is no other op to reclaim from.
#[test]
fn f06_ten_thousand_opens_that_nobody_waits_for_leak_no_descriptor() {
    let directory = scratch();
    let path = directory.path().join("opened").canonicalize();
    let path = path.unwrap_or_else(|_| directory.path().canonicalize().unwrap().join("opened"));
    std::fs::write(&path, [7; 4096]).unwrap();
    let options = OpenOptions::new().lock(false).sync_on_open(false);
    for backend in [Backend::Auto, Backend::Threads] {
        let builder = Engine::builder().shards(Shards::Count(2)).queue_depth(8);
        let engine = builder.backend(backend).build().unwrap();
        let remote = engine.remote();
        let mut opened = 0;
        for number in 0..5_000_u32 {
            let mut open = Box::pin(remote.open(&path, &options));
            match number % 8 {
                // Given up at once, after a look, and while it may be under way.
                0..=3 => drop(open),
                4 | 5 => drop(poll_once(open.as_mut())),
                6 => {
                    std::thread::yield_now();
                    drop(poll_once(open.as_mut()));
                }
                _ => {
                    let file = block_on(&remote, open).unwrap().unwrap();
                    opened += 1;
                    // Given up as well: a read of a file whose handle goes too.
                    let mut read =
                        Box::pin(async move { file.read_exact_at(0, vec![0; 64]).await.0 });
                    let _looked = poll_once(read.as_mut());
                }
            }
        }
        assert_eq!(opened, 625);
        let left = (0..1000).find_map(|_| {
            let left = descriptors_on(&path);
            if left > 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            (left == 0).then_some(left)
        });
        assert_eq!(left, Some(0), "{} descriptors stay open", descriptors_on(&path));
        assert!(engine.shutdown().is_clean());
    }
}

fn memory_available_bytes() -> u64 {
    let told = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = told.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn f09_sparse_file_of_three_gibibytes_is_read_whole_in_one_packet() {
    use std::os::unix::fs::FileExt;

    const LEN: u64 = (3 << 30) + 4096;
    if memory_available_bytes() < 2 * LEN {
        return println!("SKIP: needs 6 GiB of free memory; `plan` cuts such a packet the same");
    }
    let directory = scratch();
    let path = directory.path().join("sparse");
    let sparse = std::fs::File::create(&path).unwrap();
    sparse.set_len(LEN).unwrap();
    // Before, at and behind each length at which a counter wraps or the kernel clips.
    let marks = [0, 0x7fff_f000 - 1, 0x7fff_f000, (1 << 31) - 1, 1 << 31, (3 << 30) - 1, LEN - 1];
    for at in marks {
        sparse.write_all_at(&[0x77], at).unwrap();
    }
    sparse.sync_all().unwrap();
    let Some(ring) = kernel_ring(8) else { return };
    let shard = Shard::with_ring(ring, &Config::new()).unwrap();
    let options = OpenOptions::new().direct(DirectMode::PreferDirect);
    let file = shard.open(&path, &options).unwrap();
    let buffer = AlignedBuf::new(usize::try_from(LEN).unwrap(), 4096);
    let (result, buffer) = block_on(&shard, file.read_exact_at(0, buffer)).unwrap();
    result.unwrap();
    let found = |at: u64| buffer[usize::try_from(at).unwrap()];
    assert!(marks.into_iter().all(|at| found(at) == 0x77));
    let total: usize = buffer.iter().map(|&byte| usize::from(byte == 0x77)).sum();
    assert_eq!((buffer.len() as u64, total), (LEN, marks.len()));
    assert!(shard.metrics().ops > LEN >> 31, "it took more than one op");
}

/// Who may send a value to another thread, and who may share it.
struct Probe<T>(PhantomData<T>);

trait Neither {
    const SENT: bool = false;
    const SHARED: bool = false;
}

impl<T> Neither for Probe<T> {}

impl<T: Send> Probe<T> {
    const SENT: bool = true;
}

impl<T: Sync> Probe<T> {
    const SHARED: bool = true;
}

/// (May go to another thread, may be shared with one) of a type that has no parameters left.
macro_rules! threads_of {
    ($($type:ty),* $(,)?) => { [$((Probe::<$type>::SENT, Probe::<$type>::SHARED)),*] };
}

#[test]
fn f24_ring_shard_and_file_stay_on_the_thread_that_made_them() {
    let theirs = threads_of![
        KernelRing,
        AutoRing,
        Shard<KernelRing>,
        Shard<ThreadRing>,
        Shard,
        File<KernelRing>,
        File<ThreadRing>,
        File,
    ];
    assert!(theirs.iter().all(|(sent, _)| !sent), "{theirs:?}");
    // What is for other threads does go there: the probe can tell.
    assert_eq!(threads_of![Remote, RemoteFile, KernelWaker], [(true, true); 3]);
}

/// Two waiters on one ring starve each other. `Ring::enter` takes the ring exclusively, and
/// nothing that contains a ring can be shared, so there is one waiter by type.
#[test]
fn f29_nothing_that_waits_on_a_ring_can_be_shared() {
    let shared =
        threads_of![KernelRing, AutoRing, Shard<KernelRing>, Shard, File<KernelRing>, File];
    assert!(shared.iter().all(|(_, shared)| !shared), "{shared:?}");
    assert_eq!(threads_of![Remote, RemoteFile], [(true, true); 2]);
    let _exclusively: fn(&mut KernelRing, Wait) -> Result<u32, nix::errno::Errno> = Ring::enter;
}

#[test]
fn f25_ops_of_threads_that_have_gone_complete() {
    let directory = scratch();
    for backend in [Backend::Auto, Backend::Threads] {
        let builder = Engine::builder().shards(Shards::Count(2)).queue_depth(8);
        let engine = builder.backend(backend).build().unwrap();
        let remote = engine.remote();
        let path = directory.path().join(format!("{backend:?}"));
        let options = OpenOptions::new().write(true).create(true);
        let file = block_on(&remote, remote.open(&path, &options)).unwrap().unwrap();
        let started: Vec<_> = (0..32_u8)
            .map(|number| {
                let file = file.clone();
                // The thread that sends it is gone before anybody looks at what became of it.
                let sending = std::thread::spawn(move || {
                    let mut write = Box::pin(async move {
                        file.write_durable_at(u64::from(number) * 4096, vec![number; 4096]).await.0
                    });
                    let early = poll_once(write.as_mut());
                    (early, write)
                });
                sending.join().unwrap()
            })
            .collect();
        for (early, write) in started {
            match early {
                Poll::Ready(result) => result.unwrap(),
                Poll::Pending => block_on(&remote, write).unwrap().unwrap(),
            }
        }
        let written = std::fs::read(&path).unwrap();
        for (number, page) in (0_u8..).zip(written.chunks(4096)) {
            assert!(page.iter().all(|&byte| byte == number));
        }
        assert!(engine.shutdown().is_clean());
    }
}

/// On a tmpfs every op is handed to a kernel worker, whose completion a ring with
/// `DEFER_TASKRUN` shows only to an `enter` that asks for it.
#[test]
fn f27_no_op_on_an_idle_device_is_older_than_a_second() {
    let Ok(mut file) = tempfile::NamedTempFile::new_in("/dev/shm") else {
        return println!("SKIP: no tmpfs; `f27_completion_of_a_worker_…` waits for a worker too");
    };
    std::io::Write::write_all(&mut file, &[5; 64 << 10]).unwrap();
    let mut oldest_ns = u64::MAX;
    // A machine that is busy may make one op wait, not all three times.
    for _ in 0..3 {
        let Some(ring) = kernel_ring(16) else { return };
        let shard = Shard::with_ring(ring, &Config::new()).unwrap();
        let target = shard.open(file.path(), &OpenOptions::new()).unwrap();
        let mut oldest_here_ns = 0;
        for round in 0..300_u64 {
            let started_ns = shard.now_ns();
            let mut reads: Vec<_> = (0..8)
                .map(|at| Box::pin(target.read_exact_at((round + at) % 16 * 4096, vec![0; 4096])))
                .collect();
            while !reads.is_empty() {
                reads.retain_mut(|read| poll_once(read.as_mut()).is_pending());
                // Looking without waiting must show them as well as waiting does.
                let wait = if round % 2 == 0 { Wait::NONE } else { Wait::at_least(1) };
                let left = !reads.is_empty();
                left.then(|| shard.turn(wait).unwrap());
                assert!(shard.now_ns() - started_ns < 20_000_000_000, "round {round} hangs");
            }
            oldest_here_ns = oldest_here_ns.max(shard.now_ns() - started_ns);
        }
        oldest_ns = oldest_ns.min(oldest_here_ns);
        println!("the oldest took {} us", oldest_here_ns / 1000);
        if oldest_ns < 1_000_000_000 {
            return;
        }
    }
    panic!("an op took {oldest_ns} ns");
}

/// A loop device over a file that can be made shorter.
struct Device {
    device: Loop,
    backing: PathBuf,
}

const DEVICE_BYTES: u64 = 8 << 20;

impl Device {
    /// Each sector holds its number, modulo 251. `None`, with the reason printed, without root.
    fn new(directory: &Path) -> Option<Self> {
        let backing = directory.join("backing");
        let bytes: Vec<u8> = (0..DEVICE_BYTES).map(byte_at).collect();
        std::fs::write(&backing, bytes).unwrap();
        // Past its own page cache, so that what is behind the end of the backing is an error,
        // and not zeros.
        let device = Loop::over(&backing, &["--direct-io=on"]);
        if device.is_none() {
            println!("SKIP: a loop device takes root; tests/media.rs damages a simulated one");
        }
        Some(Self { device: device?, backing })
    }

    /// What the device still has is the first `len_bytes`.
    fn shrink(&self, len_bytes: u64) {
        let file = std::fs::OpenOptions::new().write(true).open(&self.backing).unwrap();
        file.set_len(len_bytes).unwrap();
    }

    /// The device itself notices.
    fn notice(&self) {
        let path = self.device.path();
        let noticed = Command::new("losetup").arg("--set-capacity").arg(path).status();
        assert!(noticed.unwrap().success());
    }

    fn open<R: Ring>(&self, ring: R, config: &Config) -> (Shard<R>, File<R>) {
        let shard = Shard::with_ring(ring, config).unwrap();
        let options = OpenOptions::new().direct(DirectMode::Direct).sync_on_open(false);
        let file = shard.open(self.device.path(), &options).unwrap();
        (shard, file)
    }
}

fn byte_at(at: u64) -> u8 {
    u8::try_from(at / 512 % 251).unwrap()
}

type Ended = (Result<(), IoError>, AlignedBuf);
type Reading<'a> = Pin<Box<dyn Future<Output = Ended> + 'a>>;

fn reading<'a, R: Ring>(file: &'a File<R>, at: u64, len: usize) -> Reading<'a> {
    Box::pin(file.read_exact_at(at, AlignedBuf::new(len, 4096)))
}

/// Drives all of them to their ends, in their order; at most `limit_ns` each turn of events.
fn finish<R: Ring>(shard: &Shard<R>, reads: Vec<Reading<'_>>) -> Vec<Ended> {
    let started_ns = shard.now_ns();
    let mut reads: Vec<_> = reads.into_iter().map(|read| (read, None)).collect();
    loop {
        for (read, ended) in &mut reads {
            if ended.is_none()
                && let Poll::Ready(result) = poll_once(read.as_mut())
            {
                *ended = Some(result);
            }
        }
        if reads.iter().all(|(_, ended)| ended.is_some()) {
            return reads.into_iter().filter_map(|(_, ended)| ended).collect();
        }
        let deadline_ns = Some(shard.now_ns() + 100_000_000);
        shard.turn(Wait { min: 1, deadline_ns }).unwrap();
        assert!(shard.now_ns() - started_ns < 20_000_000_000, "an op never completes");
    }
}

/// Half of a batch lies where the device has nothing left.
fn bad_half_fails_alone<R: Ring>(ring: R, device: &Device, edge: u64) {
    const LEN: usize = 64 << 10;
    let (shard, file) = device.open(ring, &Config::new());
    let places: Vec<u64> = (0..64).map(|at| at * (DEVICE_BYTES / 64)).collect();
    let reads = places.iter().map(|&at| reading(&file, at, LEN)).collect();
    let (mut good, mut bad) = (0, 0);
    for (at, (result, buffer)) in places.into_iter().zip(finish(&shard, reads)) {
        if at + LEN as u64 <= edge {
            result.unwrap();
            let whole = (at..).zip(buffer.iter()).all(|(at, &byte)| byte == byte_at(at));
            assert!(whole, "a neighbour's bytes at {at}");
            good += 1;
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.error.errno(), Some(nix::errno::Errno::EIO as i32), "{error}");
            bad += 1;
        }
    }
    assert_eq!((good, bad), (32, 32));
    // One read across the edge keeps what is there, to the last sector of it.
    let packet = Packet::<Read, _>::new(AlignedBuf::new(1 << 20, 4096));
    let start = edge - (1 << 19);
    let done = block_on(&shard, file.io(start, packet)).unwrap();
    let failed = done.failed_ranges();
    let first = failed.iter().map(|range| range.start).min().unwrap();
    let missing: u64 = failed.iter().map(|range| range.end - range.start).sum();
    assert_eq!((first, missing), (1 << 19, 1 << 19), "{failed:?}");
    assert_eq!(shard.shutdown(), 0);
}

#[test]
fn f43_bad_half_of_a_device_fails_alone_and_sector_by_sector() {
    let directory = scratch();
    let Some(device) = Device::new(directory.path()) else { return };
    let edge = DEVICE_BYTES / 2;
    device.shrink(edge);
    let (shard, file) = device.open(ThreadRing::new(1, 4).unwrap(), &Config::new());
    let (beyond, _) = block_on(&shard, reading(&file, edge, 4096)).unwrap();
    if beyond.is_ok() {
        return println!("SKIP: this loop driver reads zeros there; tests/media.rs has real EIO");
    }
    drop((file, shard));
    bad_half_fails_alone(ThreadRing::new(4, 64).unwrap(), &device, edge);
    if let Some(ring) = kernel_ring(64) {
        bad_half_fails_alone(ring, &device, edge);
    }
}

/// The device loses everything under load, of which it is told or not, and the shard ends.
/// Returns how long that took, in nanoseconds.
fn shrinks_under_load<R: Ring>(ring: R, directory: &Path, notices: bool) -> Option<u64> {
    let device = Device::new(directory)?;
    let config = Config { in_flight_max: 64, ..Config::new() };
    let (shard, file) = device.open(ring, &config);
    let (mut whole, mut failed) = (0, 0);
    for round in 0..24_u64 {
        let at = |number: u64| (number * 37 + round) % 128 * (64 << 10);
        let mut reads: Vec<_> =
            (0..48).map(|number| reading(&file, at(number), 64 << 10)).collect();
        for read in &mut reads {
            assert!(poll_once(read.as_mut()).is_pending());
        }
        // In flight while it happens.
        shard.turn(Wait::NONE).unwrap();
        match round {
            8 => device.shrink(0),
            16 if notices => device.notice(),
            _ => {}
        }
        for (result, _) in finish(&shard, reads) {
            whole += u32::from(result.is_ok());
            failed += u32::from(result.is_err());
        }
    }
    println!("{whole} reads whole, {failed} failed, none is missing");
    assert!(whole >= 8 * 48 && failed >= 15 * 48, "{whole} {failed}");
    // Leaving with reads under way: drained, not quarantined, and in time.
    let mut abandoned: Vec<_> = (0..48).map(|n| reading(&file, n << 16, 64 << 10)).collect();
    for read in &mut abandoned {
        assert!(poll_once(read.as_mut()).is_pending());
    }
    shard.turn(Wait::NONE).unwrap();
    let (started_ns, in_flight) = (shard.now_ns(), shard.in_flight());
    drop(abandoned);
    assert_eq!(shard.shutdown(), 0, "everything came back");
    let took_ns = shard.now_ns() - started_ns;
    println!("{in_flight} in flight, drained in {} us", took_ns / 1000);
    Some(took_ns)
}

#[test]
fn f47_device_that_shrinks_under_load_answers_every_op_and_drains() {
    const DRAIN_NS_MAX: u64 = 5_000_000_000;
    let directory = scratch();
    for notices in [false, true] {
        let threads = ThreadRing::new(4, 64).unwrap();
        let Some(took_ns) = shrinks_under_load(threads, directory.path(), notices) else { return };
        assert!(took_ns < DRAIN_NS_MAX, "{took_ns} ns");
        let Some(ring) = kernel_ring(64) else { continue };
        let took_ns = shrinks_under_load(ring, directory.path(), notices);
        assert!(took_ns.is_some_and(|took_ns| took_ns < DRAIN_NS_MAX), "{took_ns:?}");
    }
}
