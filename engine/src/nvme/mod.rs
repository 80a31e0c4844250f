//! NVMe namespaces, driven by commands of their own (`/dev/ngXnY`, Linux 5.19).
//!
//! Data flow: the generic character device → [`identify`] → what the namespace can do; op →
//! [`command`] → the 80 bytes behind an SQE of 128 → CQE → [`status`] → bytes moved, or an errno
//! and the status that it stands for.
//!
//! Not here: the ring that carries the commands (`ring::kernel`), the system calls (`sys`).

pub(crate) mod blocking;
pub mod command;
pub mod identify;
pub(crate) mod serve;
pub mod status;

pub use command::{Command, Range};
pub use identify::{Controller, LbaFormat, Namespace};
pub use serve::Space;
pub use status::{Cause, Status};
