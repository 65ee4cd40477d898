//! See `millstream_server::fuzzing::pg_parameter`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| millstream_server::fuzzing::pg_parameter(bytes));
