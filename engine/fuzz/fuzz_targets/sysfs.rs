//! Any text where the kernel describes a disk.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mfio_engine_fuzz::sysfs(data));
