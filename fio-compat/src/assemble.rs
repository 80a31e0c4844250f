//! Sections in order to validated jobs: defaults, inheritance, groups and precedence.
//!
//! Data flow: sections of the command line, then of each file -> `Job`s of an `Invocation`.
//!
//! Not here: the syntax of either (`command_line`, `lex`), the meaning of options (`options`).

use crate::error::{ParseError, Place, Warning};
use crate::invocation::Invocation;
use crate::job::Job;
use crate::lex::{self, Assignment, Section};
use crate::options::{self, Entry, Reading, Row};
use crate::source::Source;

/// fio's limit (`REAL_MAX_JOBS`). Each job is a copy of the defaults, so many small sections
/// could multiply long ones (F49).
const JOBS_MAX: usize = 4096;

/// All jobs together hold no more text than this; each has a copy of the defaults (F49).
const JOB_TEXT_BYTES_MAX: usize = 256 << 20;

/// Nobody reads more of them, and each is compared with all others (F49).
const WARNINGS_MAX: usize = 1024;

/// Builds the jobs of one invocation, section by section.
pub(crate) struct Assembly<'a> {
    source: &'a dyn Source,
    invocation: Invocation,
    /// What the global sections so far have set; every job starts as a copy.
    defaults: Job,
    /// `--section`: only these jobs of job files, or all if empty.
    wanted: Vec<String>,
    /// Jobs of the second and later files wait for those of the file before.
    wall_is_due: bool,
    /// Text that every job gets from the defaults, and text of all jobs so far.
    default_bytes: usize,
    job_bytes: usize,
    /// `--strict=fio`: numbers are read as fio reads them.
    lenient: bool,
    /// `--set`: wins over what any section says.
    overrides: Vec<Assignment>,
}

impl<'a> Assembly<'a> {
    /// Starts with what the command line says about the run as a whole.
    pub(crate) fn new(source: &'a dyn Source, invocation: Invocation, wanted: Vec<String>) -> Self {
        Self {
            source,
            invocation,
            defaults: Job::new(""),
            wanted,
            wall_is_due: false,
            default_bytes: 0,
            job_bytes: 0,
            lenient: false,
            overrides: Vec::new(),
        }
    }

    /// Lets an option win over what any section says.
    pub(crate) fn overrides(&mut self, name: String, value: String) {
        let place = Place::Override;
        self.overrides.push(Assignment { name, value: Some(value), place });
    }

    /// Reads numbers as fio does from now on.
    pub(crate) const fn be_lenient(&mut self) {
        self.lenient = true;
    }

    /// Takes over one section of the command line.
    pub(crate) fn section(&mut self, section: &Section) -> Result<(), ParseError> {
        if section.is_global() {
            self.default_bytes += bytes_of(&section.assignments);
            self.weigh(&section.place)?;
            let mut defaults = self.defaults.clone();
            let assignments = section.assignments.iter().filter(|a| a.name != "name");
            for assignment in by_priority(assignments) {
                let recorded = self.assign(&mut defaults, assignment)?;
                record(&mut self.invocation.global_options, recorded);
            }
            self.defaults = defaults;
            return Ok(());
        }
        self.job_bytes += self.default_bytes + bytes_of(&section.assignments);
        self.weigh(&section.place)?;
        let mut job = self.defaults.clone();
        job.name.clone_from(&section.name);
        let mut own = Vec::new();
        let overrides = self.overrides.clone();
        for assignment in by_priority(section.assignments.iter().chain(&overrides)) {
            let recorded = self.assign(&mut job, assignment)?;
            record(&mut own, recorded);
        }
        job.job_options = own;
        self.finish_job(job, &section.place)
    }

    /// Takes over a whole job file; `index` counts files from 0.
    pub(crate) fn file(&mut self, text: &str, label: &str, index: usize) -> Result<(), ParseError> {
        let mut warnings = Vec::new();
        let sections = lex::sections(text, label, self.source, &mut warnings)?;
        warnings.into_iter().for_each(|warning| self.warn(warning));
        if index > 0 {
            // As in fio, options of the command line reach the first file only.
            self.defaults = Job::new("");
            self.default_bytes = 0;
            self.wall_is_due = true;
        }
        let wanted = self.wanted.clone();
        let skipped = |section: &Section| {
            !section.is_global() && !wanted.is_empty() && !wanted.contains(&section.name)
        };
        for section in sections.iter().filter(|section| !skipped(section)) {
            self.section(section)?;
        }
        Ok(())
    }

    /// Checks what involves several jobs and hands the result over.
    pub(crate) fn finish(self) -> Result<Invocation, ParseError> {
        let jobs = &self.invocation.jobs;
        if let Some(missing) = self.wanted.iter().find(|name| jobs.iter().all(|j| j.name != **name))
        {
            let message = format!("there is no job section `{missing}`");
            return Err(ParseError::new(Place::COMMAND_LINE, message));
        }
        waitees(jobs)?;
        for pair in jobs.windows(2) {
            if pair[0].group_id == pair[1].group_id
                && pair[0].group_reporting
                && pair[1].group_reporting
                && pair[0].lat_percentiles != pair[1].lat_percentiles
            {
                let message = "lat_percentiles differs within a group that is reported as one";
                let place = pair[1].place_of("lat_percentiles").unwrap_or(Place::COMMAND_LINE);
                return Err(ParseError::new(place, message)
                    .with_remedy("set it for all jobs of the group, or add new_group"));
            }
        }
        Ok(self.invocation)
    }

    fn finish_job(&mut self, mut job: Job, place: &Place) -> Result<(), ParseError> {
        if std::mem::take(&mut self.wall_is_due) {
            job.stonewall = true;
        }
        // A complaint about something nobody set is at least placed at its job.
        let warnings = job.validate(self.source.cpus()).map_err(|mut error| {
            if error.place == Place::COMMAND_LINE {
                error.place = place.clone();
            }
            error
        })?;
        warnings.into_iter().for_each(|warning| self.warn(warning));
        // What a trace does is known when it has been read.
        let writes = job.rw.writes() && job.replay.read.is_empty();
        if self.invocation.readonly && writes {
            let message =
                "trim and write operations are not allowed with the --readonly parameter.";
            let place = job.place_of("rw").unwrap_or_else(|| place.clone());
            return Err(ParseError::new(place, message));
        }
        let jobs = &mut self.invocation.jobs;
        if jobs.len() == JOBS_MAX {
            let message = format!("there are more than {JOBS_MAX} jobs");
            let error = ParseError::new(place.clone(), message);
            return Err(error.with_remedy("clone one job by numjobs"));
        }
        job.group_id = match jobs.last() {
            None => 0,
            Some(last) => last.group_id + u32::from(job.stonewall || job.new_group),
        };
        jobs.push(job);
        Ok(())
    }

    /// Applies one assignment; returns its canonical name and its text for reports.
    fn assign(
        &mut self,
        job: &mut Job,
        assignment: &Assignment,
    ) -> Result<Option<(String, String)>, ParseError> {
        let Assignment { name, value, place } = assignment;
        let row = match options::find(name) {
            None => return Err(unknown_option(name, place)),
            Some(Entry::NotYet(name)) => return Err(not_yet(name, place)),
            Some(Entry::Ignored(row)) => {
                let message = format!("`{}` is ignored: {}", row.name, row.reason);
                self.warn(Warning { place: place.clone(), message });
                return Ok(None);
            }
            Some(Entry::Supported(row)) => row,
        };
        let text = self.text_of(row, value.as_deref(), place)?;
        let before = shown(job);
        let surprise = options::apply(row, text.as_deref().or(value.as_deref()), job);
        let surprise = surprise.map_err(|complaint| complaint.at(place.clone()))?;
        if let Some(message) = surprise {
            self.warn(Warning { place: place.clone(), message });
        }
        let earlier = job.place_of(row.name);
        job.note_place(row.name, place);
        // `buffered` also sets `direct`, and `gtod_reduce` four others.
        for ((option, old), (_, new)) in before.into_iter().zip(shown(job)) {
            if old != new {
                job.note_place(option, place);
            }
        }
        if let (Some(Place::CommandLine { .. }), Place::File { .. }) = (earlier, place) {
            let message = format!(
                "this `{}` overrides that of the command line, as in fio, \
                 where options of the command line are only defaults for job files",
                row.name
            );
            self.warn(Warning { place: place.clone(), message });
        }
        Ok(Some((row.name.to_owned(), value.clone().unwrap_or_default())))
    }

    /// What to parse instead of the value as written, where that is not the same.
    fn text_of(
        &mut self,
        row: &Row,
        value: Option<&str>,
        place: &Place,
    ) -> Result<Option<String>, ParseError> {
        let Some(value) = value else { return Ok(None) };
        if self.lenient
            && let Some(Reading { text, surprise }) = options::reading(row, value)
        {
            if let Some(message) = surprise {
                self.warn(Warning { place: place.clone(), message });
            }
            return Ok(Some(text));
        }
        let filled = options::with_pattern_files(row.name, value, self.source);
        filled.map_err(|complaint| complaint.at(place.clone()))
    }

    fn weigh(&self, place: &Place) -> Result<(), ParseError> {
        if self.job_bytes + self.default_bytes <= JOB_TEXT_BYTES_MAX {
            return Ok(());
        }
        let most = JOB_TEXT_BYTES_MAX >> 20;
        let error = ParseError::new(place.clone(), format!("the jobs hold more than {most} MiB"));
        Err(error.with_remedy("shorten what [global] gives to each of them"))
    }

    /// Says each thing once, however many jobs it concerns.
    fn warn(&mut self, warning: Warning) {
        let warnings = &mut self.invocation.warnings;
        if warnings.len() >= WARNINGS_MAX {
            return;
        }
        if warnings.iter().all(|known| known.message != warning.message) {
            warnings.push(warning);
        }
    }
}

/// Text that stays in a job.
fn bytes_of(assignments: &[Assignment]) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    assignments.iter().map(|assignment| assignment.name.len() + length(&assignment.value)).sum()
}

/// As in fio, units are settled before any number is read; the rest keeps its order.
fn by_priority<'a>(
    assignments: impl Iterator<Item = &'a Assignment>,
) -> impl Iterator<Item = &'a Assignment> {
    let settles = |assignment: &&Assignment| assignment.name == "kb_base";
    let (first, rest): (Vec<_>, Vec<_>) = assignments.partition(settles);
    first.into_iter().chain(rest)
}

/// `wait_for` names one earlier job, as fio demands.
fn waitees(jobs: &[Job]) -> Result<(), ParseError> {
    for (index, job) in jobs.iter().enumerate() {
        let Some(name) = &job.control.wait_for else { continue };
        let found = jobs[..index].iter().filter(|earlier| earlier.name == *name).count();
        if found != 1 {
            let place = job.place_of("wait_for").unwrap_or(Place::COMMAND_LINE);
            let what = if found == 0 { "unknown" } else { "ambiguous" };
            let error = ParseError::new(place, format!("waitee job {name} {what}."));
            return Err(error.with_remedy("name one job that is defined before this one"));
        }
    }
    Ok(())
}

/// Every option with its value in force, if another one can change it.
fn shown(job: &Job) -> Vec<(&'static str, String)> {
    options::entangled().map(|(option, show)| (option, show(job))).collect()
}

/// Keeps the last assignment of an option, at the position of the first.
fn record(options: &mut Vec<(String, String)>, recorded: Option<(String, String)>) {
    let Some((name, text)) = recorded else { return };
    match options.iter_mut().find(|(known, _)| *known == name) {
        Some((_, known)) => *known = text,
        None => options.push((name, text)),
    }
}

fn unknown_option(name: &str, place: &Place) -> ParseError {
    if options::is_foreign(name) {
        let message = format!("option `{name}` belongs to an engine of fio that is not here");
        return ParseError::new(place.clone(), message).with_remedy("--enghelp lists the engines");
    }
    let error = ParseError::new(place.clone(), format!("unknown option `{name}`"));
    match options::nearest(name, options::names().map(|(name, _)| name)) {
        Some(known) => error.with_remedy(format!("did you mean `{known}`?")),
        None => error.with_remedy("--cmdhelp=all lists the options there are"),
    }
}

fn not_yet(name: &str, place: &Place) -> ParseError {
    let message = format!("option `{name}` is known to fio but not supported yet");
    ParseError::new(place.clone(), message)
}
