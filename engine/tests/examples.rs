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

/// Runs an example that `cargo test` has built, if it has; with `--test examples` alone, cargo
/// builds none of them.
fn run(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let program = example(name);
    if !program.exists() {
        assert!(std::env::var_os("CI").is_none(), "{} was not built", program.display());
        return None;
    }
    let ran = Command::new(program).args(arguments).output().unwrap();
    let said = [ran.stdout, ran.stderr].concat();
    Some((ran.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// Two runs, so that it is the bug which is found.
#[test]
fn f40_simulation_finds_the_flush_that_a_store_has_forgotten() {
    let Some((passes, said)) = run("sim_recovery", &[]) else { return };
    assert!(passes, "{said}");
    let (passes, said) = run("sim_recovery", &["--skip-flush"]).unwrap();
    assert!(!passes && said.starts_with("seed "), "{said}");
}

#[test]
fn examples_that_check_themselves_exit_with_0() {
    for name in ["page_store", "copy"] {
        if let Some((passes, said)) = run(name, &[]) {
            assert!(passes, "{name}: {said}");
        }
    }
}
