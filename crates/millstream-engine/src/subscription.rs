//! Changes of a query, epoch by epoch, as an embedding program or a client sees them.

use crate::change_queue::{EpochChanges, Tap};
use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::{Epoch, Weights};
use std::collections::VecDeque;

/// Part of a query's change in one epoch.
#[derive(Debug, Clone)]
pub struct Change {
    /// The epoch after which the query has this change.
    pub epoch: Epoch,
    /// Rows, with the query's columns.
    pub batch: RecordBatch,
    /// One weight per row: how often it was added, or taken away if negative.
    pub weights: Weights,
    /// Part of the rows the query had when the subscription began.
    pub snapshot: bool,
    /// No rows; everything of this epoch has been sent.
    pub progress: bool,
}

/// A running subscription. Dropping it ends it.
#[derive(Debug)]
pub struct Subscription {
    schema: SchemaRef,
    append_only: bool,
    epoch: Epoch,
    tap: Tap,
    /// What is left of the epoch that was taken last.
    current: VecDeque<Change>,
    /// A mark is wanted after every epoch.
    progress: bool,
    remaining: Option<u64>,
}

impl Subscription {
    pub(crate) fn new(schema: SchemaRef, append_only: bool, epoch: Epoch, tap: Tap, progress: bool, limit: Option<u64>) -> Self {
        Self { schema, append_only, epoch, tap, current: VecDeque::new(), progress, remaining: limit }
    }

    /// Columns of the query.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// The epoch it begins after: the rows the query had then are its snapshot.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// No row is ever taken back.
    pub fn append_only(&self) -> bool {
        self.append_only
    }

    /// The next part; `None` when the pipeline has stopped or the limit of the subscription is reached.
    ///
    /// # Errors
    /// The query failed, or the subscriber fell too far behind; the subscription is over then.
    pub async fn next(&mut self) -> Option<Result<Change>> {
        loop {
            if self.remaining == Some(0) {
                return None;
            }
            if let Some(change) = self.current.pop_front() {
                return Some(Ok(self.limited(change)));
            }
            match self.tap.next().await? {
                Ok(changes) => self.take(&changes),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    fn take(&mut self, changes: &EpochChanges) {
        let (epoch, snapshot) = (changes.epoch, changes.snapshot);
        let parts = changes.parts.iter();
        self.current.extend(parts.map(|(batch, weights)| Change {
            epoch,
            batch: batch.clone(),
            weights: weights.clone(),
            snapshot,
            progress: false,
        }));
        if self.progress || snapshot {
            let batch = RecordBatch::new_empty(SchemaRef::clone(&self.schema));
            self.current.push_back(Change { epoch, batch, weights: Weights::Ones, snapshot, progress: true });
        }
    }

    fn limited(&mut self, mut change: Change) -> Change {
        if let Some(remaining) = &mut self.remaining {
            let rows = (change.batch.num_rows() as u64).min(*remaining) as usize;
            if rows < change.batch.num_rows() {
                change.batch = change.batch.slice(0, rows);
                if let Weights::I64(weights) = &change.weights {
                    change.weights = Weights::I64(weights.slice(0, rows));
                }
            }
            *remaining -= rows as u64;
        }
        change
    }
}
