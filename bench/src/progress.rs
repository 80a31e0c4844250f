//! fio's progress line while jobs run.
//!
//! Data flow: lanes once per interval -> rates, states and expected rest -> one line, ended by
//! `\r` on a terminal and by a newline elsewhere.
//!
//! Not here: the format of the line (`fio_compat::render`).

use fio_compat::render::{EtaRate, EtaSnapshot, JobState, eta_line, layout_line, preamble};
use fio_compat::{Eta, Invocation, OutputFormat};

use crate::output::Output;
use crate::plan::Plan;
use crate::run::lane::{Lane, Stage, Totals};
use crate::run::{Observer, Tick};

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// No progress at all.
    Silent,
    /// One line that is overwritten.
    Overwrite,
    /// A new line each time.
    Lines,
}

/// Prints what goes on.
pub(crate) struct Progress<'a> {
    output: &'a mut Output,
    invocation: &'a Invocation,
    /// Text for people may be mixed into the output.
    texts: bool,
    style: Style,
    interval_ns: u64,
    begun_ns: u64,
    printed_ns: u64,
    last: [Totals; 3],
    width: usize,
}

/// Without a terminal a line now and then is enough to see that it is alive.
const PLAIN_INTERVAL_NS: u64 = 2_000_000_000;

impl<'a> Progress<'a> {
    /// Progress in the style the invocation asks for; `plain` prints lines even where nobody
    /// overwrites them.
    pub(crate) fn new(invocation: &'a Invocation, output: &'a mut Output, plain: bool) -> Self {
        let texts = invocation.formats.contains(&OutputFormat::Normal);
        let style = match invocation.eta {
            Eta::Never => Style::Silent,
            _ if !texts => Style::Silent,
            Eta::Always => Style::Overwrite,
            Eta::Auto if output.is_terminal() => Style::Overwrite,
            Eta::Auto if plain => Style::Lines,
            Eta::Auto => Style::Silent,
        };
        let interval_ns = match style {
            Style::Lines => PLAIN_INTERVAL_NS,
            _ => invocation.eta_interval_ns,
        };
        Self {
            output,
            invocation,
            texts,
            style,
            interval_ns,
            begun_ns: 0,
            printed_ns: 0,
            last: Default::default(),
            width: 0,
        }
    }

    fn print(&mut self, text: &str) {
        // A closed pipe must not end a run that is measuring; the report will notice it.
        drop(self.output.print(text));
    }
}

fn job_state(plan: &Plan, lane: &Lane, now_ns: u64) -> JobState {
    match (lane.stage(), lane.started_ns()) {
        (Stage::Starting, _) | (_, None) => JobState::NotStarted,
        (Stage::Running, Some(started_ns)) if now_ns < started_ns + plan.job.ramp_time_ns => {
            JobState::Ramping
        }
        (Stage::Running, _) => JobState::Running(plan.job.rw),
        (Stage::Syncing, _) => JobState::Syncing,
        (Stage::Verifying, _) => JobState::Verifying,
        (Stage::Ended, _) => JobState::Exited,
    }
}

/// Expected seconds to the end of one clone.
fn remaining_s(plan: &Plan, lane: &Lane, now_ns: u64) -> Option<u64> {
    let Some(started_ns) = lane.started_ns() else { return plan.job.runtime_ns.map(to_s) };
    if lane.stage() == Stage::Ended {
        return Some(0);
    }
    let spent_ns = now_ns.saturating_sub(started_ns);
    let by_time = plan
        .job
        .runtime_ns
        .map(|runtime_ns| (plan.job.ramp_time_ns + runtime_ns).saturating_sub(spent_ns));
    let done: u64 = lane.totals().iter().map(|totals| totals.bytes).sum();
    let by_amount = plan.shape.limit_bytes.and_then(|limit| {
        let rest = u128::from(limit.saturating_sub(done));
        let ns = rest * u128::from(spent_ns) / u128::from(done).max(1);
        (done > 0).then(|| u64::try_from(ns).unwrap_or(u64::MAX))
    });
    let soonest = by_time.into_iter().chain(by_amount).min();
    soonest.map(to_s)
}

fn to_s(nanoseconds: u64) -> u64 {
    nanoseconds.div_ceil(1_000_000_000)
}

impl Observer for Progress<'_> {
    fn laying_out(&mut self, plan: &Plan, files: u64, bytes: u64) {
        if self.texts {
            self.print(&layout_line(&plan.job.name, files, bytes));
        }
    }

    fn starting(&mut self, _plans: &[Plan]) {
        self.begun_ns = crate::clock::now_ns();
        self.printed_ns = self.begun_ns;
    }

    fn tick(&mut self, tick: &Tick<'_>) {
        let elapsed_ns = tick.now_ns.saturating_sub(self.printed_ns);
        if self.style == Style::Silent || elapsed_ns < self.interval_ns {
            return;
        }
        let snapshot = self.snapshot(tick, elapsed_ns);
        let line = eta_line(&snapshot);
        let end = if self.style == Style::Lines { '\n' } else { '\r' };
        let width = self.width.max(line.len());
        self.print(&format!("{line:width$}{end}"));
        self.width = if self.style == Style::Lines { 0 } else { line.len() };
        self.printed_ns = tick.now_ns;
    }

    fn ended(&mut self) {
        if self.width > 0 {
            self.print("\n");
        }
    }
}

impl Progress<'_> {
    /// The lines before the run.
    pub(crate) fn announce(&mut self) {
        if self.texts {
            self.print(&preamble(&self.invocation.jobs));
        }
    }

    fn snapshot(&mut self, tick: &Tick<'_>, elapsed_ns: u64) -> EtaSnapshot {
        let clones = || tick.plans.iter().zip(tick.lanes);
        let running = |lane: &Lane| !matches!(lane.stage(), Stage::Starting | Stage::Ended);
        let jobs_running = tick.lanes.iter().filter(|lane| running(lane)).count();
        let files = clones().filter(|(_, lane)| running(lane)).map(|(plan, _)| plan.targets.len());
        let mut now = [Totals::default(); 3];
        for lane in tick.lanes {
            for (sum, totals) in now.iter_mut().zip(lane.totals()) {
                sum.ios += totals.ios;
                sum.bytes += totals.bytes;
            }
        }
        let mut rates = [EtaRate::default(); 3];
        for (rate, (new, old)) in rates.iter_mut().zip(now.iter().zip(&self.last)) {
            let per_second = |amount: u64| {
                let scaled = u128::from(amount) * 1_000_000_000 / u128::from(elapsed_ns.max(1));
                u64::try_from(scaled).unwrap_or(u64::MAX)
            };
            rate.iops = per_second(new.ios.saturating_sub(old.ios));
            rate.bytes_per_s = per_second(new.bytes.saturating_sub(old.bytes));
        }
        self.last = now;
        EtaSnapshot {
            jobs_running: u32::try_from(jobs_running).unwrap_or(u32::MAX),
            files_open: u32::try_from(files.sum::<usize>()).unwrap_or(u32::MAX),
            states: clones().map(|(plan, lane)| job_state(plan, lane, tick.now_ns)).collect(),
            elapsed_s: tick.now_ns.saturating_sub(self.begun_ns) / 1_000_000_000,
            remaining_s: clones()
                .filter(|(_, lane)| lane.started_ns().is_some())
                .map(|(plan, lane)| remaining_s(plan, lane, tick.now_ns))
                .max()
                .flatten(),
            rates,
        }
    }
}
