//! `${VAR}` and the keywords `$ncpus`, `$pagesize` and `$mb_memory` in a job file's values.
//!
//! Data flow: value text + `Source` -> text without references, arithmetic done.
//!
//! Not here: arithmetic itself (`options::expression`), the command line, where the shell does it.

use crate::error::Complaint;
use crate::options::evaluate_expression;
use crate::source::Source;

/// A value with its references replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) text: String,
    /// Environment variables that were not set.
    pub(super) unset: Vec<String>,
}

/// A longer value is a mistake, or made to multiply (F49).
const VALUE_BYTES_MAX: usize = 16 << 20;

pub(super) fn fill(value: &str, source: &dyn Source) -> Result<Filled, Complaint> {
    let mut filled = environment(value, source)?;
    let keywords = [
        ("$ncpus", u64::from(source.cpus())),
        ("$pagesize", source.page_size()),
        ("$mb_memory", source.memory_mib()),
    ];
    if !keywords.iter().any(|(keyword, _)| filled.text.contains(keyword)) {
        return Ok(filled);
    }
    for (keyword, number) in keywords {
        filled.text = filled.text.replace(keyword, &number.to_string());
    }
    // fio pipes every such value through bc; a path that merely contains a keyword stays text.
    let arithmetic = |c: char| c.is_ascii_digit() || " +-*/%^()".contains(c);
    if filled.text.chars().all(arithmetic) {
        let plain = |suffix: &str| suffix.is_empty().then_some(1);
        filled.text = evaluate_expression(&filled.text, plain)?.to_string();
    }
    Ok(filled)
}

fn environment(value: &str, source: &dyn Source) -> Result<Filled, Complaint> {
    let mut filled = Filled { text: String::new(), unset: Vec::new() };
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, tail)) = after.split_once('}') else {
            let complaint = Complaint::new(format!("`{value}` has a `${{` without its `}}`"));
            return Err(complaint.with_remedy("write ${NAME}"));
        };
        filled.text.push_str(before);
        match source.env(name) {
            Some(found) => filled.text.push_str(&found),
            None => filled.unset.push(name.to_owned()),
        }
        rest = tail;
        if filled.text.len() > VALUE_BYTES_MAX {
            let message = format!("the value has more than {} MiB", VALUE_BYTES_MAX >> 20);
            return Err(Complaint::new(message).with_remedy("refer to shorter variables"));
        }
    }
    filled.text.push_str(rest);
    filled.text = filled.text.trim().to_owned();
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Machine;

    impl Source for Machine {
        fn read_job_file(&self, _path: &str) -> Result<String, String> {
            Err("no files here".to_owned())
        }
        fn env(&self, name: &str) -> Option<String> {
            (name == "DEV").then(|| "/dev/sda".to_owned())
        }
        fn cpus(&self) -> u32 {
            4
        }
        fn page_size(&self) -> u64 {
            4096
        }
        fn memory_mib(&self) -> u64 {
            1000
        }
    }

    fn text(value: &str) -> String {
        fill(value, &Machine).unwrap().text
    }

    #[test]
    fn keywords_are_replaced_and_computed() {
        assert_eq!(text("8*$mb_memory"), "8000");
        assert_eq!(text("$ncpus"), "4");
        assert_eq!(text("2*($pagesize+$ncpus)"), "8200");
        assert_eq!(text("/x/$ncpus.dat"), "/x/4.dat");
    }

    #[test]
    fn unset_variable_is_reported_and_empty() {
        assert_eq!(text("${DEV}1:${DEV}2"), "/dev/sda1:/dev/sda2");
        let filled = fill("a${NO}b", &Machine).unwrap();
        assert_eq!((filled.text.as_str(), filled.unset), ("ab", vec!["NO".to_owned()]));
        assert!(fill("${NO", &Machine).is_err());
    }
}
