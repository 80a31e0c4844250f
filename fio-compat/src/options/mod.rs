//! The option table and what an option's text means.
//!
//! Data flow: (name, text) -> table row -> typed value -> one field of a `Job`.
//!
//! Not here: where the text came from (`lex`, `command_line`), and checks that involve several
//! options (`job::validate`).

mod expression;
mod known;
mod rows;
mod suggest;
mod table;
pub(crate) mod units;
mod value;

use crate::job::Job;

pub(crate) use expression::evaluate as evaluate_expression;
pub(crate) use suggest::nearest;
pub(crate) use table::{Entry, find, names};
pub(crate) use value::apply;

/// Name and printer of every supported option, in the order of the table.
pub(crate) fn supported() -> impl Iterator<Item = (&'static str, fn(&Job) -> String)> {
    table::rows().map(|row| (row.name, row.show))
}

/// One line for each supported option, for `--help`.
#[must_use]
pub fn option_help() -> String {
    table::rows().map(|row| format!("  {:<28} {}\n", row.name, row.help)).collect()
}
