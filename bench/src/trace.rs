//! Traces that jobs follow: opened, mapped as the job wants it, looked through before any I/O.
//!
//! Data flow: file or standard input -> lines -> `fio_compat::trace` -> scaled, redirected,
//! skipped -> [`Entry`]s, kept in memory or read again while the job runs; and [`Found`], what
//! the plan must know of them all.
//!
//! Not here: lines (`fio_compat::trace`), files of the trace (`plan`), when (`run::replay`).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use fio_compat::Replay;
use fio_compat::trace::{TRACE_LINE_BYTES_MAX, TraceAction, TraceIo, TraceParser};

use crate::generator::Blocks;
use crate::ioengine::Operation;

/// The largest transfer of a trace, which a buffer must hold.
const TRANSFER_BYTES_MAX: u32 = 1 << 30;

/// One I/O of a trace as the job wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When it is due, since the trace began.
    pub(crate) due_ns: u64,
    /// Where.
    pub(crate) offset_bytes: u64,
    /// How much.
    pub(crate) len_bytes: u32,
    /// Index of the file among those that are used.
    pub(crate) file: u32,
    /// What.
    pub(crate) operation: Operation,
}

/// What all entries of a trace have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// The files that are used, and where the I/O on each ends.
    pub(crate) files: Vec<(String, u64)>,
    /// Whether there are reads, writes and trims.
    pub(crate) directions: [bool; 3],
    /// Bytes of all of them.
    pub(crate) bytes: u64,
    /// Shortest and longest read and write.
    lengths: [Option<(u32, u32)>; 2],
    /// All offsets and lengths that move data, one over the other.
    bits: u64,
    entries: u64,
}

impl Found {
    fn note(&mut self, entry: Entry) {
        self.entries += 1;
        let end = entry.offset_bytes + u64::from(entry.len_bytes);
        if entry.operation.is_sync() {
            return;
        }
        let direction = crate::measure::direction(entry.operation);
        let file = &mut self.files[entry.file as usize];
        file.1 = file.1.max(end);
        self.directions[direction] = true;
        self.bytes = self.bytes.saturating_add(u64::from(entry.len_bytes));
        self.bits |= entry.offset_bytes | u64::from(entry.len_bytes);
        if let Some(known) = self.lengths.get_mut(direction) {
            let (least, most) = known.unwrap_or((entry.len_bytes, entry.len_bytes));
            *known = Some((least.min(entry.len_bytes), most.max(entry.len_bytes)));
        }
    }

    /// Every offset and length is a multiple of this power of two.
    pub(crate) fn align_bytes(&self) -> u64 {
        1 << self.bits.trailing_zeros().min(62)
    }

    /// The lengths of a direction: 0 reads, 1 writes.
    pub(crate) fn blocks(&self, direction: usize) -> Option<Blocks> {
        let (least, most) = self.lengths[direction]?;
        let range = Blocks::Range { least, most, step: 1 };
        Some(if least == most { Blocks::One(least) } else { range })
    }
}

/// A trace that was looked through.
#[derive(Debug)]
pub(crate) struct Trace {
    label: String,
    options: Replay,
    found: Found,
    /// Its entries, unless they are read while the job runs.
    kept: Option<Vec<Entry>>,
}

impl Trace {
    /// Reads the trace `label` from its first to its last line.
    ///
    /// # Errors
    /// One line: which file and line, what is wrong, and what to do.
    pub(crate) fn look_through(label: &str, options: &Replay) -> Result<Self, String> {
        let mut reader = Reader::open(label, options)?;
        let mut kept = (!options.chunked).then(Vec::new);
        let mut found = Found::default();
        while let Some(entry) = reader.next()? {
            if entry.operation.is_sync() || entry.operation == Operation::Trim {
                // Those need no buffer.
            } else if entry.len_bytes > TRANSFER_BYTES_MAX {
                let place = reader.place();
                let len = entry.len_bytes;
                return Err(format!("{place}: {len} bytes exceed {TRANSFER_BYTES_MAX}; split it"));
            }
            while found.files.len() < reader.used.len() {
                found.files.push((reader.used[found.files.len()].clone(), 0));
            }
            found.note(entry);
            if let Some(kept) = &mut kept {
                kept.push(entry);
            }
        }
        if found.entries == 0 {
            return Err(format!("{label}: the trace holds no I/O that is not skipped"));
        }
        Ok(Self { label: label.to_owned(), options: options.clone(), found, kept })
    }

    /// What all its entries have in common.
    pub(crate) fn found(&self) -> &Found {
        &self.found
    }

    /// Its entries, from the first on.
    ///
    /// # Errors
    /// The file cannot be opened any more.
    pub(crate) fn entries(&self) -> Result<Entries<'_>, String> {
        Ok(match &self.kept {
            Some(kept) => Entries::Kept(kept.iter()),
            None => Entries::Read(Box::new(Reader::open(&self.label, &self.options)?)),
        })
    }
}

/// Goes through a trace once.
pub(crate) enum Entries<'a> {
    /// In memory.
    Kept(std::slice::Iter<'a, Entry>),
    /// From its file.
    Read(Box<Reader>),
}

impl Entries<'_> {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// The file is not any more what it was.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, String> {
        match self {
            Self::Kept(kept) => Ok(kept.next().copied()),
            Self::Read(reader) => reader.next(),
        }
    }
}

/// Reads a trace line by line; its memory does not grow with the trace.
pub(crate) struct Reader {
    label: String,
    lines: Box<dyn BufRead + Send>,
    parser: TraceParser,
    options: Replay,
    line: Vec<u8>,
    number: u64,
    /// Names of the files that are used, and the index of each file of the trace among them.
    used: Vec<String>,
    indices: Vec<Option<u32>>,
}

impl Reader {
    fn open(label: &str, options: &Replay) -> Result<Self, String> {
        let lines: Box<dyn BufRead + Send> = if label == "-" {
            if options.chunked {
                return Err(again("standard input"));
            }
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let cannot = |error| {
                let reason = crate::plan::reason(&error);
                format!("cannot read the trace {label}: {reason}")
            };
            let file = File::open(label).map_err(cannot)?;
            let facts = file.metadata().map_err(cannot)?;
            if facts.is_dir() {
                return Err(format!("cannot read the trace {label}: it is a directory"));
            }
            if options.chunked && !facts.is_file() {
                return Err(again(label));
            }
            Box::new(BufReader::new(file))
        };
        Ok(Self {
            label: label.to_owned(),
            lines,
            parser: TraceParser::new(label),
            options: options.clone(),
            line: Vec::new(),
            number: 0,
            used: Vec::new(),
            indices: Vec::new(),
        })
    }

    fn place(&self) -> String {
        format!("{}:{}", self.label, self.number)
    }

    /// The next entry that is not skipped.
    fn next(&mut self) -> Result<Option<Entry>, String> {
        // One byte more than allowed, so that a longer line is noticed; and its end.
        let most = u64::try_from(TRACE_LINE_BYTES_MAX + 2).unwrap_or(u64::MAX);
        loop {
            self.line.clear();
            let read = (&mut self.lines).take(most).read_until(b'\n', &mut self.line);
            let count = read.map_err(|error| {
                let reason = crate::plan::reason(&error);
                format!("cannot read the trace {}: {reason}", self.label)
            })?;
            if count == 0 {
                return self.parser.end().map(|()| None).map_err(|error| error.to_string());
            }
            self.number += 1;
            let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
            let io = self.parser.line(line).map_err(|error| error.to_string())?;
            let Some(io) = io else { continue };
            if let Some(operation) = self.operation(io.action)? {
                return Ok(Some(self.entry(io, operation)));
            }
        }
    }

    /// What the action is here; `None` if it is left out.
    fn operation(&self, action: TraceAction) -> Result<Option<Operation>, String> {
        let skip = self.options.skip;
        let (operation, skipped) = match action {
            TraceAction::Read => (Operation::Read, skip.read),
            TraceAction::Write => (Operation::Write, skip.write),
            TraceAction::Trim => (Operation::Trim, skip.trim),
            TraceAction::Sync => (Operation::Fsync, skip.sync),
            TraceAction::Datasync => (Operation::Fdatasync, skip.sync),
            _ if skip.sync => return Ok(None),
            // It does not say which of its three kinds it was.
            _ => {
                let place = self.place();
                return Err(format!("{place}: sync_file_range is not replayed; replay_skip=sync"));
            }
        };
        Ok((!skipped).then_some(operation))
    }

    fn entry(&mut self, io: TraceIo, operation: Operation) -> Entry {
        let options = &self.options;
        let due_ns = if options.no_stall {
            0
        } else {
            let ns = u128::from(io.due_us) * 1000 * 100 / u128::from(options.time_scale_percent);
            u64::try_from(ns).unwrap_or(u64::MAX)
        };
        let mut offset_bytes = io.offset_bytes / options.scale.max(1);
        if options.align_bytes > 1 {
            offset_bytes -= offset_bytes % options.align_bytes;
        }
        let file = self.index(io.file);
        Entry { due_ns, offset_bytes, len_bytes: io.len_bytes, file, operation }
    }

    /// The index among the files that are used.
    fn index(&mut self, file: usize) -> u32 {
        if self.indices.len() <= file {
            self.indices.resize(file + 1, None);
        }
        if let Some(known) = self.indices[file] {
            return known;
        }
        let name = self.options.redirect.as_ref().unwrap_or(&self.parser.files()[file]);
        let index = match self.used.iter().position(|used| used == name) {
            Some(index) => index,
            None => {
                self.used.push(name.clone());
                self.used.len() - 1
            }
        };
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        self.indices[file] = Some(index);
        index
    }
}

fn again(what: &str) -> String {
    format!(
        "read_iolog_chunked=1 reads a trace twice, which {what} does not allow; name a file, or \
         use read_iolog_chunked=0"
    )
}
