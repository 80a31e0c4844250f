//! What happens without a job: a file is written, verified and read, and removed again.
//!
//! Data flow: `default.fio`, a job file like any other, plus the few options that make sense
//! for it -> the same plan, run and report as every job -> a summary.
//!
//! Not here: running and reporting (`cli`), the summary (`summary`).

use std::path::PathBuf;

use fio_compat::{Invocation, Source, parse_job_text};
use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use nix::unistd::{AccessFlags, access};

use crate::layout::direct_works;
use crate::machine::Machine;
use crate::output::{Output, complain};
use crate::run::conductor::Manner;

const TEXT: &str = include_str!("default.fio");
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Options of the command line that the default job understands.
const UNDERSTOOD: [&str; 3] = ["size", "runtime", "directory"];

/// The job text's variables.
struct Variables {
    file: String,
    size: String,
    runtime: String,
    direct: bool,
}

impl Source for Variables {
    fn read_job_file(&self, path: &str) -> Result<String, String> {
        Machine.read_job_file(path)
    }

    fn env(&self, name: &str) -> Option<String> {
        match name {
            "FILE" => Some(self.file.clone()),
            "SIZE" => Some(self.size.clone()),
            "RUNTIME" => Some(self.runtime.clone()),
            "DIRECT" => Some(u8::from(self.direct).to_string()),
            _ => None,
        }
    }

    fn cpus(&self) -> u32 {
        Machine.cpus()
    }

    fn page_size(&self) -> u64 {
        Machine.page_size()
    }

    fn memory_mib(&self) -> u64 {
        Machine.memory_mib()
    }
}

/// Runs the default job. `asked` is a command line without a job.
///
/// # Errors
/// One line; nothing is left behind.
pub(crate) fn main(asked: Invocation) -> Result<u8, String> {
    let foreign =
        asked.global_options.iter().find(|(name, _)| !UNDERSTOOD.contains(&name.as_str()));
    if let Some((name, _)) = foreign {
        return Err(format!(
            "--{name} is given but no job is: add --name=NAME, or leave it out to run the \
             default job, which understands --size, --runtime and --directory"
        ));
    }
    if asked.readonly {
        return Err("the default job writes, which --readonly forbids: give a job".into());
    }
    let option = |wanted: &str| {
        let found = asked.global_options.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone())
    };
    let directory = PathBuf::from(option("directory").unwrap_or_else(|| ".".into()));
    if !directory.is_dir() {
        return Err(format!("{} is not a directory", directory.display()));
    }
    access(&directory, AccessFlags::W_OK).map_err(|errno| {
        let shown = directory.display();
        format!("cannot write in {shown}: {}; use --directory=DIR for another place", errno.desc())
    })?;
    let direct = direct_works(&directory);
    let variables = Variables {
        file: format!("mfio-bench.{}.tmp", std::process::id()),
        size: option("size").unwrap_or_else(|| "256m".into()),
        runtime: option("runtime").unwrap_or_else(|| "3".into()),
        direct,
    };
    let parsed = parse_job_text(TEXT, "default job", &variables);
    let mut invocation = parsed.map_err(|error| error.to_string())?;
    for job in &mut invocation.jobs {
        job.directories = vec![directory.to_string_lossy().into_owned()];
    }
    // Formats, output and progress are as asked for; only the jobs come from the text.
    let jobs = invocation.jobs;
    let mut invocation = asked;
    invocation.jobs = jobs;
    if invocation.showcmd || invocation.parse_only {
        let text = if invocation.showcmd { TEXT } else { "" };
        return Output::Stdout.print(text).map(|()| 0).map_err(|error| error.to_string());
    }
    let path = directory.join(&variables.file);
    if path.exists() {
        return Err(format!("{} exists already: remove it", path.display()));
    }
    let notes = notes(&directory, direct);
    introduce(&invocation, &path, &variables.size, &notes);
    let manner = Manner { filled: true, remove: true };
    crate::cli::run(&invocation, manner, notes, true).map(|ran| ran.exit_code)
}

/// What the reader must know before believing the numbers.
fn notes(directory: &std::path::Path, direct: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let kind = statfs(directory).map(|facts| facts.filesystem_type());
    if kind.is_ok_and(|kind| kind == TMPFS_MAGIC || kind == RAMFS_MAGIC) {
        notes.push(format!(
            "{} is a file system in memory (tmpfs): these are figures of memory and not of a \
             disk; use --directory=DIR for another place",
            directory.display()
        ));
    }
    if !direct {
        notes.push(format!(
            "O_DIRECT is refused in {}: the page cache is used, so that reads may never reach \
             the disk",
            directory.display()
        ));
    }
    notes
}

fn introduce(invocation: &Invocation, path: &std::path::Path, size: &str, notes: &[String]) {
    // Text for people only: stdout stays a document where one was asked for.
    if invocation.has_document() {
        return;
    }
    complain(&format!(
        "mfio-bench: no job given: writing, verifying and reading {} ({size}), which is removed \
         at the end; see --help",
        path.display()
    ));
    for note in notes {
        complain(&format!("mfio-bench: note: {note}"));
    }
}
