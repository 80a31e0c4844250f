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

    pub(crate) fn command(&self, args: impl Words) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mfio-bench"));
        // Files without a place of their own go there, and other tests run at the same time.
        command.current_dir(&self.0).env("TMPDIR", &self.0).args(args.words());
        command
    }

    pub(crate) fn run(&self, args: impl Words) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs with JSON output, which must succeed.
    pub(crate) fn json(&self, args: impl Words) -> Value {
        let output = self.command(args).arg("--output-format=json").output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// As `json`, of a run that has nothing to say on the error stream.
    pub(crate) fn quiet_json(&self, args: impl Words) -> Value {
        let output = self.command(args).arg("--output-format=json").output().unwrap();
        assert!(output.stderr.is_empty(), "{}", utf8(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{}", utf8(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The first job of such a run.
    pub(crate) fn job(&self, args: impl Words) -> Value {
        self.json(args)["jobs"][0].clone()
    }

    /// Runs what must fail, and returns what it says.
    pub(crate) fn refused(&self, args: impl Words) -> String {
        let output = self.run(args);
        assert_ne!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    }

    /// Runs a job that ends where it would have to wait for a read, and has dropped its file from
    /// the page cache before. Until one does: a device may answer before the kernel looks, where a
    /// virtual machine stands still while its disk reads.
    pub(crate) fn made_to_wait(&self, args: &str) -> Output {
        let output = (0..50).map(|_| self.run(args)).find(|run| run.status.code() != Some(0));
        output.unwrap_or_else(|| panic!("{args}: nothing had to be waited for"))
    }

    /// The lines of a log as numbers.
    pub(crate) fn log(&self, name: &str) -> Vec<Vec<u64>> {
        let log = fs::read_to_string(self.0.join(name)).unwrap_or_else(|_| panic!("no {name}"));
        let fields = |line: &str| line.split(", ").map(|field| field.parse().unwrap()).collect();
        log.lines().map(fields).collect()
    }

    /// The files whose names end so, in order.
    pub(crate) fn names(&self, end: &str) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(end)).collect();
        names.sort();
        names
    }
}

/// Arguments: one string whose words they are, or one by one, where words have blanks in them.
pub(crate) trait Words {
    fn words(self) -> Vec<String>;
}

impl Words for &str {
    fn words(self) -> Vec<String> {
        self.split_whitespace().map(str::to_owned).collect()
    }
}

impl Words for &String {
    fn words(self) -> Vec<String> {
        self.as_str().words()
    }
}

impl Words for &[&str] {
    fn words(self) -> Vec<String> {
        self.iter().map(|&word| word.to_owned()).collect()
    }
}

impl<const N: usize> Words for &[&str; N] {
    fn words(self) -> Vec<String> {
        self[..].words()
    }
}

impl Words for &Vec<&str> {
    fn words(self) -> Vec<String> {
        self[..].words()
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
    utf8(&output.stdout) + &utf8(&output.stderr)
}

pub(crate) fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
