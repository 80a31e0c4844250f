//! A machine of four CPUs whose files and environment are those the test names.
//!
//! Data flow: test -> `Machine` -> the parser's questions.
//!
//! Not here: any real file.

use std::collections::BTreeMap;

use fio_compat::{Invocation, ParseError, Source, parse_command_line};

/// Everything outside the arguments that a test needs.
#[derive(Default)]
pub(crate) struct Machine {
    files: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
}

#[allow(dead_code, reason = "every test program uses some of it")]
impl Machine {
    pub(crate) fn with_file(mut self, path: &str, text: &str) -> Self {
        self.files.insert(path.to_owned(), text.to_owned());
        self
    }

    pub(crate) fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Parses arguments separated by single blanks.
    pub(crate) fn run(&self, args: &str) -> Result<Invocation, ParseError> {
        let args: Vec<String> = args.split_terminator(' ').map(str::to_owned).collect();
        parse_command_line(&args, self)
    }

    /// Parses one job file called `a.fio`.
    pub(crate) fn file(text: &str) -> Result<Invocation, ParseError> {
        Self::default().with_file("a.fio", text).run("a.fio")
    }
}

impl Source for Machine {
    fn read_job_file(&self, path: &str) -> Result<String, String> {
        self.files.get(path).cloned().ok_or_else(|| "No such file or directory".to_owned())
    }

    fn read_bytes(&self, path: &str, most: usize) -> Result<Vec<u8>, String> {
        let text = self.read_job_file(path)?;
        Ok(text.into_bytes().into_iter().take(most).collect())
    }

    fn env(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    fn cpus(&self) -> u32 {
        4
    }

    fn page_size(&self) -> u64 {
        4096
    }

    fn memory_mib(&self) -> u64 {
        1000
    }
}
