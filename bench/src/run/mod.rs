//! From plans to finished jobs: who runs when, and what they are told.
//!
//! Data flow: `Plan`s -> layout -> one thread per clone, stage by stage -> [`Finished`].
//!
//! Not here: what a job is (`plan`), what is printed about it (`report`, `summary`).

#[cfg(test)]
mod bad_disk;
mod beside;
mod checkers;
pub(crate) mod conductor;
mod depth_search;
pub(crate) mod failure;
mod flow;
mod gate;
mod hook;
pub(crate) mod job;
mod judge;
pub(crate) mod lane;
pub(crate) mod live;
pub(crate) mod logs;
mod minimum;
mod paced;
mod phases;
pub(crate) mod policy;
mod record;
mod replay;
mod sampler;
mod steady;
mod steps;
mod trims;
pub(crate) mod worker;

pub(crate) use conductor::{Finished, Observer, Tick, conduct};
pub(crate) use live::Live;
