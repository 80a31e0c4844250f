//! Holds the devices of a run, before any engine opens one for writing and until all are closed.
//!
//! Data flow: plans -> devices that are written, each once -> `mfio_engine::DeviceClaim`, or one
//! line that says what is on the device, or who uses it, and how to go on. All engines stand
//! behind it: none opens a device that was not claimed here.
//!
//! Not here: finding anything out about a device (`mfio_engine::target`).

use std::os::unix::fs::MetadataExt;

use mfio_engine::target::{DeviceUse, OpenError, Signature};
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
            // A mount is torn under its user: whoever writes there must have said so.
            let writers = plans.iter().filter(shares).filter(|other| other.job.rw.writes());
            let mounted = writers.into_iter().all(|other| other.job.allow_mounted_write);
            let claim = match DeviceClaim::take(&target.path, how) {
                Err(OpenError::DeviceInUse { .. }) if mounted => {
                    DeviceClaim::take(&target.path, DeviceWrite::EvenMounted)
                }
                claim => claim,
            };
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
            format!("{error}; allow_mounted_write=1 lets through what is mounted, and no more")
        }
        OpenError::DeviceInUse { uses, .. } if uses.iter().all(DeviceUse::is_mount) => {
            format!("{error}; allow_mounted_write=1 writes to it all the same")
        }
        _ => error.to_string(),
    };
    format!("job `{}`: {text}", job.name)
}
