//! The sources of a pipeline and the first half of an epoch: cut ranges, read, judge rows at the edge, move watermarks.
//!
//! All of it is owned by one value that travels into a task, so that the next epoch is assembled while the dataflow of the
//! current one runs.

use super::derived::Derivation;
use super::pressure::Pressure;
use super::record::StreamCommit;
use crate::catalog::object::StreamDef;
use crate::edge::{Accepted, ChangelogState, Edge, EdgeEpoch, WatermarkState};
use crate::error::{EngineError, Result};
use crate::stopwatch::Stopwatch;
use futures::StreamExt;
use millstream_connectors::source::{EpochLimits, ReadRequest, Reader, Source};
use millstream_connectors::sources::rate::effective_rate;
use millstream_types::{Delta, Epoch, EventTime, PartitionRange};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Rows per batch that sources decode.
const READ_BATCH_ROWS: usize = 65_536;

/// One stream's source and edge.
#[derive(Debug)]
pub struct SourceState {
    /// The definition.
    pub def: Arc<StreamDef>,
    /// The edge.
    pub edge: Edge,
    /// The connector; `None` for a derived stream.
    pub source: Option<Box<dyn Source>>,
    /// Reads ranges; `None` for a derived stream.
    pub reader: Option<Arc<dyn Reader>>,
    /// A derived stream's query over its base.
    pub derived: Option<Derivation>,
    /// Ranges can be read again after a restart.
    pub replayable: bool,
    /// The rates of a push source.
    pub pressure: Option<Pressure>,
    /// Rate limit: rows that may still be read, and when that was computed.
    pub budget: Option<(f64, EventTime)>,
    /// The position after the ranges of each assembled epoch, where it was asked for.
    pub ended: bool,
}

/// All sources.
#[derive(Debug, Default)]
pub struct Sources {
    /// By stream name. Derived streams come after their bases, because names are resolved at CREATE; `order` keeps that.
    pub streams: BTreeMap<String, SourceState>,
    /// Names in creation order.
    pub order: Vec<String>,
}

/// State of one source and its edge, for a checkpoint.
#[derive(Debug, Clone)]
pub struct EdgeState {
    /// What the source needs to go on.
    pub position: serde_json::Value,
    /// Watermark and partitions.
    pub watermark: WatermarkState,
    /// What a keyed or bag stream keeps.
    pub changelog: Option<ChangelogState>,
}

/// What an epoch is assembled under.
#[derive(Debug, Clone, Copy)]
pub struct AssembleRequest {
    /// Its number, if there is something to do.
    pub epoch: Epoch,
    /// The reading of the clock.
    pub clock: EventTime,
    /// `available` or `once`.
    pub draining: bool,
    /// `once`: no bound on the size.
    pub unbounded: bool,
    /// Take the state of sources along for a checkpoint after this epoch.
    pub states: bool,
    /// Replay in the order of event time: how much of it an epoch takes of every stream.
    pub slice: Option<Duration>,
    /// The end of the epoch's slice, once it is known.
    pub until: Option<EventTime>,
    /// Distance between epochs when nothing waits.
    pub interval: Duration,
    /// Push sources are slowed down to the rate at which rows are processed, unless their own options say otherwise.
    pub backpressure: bool,
}

/// What an epoch brought of one stream.
#[derive(Debug)]
pub struct StreamEpoch {
    /// For the commit record.
    pub commit: StreamCommit,
    /// The accepted rows and the refused ones.
    pub accepted: Accepted,
    /// The stream can be read again from its source.
    pub replayable: bool,
}

/// The first half of an epoch.
#[derive(Debug, Default)]
pub struct Assembled {
    /// Its number.
    pub epoch: Epoch,
    /// The reading of the clock.
    pub clock: Option<EventTime>,
    /// What streams brought; streams without rows and without a moved watermark are not listed.
    pub streams: BTreeMap<String, StreamEpoch>,
    /// State of the sources after this epoch for a checkpoint, where asked for.
    pub states: Option<BTreeMap<String, EdgeState>>,
    /// More waits at some source.
    pub more: bool,
    /// What waits is decoded already, and its rows need little judging: not worth a thread.
    pub at_hand: bool,
    /// All streams have ended.
    pub all_ended: bool,
    /// Time spent cutting ranges.
    pub plan_time: Duration,
    /// Time spent reading, decoding and judging.
    pub read_time: Duration,
    /// When a source wants to be asked again.
    pub next_due: Option<EventTime>,
}

impl Assembled {
    /// Whether there is anything to process.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }
}

impl Sources {
    /// Fixes how far `available` and `once` go.
    ///
    /// # Errors
    /// When a source cannot be listed.
    pub async fn mark_end(&mut self) -> Result<()> {
        for (name, stream) in &mut self.streams {
            if let Some(source) = &mut stream.source {
                source.mark_end().await.map_err(|error| EngineError::connector(format!("stream \"{name}\""), error))?;
            }
        }
        Ok(())
    }

    /// State of all sources, exact while no assembled epoch is waiting.
    pub fn states(&self) -> BTreeMap<String, EdgeState> {
        let state = |stream: &SourceState| EdgeState {
            position: stream.source.as_ref().map_or(serde_json::Value::Null, |source| source.position()),
            watermark: stream.edge.watermark.clone(),
            changelog: stream.edge.changelog_state(),
        };
        self.streams.iter().map(|(name, stream)| (name.clone(), state(stream))).collect()
    }

    /// Cuts the next epoch of every stream, reads it and judges its rows. A stream that no query reads is drained like the
    /// others, so that its rows are counted and its source never waits; of its rows only the event time is decoded.
    ///
    /// # Errors
    /// When a source fails or a row does not fit a stream whose policy is `fail`.
    pub async fn assemble(&mut self, mut request: AssembleRequest) -> Result<Assembled> {
        let mut watch = Stopwatch::start();
        if let Some(slice) = request.slice {
            request.until = self.next_event_time().await?.map(|next| slice_end(next, slice));
            // The slice has passed when its end is reached.
            request.clock = request.until.map_or(request.clock, |until| request.clock.max(until));
        }
        let mut assembled =
            Assembled { epoch: request.epoch, clock: Some(request.clock), all_ended: true, at_hand: true, ..Assembled::default() };
        let mut planned: BTreeMap<String, (Vec<PartitionRange>, Option<EventTime>, bool)> = BTreeMap::new();
        let mut any_source = false;
        for (name, stream) in &mut self.streams {
            let limits = stream.limits(&request);
            let Some(source) = &mut stream.source else { continue };
            any_source = true;
            let fail = |error| EngineError::connector(format!("stream \"{name}\""), error);
            let ranges = if limits.max_rows == Some(0) { None } else { source.plan(&limits).await.map_err(fail)? };
            let backlog = source.backlog().await.map_err(fail)?;
            let waits = backlog.rows.is_some_and(|rows| rows > 0) || backlog.files.is_some_and(|files| files > 0);
            assembled.more |= waits;
            assembled.at_hand &= !waits || backlog.decoded && stream.edge.is_plain();
            let due = backlog.next_due.filter(|due| *due != EventTime::MAX);
            assembled.next_due = match (assembled.next_due, due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let ends_now = backlog.ended && !stream.ended;
            stream.ended |= backlog.ended;
            assembled.all_ended &= stream.ended;
            if ranges.is_some() || ends_now {
                planned.insert(name.clone(), (ranges.unwrap_or_default(), backlog.min_unread_event_time, ends_now));
            } else if stream.idle_watermark_moves(request.clock) {
                planned.insert(name.clone(), (Vec::new(), backlog.min_unread_event_time, false));
            }
        }
        assembled.all_ended &= any_source;
        assembled.at_hand &= self.streams.values().all(|stream| stream.derived.is_none());
        assembled.plan_time = watch.lap();
        let mut reading = Vec::new();
        for (name, stream) in &mut self.streams {
            if let Some((ranges, ceiling, ends)) = planned.remove(name) {
                reading.push(async move { stream.take(ranges, ceiling, ends, request).await.map(|epoch| (name.clone(), epoch)) });
            }
        }
        let results = futures::future::join_all(reading).await;
        for result in results {
            let (name, epoch) = result?;
            assembled.streams.insert(name, epoch);
        }
        self.derive(&mut assembled, request).await?;
        if request.states {
            assembled.states = Some(self.states());
        }
        assembled.read_time = watch.lap();
        Ok(assembled)
    }

    /// The smallest event time that any stream has not handed out.
    async fn next_event_time(&mut self) -> Result<Option<EventTime>> {
        let mut next: Option<EventTime> = None;
        for (name, stream) in &mut self.streams {
            let Some(source) = &mut stream.source else { continue };
            let backlog = source.backlog().await.map_err(|error| EngineError::connector(format!("stream \"{name}\""), error))?;
            next = match (next, backlog.next_event_time) {
                (Some(known), Some(other)) => Some(known.min(other)),
                (known, other) => known.or(other),
            };
        }
        Ok(next)
    }

    /// Runs derived streams over what their bases brought.
    async fn derive(&mut self, assembled: &mut Assembled, request: AssembleRequest) -> Result<()> {
        for name in self.order.clone() {
            let Some(stream) = self.streams.get_mut(&name).filter(|stream| stream.derived.is_some()) else { continue };
            let Some(derived) = &stream.def.derived else { continue };
            let Some(base) = assembled.streams.get(&derived.base) else { continue };
            let ends = base.commit.watermark_end.closed && !stream.ended;
            stream.ended |= ends;
            let epoch = EdgeEpoch { epoch: request.epoch, clock: request.clock, watermark_start: stream.edge.watermark.current };
            let epoch = stream.derive(&base.accepted.delta, ends, epoch).await?;
            assembled.streams.insert(name, epoch);
        }
        Ok(())
    }

    /// The accepted rows of a logged epoch, for recovery and back-fill: same ranges, clock and watermark.
    ///
    /// # Errors
    /// When the source no longer has them.
    pub async fn replay(&mut self, name: &str, epoch: EdgeEpoch, ranges: &[PartitionRange]) -> Result<Accepted> {
        let Some(stream) = self.streams.get_mut(name) else {
            return Err(EngineError::Corrupt(format!("the log names the stream \"{name}\", which does not exist")));
        };
        let reader = stream.reader.clone().ok_or_else(|| EngineError::Internal(format!("stream \"{name}\" has no reader")))?;
        read_accepted(&mut stream.edge, &reader, ranges, epoch).await
    }
}

impl SourceState {
    fn limits(&mut self, request: &AssembleRequest) -> EpochLimits {
        let options = &self.def.options;
        let mut max_rows = options.max_rows_per_epoch;
        let slowed = options.backpressure.unwrap_or(request.backpressure);
        let estimated = self.pressure.as_ref().filter(|_| slowed).and_then(Pressure::rate);
        if let Some(rate) = effective_rate(options.max_rows_per_second.map(|rate| rate as f64), estimated) {
            // What was not taken in time is made up for, within a second or an epoch's interval.
            let most = rate * request.interval.as_secs_f64().max(1.0);
            let (budget, since) = self.budget.unwrap_or((rate / 10.0, request.clock));
            let elapsed = (request.clock.0 - since.0).max(0) as f64 / 1e6;
            let budget = (budget + rate * elapsed).min(most);
            self.budget = Some((budget, request.clock));
            max_rows = Some(max_rows.unwrap_or(u64::MAX).min(budget as u64));
        }
        EpochLimits {
            max_rows: if request.unbounded { None } else { max_rows },
            max_bytes: if request.unbounded { u64::MAX } else { options.max_bytes_per_epoch },
            max_files: if request.unbounded { u64::MAX } else { options.max_files_per_epoch },
            clock: request.clock,
            draining: request.draining,
            until: request.until,
        }
    }

    fn idle_watermark_moves(&self, clock: EventTime) -> bool {
        let (Some((_, delay)), Some(timeout)) = (&self.def.watermark, self.def.options.idle_timeout) else { return false };
        let mut state = self.edge.watermark.clone();
        state.advance(*delay, clock, Some(timeout), None) > self.edge.watermark.current
    }

    async fn take(
        &mut self,
        ranges: Vec<PartitionRange>,
        ceiling: Option<EventTime>,
        ends: bool,
        request: AssembleRequest,
    ) -> Result<StreamEpoch> {
        let epoch = EdgeEpoch { epoch: request.epoch, clock: request.clock, watermark_start: self.edge.watermark.current };
        let accepted = match &self.reader {
            Some(reader) => read_accepted(&mut self.edge, &Arc::clone(reader), &ranges, epoch).await?,
            None => Accepted::default(),
        };
        if let Some((budget, _)) = &mut self.budget {
            *budget -= accepted.rows_in as f64;
        }
        self.close_epoch(ranges, accepted, epoch, ceiling, ends)
    }

    /// What an epoch of its base brings of a derived stream.
    ///
    /// # Errors
    /// When its expressions fail, or too many rows are bad.
    pub async fn derive(&mut self, base: &Delta, ends: bool, epoch: EdgeEpoch) -> Result<StreamEpoch> {
        let accepted = self.derive_accepted(base, epoch).await?;
        self.close_epoch(Vec::new(), accepted, epoch, None, ends)
    }

    /// What a derived stream accepts of its base's rows.
    ///
    /// # Errors
    /// When its expressions fail.
    pub async fn derive_accepted(&mut self, base: &Delta, epoch: EdgeEpoch) -> Result<Accepted> {
        match &mut self.derived {
            Some(derived) => derived.derive(&mut self.edge, base, epoch).await,
            None => Ok(Accepted::default()),
        }
    }

    fn close_epoch(
        &mut self,
        ranges: Vec<PartitionRange>,
        accepted: Accepted,
        epoch: EdgeEpoch,
        ceiling: Option<EventTime>,
        ends: bool,
    ) -> Result<StreamEpoch> {
        self.check_bad_rows(&accepted)?;
        if ends {
            self.edge.watermark.closed = true;
        }
        if let Some((_, delay)) = &self.def.watermark {
            self.edge.watermark.advance(*delay, epoch.clock, self.def.options.idle_timeout, ceiling);
        } else if ends {
            self.edge.watermark.current = EventTime::MAX;
        }
        let commit = StreamCommit {
            ranges,
            rows_in: accepted.rows_in,
            rows_used: accepted.rows_used,
            rows_bad: accepted.rows_bad,
            rows_late: accepted.rows_late,
            watermark_start: epoch.watermark_start,
            watermark_end: self.edge.watermark.clone(),
            columns: self.edge.judged().cloned(),
            logged: !self.replayable && self.derived.is_none() && !(accepted.delta.is_empty() && accepted.versions.is_empty()),
        };
        Ok(StreamEpoch { commit, accepted, replayable: self.replayable })
    }

    fn check_bad_rows(&self, accepted: &Accepted) -> Result<()> {
        let limit = self.def.options.max_bad_rows.unwrap_or((accepted.rows_in / 100).max(100));
        if accepted.rows_bad <= limit {
            return Ok(());
        }
        Err(EngineError::BadRows {
            message: format!(
                "stream \"{}\": {} of {} rows of one epoch are bad, more than the {limit} allowed; {}",
                self.def.name,
                accepted.rows_bad,
                accepted.rows_in,
                accepted.bad_examples.join("; ")
            ),
            hint: "Mend the input, or raise max_bad_rows of the stream if so many bad rows are expected.".into(),
        })
    }
}

/// The end of the slice that an event time lies in; slices begin at multiples of their length since 1970.
fn slice_end(time: EventTime, slice: Duration) -> EventTime {
    let length = i64::try_from(slice.as_micros()).unwrap_or(i64::MAX).max(1);
    EventTime(time.0.div_euclid(length).saturating_add(1).saturating_mul(length))
}

/// Reads ranges through an edge.
///
/// # Errors
/// When the source fails or a row does not fit a stream whose policy is `fail`.
pub async fn read_accepted(edge: &mut Edge, reader: &Arc<dyn Reader>, ranges: &[PartitionRange], epoch: EdgeEpoch) -> Result<Accepted> {
    let mut accepted = Accepted::default();
    let stream = edge.def().name.clone();
    let fail = |error| EngineError::connector(format!("stream \"{stream}\""), error);
    for range in ranges {
        let request = ReadRequest { projection: edge.projection(), batch_size: READ_BATCH_ROWS, event_times: edge.expected_times(epoch) };
        let mut batches = reader.read(range.clone(), request).await.map_err(fail)?;
        while let Some(batch) = batches.next().await {
            edge.accept(&range.partition, batch.map_err(fail)?, epoch, &mut accepted)?;
        }
    }
    Ok(accepted)
}
