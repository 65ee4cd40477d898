//! `replay --order log`: the epochs of another state directory, exactly as they were.
//!
//! A logged epoch is run with the ranges, the clock and the watermarks of its record; rows that cannot be read again come from
//! the record's own attachments. The definitions come from the pipeline file, which has to be the one that made the log, so that
//! epochs have their numbers again. Sources count the logged ranges as taken.

use super::epoch::{EpochWork, unweighted};
use super::query::Segments;
use super::record::{COMMIT_FRAME, CommitRecord};
use super::sources::{Assembled, StreamEpoch};
use super::{Pipeline, recovery::Recovery};
use crate::dead_letters;
use crate::edge::{Accepted, EdgeEpoch};
use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use millstream_state::LogReader;
use millstream_types::{Delta, Epoch, EventTime, PartitionRange};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// An epoch of a log.
#[derive(Debug)]
pub struct LoggedEpoch {
    pub(super) record: CommitRecord,
    pub(super) attachments: Segments,
}

impl LoggedEpoch {
    /// Its number.
    pub fn epoch(&self) -> Epoch {
        self.record.epoch
    }

    /// The reading of its clock.
    pub fn clock(&self) -> EventTime {
        self.record.clock
    }
}

/// The epochs in the log of a state directory, read without owning it.
#[derive(Debug, Clone)]
pub struct LoggedEpochs {
    directory: PathBuf,
}

impl LoggedEpochs {
    /// The log of a state directory.
    ///
    /// # Errors
    /// When there is none, or it does not begin with the first epoch any more.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        let log = Self { directory: directory.into() };
        let place = log.directory.display().to_string();
        match log.iter()?.next().transpose()? {
            Some(first) if first.epoch() == Epoch(1) => Ok(log),
            Some(first) => Err(EngineError::invalid(
                format!("the log of \"{place}\" begins with epoch {}; what came before was dropped after a checkpoint", first.epoch()),
                "Replay the input itself: --order event-time or --order arrival.",
            )),
            None => Err(EngineError::invalid(format!("the log of \"{place}\" holds no epochs"), "Give --log-of a state directory.")),
        }
    }

    /// The epochs, oldest first.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn iter(&self) -> Result<impl Iterator<Item = Result<LoggedEpoch>> + use<>> {
        let frames = LogReader::open(&self.directory)?;
        Ok(frames.filter_map(|frame| match frame {
            Ok(frame) if frame.kind != COMMIT_FRAME => None,
            Ok(frame) => Some(CommitRecord::of_frame(&frame).map(|(record, attachments)| LoggedEpoch { record, attachments })),
            Err(error) => Some(Err(error.into())),
        }))
    }

    /// The ranges that the log took of each stream.
    pub(crate) fn ranges(&self) -> Result<BTreeMap<String, Vec<PartitionRange>>> {
        let mut ranges: BTreeMap<String, Vec<PartitionRange>> = BTreeMap::new();
        for logged in self.iter()? {
            for (name, stream) in logged?.record.streams {
                ranges.entry(name).or_default().extend(stream.ranges);
            }
        }
        Ok(ranges)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }
}

impl Pipeline {
    /// Sources count these ranges as taken when they are opened.
    pub(crate) fn expect_ranges(&mut self, ranges: BTreeMap<String, Vec<PartitionRange>>) {
        self.recovery = Some(Recovery::of_ranges(ranges));
    }

    /// Runs an epoch of another log. `None`: the pipeline's own statements have made it already.
    pub(super) async fn run_logged(&mut self, logged: LoggedEpoch) -> Result<Option<Epoch>> {
        let LoggedEpoch { record, attachments } = logged;
        if record.epoch <= self.epoch && record.streams.is_empty() {
            return Ok(None);
        }
        if record.epoch != self.epoch.next() {
            return Err(EngineError::invalid(
                format!("epoch {} of the log would be epoch {} here", record.epoch, self.epoch.next()),
                "Replay the log with the pipeline file that made it.",
            ));
        }
        let mut attachments: HashMap<String, Vec<RecordBatch>> = attachments.into_iter().collect();
        self.shared.epoch_clock.set(record.clock);
        let streams = self.read_logged(&record, &mut attachments).await?;
        let dead_letters = attachments.remove(dead_letters::ATTACHMENT).unwrap_or_default();
        let mut tables = BTreeMap::new();
        for name in &record.tables {
            tables.insert(name.clone(), unweighted(attachments.remove(&format!("table/{name}")).unwrap_or_default())?);
        }
        let assembled = Assembled { epoch: record.epoch, clock: Some(record.clock), streams, ..Assembled::default() };
        // Those of streams are in their ranges.
        let inserts = if record.tables.is_empty() { Vec::new() } else { record.inserts };
        let work = EpochWork { assembled: Some(assembled), tables, inserts, dead_letters, ..EpochWork::default() };
        self.run_epoch_with(work).await.map(Some)
    }

    /// What the streams of a logged epoch brought, in creation order; their edges stand where they stood after it.
    pub(super) async fn read_logged(
        &mut self,
        record: &CommitRecord,
        attachments: &mut HashMap<String, Vec<RecordBatch>>,
    ) -> Result<BTreeMap<String, StreamEpoch>> {
        let recovering = self.recovering();
        let mut streams: BTreeMap<String, StreamEpoch> = BTreeMap::new();
        let order = self.sources.as_ref().map_or_else(Vec::new, |sources| sources.order.clone());
        for name in order {
            let Some(commit) = record.streams.get(&name) else { continue };
            let epoch = EdgeEpoch { epoch: record.epoch, clock: record.clock, watermark_start: commit.watermark_start };
            let mut attached = |group: &str| unweighted(attachments.remove(&format!("{group}/{name}")).unwrap_or_default());
            let (rows, versions) = (attached("stream")?, attached("versions")?);
            let Some(sources) = &mut self.sources else { return Err(EngineError::Internal("sources are away".into())) };
            let base = sources.streams.get(&name).and_then(|stream| stream.def.derived.as_ref().map(|derived| derived.base.clone()));
            let mut accepted = if let Some(base) = base {
                let rows: Delta = streams.get(&base).map(|base| base.accepted.delta.clone()).unwrap_or_default();
                match sources.streams.get_mut(&name) {
                    Some(stream) => stream.derive_accepted(&rows, epoch).await?,
                    None => Accepted::default(),
                }
            } else if commit.logged {
                let mut accepted = Accepted::default();
                if let Some(stream) = sources.streams.get_mut(&name) {
                    stream.edge.accept_logged(rows, versions, &mut accepted)?;
                }
                accepted
            } else if sources.streams.get(&name).is_some_and(|stream| !stream.replayable) {
                // Nothing was accepted, so nothing was logged.
                Accepted::default()
            } else {
                // Recovery judges the columns that were judged; queries of another pipeline may read others.
                if let (true, Some(columns), Some(stream)) = (recovering, &commit.columns, sources.streams.get_mut(&name)) {
                    stream.edge.set_needed(Some(columns.clone()));
                }
                sources.replay(&name, epoch, &commit.ranges).await?
            };
            // The record itself has what was refused.
            accepted.dead_letters.clear();
            let Some(stream) = sources.streams.get_mut(&name) else { continue };
            if stream.replayable && accepted.rows_used != commit.rows_used {
                return Err(EngineError::Corrupt(format!(
                    "stream \"{name}\" gave {} rows for epoch {} where the log says {}; its input has changed",
                    accepted.rows_used, record.epoch, commit.rows_used
                )));
            }
            stream.edge.watermark = commit.watermark_end.clone();
            stream.ended = commit.watermark_end.closed;
            let replayable = stream.replayable;
            streams.insert(name, StreamEpoch { commit: commit.clone(), accepted, replayable });
        }
        Ok(streams)
    }
}
