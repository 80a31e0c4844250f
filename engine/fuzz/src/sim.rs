//! A workload that is read from bytes, step by step, on the production shard over the simulated
//! ring, held against the model.
//!
//! Data flow: eight bytes → the scenario; two bytes → one step, whose draws come from them. A
//! step that is cut out, repeated or changed leaves those around it what they were.
//!
//! Not here: the model and the steps (`engine-sim`).

use crate::bytes::Bytes;

/// The most steps of one input.
const STEPS_MAX: usize = 1000;

/// One run.
pub fn sim(data: &[u8]) {
    let mut bytes = Bytes(data);
    let seed = bytes.u64();
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        steps.push(bytes.u16());
    }
    let report = engine_sim::run_steps(seed, &steps);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}
