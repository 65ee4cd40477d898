//! The contract of a source.
//!
//! ```text
//!              open(position)                          plan(limits)         read(range)        acknowledge(ranges)
//!   created ───────────────────► open ──── wake ─────► Some(ranges) ──────► batches ... ────► rows may be forgotten
//!                                  ▲                        │ None: nothing to take now              │
//!                                  └────────────────────────┴────────────────────────────────────────┘
//! ```
//!
//! A source has partitions; a partition has an ordered offset space. The epoch loop calls [`Source::plan`] to cut the
//! next epoch's ranges, then [`Reader::read`] for each range, one or more times, and [`Source::acknowledge`] after the commit of the
//! epoch is durable. All calls come from one task, in this order; `read` may run while a later `plan` happens, so what it
//! needs is in the range and in the [`Reader`] handle. A replayable source yields the same rows for a logged range
//! also after a restart; for any other the engine stores the accepted rows itself, and a range is readable until it is
//! acknowledged.
//!
//! Rows that cannot be decoded are handed out as [`BadRow`]s beside the good ones, in the same [`SourceBatch`]:
//! rows read = rows of the batch + bad rows. Nothing is dropped, rounded or clamped silently. A source never panics
//! on input, bounds every allocation by its limits and stops reading from a push peer when its buffer is full.

use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::stream::BoxStream;
use millstream_types::{Clock, EventTime, Offset, OffsetRange, Options, PartitionRange};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// What a connector is given to build a source.
#[derive(Debug)]
pub struct SourceContext {
    /// Name of the stream, for messages.
    pub stream: String,
    /// The columns to decode, in order and with their exact types: the declared physical columns (and the op column of a
    /// changelog stream). Computed, metadata and ingest columns are not among them. Strings are `Utf8View`, timestamps microseconds.
    pub schema: SchemaRef,
    /// Metadata columns to add after the decoded ones: (key such as `path`, column name). Types from
    /// [`SourceKind::metadata`](crate::registry::SourceKind).
    pub metadata: Vec<(String, String)>,
    /// Name of the event-time column, where one of `schema` is declared so.
    pub event_time: Option<String>,
    /// The `WITH` options; the source takes what it knows and the registry refuses the rest.
    pub options: Options,
    /// The epoch clock.
    pub clock: Arc<dyn Clock>,
}

/// Fixed facts about an opened source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceProperties {
    /// A logged range yields the same rows again after a restart.
    pub replayable: bool,
    /// The input ends: after its last row the stream is closed.
    pub bounded: bool,
}

/// How much one epoch may take from a source.
#[derive(Debug, Clone, Copy)]
pub struct EpochLimits {
    /// Rows at most; estimated where rows cannot be counted before reading.
    pub max_rows: Option<u64>,
    /// Bytes of input at most (encoded size).
    pub max_bytes: u64,
    /// Files at most.
    pub max_files: u64,
    /// The reading of the epoch clock.
    pub clock: EventTime,
    /// `available` and `once`: take only what was there at [`Source::mark_end`], and do not wait for files to settle.
    pub draining: bool,
    /// Replay in the order of event time: take what lies before this time. Other sources have no use for it.
    pub until: Option<EventTime>,
}

/// What is known about a source without taking anything from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Backlog {
    /// Rows waiting, where they can be counted.
    pub rows: Option<u64>,
    /// Files waiting.
    pub files: Option<u64>,
    /// How far each partition reaches now.
    pub latest: Vec<(String, Offset)>,
    /// Nothing will ever come again.
    pub ended: bool,
    /// When the source next has rows or wants to look, if it knows (timers, generators, listing intervals).
    pub next_due: Option<EventTime>,
    /// Smallest event time that unread files of the first start may hold; holds the watermark back (rulings on loading history).
    pub min_unread_event_time: Option<EventTime>,
    /// Event time of the next row, where rows come in the order of event time.
    pub next_event_time: Option<EventTime>,
    /// What comes next is being decoded already: reading it takes hardly any time.
    pub decoded: bool,
}

/// A row that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRow {
    /// Its offset in the partition.
    pub offset: Offset,
    /// Where a person finds it: `path:line`, a peer, an offset.
    pub place: String,
    /// Why it was refused; names column, value and expected type.
    pub reason: String,
    /// The input as it came, cut after 64 KiB, invalid UTF-8 replaced.
    pub raw: String,
}

/// Rows of a range, in order.
#[derive(Debug, Clone)]
pub struct SourceBatch {
    /// The decoded columns of [`SourceContext::schema`] (those asked for), then the metadata columns.
    pub batch: RecordBatch,
    /// Sequence the rows belong to; a batch never spans two.
    pub sequence: u64,
    /// Row offset of each row within the sequence; `None` means contiguous from `first_row`.
    pub rows: Option<Vec<u64>>,
    /// Row offset of the first row, bad ones counted.
    pub first_row: u64,
    /// Rows that could not be decoded.
    pub bad: Vec<BadRow>,
    /// Where a person finds the rows, for those that are refused later; `None`: by their offsets.
    pub places: Option<RowPlaces>,
    /// Encoded bytes these rows took, as far as known.
    pub bytes: u64,
    /// Oldest and newest event time, where the column was left out (see [`ReadRequest::event_times`]).
    pub event_times: Option<(EventTime, EventTime)>,
}

/// Where the rows of a batch stand in a file.
#[derive(Debug, Clone)]
pub struct RowPlaces {
    /// The file.
    pub path: Arc<str>,
    /// Row offset that `lines` begins with.
    pub first_row: u64,
    /// Line of each row, bad ones counted, from 1; empty where rows are no lines and are counted from 1.
    pub lines: Arc<[u64]>,
}

impl RowPlaces {
    /// The place of the row with this offset: `path:line`.
    pub fn place(&self, row: u64) -> String {
        let line = usize::try_from(row.wrapping_sub(self.first_row)).ok().and_then(|at| self.lines.get(at).copied());
        format!("{}:{}", self.path, line.unwrap_or(row + 1))
    }
}

/// What to read of a range.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// Indices into [`SourceContext::schema`] of the columns to hand out (ascending); `None` for all.
    pub projection: Option<Vec<usize>>,
    /// Rows per batch, at most.
    pub batch_size: usize,
    /// The event-time column, where nobody reads its values. A reader that can prove without decoding that the event times of a
    /// batch lie in the range, none of them NULL, may leave the column out and give [`SourceBatch::event_times`] instead.
    pub event_times: Option<ExpectedTimes>,
}

impl ReadRequest {
    /// The request without the event-time column; `None` where the column is wanted.
    pub(crate) fn without_event_times(&self) -> Option<ReadRequest> {
        let (times, projection) = (self.event_times?, self.projection.as_ref()?);
        let projection = projection.iter().copied().filter(|index| *index != times.column).collect();
        Some(ReadRequest { projection: Some(projection), event_times: None, ..*self })
    }
}

/// Event times that need no judgement: they are neither late nor too far in the future.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedTimes {
    /// Index into [`SourceContext::schema`] of the event-time column; it is one of the projected columns.
    pub column: usize,
    /// The earliest one.
    pub first: EventTime,
    /// The last one, inclusive.
    pub last: EventTime,
}

/// Reads ranges; detached from the source, so that reading runs beside planning. Cheap to clone.
#[async_trait]
pub trait Reader: Send + Sync + std::fmt::Debug {
    /// The rows of a planned or logged range, in offset order.
    ///
    /// # Errors
    /// `Corrupt` when the range no longer holds what was logged, `Unavailable` when it cannot be reached.
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>>;
}

/// A source of rows. See the module's documentation for who calls what when.
#[async_trait]
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Fixed facts.
    fn properties(&self) -> SourceProperties;

    /// Called once, first. `position` is what [`Source::position`] returned at the checkpoint the engine recovered, and
    /// `replayed` the ranges of the epochs after it, in order; both empty at a first start. Files taken by them are not discovered again.
    ///
    /// # Errors
    /// When the place does not exist or cannot be read.
    async fn open(&mut self, position: Option<serde_json::Value>, replayed: &[PartitionRange]) -> Result<()>;

    /// Notified when rows may have become available.
    fn wake(&self) -> Arc<Notify>;

    /// How much waits. Never blocks for input.
    ///
    /// # Errors
    /// When the place cannot be listed.
    async fn backlog(&mut self) -> Result<Backlog>;

    /// Fixes how far `available` and `once` go: everything that is there now.
    ///
    /// # Errors
    /// When the place cannot be listed.
    async fn mark_end(&mut self) -> Result<()>;

    /// Cuts the next epoch's ranges; `None` when there is nothing. An empty file is a range without rows.
    /// The ranges count as taken: the next call goes on after them.
    ///
    /// # Errors
    /// When the input cannot be listed or its size not be read.
    async fn plan(&mut self, limits: &EpochLimits) -> Result<Option<Vec<PartitionRange>>>;

    /// The handle that reads ranges.
    fn reader(&self) -> Arc<dyn Reader>;

    /// The epoch with these ranges is durable.
    ///
    /// # Errors
    /// When `after_read` could not be carried out.
    async fn acknowledge(&mut self, ranges: &[PartitionRange]) -> Result<()>;

    /// What [`Source::open`] needs after a restart, covering exactly the ranges planned so far.
    fn position(&self) -> serde_json::Value;

    /// For `memory` streams: the handle that pushes batches.
    fn pusher(&self) -> Option<Arc<dyn Push>> {
        None
    }

    /// Stops receivers and closes connections. Rows planned but not acknowledged stay readable.
    async fn stop(&mut self) {}
}

/// The entrance of a `memory` stream.
#[async_trait]
pub trait Push: Send + Sync + std::fmt::Debug {
    /// Queues rows as one epoch's input; returns when they are queued, waiting while the buffer is full. The offset after the
    /// rows: they are durable when a commit covers it. `detail` becomes that of their range, whoever plans it.
    ///
    /// # Errors
    /// When the columns differ from the stream's, or the stream has ended.
    async fn push(&self, batch: RecordBatch, detail: serde_json::Value) -> Result<Offset>;

    /// Ends the stream: it is closed after the queued rows.
    fn end(&self);
}

/// A helper for sources with a single partition `""`.
pub fn single_partition(start: Offset, end: Offset) -> PartitionRange {
    PartitionRange { partition: String::new(), range: OffsetRange { start, end }, detail: serde_json::Value::Null }
}

/// Default bounds of an epoch (rulings 1.5): 256 MB of input or 1,000 files.
pub const DEFAULT_EPOCH_BYTES: u64 = 256_000_000;
/// See [`DEFAULT_EPOCH_BYTES`].
pub const DEFAULT_EPOCH_FILES: u64 = 1_000;
/// How often a local directory is listed by default.
pub const DEFAULT_DISCOVERY_INTERVAL: Duration = Duration::from_secs(1);
