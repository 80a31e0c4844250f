//! Values made of parts: triples by direction, ranges, shares, numbers with a point.
//!
//! Data flow: text -> parts -> the row's own setter.
//!
//! Not here: plain values (`value`), units (`units`).

use crate::error::Complaint;

use super::units;

/// `read,write,trim`; a missing later value repeats the one before, an empty one is none.
pub(super) fn triple<T: Clone>(
    text: &str,
    one: impl Fn(&str) -> Result<T, Complaint>,
) -> Result<[Option<T>; 3], Complaint> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > 3 {
        return Err(Complaint::new("there are more than the three values read,write,trim"));
    }
    let mut values = [None, None, None];
    let mut previous = None;
    for (direction, value) in values.iter_mut().enumerate() {
        previous = match parts.get(direction) {
            Some(&"") => None,
            Some(part) => Some(one(part)?),
            None => previous,
        };
        value.clone_from(&previous);
    }
    Ok(values)
}

/// Bytes, or a plain count.
pub(super) fn bytes(text: &str) -> Result<u64, Complaint> {
    units::size(text.trim()).map(|size| size.bytes)
}

/// `low-high` or `low:high`, swapped if reversed; one value is both.
pub(super) fn range(text: &str) -> Result<(u64, u64), Complaint> {
    let (low, high) = text.split_once(['-', ':']).unwrap_or((text, text));
    let (low, high) = (bytes(low)?, bytes(high)?);
    Ok((low.min(high), low.max(high)))
}

/// A number with a decimal point, finite.
pub(super) fn decimal(text: &str) -> Result<f64, Complaint> {
    let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    value.ok_or_else(|| Complaint::new(format!("`{text}` is not a number")))
}

/// A whole number of percent from 0 to 100.
pub(super) fn percent(text: &str) -> Result<u32, Complaint> {
    let digits = text.trim().trim_end_matches('%');
    match digits.parse::<u32>() {
        Ok(value @ 0..=100) => Ok(value),
        _ => Err(Complaint::new(format!("`{text}` is not a percentage from 0 to 100"))),
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(text: &str, choices: &[(&str, T)]) -> Result<T, Complaint> {
    let found = choices.iter().find(|(word, _)| *word == text.trim());
    found.map(|(_, value)| *value).ok_or_else(|| {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let nearest = super::nearest(text, words.iter().copied());
        let hint = nearest.map_or(String::new(), |word| format!("did you mean {word}? "));
        let remedy = format!("{hint}valid values are {}", words.join(", "));
        Complaint::new("no such value").with_remedy(remedy)
    })
}

/// `value/percent:value/percent…`: missing percentages share the rest evenly.
pub(super) fn shares(text: &str) -> Result<Vec<(u64, u32)>, Complaint> {
    const SHARES_MAX: usize = 64;
    let mut parts: Vec<(u64, Option<u32>)> = Vec::new();
    for part in text.split(':').filter(|part| !part.trim().is_empty()) {
        let (value, share) = part.split_once('/').unwrap_or((part, ""));
        let share = if share.trim().is_empty() { None } else { Some(percent(share)?) };
        parts.push((bytes(value)?, share));
    }
    if parts.is_empty() || parts.len() > SHARES_MAX {
        return Err(Complaint::new(format!("a split has 1 to {SHARES_MAX} parts")));
    }
    let given: u32 = parts.iter().filter_map(|(_, share)| *share).sum();
    let open = u32::try_from(parts.iter().filter(|(_, share)| share.is_none()).count());
    let open = open.unwrap_or(0);
    if given > 100 || open == 0 && given != 100 {
        let message = format!("the percentages add up to {given} instead of 100");
        return Err(Complaint::new(message).with_remedy("leave one percentage blank for the rest"));
    }
    let (each, mut odd) = ((100 - given).checked_div(open), (100 - given).checked_rem(open));
    let mut share = |given: Option<u32>| {
        given.unwrap_or_else(|| {
            let extra = odd.as_mut().filter(|left| **left > 0);
            let extra = extra.map_or(0, |left| {
                *left -= 1;
                1
            });
            each.unwrap_or(0) + extra
        })
    };
    Ok(parts.into_iter().map(|(value, given)| (value, share(given))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_shares_get_the_rest_evenly_and_sums_must_be_100() {
        assert_eq!(shares("4k/60:8k/40").unwrap(), [(4096, 60), (8192, 40)]);
        assert_eq!(shares("4k/50:8k/:16k/").unwrap(), [(4096, 50), (8192, 25), (16384, 25)]);
        assert_eq!(shares("1/:2/:3/").unwrap(), [(1, 34), (2, 33), (3, 33)]);
        for text in ["", "4k/60:8k/60", "4k/60", "4k/101", "x/10", "4k/60:8k/60:1k/"] {
            assert!(shares(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_are_swapped_if_reversed() {
        assert_eq!(range("4k-16k").unwrap(), (4096, 16384));
        assert_eq!(range("16k:4k").unwrap(), (4096, 16384));
    }
}
