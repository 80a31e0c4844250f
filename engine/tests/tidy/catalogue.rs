//! Every case of the failure catalogue has a test that owns it, and CATALOGUE.md says which.
//!
//! Data flow: Rust files → functions under `#[test]` → compared with the rows of the catalogue.
//!
//! Not here: what the tests assert, which only a reader can judge.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{check, root, rust_files};

/// The cases, F01 to this one.
const CASES: u32 = 50;

/// Cases whose layer does not exist yet: nothing in the product could fail them. Only shrinks.
const PENDING: [u32; 0] = [];

/// The names of all tests of a text: functions that stand under `#[test]`.
fn tests_of(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let passes = line.is_empty() || line.starts_with("//") || line.starts_with("#[");
        if line.starts_with("#[") && line.contains("test") && !line.contains("cfg") {
            is_test = true;
        } else if is_test && let Some(name) = function_of(line) {
            found.push(name);
            is_test = false;
        } else if !passes {
            is_test = false;
        }
    }
    found
}

/// The name of the function that a line begins.
fn function_of(line: &str) -> Option<&str> {
    let words =
        ["pub ", "async "].iter().fold(line, |line, word| line.strip_prefix(word).unwrap_or(line));
    let name = words.strip_prefix("fn ")?.split(['(', '<']).next()?;
    Some(name.trim())
}

/// The number of a test that owns a case: `fNN_…`.
fn case_of(name: &str) -> Option<u32> {
    let number = name.strip_prefix('f')?.get(..3)?.strip_suffix('_')?;
    number.parse().ok()
}

/// Every test of the repository, by file.
fn tests() -> BTreeMap<String, BTreeSet<String>> {
    let of = |text: &str| tests_of(text).into_iter().map(str::to_owned).collect();
    rust_files().into_iter().map(|(path, text)| (path, of(&text))).collect()
}

/// A row of CATALOGUE.md: its case, and the tests that it names as `path::name`.
struct Row {
    case: u32,
    tests: Vec<(String, String)>,
}

/// The row that a line of the catalogue is: `| Fnn | must | layer | tests |`.
fn row_of(line: &str) -> Option<Row> {
    let case = line.strip_prefix("| F")?.get(..2)?.parse().ok()?;
    let quoted = line.split('`').skip(1).step_by(2);
    let tests = quoted.filter_map(|word| word.split_once(".rs::"));
    let tests = tests.map(|(path, name)| (format!("{path}.rs"), name.to_owned())).collect();
    Some(Row { case, tests })
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("engine/tests/CATALOGUE.md")).unwrap();
    text.lines().filter_map(row_of).collect()
}

#[test]
fn every_case_has_a_test_or_is_pending_and_not_both() {
    let tests = tests();
    let owned: BTreeSet<u32> = tests.values().flatten().filter_map(|name| case_of(name)).collect();
    let mut offences = Vec::new();
    for case in 1..=CASES {
        match (owned.contains(&case), PENDING.contains(&case)) {
            (false, false) => offences.push(format!("F{case:02} has no test f{case:02}_…")),
            (true, true) => offences.push(format!("F{case:02} has a test: it is not pending")),
            _ => {}
        }
    }
    offences.extend(
        owned
            .iter()
            .filter(|case| !(1..=CASES).contains(*case))
            .map(|case| format!("F{case:02} is no case of the catalogue")),
    );
    check("the failure catalogue and the tests disagree", &offences);
}

#[test]
fn catalogue_has_a_row_for_every_case_and_names_tests_that_exist() {
    let (tests, rows) = (tests(), rows());
    let mut offences = Vec::new();
    for case in 1..=CASES {
        let of_case: Vec<&Row> = rows.iter().filter(|row| row.case == case).collect();
        let [row] = of_case[..] else {
            offences.push(format!("F{case:02} has {} rows", of_case.len()));
            continue;
        };
        for (path, name) in &row.tests {
            if !tests.get(path).is_some_and(|there| there.contains(name)) {
                offences.push(format!("F{case:02}: there is no test {path}::{name}"));
            }
        }
        let owns = row.tests.iter().any(|(_, name)| case_of(name) == Some(case));
        if !owns && !PENDING.contains(&case) {
            offences.push(format!("F{case:02} names no test f{case:02}_…"));
        }
    }
    check("engine/tests/CATALOGUE.md", &offences);
}

#[test]
fn tests_are_told_from_comments_and_other_functions() {
    let text = "
        // #[test] fn f01_comment() {}
        fn f02_plain() {}
        #[test]
        #[allow(clippy::x, reason = \"y\")]
        /// Words.
        fn f03_real() {}
        #[cfg(test)]
        fn f04_not_a_test() {}
        #[tokio::test]
        async fn f05_hosted() {}
        #[test]
        struct Between;
        fn f06_not_under_it() {}
        #[test] // prop
        fn f07_with_arguments(
    ";
    assert_eq!(tests_of(text), ["f03_real", "f05_hosted", "f07_with_arguments"]);
    let cases = ["f07_x", "f50_y", "f7_x", "foo", "f123_x", "fab_x"].map(case_of);
    assert_eq!(cases, [Some(7), Some(50), None, None, None, None]);
    let row = row_of("| F07 | a | `b` | `x/y.rs::f07_z`, `w.rs::q` |").unwrap();
    let named: Vec<&str> = row.tests.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!((row.case, named), (7, vec!["f07_z", "q"]));
    assert!(row_of("|---|---|").is_none() && row_of("F07 | a").is_none());
}
