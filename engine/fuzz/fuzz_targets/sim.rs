//! Any workload on the simulated ring.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_engine_fuzz::sim(data));
