//! Recovery: the newest checkpoint, then every later epoch of the log again, with the same ranges, clock and watermarks.
//!
//! ```text
//!   newest valid checkpoint ─► catalog, state, positions ─► replay epochs after it (outputs are known to the record) ─►
//!   remove orphans ─► go on
//! ```
//!
//! A crash during recovery changes nothing: it only repeats what committed epochs did.

use super::Pipeline;
use super::checkpoint::INSERT_KEYS;
use super::epoch::{Stepped, unweighted};
use super::history;
use super::query::{QueryState, Segments, Target};
use super::record::{COMMIT_FRAME, CatalogChange, CheckpointHeader, CommitRecord};
use super::retained;
use crate::catalog::object::versions_of;
use crate::dead_letters;
use crate::edge::ChangelogState;
use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_connectors::sink::{SinkCheckpoint, SinkEpoch};
use millstream_sql::parse_statement;
use millstream_state::{BlobRef, CheckpointReader, failpoint};
use millstream_types::{Delta, Epoch, EventTime, PartitionRange};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What recovery knows while it runs.
#[derive(Debug, Default)]
pub struct Recovery {
    checkpoint: Option<CheckpointReader>,
    header: CheckpointHeader,
    /// Ranges of the epochs after the checkpoint, by stream.
    ranges: BTreeMap<String, Vec<PartitionRange>>,
}

impl Recovery {
    /// Knows nothing but ranges that were taken before.
    pub(super) fn of_ranges(ranges: BTreeMap<String, Vec<PartitionRange>>) -> Self {
        Self { ranges, ..Self::default() }
    }

    fn segment(&self, name: &str) -> Result<Vec<RecordBatch>> {
        match &self.checkpoint {
            Some(reader) if reader.has_segment(name) => Ok(reader.read_segment(name)?.1),
            _ => Ok(Vec::new()),
        }
    }
}

impl Pipeline {
    /// Whether recovery is running.
    pub(super) fn recovering(&self) -> bool {
        self.recovery.is_some()
    }

    /// Position and later ranges of a stream whose source is being opened.
    pub(super) fn recovered_position(&self, name: &str) -> (Option<serde_json::Value>, Vec<PartitionRange>) {
        let Some(recovery) = &self.recovery else { return (None, Vec::new()) };
        let position = recovery.header.streams.get(name).map(|stream| stream.position.clone()).filter(|position| !position.is_null());
        (position, recovery.ranges.get(name).cloned().unwrap_or_default())
    }

    /// State of a sink that is being opened.
    pub(super) fn recovered_sink(&self, name: &str) -> Result<Option<SinkCheckpoint>> {
        let Some(recovery) = &self.recovery else { return Ok(None) };
        let Some(value) = recovery.header.sinks.get(name) else { return Ok(None) };
        let mut rows = Vec::new();
        for group in value["groups"].as_array().into_iter().flatten().filter_map(|group| group.as_str()) {
            rows.push((group.to_string(), recovery.segment(&format!("sink/{name}/{group}"))?));
        }
        Ok(Some(SinkCheckpoint { detail: value["detail"].clone(), rows }))
    }

    /// Gives a query the state of the checkpoint. `false`: it is not in the checkpoint and must be filled back.
    pub(super) async fn restore_query(&mut self, query: &mut QueryState) -> Result<bool> {
        let Some(recovery) = &self.recovery else { return Ok(false) };
        let Some(checkpoint) = recovery.header.queries.get(&query.def.name) else { return Ok(false) };
        query.restore(checkpoint, &self.arrangements, |name| recovery.segment(name)).await?;
        Ok(true)
    }

    /// The pinned content of an at-rest table, if it was stored.
    pub(super) fn pinned_content(&self, name: &str) -> Result<Option<(SchemaRef, Vec<RecordBatch>)>> {
        let (Some(blob), Some(durability)) = (self.pinned_blobs.get(name), &self.durability) else { return Ok(None) };
        let blob: BlobRef = serde_json::from_value(blob.clone()).map_err(|error| EngineError::Corrupt(error.to_string()))?;
        Ok(Some(durability.dir.blobs().get(&blob)?))
    }

    /// Stores the content of an at-rest table, so that a restart sees the same.
    pub(super) fn pin_content(&mut self, name: &str, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
        let Some(durability) = &self.durability else { return Ok(()) };
        let blob = durability.dir.blobs().put(schema, batches)?;
        self.name_content(name, &blob)
    }

    /// The next commit record says that this content of an at-rest table is used from its epoch on.
    pub(super) fn name_content(&mut self, name: &str, blob: &BlobRef) -> Result<()> {
        self.named_blobs.name(self.epoch.next(), &blob.hash);
        let blob = serde_json::to_value(blob).map_err(|error| EngineError::Internal(error.to_string()))?;
        self.pinned_blobs.insert(name.to_string(), blob.clone());
        self.pending_catalog.push(CatalogChange::Pinned { table: name.to_string(), blob });
        Ok(())
    }

    /// Brings the pipeline to the state after the newest committed epoch. Does nothing in memory or in a new directory.
    ///
    /// # Errors
    /// When the state is damaged or sources no longer have what the log names.
    pub async fn recover(&mut self) -> Result<()> {
        let Some(durability) = &self.durability else { return Ok(()) };
        let mut recovered = CheckpointReader::newest_valid(&durability.dir.checkpoint_path())?;
        for damaged in &recovered.damaged {
            tracing::warn!(epoch = damaged.epoch.0, path = %damaged.path.display(), error = %damaged.error, "checkpoint is damaged, using an older one");
        }
        let mut recovery = Recovery::default();
        let mut at = Epoch::ZERO;
        if let Some(checkpoint) = recovered.checkpoint.take() {
            at = checkpoint.epoch();
            recovery.header = CheckpointHeader::of(&checkpoint)?;
            recovery.checkpoint = Some(checkpoint);
        }
        let mut records: Vec<(CommitRecord, Segments)> = Vec::new();
        for frame in durability.log.frames()? {
            let frame = frame?;
            if frame.kind != COMMIT_FRAME || frame.epoch <= at {
                continue;
            }
            let (record, attachments) = CommitRecord::of_frame(&frame)?;
            let expected = records.last().map_or(at, |(record, _)| record.epoch).next();
            if record.epoch != expected {
                return Err(EngineError::Corrupt(format!("the log has epoch {} where {expected} should follow", record.epoch)));
            }
            for (name, stream) in &record.streams {
                recovery.ranges.entry(name.clone()).or_default().extend(stream.ranges.iter().cloned());
            }
            records.push((record, attachments));
        }
        let header = recovery.header.clone();
        let checkpointed = header.clock.unwrap_or(EventTime::MIN);
        self.recovery = Some(recovery);
        self.load(at, header).await?;
        failpoint::hit("recovery.after_load")?;
        let replayed = records.len();
        for (record, attachments) in records {
            self.replay(record, attachments).await?;
        }
        failpoint::hit("recovery.after_replay")?;
        failpoint::hit("recovery.before_orphans")?;
        // Nothing is removed before every sink was looked at.
        for sink in self.sinks.values_mut() {
            sink.check_published(self.epoch).await?;
        }
        for sink in self.sinks.values_mut() {
            sink.remove_orphans().await?;
        }
        recovered.set_damaged_aside()?;
        self.recovery = None;
        // Older checkpoints hold the rows of each query by themselves. What was replayed came in the order it had then.
        for query in self.queries.iter_mut().filter(|query| query.failed.is_none()) {
            query.dataflow.share(&self.arrangements)?;
        }
        if let Some(durability) = &mut self.durability {
            if at > Epoch::ZERO {
                durability.checkpoints.push_back(at);
            }
            // A pipeline that is killed again and again gets on: the first epoch that is due makes one.
            durability.last_checkpoint = checkpointed;
        }
        if self.epoch > Epoch::ZERO {
            tracing::info!(epoch = self.epoch.0, replayed, "recovered");
        }
        self.update_readers();
        self.publish_catalog();
        self.shared.committed.send_modify(|committed| committed.epoch = self.epoch);
        Ok(())
    }

    /// The state of the checkpoint.
    async fn load(&mut self, at: Epoch, header: CheckpointHeader) -> Result<()> {
        self.epoch = at;
        self.clock = header.clock.unwrap_or(EventTime::MIN);
        self.pinned_blobs = header.pinned.clone();
        self.named_blobs.restored(&header.pinned);
        self.shared.dead_letters.write().restore(header.dead_letters.clone());
        for (name, value) in &header.settings {
            self.settings.set(name, value)?;
        }
        let mut initial = BTreeMap::new();
        for sql in &header.catalog {
            let statement =
                parse_statement(sql).map_err(|error| EngineError::Corrupt(format!("a stored statement does not parse: {error}")))?;
            self.define(&statement, &mut initial).await?;
        }
        self.catalog.access = Arc::new(header.access.clone());
        self.shared.inserts.restore(&header.applied_inserts, &self.recovered_segment(INSERT_KEYS)?)?;
        for (name, checkpoint) in &header.streams {
            let changelog = self.recovered_segment(&format!("stream/{name}/changelog"))?;
            let retained = retained::epochs_of(
                self.recovered_segment(&format!("stream/{name}/retained"))?,
                self.recovered_segment(&format!("stream/{name}/versions"))?,
            )?;
            if retained.len() != checkpoint.retained {
                let problem = format!("the rows of {} of {} kept epochs of \"{name}\" are there", retained.len(), checkpoint.retained);
                return Err(EngineError::Corrupt(format!("checkpoint of epoch {at}: {problem}")));
            }
            let mut entries = Vec::with_capacity(checkpoint.history);
            for index in 0..checkpoint.history.div_ceil(history::SEGMENT_ENTRIES) {
                entries.extend(history::decode(&self.recovered_segment(&history::segment_name(name, index))?)?);
            }
            if entries.len() != checkpoint.history {
                let problem = format!("{} of {} epochs of the history of \"{name}\" are there", entries.len(), checkpoint.history);
                return Err(EngineError::Corrupt(format!("checkpoint of epoch {at}: {problem}")));
            }
            let Some(runtime) = self.streams.get_mut(name) else { continue };
            runtime.history_segments_kept = entries.len() / history::SEGMENT_ENTRIES;
            runtime.history = entries;
            runtime.totals = header.totals.get(name).copied().unwrap_or_default();
            runtime.watermark = (checkpoint.watermark.current, checkpoint.watermark.closed);
            runtime.retention_cut = checkpoint.retention_cut;
            retained.into_iter().for_each(|retained| runtime.retain(retained));
            if let Some(stream) = self.sources.as_mut().and_then(|sources| sources.streams.get_mut(name)) {
                stream.edge.watermark = checkpoint.watermark.clone();
                stream.ended = checkpoint.watermark.closed;
                if let Some(rows) = changelog.into_iter().next() {
                    stream.edge.restore_changelog(ChangelogState { rows })?;
                }
            }
        }
        for name in self.tables.keys().cloned().collect::<Vec<_>>() {
            let rows = self.recovered_segment(&format!("table/{name}"))?;
            let Some(def) = self.tables.get(&name).map(|table| Arc::clone(&table.def)) else { continue };
            // A tracked table has the content it was made with.
            let mut store = self.table_store(&def)?;
            store.restore(&rows)?;
            self.tables.entry(name).and_modify(|table| table.rows = store);
        }
        for (name, epoch) in &header.delivered {
            if let Some(sink) = self.sinks.get_mut(name) {
                sink.set_delivered(*epoch);
            }
        }
        Ok(())
    }

    fn recovered_segment(&self, name: &str) -> Result<Vec<RecordBatch>> {
        self.recovery.as_ref().map_or_else(|| Ok(Vec::new()), |recovery| recovery.segment(name))
    }

    /// One committed epoch again.
    async fn replay(&mut self, record: CommitRecord, attachments: Segments) -> Result<()> {
        let mut attachments: HashMap<String, Vec<RecordBatch>> = attachments.into_iter().collect();
        self.shared.epoch_clock.set(record.clock);
        self.statement_clock = Some(record.clock);
        let mut initial = BTreeMap::new();
        for change in &record.catalog {
            match change {
                CatalogChange::Statement { sql } => {
                    let statement = parse_statement(sql)
                        .map_err(|error| EngineError::Corrupt(format!("a logged statement does not parse: {error}")))?;
                    self.define(&statement, &mut initial).await?;
                }
                CatalogChange::Access { access } => Arc::make_mut(&mut self.catalog.access).apply(access),
                CatalogChange::Pinned { table, blob } => {
                    self.named_blobs.name(record.epoch, blob["hash"].as_str().unwrap_or_default());
                    self.pinned_blobs.insert(table.clone(), blob.clone());
                    self.replay_pinned(table).await?;
                }
            }
        }
        let streams = self.read_logged(&record, &mut attachments).await?;
        let mut deltas: HashMap<String, Delta> = HashMap::new();
        for (name, stream) in &streams {
            deltas.insert(name.clone(), stream.accepted.delta.clone());
            if !stream.accepted.versions.is_empty() {
                deltas.insert(versions_of(name), stream.accepted.versions.clone());
            }
        }
        for runtime in self.streams.values_mut() {
            runtime.watermark_before = runtime.watermark;
        }
        for (name, stream) in &record.streams {
            if let Some(runtime) = self.streams.get_mut(name) {
                runtime.watermark = (stream.watermark_end.current, stream.watermark_end.closed);
            }
        }
        for name in &record.tables {
            let rows = unweighted(attachments.remove(&format!("table/{name}")).unwrap_or_default())?;
            deltas.insert(name.clone(), rows);
        }
        let Stepped { outputs, .. } = self.step_queries((record.epoch, record.clock), &mut deltas, initial, Some(&record.failed)).await?;
        let epoch = SinkEpoch { epoch: record.epoch, clock: record.clock, roll: false };
        for (name, delivered) in &record.delivered {
            if let Some(sink) = self.sinks.get_mut(name) {
                sink.set_delivered(*delivered);
            }
        }
        self.replay_sinks(epoch, &outputs, &record).await?;
        for name in &record.tables {
            if let (Some(table), Some(rows)) = (self.tables.get_mut(name), deltas.get(name)) {
                table.rows.apply(rows).map_err(|source| EngineError::Dataflow(Arc::new(source)))?;
                table.changed = record.epoch;
            }
        }
        self.epoch = record.epoch;
        self.clock = record.clock;
        self.statement_clock = None;
        self.shared.inserts.carried_out(record.epoch, &record.inserts);
        self.remember(&record, &streams, &deltas);
        self.shared.dead_letters.write().push(attachments.remove(dead_letters::ATTACHMENT).unwrap_or_default());
        if self.shared.dead_letters.read().is_full(self.settings.dead_letter_limit()?) {
            self.write_dead_letters()?;
        }
        Ok(())
    }

    async fn replay_sinks(&mut self, epoch: SinkEpoch, outputs: &BTreeMap<String, Delta>, record: &CommitRecord) -> Result<()> {
        let mut by_sink: BTreeMap<String, Delta> = BTreeMap::new();
        for query in &mut self.queries {
            let Target::Sink { sink, .. } = &query.target else { continue };
            let sink = sink.clone();
            let Some(changes) = outputs.get(&query.def.name) else { continue };
            let Some(state) = self.sinks.get(&sink) else { continue };
            let changes = query.sink_changes(changes.clone(), state.def.mode)?;
            by_sink.entry(sink).or_default().extend(changes);
        }
        for (name, sink) in &mut self.sinks {
            let changes = by_sink.remove(name).unwrap_or_default();
            sink.replay(epoch, &changes, record.sinks.get(name)).await?;
        }
        Ok(())
    }
}
