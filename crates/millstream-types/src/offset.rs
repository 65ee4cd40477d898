//! Positions in a source partition, and the ranges an epoch is made of.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A position in one partition of a source: the ordinal of a file or segment, then a row inside it.
/// Sources without files use sequence 0 throughout. Ordered by sequence, then row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Offset {
    /// Ordinal of the file or segment, given at discovery.
    pub sequence: u64,
    /// Row inside it, counted before bad rows are taken out.
    pub row: u64,
}

impl Offset {
    /// An offset of a partition that has only one sequence.
    pub fn row(row: u64) -> Offset {
        Offset { sequence: 0, row }
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.row)
    }
}

/// From `start` (inclusive) to `end` (exclusive).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OffsetRange {
    /// First offset of the range.
    pub start: Offset,
    /// First offset after the range.
    pub end: Offset,
}

/// What one epoch takes from one partition of a source. Logged before it is used; reading it again yields the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionRange {
    /// Name of the partition, unique within the source; `""` for a source with one partition.
    pub partition: String,
    /// The range itself.
    pub range: OffsetRange,
    /// What the source needs to find these rows again (for files: sequence, path and fingerprint). `Null` where nothing is.
    pub detail: serde_json::Value,
}
