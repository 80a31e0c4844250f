//! Where text goes: standard output or the file of `--output`, and complaints to stderr.
//!
//! Not here: the text.

use std::fs::File;
use std::io::{self, IsTerminal, Write};

/// The destination of everything a run prints.
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(File),
}

impl Output {
    /// Standard output, or a new file at `path`.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn open(path: Option<&str>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self::Stdout) };
        let file = File::create(path);
        file.map(Self::File)
            .map_err(|error| format!("cannot write {path}: {}", crate::plan::reason(&error)))
    }

    /// Writes all of `text` and makes it visible.
    ///
    /// # Errors
    /// What the system refused, a closed pipe for example.
    pub(crate) fn print(&mut self, text: &str) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes())?;
                stdout.flush()
            }
            Self::File(file) => file.write_all(text.as_bytes()),
        }
    }

    /// Whether somebody is looking.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Stdout) && io::stdout().is_terminal()
    }
}

/// Writes one line to stderr. There is nobody left to tell when that fails.
pub(crate) fn complain(line: &str) {
    drop(writeln!(io::stderr().lock(), "{line}"));
}
