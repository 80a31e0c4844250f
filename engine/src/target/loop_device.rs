//! A loop device for the duration of a test.
//!
//! Data flow: program that prints the name of a device it has attached → [`Loop`] → detached.
//!
//! Not here: anything outside tests; those of `tests/` take this file by its path.

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Detached when it goes; the kernel waits for whoever still has it open.
pub(crate) struct Loop(String);

impl Loop {
    /// The device that `program` attaches and prints; `None`, and why on stderr, where this
    /// machine has none for us: no privilege, no `losetup`, no free device.
    pub(crate) fn attached_by(program: &str, args: &[&str]) -> Option<Self> {
        let output = Command::new(program).args(args).output();
        let said = match &output {
            Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        if said.starts_with("/dev/loop") && output.is_ok_and(|output| output.status.success()) {
            return Some(Self(said));
        }
        let skipped = writeln!(std::io::stderr().lock(), "SKIP: no loop device for us: {said}");
        skipped.ok().and(None)
    }

    /// A device over the file `backing`, with `options` of losetup(8).
    pub(crate) fn over(backing: &Path, options: &[&str]) -> Option<Self> {
        let args = [&["--find", "--show"], options, &[backing.to_str()?]].concat();
        Self::attached_by("losetup", &args)
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays behind", self.0);
        // It goes when all have closed it who look at every device there is.
        let bound = self.0.replace("/dev/", "/sys/block/") + "/loop";
        for _ in 0..5000 {
            if !Path::new(&bound).exists() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}
