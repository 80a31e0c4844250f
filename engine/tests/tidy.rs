//! The rules of the house that no compiler checks, over every Rust file of the repository.
#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::fs;
use std::path::{Path, PathBuf};

#[path = "tidy/catalogue.rs"]
mod catalogue;

/// The only places where `unsafe` may stand, besides `GlobalAlloc` implementations in tests.
/// A trailing slash means every file below.
const UNSAFE_ALLOWED: [&str; 11] = [
    "mfio-core/src/packet/raw/",
    "mfio-core/src/backend/waker.rs",
    "engine/src/ring/kernel/",
    "engine/src/buffer/arena.rs",
    "engine/src/buffer/arena/",
    "engine/src/sys.rs",
    "engine/src/sys/",
    "bench/src/ioengine/raw_uring.rs",
    "bench/src/ioengine/raw_uring/",
    // The interface of the crate that is compared with is unsafe to implement.
    "bench/peers/src/theirs.rs",
    // The hand-written loop, once more in the program of the peers.
    "bench/peers/storage/src/raw.rs",
];

/// Where else a pointer may be taken: what it points to belongs to a slot, or is never followed.
const POINTERS_ALLOWED: [&str; 12] = [
    // The memory of an op, which the slot of that op owns until the completion (F01).
    "mfio-core/src/packet/view.rs",
    "engine/src/buffer/pool.rs",
    "engine/src/buffer/vector.rs",
    "engine/src/shard/group.rs",
    "engine/src/shard/issue.rs",
    "engine/src/shard/launch.rs",
    // The same of a socket's op, which the table of sockets owns until the completion.
    "engine/src/shard/lanes.rs",
    // Only where the address lies is asked.
    "engine/src/target/facts.rs",
    "engine/src/target/guard.rs",
    "mfio-core/src/conformance.rs",
    "bench/src/ioengine/buffers.rs",
    "bench/peers/storage/src/work.rs",
];

/// What takes a pointer to something, whatever that lives in.
const POINTER_TAKING: [&str; 4] = ["as_ptr", "as_mut_ptr", "addr_of", "addr_of_mut"];

/// Words that name nothing: not for items, modules or files. (fio's own words `ctx` and `util`
/// are fields of its output.)
const BANNED_NAMES: [&str; 6] = ["mgr", "manager", "helper", "helpers", "utils", "common"];

/// What the name of an item stands behind.
const DECLARATIONS: [&str; 6] = ["mod", "struct", "enum", "trait", "type", "macro_rules"];

const FILE_LINES_MAX: usize = 500;
const LINE_CHARS_MAX: usize = 100;
/// Lines between an unsafe block and the end of the comment that argues for it.
const SAFETY_DISTANCE_MAX: usize = 3;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file that is ours, relative to the root, with its text.
fn rust_files() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                // What cargo builds into is tagged; `engine/src/target` is a module.
                let foreign = name.starts_with('.') || path.join("CACHEDIR.TAG").exists();
                if !foreign {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") {
                let relative = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.push((relative, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 40, "the walk finds the repository");
    found
}

fn is_test_file(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("tests.rs") || path.contains("/benches/")
}

/// The code of a line: without its comment and without the contents of its strings.
fn code_of(line: &str) -> String {
    let mut code = String::new();
    let (mut in_string, mut escaped) = (false, false);
    let mut previous = ' ';
    for c in line.chars() {
        if !in_string && previous == '/' && c == '/' {
            code.pop();
            break;
        }
        if c == '"' && !escaped && previous != '\'' {
            in_string = !in_string;
        }
        if !in_string {
            code.push(c);
        }
        escaped = in_string && c == '\\' && !escaped;
        previous = c;
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
}

fn uses_unsafe(code: &str) -> bool {
    words(code).any(|word| word == "unsafe")
}

fn check(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn unsafe_stands_only_in_the_named_files() {
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let allowed = UNSAFE_ALLOWED.iter().any(|place| path.starts_with(place));
        for (number, line) in (1..).zip(text.lines()) {
            let code = code_of(line);
            // What std has no safe way for: an allocator that counts, and a waker of which a clone
            // runs something when it is dropped.
            let by_hand = path.contains("/tests/")
                && (text.contains("unsafe impl GlobalAlloc for")
                    || text.contains("RawWakerVTable::new("))
                && !code.contains("#!");
            if uses_unsafe(&code) && !allowed && !by_hand {
                offences.push(format!("{path}:{number}: {line}"));
            }
        }
    }
    check("unsafe outside the files that are reviewed for it", &offences);
}

/// Whether the address of something is taken, as a pointer that says nothing of its life.
fn takes_a_pointer(code: &str) -> bool {
    let cast = code.contains("as *const") || code.contains("as *mut");
    let made = code.contains("ptr::from_ref") || code.contains("ptr::from_mut");
    cast || made || code.contains("&raw ") || words(code).any(|word| POINTER_TAKING.contains(&word))
}

/// A path, a timespec or an array of pieces on somebody's stack is gone when the kernel looks
/// (F07). What the kernel is shown lives in the slot, so only who fills slots takes pointers.
#[test]
fn f07_pointers_are_taken_only_where_slots_are_filled() {
    let mut offences = Vec::new();
    let mut used = [false; POINTERS_ALLOWED.len()];
    for (path, text) in rust_files() {
        let place = POINTERS_ALLOWED.iter().position(|place| path == *place);
        if is_test_file(&path) || UNSAFE_ALLOWED.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        // The tests of a file end it.
        let product = text.split("\n#[cfg(test)]\n").next().unwrap_or(&text);
        for (number, line) in (1..).zip(product.lines()) {
            if !takes_a_pointer(&code_of(line)) {
                continue;
            }
            match place {
                Some(at) => used[at] = true,
                None => offences.push(format!("{path}:{number}: {line}")),
            }
        }
    }
    let unused = POINTERS_ALLOWED.iter().zip(used).filter(|(_, used)| !used);
    offences.extend(unused.map(|(path, _)| format!("{path} takes none: strike it off the list")));
    check("a pointer outside the files that may take one", &offences);
}

#[test]
fn every_unsafe_block_is_argued_for() {
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let code = code_of(line);
            let needs_argument = code.contains("unsafe {") || code.contains("unsafe impl");
            let before = &lines[at.saturating_sub(SAFETY_DISTANCE_MAX)..at];
            // A comment block may be long: it ends close by, and it begins with the word.
            let argued = before.iter().rev().any(|line| line.contains("SAFETY"))
                || comment_above(&lines, at).contains("SAFETY");
            if needs_argument && !argued {
                offences.push(format!("{path}:{}: {line}", at + 1));
            }
        }
    }
    check("unsafe without a SAFETY comment", &offences);
}

/// The comment that ends at most [`SAFETY_DISTANCE_MAX`] lines above line `at`.
fn comment_above(lines: &[&str], at: usize) -> String {
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let first = at.saturating_sub(SAFETY_DISTANCE_MAX);
    let Some(end) = (first..at).rev().find(|&line| is_comment(lines[line])) else {
        return String::new();
    };
    let start = (0..=end).rev().take_while(|&line| is_comment(lines[line])).last();
    lines[start.unwrap_or(end)..=end].join("\n")
}

#[test]
fn files_and_lines_stay_short() {
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let count = text.lines().count();
        if count > FILE_LINES_MAX && !is_test_file(&path) {
            offences.push(format!("{path} has {count} lines"));
        }
        for (number, line) in (1..).zip(text.lines()) {
            let chars = line.chars().count();
            if chars > LINE_CHARS_MAX {
                offences.push(format!("{path}:{number} has {chars} characters"));
            }
        }
    }
    check("too long", &offences);
}

#[test]
fn every_file_says_what_it_is() {
    let silent = rust_files().into_iter().filter(|(_, text)| !text.starts_with("//!"));
    check("no `//!` at the top", &silent.map(|(path, _)| path).collect::<Vec<_>>());
}

/// Whether a snake_case or CamelCase name has a banned part.
fn says_nothing(name: &str) -> bool {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_uppercase() {
            snake.push('_');
        }
        snake.extend(c.to_lowercase());
    }
    snake.split('_').any(|part| BANNED_NAMES.contains(&part))
}

#[test]
fn names_say_something() {
    let mut offences = Vec::new();
    for (path, text) in rust_files() {
        let in_path = path.split(['/', '.', '_']).any(|part| BANNED_NAMES.contains(&part));
        if in_path {
            offences.push(path.clone());
        }
        for (number, line) in (1..).zip(text.lines()) {
            let code = code_of(line);
            let parts: Vec<&str> = words(&code).filter(|word| !word.is_empty()).collect();
            let banned = parts
                .windows(2)
                .any(|pair| DECLARATIONS.contains(&pair[0]) && says_nothing(pair[1]));
            if banned {
                offences.push(format!("{path}:{number}: {line}"));
            }
        }
    }
    check("a name that says nothing", &offences);
}

#[test]
fn the_top_level_is_as_designed() {
    let expected = [
        "CHANGELOG.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "bench",
        "clippy.toml",
        "engine",
        "fio-compat",
        "mfio-core",
        "rustfmt.toml",
        "scripts",
        "target",
    ];
    let mut strange = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !expected.contains(&name.as_str()) {
            strange.push(name);
        }
    }
    check("not part of the top level", &strange);
}

#[test]
fn tidy_tells_code_from_comments_and_strings() {
    assert!(uses_unsafe(&code_of("let x = unsafe { y };")));
    assert!(!uses_unsafe(&code_of("// unsafe { y }")));
    assert!(!uses_unsafe(&code_of("let x = \"unsafe\"; // unsafe")));
    assert!(!uses_unsafe(&code_of("#![allow(unsafe_code, reason = \"unsafe\")]")));
    assert_eq!(code_of("a('\"'); b"), "a('\"'); b");
    for taking in ["x.as_ptr()", "&raw mut y", "&z as *const u8", "ptr::from_ref(&z)"] {
        assert!(takes_a_pointer(taking), "{taking}");
    }
    assert!(!takes_a_pointer("Lent::as_pointer(&raw_bytes)"));
    assert!(says_nothing("BufferManager") && says_nothing("test_utils"));
    assert!(!says_nothing("Utilisation") && !says_nothing("commonly"));
}
