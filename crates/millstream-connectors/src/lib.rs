//! Sources, sinks and formats: where rows enter and leave Millstream.
//!
//! A connector is a folder with the same file names everywhere (`mod.rs`, `config.rs`, `source.rs`, `sink.rs`,
//! `tests.rs`; a missing file says that there is none) and one line in [`registry`]. Nothing here knows the engine, the
//! planner or the wall clock: offsets, clock readings and limits are passed in.

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod error;
pub mod formats;
pub mod reach;
pub mod registry;
pub mod sink;
pub mod sinks;
pub mod source;
pub mod sources;

pub use error::ConnectorError;
