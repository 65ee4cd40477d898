//! The contract of a sink.
//!
//! ```text
//!   transactional:  open ─► stage(changes) ─► prepare() ─► [commit record] ─► publish(commit)      (per epoch)
//!                             ▲   replay(changes, commit): recovery feeds committed epochs again, nothing new becomes visible
//!                             └── checkpoint() ─► state that open() gets back
//!   delivered:      open ─► [commit record] ─► deliver(epoch, changes)
//! ```
//!
//! A **transactional** sink makes files (or a foreign transaction) visible exactly when the epoch's commit record is durable:
//! `prepare` writes everything under names nobody reads and returns what the record needs; `publish` is idempotent and is
//! called again by recovery. A **delivered** sink has outside effects (console, callback): it gets each committed epoch's
//! changes after the commit, in order, at least once, with the epoch's number to recognise a repetition.
//!
//! Changes arrive consolidated, with the sink's columns. In `append` mode all weights are positive (repeat the row by
//! its weight); in `changelog` mode the sink turns weights into `op` values; in `complete` mode it gets the whole
//! result of the query each time it changed, as insertions.

use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use millstream_types::{DeltaBatch, Epoch, EventTime, Options};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// What a sink does with changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkMode {
    /// Only rows that never change again.
    Append,
    /// The last row per key.
    Upsert,
    /// Every change, with `op` and `epoch` columns.
    Changelog,
    /// The whole result whenever it changed.
    Complete,
}

impl std::fmt::Display for SinkMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SinkMode::Append => "append",
            SinkMode::Upsert => "upsert",
            SinkMode::Changelog => "changelog",
            SinkMode::Complete => "complete",
        })
    }
}

/// What a connector is given to build a sink.
#[derive(Debug)]
pub struct SinkContext {
    /// Name of the sink, for messages and file names.
    pub sink: String,
    /// Columns of the query, before `op` and `epoch` are added.
    pub schema: SchemaRef,
    /// Columns of a `PARTITIONED BY` clause.
    pub partition_by: Vec<String>,
    /// Column by which rows are ordered within a file: (name, descending).
    pub order_by: Vec<(String, bool)>,
    /// Columns of a `PRIMARY KEY` clause.
    pub key: Vec<String>,
    /// What the sink does with changes.
    pub mode: SinkMode,
    /// Index of the column that carries the query's event time, where one does: its minimum and maximum go into the record.
    pub event_time: Option<usize>,
    /// Eight hexadecimal digits that name the pipeline in file names and directories.
    pub pipeline: String,
    /// Number of this writer, part of temporary names.
    pub writer: u64,
    /// Where the sink may keep parts between checkpoints; `None` for a pipeline in memory.
    pub scratch: Option<PathBuf>,
    /// The `WITH` options; the sink takes what it knows and the registry refuses the rest.
    pub options: Options,
}

/// The epoch a call belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkEpoch {
    /// Its number.
    pub epoch: Epoch,
    /// The reading of the epoch clock.
    pub clock: EventTime,
    /// End of input, `CHECKPOINT` or stop: roll now, whatever the roll condition says.
    pub roll: bool,
}

/// One file that becomes visible with a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommittedFile {
    /// Name relative to the sink's directory.
    pub name: String,
    /// Temporary name it has until it is published, relative to the sink's directory.
    pub temporary: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// CRC-32 of its bytes.
    pub crc32: u32,
    /// First epoch whose rows it holds.
    pub first_epoch: Epoch,
    /// Last epoch whose rows it holds.
    pub last_epoch: Epoch,
    /// Smallest and largest event time in it, in microseconds, where the query has one.
    pub event_time: Option<(i64, i64)>,
}

/// What an epoch's commit record holds for one sink.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SinkCommit {
    /// Rows the epoch added to the sink.
    pub rows: u64,
    /// Files that become visible with this epoch.
    pub files: Vec<CommittedFile>,
    /// Why files were rolled: `size`, `interval`, `rows`, `end`, `partitions`; empty when none was.
    pub cause: String,
    /// Anything else the sink needs to publish or replay this epoch.
    pub detail: serde_json::Value,
}

/// Sink state in a checkpoint: small facts, and rows not yet rolled.
#[derive(Debug, Clone, Default)]
pub struct SinkCheckpoint {
    /// Facts.
    pub detail: serde_json::Value,
    /// Rows, as named groups of batches with one schema each.
    pub rows: Vec<(String, Vec<RecordBatch>)>,
}

/// What `SHOW SINKS` and the progress registry tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkStatus {
    /// Committed rows that are not in a file yet.
    pub buffered_rows: u64,
    /// Bytes they take in memory.
    pub buffered_bytes: u64,
    /// When the roll interval makes the next file, if rows wait.
    pub next_roll: Option<EventTime>,
}

/// A sink whose output becomes visible with the commit record. Calls come from one task, in the order of the diagram.
#[async_trait]
pub trait TransactionalSink: Send + Sync + std::fmt::Debug {
    /// Called once, first, with the state of the checkpoint the engine recovered (`None` at a first start).
    ///
    /// # Errors
    /// When the place cannot be written, belongs to another pipeline or holds files with another schema.
    async fn open(&mut self, state: Option<SinkCheckpoint>) -> Result<()>;

    /// Takes the changes of an epoch.
    ///
    /// # Errors
    /// When rows cannot be encoded or written.
    async fn stage(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()>;

    /// Decides whether to roll, writes and syncs what becomes visible with this epoch under temporary names, and tells what it did.
    ///
    /// # Errors
    /// When files cannot be written or synced.
    async fn prepare(&mut self, epoch: SinkEpoch) -> Result<SinkCommit>;

    /// The epoch is durable: makes its files visible. Idempotent.
    ///
    /// # Errors
    /// When a file cannot be renamed and is not there under its final name either.
    async fn publish(&mut self, commit: &SinkCommit) -> Result<()>;

    /// The epoch failed before its commit: forgets what `stage` and `prepare` did for it.
    ///
    /// # Errors
    /// When temporary files cannot be removed.
    async fn abort(&mut self, epoch: SinkEpoch) -> Result<()>;

    /// Recovery feeds a committed epoch again: same changes, and the record's decision is obeyed. Output whose publication was interrupted
    /// is published, written again byte for byte if need be; what was published and is gone stays away.
    ///
    /// # Errors
    /// As `stage`, `prepare` and `publish`.
    async fn replay(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch], commit: &SinkCommit) -> Result<()>;

    /// `newest` is the newest epoch there is: compares it with what can be seen, and changes nothing. Called once every record was
    /// replayed, and for a sink that is made later, before its first epoch.
    ///
    /// # Errors
    /// [`ConnectorError::OutputAhead`](crate::ConnectorError::OutputAhead) when output of a later epoch is there: its record was lost,
    /// and the epoch would write it a second time.
    async fn check_published(&mut self, newest: Epoch) -> Result<()> {
        let _ = newest;
        Ok(())
    }

    /// After `check_published` of all sinks: removes temporary files that no record names.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    async fn remove_orphans(&mut self) -> Result<()>;

    /// When rows wait and the roll interval ends: an epoch is due then.
    fn next_roll(&self) -> Option<EventTime>;

    /// The state that `open` needs after a restart.
    ///
    /// # Errors
    /// When buffered rows cannot be read back.
    async fn checkpoint(&mut self) -> Result<SinkCheckpoint>;

    /// Committed rows that are not yet in a visible file, for SELECT on the sink.
    ///
    /// # Errors
    /// When they cannot be read back.
    async fn buffered(&self) -> Result<Vec<RecordBatch>>;

    /// Paths of the committed files, for SELECT on the sink; `None` where the sink has none.
    fn committed_files(&self) -> Option<Vec<String>>;

    /// For monitoring.
    fn status(&self) -> SinkStatus;
}

/// A sink with effects outside: console, callback, HTTP.
#[async_trait]
pub trait DeliveredSink: Send + Sync + std::fmt::Debug {
    /// Called once, first.
    ///
    /// # Errors
    /// When the outside does not answer.
    async fn open(&mut self) -> Result<()>;

    /// Hands over the changes of one committed epoch. May be called again with the same epoch after a crash.
    ///
    /// # Errors
    /// When the outside did not take them; the engine retries with back-off, then stops the query.
    async fn deliver(&mut self, epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()>;
}

/// A sink of either kind.
#[derive(Debug)]
pub enum Sink {
    /// Visible with the commit.
    Transactional(Box<dyn TransactionalSink>),
    /// Delivered after the commit.
    Delivered(Box<dyn DeliveredSink>),
}
