//! Patterns that stand in files: `verify_pattern='file'`.
//!
//! Data flow: text of the option + whoever can read files -> the text with bytes in place of
//! names, which the option's own grammar takes.
//!
//! Not here: that grammar (`rows::content`).

use crate::error::Complaint;
use crate::source::Source;

/// Whether the option takes a pattern.
fn takes_pattern(option: &str) -> bool {
    matches!(option, "buffer_pattern" | "verify_pattern")
}

/// The value of `option` with every `'file'` replaced by the bytes of that file; `None` where
/// there is none.
pub(crate) fn filled(
    option: &str,
    text: &str,
    source: &dyn Source,
) -> Result<Option<String>, Complaint> {
    if !takes_pattern(option) || !text.contains('\'') {
        return Ok(None);
    }
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['"', '\'']) {
        filled.push_str(&rest[..at]);
        let quote = &rest[at..=at];
        let Some((inside, tail)) = rest[at + 1..].split_once(quote) else {
            // A string that does not end is refused by the grammar.
            if quote == "\"" {
                break;
            }
            let complaint = Complaint::new(format!("failed parsing `{option}={text}`"));
            return Err(complaint.with_remedy("end the name of the file with a '"));
        };
        if quote == "\"" {
            filled.push_str(&rest[at..at + inside.len() + 2]);
        } else {
            filled.push_str(&bytes_of(option, inside, source)?);
        }
        rest = tail;
    }
    filled.push_str(rest);
    Ok(Some(filled))
}

/// The file as `0xHEX`, between blanks: what stands beside it may begin with a digit.
fn bytes_of(option: &str, path: &str, source: &dyn Source) -> Result<String, Complaint> {
    let most = super::PATTERN_BYTES_MAX;
    let bytes = source.read_bytes(path, most + 1).map_err(|reason| {
        let complaint = Complaint::new(format!("cannot read the pattern `{path}`: {reason}"));
        complaint.with_remedy(format!("name a file that can be read, or write {option}=0xHEX"))
    })?;
    if bytes.is_empty() || bytes.len() > most {
        let message = format!("the pattern `{path}` does not have 1 to {most} bytes");
        return Err(Complaint::new(message).with_remedy("use a shorter file"));
    }
    let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Ok(format!(" 0x{hex} "))
}
