//! Phases, with or without a trace of what they do.
//!
//! Data flow: steps -> the worker's loop, by way of the trace if one is written.
//!
//! Not here: the loop (`worker`), the trace (`record`).

use crate::generator::Steps;
use crate::ioengine::IoEngine;
use crate::run::record::Recorded;

use super::{Rules, Worker};

impl<E: IoEngine> Worker<'_, E> {
    /// Runs one phase until its steps are finished, its time is up or it failed. Nothing is in
    /// flight afterwards.
    pub(crate) fn phase<const CLOCK: bool, S: Steps>(&mut self, steps: &mut S, rules: Rules) {
        let Some(mut recording) = self.recording.take() else {
            return self.drive::<CLOCK, S>(steps, rules);
        };
        let mut recorded = Recorded { steps, recording: &mut recording };
        self.drive::<CLOCK, _>(&mut recorded, rules);
        self.recording = Some(recording);
    }
}
