//! The options that belong to the run as a whole, one row each.
//!
//! Data flow: name + text -> a setting of the `Invocation`.
//!
//! Not here: options of jobs (`options`).

use crate::error::{Complaint, Place, Warning};
use crate::invocation::{Action, Eta, Invocation, OutputFormat};
use crate::options::{engine_details, option_details, units};
use crate::render::TerseVersion;

/// fio refuses to redraw the progress line more often.
const ETA_INTERVAL_MIN_NS: u64 = 250_000_000;

/// What the program options have said so far.
#[derive(Default)]
pub(super) struct Settings {
    pub(super) invocation: Invocation,
    /// Names given to `--section`.
    pub(super) sections: Vec<String>,
    /// Numbers are read as fio reads them.
    pub(super) lenient: bool,
    /// Options that win over those of every job, and their values.
    pub(super) overrides: Vec<(String, String)>,
}

/// How an option gets its value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Argument {
    /// Never.
    None,
    /// Only behind `=`; it may be missing.
    Inline,
    /// Behind `=` or as the next argument.
    Required,
    /// Behind `=` or as the next argument, unless that is an option; it may be missing.
    Optional,
}

/// One program option.
pub(super) struct ProgramOption {
    pub(super) name: &'static str,
    pub(super) argument: Argument,
    pub(super) apply: fn(&mut Settings, &str) -> Result<(), Complaint>,
}

const fn flag(
    name: &'static str,
    apply: fn(&mut Settings, &str) -> Result<(), Complaint>,
) -> ProgramOption {
    ProgramOption { name, argument: Argument::None, apply }
}

const fn valued(
    name: &'static str,
    apply: fn(&mut Settings, &str) -> Result<(), Complaint>,
) -> ProgramOption {
    ProgramOption { name, argument: Argument::Required, apply }
}

const fn inline(
    name: &'static str,
    apply: fn(&mut Settings, &str) -> Result<(), Complaint>,
) -> ProgramOption {
    ProgramOption { name, argument: Argument::Inline, apply }
}

pub(super) static PROGRAM_OPTIONS: &[ProgramOption] = &[
    valued("output", |settings, text| {
        settings.invocation.output = Some(text.to_owned());
        Ok(())
    }),
    valued("output-format", |settings, text| {
        settings.invocation.formats = formats(text)?;
        Ok(())
    }),
    valued("section", |settings, text| {
        settings.sections.push(text.to_owned());
        Ok(())
    }),
    valued("eta", |settings, text| {
        settings.invocation.eta = eta(text)?;
        Ok(())
    }),
    valued("eta-interval", |settings, text| {
        settings.invocation.eta_interval_ns = eta_interval_ns(text)?;
        Ok(())
    }),
    valued("eta-newline", |settings, text| {
        let time_ns = time_of("eta-newline", text)?;
        settings.invocation.eta_newline_ns = Some(time_ns).filter(|ns| *ns > 0);
        Ok(())
    }),
    valued("status-interval", |settings, text| {
        let time_ns = time_of("status-interval", text)?;
        settings.invocation.status_interval_ns = Some(time_ns).filter(|ns| *ns > 0);
        Ok(())
    }),
    flag("minimal", |settings, _| {
        settings.invocation.formats = vec![OutputFormat::Terse];
        Ok(())
    }),
    flag("append-terse", |settings, _| {
        let mut formats = std::mem::take(&mut settings.invocation.formats);
        formats.push(OutputFormat::Terse);
        settings.invocation.formats = in_order(formats);
        Ok(())
    }),
    valued("terse-version", |settings, text| {
        settings.invocation.terse_version = terse_version(text)?;
        Ok(())
    }),
    ProgramOption {
        name: "bandwidth-log",
        argument: Argument::Inline,
        apply: |settings, text| {
            let prefix = if text.is_empty() { "agg" } else { text };
            settings.invocation.bandwidth_log = Some(prefix.to_owned());
            Ok(())
        },
    },
    flag("parse-only", |settings, _| {
        settings.invocation.parse_only = true;
        Ok(())
    }),
    flag("showcmd", |settings, _| {
        settings.invocation.showcmd = true;
        Ok(())
    }),
    flag("readonly", |settings, _| {
        settings.invocation.readonly = true;
        Ok(())
    }),
    flag("help", |settings, _| {
        settings.invocation.action = Action::Help;
        Ok(())
    }),
    flag("version", |settings, _| {
        settings.invocation.action = Action::Version;
        Ok(())
    }),
    valued("set", |settings, text| {
        let Some((name, value)) = text.split_once('=') else {
            let complaint = Complaint::new(format!("`set={text}` names no option and value"));
            return Err(complaint.with_remedy("write --set OPTION=VALUE"));
        };
        let (name, value) = (name.trim().to_owned(), value.trim().to_owned());
        settings.overrides.push((name, value));
        Ok(())
    }),
    inline("strict", |settings, text| {
        settings.lenient = match text {
            "fio" => true,
            "" | "1" | "yes" | "true" => false,
            _ => {
                let complaint = Complaint::new(format!("failed parsing `strict={text}`"));
                return Err(complaint.with_remedy("write --strict=fio, or --strict (the default)"));
            }
        };
        Ok(())
    }),
    inline("cmdhelp", |settings, text| {
        let text = option_details(text)?;
        settings.invocation.action = Action::Print(text);
        Ok(())
    }),
    inline("enghelp", |settings, text| {
        let text = engine_details(text)?;
        settings.invocation.action = Action::Print(text);
        Ok(())
    }),
    flag("effective", |settings, _| {
        settings.invocation.effective = true;
        Ok(())
    }),
    valued("max-jobs", |settings, _| ignore(settings, "max-jobs")),
    valued("alloc-size", |settings, _| ignore(settings, "alloc-size")),
];

/// Known to fio, refused here until they are implemented.
pub(super) static PROGRAM_NOT_YET: &[&str] = &[
    "warnings-fatal",
    "idle-prof",
    "aux-path",
    "debug",
    "trigger",
    "trigger-file",
    "trigger-timeout",
    "trigger-remote",
    "inflate-log",
    "profile",
    "crctest",
    "cpuclock-test",
    "memcpytest",
    "client",
    "server",
    "remote-config",
    "daemonize",
    "merge-blktrace-only",
];

/// Limits of fio's shared memory, which test drivers pass. Said once each.
fn ignore(settings: &mut Settings, name: &str) -> Result<(), Complaint> {
    let message = format!("`{name}` is ignored: jobs share no memory of a fixed size here");
    let warnings = &mut settings.invocation.warnings;
    if warnings.iter().all(|warning| warning.message != message) {
        warnings.push(Warning { place: Place::COMMAND_LINE, message });
    }
    Ok(())
}

fn formats(text: &str) -> Result<Vec<OutputFormat>, Complaint> {
    let mut formats = Vec::new();
    for word in text.split(',') {
        formats.push(match word.trim() {
            "normal" => OutputFormat::Normal,
            "json" => OutputFormat::Json,
            "json+" => OutputFormat::JsonPlus,
            "terse" | "minimal" | "csv" => OutputFormat::Terse,
            other => {
                let message = format!("there is no output format `{other}`");
                return Err(Complaint::new(message).with_remedy("use normal, terse, json or json+"));
            }
        });
    }
    Ok(in_order(formats))
}

/// fio's order, each once; json+ says everything that json does.
fn in_order(mut formats: Vec<OutputFormat>) -> Vec<OutputFormat> {
    formats.sort_unstable();
    formats.dedup();
    if formats.contains(&OutputFormat::JsonPlus) {
        formats.retain(|format| *format != OutputFormat::Json);
    }
    formats
}

fn terse_version(text: &str) -> Result<TerseVersion, Complaint> {
    match text {
        "2" => Ok(TerseVersion::V2),
        "3" => Ok(TerseVersion::V3),
        "4" => Ok(TerseVersion::V4),
        "5" => Ok(TerseVersion::V5),
        _ => {
            let complaint = Complaint::new(format!("there is no terse version `{text}`"));
            Err(complaint.with_remedy("use 2, 3, 4 or 5"))
        }
    }
}

fn eta(text: &str) -> Result<Eta, Complaint> {
    match text {
        "auto" => Ok(Eta::Auto),
        "always" => Ok(Eta::Always),
        "never" => Ok(Eta::Never),
        _ => {
            let complaint = Complaint::new(format!("failed parsing `eta={text}`: no such value"));
            Err(complaint.with_remedy("valid values are auto, always, never"))
        }
    }
}

/// A time, or what is wrong with which option.
fn time_of(name: &str, text: &str) -> Result<u64, Complaint> {
    units::time_ns(text).map_err(|complaint| Complaint {
        message: format!("failed parsing `{name}={text}`: {}", complaint.message),
        ..complaint
    })
}

fn eta_interval_ns(text: &str) -> Result<u64, Complaint> {
    let time_ns = time_of("eta-interval", text)?;
    if time_ns < ETA_INTERVAL_MIN_NS {
        return Err(Complaint::new(format!("eta-interval={text} is below the minimum of 250ms")));
    }
    Ok(time_ns)
}
