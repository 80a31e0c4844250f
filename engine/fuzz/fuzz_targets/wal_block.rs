//! Any bytes where a segment's header or a block of a log should be.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_engine_fuzz::wal_block(data));
