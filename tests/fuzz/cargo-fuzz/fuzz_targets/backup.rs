#![no_main]

use quorate_fuzz::targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::backup(data));
