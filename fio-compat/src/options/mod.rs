//! The option table and what an option's text means.
//!
//! Data flow: (name, text) -> table row -> typed value -> one field of a `Job`.
//!
//! Not here: where the text came from (`lex`, `command_line`), and checks that involve several
//! options (`job::validate`).

mod expression;
mod known;
mod parts;
mod rows;
mod suggest;
mod table;
pub(crate) mod units;
mod value;

use crate::error::Complaint;
use crate::job::Job;

pub(crate) use expression::evaluate as evaluate_expression;
pub(crate) use known::is_foreign;
pub(crate) use suggest::nearest;
pub(crate) use table::{Entry, find, names};
pub(crate) use value::apply;

/// Name and printer of every supported option, in the order of the table.
pub(crate) fn supported() -> impl Iterator<Item = (&'static str, fn(&Job) -> String)> {
    table::rows().map(|row| (row.name, row.show))
}

/// fio's `--cmdhelp`: one option by its name, or all.
pub(crate) fn option_details(name: &str) -> Result<String, Complaint> {
    let name = name.trim();
    if name.is_empty() || name == "all" {
        return Ok(option_help());
    }
    let found = table::rows().find(|row| row.name == name || row.aliases.contains(&name));
    let Some(row) = found else {
        let complaint = Complaint::new(format!("there is no option `{name}`"));
        let nearest = nearest(name, table::rows().map(|row| row.name));
        return Err(match nearest {
            Some(known) => complaint.with_remedy(format!("did you mean {known}?")),
            None => complaint.with_remedy("--cmdhelp=all lists them"),
        });
    };
    let mut text = format!("{:>20}: {}\n", row.name, row.help);
    for alias in row.aliases {
        text.push_str(&format!("{:>20}: {alias}\n", "alias"));
    }
    let default = (row.show)(&Job::new(""));
    let default = if default.is_empty() { "no default".to_owned() } else { default };
    text.push_str(&format!("{:>20}: {default}\n", "default"));
    Ok(text)
}

/// fio's `--enghelp`: the engines, or the options of one.
pub(crate) fn engine_details(name: &str) -> Result<String, Complaint> {
    const RING: &str = "fixedbufs\nregisterfiles\n";
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
    let ring = ["io_uring", "libaio", "posixaio", "raw_uring"].contains(&name.trim());
    Ok(if ring { RING.to_owned() } else { format!("engine {name} has no options of its own\n") })
}

/// One line for each supported option, for `--help`.
#[must_use]
pub fn option_help() -> String {
    table::rows().map(|row| format!("  {:<28} {}\n", row.name, row.help)).collect()
}
