//! How the examples end: what went wrong is said in words, which say what to do about it.
#![allow(clippy::print_stderr, reason = "whoever runs an example reads it")]

use std::fmt::Display;
use std::process::ExitCode;

pub(crate) fn told(outcome: Result<(), impl Display>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
