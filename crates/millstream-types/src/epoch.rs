//! Epoch numbers: one per micro-batch of a pipeline, from 1, without gaps.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of one micro-batch. Epoch 0 is the state before any input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The state before any input.
    pub const ZERO: Epoch = Epoch(0);

    /// The epoch that follows this one.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
