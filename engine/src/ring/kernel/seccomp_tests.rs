//! The rules that every target must pass, in a process that may not have io_uring (F31).
//!
//! Data flow: this binary again, behind a seccomp filter as containers have it → the ring of a
//! program that does not care which → files on it → the conformance suite.
//!
//! Not here: the refusal as such (`fact_tests`), its words (`setup`).
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::os::unix::process::CommandExt;
use std::process::Command;

use mfio_core::conformance::{Shape, check_shaped};

use super::fact_tests::forbid_io_uring;
use crate::ring::auto::{AutoConfig, AutoError, Backend};
use crate::ring::{AutoRing, Ring, RingKind};
use crate::{Config, DirectMode, Engine, OpenOptions, Shard};

const CHILD: &str = "MFIO_SECCOMP_CHILD";
const NAME: &str = "f31_conformance_suite_passes_where_seccomp_forbids_io_uring";

#[test]
fn f31_conformance_suite_passes_where_seccomp_forbids_io_uring() {
    if std::env::var_os(CHILD).is_some() {
        return forbidden();
    }
    let path = format!("{}::{NAME}", module_path!().split_once("::").unwrap().1);
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &path, "--nocapture"]).env(CHILD, "1");
    // SAFETY: the closure makes two system calls and allocates nothing.
    unsafe {
        child.pre_exec(|| match forbid_io_uring() {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    let child = match child.output() {
        Ok(child) => child,
        Err(error) => {
            return println!("SKIP: no seccomp here ({error}); the thread ring conforms anyway");
        }
    };
    let said = String::from_utf8_lossy(&child.stdout);
    println!("{said}{}", String::from_utf8_lossy(&child.stderr));
    assert!(child.status.success() && said.contains("1 passed"), "the child failed");
}

/// In the process that has no io_uring.
fn forbidden() {
    let config = AutoConfig { workers: 2, ..AutoConfig::new(8) };
    let refused = AutoRing::new(Backend::RequireRing, &config).unwrap_err();
    assert!(matches!(refused, AutoError::Ring(_)) && refused.to_string().contains("seccomp"));
    for (direct, write_align) in [(DirectMode::Buffered, 1), (DirectMode::PreferDirect, 4096)] {
        let make = |contents: Vec<u8>| {
            let ring = AutoRing::new(Backend::Auto, &config).unwrap();
            assert_eq!(ring.features().kind, RingKind::Threads);
            let [told] = &ring.features().degraded[..] else { panic!("it says so once") };
            assert!(told.contains("EPERM") && told.contains("2 blocking threads"), "{told}");
            let limits = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
            let shard = Shard::with_ring(ring, &limits).unwrap();
            let binary = std::env::current_exe().unwrap();
            let path = tempfile::NamedTempFile::new_in(binary.parent().unwrap()).unwrap();
            std::fs::write(path.path(), contents).unwrap();
            let options = OpenOptions::new().write(true).direct(direct);
            shard.open(path.path(), &options).unwrap()
        };
        check_shaped(make, Shape { len: 21_000, read_align: 1, write_align, grows: true });
    }
    let engine = Engine::builder().queue_depth(8).build().unwrap();
    assert!(engine.shutdown().is_clean());
}
