//! The files a worker has, and others in their place.
//!
//! Data flow: new files and the engine that has them -> the worker goes on with those.
//!
//! Not here: opening files (`layout`), when they change (`job`).

use std::fs::File;
use std::sync::Arc;

use super::Worker;
use crate::ioengine::IoEngine;

impl<E: IoEngine> Worker<'_, E> {
    /// The files that it works on.
    pub(crate) fn files(&self) -> &[File] {
        &self.files
    }

    /// Goes on with other files, and the engine that has them. Nothing is in flight.
    pub(crate) fn renew(&mut self, mut engine: E, files: Arc<[File]>) {
        for slot in 0..self.pacing.depth {
            self.content.prime(engine.buffer(slot));
        }
        (self.engine, self.files) = (engine, files);
    }
}
