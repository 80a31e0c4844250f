//! Holds the devices of a run, before any engine opens one for writing and until all are closed.
//!
//! Data flow: plans -> devices that are written, each once -> `mfio_engine::DeviceClaim`, or one
//! line that says what is on the device, or who uses it, and how to go on. All engines stand
//! behind it: none opens a device that was not claimed here.
//!
//! Not here: finding anything out about a device (`mfio_engine::target`).

use std::os::unix::fs::MetadataExt;

use mfio_engine::target::{OpenError, Signature};
use mfio_engine::{DeviceClaim, DeviceWrite};

use crate::plan::Plan;

/// Claims every device that a job of `plans` writes.
///
/// # Errors
/// One line; nothing was written.
pub(crate) fn claim(plans: &[Plan]) -> Result<Vec<DeviceClaim>, String> {
    let mut claims = Vec::new();
    let mut claimed = Vec::new();
    for plan in plans.iter().filter(|plan| plan.job.rw.writes()) {
        for target in plan.targets.iter().filter(|target| target.kind.is_device()) {
            // By its number: jobs may call it by several names.
            let number = target.path.metadata().map(|facts| facts.rdev()).ok();
            if claimed.contains(&number) {
                continue;
            }
            // Permission of one job that shares the device is permission for it.
            let shares = |other: &&Plan| {
                other.targets.iter().any(|other| {
                    number.is_some()
                        && other.path.metadata().map(|facts| facts.rdev()).ok() == number
                })
            };
            let allowed = plans.iter().filter(shares).any(|other| other.job.overwrite_device);
            let how = if allowed { DeviceWrite::Overwrite } else { DeviceWrite::IfUnused };
            let claim = DeviceClaim::take(&target.path, how);
            claims.push(claim.map_err(|error| refusal(plan, &error))?);
            claimed.push(number);
        }
    }
    Ok(claims)
}

/// The error in the words of this program's options.
fn refusal(plan: &Plan, error: &OpenError) -> String {
    let (job, shown) = (&plan.job, error.path().display());
    let text = match error {
        OpenError::DeviceNotEmpty { found, device, .. } => {
            let found: Vec<String> = found.iter().map(Signature::to_string).collect();
            format!(
                "{shown} carries {}; nothing was written: wipe it (wipefs -a {}), or set \
                 overwrite_device=1, if nothing of that is needed",
                found.join(", "),
                device.display()
            )
        }
        OpenError::Unexamined { .. } => format!("{error}: overwrite_device=1"),
        OpenError::DeviceInUse { .. } | OpenError::DeviceBusy { .. } if job.allow_mounted_write => {
            format!("{error}; allow_mounted_write=1 does not change that here")
        }
        _ => error.to_string(),
    };
    format!("job `{}`: {text}", job.name)
}
