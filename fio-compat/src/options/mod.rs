//! The option table and what an option's text means.
//!
//! Data flow: (name, text) -> table row -> typed value -> one field of a `Job`.
//!
//! Not here: where the text came from (`lex`, `command_line`), and checks that involve several
//! options (`job::validate`).

mod expression;
mod grammar;
mod known;
mod lenient;
mod parts;
mod pattern_file;
mod rows;
mod suggest;
mod table;
pub(crate) mod units;
mod value;

use crate::error::Complaint;
use crate::job::Job;

pub(crate) use expression::evaluate as evaluate_expression;
pub(crate) use known::is_foreign;
pub(crate) use lenient::{Reading, reading};
pub(crate) use pattern_file::filled as with_pattern_files;
pub(crate) use suggest::nearest;
use table::Kind;
pub(crate) use table::{Entry, Row, find, names};
pub(crate) use value::apply;

/// The longest pattern; fio has no limit, but a job's text must not multiply (F49).
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// Name and printer of every supported option, in the order of the table.
pub(crate) fn supported() -> impl Iterator<Item = (&'static str, fn(&Job) -> String)> {
    table::rows().map(|row| (row.name, row.show))
}

/// The same, without those that nothing else sets: their values may be as long as a job file, and
/// are looked at with every assignment (F49).
pub(crate) fn entangled() -> impl Iterator<Item = (&'static str, fn(&Job) -> String)> {
    let alone = |row: &&Row| {
        let text = matches!(row.kind, Kind::Text(_) | Kind::OptionalText(_) | Kind::Texts(_));
        let list = matches!(row.kind, Kind::Percentiles(_));
        text || list || row.name == "ignore_error" || row.name.ends_with("_pattern")
    };
    table::rows().filter(move |row| !alone(row)).map(|row| (row.name, row.show))
}

/// fio's `--cmdhelp`: one option by its name, or all.
pub(crate) fn option_details(name: &str) -> Result<String, Complaint> {
    let name = name.trim();
    if name.is_empty() || name == "all" {
        return Ok(option_help());
    }
    let row = match find(name) {
        Some(Entry::Supported(row)) => row,
        Some(Entry::Ignored(row)) => {
            return Ok(format!("{:>20}: accepted without effect: {}\n", row.name, row.reason));
        }
        Some(Entry::NotYet(name)) => {
            return Ok(format!("{name:>20}: known to fio but not supported yet\n"));
        }
        None => {
            let complaint = Complaint::new(format!("there is no option `{name}`"));
            return Err(match nearest(name, names().map(|(name, _)| name)) {
                Some(known) => complaint.with_remedy(format!("did you mean {known}?")),
                None => complaint.with_remedy("--cmdhelp=all lists them"),
            });
        }
    };
    let mut text = format!("{:>20}: {}\n", row.name, row.help);
    for alias in row.aliases {
        text.push_str(&format!("{:>20}: {alias}\n", "alias"));
    }
    let grammar = grammar::of(row.name);
    let form = row.kind.describe().or_else(|| grammar.map(|grammar| grammar.form.to_owned()));
    text.push_str(&format!("{:>20}: {}\n", "type", form.unwrap_or_default()));
    if let Some(grammar) = grammar {
        text.push_str(&format!("{:>20}: {}\n", "such as", grammar.examples.join("  ")));
    }
    let default = (row.show)(&Job::new(""));
    // Of lists for each direction, only the commas may be left.
    let none = default.bytes().all(|byte| byte == b',');
    let default = if none { "no default".to_owned() } else { default };
    text.push_str(&format!("{:>20}: {default}\n", "default"));
    if let Kind::Choice { choices, .. } = &row.kind {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        text.push_str(&format!("{:>20}: {}\n", "valid values", words.join(", ")));
    }
    Ok(text)
}

/// fio's `--enghelp`: the engines, or the options of one.
pub(crate) fn engine_details(name: &str) -> Result<String, Complaint> {
    let (name, _) = name.split_once(',').unwrap_or((name, ""));
    let engines = rows::engine_names();
    if name.trim().is_empty() {
        let list: String = engines.map(|engine| format!("\t{engine}\n")).collect();
        return Ok(format!("Available IO engines:\n{list}"));
    }
    if !rows::engine_names().any(|engine| engine == name.trim()) {
        let complaint = Complaint::new(format!("there is no engine `{name}`"));
        return Err(complaint.with_remedy("--enghelp lists them"));
    }
    let mut job = Job::new("");
    rows::choose_engine(&mut job, name.trim())?;
    let own: Vec<&str> = crate::job::engine_options::options_of(&job).collect();
    if own.is_empty() {
        return Ok(format!("engine {name} has no options of its own\n"));
    }
    let rows = table::rows().filter(|row| own.contains(&row.name));
    Ok(rows.map(|row| format!("{:<24}: {}\n", row.name, row.help)).collect())
}

/// The names of all engines, those that stand for another included.
pub fn engine_names() -> impl Iterator<Item = &'static str> {
    rows::engine_names()
}

/// One line for each supported option, for `--help`, under headings.
#[must_use]
pub fn option_help() -> String {
    let line = |row: &Row| format!("  {:<28} {}\n", row.name, row.help);
    let group = |(heading, rows): (&str, &[Row])| {
        format!("\n{heading}:\n{}", rows.iter().map(line).collect::<String>())
    };
    table::groups().map(group).collect()
}
