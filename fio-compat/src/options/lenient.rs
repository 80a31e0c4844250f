//! Numbers as fio reads them (`--strict=fio`): as far as it understands them, and no further.
//!
//! Data flow: row + text -> the text that means here what the original means to fio, and a
//! sentence where that is not what anybody would think.
//!
//! Not here: our own reading (`units`), which the new text goes through all the same.

use super::table::{Kind, Row};
use super::units;

/// A value in the words of our own grammar.
pub(crate) struct Reading {
    /// What to parse instead.
    pub(crate) text: String,
    /// What is surprising about it.
    pub(crate) surprise: Option<String>,
}

/// What the suffix of a number multiplies it with.
#[derive(Clone, Copy)]
enum Unit {
    /// Sizes and counts.
    Size,
    /// Times; a bare number is what the option says.
    Time,
    /// None has a meaning.
    Plain,
}

/// Reads a value as fio does; `None` where both grammars agree, or fio refuses as well.
pub(crate) fn reading(row: &Row, text: &str) -> Option<Reading> {
    let (unit, separators) = match &row.kind {
        Kind::Count { .. } | Kind::Number { .. } | Kind::Extent(_) => (Unit::Size, ""),
        Kind::PerDirection(_) => (Unit::Size, ","),
        // Its parameters are numbers with a point.
        Kind::ParsedSizes(_) | Kind::NotedSizes(_) if row.name != "random_distribution" => {
            (Unit::Size, ",:/-")
        }
        Kind::Seconds(_) => (Unit::Time, ""),
        Kind::Percent(_) => (Unit::Plain, ""),
        Kind::Parsed(_) if is_time(row.name) => (Unit::Time, ",-"),
        _ => return None,
    };
    if text.trim_start().starts_with('(') {
        return None;
    }
    let mut read = String::new();
    let mut surprises = Vec::new();
    for part in text.split_inclusive(|c| separators.contains(c)) {
        let end = part.char_indices().next_back().filter(|(_, last)| separators.contains(*last));
        let (number, separator) = part.split_at(end.map_or(part.len(), |(at, _)| at));
        match one(number.trim(), unit) {
            Some(plain) => {
                if plain != number.trim() && differs(number.trim(), &plain, unit) {
                    surprises.push(format!("`{}` is `{plain}`", number.trim()));
                }
                read.push_str(&plain);
            }
            None => read.push_str(number),
        }
        read.push_str(separator);
    }
    let surprise = (!surprises.is_empty()).then(|| {
        let list = surprises.join(", ");
        format!(
            "`{}={text}` is read as fio reads it: {list}; strict=1 refuses or explains",
            row.name
        )
    });
    (read != text).then_some(Reading { text: read, surprise })
}

/// Options whose own grammar is that of a time, or of several.
fn is_time(name: &str) -> bool {
    name == "startdelay" || name == "max_latency" || name.starts_with("thinktime")
}

/// Whether our own reading of both is not the same number.
fn differs(text: &str, plain: &str, unit: Unit) -> bool {
    let value = |text: &str| match unit {
        Unit::Size => units::size(text.trim_end_matches('%')).map(|size| size.bytes).ok(),
        Unit::Time => units::time_ns(text).ok(),
        Unit::Plain => text.trim_end_matches('%').parse().ok(),
    };
    value(text).is_none() || value(text) != value(plain)
}

/// The number at the start of `text` and the suffix that fio sees behind it.
fn one(text: &str, unit: Unit) -> Option<String> {
    // fio looks for the prefix anywhere: `50x` is hexadecimal because of its `0x`.
    let radix = if text.contains("0x") || text.contains("0X") { 16 } else { 10 };
    let prefix = text.get(..2).filter(|prefix| radix == 16 && prefix.eq_ignore_ascii_case("0x"));
    let digits = &text[prefix.map_or(0, str::len)..];
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let value = u64::from_str_radix(&digits[..end], radix).ok()?;
    // The suffix begins behind the decimal digits, even of a hexadecimal number.
    let behind = text.trim_start_matches(|c: char| c.is_ascii_digit()).to_ascii_lowercase();
    let known: &[&str] = match unit {
        Unit::Size => &["pib", "tib", "gib", "mib", "kib", "p", "t", "g", "m", "k", "%"],
        Unit::Time => &["us", "ms"],
        Unit::Plain => &["%"],
    };
    let suffix = known.iter().find(|suffix| behind.starts_with(**suffix)).copied();
    let suffix = match (unit, suffix) {
        (Unit::Time, None) if ["s", "m", "h", "d"].contains(&behind.as_str()) => behind.as_str(),
        // Letters that are no unit are microseconds; anything else is as if it were not there.
        (Unit::Time, None) if behind.starts_with(|c: char| c.is_ascii_alphabetic()) => "us",
        (_, suffix) => suffix.unwrap_or(""),
    };
    Some(format!("{value}{suffix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Debian's fio 3.33 makes of them (`--debug=parse`).
    #[test]
    fn strict_fio_reads_numbers_as_fio_does() {
        for (text, plain) in [
            ("1.5g", "1"),
            ("1q", "1"),
            ("4kk", "4k"),
            ("0x10k", "16"),
            ("4kx", "4k"),
            ("4.9", "4"),
            ("2e3", "2"),
            ("1 2", "1"),
            ("10%x", "10%"),
            ("4096b", "4096"),
            ("4KiB", "4kib"),
            ("50x", "80"),
        ] {
            assert_eq!(one(text, Unit::Size).as_deref(), Some(plain), "{text}");
        }
        for (text, plain) in [
            ("10sec", "10us"),
            ("10min", "10us"),
            ("1.5", "1"),
            ("1.5s", "1"),
            ("10ms", "10ms"),
            ("10M", "10m"),
            ("10msx", "10ms"),
            ("7", "7"),
        ] {
            assert_eq!(one(text, Unit::Time).as_deref(), Some(plain), "{text}");
        }
        assert_eq!(one("50x", Unit::Plain).as_deref(), Some("80"));
        for text in ["", "k", "x", "-1", "99999999999999999999"] {
            assert_eq!(one(text, Unit::Size), None, "{text}");
        }
    }
}
