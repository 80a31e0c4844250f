//! `mfio-bench doctor`: what this machine and the targets can do, as text or as JSON.
//!
//! Data flow: arguments -> `mfio_engine::doctor` -> reports -> stdout.
//!
//! Exit codes: 0, or 1 where something is wrong (not merely degraded) or the arguments are.
//!
//! Not here: finding anything out (`mfio_engine::doctor`).

use std::path::Path;

use mfio_engine::doctor::{Doctor, Finding, Report, State};
use serde_json::{Value, json};

use crate::output::Output;
use crate::report::VERSION;

const USAGE: &str = "usage: mfio-bench doctor [--output-format=normal|json] [TARGET…]";

/// Raised whenever a key of the JSON document is taken away or changes its meaning.
const FORMAT: u32 = 1;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    json: bool,
    targets: Vec<&'a str>,
}

/// Runs the subcommand; `args` follow its name.
///
/// # Errors
/// One line.
pub(crate) fn main(args: &[String]) -> Result<u8, String> {
    let Some(request) = parse(args)? else {
        return print(&format!("{USAGE}\n")).map(|()| 0);
    };
    let doctor = Doctor::new();
    let machine = doctor.machine();
    let targets = request.targets.iter().map(|target| doctor.target(Path::new(target)));
    let targets: Vec<Report> = targets.collect();
    let worst = targets.iter().fold(machine.worst(), |worst, report| worst.max(report.worst()));
    let text = if request.json {
        format!("{:#}\n", document(&machine, &targets, worst))
    } else {
        let targets = targets.iter().map(|report| format!("\n{report}"));
        std::iter::once(machine.to_string()).chain(targets).collect()
    };
    print(&text)?;
    Ok(u8::from(worst == State::Wrong))
}

/// `None` where only the usage is wanted.
fn parse(args: &[String]) -> Result<Option<Request<'_>>, String> {
    let mut request = Request { json: false, targets: Vec::new() };
    let mut rest = args.iter().map(String::as_str);
    while let Some(arg) = rest.next() {
        let format = match arg {
            "--help" | "-h" => return Ok(None),
            "--" => {
                request.targets.extend(rest.by_ref());
                continue;
            }
            "--output-format" => rest.next().ok_or("--output-format needs a value")?,
            _ => match arg.strip_prefix("--output-format=") {
                Some(format) => format,
                None if arg.starts_with('-') => {
                    return Err(format!("doctor: unrecognized option '{arg}'; {USAGE}"));
                }
                None => {
                    request.targets.push(arg);
                    continue;
                }
            },
        };
        request.json = match format {
            "json" => true,
            "normal" => false,
            other => return Err(format!("--output-format={other}: use normal or json")),
        };
    }
    Ok(Some(request))
}

fn document(machine: &Report, targets: &[Report], worst: State) -> Value {
    let targets = targets.iter().map(|report| {
        json!({
            "target": report.subject,
            "state": report.worst().name(),
            "findings": findings(report),
        })
    });
    json!({
        "mfio-bench version": VERSION,
        "format": FORMAT,
        "state": worst.name(),
        "machine": { "state": machine.worst().name(), "findings": findings(machine) },
        "targets": targets.collect::<Value>(),
    })
}

fn findings(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "what": finding.what,
            "value": finding.value,
            "state": finding.state.name(),
            "why": finding.why,
            "do": finding.remedy,
        })
    };
    report.findings.iter().map(finding).collect()
}

fn print(text: &str) -> Result<(), String> {
    let printed = Output::Stdout.print(text);
    printed.map_err(|error| format!("cannot write the report: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(args: &[&str]) -> Vec<String> {
        args.iter().map(|&arg| arg.to_owned()).collect()
    }

    #[test]
    fn arguments_are_targets_and_a_format() {
        let cases: [(&[&str], bool, &[&str]); 4] = [
            (&[], false, &[]),
            (&["--output-format=json", "a"], true, &["a"]),
            (&["a", "--output-format", "normal", "b"], false, &["a", "b"]),
            (&["--", "--help"], false, &["--help"]),
        ];
        for (args, json, targets) in cases {
            let args = strings(args);
            let expected = Request { json, targets: targets.to_vec() };
            assert_eq!(parse(&args), Ok(Some(expected)));
        }
        assert_eq!(parse(&strings(&["--help"])), Ok(None));
        for bad in [&["--output-format"][..], &["--output-format=xml"], &["--loops=2"]] {
            assert!(parse(&strings(bad)).is_err(), "{bad:?}");
        }
    }
}
