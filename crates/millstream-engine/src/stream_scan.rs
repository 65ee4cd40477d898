//! Streams and sinks as batch queries read them: the accepted rows of committed epochs, read again from the source while
//! the query runs, never held as a whole.

use crate::catalog::object::{StreamDef, StreamShape};
use crate::edge::{Accepted, Edge, EdgeEpoch};
use crate::error::{EngineError, Result};
use crate::pipeline::record::HistoryEntry;
use crate::pipeline::sources::read_accepted;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::datasource::MemTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, SessionState, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, StreamExt};
use millstream_connectors::registry;
use millstream_connectors::source::{EpochLimits, Reader, SourceContext};
use millstream_dataflow::ViewStore;
use millstream_types::{Clock, Delta, Epoch, EventTime, Options, PartitionRange};
use std::sync::Arc;

/// The accepted rows of a replayable stream.
#[derive(Debug, Clone)]
struct AcceptedRows {
    def: Arc<StreamDef>,
    reader: Arc<dyn Reader>,
    history: Arc<Vec<Arc<HistoryEntry>>>,
    schema: SchemaRef,
    state: Arc<SessionState>,
}

impl PartitionStream for AcceptedRows {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.clone();
        let schema = Arc::clone(&self.schema);
        let batches = stream::once(async move { rows.start() }).flat_map(|started| match started {
            Ok((rows, edge)) => stream::try_unfold((rows, edge, 0), |(rows, mut edge, at)| async move {
                match rows.next(&mut edge, at).await {
                    Ok(Some((batches, at))) => Ok(Some((batches, (rows, edge, at)))),
                    Ok(None) => Ok(None),
                    Err(error) => Err(DataFusionError::External(Box::new(error))),
                }
            })
            .boxed(),
            Err(error) => stream::once(async move { Err(DataFusionError::External(Box::new(error))) }).boxed(),
        });
        let flat = batches.flat_map(|batches| match batches {
            Ok(batches) => stream::iter(batches.into_iter().map(Ok)).boxed(),
            Err(error) => stream::once(async move { Err(error) }).boxed(),
        });
        Box::pin(RecordBatchStreamAdapter::new(schema, flat))
    }
}

impl AcceptedRows {
    fn start(self) -> Result<(Self, Edge)> {
        let edge = Edge::new(Arc::clone(&self.def), &self.state)?;
        Ok((self, edge))
    }

    async fn next(&self, edge: &mut Edge, at: usize) -> Result<Option<(Vec<RecordBatch>, usize)>> {
        if self.def.shape != StreamShape::Append {
            // The relation itself is only known after the last change.
            if at > 0 {
                return Ok(None);
            }
            let mut store = ViewStore::new(&self.def.name, Arc::clone(&self.schema), false, None)?;
            for entry in self.history.iter() {
                store.apply(&self.project(self.read(edge, entry).await?.delta)?)?;
            }
            return Ok(Some((store.snapshot()?.to_vec(), 1)));
        }
        let Some(entry) = self.history.get(at) else { return Ok(None) };
        let accepted = self.read(edge, entry).await?;
        let batches = self.project(accepted.delta)?.into_iter().map(|part| part.batch).collect();
        Ok(Some((batches, at + 1)))
    }

    async fn read(&self, edge: &mut Edge, entry: &HistoryEntry) -> Result<Accepted> {
        let epoch = EdgeEpoch { epoch: entry.epoch, clock: entry.clock, watermark_start: entry.watermark_start };
        read_accepted(edge, &self.reader, &entry.ranges, epoch).await
    }

    fn project(&self, rows: Delta) -> Result<Delta> {
        project(rows, &self.schema)
    }
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

/// The accepted rows of a stream that is being read.
///
/// # Errors
/// When retained rows do not fit the stream's columns.
pub(crate) fn accepted(
    runtime: &crate::pipeline::StreamRuntime,
    history: Vec<Arc<HistoryEntry>>,
    hidden: bool,
    state: &SessionState,
) -> Result<Arc<dyn TableProvider>> {
    let def = &runtime.def;
    let schema = if hidden { def.schema_with_hidden() } else { def.schema() };
    match &runtime.reader {
        Some(reader) if runtime.replayable => {
            let rows = AcceptedRows {
                def: Arc::clone(def),
                reader: Arc::clone(reader),
                history: Arc::new(history),
                schema: Arc::clone(&schema),
                state: Arc::new(state.clone()),
            };
            Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rows)])?))
        }
        _ => {
            let retained: Delta = runtime.retained.iter().flat_map(|(_, _, rows)| rows.iter().cloned()).collect();
            let retained = project(retained, &schema)?;
            let batches = if def.shape == StreamShape::Append {
                retained.into_iter().map(|part| part.batch).collect()
            } else {
                let mut store = ViewStore::new(&def.name, Arc::clone(&schema), false, None)?;
                store.apply(&retained)?;
                store.snapshot()?.to_vec()
            };
            Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
        }
    }
}

/// Everything the source of a stream has now, before any query has started the clock: its source is opened a second time.
///
/// # Errors
/// When the source cannot be opened or listed.
pub(crate) async fn untouched(
    def: &Arc<StreamDef>,
    hidden: bool,
    state: &SessionState,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<dyn TableProvider>> {
    let owner = format!("stream \"{}\"", def.name);
    let fail = |error| EngineError::connector(&owner, error);
    let edge = Edge::new(Arc::clone(def), state)?;
    let context = SourceContext {
        stream: def.name.clone(),
        schema: edge.decode_schema(),
        metadata: edge.metadata(),
        event_time: def.watermark.as_ref().map(|(column, _)| column.clone()),
        options: Options::new(&owner, def.connector_options.clone()),
        clock: Arc::clone(clock),
    };
    let mut source = registry::create_source(&def.connector, context).map_err(fail)?;
    source.open(None, &[]).await.map_err(fail)?;
    source.mark_end().await.map_err(fail)?;
    let limits = EpochLimits { max_rows: None, max_bytes: u64::MAX, max_files: u64::MAX, clock: clock.now(), draining: true, until: None };
    let mut history = Vec::new();
    while let Some(ranges) = source.plan(&limits).await.map_err(fail)? {
        let rows = |range: &PartitionRange| range.range.start == range.range.end;
        let empty = ranges.iter().all(rows);
        history.push(Arc::new(HistoryEntry { epoch: Epoch(1), clock: limits.clock, watermark_start: EventTime::MIN, ranges }));
        if empty || history.len() > 100_000 {
            break;
        }
    }
    let reader = source.reader();
    let schema = if hidden { def.schema_with_hidden() } else { def.schema() };
    let rows = AcceptedRows {
        def: Arc::clone(def),
        reader,
        history: Arc::new(history),
        schema: Arc::clone(&schema),
        state: Arc::new(state.clone()),
    };
    Ok(Arc::new(StreamingTable::try_new(schema, vec![Arc::new(rows)])?))
}
