//! Job file text to sections of `key = value` lines, each with its place.
//!
//! Data flow: text -> lines without comments -> includes and variables filled in -> sections.
//!
//! Not here: what keys and values mean (`options`), how sections become jobs (`assemble`).

mod substitute;

use crate::error::{ParseError, Place, Warning};
use crate::source::Source;

/// Includes deeper than this are a loop.
const INCLUDE_DEPTH_MAX: usize = 16;

/// More included files than this, each time it is included counted, multiply one another (F49).
const INCLUDES_MAX: usize = 1024;

/// More text than this is no job file, however often it is included (F49).
const TEXT_BYTES_MAX: usize = 64 << 20;

/// More options than this are no jobs: fio runs 4096 at most, and has some 300 options (F49).
const ASSIGNMENTS_MAX: usize = 1 << 17;

/// One option as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The name, not yet resolved.
    pub(crate) name: String,
    /// The text after `=`, or the following argument.
    pub(crate) value: Option<String>,
    /// Where the name stands.
    pub(crate) place: Place,
}

/// One `[name]` with its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) assignments: Vec<Assignment>,
}

impl Section {
    /// fio takes any section whose name starts so for one of defaults.
    pub(crate) fn is_global(&self) -> bool {
        self.name.starts_with("global")
    }
}

/// Splits a job file into its sections; `label` names it in complaints.
pub(crate) fn sections(
    text: &str,
    label: &str,
    source: &dyn Source,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Section>, ParseError> {
    let mut reader =
        Reader { source, warnings, sections: Vec::new(), includes: 0, bytes: 0, assignments: 0 };
    reader.read(text, label, 0)?;
    Ok(reader.sections)
}

struct Reader<'a> {
    source: &'a dyn Source,
    warnings: &'a mut Vec<Warning>,
    sections: Vec<Section>,
    /// Files included so far.
    includes: usize,
    /// Text read so far, and options in it.
    bytes: usize,
    assignments: usize,
}

/// A line without its comment and blanks, and where it starts.
struct Line<'a> {
    text: &'a str,
    place: Place,
}

impl Reader<'_> {
    fn read(&mut self, text: &str, label: &str, depth: usize) -> Result<(), ParseError> {
        self.bytes += text.len();
        if self.bytes > TEXT_BYTES_MAX {
            let message = format!("there is more than {} MiB of text", TEXT_BYTES_MAX >> 20);
            let error = ParseError::new(Place::whole_file(label), message);
            return Err(error.with_remedy("split the jobs over several runs"));
        }
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, raw) in text.lines().enumerate() {
            let Some(line) = Line::of(raw, label, index + 1) else { continue };
            if let Some(header) = line.text.strip_prefix('[') {
                self.open_section(header, line.place, depth)?;
            } else if let Some(path) = include_path(line.text) {
                self.include(path, label, line.place, depth)?;
            } else {
                self.assign(&line)?;
            }
        }
        Ok(())
    }

    fn open_section(&mut self, header: &str, place: Place, depth: usize) -> Result<(), ParseError> {
        if depth > 0 {
            return Err(ParseError::new(place, "an included file cannot start a section"));
        }
        let name = header.strip_suffix(']').map(str::trim);
        match name {
            Some("") => Err(ParseError::new(place, "the section has no name")),
            Some(name) => {
                let name = name.to_owned();
                self.sections.push(Section { name, place, assignments: Vec::new() });
                Ok(())
            }
            None => {
                let error = ParseError::new(place, format!("`[{header}` does not end with `]`"));
                Err(error.with_remedy("write the section name alone, as in [name]"))
            }
        }
    }

    fn include(
        &mut self,
        path: &str,
        label: &str,
        place: Place,
        depth: usize,
    ) -> Result<(), ParseError> {
        if self.sections.is_empty() {
            return Err(ParseError::new(place, "`include` is outside of a [job] section"));
        }
        if depth == INCLUDE_DEPTH_MAX {
            let message = format!("files include one another more than {INCLUDE_DEPTH_MAX} deep");
            return Err(ParseError::new(place, message));
        }
        self.includes += 1;
        if self.includes > INCLUDES_MAX {
            let message = format!("more than {INCLUDES_MAX} files are included");
            return Err(ParseError::new(place, message));
        }
        let path = beside(label, path);
        let text = self.source.read_job_file(&path).map_err(|reason| {
            ParseError::new(place, format!("cannot read included file `{path}`: {reason}"))
        })?;
        self.read(&text, &path, depth + 1)
    }

    fn assign(&mut self, line: &Line<'_>) -> Result<(), ParseError> {
        let (name, value) = match line.text.split_once('=') {
            Some((name, value)) => (name.trim(), Some(value.trim())),
            None => (line.text, None),
        };
        let place = line.place.clone();
        let Some(section) = self.sections.last_mut() else {
            let message = format!("option `{}` is outside of a [job] section", line.text);
            return Err(
                ParseError::new(place, message).with_remedy("start with [global] or [name]")
            );
        };
        self.assignments += 1;
        if self.assignments > ASSIGNMENTS_MAX {
            let message = format!("there are more than {ASSIGNMENTS_MAX} options");
            let error = ParseError::new(place, message);
            return Err(error.with_remedy("put what jobs share into [global]"));
        }
        let value = match value {
            None => None,
            Some(value) => {
                let filled = substitute::fill(value, self.source);
                let filled = filled.map_err(|complaint| complaint.at(place.clone()))?;
                for variable in filled.unset {
                    let message = format!("${{{variable}}} is not set and replaced by nothing");
                    self.warnings.push(Warning { place: place.clone(), message });
                }
                Some(filled.text)
            }
        };
        section.assignments.push(Assignment { name: name.to_owned(), value, place });
        Ok(())
    }
}

impl<'a> Line<'a> {
    fn of(raw: &'a str, label: &str, line: usize) -> Option<Self> {
        let code = raw.split([';', '#']).next().unwrap_or_default();
        let text = code.trim();
        if text.is_empty() {
            return None;
        }
        let column = code.chars().take_while(|c| c.is_whitespace()).count() + 1;
        Some(Self { text, place: Place::File { label: label.to_owned(), line, column } })
    }
}

fn include_path(line: &str) -> Option<&str> {
    let path = line.strip_prefix("include")?;
    // `include = x` is a (wrong) option and gets the message of one.
    let path = path.strip_prefix([' ', '\t'])?.trim();
    if path.is_empty() || path.starts_with('=') { None } else { Some(path) }
}

/// Included paths are relative to the file that includes them.
fn beside(label: &str, path: &str) -> String {
    match label.rsplit_once('/') {
        Some((directory, _)) if !path.starts_with('/') => format!("{directory}/{path}"),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn included_path_is_relative_to_the_including_file() {
        assert_eq!(beside("a/b.fio", "c.fio"), "a/c.fio");
        assert_eq!(beside("/b.fio", "c.fio"), "/c.fio");
        assert_eq!(beside("b.fio", "c.fio"), "c.fio");
        assert_eq!(beside("a/b.fio", "/c.fio"), "/c.fio");
    }

    #[test]
    fn comment_ends_a_line_anywhere() {
        let line = Line::of("\t filename=foo;bar", "x", 3).unwrap();
        assert_eq!(line.text, "filename=foo");
        assert_eq!(line.place.to_string(), "x:3:3");
        assert!(Line::of("  # rw=read", "x", 1).is_none());
    }
}
