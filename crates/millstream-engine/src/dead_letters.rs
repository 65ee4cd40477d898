//! Dead letters: the rows that streams have refused, kept for `millstream.dead_letters`.
//!
//! ```text
//!   refused rows of an epoch ─► its commit record ─► tail, in memory ─► segments `deadletter/<hash>.arrow`, at each checkpoint
//!                               (durable here)                          (named by the checkpoint)
//! ```
//! With a state directory a refused row is durable with the epoch that refused it, exactly once: it travels in the commit record, and
//! a checkpoint names the segments that hold what the log before it held. Recovery takes the segments of the checkpoint and
//! the rows of the records after it; a segment that no checkpoint names is removed by the next one. Small segments are merged,
//! so that their number follows the bytes and not the time.
//!
//! **Bounds**: `dead_letter_limit` bytes on disk, [`IN_MEMORY_ROWS`] rows without a state directory. The oldest go first and are counted,
//! by stream. **Schema** of what is kept: see [`schema`].

use crate::edge::DeadLetter;
use crate::error::{EngineError, Result};
use crate::pipeline::sources::StreamEpoch;
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use futures::stream::{self, StreamExt};
use millstream_state::{BlobRef, BlobStore};
use millstream_types::Epoch;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

/// Rows that are kept without a state directory.
pub const IN_MEMORY_ROWS: usize = 10_000;
/// Name of the rows in a commit record.
pub(crate) const ATTACHMENT: &str = "dead_letters";
/// The tail becomes a segment when it is as large as this, whether or not a checkpoint is due.
const TAIL_BYTES: u64 = 16 << 20;
/// A last segment below this size is merged with what comes.
const SMALL_SEGMENT_BYTES: u64 = 1 << 20;
/// The limit is reached with so many segments at least, since whole segments are dropped.
const SEGMENTS_MIN: u64 = 8;

/// Columns of dead letters: `stream`, `kind`, `place`, `reason`, `raw`: Utf8; `epoch`: Int64.
pub fn schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let epoch = Field::new("epoch", DataType::Int64, false);
    Arc::new(Schema::new(vec![text("stream"), epoch, text("kind"), text("place"), text("reason"), text("raw")]))
}

/// Takes the refused rows of an epoch; one batch per stream that has any.
///
/// # Errors
/// Never for rows of 2 GiB in all.
pub(crate) fn take(epoch: Epoch, streams: &mut BTreeMap<String, StreamEpoch>) -> Result<Vec<RecordBatch>> {
    let taken = streams.iter_mut().map(|(name, stream)| (name, std::mem::take(&mut stream.accepted.dead_letters)));
    taken.filter(|(_, letters)| !letters.is_empty()).map(|(name, letters)| batch(name, epoch, &letters)).collect()
}

fn batch(stream: &str, epoch: Epoch, letters: &[DeadLetter]) -> Result<RecordBatch> {
    let text = |get: fn(&DeadLetter) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(get))) };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(letters.iter().map(|_| stream))),
        Arc::new(Int64Array::from_value(i64::try_from(epoch.0).unwrap_or(i64::MAX), letters.len())),
        text(|letter| &letter.kind),
        text(|letter| &letter.row.place),
        text(|letter| &letter.row.reason),
        text(|letter| &letter.row.raw),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// Rows in the state directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    blob: BlobRef,
    /// Rows by stream.
    rows: BTreeMap<String, u64>,
}

/// What a checkpoint keeps: the rows themselves are in the segments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLettersCheckpoint {
    /// Oldest first.
    segments: Vec<Segment>,
    /// Rows that went because of the limit, by stream.
    dropped: BTreeMap<String, u64>,
}

/// The dead letters of a pipeline.
#[derive(Debug, Default)]
pub struct DeadLetters {
    /// `None`: in memory.
    store: Option<BlobStore>,
    segments: VecDeque<Segment>,
    /// Rows that are in no segment, oldest first.
    tail: VecDeque<RecordBatch>,
    dropped: BTreeMap<String, u64>,
    /// What the newest checkpoint names; the one before may still be needed when this one is damaged.
    named: HashSet<String>,
}

impl DeadLetters {
    /// In a state directory, or in memory.
    pub fn new(store: Option<BlobStore>) -> Self {
        Self { store, ..Self::default() }
    }

    /// Adds the refused rows of a committed epoch.
    pub fn push(&mut self, batches: impl IntoIterator<Item = RecordBatch>) {
        self.tail.extend(batches);
        if self.store.is_some() {
            return;
        }
        let mut surplus = self.tail.iter().map(RecordBatch::num_rows).sum::<usize>().saturating_sub(IN_MEMORY_ROWS);
        while let Some(oldest) = self.tail.front_mut().filter(|_| surplus > 0) {
            let gone = surplus.min(oldest.num_rows());
            count(&mut self.dropped, &oldest.slice(0, gone));
            surplus -= gone;
            if gone == oldest.num_rows() {
                self.tail.pop_front();
            } else {
                *oldest = oldest.slice(gone, oldest.num_rows() - gone);
            }
        }
    }

    /// The tail has grown so large that it should not wait for a checkpoint.
    pub fn is_full(&self, limit: u64) -> bool {
        let bytes = self.tail.iter().map(RecordBatch::get_array_memory_size).sum::<usize>() as u64;
        self.store.is_some() && bytes > TAIL_BYTES.min(limit / SEGMENTS_MIN)
    }

    /// What [`Unwritten::write`] makes a segment of; `None` when there is nothing, or no state directory to write it to.
    pub fn unwritten(&self, limit: u64) -> Option<Unwritten> {
        let store = self.store.clone().filter(|_| !self.tail.is_empty())?;
        let small = |segment: &&Segment| segment.blob.bytes < SMALL_SEGMENT_BYTES.min(limit / SEGMENTS_MIN);
        let merged = self.segments.back().filter(small).cloned();
        Some(Unwritten { store, merged, tail: self.tail.iter().cloned().collect() })
    }

    /// Takes a segment in the place of the rows it was made of, and drops the oldest segments beyond the limit.
    pub fn install(&mut self, written: Written, limit: u64) {
        if written.merges {
            self.segments.pop_back();
        }
        self.segments.push_back(written.segment);
        self.tail.drain(..written.batches);
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.blob.bytes).sum();
        while bytes > limit {
            let Some(oldest) = self.segments.pop_front() else { break };
            bytes -= oldest.blob.bytes;
            for (stream, rows) in oldest.rows {
                *self.dropped.entry(stream).or_default() += rows;
            }
        }
    }

    /// What a checkpoint keeps; the tail has been flushed before.
    pub fn checkpoint(&self) -> DeadLettersCheckpoint {
        DeadLettersCheckpoint { segments: self.segments.iter().cloned().collect(), dropped: self.dropped.clone() }
    }

    /// A checkpoint is durable: removes segments that neither it nor the one before names.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn checkpointed(&mut self) -> Result<()> {
        let Some(store) = &self.store else { return Ok(()) };
        let now: HashSet<String> = self.segments.iter().map(|segment| segment.blob.hash.clone()).collect();
        if now != self.named {
            let both: HashSet<String> = now.union(&self.named).cloned().collect();
            store.retain(&both)?;
            self.named = now;
        }
        Ok(())
    }

    /// Goes on from a checkpoint. A segment that is gone is counted as dropped.
    pub fn restore(&mut self, checkpoint: DeadLettersCheckpoint) {
        self.dropped = checkpoint.dropped;
        for segment in checkpoint.segments {
            self.named.insert(segment.blob.hash.clone());
            if self.store.as_ref().is_some_and(|store| store.contains(&segment.blob)) {
                self.segments.push_back(segment);
            } else {
                tracing::warn!(segment = segment.blob.hash, rows = segment.blob.rows, "a segment of dead letters is gone");
                for (stream, rows) in segment.rows {
                    *self.dropped.entry(stream).or_default() += rows;
                }
            }
        }
    }

    /// Rows of a stream that went because of the limit.
    pub fn dropped(&self, stream: &str) -> u64 {
        self.dropped.get(stream).copied().unwrap_or(0)
    }

    /// The rows as a table: those that are kept now, read while the query runs.
    ///
    /// # Errors
    /// Never; the columns are always the same.
    pub fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let store = self.store.clone();
        let segments = self.segments.iter().map(|segment| segment.blob.clone()).collect();
        let scan = Scan { schema: schema(), store, segments, tail: self.tail.iter().cloned().collect() };
        Ok(Arc::new(StreamingTable::try_new(schema(), vec![Arc::new(scan)])?))
    }
}

/// Rows that are to become a segment. Writing them takes no lock, so that readers of dead letters do not wait for the disk.
#[derive(Debug)]
pub struct Unwritten {
    store: BlobStore,
    merged: Option<Segment>,
    tail: Vec<RecordBatch>,
}

/// A segment that is durable and not yet among the others.
#[derive(Debug)]
pub struct Written {
    segment: Segment,
    /// The last segment is part of it.
    merges: bool,
    /// Batches of the tail that are part of it.
    batches: usize,
}

impl Unwritten {
    /// Writes the segment.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn write(self) -> Result<Written> {
        let mut batches = match &self.merged {
            Some(segment) => self.store.get(&segment.blob)?.1,
            None => Vec::new(),
        };
        batches.extend(self.tail.iter().cloned());
        let whole = arrow::compute::concat_batches(&schema(), &batches)?;
        let mut rows = BTreeMap::new();
        count(&mut rows, &whole);
        let blob = self.store.put(&schema(), &[whole])?;
        Ok(Written { segment: Segment { blob, rows }, merges: self.merged.is_some(), batches: self.tail.len() })
    }
}

/// Adds the rows of a batch to counters by stream.
fn count(counters: &mut BTreeMap<String, u64>, batch: &RecordBatch) {
    let streams = batch.column(0).as_string::<i32>();
    for row in 0..streams.len() {
        let stream = streams.value(row);
        match counters.get_mut(stream) {
            Some(counter) => *counter += 1,
            None => drop(counters.insert(stream.to_string(), 1)),
        }
    }
}

/// Reads segments one after the other, then the tail.
#[derive(Debug)]
struct Scan {
    schema: SchemaRef,
    store: Option<BlobStore>,
    segments: Vec<BlobRef>,
    tail: Vec<RecordBatch>,
}

impl PartitionStream for Scan {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let failed = |error: EngineError| DataFusionError::External(Box::new(error));
        let store = self.store.clone();
        let segments = stream::iter(self.segments.clone()).then(move |blob| {
            let store = store.clone();
            async move {
                let read = tokio::task::spawn_blocking(move || match store {
                    Some(store) => store.get(&blob).map(|(_, batches)| batches),
                    None => Ok(Vec::new()),
                });
                let read = read.await.map_err(|error| EngineError::Internal(format!("reading dead letters failed: {error}")));
                read.and_then(|batches| batches.map_err(EngineError::from))
            }
        });
        let tail = stream::iter([Ok(self.tail.clone())]);
        let batches = segments.chain(tail).flat_map(move |batches| match batches {
            Ok(batches) => stream::iter(batches.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(failed(error))]).boxed(),
        });
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), batches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millstream_connectors::source::BadRow;
    use millstream_state::{InstanceInfo, OpenOptions, StateDir};
    use millstream_types::{EventTime, Offset};

    fn letters(stream: &str, epoch: u64, count: usize) -> RecordBatch {
        let letter = |row| DeadLetter {
            kind: "bad".into(),
            row: BadRow {
                offset: Offset { sequence: epoch, row: row as u64 },
                place: format!("{stream}:{row}"),
                reason: "no number".into(),
                raw: format!("raw {epoch} {row}"),
            },
        };
        batch(stream, Epoch(epoch), &(0..count).map(letter).collect::<Vec<_>>()).unwrap()
    }

    async fn rows(letters: &DeadLetters) -> usize {
        let context = datafusion::prelude::SessionContext::new();
        let batches = context.read_table(letters.provider().unwrap()).unwrap().collect().await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum()
    }

    fn open(path: &std::path::Path) -> StateDir {
        let instance = InstanceInfo { host: "box".into(), pid: 1, started: EventTime(0) };
        StateDir::open(path, OpenOptions { takeover: false, instance }).unwrap()
    }

    fn files(dir: &StateDir) -> usize {
        std::fs::read_dir(dir.path().join("deadletter")).unwrap().count()
    }

    #[tokio::test]
    async fn in_memory_the_oldest_go_first_and_are_counted() {
        let mut kept = DeadLetters::new(None);
        kept.push([letters("a", 1, 6), letters("b", 1, 4)]);
        kept.push([letters("a", 2, IN_MEMORY_ROWS - 3)]);
        assert_eq!((kept.dropped("a"), kept.dropped("b")), (6, 1));
        assert_eq!(rows(&kept).await, IN_MEMORY_ROWS);
    }

    fn flush(letters: &mut DeadLetters, limit: u64) {
        let written = letters.unwritten(limit).unwrap().write().unwrap();
        letters.install(written, limit);
    }

    #[tokio::test]
    async fn segments_are_merged_and_come_back() {
        let directory = tempfile::tempdir().unwrap();
        let dir = open(&directory.path().join("state"));
        let mut kept = DeadLetters::new(Some(dir.dead_letters()));
        for epoch in 1..=5 {
            kept.push([letters("a", epoch, 10)]);
            flush(&mut kept, u64::MAX);
            kept.checkpointed().unwrap();
        }
        assert_eq!(files(&dir), 2, "the one of the newest checkpoint and the one of the checkpoint before");
        let checkpoint = kept.checkpoint();
        kept.push([letters("a", 6, 7)]);
        flush(&mut kept, u64::MAX);
        assert_eq!(rows(&kept).await, 57);

        // A crash before the next checkpoint: its rows come from the log again, the segment it wrote is found by its hash.
        let mut again = DeadLetters::new(Some(dir.dead_letters()));
        again.restore(checkpoint);
        assert_eq!(rows(&again).await, 50);
        again.push([letters("a", 6, 7)]);
        flush(&mut again, u64::MAX);
        again.checkpointed().unwrap();
        assert_eq!((rows(&again).await, files(&dir)), (57, 2));
    }

    #[tokio::test]
    async fn the_limit_drops_the_oldest_segments_and_counts_their_rows() {
        let directory = tempfile::tempdir().unwrap();
        let dir = open(&directory.path().join("state"));
        let mut kept = DeadLetters::new(Some(dir.dead_letters()));
        // A segment has more than 1 KB, so that none is merged.
        for epoch in 1..=20 {
            kept.push([letters("a", epoch, 10), letters("b", epoch, 1)]);
            flush(&mut kept, 8_192);
        }
        let (a, b, left) = (kept.dropped("a"), kept.dropped("b"), rows(&kept).await as u64);
        assert!(left > 0 && b > 0, "{left} rows left, {b} of the other stream dropped");
        assert_eq!((a + b + left, a), (220, 10 * b));
        let again = kept.checkpoint();
        let mut restored = DeadLetters::new(Some(dir.dead_letters()));
        restored.restore(again);
        assert_eq!((restored.dropped("a"), rows(&restored).await as u64), (a, left));
    }
}
