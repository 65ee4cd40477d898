//! The rows of a statement, as a connection takes them: in batches, so many at a time, with or without waiting.

use crate::error::RequestError;
use crate::pg::copy::CopyOptions;
use crate::pg::copy::out::CopyOut;
use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::execution::SendableRecordBatchStream;
use futures::{FutureExt, Stream, StreamExt};
use millstream_engine::change_log::log_schema;
use millstream_engine::{EngineError, LateNotices, Notice, Output, Rows, Subscription};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Batches that are computed ahead of a client.
const AHEAD: usize = 2;
/// Rows of a copy that are written at a time.
const COPIED_ROWS: usize = 8_192;

/// Rows that are computed while they are taken.
pub(crate) struct RowSource {
    schema: SchemaRef,
    input: Input,
    /// What has come and is not taken yet; none of them is empty.
    rest: VecDeque<RecordBatch>,
    late: LateNotices,
}

enum Input {
    /// A query, computed in a task of its own, so that whoever waits for it can stop waiting.
    Computed { batches: mpsc::Receiver<Result<RecordBatch, EngineError>>, _task: JoinSet<()> },
    /// Rows that are there.
    Ready(VecDeque<RecordBatch>),
    /// Changes, which go on.
    Changes(Box<Subscription>),
    /// Rows of another source as the parts of a copy.
    Copied(Box<Copied>),
}

/// A copy on its way: its parts, one after the other, are the copy.
pub(crate) struct Copied {
    rows: RowSource,
    copy: CopyOut,
    stage: Stage,
}

/// Which part of a copy comes next.
enum Stage {
    Begin,
    Rows,
    Done,
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
    fn of(schema: SchemaRef, input: Input) -> Self {
        Self { schema, input, rest: VecDeque::new(), late: LateNotices::default() }
    }

    /// The rows of a query of the engine.
    pub(crate) fn of_rows(rows: Rows) -> Self {
        let (schema, late) = (rows.schema(), rows.late_notices());
        Self { late, ..Self::computed(schema, rows.into_stream()) }
    }

    /// What there is to tell when the rows have been taken.
    pub(crate) fn late_notices(&self) -> Vec<Notice> {
        self.late.take()
    }

    /// The rows that a statement of the engine gives, if it gives any.
    pub(crate) fn of_output(output: Output) -> Option<Self> {
        match output {
            Output::None => None,
            Output::Rows(rows) => Some(Self::of_rows(rows)),
            Output::Changes(subscription) => Some(Self::of_changes(subscription)),
        }
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
        Self::of(schema, Input::Computed { batches, _task: task })
    }

    /// Rows that are there.
    pub(crate) fn of_batches(schema: SchemaRef, batches: Vec<RecordBatch>) -> Self {
        Self::of(schema, Input::Ready(batches.into()))
    }

    /// Changes as rows, with `epoch` and `op` before the query's columns.
    pub(crate) fn of_changes(subscription: Subscription) -> Self {
        Self::of(log_schema(&subscription.schema()), Input::Changes(Box::new(subscription)))
    }

    /// Rows as the parts of a copy, one each: in a column `line` without the ends of the lines, or as `data` where they are no text.
    pub(crate) fn of_copy(rows: RowSource, options: CopyOptions) -> Self {
        let copied = Copied::new(rows, options);
        Self::of(copy_schema(copied.copy.is_binary()), Input::Copied(Box::new(copied)))
    }

    /// The columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Rows come as long as the pipeline runs.
    pub(crate) fn follows(&self) -> bool {
        match &self.input {
            Input::Changes(_) => true,
            Input::Copied(copied) => copied.rows.follows(),
            Input::Computed { .. } | Input::Ready(_) => false,
        }
    }

    /// The next rows, `rows_max` at most; `None` at the end. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// When the query fails.
    pub(crate) async fn next(&mut self, rows_max: usize) -> Result<Option<RecordBatch>, RequestError> {
        while self.rest.is_empty() {
            let batch = match &mut self.input {
                Input::Computed { batches, .. } => batches.recv().await.transpose()?,
                Input::Ready(batches) => batches.pop_front(),
                Input::Changes(subscription) => match subscription.next().await.transpose()? {
                    Some(change) => Some(change.log_rows()?),
                    None => None,
                },
                Input::Copied(copied) => Box::pin(copied.next()).await?,
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

    /// Puts rows back that were taken last, to be the next ones again.
    pub(crate) fn put_back(&mut self, batches: Vec<RecordBatch>) {
        for batch in batches.into_iter().rev() {
            self.rest.push_front(batch);
        }
    }

    fn keep(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.rest.push_back(batch);
        }
    }

    fn cut(&mut self, rows_max: usize) -> Option<RecordBatch> {
        let batch = self.rest.pop_front()?;
        if batch.num_rows() > rows_max {
            self.rest.push_front(batch.slice(rows_max, batch.num_rows() - rows_max));
            return Some(batch.slice(0, rows_max));
        }
        Some(batch)
    }
}

impl Copied {
    /// The rows of a source in the form that options name.
    pub(crate) fn new(rows: RowSource, options: CopyOptions) -> Self {
        let copy = CopyOut::new(options, &rows.schema());
        Self { rows, copy, stage: Stage::Begin }
    }

    /// The next parts, which may be none yet; `None` at the end. A call that is dropped loses nothing.
    ///
    /// # Errors
    /// When the query fails, or a value has no such form.
    pub(crate) async fn parts(&mut self) -> Result<Option<Vec<Vec<u8>>>, RequestError> {
        match self.stage {
            Stage::Begin => {
                self.stage = Stage::Rows;
                Ok(Some(self.copy.begin().into_iter().map(<[u8]>::to_vec).collect()))
            }
            Stage::Rows => match self.rows.next(COPIED_ROWS).await? {
                Some(batch) => {
                    let encoder = self.copy.encoder(&batch)?;
                    let parts = (0..encoder.rows()).map(|row| Ok(self.copy.row(&encoder, row)?.to_vec()));
                    Ok(Some(parts.collect::<Result<_, RequestError>>()?))
                }
                None => {
                    self.stage = Stage::Done;
                    Ok(Some(self.copy.end().into_iter().map(<[u8]>::to_vec).collect()))
                }
            },
            Stage::Done => Ok(None),
        }
    }

    /// The next parts as rows.
    async fn next(&mut self) -> Result<Option<RecordBatch>, RequestError> {
        let Some(parts) = self.parts().await? else { return Ok(None) };
        let is_binary = self.copy.is_binary();
        let column: ArrayRef = match is_binary {
            true => Arc::new(BinaryArray::from_iter_values(parts)),
            false => {
                let lines = parts.iter().map(|line| String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line)));
                Arc::new(StringArray::from_iter_values(lines))
            }
        };
        Ok(Some(RecordBatch::try_new(copy_schema(is_binary), vec![column])?))
    }
}

/// The column that the parts of a copy have.
pub(crate) fn copy_schema(is_binary: bool) -> SchemaRef {
    let (name, data_type) = if is_binary { ("data", DataType::Binary) } else { ("line", DataType::Utf8) };
    Arc::new(Schema::new(vec![Field::new(name, data_type, false)]))
}
