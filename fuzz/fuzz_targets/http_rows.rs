//! See `millstream_server::fuzzing::http_rows`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_server::fuzzing::http_rows(bytes));
