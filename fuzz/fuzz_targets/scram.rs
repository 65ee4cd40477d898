//! See `millstream_server::fuzzing::scram`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_server::fuzzing::scram(bytes));
