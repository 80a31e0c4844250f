//! Devices of the device mapper, made by `dmsetup` for the duration of a test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Runs a program that must succeed; what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let done = Command::new(program).args(args).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{program} {args:?}: {out}{err}");
    out.trim().to_owned()
}

/// Removed when it goes.
pub(crate) struct Mapped(String);

impl Mapped {
    /// A device by such a table, `start length target …` in sectors of 512 bytes, a line each.
    pub(crate) fn new(name: &str, table: &str) -> Self {
        let args = ["create", name, "--table", table];
        // The kernel closes what the test before had open a moment after that test did.
        for _ in 0..100 {
            let done = Command::new("dmsetup").args(args).output().unwrap();
            if done.status.success() {
                return Self(name.to_owned());
            }
            let said = String::from_utf8_lossy(&done.stderr).into_owned();
            assert!(said.contains("busy"), "dmsetup {args:?}: {said}");
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("dmsetup {args:?}: the device is in use, and was for ten seconds");
    }

    /// `sectors` of `device` from `start` on.
    pub(crate) fn linear(name: &str, device: &Path, start: u64, sectors: u64) -> Self {
        Self::new(name, &format!("0 {sectors} linear {} {start}", device.display()))
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/dev/mapper").join(&self.0)
    }

    /// Another table from now on. What is in flight is over before.
    pub(crate) fn change(&self, table: &str) {
        run("dmsetup", &["reload", &self.0, "--table", table]);
        run("dmsetup", &["suspend", "--noflush", "--nolockfs", &self.0]);
        run("dmsetup", &["resume", &self.0]);
    }

    pub(crate) fn message(&self, words: &[&str]) {
        run("dmsetup", &[&["message", &self.0, "0"], words].concat());
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // The kernel closes what a test had open a moment after the test did.
        let done = Command::new("dmsetup").args(["remove", "--retry", &self.0]).output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() || std::thread::panicking(), "{} stays: {said}", self.0);
    }
}
