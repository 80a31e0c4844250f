//! A loop device for the duration of a test.
//!
//! Data flow: program that prints the name of a device it has attached → [`Loop`] → detached.
//!
//! Not here: anything outside tests.

use std::path::Path;
use std::process::Command;

/// Detached when it goes; the kernel waits for whoever still has it open.
pub(crate) struct Loop(String);

impl Loop {
    /// The device that `program` attaches and prints; `None` where this machine has none for
    /// us: no privilege, no `losetup`, no free device.
    pub(crate) fn attached_by(program: &str, args: &[&str]) -> Option<Self> {
        let output = Command::new(program).args(args).output().ok()?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && name.starts_with("/dev/loop")).then_some(Self(name))
    }

    /// A device of such sectors over the file `backing`.
    pub(crate) fn over(backing: &Path, sector_bytes: u32) -> Option<Self> {
        let sector = format!("--sector-size={sector_bytes}");
        Self::attached_by("losetup", &["--find", "--show", &sector, backing.to_str()?])
    }

    pub(crate) fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.0]).status();
        assert!(detached.is_ok_and(|status| status.success()), "{} stays behind", self.0);
    }
}
