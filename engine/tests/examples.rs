//! The examples that check themselves, run as a user runs them. Built by `cargo test` too.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Command;

/// Examples lie beside the folder of the tests' own programs.
fn example(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    folder.pop();
    folder.join("examples").join(name)
}

#[test]
fn examples_that_check_themselves_exit_with_0() {
    for name in ["page_store", "copy"] {
        let program = example(name);
        if !program.exists() {
            // With `--test examples` alone, cargo builds none of them.
            assert!(std::env::var_os("CI").is_none(), "{} was not built", program.display());
            continue;
        }
        let ran = Command::new(program).output().unwrap();
        let said = [ran.stdout, ran.stderr].concat();
        assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&said));
    }
}
