//! Any value of any option.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fio_compat_fuzz::values(data));
