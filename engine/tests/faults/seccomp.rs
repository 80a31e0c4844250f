//! F31: io_uring is forbidden, as container runtimes do it. The stage is a filter that this
//! process installs itself, and that the programs it starts inherit.

use std::process::Command;

use mfio_core::block_on;
use mfio_core::conformance::{Shape, check_shaped};
use mfio_engine::ring::auto::{AutoConfig, Backend};
use mfio_engine::ring::{AutoRing, RingKind};
use mfio_engine::{Config, DirectMode, Engine, OpenOptions, Shard, Shards};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

use crate::stage::{Skip, file_options, path, ring, told, verified_work};

fn forbid_io_uring() -> Result<(), Skip> {
    let Ok(arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        return Err(Skip("seccompiler does not know this architecture".into()));
    };
    let refused = [(libc::SYS_io_uring_setup, Vec::new())].into_iter().collect();
    let errno = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap());
    let filter = SeccompFilter::new(refused, SeccompAction::Allow, errno, arch).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    Ok(())
}

fn refused_by_name_where_it_is_required() {
    let refused = AutoRing::new(Backend::RequireRing, &AutoConfig::new(64)).unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("EPERM from io_uring_setup") && text.contains("seccomp"), "{text}");
    let required = Engine::builder().shards(Shards::Count(1)).backend(Backend::RequireRing);
    let text = required.build().unwrap_err().to_string();
    assert!(text.contains("EPERM from io_uring_setup"), "{text}");
}

fn falls_back_with_one_message() {
    let shard = Shard::with_ring(ring(Backend::Auto), &Config::new()).unwrap();
    let features = shard.features();
    assert_eq!(features.kind, RingKind::Threads);
    let said = features.degraded.iter().filter(|text| text.contains("io_uring_setup"));
    let said: Vec<_> = said.collect();
    let [text] = said[..] else { panic!("said once: {features:?}") };
    println!("{text}");
    for part in ["seccomp", "continuing with 8 blocking threads", "Backend::RequireRing"] {
        assert!(text.contains(part), "{text}");
    }
    let file = shard.open(&path().join("work"), &file_options(DirectMode::PreferDirect)).unwrap();
    shard.block_on(verified_work(&file, 64)).unwrap();
    assert_eq!(shard.shutdown(), 0);
}

fn files_conform() {
    let name = path().join("conforming");
    let make = |contents: Vec<u8>| {
        std::fs::write(&name, contents).unwrap();
        let config = Config { in_flight_max: 8, backlog_max: 12, ..Config::new() };
        let shard = Shard::with_ring(ring(Backend::Auto), &config).unwrap();
        let file = shard.open(&name, &OpenOptions::new().write(true)).unwrap();
        // The next one is another file.
        std::fs::remove_file(&name).unwrap();
        file
    };
    check_shaped(make, Shape { len: 21_000, grows: true, ..Shape::default() });
}

fn engine_serves_other_threads() {
    let engine = Engine::builder().shards(Shards::Count(2)).build().unwrap();
    let remote = engine.remote();
    let options = file_options(DirectMode::Buffered);
    let file = block_on(&remote, remote.open(path().join("remote"), &options)).unwrap().unwrap();
    block_on(&file, file.write_durable_at(0, vec![7; 4096])).unwrap().0.unwrap();
    let (read, bytes) = block_on(&file, file.read_exact_at(0, vec![0; 4096])).unwrap();
    read.unwrap();
    assert_eq!(bytes, [7; 4096]);
    drop(file);
    assert!(engine.shutdown().is_clean());
}

/// The line of a test program that counts.
fn result_of(said: &str) -> &str {
    said.lines().rfind(|line| line.starts_with("test result")).unwrap_or_default()
}

/// The engine's own test programs, whose other halves run where the filter is not.
fn tests_pass_under_the_filter() {
    for program in told("MFIO_FAULT_PROGRAMS").split_whitespace() {
        let done = Command::new(program).arg("--nocapture").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        println!("{program}: {}", result_of(&said));
        assert!(done.status.success(), "{said}{}", String::from_utf8_lossy(&done.stderr));
        assert!(said.contains("SKIP kernel ring"), "it ran without io_uring: {said}");
    }
}

pub(crate) fn check() -> Result<(), Skip> {
    forbid_io_uring()?;
    refused_by_name_where_it_is_required();
    falls_back_with_one_message();
    files_conform();
    engine_serves_other_threads();
    tests_pass_under_the_filter();
    Ok(())
}
