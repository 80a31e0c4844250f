//! Reads an option's text by its kind and stores the result in the job.
//!
//! Data flow: row + text -> typed value within its range -> the row's setter.
//!
//! Not here: number syntax (`units`) and rules that involve several options (`job::validate`).

use crate::error::Complaint;
use crate::job::{Extent, Job};

use super::suggest::nearest;
use super::table::{Choice, Kind, Row};
use super::units;

/// fio's limit on the number of reported percentiles.
const PERCENTILES_MAX: usize = 20;

/// Larger CPU numbers do not exist on Linux; the limit keeps `0-4294967295` from filling memory.
const CPU_MAX: u32 = 8191;

/// Sets the option; what is surprising about a valid value is returned for a warning.
pub(crate) fn apply(
    row: &Row,
    text: Option<&str>,
    job: &mut Job,
) -> Result<Option<String>, Complaint> {
    let written = text.map_or_else(|| row.name.to_owned(), |text| format!("{}={text}", row.name));
    let decimal = !job.reporting.units.binary && holds_sizes(&row.kind);
    let swapped = text.filter(|_| decimal).map(units::swap_bases);
    match store(&row.kind, swapped.as_deref().or(text), job) {
        Ok(surprise) => Ok(surprise.filter(|_| !decimal).map(|what| format!("`{written}` {what}"))),
        Err(complaint) => Err(Complaint {
            message: format!("failed parsing `{written}`: {}", complaint.message),
            remedy: complaint.remedy.or_else(|| Some(row.kind.remedy(row.name))),
        }),
    }
}

/// Whether `k` in a value of this kind is a size suffix, which `kb_base` concerns.
fn holds_sizes(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Count { .. }
            | Kind::Number { .. }
            | Kind::Extent(_)
            | Kind::PerDirection(_)
            | Kind::ParsedSizes(_)
            | Kind::NotedSizes(_)
    )
}

fn store(kind: &Kind, text: Option<&str>, job: &mut Job) -> Result<Option<String>, Complaint> {
    if let Kind::Flag(set) = kind {
        set(job, text.map_or(Ok(true), truth)?);
        return Ok(None);
    }
    if let Kind::OptionalText(set) = kind {
        set(job, text.map(str::trim).filter(|text| !text.is_empty()));
        return Ok(None);
    }
    let text = text.map(str::trim).filter(|text| !text.is_empty());
    let text = text.ok_or_else(|| Complaint::new("a value is missing"))?;
    let mut surprise = None;
    let mut keep = |found: Option<String>| surprise = found;
    match kind {
        Kind::Flag(set) | Kind::Bool(set) => set(job, truth(text)?),
        Kind::Text(set) => set(job, text),
        Kind::OptionalText(set) => set(job, Some(text)),
        Kind::Texts(set) => set(job, texts(text)?),
        Kind::Count { min, max, set } => set(job, count(text, *min, *max, &mut keep)?),
        Kind::Number { min, set } => set(job, number(text, *min, &mut keep)?),
        Kind::Percent(set) => set(job, percent(text)?),
        Kind::Extent(set) => set(job, extent(text, &mut keep)?),
        Kind::PerDirection(set) => set(job, per_direction(text, &mut keep)?),
        Kind::Seconds(set) => set(job, units::time_ns(text)?),
        Kind::Choice { choices, not_yet } => choice(text, choices, not_yet)?(job),
        Kind::Percentiles(set) => set(job, percentiles(text)?),
        Kind::Cpus(set) => set(job, cpus(text)?),
        Kind::Parsed(set) | Kind::ParsedSizes(set) => set(job, text)?,
        Kind::NotedSizes(set) => keep(set(job, text)?.map(str::to_owned)),
    }
    Ok(surprise)
}

fn truth(text: &str) -> Result<bool, Complaint> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" => Ok(true),
        "0" | "false" | "no" => Ok(false),
        _ => Err(Complaint::new("not a yes or no").with_remedy("write 0 or 1")),
    }
}

/// Splits at colons that no backslash precedes.
fn texts(text: &str) -> Result<Vec<String>, Complaint> {
    let mut parts = vec![String::new()];
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let letter = match letter {
            ':' => {
                parts.push(String::new());
                continue;
            }
            '\\' if letters.peek() == Some(&':') => letters.next().unwrap_or(letter),
            other => other,
        };
        parts.last_mut().expect("the list starts with one part and only grows").push(letter);
    }
    if parts.iter().any(String::is_empty) {
        let remedy = "separate names by one `:` and write `\\:` for a colon inside a name";
        return Err(Complaint::new("a name is empty").with_remedy(remedy));
    }
    Ok(parts)
}

fn size(text: &str, surprise: &mut dyn FnMut(Option<String>)) -> Result<u64, Complaint> {
    let size = units::size(text)?;
    surprise(size.surprise);
    Ok(size.bytes)
}

fn number(
    text: &str,
    min: u64,
    surprise: &mut dyn FnMut(Option<String>),
) -> Result<u64, Complaint> {
    let value = size(text, surprise)?;
    if value < min {
        return Err(Complaint::new(format!("the value must be at least {min}")));
    }
    Ok(value)
}

fn count(
    text: &str,
    min: u32,
    max: u32,
    surprise: &mut dyn FnMut(Option<String>),
) -> Result<u32, Complaint> {
    match u32::try_from(size(text, surprise)?) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => Err(Complaint::new(format!("the value must be from {min} to {max}"))),
    }
}

/// Bytes, or a percentage of the target.
fn extent(text: &str, surprise: &mut dyn FnMut(Option<String>)) -> Result<Extent, Complaint> {
    match text.strip_suffix('%') {
        Some(percent) => units::percent(percent).map(Extent::Percent),
        None => size(text, surprise).map(Extent::Bytes),
    }
}

fn percent(text: &str) -> Result<u8, Complaint> {
    let digits = text.strip_suffix('%').unwrap_or(text);
    match digits.parse::<u8>() {
        Ok(percent @ 0..=100) => Ok(percent),
        _ => Err(Complaint::new("the value must be a whole number from 0 to 100")),
    }
}

/// `read,write,trim`: a missing later value repeats the one before, an empty one keeps the default.
fn per_direction(
    text: &str,
    surprise: &mut dyn FnMut(Option<String>),
) -> Result<[Option<u64>; 3], Complaint> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > 3 {
        return Err(Complaint::new("there are more than the three values read,write,trim"));
    }
    let mut values = [None; 3];
    let mut previous = None;
    for (direction, value) in values.iter_mut().enumerate() {
        previous = match parts.get(direction) {
            Some(&"") => None,
            Some(part) => Some(size(part, surprise)?),
            None => previous,
        };
        *value = previous;
    }
    if values.contains(&Some(0)) {
        return Err(Complaint::new("a block cannot have 0 bytes"));
    }
    Ok(values)
}

fn choice(
    text: &str,
    choices: &[Choice],
    not_yet: &[&'static str],
) -> Result<fn(&mut Job), Complaint> {
    if let Some((_, set)) = choices.iter().find(|(word, _)| *word == text) {
        return Ok(*set);
    }
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    let valid = format!("valid values are {}", words.join(", "));
    // `randread:8` and `iops_slope:5%` are words with a parameter.
    let word = text.split(':').next().unwrap_or(text);
    if not_yet.contains(&word) || words.contains(&word) {
        let message = format!("value `{text}` is known to fio but not supported yet");
        return Err(Complaint::new(message).with_remedy(valid));
    }
    let known = words.iter().chain(not_yet).copied();
    let hint = nearest(text, known).map_or(String::new(), |word| format!("did you mean {word}? "));
    Err(Complaint::new("no such value").with_remedy(hint + &valid))
}

fn percentiles(text: &str) -> Result<Vec<f64>, Complaint> {
    let mut list = Vec::new();
    for part in text.split(':') {
        let value = part.trim().parse::<f64>().ok();
        let value = value.filter(|value| *value > 0.0 && *value <= 100.0);
        list.push(value.ok_or_else(|| {
            let message = format!("`{part}` is no number above 0 and up to 100");
            Complaint::new(message).with_remedy("write a list such as 50:99:99.9")
        })?);
    }
    if list.len() > PERCENTILES_MAX {
        return Err(Complaint::new(format!("at most {PERCENTILES_MAX} percentiles can be listed")));
    }
    list.sort_by(f64::total_cmp);
    list.dedup();
    Ok(list)
}

fn cpus(text: &str) -> Result<Vec<u32>, Complaint> {
    // Marked, not listed: ranges may overlap, as often as the text has room for them (F49).
    let mut wanted = vec![false; CPU_MAX as usize + 1];
    for part in text.split(',') {
        let (low, high) = part.split_once(['-', ':']).unwrap_or((part, part));
        match (low.trim().parse::<u32>(), high.trim().parse::<u32>()) {
            (Ok(low), Ok(high)) if low.max(high) <= CPU_MAX => {
                wanted[low.min(high) as usize..=low.max(high) as usize].fill(true);
            }
            _ => {
                let message = format!("`{part}` is no CPU number up to {CPU_MAX} or range of them");
                return Err(Complaint::new(message).with_remedy("write a list such as 0,2-3"));
            }
        }
    }
    Ok((0..).zip(wanted).filter_map(|(cpu, wanted)| wanted.then_some(cpu)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_colon_stays_in_the_name() {
        assert_eq!(texts(r"/dev/a\:b:/dev/c").unwrap(), ["/dev/a:b", "/dev/c"]);
        assert!(texts("a::b").is_err());
    }

    #[test]
    fn missing_direction_repeats_the_previous_one() {
        let k = |n: u64| Some(n << 10);
        let read = |text| per_direction(text, &mut |_| ());
        assert_eq!(read("4k").unwrap(), [k(4), k(4), k(4)]);
        assert_eq!(read("4k,8k").unwrap(), [k(4), k(8), k(8)]);
        assert_eq!(read("4k,").unwrap(), [k(4), None, None]);
        assert_eq!(read(",8k").unwrap(), [None, k(8), k(8)]);
        assert!(read("1,2,3,4").is_err() && read("0").is_err());
    }

    #[test]
    fn cpu_ranges_are_expanded_and_sorted() {
        assert_eq!(cpus("3,0-1,1").unwrap(), [0, 1, 3]);
        assert_eq!(cpus("2-0").unwrap(), [0, 1, 2]);
        for text in ["", "a", "1-", "0-4294967295", "0,,1"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentiles_are_sorted_and_bounded() {
        assert_eq!(percentiles("99.9:50").unwrap(), [50.0, 99.9]);
        for text in ["", "0", "101", "nan", "a:b", &"1:".repeat(30)] {
            assert!(percentiles(text).is_err(), "{text}");
        }
    }

    #[test]
    fn yes_and_no_have_three_spellings() {
        assert!(["1", "true", "Yes"].iter().all(|text| truth(text) == Ok(true)));
        assert!(["0", "FALSE", "no"].iter().all(|text| truth(text) == Ok(false)));
        assert!(truth("2").is_err());
    }
}
