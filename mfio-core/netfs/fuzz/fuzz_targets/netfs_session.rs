//! Any frames, for a server with a file system in memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_netfs_fuzz::session(data));
