//! Snapshots: what relations hold after one epoch, taken between two epochs and then read at leisure.

use super::Pipeline;
use super::accepted::AcceptedRows;
use super::query::Target;
use crate::catalog::object::{ObjectKind, Refresh};
use crate::error::Result;
use crate::progress::OperatorProgress;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::{Epoch, EventTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What to take.
#[derive(Debug, Clone, Default)]
pub struct SnapshotRequest {
    /// Names of catalog objects.
    pub names: BTreeSet<String>,
    /// Figures for the system tables too.
    pub figures: bool,
}

/// Relations after one epoch. Immutable; the rows stay as long as somebody holds them.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: Option<EventTime>,
    /// Content by name.
    pub relations: BTreeMap<String, Content>,
    /// Figures of operators.
    pub operators: Vec<OperatorProgress>,
    /// State in all: rows and bytes.
    pub state: (u64, u64),
    /// Streams: (name, connector, watermark, ended, totals).
    pub streams: Vec<StreamFigures>,
    /// Sinks: (name, mode, buffered rows).
    pub sinks: Vec<(String, String, u64)>,
    /// Queries: (name, failed).
    pub queries: Vec<(String, Option<String>)>,
}

/// Figures of one stream.
#[derive(Debug, Clone)]
pub struct StreamFigures {
    /// Its name.
    pub name: String,
    /// Its connector.
    pub connector: String,
    /// Watermark after the epoch.
    pub watermark: EventTime,
    /// It has ended.
    pub ended: bool,
    /// Row counts.
    pub totals: super::record::StreamTotals,
    /// Rows per second that epochs may take, where that is limited.
    pub rate_limit: Option<f64>,
}

/// Content of a relation.
#[derive(Debug, Clone)]
pub enum Content {
    /// Rows.
    Rows(SchemaRef, Arc<Vec<RecordBatch>>),
    /// A stream: what was accepted, to be read again or retained.
    Stream(Box<AcceptedRows>),
    /// A stream before any query has started the clock: its source is read afresh.
    UntouchedStream(Box<AcceptedRows>),
    /// A sink: committed files and rows that are in no file yet.
    Sink {
        /// Columns of its query.
        schema: SchemaRef,
        /// Connector name or format.
        format: String,
        /// Paths of committed files.
        files: Vec<String>,
        /// Rows that wait for a roll.
        buffered: Vec<RecordBatch>,
    },
}

impl Content {
    /// The number of rows, where it is known.
    pub(crate) fn rows(&self) -> Option<usize> {
        match self {
            Content::Rows(_, batches) => Some(batches.iter().map(RecordBatch::num_rows).sum()),
            _ => None,
        }
    }
}

impl Pipeline {
    /// Takes a snapshot after the newest epoch, and keeps its rows for others who read them.
    pub(super) async fn snapshot(&mut self, request: SnapshotRequest) -> Result<Snapshot> {
        let snapshot = self.take_snapshot(request).await?;
        self.shared.published.add(&self.catalog, &snapshot);
        Ok(snapshot)
    }

    /// Lets readers have the content that they asked for in the epoch before.
    pub(super) async fn publish_content(&mut self) {
        let request = SnapshotRequest { names: self.shared.published.wanted(), figures: false };
        // Whoever reads what could not be taken asks again, and is told why.
        let snapshot = self.take_snapshot(request).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "content of an epoch was not published");
            Snapshot { epoch: self.epoch, ..Snapshot::default() }
        });
        self.shared.published.publish(&self.catalog, snapshot);
    }

    async fn take_snapshot(&mut self, request: SnapshotRequest) -> Result<Snapshot> {
        let mut snapshot =
            Snapshot { epoch: self.epoch, clock: (self.clock != EventTime::MIN).then_some(self.clock), ..Snapshot::default() };
        for name in &request.names {
            let Some(object) = self.catalog.get(name).cloned() else { continue };
            let content = match &object.kind {
                ObjectKind::Table(def) => match self.tables.get_mut(name) {
                    Some(table) => Content::Rows(Arc::clone(&def.schema), table.rows.snapshot()?),
                    None => continue,
                },
                ObjectKind::MaterializedView(def) => {
                    let query = self.queries.iter_mut().find(|query| query.def.name == *name);
                    match query.map(|query| &mut query.target) {
                        Some(Target::View(store)) => Content::Rows(Arc::clone(&def.schema), store.snapshot()?),
                        _ => continue,
                    }
                }
                ObjectKind::Stream(_) => {
                    let (Some(runtime), Some(rows)) = (self.streams.get(name), self.accepted_rows(name)) else { continue };
                    // From the first query on streams are drained, and SELECT gives what was accepted.
                    match self.is_untouched(runtime) {
                        true => Content::UntouchedStream(Box::new(rows)),
                        false => Content::Stream(Box::new(rows)),
                    }
                }
                ObjectKind::Sink(def) => {
                    let Some(sink) = self.sinks.get(name) else { continue };
                    let format = def.options.get("format").cloned().unwrap_or_else(|| match def.connector.as_str() {
                        "files" | "filesystem" => "parquet".to_string(),
                        other => other.to_string(),
                    });
                    Content::Sink {
                        schema: Arc::clone(&sink.schema),
                        format,
                        files: sink.committed_files().unwrap_or_default(),
                        buffered: sink.buffered().await?,
                    }
                }
                ObjectKind::ExternalTable(def) if def.refresh == Refresh::Track => match self.tables.get_mut(name) {
                    Some(table) => Content::Rows(Arc::clone(&def.schema), table.rows.snapshot()?),
                    None => continue,
                },
                ObjectKind::View(_) | ObjectKind::ExternalTable(_) => continue,
            };
            snapshot.relations.insert(name.clone(), content);
        }
        if request.figures {
            snapshot.operators = self.operator_rows();
            snapshot.state = self.state_size();
            let backpressure = self.settings.backpressure()?;
            snapshot.streams = self
                .streams
                .iter()
                .map(|(name, stream)| StreamFigures {
                    name: name.clone(),
                    connector: stream.def.connector.clone(),
                    watermark: stream.watermark.0,
                    ended: stream.watermark.1,
                    totals: stream.totals,
                    rate_limit: stream.rate_limit(backpressure),
                })
                .collect();
            snapshot.sinks =
                self.sinks.iter().map(|(name, sink)| (name.clone(), sink.def.mode.to_string(), sink.status().buffered_rows)).collect();
            snapshot.queries = self
                .queries
                .iter()
                .map(|query| (query.def.name.clone(), query.failed.as_ref().map(|failure| failure.message.clone())))
                .collect();
        }
        Ok(snapshot)
    }
}
