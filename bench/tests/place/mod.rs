//! A directory of its own for each test, and the built program to run in it.
#![allow(dead_code, clippy::unwrap_used, reason = "tests, and not every file uses everything")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A fresh directory, removed when the test ends well.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("work-{name}"));
        drop(fs::remove_dir_all(&path));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(crate) fn run(&self, args: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mfio-bench"));
        command.current_dir(&self.0).args(args.split_whitespace()).output().unwrap()
    }

    /// Runs with JSON output, which must succeed.
    pub(crate) fn json(&self, args: &str) -> Value {
        let output = self.run(&format!("{args} --output-format=json"));
        assert_eq!(output.status.code(), Some(0), "{args}: {}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The first job of such a run.
    pub(crate) fn job(&self, args: &str) -> Value {
        self.json(args)["jobs"][0].clone()
    }

    /// Runs what must fail, and returns what it says.
    pub(crate) fn refused(&self, args: &str) -> String {
        let output = self.run(args);
        assert_ne!(output.status.code(), Some(0), "{args}: {}", text(&output));
        text(&output)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(fs::remove_dir_all(&self.0));
        }
    }
}

/// Both streams.
pub(crate) fn text(output: &Output) -> String {
    let mut all = output.stdout.clone();
    all.extend(&output.stderr);
    String::from_utf8_lossy(&all).into_owned()
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is an integer"))
}

/// The I/Os of a direction.
pub(crate) fn ios(job: &Value, direction: &str) -> u64 {
    number(&job[direction]["total_ios"])
}

/// The bytes of a direction.
pub(crate) fn bytes(job: &Value, direction: &str) -> u64 {
    number(&job[direction]["io_bytes"])
}
