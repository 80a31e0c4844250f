//! Any segments for the opening of a log.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_engine_fuzz::wal_recovery(data));
