//! Reports to text: fio's output for people, its JSON, terse lines, logs and progress line.
//!
//! Data flow: `RunReport` -> `String`; the caller decides where it goes.
//!
//! Not here: any number that is not already in the report.

mod clock;
mod direction;
mod eta;
mod json;
mod layout;
mod log;
mod normal;
mod number;
mod preamble;
mod steady;
mod terse;

pub use eta::{EtaRate, EtaSnapshot, JobState, eta_line};
pub use json::{json, json_plus};
pub use log::{LogEntry, LogKind, histogram_line, log_line, log_name};
pub use normal::normal;
pub use preamble::{layout_line, preamble};
pub use terse::{TerseVersion, terse};

/// The fio release whose output is reproduced; parsers look for `fio-X.Y`.
pub const FIO_VERSION: &str = "fio-3.42";
