//! Checkpoints: the state of a pipeline after an epoch, as segments and a manifest that appear together.
//!
//! ```text
//!   checkpoint/.41.3.tmp/              writer 3 is writing the checkpoint of epoch 41
//!   checkpoint/40/manifest             JSON with a checksum: segments with place, length, CRC-32 and rows; facts of the caller
//!   checkpoint/40/segments/pack        segments that only this checkpoint has, one after the other
//!   checkpoint/40/segments/<name>.arrow  a segment that later checkpoints may share
//! ```
//!
//! Everything is written and synced under a temporary directory name; the rename to the epoch's number publishes it. Readers never see
//! half a checkpoint, and what a crash leaves is recognised by its name. However many segments there are, one file is made and synced for
//! them; only those that are meant to be shared have files of their own, and where they did not change they are hard links to those of an
//! earlier checkpoint. A checkpoint is removed when it is older than the two newest.

mod manifest;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use manifest::file_name_of;
pub use manifest::{Manifest, SegmentEntry};
pub use reader::{CheckpointReader, Damaged, Recovered, remove_older_than};
pub use writer::CheckpointWriter;
