//! Commands that a job runs before and after itself (`exec_prerun`, `exec_postrun`).
//!
//! Data flow: command -> shell -> its output in a file named after the job, as with fio.
//!
//! Not here: when (`job`).

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

/// Which of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    /// `exec_prerun`.
    Before,
    /// `exec_postrun`.
    After,
}

/// Runs `command`, if there is one, and waits for it. What it prints goes to
/// `JOB.prerun.txt` or `JOB.postrun.txt`.
///
/// # Errors
/// It could not be started, or did not succeed.
pub(super) fn run(job: &str, command: Option<&str>, when: When) -> io::Result<()> {
    let Some(command) = command else { return Ok(()) };
    let name = match when {
        When::Before => "prerun",
        When::After => "postrun",
    };
    // A job may be named after a device, beside which nothing is to be made.
    let job = job.replace('/', "_");
    let output = File::create(format!("{job}.{name}.txt"))?;
    let errors = output.try_clone()?;
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", command]).stdin(Stdio::null()).stdout(output).stderr(errors);
    let status = shell.status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("exec_{name}=`{command}` ended with {status}")))
}
