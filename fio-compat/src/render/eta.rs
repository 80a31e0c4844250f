//! The progress line.
//!
//! Data flow: a snapshot the bench takes once a second -> one line without its `\r`.
//!
//! Not here: when to print it, and blanks to cover a longer line before it (the bench).

use crate::job::{Rw, Units};
use crate::stats::approximate;

/// Before that only the number of jobs is shown: rates of the first moments mislead.
const QUIET_S: u64 = 3;

/// The state of a run at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EtaSnapshot {
    /// Jobs that are running.
    pub jobs_running: u32,
    /// Files they have open.
    pub files_open: u32,
    /// State of every clone, in order of definition.
    pub states: Vec<JobState>,
    /// Seconds since the first job started.
    pub elapsed_s: u64,
    /// Expected seconds to the end, if anything can be expected.
    pub remaining_s: Option<u64>,
    /// Rates of reads, writes and trims since the last snapshot.
    pub rates: [EtaRate; 3],
    /// Units of the rates.
    pub units: Units,
}

/// The rate of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EtaRate {
    /// Bytes per second.
    pub bytes_per_s: u64,
    /// I/Os per second.
    pub iops: u64,
}

/// What a clone is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// Waiting for its turn.
    NotStarted,
    /// Its thread exists.
    Created,
    /// It is set up and waits for the start.
    Initialized,
    /// It runs, but nothing is recorded yet.
    Ramping,
    /// It runs.
    Running(Rw),
    /// It waits for an fsync.
    Syncing,
    /// It checks what it wrote.
    Verifying,
    /// It waits for its last I/Os.
    Finishing,
    /// It has ended.
    Exited,
    /// Its results were collected.
    Reaped,
    /// It failed.
    Failed,
}

impl JobState {
    const fn letter(self) -> char {
        match self {
            Self::NotStarted => 'P',
            Self::Created => 'C',
            Self::Initialized => 'I',
            Self::Ramping => '/',
            Self::Running(Rw::Read) => 'R',
            Self::Running(Rw::RandRead) => 'r',
            Self::Running(Rw::Write) => 'W',
            Self::Running(Rw::RandWrite) => 'w',
            Self::Running(Rw::ReadWrite) => 'M',
            Self::Running(Rw::RandRw | Rw::RandTrimWrite) => 'm',
            Self::Running(Rw::Trim) => 'D',
            Self::Running(Rw::RandTrim) => 'd',
            Self::Running(Rw::TrimWrite) => 'M',
            Self::Syncing => 'F',
            Self::Verifying => 'V',
            Self::Finishing => 'f',
            Self::Exited => 'E',
            Self::Reaped => '_',
            Self::Failed => 'X',
        }
    }
}

/// The progress line, without carriage return.
#[must_use]
pub fn eta_line(snapshot: &EtaSnapshot) -> String {
    let jobs = format!("Jobs: {} (f={})", snapshot.jobs_running, snapshot.files_open);
    if snapshot.elapsed_s < QUIET_S {
        return jobs;
    }
    let remaining = snapshot.remaining_s.map_or_else(|| "--".to_owned(), duration);
    format!(
        "{jobs}: [{}][{}]{}{}[eta {remaining}]",
        condensed(&snapshot.states),
        share_done(snapshot),
        rates(snapshot, "", |rate| snapshot.units.rate(rate.bytes_per_s)),
        rates(snapshot, " IOPS", |rate| snapshot.units.count(rate.iops)),
    )
}

/// `R(10),W(10)`: runs of equal states.
fn condensed(states: &[JobState]) -> String {
    let runs = states.chunk_by(|a, b| a == b);
    runs.map(|run| format!("{}({})", run[0].letter(), run.len())).collect::<Vec<_>>().join(",")
}

fn share_done(snapshot: &EtaSnapshot) -> String {
    let mut active = snapshot.states.iter().filter(|state| {
        matches!(state, JobState::Ramping | JobState::Running(_) | JobState::Verifying)
    });
    let ramping = active.clone().count() > 0 && active.all(|state| *state == JobState::Ramping);
    match snapshot.remaining_s {
        Some(remaining_s) if !ramping => {
            let elapsed = approximate(u128::from(snapshot.elapsed_s));
            let share = elapsed / (elapsed + approximate(u128::from(remaining_s))) * 100.0;
            format!("{share:3.1}%")
        }
        _ => "-.-%".to_owned(),
    }
}

/// `[r=…,w=…]`, with only the directions that move.
fn rates(snapshot: &EtaSnapshot, tail: &str, show: impl Fn(&EtaRate) -> String) -> String {
    let moving: Vec<String> = ["r", "w", "t"]
        .iter()
        .zip(&snapshot.rates)
        .filter(|(_, rate)| rate.bytes_per_s > 0 || rate.iops > 0)
        .map(|(letter, rate)| format!("{letter}={}", show(rate)))
        .collect();
    if moving.is_empty() { String::new() } else { format!("[{}{tail}]", moving.join(",")) }
}

/// `01m:31s`, `02d:03h:00m:00s`.
fn duration(seconds: u64) -> String {
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let rest = format!("{:02}m:{:02}s", seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => rest,
        (0, _) => format!("{hours:02}h:{rest}"),
        _ => format!("{days:02}d:{hours:02}h:{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> EtaSnapshot {
        EtaSnapshot {
            jobs_running: 2,
            files_open: 2,
            states: vec![JobState::Running(Rw::RandRw); 2],
            elapsed_s: 3,
            remaining_s: Some(1),
            rates: [
                EtaRate { bytes_per_s: 171 << 20, iops: 43_700 },
                EtaRate { bytes_per_s: 76_755_763, iops: 18_700 },
                EtaRate::default(),
            ],
            units: Units::default(),
        }
    }

    #[test]
    fn running_jobs_read_as_in_fio() {
        assert_eq!(
            eta_line(&sample()),
            "Jobs: 2 (f=2): [m(2)][75.0%][r=171MiB/s,w=73.2MiB/s]\
             [r=43.7k,w=18.7k IOPS][eta 00m:01s]"
        );
    }

    #[test]
    fn first_seconds_show_only_the_number_of_jobs() {
        assert_eq!(eta_line(&EtaSnapshot { elapsed_s: 2, ..sample() }), "Jobs: 2 (f=2)");
    }

    #[test]
    fn unknown_end_and_idle_jobs_show_dashes_and_no_rates() {
        let snapshot = EtaSnapshot {
            remaining_s: None,
            rates: [EtaRate::default(); 3],
            states: vec![JobState::Running(Rw::Read), JobState::Reaped],
            ..sample()
        };
        assert_eq!(eta_line(&snapshot), "Jobs: 2 (f=2): [R(1),_(1)][-.-%][eta --]");
    }

    #[test]
    fn ramp_of_all_jobs_shows_no_percentage() {
        let snapshot = EtaSnapshot { states: vec![JobState::Ramping; 2], ..sample() };
        assert!(eta_line(&snapshot).contains("[/(2)][-.-%]"));
    }

    #[test]
    fn long_times_show_hours_and_days() {
        assert_eq!(duration(91), "01m:31s");
        assert_eq!(duration(3_600), "01h:00m:00s");
        assert_eq!(duration(2 * 86_400 + 61), "02d:00h:01m:01s");
    }
}
