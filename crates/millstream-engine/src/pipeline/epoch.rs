//! The second half of an epoch: dataflow, sinks, commit, publish.

use super::Pipeline;
use super::checkpoint::Pause;
use super::query::{Target, epoch_input};
use super::record::{COMMIT_FRAME, CommitRecord, HistoryEntry};
use super::resume::QueryFailure;
use super::retained::Retained;
use super::sources::{AssembleRequest, Assembled, StreamEpoch};
use super::unsynced::Appended;
use crate::catalog::object::versions_of;
use crate::dead_letters;
use crate::error::{EngineError, Result};
use crate::inserts::InsertNote;
use crate::progress::{EpochProgress, PhaseTimes, SinkProgress, SourceProgress};
use crate::settings::OnQueryFailure;
use crate::spans::noting_failure;
use crate::stopwatch::Stopwatch;
use arrow::array::RecordBatch;
use millstream_connectors::sink::{SinkCommit, SinkEpoch};
use millstream_plan::graph::Strategy;
use millstream_state::{Compression, FramePayload, failpoint};
use millstream_types::{Delta, DeltaBatch, Epoch, EventTime, Weights, delta};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tracing::Instrument;
use tracing::field::Empty;

/// What an epoch has to do.
#[derive(Debug, Default)]
pub struct EpochWork {
    /// What sources brought.
    pub assembled: Option<Assembled>,
    /// Changes of tables.
    pub tables: BTreeMap<String, Delta>,
    /// Inserts that these changes carry out.
    pub inserts: Vec<InsertNote>,
    /// Changes that queries added by this epoch's statements already made (back-fill), by query.
    pub initial: BTreeMap<String, Delta>,
    /// Roll all files.
    pub roll: bool,
    /// The next epoch follows at once.
    pub more: bool,
    /// The next epoch, to be assembled while this one is made durable.
    pub next: Option<AssembleRequest>,
    /// When it began, and how long it had waited; where back-pressure should know.
    pub began: Option<(EventTime, Duration)>,
    /// Refused rows beside those that `assembled` brings.
    pub dead_letters: Vec<RecordBatch>,
}

/// What the queries made of an epoch.
#[derive(Debug, Default)]
pub struct Stepped {
    /// Changes by query.
    pub outputs: BTreeMap<String, Delta>,
    /// Queries that failed, with the message.
    pub failed: BTreeMap<String, String>,
}

/// The name of the weight column in attachments.
const WEIGHT_COLUMN: &str = "__weight";

impl Pipeline {
    /// Runs one epoch to its end.
    ///
    /// # Errors
    /// When anything before the commit fails: nothing of the epoch is visible then, and the pipeline must stop.
    pub(super) async fn run_epoch_with(&mut self, work: EpochWork) -> Result<Epoch> {
        let span = tracing::info_span!("epoch", epoch = self.epoch.next().0, rows = Empty, otel.status_code = Empty);
        if !span.is_disabled() {
            let streams = work.assembled.iter().flat_map(|assembled| assembled.streams.values());
            span.record("rows", streams.map(|stream| stream.commit.rows_in).sum::<u64>());
        }
        noting_failure(span, self.run_phases(work)).await
    }

    async fn run_phases(&mut self, mut work: EpochWork) -> Result<Epoch> {
        let started = Stopwatch::start();
        let mut phase = Stopwatch::start();
        let mut phases = PhaseTimes::default();
        failpoint::hit("epoch.before_begin")?;
        let epoch = self.epoch.next();
        let mut assembled = work.assembled.take().unwrap_or_default();
        let clock = self.clock_of(assembled.clock);
        self.statement_clock = None;
        self.shared.epoch_clock.set(clock);
        phases.plan = assembled.plan_time;
        phases.read = assembled.read_time;
        failpoint::hit("epoch.after_read")?;

        for runtime in self.streams.values_mut() {
            runtime.watermark_before = runtime.watermark;
        }
        for (name, stream) in &assembled.streams {
            if let Some(runtime) = self.streams.get_mut(name) {
                let state = &stream.commit.watermark_end;
                runtime.watermark = (state.current, state.closed);
            }
        }
        let mut deltas: HashMap<String, Delta> = HashMap::new();
        for (name, stream) in &mut assembled.streams {
            deltas.insert(name.clone(), std::mem::take(&mut stream.accepted.delta));
            if !stream.accepted.versions.is_empty() {
                deltas.insert(versions_of(name), std::mem::take(&mut stream.accepted.versions));
            }
        }
        for (name, changes) in &work.tables {
            deltas.insert(name.clone(), changes.clone());
        }

        // Dataflow.
        let stepped = self.step_queries((epoch, clock), &mut deltas, std::mem::take(&mut work.initial), None);
        let Stepped { outputs, failed } = stepped.instrument(tracing::info_span!("dataflow")).await?;
        phases.dataflow = phase.lap();
        failpoint::hit("epoch.after_dataflow")?;

        // Sinks.
        let sink_epoch = SinkEpoch { epoch, clock, roll: work.roll };
        let sink_commits = self.stage_sinks(sink_epoch, &outputs).instrument(tracing::info_span!("sink_stage")).await?;
        phases.sink = phase.lap();

        // Commit.
        let mut attachments: Vec<(String, Vec<RecordBatch>)> = Vec::new();
        for (name, stream) in &assembled.streams {
            if stream.commit.logged {
                attachments.push((format!("stream/{name}"), weighted_batches(&deltas[name])?));
                if let Some(versions) = deltas.get(&versions_of(name)) {
                    attachments.push((format!("versions/{name}"), weighted_batches(versions)?));
                }
            }
        }
        for (name, changes) in &work.tables {
            attachments.push((format!("table/{name}"), weighted_batches(changes)?));
        }
        let mut refused = std::mem::take(&mut work.dead_letters);
        refused.extend(dead_letters::take(epoch, &mut assembled.streams)?);
        if !refused.is_empty() {
            attachments.push((dead_letters::ATTACHMENT.to_string(), refused.clone()));
        }
        let ranges = assembled.streams.values().flat_map(|stream| &stream.commit.ranges);
        work.inserts.extend(ranges.filter_map(InsertNote::of_range));
        let record = CommitRecord {
            epoch,
            clock,
            streams: assembled.streams.iter().map(|(name, stream)| (name.clone(), stream.commit.clone())).collect(),
            tables: work.tables.keys().cloned().collect(),
            sinks: sink_commits.clone(),
            delivered: self.sinks.iter().filter_map(|(name, sink)| sink.delivered().map(|epoch| (name.clone(), epoch))).collect(),
            catalog: std::mem::take(&mut self.pending_catalog),
            inserts: work.inserts,
            failed,
        };
        let waits = work.more && self.may_wait(&record, !attachments.is_empty(), &assembled);
        let commit = async {
            self.append(&record, attachments)?;
            if waits { Ok(()) } else { self.sync_log(work.next).await }
        };
        commit.instrument(tracing::info_span!("commit")).await?;
        phases.commit = phase.lap();

        // Everything from here on is repaired by recovery if it is interrupted.
        self.epoch = epoch;
        self.clock = clock;
        self.remember(&record, &assembled.streams, &deltas);
        if let Some(durability) = &mut self.durability {
            if epoch == Epoch::ZERO.next() {
                // A new pipeline has nothing yet that recovery would take long to make again.
                durability.last_checkpoint = clock;
                durability.pause = Pause::after(Duration::ZERO);
            }
            durability.bytes_since += assembled.streams.values().map(|stream| stream.accepted.bytes).sum::<u64>();
        }
        if waits {
            // No files: the sinks only note that what they hold is committed.
            self.publish_sinks(&sink_commits).await?;
            self.relieve(work.began, &record);
            self.unsynced.push(Appended { record, assembled, phases, started });
            return Ok(epoch);
        }
        self.tell_of_waiting().await?;
        let publish = async {
            failpoint::hit("publish.before")?;
            self.publish_sinks(&sink_commits).await?;
            for (name, changes) in &work.tables {
                if let Some(table) = self.tables.get_mut(name) {
                    table.rows.apply(changes).map_err(|source| EngineError::Dataflow(Arc::new(source)))?;
                    table.changed = epoch;
                }
            }
            self.shared.dead_letters.write().push(refused);
            self.deliver(sink_epoch, &outputs).await?;
            self.step_live(epoch, clock, &deltas).await;
            self.acknowledge(&assembled.streams).await?;
            failpoint::hit("publish.after")?;
            Ok::<_, EngineError>(())
        };
        publish.instrument(tracing::info_span!("publish")).await?;
        phases.publish = phase.lap();
        self.publish_content().await;
        let states = assembled.states.take();
        let told = Appended { record, assembled, phases, started };
        self.tell_of(&told);
        self.relieve(work.began, &told.record);
        if states.is_some() && self.checkpoint_due(clock) {
            self.checkpoint_with(states).await?;
        }
        if self.shared.dead_letters.read().is_full(self.settings.dead_letter_limit()?) {
            self.write_dead_letters()?;
        }
        Ok(epoch)
    }

    /// Steps every query in creation order; views feed later queries. `known`: in recovery, the queries that failed on the epoch.
    pub(super) async fn step_queries(
        &mut self,
        at: (Epoch, EventTime),
        deltas: &mut HashMap<String, Delta>,
        initial: BTreeMap<String, Delta>,
        known: Option<&BTreeMap<String, String>>,
    ) -> Result<Stepped> {
        let stepped = self.step_each(at, deltas, initial, known).await;
        // Not before: how others take the change depends on who shares rows with them, and recovery does not run what has failed.
        self.part_failed(at.0);
        self.arrangements.end_epoch();
        stepped
    }

    /// Queries that do not run any more since this epoch share nothing. Those that were left out keep their state of before.
    fn part_failed(&mut self, epoch: Epoch) {
        for query in &mut self.queries {
            let Some(failure) = query.failed.as_mut().filter(|failure| failure.after.next() == epoch) else { continue };
            if failure.intact {
                failure.intact = query.dataflow.part().unwrap_or_else(|error| {
                    tracing::warn!(query = query.def.name, epoch = epoch.0, %error, "state of a query that was left out is lost");
                    false
                });
            }
            if !failure.intact {
                query.dataflow.let_go();
            }
        }
    }

    async fn step_each(
        &mut self,
        (epoch, clock): (Epoch, EventTime),
        deltas: &mut HashMap<String, Delta>,
        mut initial: BTreeMap<String, Delta>,
        known: Option<&BTreeMap<String, String>>,
    ) -> Result<Stepped> {
        let watermarks = self.watermarks();
        let policy = self.settings.on_query_failure()?;
        let ended = !self.streams.is_empty() && self.streams.values().all(|stream| stream.watermark.1);
        let mut stepped = Stepped::default();
        let filled_back: BTreeSet<String> = initial.keys().cloned().collect();
        // By query that was filled back: what it has changed by beyond that.
        let mut since: HashMap<String, Delta> = HashMap::new();
        let mut failed: BTreeSet<String> =
            self.queries.iter().filter(|query| query.failed.is_some()).map(|query| query.def.name.clone()).collect();
        let before = || self.streams.iter().map(|(name, stream)| (name.clone(), stream.watermark_before)).collect();
        let failure = |message: String, intact: bool| QueryFailure {
            message,
            after: Epoch(epoch.0.saturating_sub(1)),
            clock: self.clock,
            watermarks: before(),
            intact,
        };
        for query in &mut self.queries {
            if query.failed.is_some() {
                continue;
            }
            let name = query.def.name.clone();
            let cause = query.reads.iter().find(|name| failed.contains(*name));
            let cause = cause.map(|cause| format!("it reads \"{cause}\", which has failed"));
            if let Some(message) = cause.or_else(|| known.and_then(|known| known.get(&name).cloned())) {
                // What a new query was filled back with never reached its result.
                query.failed = Some(failure(message, !initial.contains_key(&name)));
                failed.insert(name);
                continue;
            }
            let result = match initial.remove(&name) {
                Some(changes) => {
                    query.held.emitted = Some(clock);
                    // It was filled back with what there was before this epoch, in which a view may have followed the clock.
                    let later = |name: &String| if filled_back.contains(name) { since.get(name) } else { deltas.get(name) };
                    let later =
                        query.reads.iter().filter_map(|name| Some((name.clone(), later(name).filter(|delta| has_rows(delta))?.clone())));
                    let later: HashMap<String, Delta> = later.collect();
                    match later.is_empty() {
                        true => Ok(changes),
                        false => query.step(&epoch_input(epoch, clock, later, &watermarks)).await.and_then(|more| {
                            since.insert(name.clone(), more.clone());
                            query.shaped(changes.into_iter().chain(more).collect())
                        }),
                    }
                }
                None => {
                    let own = query.reads.iter().filter_map(|name| deltas.get(name).map(|delta| (name.clone(), delta.clone()))).collect();
                    let input = epoch_input(epoch, clock, own, &watermarks);
                    let span = tracing::debug_span!("query", query_id = %name);
                    let changes = query.step(&input).instrument(span).await;
                    changes.and_then(|changes| query.release(changes, clock, ended))
                }
            };
            let result = result.and_then(|changes| query.apply(&changes).map(|()| changes));
            match result {
                Ok(changes) => {
                    if matches!(query.target, Target::View(_)) {
                        query.history.push(epoch, clock, &changes);
                        deltas.insert(name.clone(), changes.clone());
                    }
                    stepped.outputs.insert(name, changes);
                }
                Err(error) if policy == OnQueryFailure::Isolate && known.is_none() => {
                    tracing::error!(query = name, epoch = epoch.0, %error, "query failed");
                    self.shared.progress.query_failed(&name, epoch, &error.to_string());
                    query.failed = Some(failure(error.to_string(), false));
                    stepped.failed.insert(name.clone(), error.to_string());
                    failed.insert(name);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(stepped)
    }

    async fn stage_sinks(&mut self, epoch: SinkEpoch, outputs: &BTreeMap<String, Delta>) -> Result<BTreeMap<String, SinkCommit>> {
        let mut commits = BTreeMap::new();
        for query in &mut self.queries {
            let Target::Sink { sink, .. } = &query.target else { continue };
            let sink = sink.clone();
            let Some(changes) = outputs.get(&query.def.name) else { continue };
            let Some(state) = self.sinks.get_mut(&sink) else { continue };
            let changes = query.sink_changes(changes.clone(), state.def.mode)?;
            state.stage(epoch, changes).await?;
        }
        for (name, sink) in &mut self.sinks {
            if let Some(commit) = sink.prepare(epoch).await? {
                commits.insert(name.clone(), commit);
            }
        }
        Ok(commits)
    }

    /// Appends the record to the log; it is durable after the next sync.
    fn append(&mut self, record: &CommitRecord, attachments: Vec<(String, Vec<RecordBatch>)>) -> Result<()> {
        failpoint::hit("commit.before_append")?;
        let Some(durability) = &mut self.durability else { return Ok(()) };
        let header = serde_json::to_vec(record).map_err(|error| EngineError::Internal(error.to_string()))?;
        let payload = FramePayload { header, attachments }.encode(Compression::None)?;
        durability.log.append(COMMIT_FRAME, record.epoch, &[&payload])?;
        failpoint::hit("commit.after_append")?;
        Ok(())
    }

    async fn publish_sinks(&mut self, commits: &BTreeMap<String, SinkCommit>) -> Result<()> {
        for (index, (name, commit)) in commits.iter().enumerate() {
            if let Some(sink) = self.sinks.get_mut(name) {
                sink.publish(commit).await?;
            }
            if index == 0 {
                failpoint::hit("publish.after_first")?;
            }
        }
        Ok(())
    }

    /// Keeps what later reads of the streams need, and the totals.
    pub(super) fn remember(&mut self, record: &CommitRecord, streams: &BTreeMap<String, StreamEpoch>, deltas: &HashMap<String, Delta>) {
        for (name, stream) in streams {
            let Some(runtime) = self.streams.get_mut(name) else { continue };
            let totals = &mut runtime.totals;
            totals.rows_in += stream.commit.rows_in;
            totals.rows_used += stream.commit.rows_used;
            totals.rows_bad += stream.commit.rows_bad;
            totals.rows_late += stream.commit.rows_late;
            totals.bytes += stream.accepted.bytes;
            if stream.replayable {
                // A derived stream has no ranges of its own: its rows come from those of its base.
                if !stream.commit.ranges.is_empty() || runtime.derived.is_some() && stream.commit.rows_in > 0 {
                    let columns = runtime.judged_by(stream.commit.columns.as_ref());
                    runtime.history.push(Arc::new(HistoryEntry {
                        epoch: record.epoch,
                        clock: record.clock,
                        watermark_start: stream.commit.watermark_start,
                        ranges: stream.commit.ranges.clone(),
                        columns,
                    }));
                }
            } else {
                let of = |name: &str| deltas.get(name).cloned().unwrap_or_default();
                let (rows, versions) = (of(name), of(&versions_of(name)));
                runtime.retain(Retained { epoch: record.epoch, clock: record.clock, rows, versions });
            }
        }
    }

    async fn deliver(&mut self, epoch: SinkEpoch, outputs: &BTreeMap<String, Delta>) -> Result<()> {
        for query in &mut self.queries {
            let Target::Sink { sink, .. } = &query.target else { continue };
            let sink = sink.clone();
            let Some(changes) = outputs.get(&query.def.name) else { continue };
            let Some(state) = self.sinks.get_mut(&sink) else { continue };
            if state.is_delivered() {
                let changes = query.sink_changes(changes.clone(), state.def.mode)?;
                state.deliver(epoch, &changes).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn acknowledge(&mut self, streams: &BTreeMap<String, StreamEpoch>) -> Result<()> {
        failpoint::hit("source.acknowledge")?;
        // While an epoch is read ahead the sources are away; they are acknowledged with the next epoch that finds them here.
        for (name, stream) in streams {
            if !stream.commit.ranges.is_empty() {
                self.unacknowledged.push((name.clone(), stream.commit.ranges.clone()));
            }
        }
        let Some(sources) = &mut self.sources else { return Ok(()) };
        for (name, ranges) in std::mem::take(&mut self.unacknowledged) {
            if let Some(source) = sources.streams.get_mut(&name).and_then(|stream| stream.source.as_mut()) {
                source.acknowledge(&ranges).await.map_err(|error| EngineError::connector(format!("stream \"{name}\""), error))?;
            }
        }
        Ok(())
    }

    pub(super) fn report(&mut self, record: &CommitRecord, assembled: &Assembled, (phases, total): (PhaseTimes, Duration)) {
        let backpressure = self.settings.backpressure().unwrap_or(false);
        let sources = record
            .streams
            .iter()
            .map(|(name, commit)| SourceProgress {
                stream: name.clone(),
                rows_in: commit.rows_in,
                rows_used: commit.rows_used,
                rows_bad: commit.rows_bad,
                rows_late: commit.rows_late,
                bytes: assembled.streams.get(name).map_or(0, |stream| stream.accepted.bytes),
                watermark: commit.watermark_end.current,
                ended: commit.watermark_end.closed,
                rate_limit: self.streams.get(name).and_then(|stream| stream.rate_limit(backpressure)),
            })
            .collect();
        let sinks = self
            .sinks
            .iter()
            .map(|(name, sink)| SinkProgress {
                sink: name.clone(),
                rows: record.sinks.get(name).map_or(0, |commit| commit.rows),
                files: record.sinks.get(name).map_or(0, |commit| commit.files.len() as u64),
                buffered_rows: sink.status().buffered_rows,
            })
            .collect();
        let progress = EpochProgress { epoch: record.epoch, clock: record.clock, phases, total, sources, sinks, checkpoint: None };
        self.shared.progress.epoch(progress);
    }

    /// Figures of every operator, for the system table and the report.
    pub(super) fn operator_rows(&self) -> Vec<crate::progress::OperatorProgress> {
        let mut rows = Vec::new();
        for query in &self.queries {
            for stats in query.dataflow.operator_stats() {
                rows.push(crate::progress::OperatorProgress {
                    query: query.def.name.clone(),
                    node: stats.node.0 as u64,
                    operator: stats.name.to_string(),
                    strategy: match stats.strategy {
                        Strategy::Delta => "T1 delta",
                        Strategy::TouchedKeys => "T2 touched keys",
                        Strategy::Recompute => "T3 recompute",
                    }
                    .to_string(),
                    rows_in: stats.rows_in,
                    rows_out: stats.rows_out,
                    state_rows: stats.state_rows as u64,
                    state_bytes: stats.state_bytes as u64,
                    dropped_rows: stats.dropped_rows,
                    shared_with: stats.shared_with as u64,
                    shards: stats.shards as u64,
                });
            }
        }
        rows
    }
}

impl super::StreamRuntime {
    /// The columns an epoch was judged by, shared with the epoch before, which mostly has the same.
    fn judged_by(&self, columns: Option<&BTreeSet<String>>) -> Option<Arc<BTreeSet<String>>> {
        let before = self.history.last().and_then(|entry| entry.columns.as_ref());
        columns.map(|columns| match before {
            Some(before) if before.as_ref() == columns => Arc::clone(before),
            _ => Arc::new(columns.clone()),
        })
    }
}

/// A delta as batches with a weight column at the end, for attachments and segments.
pub(super) fn weighted_batches(changes: &[DeltaBatch]) -> Result<Vec<RecordBatch>> {
    use arrow::datatypes::{DataType, Field, Schema};
    changes
        .iter()
        .map(|part| {
            let mut fields: Vec<Field> = part.batch.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
            fields.push(Field::new(WEIGHT_COLUMN, DataType::Int64, false));
            let mut columns = part.batch.columns().to_vec();
            columns.push(Arc::new(part.weights.to_array(part.num_rows())));
            Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
        })
        .collect()
}

/// The reverse of [`weighted_batches`].
pub(super) fn unweighted(batches: Vec<RecordBatch>) -> Result<Delta> {
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;
    batches
        .into_iter()
        .map(|mut batch| {
            let last = batch.num_columns().checked_sub(1).filter(|&last| batch.schema().field(last).name() == WEIGHT_COLUMN);
            let last = last.ok_or_else(|| EngineError::Corrupt("logged rows have no weights".into()))?;
            let weights = batch.remove_column(last);
            let weights = weights.as_primitive::<Int64Type>().clone();
            if weights.values().iter().all(|&weight| weight == 1) {
                return Ok(DeltaBatch { batch, weights: Weights::Ones });
            }
            Ok(DeltaBatch::weighted(batch, weights))
        })
        .collect()
}

/// Whether a change has any row at all.
pub(super) fn has_rows(changes: &Delta) -> bool {
    delta::num_rows(changes) > 0
}
