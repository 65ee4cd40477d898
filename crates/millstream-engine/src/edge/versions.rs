//! The changes of a keyed stream one by one, for queries that read its versions: `FOR SYSTEM_TIME AS OF s.ts`.
//!
//! ```text
//!   op  k  ts   v                      k  ts   v   _epoch  __position  __deleted
//!   u   a  10   1                      a  10   1     7         0         false
//!   u   a  20   2     epoch 7   ──►    a  20   2     7         1         false      holds until 30
//!   d   a  30                          a  30   2     7         2         true       ends the version before it
//! ```
//! The relation of the stream shows what an epoch comes to: rows that are replaced within it are not in it at all. A version that holds
//! for a moment counts all the same, so that the answer does not depend on where epochs are cut.
//!
//! **In**: the accepted changes of a batch, in the order they came. **Out**: one row for each, append-only, with the columns of
//! `StreamDef::versions_schema`; the ingest columns are those of the change. A deletion has the row that it takes away, at its own event
//! time where it brings one that the watermark has not passed, at that of the row otherwise. So no event time is below the watermark.
//! **State**: how many changes the epoch had so far.

use super::changelog::Arrival;
use crate::catalog::object::StreamDef;
use crate::error::Result;
use arrow::array::{ArrayRef, BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use millstream_types::Epoch;
use std::sync::Arc;

/// A change, as places in a batch of rows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    /// The row it brings or takes away.
    pub(super) row: u32,
    /// The row with its event time.
    pub(super) time: u32,
    /// It takes the row away.
    pub(super) deleted: bool,
}

/// Numbers changes and gives them their hidden columns.
#[derive(Debug)]
pub(super) struct Versions {
    schema: SchemaRef,
    /// The event-time column.
    time: Option<usize>,
    /// The epoch of the newest change, and how many there were in it.
    numbered: (Epoch, i64),
}

impl Versions {
    pub(super) fn new(def: &StreamDef) -> Self {
        let schema = def.versions_schema();
        let time = def.watermark.as_ref().and_then(|(column, _)| schema.index_of(column).ok());
        Self { schema, time, numbered: (Epoch::ZERO, 0) }
    }

    /// The changes as rows. `rows` has the declared columns.
    pub(super) fn of(&mut self, rows: &RecordBatch, changes: &[Version], (epoch, clock): Arrival) -> Result<RecordBatch> {
        let count = changes.len();
        if self.numbered.0 != epoch {
            self.numbered = (epoch, 0);
        }
        let first = self.numbered.1;
        self.numbered.1 += count as i64;
        let places = UInt32Array::from_iter_values(changes.iter().map(|change| change.row));
        let times = UInt32Array::from_iter_values(changes.iter().map(|change| change.time));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        for (index, column) in rows.columns().iter().enumerate() {
            columns.push(take(column, if self.time == Some(index) { &times } else { &places }, None)?);
        }
        columns.push(Arc::new(Int64Array::from_value(epoch.0 as i64, count)));
        columns.push(Arc::new(TimestampMicrosecondArray::from_value(clock.0, count)));
        columns.push(Arc::new(Int64Array::from_iter_values(first..first + count as i64)));
        columns.push(Arc::new(BooleanArray::from_iter(changes.iter().map(|change| Some(change.deleted)))));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}
