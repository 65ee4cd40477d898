//! History in the order of event time: what `replay --order event-time` puts in front of a stream's source.
//!
//! ```text
//!   the source's files, in any order        spool: sorted by event time          epochs: slices, the same for all streams
//!   [12:07 12:01] [12:00 12:09 12:03] ──►   [12:00 12:01 12:03 | 12:07 12:09] ──►   [12:00, 12:05)  [12:05, 12:10)
//! ```
//! The history is read once, to its end as it is at the first start, and written to a spool directory: buckets of neighbouring
//! event times, each small enough to be sorted in memory when it is read. A first pass over the event-time column alone decides
//! where buckets begin. Rows of one event time keep the order in which the source gave them. Rows that could not be decoded, or
//! that have no event time, stand behind the row the source gave before them. Rows outside the bounds are left out.
//!
//! A range is a range of positions in that order, so it yields the same rows again for as long as the spool is there; a second
//! run goes on in it. [`EpochLimits::until`](crate::source::EpochLimits::until) says where a slice ends.

mod bucket;
mod source;
mod spool;

#[cfg(test)]
mod tests;

pub use source::HistorySource;

use millstream_types::EventTime;
use std::path::PathBuf;

/// What of the history is read, and where its order is kept.
#[derive(Debug, Clone)]
pub struct HistoryOptions {
    /// The spool directory of all streams; each has a folder in it.
    pub directory: PathBuf,
    /// The first event time that counts.
    pub from: Option<EventTime>,
    /// The first event time that no longer counts.
    pub to: Option<EventTime>,
    /// The stream ends with its history.
    pub closes: bool,
}

impl HistoryOptions {
    /// Whether an event time counts.
    pub(crate) fn holds(&self, time: i64) -> bool {
        self.from.is_none_or(|from| time >= from.0) && self.to.is_none_or(|to| time < to.0)
    }
}
