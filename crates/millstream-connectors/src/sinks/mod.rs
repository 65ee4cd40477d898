//! The sinks: one folder (or file) per connector.

pub mod blackhole;
pub mod callback;
pub mod console;
pub mod files;
