//! The supported options, one row each, by subject as in fio's own documentation.
//!
//! Data flow: `table` walks these rows; adding an option is adding a row and a `Job` field.
//!
//! Not here: reading values (`value`), names that are refused or ignored (`known`).

mod checking;
mod content;
mod control;
mod durability;
mod engine;
mod flags;
mod jobs;
mod layout;
mod memory;
mod pace;
mod pattern;
mod replay;
mod reporting;
mod steering;
mod target;
mod time;
mod verify;
mod workload;

use super::table::{Choice, Kind, Row};
use crate::job::{Extent, Job};

/// Every row, in the order of the effective configuration, and what is over them in `--help`.
pub(super) static ALL: &[(&str, &[Row])] = &[
    ("Jobs and processes", jobs::ROWS),
    ("Files, devices and amounts", target::ROWS),
    ("Kind and size of the I/Os", pattern::ROWS),
    ("Engine and queue", engine::ROWS),
    ("Time", time::ROWS),
    ("Verification", verify::ROWS),
    ("Statistics, reports and logs", reporting::ROWS),
    ("Where the I/Os go: mixes, distributions, files, zones", workload::ROWS),
    ("Order, end and errors of jobs", control::ROWS),
    ("Rates and pauses", pace::ROWS),
    ("Latency goals and steady state", steering::ROWS),
    ("Contents of blocks", content::ROWS),
    ("Verification: threads, state, trims", checking::ROWS),
    ("Memory", memory::ROWS),
    ("Durability", durability::ROWS),
    ("Traces", replay::ROWS),
    ("Making, opening and deleting files", layout::ROWS),
    ("Flags of single transfers", flags::ROWS),
];

/// The names of all engines.
pub(super) fn engine_names() -> impl Iterator<Item = &'static str> {
    engine::ENGINES.iter().map(|(name, _)| *name)
}

pub(super) use engine::choose as choose_engine;

const fn row(
    name: &'static str,
    aliases: &'static [&'static str],
    kind: Kind,
    show: fn(&Job) -> String,
    help: &'static str,
) -> Row {
    Row { name, aliases, kind, show, help }
}

fn digit(value: bool) -> String {
    u8::from(value).to_string()
}

fn extent(value: Extent) -> String {
    match value {
        Extent::Bytes(bytes) => bytes.to_string(),
        Extent::Percent(percent) => format!("{percent}%"),
    }
}

/// Seconds with as many decimals as needed, and the unit spelled out.
fn seconds(nanoseconds: u64) -> String {
    let (whole, rest) = (nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000);
    let fraction = format!("{rest:09}");
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{whole}s") } else { format!("{whole}.{fraction}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_show_as_seconds_without_loss() {
        assert_eq!(seconds(0), "0s");
        assert_eq!(seconds(1_500_000_000), "1.5s");
        assert_eq!(seconds(7_000), "0.000007s");
    }
}
