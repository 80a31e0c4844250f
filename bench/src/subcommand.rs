//! What `compare` and `sweep` share: options of their own among fio's, one job, one CPU.
//!
//! Data flow: arguments -> [`Own`] options and the rest -> the rest and overrides -> [`Job`].
//!
//! Not here: running a job (`sample`), what is made of it (`compare`, `sweep`).

use std::collections::BTreeSet;

use fio_compat::{Action, Eta, Invocation, Job, parse_command_line};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;

use crate::machine::Machine;
use crate::output::complain;

/// How long a run lasts if the job does not say.
const RUNTIME_NS: u64 = 1_000_000_000;

/// The options of a subcommand that were given, each with its value.
pub(crate) struct Own {
    given: Vec<(&'static str, String)>,
}

impl Own {
    /// Takes the options called `names`, `--name VALUE` or `--name=VALUE`, out of `args`, and
    /// returns what is left: fio's.
    ///
    /// # Errors
    /// One line: a value is missing, or an option was given twice.
    pub(crate) fn split(
        args: &[String],
        names: &[&'static str],
    ) -> Result<(Self, Vec<String>), String> {
        let (mut given, mut rest) = (Vec::new(), Vec::new());
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let (name, inline) = match arg.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (arg.as_str(), None),
            };
            let Some(known) = names.iter().find(|known| **known == name) else {
                rest.push(arg.clone());
                continue;
            };
            let value = inline.or_else(|| args.next().cloned());
            let value = value.ok_or_else(|| format!("{name} needs a value"))?;
            if given.iter().any(|(other, _)| other == known) {
                return Err(format!("{name} was given twice"));
            }
            given.push((*known, value));
        }
        Ok((Self { given }, rest))
    }

    /// The text of an option.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// A whole number above 0.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn count(&self, name: &str, default: usize) -> Result<usize, String> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number > 0);
        number.ok_or_else(|| format!("{name}={text} is not a number above 0"))
    }

    /// A number above 0.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn float(&self, name: &str) -> Result<Option<f64>, String> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number > 0.0);
        number.map(Some).ok_or_else(|| format!("{name}={text} is not a number above 0"))
    }

    /// One of `words`, the first of which is the default.
    ///
    /// # Errors
    /// One line.
    pub(crate) fn word<'a>(&'a self, name: &str, words: &[&'a str]) -> Result<&'a str, String> {
        let Some(text) = self.text(name) else { return Ok(words[0]) };
        let known = words.iter().copied().find(|word| *word == text);
        known.ok_or_else(|| format!("{name}={text} is not one of {}", words.join(", ")))
    }
}

/// What a fio command line asks of a subcommand.
pub(crate) struct Asked {
    /// Its one job.
    pub(crate) job: Job,
    /// No job may write.
    pub(crate) readonly: bool,
    /// Nothing is to be run.
    pub(crate) parse_only: bool,
}

/// Options of the program that only mean something where fio's own report is made.
fn check_program(subcommand: &str, invocation: &Invocation) -> Result<(), String> {
    let usual = Invocation::default();
    let foreign = [
        ("--version, --cmdhelp and --enghelp", invocation.action != Action::Run),
        ("--showcmd", invocation.showcmd),
        ("--effective", invocation.effective),
        ("--status-interval", invocation.status_interval_ns.is_some()),
        ("--bandwidth-log", invocation.bandwidth_log.is_some()),
        ("--eta=always", invocation.eta == Eta::Always),
        ("--eta-interval", invocation.eta_interval_ns != usual.eta_interval_ns),
        ("--eta-newline", invocation.eta_newline_ns.is_some()),
        ("--terse-version", invocation.terse_version != usual.terse_version),
        ("terse output (--minimal, --append-terse)", invocation.formats != usual.formats),
        ("an abbreviation of --output", invocation.output.is_some()),
    ];
    match foreign.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((option, _)) => Err(format!("{option}: not with {subcommand}; leave it out")),
    }
}

/// The one job of a fio command line, with `overrides` that win over everything in it. Warnings
/// go to stderr unless they are among `said` already.
///
/// # Errors
/// One line.
pub(crate) fn one_job(
    subcommand: &str,
    args: &[String],
    overrides: &[(String, String)],
    said: &mut BTreeSet<String>,
) -> Result<Asked, String> {
    // Without it the parser would have something to say about a missing engine.
    let engine = std::iter::once("--ioengine=io_uring".to_owned());
    let overrides = overrides.iter().map(|(name, value)| format!("--set={name}={value}"));
    let args: Vec<String> = engine.chain(overrides).chain(args.iter().cloned()).collect();
    let invocation = parse_command_line(&args, &Machine).map_err(|error| error.to_string())?;
    check_program(subcommand, &invocation)?;
    for warning in &invocation.warnings {
        let line = format!("mfio-bench: warning: {warning}");
        if said.insert(line.clone()) {
            complain(&line);
        }
    }
    let mut jobs = invocation.jobs;
    let mut job = match (jobs.pop(), jobs.is_empty()) {
        (Some(job), true) => job,
        (None, _) => {
            let needs = "needs a job: a job file, or --name=NAME and options";
            return Err(format!("{subcommand} {needs}"));
        }
        _ => return Err(format!("{subcommand} runs one job: give exactly one")),
    };
    if job.runtime_ns.is_none() && job.number_ios.is_none() {
        job.runtime_ns = Some(RUNTIME_NS);
        job.time_based = true;
    }
    let Invocation { readonly, parse_only, .. } = invocation;
    Ok(Asked { job, readonly, parse_only })
}

/// The last CPU this process may use: the first ones serve most interrupts.
pub(crate) fn last_cpu() -> Option<u32> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).ok()?;
    let allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let last = (0..CpuSet::count()).rev().find(allowed)?;
    u32::try_from(last).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn own_options_are_taken_out_and_the_rest_stays_in_order() {
        let args = args("--a=x --name j --rounds 3 --bs=4k a.fio");
        let (own, rest) = Own::split(&args, &["--a", "--rounds"]).unwrap();
        assert_eq!((own.text("--a"), own.count("--rounds", 7).unwrap()), (Some("x"), 3));
        assert_eq!(rest, ["--name", "j", "--bs=4k", "a.fio"]);
        assert_eq!(own.count("--goal", 7).unwrap(), 7);
    }

    #[test]
    fn missing_and_repeated_and_bad_values_are_refused() {
        let refused = |text: &str| Own::split(&args(text), &["--a"]).err().unwrap();
        assert_eq!(refused("--a"), "--a needs a value");
        assert_eq!(refused("--a=1 --a 2"), "--a was given twice");
        let (own, _) = Own::split(&args("--a=-1"), &["--a"]).unwrap();
        assert!(own.count("--a", 1).is_err() && own.float("--a").is_err());
        assert!(own.word("--a", &["x", "y"]).is_err());
    }
}
