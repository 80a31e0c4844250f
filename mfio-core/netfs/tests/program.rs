//! The program: help, refusals, and a directory exported to another process.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use mfio_netfs::{Config, NetFs, Secret};
use mfio_rt::ErrorKind;
use mfio_rt::Fs as _;
use mfio_rt::conformance::{bytes_of, get, listed, put};

/// More than any window or budget holds; `scripts/netfs-copy` copies 4 GiB.
const COPIED_BYTES: usize = (64 << 20) + 4321;

fn server() -> Command {
    Command::new(env!("CARGO_BIN_EXE_mfio-netfs-server"))
}

struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _already = self.0.kill();
        let _status = self.0.wait();
    }
}

#[test]
fn help_and_version_are_told_and_wrong_arguments_refused() {
    let help = server().arg("--help").output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success() && text.contains("examples:"), "{text}");
    assert!(server().arg("-V").output().unwrap().status.success());
    let wrong: [&[&str]; 6] = [
        &[],
        &["--memory", "/tmp"],
        &["--strange"],
        &["--bind"],
        &["--bind", "nowhere", "--memory"],
        &["--bind", "0.0.0.0:0", "--memory"],
    ];
    for arguments in wrong {
        let output = server().args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("--help"));
    }
    let output = server().arg("/no/such/directory").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/no/such/directory"));
}

#[test]
fn a_directory_is_listed_copied_and_verified_from_another_process() {
    let temp = tempfile::tempdir().unwrap();
    let exported = temp.path().join("exported");
    std::fs::create_dir(&exported).unwrap();
    std::fs::write(exported.join("there"), b"before").unwrap();
    std::fs::write(temp.path().join("secret"), "0123456789abcdef0123456789abcdef\n").unwrap();
    let mut command = server();
    command.args(["--bind", "127.0.0.1:0", "--secret-file"]).arg(temp.path().join("secret"));
    let child = command.arg(&exported).stderr(Stdio::piped()).spawn().unwrap();
    let mut child = Stopped(child);
    let mut said = BufReader::new(child.0.stderr.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    let address = line.rsplit(' ').next().unwrap().trim().parse().unwrap();
    let refused = NetFs::connect(address, Config::default()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    let secret = Some(Secret::new(*b"0123456789abcdef0123456789abcdef"));
    let net = NetFs::connect(address, Config::default().secret(secret)).unwrap();
    mfio_core::block_on(&net, async {
        let dir = net.current_dir();
        assert_eq!(listed(dir).await, ["there"]);
        assert_eq!(get(dir, "there").await, b"before");
        put(dir, "new", bytes_of(1, COPIED_BYTES)).await;
        assert!(get(dir, "new").await == bytes_of(1, COPIED_BYTES));
    })
    .unwrap();
    assert!(std::fs::read(exported.join("new")).unwrap() == bytes_of(1, COPIED_BYTES));
}
