//! See `millstream_server::fuzzing::copy_rows`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_server::fuzzing::copy_rows(bytes));
