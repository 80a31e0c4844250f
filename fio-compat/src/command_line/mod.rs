//! Arguments to jobs and settings of the run, the way getopt_long_only reads them.
//!
//! Data flow: arguments -> program options, sections and file names -> `assemble`.
//!
//! Not here: subcommands (the caller removes them), the meaning of job options (`options`).

mod program;

use crate::assemble::Assembly;
use crate::error::{Complaint, ParseError, Place};
use crate::invocation::{Action, Invocation};
use crate::lex::{Assignment, Section};
use crate::options::{self, Entry};
use crate::source::Source;

use program::{Argument, PROGRAM_NOT_YET, PROGRAM_OPTIONS, ProgramOption, Settings};

/// Reads the arguments after the program's name, and the job files they name.
///
/// Options may be written `--rw=x`, `--rw x`, `-rw=x` or `-rw x`, shortened as long as they stay
/// unique, and stand anywhere. Options before the first `--name` are defaults for all jobs.
///
/// # Errors
/// The first thing that cannot be honoured, as one line that says where it stands.
pub fn parse_command_line(args: &[String], source: &dyn Source) -> Result<Invocation, ParseError> {
    let mut reader = Reader::default();
    reader.read(args)?;
    let Reader { settings, sections, files } = reader;
    if settings.invocation.action != Action::Run {
        return Ok(settings.invocation);
    }
    let mut assembly = Assembly::new(source, settings.invocation, settings.sections);
    if settings.lenient {
        assembly.be_lenient();
    }
    for (name, value) in settings.overrides {
        assembly.overrides(name, value);
    }
    for section in &sections {
        assembly.section(section)?;
    }
    for (index, (path, place)) in files.iter().enumerate() {
        let text = source.read_job_file(path).map_err(|reason| {
            ParseError::new(place.clone(), format!("cannot read job file `{path}`: {reason}"))
        })?;
        assembly.file(&text, path, index)?;
    }
    assembly.finish()
}

/// Formats and file of the output that arguments ask for, which may be broken elsewhere: so that
/// a refusal reaches its reader the way the report would have. Everything else is at its default.
#[must_use]
pub fn output_settings(args: &[String]) -> Invocation {
    const NAMES: [&str; 4] = ["output", "output-format", "minimal", "terse-version"];
    let mut settings = Settings::default();
    let mut rest = args.iter().take_while(|arg| *arg != "--").peekable();
    while let Some(arg) = rest.next() {
        let Some(word) = option_word(arg) else { continue };
        let (name, inline) = word.split_once('=').unzip();
        let Ok(Meaning::Program(option)) = resolve(name.unwrap_or(&word)) else { continue };
        let value = match (option.argument, inline) {
            (Argument::Required, None) => rest.next_if(|next| !looks_like_option(next)).cloned(),
            (_, inline) => inline.map(str::to_owned),
        };
        if NAMES.contains(&option.name) {
            // A complaint about these is the refusal itself.
            drop((option.apply)(&mut settings, &value.unwrap_or_default()));
        }
    }
    settings.invocation
}

/// Reads one job text, such as a default embedded in the program; `label` names it in complaints.
///
/// # Errors
/// The first thing that cannot be honoured, as one line that says where it stands.
pub fn parse_job_text(
    text: &str,
    label: &str,
    source: &dyn Source,
) -> Result<Invocation, ParseError> {
    let mut assembly = Assembly::new(source, Invocation::default(), Vec::new());
    assembly.file(text, label, 0)?;
    assembly.finish()
}

/// What a word after the dashes stands for.
enum Meaning {
    Program(&'static ProgramOption),
    ProgramNotYet(&'static str),
    Job(Entry),
}

impl Meaning {
    const fn name(&self) -> &'static str {
        match self {
            Self::Program(option) => option.name,
            Self::ProgramNotYet(name) => name,
            Self::Job(entry) => entry.name(),
        }
    }

    const fn argument(&self) -> Argument {
        match self {
            Self::Program(option) => option.argument,
            Self::ProgramNotYet(_) => Argument::Inline,
            Self::Job(entry) if entry.is_flag() => Argument::Inline,
            Self::Job(entry) if entry.is_optional() => Argument::Optional,
            Self::Job(_) => Argument::Required,
        }
    }
}

#[derive(Default)]
struct Reader {
    settings: Settings,
    sections: Vec<Section>,
    files: Vec<(String, Place)>,
}

impl Reader {
    fn read(&mut self, args: &[String]) -> Result<(), ParseError> {
        let mut rest = args.iter().enumerate().peekable();
        let mut only_files = false;
        while let Some((index, arg)) = rest.next() {
            let place = Place::CommandLine { argument: index + 1 };
            if arg == "--" && !only_files {
                only_files = true;
                continue;
            }
            let Some(word) = option_word(arg).filter(|_| !only_files) else {
                self.files.push((arg.clone(), place));
                continue;
            };
            let (name, inline) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let meaning = resolve(name).map_err(|complaint| complaint.at(place.clone()))?;
            let value = match (meaning.argument(), inline) {
                (Argument::None, Some(_)) => {
                    let message = format!("`--{}` takes no value", meaning.name());
                    return Err(ParseError::new(place, message));
                }
                (Argument::Required, None) => {
                    let next = rest.next_if(|(_, next)| !looks_like_option(next));
                    Some(next.map(|(_, next)| next.clone()).ok_or_else(|| {
                        let message = format!("`--{}` needs a value", meaning.name());
                        let remedy = format!("write --{}=VALUE", meaning.name());
                        ParseError::new(place.clone(), message).with_remedy(remedy)
                    })?)
                }
                (Argument::Optional, None) => {
                    let next = rest.next_if(|(_, next)| !looks_like_option(next));
                    next.map(|(_, next)| next.clone())
                }
                (_, inline) => inline,
            };
            self.take(&meaning, value, place)?;
        }
        Ok(())
    }

    fn take(
        &mut self,
        meaning: &Meaning,
        value: Option<String>,
        place: Place,
    ) -> Result<(), ParseError> {
        match meaning {
            Meaning::Program(option) => {
                let text = value.unwrap_or_default();
                (option.apply)(&mut self.settings, &text).map_err(|complaint| complaint.at(place))
            }
            Meaning::ProgramNotYet(name) => {
                let message = format!("option `--{name}` is known to fio but not supported yet");
                Err(ParseError::new(place, message))
            }
            Meaning::Job(entry) => {
                self.assign(entry.name(), value, place);
                Ok(())
            }
        }
    }

    fn assign(&mut self, name: &str, value: Option<String>, place: Place) {
        let starts_job = name == "name";
        if starts_job || self.sections.is_empty() {
            let title = value.clone().filter(|_| starts_job);
            let title = title.unwrap_or_else(|| "global".to_owned());
            let place = place.clone();
            self.sections.push(Section { name: title, place, assignments: Vec::new() });
        }
        if let Some(section) = self.sections.last_mut() {
            section.assignments.push(Assignment { name: name.to_owned(), value, place });
        }
    }
}

/// The text after the dashes, or nothing for a file name; `-` is one.
fn option_word(arg: &str) -> Option<String> {
    if let Some(long) = arg.strip_prefix("--") {
        return Some(long.to_owned());
    }
    let short = arg.strip_prefix('-').filter(|rest| !rest.is_empty())?;
    Some(match short {
        "o" => "output".to_owned(),
        "h" => "help".to_owned(),
        "v" => "version".to_owned(),
        long => long.to_owned(),
    })
}

/// fio would take the next option for the value of one that lacks its own.
fn looks_like_option(arg: &str) -> bool {
    let word = arg.strip_prefix("--").or_else(|| arg.strip_prefix('-'));
    word.is_some_and(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))
}

/// The option of exactly this name, or the only one that starts so.
fn resolve(word: &str) -> Result<Meaning, Complaint> {
    let program = PROGRAM_OPTIONS.iter().map(|option| (option.name, Meaning::Program(option)));
    let not_yet = PROGRAM_NOT_YET.iter().map(|name| (*name, Meaning::ProgramNotYet(name)));
    let job = options::names().map(|(name, entry)| (name, Meaning::Job(entry)));
    let mut found: Vec<(&str, Meaning)> =
        program.chain(not_yet).chain(job).filter(|(name, _)| name.starts_with(word)).collect();
    if word.is_empty() || found.is_empty() {
        return Err(unknown(word));
    }
    let exact = found.iter().position(|(name, _)| *name == word);
    let only = found.iter().all(|(_, meaning)| meaning.name() == found[0].1.name());
    if let Some(index) = exact.or_else(|| only.then_some(0)) {
        return Ok(found.swap_remove(index).1);
    }
    let names: Vec<String> = found.iter().take(6).map(|(name, _)| format!("--{name}")).collect();
    let remedy = format!("it could be {}", names.join(", "));
    Err(Complaint::new(format!("option `--{word}` is ambiguous")).with_remedy(remedy))
}

fn unknown(word: &str) -> Complaint {
    if options::is_foreign(word) {
        let message = format!("option `--{word}` belongs to an engine of fio that is not here");
        return Complaint::new(message).with_remedy("--enghelp lists the engines");
    }
    let program = PROGRAM_OPTIONS.iter().map(|option| option.name);
    let candidates = program.chain(options::names().map(|(name, _)| name));
    let complaint = Complaint::new(format!("unknown option `--{word}`"));
    match options::nearest(word, candidates) {
        Some(known) => complaint.with_remedy(format!("did you mean `--{known}`?")),
        None => complaint,
    }
}
