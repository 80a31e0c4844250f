//! `mfio-bench`: runs fio's jobs on the mfio engine and on what it is compared with.
//!
//! Data flow: arguments -> `cli` -> `fio_compat` jobs -> `plan` -> `run` -> `report` -> text.
//!
//! Not here: everything; each step is a module of its own.

mod advice;
mod bandwidth_log;
mod cli;
mod clock;
mod compare;
mod content;
mod default_job;
mod device;
mod digest;
mod disk;
mod doctor;
mod environment;
mod generator;
mod ioengine;
mod layout;
mod machine;
mod measure;
mod noise;
mod output;
mod overwrite;
mod plan;
mod progress;
mod random;
mod random_map;
mod refusal;
mod remarks;
mod report;
mod run;
mod sample;
mod signals;
mod statistics;
mod status;
mod subcommand;
mod summary;
mod sweep;
mod trace;
mod verify;
mod verify_state;
mod written;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Names of files that are no UTF-8 have no place in job files or reports.
    let args = std::env::args_os().skip(1).map(std::ffi::OsString::into_string);
    match args.collect::<Result<Vec<String>, _>>() {
        Ok(args) => ExitCode::from(cli::main(&args)),
        Err(wrong) => ExitCode::from(cli::refuse_bytes(&wrong)),
    }
}
