//! Sizes, times and percentages: text with a unit to a plain integer, never truncated.
//!
//! Data flow: `1.5g` -> digits and suffix -> exact bytes, or a complaint.
//!
//! Not here: ranges of single options (`value`).

use crate::error::Complaint;

use super::expression;

/// A number of bytes, and what is surprising about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) surprise: Option<String>,
}

const SIZE_REMEDY: &str = "write a number with k, m, g, t or p (powers of 1024)";
const TIME_REMEDY: &str = "write a number with us, ms, s, m, h or d";

/// Bytes (or a plain count) with fio's suffixes.
pub(crate) fn size(text: &str) -> Result<Size, Complaint> {
    if text.starts_with('(') {
        let bytes = expression::evaluate(text, size_factor)?;
        return Ok(Size { bytes, surprise: None });
    }
    let (text, stray) = without_stray_parenthesis(text);
    let number = Number::split(text).map_err(|complaint| complaint.with_remedy(SIZE_REMEDY))?;
    let suffix = number.suffix.to_ascii_lowercase();
    let factor = size_factor(&suffix).ok_or_else(|| {
        let message = format!("unknown size suffix `{}`", number.suffix);
        Complaint::new(message).with_remedy(SIZE_REMEDY)
    })?;
    let bytes = number.times(factor, "bytes")?;
    let surprise = iec_surprise(&number, &suffix, bytes);
    Ok(Size { bytes, surprise: surprise.or(stray.map(str::to_owned)) })
}

/// Test drivers of fio's pass such values; whatever else follows a number is refused.
pub(crate) fn without_stray_parenthesis(text: &str) -> (&str, Option<&'static str>) {
    match text.strip_suffix(')') {
        Some(before) if !before.contains(['(', ')']) => {
            (before.trim_end(), Some("ends in a `)` that nothing opens; as in fio, it is ignored"))
        }
        _ => (text, None),
    }
}

/// fio inverts the IEC suffixes unless kb_base=1000; keeping that silent would be unkind.
fn iec_surprise(number: &Number<'_>, suffix: &str, bytes: u64) -> Option<String> {
    let (letter, rest) = (suffix.get(..1)?, suffix.get(1..)?);
    let plain = format!("{}{letter}", number.digits());
    match rest {
        "ib" => Some(format!(
            "means {bytes} bytes, as in fio, where KiB is 1000 bytes and k is 1024; \
             write {plain} for powers of 1024"
        )),
        "i" => Some(format!("means {bytes} bytes, as in fio; write {plain} to be understood")),
        _ => None,
    }
}

/// The text that means under `kb_base=1024` what this one means under `kb_base=1000`: there `k`
/// and `ki` are 1000 and `KiB` is 1024.
pub(crate) fn swap_bases(text: &str) -> String {
    let mut swapped = String::new();
    let mut rest = text;
    let mut after_digit = false;
    while let Some(letter) = rest.chars().next() {
        let power = after_digit && "kmgtp".contains(letter.to_ascii_lowercase());
        after_digit = letter.is_ascii_digit();
        swapped.push(letter);
        rest = &rest[letter.len_utf8()..];
        if power {
            let lower = rest.get(..2).unwrap_or_default().to_ascii_lowercase();
            let spent = match rest.get(..1) {
                _ if lower == "ib" => 2,
                Some("i" | "I" | "b" | "B") => 1,
                _ => 0,
            };
            rest = &rest[spent..];
            swapped.push_str(if spent == 2 { "" } else { "ib" });
        }
    }
    swapped
}

fn size_factor(suffix: &str) -> Option<u64> {
    let mut letters = suffix.chars();
    let power = match letters.next() {
        None | Some('b') => 0,
        Some('k') => 1,
        Some('m') => 2,
        Some('g') => 3,
        Some('t') => 4,
        Some('p') => 5,
        Some(_) => return None,
    };
    match (power, letters.as_str()) {
        (_, "") | (1.., "b" | "i") => Some(1024u64.pow(power)),
        (1.., "ib") => Some(1000u64.pow(power)),
        _ => None,
    }
}

/// A percentage of the target, 1 to 100, without its sign.
pub(crate) fn percent(digits: &str) -> Result<u8, Complaint> {
    match digits.trim_end().parse::<u8>() {
        Ok(percent @ 1..=100) => Ok(percent),
        _ => Err(Complaint::new("a percentage is a whole number from 1 to 100")),
    }
}

/// A time in nanoseconds; a bare number is seconds, or microseconds inside parentheses.
pub(crate) fn time_ns(text: &str) -> Result<u64, Complaint> {
    if text.starts_with('(') {
        let factor =
            |suffix: &str| if suffix.is_empty() { Some(1_000) } else { time_factor(suffix) };
        return expression::evaluate(text, factor);
    }
    let number = Number::split(text).map_err(|complaint| complaint.with_remedy(TIME_REMEDY))?;
    let suffix = number.suffix.to_ascii_lowercase();
    let factor = time_factor(&suffix).ok_or_else(|| {
        let message = format!("unknown time suffix `{}`", number.suffix);
        Complaint::new(message).with_remedy(TIME_REMEDY)
    })?;
    number.times(factor, "nanoseconds")
}

fn time_factor(suffix: &str) -> Option<u64> {
    match suffix {
        "us" | "usec" => Some(1_000),
        "ms" | "msec" => Some(1_000_000),
        "" | "s" | "sec" | "secs" | "second" | "seconds" => Some(1_000_000_000),
        "m" | "min" | "mins" | "minute" | "minutes" => Some(60_000_000_000),
        "h" | "hour" | "hours" => Some(3_600_000_000_000),
        "d" | "day" | "days" => Some(86_400_000_000_000),
        _ => None,
    }
}

/// A number as written, before its suffix is understood.
struct Number<'a> {
    /// Digits before the point, or all hexadecimal digits.
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
    radix: u32,
}

impl<'a> Number<'a> {
    fn split(text: &'a str) -> Result<Self, Complaint> {
        let (radix, digits) = match text.get(..2) {
            Some("0x" | "0X") => (16, &text[2..]),
            _ => (10, text),
        };
        let (whole, rest) = split_digits(digits, radix);
        if whole.is_empty() {
            let message = if text.is_empty() { "the value is empty" } else { "not a number" };
            return Err(Complaint::new(message));
        }
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(after) if radix == 10 => split_digits(after, 10),
            _ => ("", rest),
        };
        Ok(Self { whole, fraction, suffix: suffix.trim(), radix })
    }

    fn digits(&self) -> String {
        if self.fraction.is_empty() {
            self.whole.to_owned()
        } else {
            format!("{}.{}", self.whole, self.fraction)
        }
    }

    /// The number times a unit, if that is a whole number.
    fn times(&self, factor: u64, unit: &str) -> Result<u64, Complaint> {
        let too_large = || Complaint::new("the number is too large");
        let whole = u64::from_str_radix(self.whole, self.radix).map_err(|_| too_large())?;
        let whole = whole.checked_mul(factor).ok_or_else(too_large)?;
        let fraction = self.fraction.trim_end_matches('0');
        if fraction.is_empty() {
            return Ok(whole);
        }
        let inexact = || Complaint::new(format!("this is not a whole number of {unit}"));
        let digits = u32::try_from(fraction.len()).map_err(|_| inexact())?;
        let scale = 10u128.checked_pow(digits).ok_or_else(inexact)?;
        let part = fraction.parse::<u128>().map_err(|_| inexact())?;
        let part = part.checked_mul(u128::from(factor)).ok_or_else(inexact)?;
        if part % scale != 0 {
            return Err(inexact());
        }
        let part = u64::try_from(part / scale).map_err(|_| too_large())?;
        whole.checked_add(part).ok_or_else(too_large)
    }
}

fn split_digits(text: &str, radix: u32) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_digit(radix)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parenthesis_behind_a_size_is_a_surprise_and_more_are_refused() {
        let found = size("64k)").unwrap();
        assert_eq!((found.bytes, found.surprise.is_some()), (65536, true));
        assert_eq!(size("(2*4k)").unwrap(), Size { bytes: 8192, surprise: None });
        assert!(["4k))", "4k)x", ")", "4k("].iter().all(|text| size(text).is_err()));
    }

    #[test]
    fn kb_base_1000_swaps_the_meaning_of_the_suffixes() {
        for (text, bytes) in [("4k", 4000), ("4kb", 4000), ("4ki", 4000), ("4KiB", 4096)] {
            assert_eq!(size(&swap_bases(text)).unwrap().bytes, bytes, "{text}");
        }
        assert_eq!(size(&swap_bases("7")).unwrap().bytes, 7);
        assert_eq!(swap_bases("4k,8mib"), "4kib,8m");
    }

    fn bytes(text: &str) -> u64 {
        size(text).unwrap().bytes
    }

    #[test]
    fn sizes_use_powers_of_1024() {
        for (text, expected) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("4k", 4096),
            ("4K", 4096),
            ("4kb", 4096),
            ("1m", 1 << 20),
            ("2G", 2 << 30),
            ("1t", 1 << 40),
            ("3P", 3 << 50),
            ("0x10", 16),
            ("0x1fk", 31 << 10),
            ("(4 * 1k)", 4096),
            ("1.5g", 3 << 29),
            ("0.5k", 512),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn iec_suffix_means_powers_of_1000_with_a_warning() {
        let size = size("4KiB").unwrap();
        assert_eq!(size.bytes, 4000);
        assert!(size.surprise.unwrap().contains("write 4k"));
        assert_eq!(bytes("4ki"), 4096);
        assert_eq!(bytes("1mib"), 1_000_000);
    }

    #[test]
    fn size_that_fio_would_truncate_is_refused() {
        for text in ["1q", "4k5", "1.0001k", "k", "", "-1", "1 2", "1e3", "0x", "4kk", "99999999p"]
        {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_take_every_usual_suffix() {
        for (text, expected_us) in [
            ("10", 10_000_000),
            ("10s", 10_000_000),
            ("10sec", 10_000_000),
            ("1.5", 1_500_000),
            ("10min", 600_000_000),
            ("2m", 120_000_000),
            ("1h", 3_600_000_000),
            ("5ms", 5_000),
            ("5msec", 5_000),
            ("7us", 7),
            ("1d", 86_400_000_000),
            ("(100)", 100),
            ("(2s)", 2_000_000),
        ] {
            assert_eq!(time_ns(text).unwrap(), expected_us * 1_000, "{text}");
        }
        for text in ["10x", "s", "", "1,5", "10 minutes later"] {
            assert!(time_ns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn percentages_outside_1_to_100_are_refused() {
        assert_eq!(percent("100"), Ok(100));
        for text in ["0", "101", "1.5", "", "-1"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
