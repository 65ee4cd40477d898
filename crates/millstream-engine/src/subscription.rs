//! Changes of a query, epoch by epoch, as an embedding program or a client sees them.

use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::{Epoch, Weights};
use tokio::sync::mpsc;

/// Batches a subscriber may fall behind before it is cut off.
pub(crate) const BUFFER: usize = 1_024;

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

/// A running subscription. Dropping it ends the live query behind it.
#[derive(Debug)]
pub struct Subscription {
    pub(crate) schema: SchemaRef,
    pub(crate) append_only: bool,
    pub(crate) epoch: Epoch,
    pub(crate) receiver: mpsc::Receiver<Result<Change>>,
    pub(crate) remaining: Option<u64>,
}

impl Subscription {
    /// A subscription over changes that come from elsewhere, from a server for instance. `schema` has the query's columns; `epoch` is the
    /// one it begins after.
    pub fn of_changes(schema: SchemaRef, append_only: bool, epoch: Epoch, receiver: mpsc::Receiver<Result<Change>>) -> Self {
        Self { schema, append_only, epoch, receiver, remaining: None }
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
        if self.remaining == Some(0) {
            return None;
        }
        let mut next = self.receiver.recv().await?;
        if let (Some(remaining), Ok(change)) = (&mut self.remaining, &mut next) {
            let rows = (change.batch.num_rows() as u64).min(*remaining) as usize;
            if rows < change.batch.num_rows() {
                change.batch = change.batch.slice(0, rows);
                if let Weights::I64(weights) = &change.weights {
                    change.weights = Weights::I64(weights.slice(0, rows));
                }
            }
            *remaining -= rows as u64;
        }
        Some(next)
    }

    /// The error of a subscriber that fell behind.
    pub(crate) fn too_slow() -> EngineError {
        EngineError::invalid(
            format!("the subscriber fell more than {BUFFER} batches behind and was cut off"),
            "Read faster, or select fewer changes, and subscribe again.",
        )
    }
}
