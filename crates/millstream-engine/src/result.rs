//! What a statement gives back.

use crate::error::{EngineError, Result};
use crate::guard::guarded_stream;
use crate::notice::{LateNotices, Notice};
use crate::subscription::Subscription;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use millstream_types::Epoch;

/// The result of a statement.
#[derive(Debug)]
pub struct StatementResult {
    /// What was done, as clients show it: `CREATE STREAM`, `SELECT`, `INSERT 3`.
    pub tag: String,
    /// What it has to tell although it succeeded.
    pub notices: Vec<Notice>,
    /// The epoch whose snapshot a query read.
    pub epoch: Option<Epoch>,
    /// Rows or changes, if it gives any.
    pub output: Output,
}

/// Rows or changes of a statement.
#[derive(Debug)]
pub enum Output {
    /// Neither.
    None,
    /// Rows that end.
    Rows(Rows),
    /// Changes that go on.
    Changes(Subscription),
}

impl StatementResult {
    pub(crate) fn done(tag: impl Into<String>, notices: Vec<Notice>) -> Self {
        Self { tag: tag.into(), notices, epoch: None, output: Output::None }
    }

    pub(crate) fn batch(tag: impl Into<String>, batch: RecordBatch) -> Self {
        let schema = batch.schema();
        let stream = futures::stream::iter([Ok(batch)]);
        Self {
            tag: tag.into(),
            notices: Vec::new(),
            epoch: None,
            output: Output::Rows(Rows::new(Box::pin(RecordBatchStreamAdapter::new(schema, stream)))),
        }
    }

    /// All rows; empty for statements without rows.
    ///
    /// # Errors
    /// When the query fails while it runs, or never ends because it follows changes.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        match self.output {
            Output::None => Ok(Vec::new()),
            Output::Rows(rows) => rows.collect().await,
            Output::Changes(_) => Err(EngineError::invalid(
                "the query follows changes and never ends",
                "Leave out EMIT CHANGES, or read its changes one by one.",
            )),
        }
    }
}

/// Rows of a query, computed while they are read.
pub struct Rows {
    schema: SchemaRef,
    stream: BoxStream<'static, Result<RecordBatch>>,
    /// More rows than this are an error.
    most: Option<u64>,
    late: LateNotices,
}

impl std::fmt::Debug for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Rows").field(&self.schema).finish()
    }
}

impl Rows {
    pub(crate) fn new(stream: SendableRecordBatchStream) -> Self {
        Self::of_stream(stream.schema(), stream.map(|batch| batch.map_err(EngineError::from)))
    }

    /// Rows that come from elsewhere, from a server for instance. All batches have the columns of `schema`.
    pub fn of_stream(schema: SchemaRef, stream: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> Self {
        Self { schema, stream: stream.boxed(), most: None, late: LateNotices::default() }
    }

    /// The same rows, if there are not more than these.
    pub(crate) fn at_most(self, most: Option<u64>) -> Self {
        Self { most, ..self }
    }

    /// The same rows, with what there is to tell when they have been read.
    pub(crate) fn telling(self, late: LateNotices) -> Self {
        Self { late, ..self }
    }

    /// What there is to tell when the rows have been read.
    pub fn late_notices(&self) -> LateNotices {
        self.late.clone()
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// All rows.
    ///
    /// # Errors
    /// When the query fails while it runs.
    pub async fn collect(self) -> Result<Vec<RecordBatch>> {
        self.into_stream().try_collect().await
    }

    /// The rows as they come.
    pub fn into_stream(self) -> impl Stream<Item = Result<RecordBatch>> + Send {
        let (most, mut seen) = (self.most, 0);
        let rows = self.stream.map(move |batch| {
            let batch = batch?;
            seen += batch.num_rows() as u64;
            match most {
                Some(most) if seen > most => Err(EngineError::Limit {
                    message: format!("the query gives more than the {most} rows that are allowed"),
                    hint: "Add LIMIT or a condition; an admin can change the limit (ALTER USER .. LIMITS (rows = ..), serve.rows).".into(),
                }),
                _ => Ok(batch),
            }
        });
        guarded_stream("the query", rows)
    }
}
