//! A kernel that forbids io_uring by its sysctl: everybody (2), or whoever has no privilege (1).

use std::path::{Path, PathBuf};
use std::process::Command;

use mfio_core::conformance::{Shape, check_shaped};
use mfio_core::{IoWrite, block_on};
use mfio_engine::ring::auto::{AutoConfig, AutoError, AutoRing, Backend};
use mfio_engine::ring::kernel::{KernelConfig, KernelRing, RingError};
use mfio_engine::ring::{Ring, RingKind};
use mfio_engine::{Config, Engine, File, OpenOptions, Shard, Shards};

use crate::device::{Guest, page};

const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";
/// Set in the child: the value that it is to find.
pub(crate) const CHILD: &str = "MFIO_FORBIDDEN_CHILD";

/// The sysctl at `value`, for as long as this lives.
struct Forbidden;

impl Forbidden {
    fn at(value: u8) -> Self {
        std::fs::write(SYSCTL, value.to_string()).unwrap();
        Self
    }
}

impl Drop for Forbidden {
    fn drop(&mut self) {
        std::fs::write(SYSCTL, "0").unwrap();
    }
}

/// Runs `test` of this binary again, as nobody.
pub(crate) fn as_nobody(test: &str, value: u8) {
    let child = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, value.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "the child failed");
}

fn open(directory: &Path, contents: Vec<u8>) -> File<AutoRing> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path: PathBuf = directory.join(number.to_string());
    let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(8)).unwrap();
    let config = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
    let shard = Shard::with_ring(ring, &config).unwrap();
    let file = shard.open(&path, &OpenOptions::new().write(true).create(true)).unwrap();
    block_on(&file, file.write_exact(0, contents)).unwrap().0.unwrap();
    std::fs::remove_file(path).unwrap();
    file
}

/// What a process that may have no ring gets: threads and the reason, or the reason alone.
fn falls_back(value: u8) {
    let refused = KernelRing::new(&KernelConfig::new(8)).unwrap_err();
    assert!(matches!(refused, RingError::Forbidden { sysctl: Some(is), .. } if is == value));
    let told = refused.to_string();
    assert!(told.contains(&format!("kernel.io_uring_disabled={value}")), "{told}");

    let required = AutoRing::new(Backend::RequireRing, &AutoConfig::new(8));
    assert!(matches!(required, Err(AutoError::Ring(ref error)) if *error == refused));
    let required = Engine::builder().shards(Shards::Count(1)).backend(Backend::RequireRing);
    assert!(required.build().unwrap_err().to_string().contains(&told));

    let ring = AutoRing::new(Backend::Auto, &AutoConfig::new(8)).unwrap();
    let features = ring.features();
    println!("{features:?}");
    assert_eq!(features.kind, RingKind::Threads);
    assert_eq!(features.degraded.iter().filter(|text| text.contains(&told)).count(), 1);
    drop(ring);

    let directory = tempfile::tempdir().unwrap();
    let shape = Shape { len: 21_000, grows: true, ..Shape::default() };
    check_shaped(|contents| open(directory.path(), contents), shape);

    let engine = Engine::builder().shards(Shards::Count(1)).queue_depth(8).build().unwrap();
    let remote = engine.remote();
    let options = OpenOptions::new().write(true).create(true);
    let path = directory.path().join("durable");
    let file = block_on(&remote, remote.open(&path, &options)).unwrap().unwrap();
    block_on(&file, file.write_durable_at(0, page(7))).unwrap().0.unwrap();
    let (read, bytes) = block_on(&file, file.read_exact_at(0, page(0))).unwrap();
    read.unwrap();
    assert!(bytes.iter().all(|&byte| byte == 7));
    assert!(engine.shutdown().is_clean());
}

/// True where the test goes on: in the guest, on a kernel that has the sysctl.
fn is_child_or(test: &str, value: u8, run: impl FnOnce()) {
    if std::env::var(CHILD).is_ok_and(|set| set == value.to_string()) {
        return falls_back(value);
    }
    let Some(_guest) = Guest::alone() else { return };
    if !Path::new(SYSCTL).exists() {
        println!("SKIP: {SYSCTL} is of Linux 6.6");
        return;
    }
    let _forbidden = Forbidden::at(value);
    as_nobody(test, value);
    run();
}

#[test]
fn f31_sysctl_1_leaves_io_uring_to_the_privileged_and_threads_to_the_others() {
    let test =
        "forbidden::f31_sysctl_1_leaves_io_uring_to_the_privileged_and_threads_to_the_others";
    is_child_or(test, 1, || {
        let ring = AutoRing::new(Backend::RequireRing, &AutoConfig::new(8)).unwrap();
        assert_eq!(ring.features().kind, RingKind::Kernel);
    });
}

#[test]
fn f31_sysctl_2_leaves_threads_to_everybody() {
    let test = "forbidden::f31_sysctl_2_leaves_threads_to_everybody";
    is_child_or(test, 2, || falls_back(2));
}

/// Which features this kernel has: each is there, or its lack is explained.
#[test]
fn f33_kernel_of_the_guest_gets_the_rung_of_the_ladder_that_it_has() {
    let Some(_guest) = Guest::alone() else { return };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let ring = AutoRing::new(Backend::RequireRing, &AutoConfig::new(64)).unwrap();
    let features = ring.features();
    println!("Linux {}: {:?}, without {:?}", release.trim(), features.in_use, features.degraded);
    let has = |name: &str| features.in_use.contains(&name);
    // Both are of 6.0 and 6.1; NO_SQARRAY is of 6.6.
    assert!(has("SINGLE_ISSUER") && has("DEFER_TASKRUN"), "{features:?}");
    let number = |at: usize| release.split('.').nth(at).unwrap().parse::<u32>().unwrap();
    assert_eq!(has("NO_SQARRAY"), (number(0), number(1)) >= (6, 6), "{features:?}");
}
