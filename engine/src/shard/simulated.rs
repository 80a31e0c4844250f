//! A shard on a simulated device, for whoever tests the code that they run on shards.
//!
//! Data flow: [`SimDevice`] → [`Shard::simulated`] → files of the device → the embedder's own
//! code, until it is over or the power is cut → a shard on the same device again, for their
//! recovery.
//!
//! Not here: what the simulated kernel does (`ring::sim`).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::{File, Shard};
use crate::config::Config;
use crate::error::EngineError;
use crate::ring::sim::{SimConfig, SimControl, SimDevice, SimRing};

impl Shard<SimRing> {
    /// Boots a machine: a shard on a ring of its own over `device`, which may have lost its
    /// power before, and the handle that cuts it. The production code, down to the ring.
    ///
    /// # Errors
    /// As [`Shard::with_ring`].
    ///
    /// # Panics
    /// When a queue of `ring` has no entries.
    pub fn simulated(
        device: &SimDevice,
        ring: SimConfig,
        config: &Config,
    ) -> Result<(Self, SimControl), EngineError> {
        let ring = SimRing::new(ring, device);
        let control = ring.control();
        Ok((Self::with_ring(ring, config)?, control))
    }

    /// Opens file number `file` of the device that the shard was booted with.
    ///
    /// # Panics
    /// When the device has no such file.
    #[must_use]
    pub fn open_simulated(&self, device: &SimDevice, file: usize) -> File<SimRing> {
        let name = format!("simulated file {file}");
        self.adopt_simulated(&name, device.fd(file), device.geometry(file))
    }

    /// As [`Shard::block_on`], until the power is cut: `None` then. The future is dropped where
    /// it stood and learns nothing any more, as a process whose machine has gone.
    ///
    /// Tasks that were spawned see their I/O fail with `EIO` instead, and end with the shard.
    ///
    /// # Errors
    /// As [`Shard::block_on`].
    ///
    /// # Cancel safety
    /// What the future had under way is on the device as far as the cut has left it.
    pub fn block_on_while_powered<F: Future>(
        &self,
        control: &SimControl,
        future: F,
    ) -> Result<Option<F::Output>, EngineError> {
        let mut future = pin!(future);
        self.block_on(poll_fn(|cx| {
            if control.has_crashed() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        }))
    }
}
