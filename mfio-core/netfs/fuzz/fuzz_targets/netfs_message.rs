//! Any header, any body.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_netfs_fuzz::message(data));
