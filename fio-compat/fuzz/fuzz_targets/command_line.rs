//! Any arguments.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fio_compat_fuzz::command_line(data));
