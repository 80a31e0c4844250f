//! From arguments to an exit code.
//!
//! Data flow: first argument -> subcommand, default job or fio's own command line -> plans ->
//! run -> report on stdout or in `--output`, complaints on stderr.
//!
//! Exit codes are fio's: 0, the number of failed jobs, 1 for bad input, 128 after a signal.
//!
//! Not here: what the options mean (`fio_compat`), the default job (`default_job`).

use fio_compat::{Action, Invocation, parse_command_line, render};

use crate::disk::Disks;
use crate::machine::Machine;
use crate::output::{Output, complain};
use crate::plan::{Kind, Plan, survey};
use crate::progress::Progress;
use crate::report::Frame;
use crate::run::conductor::Manner;
use crate::run::{Finished, conduct};
use crate::signals::{self, Signals};
use crate::status::Status;
use crate::{
    bandwidth_log, compare, default_job, device, doctor, environment, overwrite, refusal, remarks,
    report, summary, sweep,
};

/// The exit code of everything that was refused before it started.
const REFUSED: u8 = 1;

const USAGE: &str = "\
usage: mfio-bench [OPTION…] JOBFILE…       run fio jobs
       mfio-bench --name=NAME [OPTION…]    run a job given on the command line
       mfio-bench [--size=S] [--runtime=T] [--directory=D]
                                           run the default job: write, verify, read
       mfio-bench compare --a SIDE --b SIDE [--c SIDE…] [--min-ratio R] [--max-cpu-ratio R]
                          [--gate=median|bound] [--rounds N] [--output-format=normal|json]
                          [--output=FILE] JOB…
                                           run one job on engines in alternation; a SIDE is an
                                           engine (io_uring, raw_uring, psync, sync, vsync,
                                           pvsync, pvsync2, io_uring_cmd, null, nop or raw_nop)
                                           and what differs: \"io_uring iodepth=8\"
       mfio-bench sweep [--over OPTION=LOW..HIGH|OPTION=V,V…|rate_iops=auto] [--steps N]
                        [--rounds N] [--goal p99<=500us] [--csv=FILE] [--svg=FILE]
                        [--output-format=normal|json] [--output=FILE] JOB…
                                           throughput against latency, and where it bends
       mfio-bench doctor [--output-format=normal|json] [TARGET…]
                                           say what this machine and the targets can do,
                                           and how to mend what is wrong; changes nothing;
                                           exits with 1 where something is wrong

Options are fio's: --name value, --name=value, unique prefixes.
  --output-format=normal|terse|json|json+[,...]  --output=FILE  --minimal
  --terse-version=2|3|4|5  --append-terse  --status-interval=T  --bandwidth-log[=PREFIX]
  --eta=always|never|auto  --eta-interval=T  --eta-newline=T
  --section=NAME (only that job of the job files; may be repeated)
  --max-jobs=N  --alloc-size=K (limits of fio's memory: accepted, without effect)
  --set=OPTION=VALUE  --effective  --cmdhelp[=OPTION]  --enghelp[=ENGINE]
  --strict=fio (read numbers as fio does: runtime=10sec is 10 us; else they are exact)
  --parse-only  --showcmd  --readonly  --version  --help

Job options, by subject (--cmdhelp=OPTION tells more of one):
";

/// Runs the program.
pub(crate) fn main(args: &[String]) -> u8 {
    let outcome = match args.first().map(String::as_str) {
        Some(name @ ("compare" | "sweep")) if wants_usage(&args[1..]) => {
            print(&mut Output::Stdout, &usage_of(name)).map(|()| 0)
        }
        Some("compare") => compare::main(&args[1..]),
        Some("doctor") => doctor::main(&args[1..]),
        Some("sweep") => sweep::main(&args[1..]),
        _ => fio(args).inspect_err(|line| refusal::document(args, line)),
    };
    outcome.unwrap_or_else(|line| {
        complain(&format!("mfio-bench: {line}"));
        REFUSED
    })
}

/// Whether the arguments of a subcommand ask what they may be.
fn wants_usage(args: &[String]) -> bool {
    args.iter().any(|arg| arg == "--help" || arg == "-h")
}

/// What stands in the usage of one subcommand.
fn usage_of(subcommand: &str) -> String {
    let head = format!("       mfio-bench {subcommand} ");
    let mut lines = USAGE.lines().skip_while(|line| !line.starts_with(&head));
    let first = lines.next().unwrap_or_default().trim_start();
    let rest = lines.take_while(|line| line.starts_with("        "));
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    format!(
        "usage: {first}\n{rest}\nJOB is fio's: a job file, or --name=NAME and options; \
         mfio-bench --help lists them.\n"
    )
}

/// Complains about an argument that is no text.
pub(crate) fn refuse_bytes(argument: &std::ffi::OsStr) -> u8 {
    let shown = argument.to_string_lossy();
    complain(&format!("mfio-bench: the argument `{shown}` is not UTF-8; rename what it names"));
    REFUSED
}

/// fio's command line, or none at all.
fn fio(args: &[String]) -> Result<u8, String> {
    let invocation = parse_command_line(args, &Machine).map_err(|error| error.to_string())?;
    let mut stdout = Output::Stdout;
    let text = match &invocation.action {
        Action::Print(text) => Some(text.clone()),
        Action::Help => Some(format!("{USAGE}{}", fio_compat::option_help())),
        // Programs that run fio look in the first line for the version they can work with.
        Action::Version => Some(format!("{}\n{}\n", render::FIO_VERSION, report::VERSION)),
        Action::Run if invocation.effective && !invocation.jobs.is_empty() => {
            Some(invocation.show_effective())
        }
        Action::Run if invocation.showcmd && !invocation.jobs.is_empty() => {
            Some(format!("{}\n", invocation.show_command()))
        }
        Action::Run => None,
    };
    if let Some(text) = text {
        return print(&mut stdout, &text).map(|()| 0);
    }
    if invocation.jobs.is_empty() {
        return default_job::main(invocation);
    }
    if invocation.parse_only {
        warn(&invocation, &mut stdout);
        return Ok(0);
    }
    let manner = Manner { filled: false, remove: false };
    run(&invocation, manner, Vec::new(), false).map(|ran| ran.exit_code)
}

/// A run that has printed its report.
pub(crate) struct Ran {
    /// What to exit with.
    pub(crate) exit_code: u8,
}

/// Warnings belong to stderr, except where a parser reads the output: there they go inside.
fn warn(invocation: &Invocation, output: &mut Output) {
    for warning in &invocation.warnings {
        tell(invocation, output, &format!("mfio-bench: warning: {warning}"));
    }
}

/// As with fio, text for people goes where the report goes if that is a file; scripts take
/// anything on stderr for a failure. Into documents it goes by another way.
fn tell(invocation: &Invocation, output: &mut Output, line: &str) {
    if invocation.has_document() {
        return;
    }
    match output {
        Output::File(_) if invocation.is_for_people() => drop(output.print(&format!("{line}\n"))),
        _ => complain(line),
    }
}

/// Plans, runs and reports all jobs of `invocation`. `notes` join its warnings in the report;
/// `default` adds plain progress lines and the summary of the default job.
///
/// # Errors
/// One line; no job was started.
pub(crate) fn run(
    invocation: &Invocation,
    manner: Manner,
    notes: Vec<String>,
    default: bool,
) -> Result<Ran, String> {
    let begun_unix_ms = crate::clock::unix_ms();
    let plans = survey(&invocation.jobs)?;
    check_readonly(invocation.readonly, &plans)?;
    check_outputs(invocation, &plans)?;
    let claims = device::claim(&plans)?;
    let signals = Signals::listen().map_err(|error| format!("cannot handle signals: {error}"))?;
    let mut output = Output::open(invocation.output.as_deref())?;
    warn(invocation, &mut output);
    let counted = plans.iter().filter(|plan| plan.job.reporting.disk_util);
    let paths = counted.flat_map(|plan| plan.targets.clone());
    let used = paths.filter(|target| target.kind != Kind::Unused);
    let directories: Vec<_> = used.map(|target| existing(&target.path)).collect();
    let disks = Disks::observe(directories.iter().map(std::path::PathBuf::as_path));
    let status = Status::new(invocation, &disks, signals.status(), begun_unix_ms);
    let mut progress = Progress::new(invocation, &mut output, default, status);
    progress.announce();
    let finished = conduct(plans, claims, manner, signals.flag(), &mut progress);
    let failed_logs = progress.into_failed_logs();
    let finished = match finished {
        // Interrupted before any job began: the report is empty, but it is one.
        Err(_) if signals.received().is_some() => Vec::new(),
        other => other?,
    };
    failed_logs.iter().for_each(|line| complain(&format!("mfio-bench: {line}")));
    let mut notes = notes;
    notes.extend(failed_logs);
    notes.extend(invocation.warnings.iter().map(ToString::to_string));
    let found = [degraded(&finished), remarks::remarks(&finished)].concat();
    notes.extend(found.iter().cloned());
    notes.extend(remarks::thin_tails(&finished));
    let people = !default && invocation.is_for_people();
    let verified = if people { summary::verified(&finished) } else { Vec::new() };
    let ending = Ending { signal: signals.received(), notes, begun_unix_ms, default };
    let ran = conclude(invocation, finished, &disks, ending, &mut output);
    for line in found {
        tell(invocation, &mut output, &format!("mfio-bench: note: {line}"));
    }
    for line in verified {
        tell(invocation, &mut output, &format!("mfio-bench: verify: {line}"));
    }
    ran
}

/// Reports and logs must not end where the jobs' data is.
fn check_outputs(invocation: &Invocation, plans: &[Plan]) -> Result<(), String> {
    if let Some(name) = &invocation.output {
        overwrite::check(&format!("--output={name}"), name, plans)?;
    }
    let logs = invocation.bandwidth_log.iter().flat_map(|prefix| bandwidth_log::names(prefix));
    for name in logs {
        overwrite::check(&format!("the log {name}"), &name, plans)?;
    }
    Ok(())
}

/// What a trace writes is known only when there are plans.
///
/// # Errors
/// One line, if a job writes although that is `readonly`.
pub(crate) fn check_readonly(readonly: bool, plans: &[Plan]) -> Result<(), String> {
    match plans.iter().find(|plan| readonly && plan.job.rw.writes()) {
        None => Ok(()),
        Some(plan) => Err(format!(
            "job `{}`: trim and write operations are not allowed with the --readonly parameter; \
             replay_skip=write,trim leaves those of a trace out",
            plan.job.name
        )),
    }
}

/// The file itself, or the directory it will be made in.
fn existing(path: &std::path::Path) -> std::path::PathBuf {
    if path.exists() {
        return path.to_path_buf();
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or_else(|| std::path::Path::new(".")).to_path_buf()
}

/// What engines could not have, each once.
fn degraded(finished: &[Finished]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for line in finished.iter().flat_map(|job| &job.outcome.traits.degraded) {
        if !lines.contains(line) {
            lines.push(line.clone());
        }
    }
    lines
}

/// Where the jobs ran; of very many files, the first stand for all.
fn whereabouts(finished: &[Finished]) -> serde_json::Value {
    const PATHS_MAX: usize = 64;
    let targets = finished.iter().flat_map(|job| &job.plan.targets);
    let mut paths: Vec<std::path::PathBuf> = Vec::new();
    for target in targets.filter(|target| target.kind != Kind::Unused) {
        if paths.len() < PATHS_MAX && !paths.contains(&target.path) {
            paths.push(target.path.clone());
        }
    }
    environment::describe(std::path::Path::new("/"), &paths)
}

struct Ending {
    signal: Option<usize>,
    notes: Vec<String>,
    begun_unix_ms: u64,
    default: bool,
}

fn conclude(
    invocation: &Invocation,
    finished: Vec<Finished>,
    disks: &Disks,
    ending: Ending,
    output: &mut Output,
) -> Result<Ran, String> {
    let texts = invocation.is_for_people();
    let document = invocation.has_document();
    let mut notes = ending.notes;
    if let Some(signal) = ending.signal {
        let line = format!("fio: terminating on signal {signal}");
        if texts && !document {
            print(output, &format!("\n{line}\n"))?;
        }
        notes.push(line);
    }
    let errors = report::failure_lines(&finished);
    errors.iter().for_each(|line| complain(line));
    let place = document.then(|| whereabouts(&finished));
    let failed = report::failed_jobs(&finished);
    let summary = (ending.default && texts).then(|| summary::text(&finished));
    let frame = Frame {
        invocation,
        begun_unix_ms: ending.begun_unix_ms,
        disk_util: disks.used(),
        warnings: notes,
    };
    let mut report = report::run_report(frame, finished);
    if let Some(place) = place {
        report.extra["errors"] = errors.into();
        report.extra["environment"] = place;
    }
    for text in report::rendered(&report, invocation) {
        print(output, &text)?;
    }
    if let Some(summary) = summary {
        print(output, &summary)?;
    }
    let exit_code = if ending.signal.is_some() { signals::EXIT_CODE } else { failed };
    Ok(Ran { exit_code })
}

fn print(output: &mut Output, text: &str) -> Result<(), String> {
    output.print(text).map_err(|error| format!("cannot write the report: {error}"))
}
