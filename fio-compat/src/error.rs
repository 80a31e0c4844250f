//! Turns a complaint about the input into one line that says where, what and how to mend it.
//!
//! Data flow: a parser names a [`Place`], a message and perhaps a remedy -> one printable line.
//!
//! Not here: deciding what is wrong (`lex`, `options`, `job::validate`).

use std::fmt;

/// Where an option or a line was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The command line; `argument` counts from 1 and 0 means the command line as a whole.
    CommandLine {
        /// Number of the argument after the program's name.
        argument: usize,
    },
    /// `--set`, which wins over what any section says.
    Override,
    /// A job file (or an embedded job text).
    File {
        /// The path as the user wrote it, or the label of an embedded text.
        label: String,
        /// Line, from 1; 0 means the file as a whole.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
}

impl Place {
    /// The command line as a whole.
    pub const COMMAND_LINE: Self = Self::CommandLine { argument: 0 };

    /// A file as a whole, for complaints that belong to none of its lines.
    #[must_use]
    pub fn whole_file(label: &str) -> Self {
        Self::File { label: label.to_owned(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine { argument: 0 } => f.write_str("command line"),
            Self::CommandLine { argument } => write!(f, "command line, argument {argument}"),
            Self::Override => f.write_str("--set"),
            Self::File { label, line: 0, .. } => write_on_one_line(f, label),
            Self::File { label, line, column } => {
                write_on_one_line(f, label)?;
                write!(f, ":{line}:{column}")
            }
        }
    }
}

/// The input cannot be run. Nothing was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Where the offending text stands.
    pub place: Place,
    /// What is wrong, naming the text as the user wrote it.
    pub message: String,
    /// What to write instead, where that is known.
    pub remedy: Option<String>,
}

impl ParseError {
    /// A complaint without a remedy.
    #[must_use]
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into(), remedy: None }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        write_on_one_line(f, &self.message)?;
        if let Some(remedy) = &self.remedy {
            f.write_str("; ")?;
            write_on_one_line(f, remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

/// The input can be run, but probably does not mean what its author thinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Where the surprising text stands.
    pub place: Place,
    /// What happens, and what to write to get the other behaviour.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        write_on_one_line(f, &self.message)
    }
}

/// A complaint of a parser that does not know where its text stands; the caller adds the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

impl Complaint {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: None }
    }

    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    pub(crate) fn at(self, place: Place) -> ParseError {
        ParseError { place, message: self.message, remedy: self.remedy }
    }
}

/// Of a longer text, only the beginning and the end are shown.
const SHOWN_CHARS_MAX: usize = 2000;

/// Job files may hold any character, and a message that spans lines breaks those who grep it.
fn write_on_one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    let count = text.chars().count();
    if count <= SHOWN_CHARS_MAX {
        return escape(f, text.chars());
    }
    escape(f, text.chars().take(SHOWN_CHARS_MAX / 2))?;
    write!(f, " [{} characters] ", count - SHOWN_CHARS_MAX)?;
    escape(f, text.chars().skip(count - SHOWN_CHARS_MAX / 2))
}

fn escape(f: &mut fmt::Formatter<'_>, text: impl Iterator<Item = char>) -> fmt::Result {
    use std::fmt::Write as _;
    for c in text {
        if c.is_control() {
            write!(f, "{}", c.escape_default())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_with_newline_displays_on_one_line() {
        let place = Place::File { label: "a\nb".to_owned(), line: 3, column: 4 };
        let error = ParseError::new(place, "bad `\r\n`").with_remedy("write\tless");
        assert_eq!(error.to_string(), "a\\nb:3:4: bad `\\r\\n`; write\\tless");
    }

    #[test]
    fn command_line_argument_is_named_by_its_number() {
        let error = ParseError::new(Place::CommandLine { argument: 2 }, "no");
        assert_eq!(error.to_string(), "command line, argument 2: no");
        assert_eq!(Place::COMMAND_LINE.to_string(), "command line");
    }
}
