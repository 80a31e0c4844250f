//! fio's short numbers: `45.3k`, `177MiB/s`, `1024KiB`.
//!
//! Data flow: integer -> at most a few digits, a prefix and a unit.
//!
//! Not here: plain decimals, which `format!` prints as C does.

use crate::job::Units;

/// Powers the prefixes stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prefix {
    /// k is 1000.
    Decimal,
    /// Ki is 1024.
    Binary,
}

/// Numbers in the units a job wants.
impl Units {
    fn prefix(self, first: bool) -> Prefix {
        if self.binary == first { Prefix::Binary } else { Prefix::Decimal }
    }

    fn shown(self, value: u64, prefix: Prefix, unit: &str) -> String {
        num2str(value, usize::from(self.digits), prefix, unit)
    }

    fn rate_as(self, bytes_per_s: u64, prefix: Prefix) -> String {
        match self.bits {
            true => self.shown(bytes_per_s.saturating_mul(8), prefix, "bit/s"),
            false => self.shown(bytes_per_s, prefix, "B/s"),
        }
    }

    /// A rate: `177MiB/s`.
    pub(super) fn rate(self, bytes_per_s: u64) -> String {
        self.rate_as(bytes_per_s, self.prefix(true))
    }

    /// The rate in the other base: `186MB/s`.
    pub(super) fn other_rate(self, bytes_per_s: u64) -> String {
        self.rate_as(bytes_per_s, self.prefix(false))
    }

    /// An amount: `709MiB`.
    pub(super) fn size(self, bytes: u64) -> String {
        self.shown(bytes, self.prefix(true), "B")
    }

    /// The amount in the other base: `743MB`.
    pub(super) fn other_size(self, bytes: u64) -> String {
        self.shown(bytes, self.prefix(false), "B")
    }

    /// A number of things: `45.3k`.
    pub(super) fn count(self, value: u64) -> String {
        self.shown(value, Prefix::Decimal, "")
    }
}

/// `value` in at most `digits_max` digits (rounding up may add one, as in fio).
pub(super) fn num2str(value: u64, digits_max: usize, prefix: Prefix, unit: &str) -> String {
    let (power, prefixes) = match prefix {
        Prefix::Decimal => (1000, ["", "k", "M", "G", "T", "P", "E"]),
        Prefix::Binary => (1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]),
    };
    let mut whole = value;
    let mut step = 0;
    let mut remainder = None;
    while digits(whole) > digits_max && step + 1 < prefixes.len() {
        remainder = Some(whole % power);
        whole /= power;
        step += 1;
    }
    let decimals = digits_max.saturating_sub(digits(whole) + 1);
    let tail = prefixes[step];
    match remainder {
        None => format!("{whole}{tail}{unit}"),
        Some(rest) if decimals == 0 => {
            format!("{}{tail}{unit}", whole + u64::from(rest >= power / 2))
        }
        Some(rest) => {
            let (carry, fraction) = rounded_fraction(rest, power, decimals);
            format!("{}.{fraction:0decimals$}{tail}{unit}", whole + carry)
        }
    }
}

fn digits(value: u64) -> usize {
    value.to_string().len()
}

/// `rest / power` rounded half to even to so many decimals, and what carries into the whole.
fn rounded_fraction(rest: u64, power: u64, decimals: usize) -> (u64, u64) {
    let scale = (0..decimals).fold(1, |scale, _| scale * 10);
    let exact = rest * scale;
    let (mut fraction, left) = (exact / power, exact % power);
    let up = left * 2 > power || (left * 2 == power && fraction % 2 == 1);
    fraction += u64::from(up);
    (fraction / scale, fraction % scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_read_as_fio_prints_them() {
        let decimal = |value, unit| num2str(value, 4, Prefix::Decimal, unit);
        let binary = |value, unit| num2str(value, 4, Prefix::Binary, unit);
        assert_eq!(decimal(186_000_000, "B/s"), "186MB/s");
        assert_eq!(binary(185_597_952, "B/s"), "177MiB/s");
        assert_eq!(decimal(45_347, ""), "45.3k");
        assert_eq!(num2str(4_516_400, 6, Prefix::Decimal, ""), "4516.4k");
        assert_eq!(binary(65_536, "B"), "64.0KiB");
        assert_eq!(binary(4_096, "B"), "4096B");
        assert_eq!(binary(1 << 20, "B"), "1024KiB");
        assert_eq!(decimal(9_900, ""), "9900");
        assert_eq!(decimal(0, "B"), "0B");
        assert_eq!(decimal(u64::MAX, "B"), "18.4EB");
        // 19.99 rounds up to the next whole: the carry must not be lost.
        assert_eq!(decimal(19_999, ""), "20.0k");
    }

    proptest! {
        #[test]
        fn any_number_keeps_to_its_digits(
            value: u64,
            digits_max in 3usize..8,
            binary: bool,
        ) {
            let prefix = if binary { Prefix::Binary } else { Prefix::Decimal };
            let text = num2str(value, digits_max, prefix, "");
            let count = text.chars().filter(char::is_ascii_digit).count();
            prop_assert!(count <= digits_max + 1, "{text}");
            prop_assert!(!text.ends_with('.'), "{text}");
        }
    }
}
