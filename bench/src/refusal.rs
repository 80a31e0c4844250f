//! A refusal for readers of documents: where JSON was asked for, JSON is what they get.
//!
//! Data flow: arguments and the line that says what is wrong -> a report without jobs, whose
//! errors hold the line -> stdout or the file of `--output`. The line itself goes to stderr as
//! always.
//!
//! Not here: finding out what is wrong (`fio_compat`, `plan`).

use fio_compat::output_settings;
use fio_compat::report::RunReport;
use serde_json::json;

use crate::clock::unix_ms;
use crate::output::Output;
use crate::report::{VERSION, rendered};

/// Writes the document of a run that was refused with `line`, where one is wanted.
pub(crate) fn document(args: &[String], line: &str) {
    let mut asked = output_settings(args);
    if !asked.has_document() {
        return;
    }
    // Lines without jobs would be empty lines in front of the document.
    asked.formats.retain(|format| format.is_document());
    let report = RunReport {
        version: VERSION.to_owned(),
        timestamp_ms: unix_ms(),
        utc_offset_s: 0,
        global_options: Vec::new(),
        jobs: Vec::new(),
        disk_util: Vec::new(),
        warnings: Vec::new(),
        extra: json!({ "errors": [line] }),
    };
    // The line on stderr is all that can be done where the document cannot be written either.
    let Ok(mut output) = Output::open(asked.output.as_deref()) else { return };
    for text in rendered(&report, &asked) {
        drop(output.print(&text));
    }
}
