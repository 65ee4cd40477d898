//! Streams as batch queries read them: the accepted rows of committed epochs, read again from the source while the query runs,
//! never held as a whole. Of a source that no query has read yet it is told how many rows were bad: otherwise nobody would say so.

use crate::catalog::object::{Shown, StreamShape};
use crate::error::Result;
use crate::notice::{LateNotices, Notice};
use crate::pipeline::accepted::{AcceptedRows, Cursor, LeftOut};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, StreamExt};
use millstream_dataflow::ViewStore;
use millstream_types::{Delta, Epoch};
use std::sync::Arc;

/// The accepted rows of a stream, with the columns of `schema`.
#[derive(Debug)]
struct Scan {
    rows: Arc<AcceptedRows>,
    shown: Shown,
    schema: SchemaRef,
    state: Arc<SessionState>,
    untouched: bool,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let (rows, schema, state) = (Arc::clone(&self.rows), Arc::clone(&self.schema), Arc::clone(&self.state));
        let late = if self.untouched { context.session_config().get_extension::<LateNotices>() } else { None };
        let is_versions = self.shown == Shown::Versions;
        let batches = stream::once(async move {
            let cursor = if is_versions { rows.versions(&state)? } else { rows.cursor(None, &state)? };
            if is_versions || rows.def().shape == StreamShape::Append {
                return Ok(stream::try_unfold((cursor, schema, late, rows), |(mut cursor, schema, late, rows)| async move {
                    match cursor.next().await? {
                        None => {
                            tell(&rows.def().name, &cursor, late.as_deref());
                            Ok(None)
                        }
                        Some((_, _, delta)) => Ok(Some((project(delta, &schema)?, (cursor, schema, late, rows)))),
                    }
                })
                .map(|delta: Result<Delta>| delta.map(|delta| delta.into_iter().map(|part| part.batch).collect()))
                .boxed());
            }
            let name = rows.def().name.clone();
            Ok(stream::once(async move { relation(&name, cursor, &schema, late.as_deref()).await }).boxed())
        });
        let batches = batches.flat_map(|started: Result<stream::BoxStream<'static, Result<Vec<RecordBatch>>>>| match started {
            Ok(batches) => batches,
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        });
        let flat = batches.flat_map(|batches| match batches {
            Ok(batches) => stream::iter(batches.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async move { Err(DataFusionError::External(Box::new(error))) }).boxed(),
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), flat))
    }
}

/// The relation that a changing stream makes: it is only known after the last change.
async fn relation(name: &str, mut cursor: Cursor, schema: &SchemaRef, late: Option<&LateNotices>) -> Result<Vec<RecordBatch>> {
    let mut store = ViewStore::new(name, Arc::clone(schema), false, None)?;
    while let Some((_, _, delta)) = cursor.next().await? {
        store.apply(&project(delta, schema)?)?;
    }
    tell(name, &cursor, late);
    Ok(store.snapshot()?.to_vec())
}

/// Tells what was left out.
fn tell(name: &str, cursor: &Cursor, late: Option<&LateNotices>) {
    let (Some(late), LeftOut { rows, first: Some(first) }) = (late, cursor.left_out()) else { return };
    late.push(Notice::warning(
        format!("{rows} bad rows of stream \"{name}\" were left out; the first: {first}"),
        "on_error = 'fail' of the stream makes a bad row an error. When a continuous query reads the stream, millstream.dead_letters shows them.",
    ));
}

/// The columns of `schema`, by name.
fn project(rows: Delta, schema: &SchemaRef) -> Result<Delta> {
    rows.into_iter()
        .map(|part| {
            let indices = schema.fields().iter().map(|field| part.batch.schema().index_of(field.name())).collect::<Result<Vec<_>, _>>()?;
            let batch = part.batch.project(&indices)?;
            let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let batch = RecordBatch::try_new_with_options(Arc::clone(schema), batch.columns().to_vec(), &options)?;
            Ok(part.with_batch(batch))
        })
        .collect()
}

/// The accepted rows of a stream as a table. `untouched`: no query has read its source yet.
///
/// # Errors
/// When versions are wanted that are not kept.
pub(crate) fn provider(rows: AcceptedRows, shown: Shown, state: &SessionState, untouched: bool) -> Result<Arc<dyn TableProvider>> {
    if shown == Shown::Versions {
        rows.require_versions(Epoch::ZERO)?;
    }
    let schema = rows.def().shown(shown);
    let scan = Scan { rows: Arc::new(rows), shown, schema: Arc::clone(&schema), state: Arc::new(state.clone()), untouched };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(scan)])?))
}
