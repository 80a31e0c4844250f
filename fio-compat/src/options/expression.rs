//! Integer arithmetic in option values: `(4 * 1k + 512)`, and `8*$ncpus` in job files.
//!
//! Data flow: text -> recursive descent with a suffix table -> one checked integer.
//!
//! Not here: which suffixes exist (`units`) and substituting `$ncpus` (`lex`).

use crate::error::Complaint;

/// Parentheses deeper than this are a mistake, and recursion must end before the stack does.
const DEPTH_MAX: u32 = 32;

/// Multiplier of a suffix, if it is one; asked for the empty suffix too.
type Suffix = fn(&str) -> Option<u64>;

/// Evaluates `+ - * / % ^` and parentheses; numbers may carry suffixes.
pub(crate) fn evaluate(text: &str, suffix: Suffix) -> Result<u64, Complaint> {
    let mut reader = Reader { rest: text, depth: 0, suffix };
    let value = reader.sum()?;
    if !reader.rest.trim_start().is_empty() {
        return Err(Complaint::new(format!("cannot read `{}` in arithmetic", reader.rest.trim())));
    }
    u64::try_from(value).map_err(|_| Complaint::new(format!("the result {value} is out of range")))
}

struct Reader<'a> {
    rest: &'a str,
    depth: u32,
    suffix: Suffix,
}

impl Reader<'_> {
    /// Takes the next character if it is one of `wanted`.
    fn take(&mut self, wanted: &str) -> Option<char> {
        self.rest = self.rest.trim_start();
        let next = self.rest.chars().next().filter(|c| wanted.contains(*c))?;
        self.rest = &self.rest[next.len_utf8()..];
        Some(next)
    }

    fn sum(&mut self) -> Result<i128, Complaint> {
        let mut left = self.product()?;
        while let Some(operator) = self.take("+-") {
            let right = self.product()?;
            left = combine(operator, left, right)?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<i128, Complaint> {
        let mut left = self.power()?;
        while let Some(operator) = self.take("*/%") {
            let right = self.power()?;
            left = combine(operator, left, right)?;
        }
        Ok(left)
    }

    fn power(&mut self) -> Result<i128, Complaint> {
        let base = self.atom()?;
        if self.take("^").is_none() {
            return Ok(base);
        }
        self.nested(Self::power).and_then(|exponent| combine('^', base, exponent))
    }

    fn atom(&mut self) -> Result<i128, Complaint> {
        if self.take("-").is_some() {
            return self.nested(Self::atom).and_then(|value| combine('-', 0, value));
        }
        if self.take("(").is_none() {
            return self.number();
        }
        let value = self.nested(Self::sum)?;
        match self.take(")") {
            Some(_) => Ok(value),
            None => Err(Complaint::new("a closing parenthesis is missing")),
        }
    }

    fn nested(
        &mut self,
        parse: fn(&mut Self) -> Result<i128, Complaint>,
    ) -> Result<i128, Complaint> {
        if self.depth == DEPTH_MAX {
            return Err(Complaint::new("arithmetic is nested too deeply"));
        }
        self.depth += 1;
        let value = parse(self);
        self.depth -= 1;
        value
    }

    fn number(&mut self) -> Result<i128, Complaint> {
        self.rest = self.rest.trim_start();
        let digits = self.prefix(|c| c.is_ascii_digit());
        if digits.is_empty() {
            return Err(Complaint::new("a number is missing in arithmetic"));
        }
        let number: i128 =
            digits.parse().map_err(|_| Complaint::new(format!("`{digits}` is too large")))?;
        let letters = self.prefix(|c| c.is_ascii_alphabetic()).to_ascii_lowercase();
        let unknown = || Complaint::new(format!("unknown suffix `{letters}` in arithmetic"));
        let factor = (self.suffix)(&letters).ok_or_else(unknown)?;
        combine('*', number, i128::from(factor))
    }

    fn prefix(&mut self, wanted: fn(char) -> bool) -> String {
        let end = self.rest.find(|c| !wanted(c)).unwrap_or(self.rest.len());
        let (prefix, rest) = self.rest.split_at(end);
        let prefix = prefix.to_owned();
        self.rest = rest;
        prefix
    }
}

fn combine(operator: char, left: i128, right: i128) -> Result<i128, Complaint> {
    if right == 0 && "/%".contains(operator) {
        return Err(Complaint::new("division by zero"));
    }
    let value = match operator {
        '+' => left.checked_add(right),
        '-' => left.checked_sub(right),
        '*' => left.checked_mul(right),
        '/' => left.checked_div(right),
        '%' => left.checked_rem(right),
        _ => u32::try_from(right).ok().and_then(|exponent| left.checked_pow(exponent)),
    };
    value.ok_or_else(|| Complaint::new("arithmetic overflows"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Result<u64, String> {
        let suffix = |s: &str| match s {
            "" => Some(1),
            "k" => Some(1024),
            _ => None,
        };
        evaluate(text, suffix).map_err(|complaint| complaint.message)
    }

    #[test]
    fn operators_bind_as_in_school() {
        assert_eq!(value("(1024*1024)"), Ok(1 << 20));
        assert_eq!(value("2 + 3 * 4"), Ok(14));
        assert_eq!(value("2^3^2"), Ok(512));
        assert_eq!(value("(10 - 4) % 4 * 2k"), Ok(4096));
        assert_eq!(value("-3 + 4"), Ok(1));
    }

    #[test]
    fn broken_arithmetic_is_refused() {
        for text in ["", "(", "(1", "1)", "1/0", "1-2", "9^99", "2 3", "1x", "*2", "0^-1"] {
            assert!(value(text).is_err(), "{text}");
        }
        assert!(value(&"(".repeat(100_000)).is_err());
        assert!(value(&"-".repeat(100_000)).is_err());
        assert!(value(&"2^".repeat(100_000)).is_err());
    }
}
