//! The program: help, refusals, and a directory exported to another process.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mfio_netfs::{Config, NetFs, Secret};
use mfio_rt::conformance::{bytes_of, get, listed, put};
use mfio_rt::{DirHandle as _, ErrorKind, Fs as _};

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

#[test]
fn address_that_is_taken_is_named_with_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = server().args(["--memory", "--bind", &address]).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&address) && said.contains("--bind ADDRESS:PORT"), "{said}");
}

/// A client that opens all it can leaves others their connections, and files in them.
#[test]
fn open_files_of_the_process_are_not_used_up() {
    let temp = tempfile::tempdir().unwrap();
    std::fs::write(temp.path().join("file"), b"bytes").unwrap();
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "ulimit -n 256 && exec \"$0\" \"$@\"",
        env!("CARGO_BIN_EXE_mfio-netfs-server"),
    ]);
    command.args(["--bind", "127.0.0.1:0", "--connections", "4"]).arg(temp.path());
    let mut child = Stopped(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    BufReader::new(child.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.rsplit(' ').next().unwrap().trim().parse().unwrap();
    let config = || Config::default().silence_max(Duration::from_secs(5)).reconnects_max(0);
    let greedy = NetFs::connect(address, config()).unwrap();
    mfio_core::block_on(&greedy, async {
        let (mut open, root) = (Vec::new(), greedy.current_dir());
        let refused = loop {
            match root.open_dir(".").await {
                Ok(dir) => open.push(dir),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), ErrorKind::TooManyOpen, "{} are open", open.len());
        for _ in 0..3 {
            let other = NetFs::connect(address, config()).unwrap();
            let mut few = Vec::new();
            for _ in 0..10 {
                few.push(other.current_dir().open_dir(".").await.unwrap());
            }
            assert_eq!(get(other.current_dir(), "file").await, b"bytes");
        }
    })
    .unwrap();
}
