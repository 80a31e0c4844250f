//! What one command line, with its job files, asks for as a whole.
//!
//! Data flow: `command_line` and `assemble` fill it -> the bench runs `jobs` and prints `formats`.
//!
//! Not here: a single job's fields (`job`), the syntax they come from (`command_line`, `lex`).

use crate::error::Warning;
use crate::job::{Job, Origin};
use crate::render::TerseVersion;

/// One complete, validated request.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Invocation {
    /// What to do at all.
    pub action: Action,
    /// The jobs in order of definition; empty if none was given.
    pub jobs: Vec<Job>,
    /// Options that apply to several jobs, canonical names with the text as written.
    pub global_options: Vec<(String, String)>,
    /// Output formats in the order fio emits them: terse, JSON, normal.
    pub formats: Vec<OutputFormat>,
    /// The file that receives the output instead of stdout.
    pub output: Option<String>,
    /// Whether to show the progress line.
    pub eta: Eta,
    /// Time between two progress lines.
    pub eta_interval_ns: u64,
    /// If given, a progress line is ended with a newline this often.
    pub eta_newline_ns: Option<u64>,
    /// Parse, report errors and warnings, run nothing.
    pub parse_only: bool,
    /// Print [`Invocation::show_command`] and run nothing.
    pub showcmd: bool,
    /// Jobs that write were refused (already checked); the bench may open targets read-only.
    pub readonly: bool,
    /// Layout of terse lines.
    pub terse_version: TerseVersion,
    /// Report everything so far this often while jobs run.
    pub status_interval_ns: Option<u64>,
    /// Log the bandwidth of all jobs together to `PREFIX-read_bw.log` and its relatives.
    pub bandwidth_log: Option<String>,
    /// Print every option in force and where it came from, and run nothing.
    pub effective: bool,
    /// Surprises found while parsing.
    pub warnings: Vec<Warning>,
}

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run the jobs (or only show or check them, see the flags of [`Invocation`]).
    Run,
    /// Print the usage.
    Help,
    /// Print the version.
    Version,
    /// Print this text.
    Print(String),
}

/// How a report is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OutputFormat {
    /// Lines of fields separated by semicolons.
    Terse,
    /// One JSON document.
    Json,
    /// One JSON document with the bins of its histograms.
    JsonPlus,
    /// fio's text for people.
    Normal,
}

impl OutputFormat {
    /// Whether it is a JSON document.
    #[must_use]
    pub const fn is_document(self) -> bool {
        matches!(self, Self::Json | Self::JsonPlus)
    }
}

/// When to show the progress line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eta {
    /// Only if stdout is a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// fio redraws the progress line once a second.
const ETA_INTERVAL_NS: u64 = 1_000_000_000;

impl Default for Invocation {
    fn default() -> Self {
        Self {
            action: Action::Run,
            jobs: Vec::new(),
            global_options: Vec::new(),
            formats: vec![OutputFormat::Normal],
            output: None,
            eta: Eta::Auto,
            eta_interval_ns: ETA_INTERVAL_NS,
            eta_newline_ns: None,
            parse_only: false,
            showcmd: false,
            readonly: false,
            terse_version: TerseVersion::default(),
            status_interval_ns: None,
            bandwidth_log: None,
            effective: false,
            warnings: Vec::new(),
        }
    }
}

impl Invocation {
    /// Whether a JSON document is part of the output: warnings go inside, and nothing else.
    #[must_use]
    pub fn has_document(&self) -> bool {
        self.formats.iter().any(|format| format.is_document())
    }

    /// Whether text for people is part of the output.
    #[must_use]
    pub fn is_for_people(&self) -> bool {
        self.formats.contains(&OutputFormat::Normal)
    }

    /// Every option of every job: value, and where it was set (`--effective`).
    #[must_use]
    pub fn show_effective(&self) -> String {
        let mut text = String::new();
        for job in &self.jobs {
            text.push_str(&format!("[{}]\n", job.name));
            for setting in job.effective() {
                let origin = match &setting.origin {
                    Origin::Default => "default".to_owned(),
                    Origin::Derived => "follows from other options".to_owned(),
                    Origin::Set(place) => place.to_string(),
                };
                text.push_str(&format!("{}={} # {origin}\n", setting.option, setting.value));
            }
        }
        text
    }

    /// The command line that defines the same jobs (`--showcmd`).
    #[must_use]
    pub fn show_command(&self) -> String {
        let mut words = vec!["fio".to_owned()];
        words.extend(self.global_options.iter().map(option_word));
        for job in &self.jobs {
            words.push(quoted(&format!("--name={}", job.name)));
            let options = job.job_options.iter().filter(|(name, _)| name != "name");
            words.extend(options.map(option_word));
        }
        words.join(" ")
    }
}

fn option_word((name, value): &(String, String)) -> String {
    if value.is_empty() { format!("--{name}") } else { quoted(&format!("--{name}={value}")) }
}

/// Quotes a word for a POSIX shell if it needs it, so that the line can be pasted back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,%+@^".contains(c);
    if word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
