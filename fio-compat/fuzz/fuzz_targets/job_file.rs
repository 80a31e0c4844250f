//! Any job file, with others that it includes.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fio_compat_fuzz::job_file(data));
