//! Changes of a server as a subscription: rows with `epoch` and `op` become weighted rows again.

use arrow::array::{Array, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use futures::{Stream, StreamExt};
use millstream_engine::{Change, EngineError, Subscription};
use millstream_types::{Epoch, Weights};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Parts of changes that are read ahead. The server keeps what is not read, and cuts off who reads too slowly.
const AHEAD: usize = 16;

/// The subscription over batches with `epoch` and `op` before the query's columns. `snapshot` is the epoch whose rows come first.
///
/// # Errors
/// When the columns are not those of changes.
pub(super) fn subscription(
    schema: &Schema,
    append_only: bool,
    snapshot: Epoch,
    batches: impl Stream<Item = Result<RecordBatch, EngineError>> + Send + 'static,
) -> Result<Subscription, EngineError> {
    let columns: SchemaRef = match schema.fields().as_ref() {
        [epoch, op, columns @ ..] if epoch.name() == "epoch" && op.name() == "op" => Arc::new(Schema::new(columns.to_vec())),
        _ => return Err(EngineError::Internal("the server sends changes without epoch and op".into())),
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let query = SchemaRef::clone(&columns);
    tokio::spawn(async move {
        let mut batches = std::pin::pin!(batches);
        loop {
            let batch = tokio::select! {
                batch = batches.next() => batch,
                // Nobody reads on: leaving ends the query at the server.
                () = sender.closed() => return,
            };
            let Some(batch) = batch else { return };
            let parts = match batch.and_then(|batch| Ok(parts(&batch, &query, snapshot)?)) {
                Ok(parts) => parts,
                Err(error) => return drop(sender.send(Err(error)).await),
            };
            for part in parts {
                if sender.send(Ok(part)).await.is_err() {
                    return;
                }
            }
        }
    });
    Ok(Subscription::of_changes(columns, append_only, snapshot, receiver))
}

/// The changes of a batch, one for each epoch in it, and one for each mark of progress.
fn parts(batch: &RecordBatch, schema: &SchemaRef, snapshot: Epoch) -> Result<Vec<Change>, ArrowError> {
    let wrong = || ArrowError::SchemaError("the server sends changes whose epoch and op are none".into());
    let epochs = batch.column(0).as_primitive_opt::<Int64Type>().ok_or_else(wrong)?;
    let ops = batch.column(1).as_string_opt::<i32>().ok_or_else(wrong)?;
    if batch.num_columns() != schema.fields().len() + 2 || epochs.null_count() + ops.null_count() > 0 {
        return Err(wrong());
    }
    let is_mark = |row: usize| ops.value(row) == "=";
    let mut parts = Vec::new();
    let mut start = 0;
    while start < batch.num_rows() {
        let alike = |row: usize| epochs.value(row) == epochs.value(start) && is_mark(row) == is_mark(start);
        let end = (start + 1..batch.num_rows()).find(|row| !alike(*row)).unwrap_or(batch.num_rows());
        let epoch = Epoch(u64::try_from(epochs.value(start)).map_err(|_| wrong())?);
        let columns: Vec<_> = batch.columns()[2..].iter().map(|column| column.slice(start, end - start)).collect();
        let progress = is_mark(start);
        let rows = RecordBatch::try_new(SchemaRef::clone(schema), columns)?;
        let weights: Vec<i64> = (start..end).map(|row| if ops.value(row).starts_with('-') { -1 } else { 1 }).collect();
        let weights = if weights.iter().all(|weight| *weight == 1) { Weights::Ones } else { Weights::I64(Int64Array::from(weights)) };
        let rows = if progress { RecordBatch::new_empty(SchemaRef::clone(schema)) } else { rows };
        parts.push(Change { epoch, batch: rows, weights, snapshot: epoch <= snapshot, progress });
        start = end;
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use arrow::datatypes::{DataType, Field};

    #[tokio::test(flavor = "multi_thread")]
    async fn rows_with_ops_are_weighted_rows_again() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("epoch", DataType::Int64, true),
            Field::new("op", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]));
        let columns: Vec<arrow::array::ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![5, 5, 5, 6, 6])),
            Arc::new(StringArray::from(vec!["+I", "+I", "=", "-D", "+I"])),
            Arc::new(Int64Array::from(vec![Some(1), Some(2), None, Some(1), Some(3)])),
        ];
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let mut subscription = subscription(&schema, false, Epoch(5), futures::stream::iter([Ok(batch)])).unwrap();
        let mut seen = Vec::new();
        while let Some(change) = subscription.next().await {
            let change = change.unwrap();
            let weights: Vec<i64> = (0..change.batch.num_rows()).map(|row| change.weights.value(row)).collect();
            seen.push((change.epoch.0, weights, change.snapshot, change.progress));
        }
        assert_eq!(seen, [(5, vec![1, 1], true, false), (5, vec![], true, true), (6, vec![-1, 1], false, false)]);
    }
}
