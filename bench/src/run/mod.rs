//! From plans to finished jobs: who runs when, and what they are told.
//!
//! Data flow: `Plan`s -> layout -> one thread per clone, stage by stage -> [`Finished`].
//!
//! Not here: what a job is (`plan`), what is printed about it (`report`, `summary`).

mod beside;
pub(crate) mod conductor;
pub(crate) mod failure;
mod flow;
mod gate;
mod hook;
pub(crate) mod job;
pub(crate) mod lane;
pub(crate) mod live;
pub(crate) mod logs;
mod minimum;
mod paced;
pub(crate) mod policy;
mod sampler;
mod steps;
pub(crate) mod worker;

pub(crate) use conductor::{Finished, Observer, Tick, conduct};
pub(crate) use live::Live;
