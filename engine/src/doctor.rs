//! What this machine and a target can do, and what is wrong with them.
//!
//! Data flow: `/proc`, `/sys`, one small ring, one open file → [`Finding`]s → [`Report`], which
//! prints itself. Nothing is ever written and no setting is changed: a finding that is not good
//! names the command that would change it.
//!
//! Not here: the facts of a target (`target`), JSON (package `mfio-bench`).

use std::fmt;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::config::Config;
use crate::ring::Features;
use crate::ring::kernel::{KernelConfig, KernelRing, RingError};

mod machine;
mod nvme;
mod target;

/// How good a finding is. The greater, the worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum State {
    /// As it should be.
    Ok,
    /// It cannot be found out here.
    Unknown,
    /// It works, with less speed or with more trouble than it could.
    Degraded,
    /// It does not work, or what is measured means nothing.
    Wrong,
}

impl State {
    /// `ok`, `unknown`, `degraded`, `wrong`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Degraded => "degraded",
            Self::Wrong => "wrong",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What: a word with underscores that never changes.
    pub what: &'static str,
    /// What was found, for people.
    pub value: String,
    /// How good that is.
    pub state: State,
    /// Why it matters; empty where there is nothing to say.
    pub why: String,
    /// What to do about it; never empty where the state is worse than unknown. A command where
    /// there is one.
    pub remedy: String,
}

impl Finding {
    fn new(what: &'static str, value: impl Into<String>) -> Self {
        let (why, remedy) = (String::new(), String::new());
        Self { what, value: value.into(), state: State::Ok, why, remedy }
    }

    /// Says why it matters.
    fn because(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    fn unknown(self, why: impl Into<String>) -> Self {
        Self { state: State::Unknown, ..self.because(why) }
    }

    fn degraded(self, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Degraded, remedy: remedy.into(), ..self.because(why) }
    }

    fn wrong(self, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Wrong, remedy: remedy.into(), ..self.because(why) }
    }
}

/// Everything that was found out about one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// `machine`, or the path of the target.
    pub subject: String,
    /// In a fixed order; the same `what` appears once.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The state of the worst finding.
    #[must_use]
    pub fn worst(&self) -> State {
        self.findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
    }

    /// The finding of that name.
    #[must_use]
    pub fn find(&self, what: &str) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.what == what)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.subject, self.worst())?;
        let width = self.findings.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
        for Finding { what, value, state, why, remedy } in &self.findings {
            writeln!(f, "  {state:<8}  {what:<width$}  {value}")?;
            let indent = width + 14;
            if *state != State::Ok && !why.is_empty() {
                writeln!(f, "{:indent$}why: {why}", "")?;
            }
            if !remedy.is_empty() {
                writeln!(f, "{:indent$}do:  {remedy}", "")?;
            }
        }
        Ok(())
    }
}

/// What trying to make a ring has shown.
#[derive(Clone, Debug)]
struct Tried {
    ring: Result<Features, RingError>,
    /// Ops that the engine uses where it can, and whether this kernel has them; `None` where
    /// it could not be asked.
    ops: Option<Vec<(&'static str, bool)>>,
}

/// Looks, and does nothing else.
///
/// ```
/// use mfio_engine::doctor::Doctor;
///
/// let report = Doctor::new().machine();
/// assert!(report.find("io_uring").is_some());
/// println!("{report}");
/// ```
#[derive(Clone, Debug)]
pub struct Doctor {
    sys: PathBuf,
    proc: PathBuf,
    try_ring: fn() -> Tried,
    arena_bytes: u64,
    shards: Option<u32>,
}

impl Doctor {
    /// Looks at this machine, for an engine of the default configuration with one shard on each
    /// processor it may use.
    #[must_use]
    pub fn new() -> Self {
        let classes = Config::new().arena.classes;
        let bytes = classes.iter().map(|class| u64::from(class.bytes) * u64::from(class.count));
        Self {
            sys: PathBuf::from("/sys"),
            proc: PathBuf::from("/proc"),
            try_ring,
            arena_bytes: bytes.sum(),
            shards: None,
        }
    }

    /// Looks at other roots than `/sys` and `/proc`: those of a container, or of a test. The
    /// ring and the calls on a target's descriptor remain those of this machine.
    #[must_use]
    pub fn roots(self, sys: &Path, proc: &Path) -> Self {
        Self { sys: sys.to_owned(), proc: proc.to_owned(), ..self }
    }

    /// Judges limits by what that many shards with arenas of that size need.
    #[must_use]
    pub fn needs(self, shards: u32, arena_bytes: u64) -> Self {
        Self { arena_bytes, shards: Some(shards), ..self }
    }

    /// What the machine has and this process may use: `kernel`, `io_uring`,
    /// `io_uring_disabled`, `seccomp`, `setup_flags`, `opcodes`, `memlock`, `huge_pages`,
    /// `transparent_huge_pages`, `open_files`, `cpus`, `load`, `clock`.
    ///
    /// Makes a small ring and drops it. What cannot be read is [`State::Unknown`].
    #[must_use]
    pub fn machine(&self) -> Report {
        Report { subject: "machine".to_owned(), findings: machine::findings(self) }
    }

    /// What the file, directory, block device or NVMe namespace (`/dev/ngXnY`) at `path` is on,
    /// and what that can do: `open`,
    /// `meaningful`, `file_system`, `device`, `direct_io`, `alignment`, `blocks`, `nowait`,
    /// `dax`, `write_cache`, `atomic_write`, `transfer`, `scheduler`, `iostats`, `nomerges`,
    /// `poll_queues`, `discard`, `zones`, `write_streams`, `free_space`; on NVMe `controller`,
    /// `lba_format`, `command_transfer`, `power_fail_atomic`, `commands` as well.
    ///
    /// Opens it for reading and reads one block, without a lock and without a flush. As any
    /// reader does, it may move the access time. Of what cannot be opened there is only `open`.
    #[must_use]
    pub fn target(&self, path: &Path) -> Report {
        Report { subject: path.display().to_string(), findings: target::findings(self, path) }
    }

    /// The contents of a file below `/proc`, without the white space around them.
    fn proc(&self, path: &str) -> Option<String> {
        read_to_string(self.proc.join(path)).ok().map(|text| text.trim().to_owned())
    }

    /// As `proc`, below `/sys`.
    fn sys(&self, path: &str) -> Option<String> {
        read_to_string(self.sys.join(path)).ok().map(|text| text.trim().to_owned())
    }
}

impl Default for Doctor {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a ring as a shard does, asks it what it has, and drops it.
fn try_ring() -> Tried {
    let ring = KernelRing::new(&KernelConfig::new(8));
    let ring = ring.map(|ring| crate::ring::Ring::features(&ring).clone());
    Tried { ops: ring.is_ok().then(machine::probed_ops).flatten(), ring }
}

#[cfg(test)]
#[path = "doctor/doctor_tests.rs"]
mod tests;
