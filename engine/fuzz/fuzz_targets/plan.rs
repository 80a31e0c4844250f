//! Any transfer on any target, and any result of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_engine_fuzz::plan(data));
