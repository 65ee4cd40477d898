//! The rows of a statement, as a connection takes them: in batches, so many at a time, with or without waiting.

use crate::error::RequestError;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use millstream_engine::change_log::log_schema;
use millstream_engine::{EngineError, Rows, Subscription};
use std::collections::VecDeque;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Batches that are computed ahead of a client.
const AHEAD: usize = 2;

/// Rows that are computed while they are taken.
pub(crate) struct RowSource {
    schema: SchemaRef,
    input: Input,
    /// What has come and is not taken yet.
    rest: Option<RecordBatch>,
}

enum Input {
    /// A query, computed in a task of its own, so that whoever waits for it can stop waiting.
    Computed { batches: mpsc::Receiver<Result<RecordBatch, EngineError>>, _task: JoinSet<()> },
    /// Rows that are there.
    Ready(VecDeque<RecordBatch>),
    /// Changes, which go on.
    Changes(Box<Subscription>),
}

/// What is there without waiting.
pub(crate) enum Present {
    /// Rows.
    Rows(RecordBatch),
    /// Nothing yet.
    Nothing,
    /// Nothing any more.
    End,
}

impl RowSource {
    /// The rows of a query of the engine.
    pub(crate) fn of_rows(rows: Rows) -> Self {
        let schema = rows.schema();
        Self::computed(schema, rows.into_stream())
    }

    /// The rows of a query over the catalog.
    pub(crate) fn of_stream(stream: SendableRecordBatchStream) -> Self {
        let schema = stream.schema();
        Self::computed(schema, stream.map(|batch| batch.map_err(EngineError::from)))
    }

    fn computed(schema: SchemaRef, stream: impl Stream<Item = Result<RecordBatch, EngineError>> + Send + 'static) -> Self {
        let (sender, batches) = mpsc::channel(AHEAD);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut stream = std::pin::pin!(stream);
            while let Some(batch) = stream.next().await {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
        });
        Self { schema, input: Input::Computed { batches, _task: task }, rest: None }
    }

    /// Rows that are there.
    pub(crate) fn of_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self { schema, input: Input::Ready(batches.into()), rest: None }
    }

    /// Changes as rows, with `epoch` and `op` before the query's columns.
    pub(crate) fn of_changes(subscription: Subscription) -> Self {
        Self { schema: log_schema(&subscription.schema()), input: Input::Changes(Box::new(subscription)), rest: None }
    }

    /// The columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Rows come as long as the pipeline runs.
    pub(crate) fn follows(&self) -> bool {
        matches!(self.input, Input::Changes(_))
    }

    /// The next rows, `rows_max` at most; `None` at the end. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// When the query fails.
    pub(crate) async fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>, RequestError> {
        while self.rest.is_none() {
            let batch = match &mut self.input {
                Input::Computed { batches, .. } => batches.recv().await.transpose()?,
                Input::Ready(batches) => batches.pop_front(),
                Input::Changes(subscription) => match subscription.next().await.transpose()? {
                    Some(change) => Some(change.log_rows()?),
                    None => None,
                },
            };
            match batch {
                Some(batch) => self.keep(batch),
                None => return Ok(None),
            }
        }
        Ok(self.cut(rows_max))
    }

    /// As [`RowSource::next`], without waiting.
    ///
    /// # Errors
    /// When the query fails.
    pub(crate) fn present(&mut self, rows_max: usize) -> Result<Present, RequestError> {
        // Not bounded by tokio's budget: a channel with much in it would look empty now and then.
        match tokio::task::unconstrained(self.next(rows_max)).now_or_never() {
            None => Ok(Present::Nothing),
            Some(Ok(Some(rows))) => Ok(Present::Rows(rows)),
            Some(Ok(None)) => Ok(Present::End),
            Some(Err(error)) => Err(error),
        }
    }

    fn keep(&mut self, batch: RecordBatch) {
        self.rest = (batch.num_rows() > 0).then_some(batch);
    }

    fn cut(&mut self, rows_max: usize) -> Option<RecordBatch> {
        let batch = self.rest.take()?;
        if batch.num_rows() > rows_max {
            self.rest = Some(batch.slice(rows_max, batch.num_rows() - rows_max));
            return Some(batch.slice(0, rows_max));
        }
        Some(batch)
    }
}
