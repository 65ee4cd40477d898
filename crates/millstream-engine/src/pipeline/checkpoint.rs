//! Checkpoints: all state after an epoch, so that recovery replays only what came later.

use super::history;
use super::record::{CheckpointHeader, StreamCheckpoint};
use super::retained::Group;
use super::sources::EdgeState;
use super::{Pipeline, query::Target};
use crate::catalog::object::{ObjectKind, stream_of};
use crate::error::{EngineError, Result};
use crate::stopwatch::Stopwatch;
use arrow::array::RecordBatch;
use millstream_state::checkpoint::remove_older_than;
use millstream_state::{CheckpointReader, CheckpointWriter, failpoint};
use millstream_types::{Epoch, EventTime};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Input since the last checkpoint that makes one due, whatever the time.
const CHECKPOINT_BYTES: u64 = 256_000_000;
/// How many checkpoints are kept: recovery falls back one if the newest is damaged.
const GENERATIONS: usize = 2;

/// The segment of the keys of inserts.
pub(super) const INSERT_KEYS: &str = "inserts/keys";

/// A part of the state: its name and rows.
type Segment = (String, Vec<RecordBatch>);

/// Checkpoints that take so long need a pause before them.
const LONG: Duration = Duration::from_secs(1);
/// The pause is so many times as long: checkpoints of much state take a tenth of the time at most.
const PAUSE_FACTOR: u32 = 9;
/// Bytes of state that a checkpoint writes in a second, if none has told that it takes longer.
const BYTES_PER_SECOND: f64 = 500e6;

/// The time before a long checkpoint in which none is due by itself. What is computed does not depend on when checkpoints are made.
/// `None` after a recovery: who is killed again and again must get on.
#[derive(Debug, Default)]
pub struct Pause(Option<(Stopwatch, Duration)>);

impl Pause {
    /// Begins with a checkpoint that took so long, or with a new pipeline.
    pub(super) fn after(took: Duration) -> Self {
        Self(Some((Stopwatch::start(), took)))
    }

    /// Whether a checkpoint of so much state would come too soon.
    fn is_on(&self, state_bytes: usize) -> bool {
        let Some((since, took)) = &self.0 else { return false };
        let expected = Duration::from_secs_f64(state_bytes as f64 / BYTES_PER_SECOND).max(*took);
        expected >= LONG && since.elapsed() < expected * PAUSE_FACTOR
    }
}

impl Pipeline {
    /// Whether a checkpoint should follow an epoch with this clock.
    pub(super) fn checkpoint_due(&self, clock: EventTime) -> bool {
        let Some(durability) = &self.durability else { return false };
        let interval = self.settings.checkpoint_interval().unwrap_or_default();
        let wanted = durability.last_checkpoint == EventTime::MIN
            || durability.last_checkpoint.plus(interval) <= clock
            || durability.bytes_since >= CHECKPOINT_BYTES;
        wanted && !durability.pause.is_on(self.shared.base.runtime_env().memory_pool.reserved())
    }

    /// Counts queries that were filled back, which took so long. Recovery fills them back again unless a checkpoint comes first. Whether
    /// one must: it would take long, or needs input that nobody else keeps, or the queries have `resumed`.
    pub(super) fn filled_back(&mut self, queries: &[String], took: Duration, resumed: bool) -> bool {
        let read_again = |stream: &str| self.streams.get(stream).is_some_and(|stream| stream.replayable && !stream.history.is_empty());
        let mut filled = self.queries.iter().filter(|query| queries.contains(&query.def.name));
        let needs_input = filled.any(|query| query.reads.iter().any(|name| read_again(stream_of(name))));
        let Some(durability) = &mut self.durability else { return false };
        durability.filling_back += took;
        resumed || needs_input || durability.filling_back >= LONG
    }

    /// Makes a checkpoint of the state after the newest epoch, unless there is one.
    pub(super) async fn checkpoint(&mut self) -> Result<()> {
        self.settle().await?;
        self.checkpoint_with(None).await
    }

    /// As [`Pipeline::checkpoint`], with the state of sources taken when the epoch was assembled.
    #[tracing::instrument(name = "checkpoint", skip_all, fields(epoch = self.epoch.0, bytes = tracing::field::Empty))]
    pub(super) async fn checkpoint_with(&mut self, states: Option<BTreeMap<String, EdgeState>>) -> Result<()> {
        let watch = Stopwatch::start();
        self.sync_waiting().await?;
        let states = match (states, &self.sources) {
            (Some(states), _) => states,
            (None, Some(sources)) => sources.states(),
            (None, None) => return Err(EngineError::Internal("sources are away".into())),
        };
        if self.durability.as_ref().is_none_or(|durability| durability.checkpoints.back() == Some(&self.epoch)) || self.epoch.0 == 0 {
            return Ok(());
        }
        failpoint::hit("checkpoint.before")?;
        if let Some(durability) = &self.durability {
            // Whoever took the directory over writes its checkpoints now.
            durability.dir.check_fenced()?;
        }
        self.write_dead_letters()?;
        let (mut segments, mut shared): (Vec<Segment>, Vec<Segment>) = Default::default();
        let unchanged = self.history_segments(&mut segments, &mut shared)?;
        let header = self.checkpoint_header(states, &mut segments).await?;
        let Some(durability) = &mut self.durability else { return Ok(()) };
        let mut writer = CheckpointWriter::begin(&durability.dir, self.epoch)?;
        if let Some(earlier) = durability.checkpoints.back().filter(|_| !unchanged.is_empty()) {
            let earlier = CheckpointReader::open(&durability.dir.checkpoint_path().join(earlier.to_string()))?;
            for name in &unchanged {
                writer.reuse_segment(name, &earlier)?;
            }
        }
        for (name, batches) in &shared {
            if let Some(first) = batches.first() {
                writer.write_shared_segment(name, &first.schema(), batches)?;
            }
        }
        for (name, batches) in &segments {
            if let Some(first) = batches.first() {
                writer.write_segment(name, &first.schema(), batches)?;
            }
        }
        let size = |(_, batches): &Segment| batches.iter().map(|batch| batch.get_array_memory_size() as u64).sum::<u64>();
        let bytes = segments.iter().chain(&shared).map(size).sum();
        failpoint::hit("checkpoint.segments")?;
        let detail = serde_json::to_value(&header).map_err(|error| EngineError::Internal(error.to_string()))?;
        failpoint::hit("checkpoint.manifest")?;
        writer.finish(detail)?;
        failpoint::hit("checkpoint.cleanup")?;
        durability.checkpoints.push_back(self.epoch);
        while durability.checkpoints.len() > GENERATIONS {
            durability.checkpoints.pop_front();
        }
        durability.last_checkpoint = self.clock;
        durability.bytes_since = 0;
        durability.filling_back = Duration::ZERO;
        for stream in self.streams.values_mut() {
            stream.history_segments_kept = stream.history.len() / history::SEGMENT_ENTRIES;
        }
        if let Some(oldest) = remove_older_than(&durability.dir.checkpoint_path(), GENERATIONS, durability.dir.writer())? {
            durability.log.drop_before(oldest.next())?;
        }
        self.shared.dead_letters.write().checkpointed()?;
        // A version that is being read may be stored already and is named by nobody yet.
        if self.reading.is_empty() {
            let whole_log = durability.checkpoints.len() < GENERATIONS;
            let older = durability.checkpoints.front().copied().filter(|_| !whole_log).unwrap_or(Epoch::ZERO);
            self.named_blobs.checkpointed(&self.pinned_blobs, older, &durability.dir.blobs())?;
        }
        durability.pause = Pause::after(watch.elapsed());
        tracing::Span::current().record("bytes", bytes);
        self.shared.progress.checkpoint(self.epoch, bytes, watch.elapsed());
        Ok(())
    }

    /// Writes refused rows that only the log holds into the state directory.
    pub(super) fn write_dead_letters(&self) -> Result<()> {
        let limit = self.settings.dead_letter_limit()?;
        let unwritten = self.shared.dead_letters.read().unwritten(limit);
        if let Some(unwritten) = unwritten {
            let written = unwritten.write()?;
            self.shared.dead_letters.write().install(written, limit);
        }
        Ok(())
    }

    /// Adds what is new of the streams' history: full segments, which stay as they are, to `shared`. Gives the names of those that the
    /// checkpoint before holds already.
    fn history_segments(&self, segments: &mut Vec<Segment>, shared: &mut Vec<Segment>) -> Result<Vec<String>> {
        let mut unchanged = Vec::new();
        for (name, stream) in &self.streams {
            let kept = stream.history_segments_kept;
            unchanged.extend((0..kept).map(|index| history::segment_name(name, index)));
            for (index, entries) in stream.history.chunks(history::SEGMENT_ENTRIES).enumerate().skip(kept) {
                let list = if entries.len() == history::SEGMENT_ENTRIES { &mut *shared } else { &mut *segments };
                list.push((history::segment_name(name, index), vec![history::encode(entries)?]));
            }
        }
        Ok(unchanged)
    }

    async fn checkpoint_header(
        &mut self,
        mut states: BTreeMap<String, EdgeState>,
        segments: &mut Vec<Segment>,
    ) -> Result<CheckpointHeader> {
        let mut header = CheckpointHeader {
            clock: Some(self.clock),
            catalog: self.catalog_statements(),
            access: self.catalog.access.as_ref().clone(),
            settings: self.settings.changed().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            applied_inserts: self.shared.inserts.from_files(),
            pinned: self.pinned_blobs.clone(),
            dead_letters: self.shared.dead_letters.read().checkpoint(),
            ..CheckpointHeader::default()
        };
        segments.push((INSERT_KEYS.to_string(), self.shared.inserts.keys()?.into_iter().collect()));
        for (name, stream) in &self.streams {
            let Some(state) = states.remove(name) else { continue };
            if let Some(state) = state.changelog {
                segments.push((format!("stream/{name}/changelog"), vec![state.rows]));
            }
            segments.push((format!("stream/{name}/retained"), stream.retained.batches(Group::Rows)?));
            segments.push((format!("stream/{name}/versions"), stream.retained.batches(Group::Versions)?));
            header.totals.insert(name.clone(), stream.totals);
            header.streams.insert(
                name.clone(),
                StreamCheckpoint {
                    position: state.position,
                    watermark: state.watermark,
                    history: stream.history.len(),
                    retained: stream.retained.len(),
                    retention_cut: stream.retention_cut,
                },
            );
        }
        for (name, table) in &mut self.tables {
            segments.push((format!("table/{name}"), table.rows.checkpoint()?));
        }
        let mut written = BTreeSet::new();
        for query in &mut self.queries {
            let (checkpoint, rows) = query.checkpoint(&mut written)?;
            segments.extend(rows);
            header.queries.insert(query.def.name.clone(), checkpoint);
        }
        for (name, sink) in &mut self.sinks {
            if let Some(epoch) = sink.delivered() {
                header.delivered.insert(name.clone(), epoch);
            }
            if let Some(state) = sink.checkpoint().await? {
                let groups: Vec<String> = state.rows.iter().map(|(group, _)| group.clone()).collect();
                header.sinks.insert(name.clone(), serde_json::json!({ "detail": state.detail, "groups": groups }));
                segments.extend(state.rows.into_iter().map(|(group, rows)| (format!("sink/{name}/{group}"), rows)));
            }
        }
        Ok(header)
    }

    /// The statements that make today's catalog, in an order in which every name exists before it is used.
    fn catalog_statements(&self) -> Vec<String> {
        let own = self.catalog.objects().iter().filter(|object| !object.is_adopted());
        let mut statements: Vec<String> = own.map(|object| object.sql.clone()).collect();
        for object in self.catalog.objects() {
            if let ObjectKind::Sink(def) = &object.kind {
                statements.extend(def.queries.iter().filter_map(|query| query.insert_sql.clone()));
            }
        }
        statements
    }

    /// Rows and bytes of all state, for the report.
    pub(super) fn state_size(&self) -> (u64, u64) {
        let mut size = (0, 0);
        for operator in self.operator_rows() {
            size.0 += operator.state_rows;
            size.1 += operator.state_bytes;
        }
        for query in &self.queries {
            if let Target::View(store) | Target::Sink { result: Some(store), .. } = &query.target {
                size.0 += store.rows() as u64;
                size.1 += store.bytes() as u64;
            }
        }
        size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_much_state_waits() {
        let (little, much) = (400_000_000, 5_000_000_000);
        assert!(!Pause::default().is_on(much));
        assert!(Pause::after(Duration::ZERO).is_on(much) && !Pause::after(Duration::ZERO).is_on(little));
        assert!(Pause::after(3 * LONG).is_on(little));
    }
}
