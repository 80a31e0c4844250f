//! Traces of I/O: fio's `iolog`, version 2 and version 3, as text.
//!
//! Data flow: lines of a file -> [`TraceParser`] -> [`TraceIo`]s with the time at which each is
//! due, or a [`ParseError`] at a line and a column; and back, [`TraceLine`] -> text.
//!
//! A version 3 line is `time file action [offset length]`, its time in microseconds. Version 2
//! has no times but lines `file wait offset length`, which wait for `offset` microseconds.
//!
//! Not here: files, and clocks (the caller's); blktrace's binary form, which is not read.

use std::collections::BTreeMap;
use std::fmt;

use crate::error::{ParseError, Place};

/// What a line of a trace is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TraceAction {
    /// The file is known from here on.
    Add,
    /// The file is opened.
    Open,
    /// The file is closed.
    Close,
    /// Nothing happens for a while (version 2).
    Wait,
    /// Bytes are read.
    Read,
    /// Bytes are written.
    Write,
    /// Bytes are given back.
    Trim,
    /// `fsync(2)`.
    Sync,
    /// `fdatasync(2)`.
    Datasync,
    /// `sync_file_range(2)`, which fio writes and does not read.
    SyncFileRange,
}

/// Actions by their names.
const ACTIONS: [(&str, TraceAction); 10] = [
    ("add", TraceAction::Add),
    ("open", TraceAction::Open),
    ("close", TraceAction::Close),
    ("wait", TraceAction::Wait),
    ("read", TraceAction::Read),
    ("write", TraceAction::Write),
    ("trim", TraceAction::Trim),
    ("sync", TraceAction::Sync),
    ("datasync", TraceAction::Datasync),
    ("sync_file_range", TraceAction::SyncFileRange),
];

impl TraceAction {
    /// The word for it in a trace.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let named = ACTIONS.into_iter().find(|(_, action)| *action == self);
        named.map_or("", |(name, _)| name)
    }

    /// Whether the file itself is meant and not a part of it.
    #[must_use]
    pub const fn is_about_file(self) -> bool {
        matches!(self, Self::Add | Self::Open | Self::Close)
    }

    const fn moves_data(self) -> bool {
        matches!(self, Self::Read | Self::Write | Self::Trim)
    }
}

/// The form of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Two,
    Three,
}

/// The first line of the traces that are written.
pub const TRACE_HEADER: &str = "fio version 3 iolog";

/// The longest line of a trace, in bytes, its end not counted; fio has the same limit.
pub const TRACE_LINE_BYTES_MAX: usize = 4095;

/// A wait of version 2 that is shorter is not waited for, in microseconds; fio's rule.
const WAIT_US_MIN: u64 = 100;

/// One I/O of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceIo {
    /// When it is due, in microseconds since the trace began. Never decreases.
    pub due_us: u64,
    /// Index of its file, in the order in which files were added.
    pub file: usize,
    /// What it does; never `Add`, `Open`, `Close` or `Wait`.
    pub action: TraceAction,
    /// Where, in bytes.
    pub offset_bytes: u64,
    /// How much, in bytes; not 0 where data is moved. The end is within an `i64`.
    pub len_bytes: u32,
}

/// Reads a trace line by line and remembers its files and its clock.
#[derive(Debug)]
pub struct TraceParser {
    label: String,
    line: usize,
    version: Option<Version>,
    files: Vec<String>,
    /// Index and whether it is open, by name.
    known: BTreeMap<String, (usize, bool)>,
    /// The time of the last line, and how far the trace has come.
    stamp_us: Option<u64>,
    due_us: u64,
}

/// A word of a line and the column where it begins.
#[derive(Clone, Copy)]
struct Word<'a> {
    text: &'a str,
    column: usize,
}

/// What is wrong, in which column, and what to do about it.
struct Wrong {
    column: usize,
    message: String,
    remedy: Option<&'static str>,
}

impl Wrong {
    fn new(column: usize, message: String) -> Self {
        Self { column, message, remedy: None }
    }

    fn with_remedy(self, remedy: &'static str) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}

impl TraceParser {
    /// At the beginning of the trace that `label` names in complaints.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            line: 0,
            version: None,
            files: Vec::new(),
            known: BTreeMap::new(),
            stamp_us: None,
            due_us: 0,
        }
    }

    /// The files that were added so far.
    #[must_use]
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// Reads the next line, its end not included; `None` if it is no I/O.
    ///
    /// # Errors
    /// A [`ParseError`] at the word that is wrong, which may be missing.
    pub fn line(&mut self, line: &[u8]) -> Result<Option<TraceIo>, ParseError> {
        self.line += 1;
        self.read(line).map_err(|wrong| {
            let Wrong { column, message, remedy } = wrong;
            let place = Place::File { label: self.label.clone(), line: self.line, column };
            ParseError { place, message, remedy: remedy.map(str::to_owned) }
        })
    }

    /// Called behind the last line.
    ///
    /// # Errors
    /// The trace has not even a first line.
    pub fn end(&self) -> Result<(), ParseError> {
        match self.version {
            Some(_) => Ok(()),
            None => {
                let message = "the trace is empty";
                Err(ParseError::new(Place::whole_file(&self.label), message))
            }
        }
    }

    fn read(&mut self, line: &[u8]) -> Result<Option<TraceIo>, Wrong> {
        let Some(version) = self.version else {
            return self.header(line).map(|()| None);
        };
        if line.len() > TRACE_LINE_BYTES_MAX {
            let message = format!("the line is longer than {TRACE_LINE_BYTES_MAX} bytes");
            return Err(Wrong::new(1, message));
        }
        let text = str::from_utf8(line)
            .map_err(|error| Wrong::new(error.valid_up_to() + 1, "this is not UTF-8".into()))?;
        let mut words = words(text);
        let Some(first) = words.next() else { return Ok(None) };
        let (stamp, file) = match version {
            Version::Two => (None, first),
            Version::Three => {
                let stamp = number(first, "the time")?;
                (Some(stamp), expect(words.next(), text, "the name of a file")?)
            }
        };
        let named = expect(words.next(), text, "an action")?;
        let known = ACTIONS.into_iter().find(|(name, _)| *name == named.text);
        let Some((_, action)) = known else {
            let message = format!("there is no action `{}`", named.text);
            let remedy = "actions are add, open, close, read, write, trim, sync, datasync, wait";
            return Err(Wrong::new(named.column, message).with_remedy(remedy));
        };
        let mut offset_bytes = 0;
        let mut len_bytes = 0;
        let syncs = matches!(action, TraceAction::Sync | TraceAction::Datasync);
        let next = words.next();
        if !(action.is_about_file() || syncs && next.is_none()) {
            let offset = expect(next, text, "an offset")?;
            offset_bytes = number(offset, "the offset")?;
            let len = expect(words.next(), text, "a length")?;
            len_bytes = length(len, action)?;
            let end = offset_bytes.checked_add(u64::from(len_bytes));
            if action != TraceAction::Wait && end.is_none_or(|end| i64::try_from(end).is_err()) {
                let message = "the end exceeds what a file can hold".into();
                return Err(Wrong::new(offset.column, message));
            }
        } else if let Some(more) = next {
            return Err(surplus(more));
        }
        if let Some(more) = words.next() {
            return Err(surplus(more));
        }
        let clock = (stamp, action, offset_bytes);
        self.tick(clock, named)?;
        let index = self.file(file, action)?;
        let io = TraceIo { due_us: self.due_us, file: index, action, offset_bytes, len_bytes };
        Ok((!action.is_about_file() && action != TraceAction::Wait).then_some(io))
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Wrong> {
        let line = line.trim_ascii_end();
        self.version = match line {
            b"fio version 2 iolog" => Some(Version::Two),
            b"fio version 3 iolog" => Some(Version::Three),
            _ => None,
        };
        if self.version.is_some() {
            return Ok(());
        }
        if is_blktrace(line) {
            let message = "this is a binary trace of blktrace, which is not read".into();
            let remedy = "print it with blkparse and write its queued requests as lines of a \
                          `fio version 3 iolog`";
            return Err(Wrong::new(1, message).with_remedy(remedy));
        }
        let remedy = "the first line must be `fio version 2 iolog` or `fio version 3 iolog`";
        Err(Wrong::new(1, "this is no trace".into()).with_remedy(remedy))
    }

    /// Moves the clock of the trace on.
    fn tick(
        &mut self,
        (stamp, action, offset): (Option<u64>, TraceAction, u64),
        named: Word<'_>,
    ) -> Result<(), Wrong> {
        let passed_us = match (stamp, action) {
            (Some(_), TraceAction::Wait) => {
                let remedy = "give the lines behind it later times";
                let message = "version 3 has no `wait`".into();
                return Err(Wrong::new(named.column, message).with_remedy(remedy));
            }
            // What comes first is due at once; what was written out of order is due no earlier.
            (Some(stamp), _) => {
                let before = self.stamp_us.replace(stamp).unwrap_or(stamp);
                stamp.saturating_sub(before)
            }
            (None, TraceAction::Wait) if offset >= WAIT_US_MIN => offset,
            (None, _) => 0,
        };
        self.due_us = self.due_us.saturating_add(passed_us);
        Ok(())
    }

    /// Index of the file, which must have been added, and opened for I/O.
    fn file(&mut self, file: Word<'_>, action: TraceAction) -> Result<usize, Wrong> {
        let name = file.text;
        if let Some((index, open)) = self.known.get_mut(name) {
            match action {
                TraceAction::Add | TraceAction::Wait => {}
                TraceAction::Open => *open = true,
                TraceAction::Close => *open = false,
                _ if *open => {}
                _ => {
                    let message = format!("`{name}` is not open here");
                    let remedy = "a line with `open` must come first";
                    return Err(Wrong::new(file.column, message).with_remedy(remedy));
                }
            }
            return Ok(*index);
        }
        if action != TraceAction::Add {
            let message = format!("`{name}` was not added");
            let remedy = "a line with `add` must come first";
            return Err(Wrong::new(file.column, message).with_remedy(remedy));
        }
        let index = self.files.len();
        self.files.push(name.to_owned());
        self.known.insert(name.to_owned(), (index, false));
        Ok(index)
    }
}

/// The magic number of blktrace in either byte order.
fn is_blktrace(start: &[u8]) -> bool {
    matches!(start, [_, 0x74, 0x61, 0x65, ..] | [0x65, 0x61, 0x74, 0x00..=0x1f, ..])
}

fn words(line: &str) -> impl Iterator<Item = Word<'_>> {
    let mut next = 1;
    line.split(|c: char| c.is_ascii_whitespace()).filter_map(move |text| {
        let column = next;
        // The blank behind it is one character, too.
        next += text.chars().count() + 1;
        (!text.is_empty()).then_some(Word { text, column })
    })
}

fn expect<'a>(word: Option<Word<'a>>, line: &str, what: &str) -> Result<Word<'a>, Wrong> {
    let column = line.trim_ascii_end().chars().count() + 1;
    word.ok_or_else(|| Wrong::new(column, format!("{what} is missing here")))
}

fn number(word: Word<'_>, what: &str) -> Result<u64, Wrong> {
    let digits = word.text.bytes().all(|byte| byte.is_ascii_digit());
    let value = word.text.parse().ok().filter(|_| digits);
    value.ok_or_else(|| {
        let message = format!("`{}` is not a whole number as {what} must be", word.text);
        Wrong::new(word.column, message)
    })
}

fn length(word: Word<'_>, action: TraceAction) -> Result<u32, Wrong> {
    const MAX: u32 = i32::MAX.cast_unsigned();
    let bytes = number(word, "the length")?;
    let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= MAX);
    let Some(bytes) = bytes else {
        let message = format!("the length exceeds {MAX} bytes");
        return Err(Wrong::new(word.column, message).with_remedy("split the line"));
    };
    if bytes == 0 && action.moves_data() {
        return Err(Wrong::new(word.column, "a length of 0 moves nothing".into()));
    }
    Ok(bytes)
}

fn surplus(word: Word<'_>) -> Wrong {
    Wrong::new(word.column, format!("`{}` is one word too many", word.text))
}

/// A line of a trace of version 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceLine<'a> {
    /// Microseconds since the trace began.
    pub time_us: u64,
    /// The name of the file, which [`is_trace_name`] must hold of.
    pub file: &'a str,
    /// What happened.
    pub action: TraceAction,
    /// Where, in bytes.
    pub offset_bytes: u64,
    /// How much, in bytes.
    pub len_bytes: u32,
}

impl fmt::Display for TraceLine<'_> {
    /// With a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time_us, file, action, offset_bytes, len_bytes } = *self;
        write!(f, "{time_us} {file} {}", action.as_str())?;
        if !action.is_about_file() {
            write!(f, " {offset_bytes} {len_bytes}")?;
        }
        f.write_str("\n")
    }
}

/// Whether a trace can name this file: lines are split at blanks, and fio reads 256 bytes.
#[must_use]
pub fn is_trace_name(name: &str) -> bool {
    let odd = |c: char| c.is_ascii_whitespace() || c.is_control();
    !name.is_empty() && name.len() <= 256 && !name.contains(odd)
}
