//! The log: checksummed frames, appended to segment files.
//!
//! ```text
//!   log/1-1   [segment header][frame][frame]...[end]            writer 1 rolled to its next segment
//!   log/1-2   [segment header][frame][frame] torn 0000          ... and died; log/1.seal says: segment 2, valid length
//!   log/2-3   [segment header][frame][frame]0000000000          writer 2 is live; zeros are preallocated
//! ```
//!
//! - A frame is durable when [`Log::sync`] returns; frames appended before one sync share it.
//! - Segment numbers are consecutive over all writers, so a missing file is noticed.
//! - A torn tail (frames appended but never synced) is normal and ends the segment at its valid length. Damage to a frame that had been
//!   synced is [`Corrupt`](crate::StateError::Corrupt): every frame carries the offset up to which the segment was durable when it was
//!   appended, so a valid frame behind an invalid one tells which of the two it is.
//! - A seal bounds what counts of an earlier writer, whatever that writer still appends.

mod append_log;
pub mod frame;
mod reader;
mod record;
pub(crate) mod seal;
mod segment;
#[cfg(test)]
mod tests;

pub use append_log::{Log, LogOptions, Position};
pub use frame::{Frame, MAX_PAYLOAD_BYTES};
pub use reader::{Frames, LogReader};
pub use record::FramePayload;
pub use segment::{PendingSync, Synced};
