//! Options about the content of buffers and of blocks that are checked.
//!
//! Data flow: row -> parser -> field of `Content`.
//!
//! Not here: methods and times of checks (`verify`), making content (the bench).

use super::{Kind, Row, digit, row};
use crate::error::Complaint;
use crate::job::Pattern;
use crate::options::PATTERN_BYTES_MAX;

pub(super) const ROWS: &[Row] = &[
    row(
        "zero_buffers",
        &[],
        Kind::Flag(|job, value| job.content.zero_buffers = value),
        |job| digit(job.content.zero_buffers),
        "write zeros",
    ),
    row(
        "refill_buffers",
        &[],
        Kind::Flag(|job, value| job.content.refill_buffers = value),
        |job| digit(job.content.refill_buffers),
        "new random data in every write",
    ),
    row(
        "scramble_buffers",
        &[],
        Kind::Bool(|job, value| job.content.scramble_buffers = value),
        |job| digit(job.content.scramble_buffers),
        "change a little in every write",
    ),
    row(
        "buffer_pattern",
        &[],
        Kind::Parsed(|job, text| {
            let pattern = pattern(text, false)?;
            job.content.buffer_pattern = Some(pattern);
            Ok(())
        }),
        |job| show(job.content.buffer_pattern.as_ref()),
        "write this: 0xHEX, \"text\", numbers, 'file', in a row",
    ),
    row(
        "buffer_compress_percentage",
        &[],
        Kind::Percent(|job, value| {
            job.content.compress_percent = value;
            job.content.refill_buffers = true;
        }),
        |job| job.content.compress_percent.to_string(),
        "how much of the data a compressor can save",
    ),
    row(
        "buffer_compress_chunk",
        &[],
        Kind::Number { min: 1, set: |job, value| job.content.compress_chunk_bytes = value },
        |job| job.content.compress_chunk_bytes.to_string(),
        "size of the pieces that compress",
    ),
    row(
        "dedupe_percentage",
        &[],
        Kind::Percent(|job, value| {
            job.content.dedupe_percent = value;
            job.content.refill_buffers = true;
        }),
        |job| job.content.dedupe_percent.to_string(),
        "share of writes whose content repeats another",
    ),
    row(
        "verify_interval",
        &["header_interval"],
        Kind::Number { min: 0, set: |job, value| job.content.verify_interval = value },
        |job| job.content.verify_interval.to_string(),
        "size of the units that are checked; 0 is the block",
    ),
    row(
        "verify_offset",
        &[],
        Kind::Number { min: 0, set: |job, value| job.content.verify_offset = value },
        |job| job.content.verify_offset.to_string(),
        "where in each unit the header stands",
    ),
    row(
        "verify_pattern",
        &[],
        Kind::Parsed(|job, text| {
            let pattern = pattern(text, true)?;
            job.content.verify_pattern = Some(pattern);
            if job.verify == crate::job::Verify::None {
                job.verify = crate::job::Verify::Pattern;
            }
            Ok(())
        }),
        |job| show(job.content.verify_pattern.as_ref()),
        "data to check: as buffer_pattern, and %o for the offset",
    ),
    row(
        "verify_backlog",
        &[],
        Kind::Number { min: 0, set: |job, value| job.content.verify_backlog = value },
        |job| job.content.verify_backlog.to_string(),
        "check after every so many writes",
    ),
    row(
        "verify_backlog_batch",
        &[],
        Kind::Number { min: 0, set: |job, value| job.content.verify_backlog_batch = value },
        |job| job.content.verify_backlog_batch.to_string(),
        "how many to check at a time; 0 is all",
    ),
    row(
        "verify_dump",
        &[],
        Kind::Bool(|job, value| job.content.verify_dump = value),
        |job| digit(job.content.verify_dump),
        "write wrong blocks to files beside the program",
    ),
    row(
        "verify_only",
        &[],
        Kind::Flag(|job, value| job.content.verify_only = value),
        |job| digit(job.content.verify_only),
        "read and check what an earlier run has written",
    ),
];

fn show(pattern: Option<&Pattern>) -> String {
    pattern.map_or(String::new(), |pattern| {
        let hex = |byte: &u8| format!("{byte:02x}");
        format!("0x{}", pattern.bytes.iter().map(hex).collect::<String>())
    })
}

/// `0xHEX`, `"text"`, decimal numbers, and `%o` where allowed, one after another.
pub(in crate::options) fn pattern(text: &str, offsets: bool) -> Result<Pattern, Complaint> {
    let mut pattern = Pattern::default();
    let mut rest = text.trim();
    while !rest.is_empty() {
        // Bytes of a file are set off by blanks.
        rest = if let Some(tail) = rest.strip_prefix(' ') {
            tail
        } else if let Some(after) = rest.strip_prefix('"') {
            let missing = || Complaint::new("a closing \" is missing");
            let (inside, tail) = after.split_once('"').ok_or_else(missing)?;
            pattern.bytes.extend(inside.as_bytes());
            tail
        } else if rest.starts_with('\'') {
            // Files were read before, by whoever can.
            let complaint = Complaint::new("the name of a pattern's file does not end");
            return Err(complaint.with_remedy("write 'FILE', or its bytes as 0xHEX"));
        } else if let Some(tail) = rest.strip_prefix("%o") {
            if !offsets {
                let complaint = Complaint::new("%o stands only in verify_pattern");
                return Err(complaint);
            }
            pattern.offsets.push(pattern.bytes.len());
            pattern.bytes.extend([0; 8]);
            tail
        } else if let Some(after) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let end = after.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(after.len());
            let (digits, tail) = after.split_at(end);
            pattern.bytes.extend(hex(digits)?);
            tail
        } else {
            let negative = rest.starts_with('-');
            let digits = rest.trim_start_matches('-');
            let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
            // In `-120xface`, the 0 belongs to what follows.
            let hex_follows = end > 1 && digits[..end].ends_with('0');
            let hex_follows = hex_follows && digits[end..].starts_with(['x', 'X']);
            let (digits, tail) = digits.split_at(end - usize::from(hex_follows));
            let value = digits.parse::<i64>().ok().map(|n| if negative { -n } else { n });
            let value = value.and_then(|n| i32::try_from(n).ok());
            let unknown = || Complaint::new(format!("`{rest}` is no part of a pattern"));
            let remedy = "write 0xHEX, \"text\" or a number of 32 bits";
            let value = value.ok_or_else(|| unknown().with_remedy(remedy))?;
            let bytes = value.to_le_bytes();
            // As in fio, a number takes as many bytes as it needs.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
            pattern.bytes.extend(&bytes[..used]);
            tail
        };
        if pattern.bytes.len() > PATTERN_BYTES_MAX {
            let message = format!("a pattern has at most {PATTERN_BYTES_MAX} bytes");
            return Err(Complaint::new(message));
        }
    }
    if pattern.bytes.is_empty() {
        return Err(Complaint::new("the pattern is empty"));
    }
    Ok(pattern)
}

fn hex(digits: &str) -> Result<Vec<u8>, Complaint> {
    if digits.is_empty() {
        return Err(Complaint::new("0x is followed by no digits"));
    }
    let padded = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits.to_owned() };
    let pairs = padded.as_bytes().chunks(2);
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).unwrap_or("");
        u8::from_str_radix(text, 16).map_err(|_| Complaint::new("not a hexadecimal number"))
    };
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_pattern_and_verify_pattern_have_fios_grammar() {
        let bytes = |text| pattern(text, true).unwrap().bytes;
        assert_eq!(bytes("0xdeadbeef"), [0xde, 0xad, 0xbe, 0xef]);
        assert_eq!(bytes("0xabc"), [0x0a, 0xbc]);
        assert_eq!(bytes("\"abcd\""), *b"abcd");
        assert_eq!(bytes("-12"), (-12_i32).to_le_bytes());
        assert_eq!(bytes("300"), [44, 1]);
        assert_eq!(bytes("0xff\"abcd\"-12"), *b"\xffabcd\xf4\xff\xff\xff");
        assert!(bytes("\"a\"-120xdeadface").ends_with(&[0xde, 0xad, 0xfa, 0xce]));
        assert_eq!(bytes("-120xde")[..4], (-12_i32).to_le_bytes());
        let placed = pattern("0xff%o\"x\"", true).unwrap();
        assert_eq!((placed.bytes.len(), placed.offsets), (10, vec![1]));
        for text in ["", "0x", "abc", "\"abc", "'file'", "0xffzz"] {
            assert!(pattern(text, true).is_err(), "{text}");
        }
        assert!(pattern("%o", false).is_err());
    }
}
