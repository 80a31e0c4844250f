//! What the engine promises of real faults, checked where `scripts/faults` has made them.
//!
//! Data flow: a script sets the stage (a full tmpfs, a loop device, a limit) → this program,
//! told by `MFIO_FAULT` which fault it is and by `MFIO_FAULT_PATH` where → a workload of the
//! engine against it, on io_uring and on threads → exit code 0, 77 with `skip: why`, or 101
//! with `fault: why`. No test harness: its threads would count against limits as well.
//!
//! Not here: making faults and undoing them (`scripts/faults`), faults that are simulated.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test says what it saw"
)]

use std::process::ExitCode;

mod enospc;
mod fsyncgate;
mod memlock;
mod pids;
mod seccomp;
mod sector4096;
mod shrink;
mod stage;
#[path = "../stamped/mod.rs"]
mod stamped;

fn main() -> ExitCode {
    let Ok(fault) = std::env::var("MFIO_FAULT") else {
        println!("faults: nothing to check without a stage; scripts/faults/run sets them");
        return ExitCode::SUCCESS;
    };
    // One line that a script can find.
    std::panic::set_hook(Box::new(|panic| {
        let why = panic.payload_as_str().unwrap_or("no message").replace('\n', "; ");
        eprintln!(
            "fault: {why} ({})",
            panic.location().map(ToString::to_string).unwrap_or_default()
        );
    }));
    let verdict = match fault.as_str() {
        "fsyncgate" => fsyncgate::check(),
        "enospc" => enospc::check(),
        "shrink" => shrink::check(),
        "sector4096" => sector4096::check(),
        "memlock" => memlock::check(),
        "seccomp" => seccomp::check(),
        "pids" => pids::check(),
        other => panic!("no fault is called {other}"),
    };
    match verdict {
        Ok(()) => ExitCode::SUCCESS,
        Err(stage::Skip(why)) => {
            println!("skip: {why}");
            ExitCode::from(77)
        }
    }
}
