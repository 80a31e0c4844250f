//! What a row of the option table is, and how a name finds its row.
//!
//! Data flow: option name -> [`Entry`].
//!
//! Not here: the rows themselves (`rows`, `known`) and reading values (`value`).

use crate::error::Complaint;
use crate::job::{Extent, Job};

use super::grammar;
use super::known::{IGNORED, Ignored, NOT_YET};
use super::rows;

/// One supported option.
pub(crate) struct Row {
    /// Canonical name, used in reports.
    pub(crate) name: &'static str,
    /// Other names fio accepts.
    pub(crate) aliases: &'static [&'static str],
    /// What its text looks like, and the field it sets.
    pub(crate) kind: Kind,
    /// The value in force, for the effective configuration.
    pub(crate) show: fn(&Job) -> String,
    /// One line for `--help`.
    pub(crate) help: &'static str,
}

/// A word, and what choosing it does.
pub(crate) type Choice = (&'static str, fn(&mut Job));

/// The grammar of a value, with the field setter it feeds.
pub(crate) enum Kind {
    /// Bare, or 0 or 1.
    Flag(fn(&mut Job, bool)),
    /// 0, 1, true, false, yes or no.
    Bool(fn(&mut Job, bool)),
    /// Any text.
    Text(fn(&mut Job, &str)),
    /// Any text, or none at all.
    OptionalText(fn(&mut Job, Option<&str>)),
    /// Texts separated by `:`, with `\:` for a colon.
    Texts(fn(&mut Job, Vec<String>)),
    /// A number in a range.
    Count {
        /// Smallest.
        min: u32,
        /// Largest.
        max: u32,
        /// Field.
        set: fn(&mut Job, u32),
    },
    /// A number with the size suffixes, from a minimum.
    Number {
        /// Smallest.
        min: u64,
        /// Field.
        set: fn(&mut Job, u64),
    },
    /// 0 to 100.
    Percent(fn(&mut Job, u8)),
    /// Bytes or a percentage of the target.
    Extent(fn(&mut Job, Extent)),
    /// Bytes for read,write,trim; `None` leaves a direction as it is.
    PerDirection(fn(&mut Job, [Option<u64>; 3])),
    /// A time; a bare number is seconds. Nanoseconds reach the field.
    Seconds(fn(&mut Job, u64)),
    /// One of some words.
    Choice {
        /// Word and what it does.
        choices: &'static [Choice],
        /// Words fio knows and we do not support yet.
        not_yet: &'static [&'static str],
    },
    /// Percentages separated by `:`.
    Percentiles(fn(&mut Job, Vec<f64>)),
    /// CPU numbers and ranges separated by commas.
    Cpus(fn(&mut Job, Vec<u32>)),
    /// A grammar of its own.
    Parsed(fn(&mut Job, &str) -> Result<(), Complaint>),
    /// A grammar of its own with size suffixes in it.
    ParsedSizes(fn(&mut Job, &str) -> Result<(), Complaint>),
    /// … which can be valid and yet not mean what it looks like: that becomes a warning.
    NotedSizes(fn(&mut Job, &str) -> Result<Option<&'static str>, Complaint>),
}

impl Kind {
    /// What a value looks like, in the words that fio's own help has for it; `None` where
    /// that depends on the option (`grammar`).
    pub(crate) fn describe(&self) -> Option<String> {
        Some(match self {
            Self::Flag(_) => "no argument (opt), or 0 or 1".to_owned(),
            Self::Bool(_) => "boolean (opt=bool): 0 or 1".to_owned(),
            Self::Text(_) => "string (opt=text)".to_owned(),
            Self::OptionalText(_) => "string, or no argument (opt or opt=text)".to_owned(),
            Self::Texts(_) => "strings separated by : (opt=a:b)".to_owned(),
            Self::Count { min, max, .. } => format!("integer from {min} to {max}"),
            Self::Number { min, .. } => format!("integer with k, m, g, t or p, at least {min}"),
            Self::Percent(_) => "percentage from 0 to 100".to_owned(),
            Self::Extent(_) => "integer with k, m, g, t or p, or a percentage".to_owned(),
            Self::PerDirection(_) => "integers for read,write,trim".to_owned(),
            Self::Seconds(_) => "time; a bare number is seconds".to_owned(),
            Self::Choice { .. } => "one of the valid values".to_owned(),
            Self::Percentiles(_) => "percentiles separated by : (opt=50:99.9)".to_owned(),
            Self::Cpus(_) => "CPUs (opt=0,2-3)".to_owned(),
            Self::Parsed(_) | Self::ParsedSizes(_) | Self::NotedSizes(_) => return None,
        })
    }

    /// What to write instead of a value that was refused without better advice.
    pub(crate) fn remedy(&self, name: &str) -> String {
        let grammar = || grammar::of(name).map(|grammar| grammar.form.to_owned());
        match self.describe().or_else(grammar) {
            Some(form) => format!("{name} takes: {form}"),
            None => format!("see --cmdhelp={name}"),
        }
    }
}

/// What a name stands for.
#[derive(Clone, Copy)]
pub(crate) enum Entry {
    /// An option we support.
    Supported(&'static Row),
    /// Accepted for compatibility, without effect.
    Ignored(&'static Ignored),
    /// Known to fio, refused for now.
    NotYet(&'static str),
}

impl Entry {
    /// Canonical name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Supported(row) => row.name,
            Self::Ignored(ignored) => ignored.name,
            Self::NotYet(name) => name,
        }
    }

    /// Whether a value may be missing although the next argument can be one.
    pub(crate) const fn is_optional(self) -> bool {
        match self {
            Self::Supported(row) => matches!(row.kind, Kind::OptionalText(_)),
            Self::Ignored(_) | Self::NotYet(_) => false,
        }
    }

    /// Whether the option may stand without a value, as getopt sees it.
    pub(crate) const fn is_flag(self) -> bool {
        match self {
            Self::Supported(row) => matches!(row.kind, Kind::Flag(_)),
            Self::Ignored(ignored) => ignored.is_flag,
            Self::NotYet(_) => true,
        }
    }
}

/// All supported rows.
pub(crate) fn rows() -> impl Iterator<Item = &'static Row> {
    groups().flat_map(|(_, rows)| rows)
}

/// The same by subject, each with its heading.
pub(crate) fn groups() -> impl Iterator<Item = (&'static str, &'static [Row])> {
    rows::ALL.iter().copied()
}

/// Every name with its entry, aliases included.
pub(crate) fn names() -> impl Iterator<Item = (&'static str, Entry)> {
    let supported = rows().flat_map(|row| {
        let all = std::iter::once(row.name).chain(row.aliases.iter().copied());
        all.map(move |name| (name, Entry::Supported(row)))
    });
    let ignored = IGNORED.iter().map(|row| (row.name, Entry::Ignored(row)));
    let not_yet = NOT_YET.iter().map(|name| (*name, Entry::NotYet(name)));
    supported.chain(ignored).chain(not_yet)
}

/// The entry of exactly this name.
pub(crate) fn find(name: &str) -> Option<Entry> {
    names().find(|(candidate, _)| *candidate == name).map(|(_, entry)| entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn table_holds_every_name_once() {
        let mut seen = BTreeSet::new();
        for (name, _) in names() {
            assert!(seen.insert(name), "{name} is listed twice");
        }
    }

    #[test]
    fn default_job_can_show_every_option() {
        let job = Job::new("a");
        for row in rows() {
            assert!(!(row.show)(&job).contains('\n'), "{}", row.name);
            assert!(!row.help.is_empty() && row.help.len() <= 60, "{}", row.name);
        }
    }
}
