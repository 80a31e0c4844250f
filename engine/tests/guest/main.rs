//! The engine on devices and kernels that a build machine has not: NVMe, null_blk, the device
//! mapper, a kernel that forbids io_uring, power loss. `scripts/guest/smoke` runs it all.
//!
//! Each test needs what `scripts/guest/run` names in the environment. Anywhere else it says
//! that it did not run, and passes.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test says what it saw, and may wait for a device"
)]

mod conform;
mod device;
mod flakey;
mod forbidden;
mod logged;
mod mapper;
mod permission;
mod power_loss;
mod unplug;
mod verify;
