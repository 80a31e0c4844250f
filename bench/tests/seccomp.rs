//! Where io_uring is forbidden, the default job still runs, verifies, and says why.
//!
//! This process starts itself again; the copy installs a filter that refuses `io_uring_setup`,
//! as container runtimes do, and becomes `mfio-bench`. No test harness: its threads would run
//! under the filter too.
#![allow(clippy::unwrap_used, reason = "a test; clippy.toml covers only functions marked so")]

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

const CHILD: &str = "MFIO_BENCH_TEST_SECCOMP_CHILD";

fn main() {
    if std::env::var_os(CHILD).is_some() {
        become_filtered();
    }
    let Ok(_arch) = TargetArch::try_from(std::env::consts::ARCH) else {
        say("skipped: seccompiler does not know this architecture");
        return;
    };
    for (size, expected) in [("1m", 256), ("3m", 768)] {
        runs_and_verifies_on_threads(size, expected);
    }
    let json = filtered(&["--size=1m", "--runtime=100ms", "--output-format=json"]);
    assert_eq!(json.status.code(), Some(0));
    assert!(json.stderr.is_empty(), "JSON mode keeps stderr clean");
    let document: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(document["mfio"]["warnings"].to_string().contains("seccomp"), "{document}");
    let doctor = filtered(&["doctor", "--output-format=json"]);
    assert_eq!(doctor.status.code(), Some(1), "no ring is wrong, not merely degraded");
    let document: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let findings = document["machine"]["findings"].as_array().unwrap();
    let of = |what| findings.iter().find(|finding| finding["what"] == what).unwrap();
    assert_eq!(of("io_uring")["state"], "wrong");
    assert!(of("io_uring")["do"].to_string().contains("seccomp"), "{document}");
    assert_eq!(of("seccomp")["state"], "degraded");
    let job = ["--name=x", "--filename=c", "--size=64k", "--unlink=1", "--runtime=10ms"];
    let engines = ["compare", "--a=io_uring", "--b=psync", "--rounds=1", "--output-format=json"];
    let sweep = ["sweep", "--over=iodepth=2", "--rounds=1", "--output-format=json"];
    let notes = |document: &serde_json::Value, of: &str| document[of]["notes"].to_string();
    for (args, of) in [(&engines[..], "compare"), (&sweep[..], "sweep")] {
        let output = filtered(&[args, &job].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let notes = notes(&document, of);
        assert!(notes.contains("continuing with blocking threads"), "{of}: {notes}");
    }
    say("seccomp: 6 passed, 0 failed");
}

fn say(line: &str) {
    writeln!(std::io::stdout().lock(), "{line}").unwrap();
}

/// Installs the filter, which survives `exec`, and becomes mfio-bench.
fn become_filtered() -> ! {
    let refused = [(nix::libc::SYS_io_uring_setup, Vec::new())];
    let eperm = u32::try_from(nix::libc::EPERM).unwrap();
    let filter = SeccompFilter::new(
        refused.into_iter().collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(eperm),
        TargetArch::try_from(std::env::consts::ARCH).unwrap(),
    );
    let program = BpfProgram::try_from(filter.unwrap()).unwrap();
    seccompiler::apply_filter(&program).unwrap();
    let error =
        Command::new(env!("CARGO_BIN_EXE_mfio-bench")).args(std::env::args().skip(1)).exec();
    panic!("cannot become mfio-bench: {error}");
}

fn filtered(args: &[&str]) -> std::process::Output {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("seccomp");
    std::fs::create_dir_all(&directory).unwrap();
    let me = std::env::current_exe().unwrap();
    let output = Command::new(me).env(CHILD, "1").current_dir(&directory).args(args).output();
    let left: Vec<_> = std::fs::read_dir(&directory).unwrap().collect();
    assert!(left.is_empty(), "the default job removes its file: {left:?}");
    output.unwrap()
}

fn runs_and_verifies_on_threads(size: &str, expected: u32) {
    let size = format!("--size={size}");
    let output = filtered(&[&size, "--runtime=100ms"]);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stdout}{stderr}");
    assert!(stderr.contains("io_uring is not available (EPERM from io_uring_setup)"), "{stderr}");
    assert!(stderr.contains("allow io_uring_setup"), "it says how to change it: {stderr}");
    assert!(stderr.contains("continuing with blocking threads"), "{stderr}");
    assert!(stdout.contains("engine blocking threads"), "{stdout}");
    let verified = format!("verified: {expected} blocks read back, 0 wrong");
    assert!(stdout.contains(&verified), "{stdout}");
}
