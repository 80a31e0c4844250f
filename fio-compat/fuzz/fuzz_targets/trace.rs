//! Any lines of a trace.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fio_compat_fuzz::trace(data));
