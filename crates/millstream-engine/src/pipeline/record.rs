//! The commit record: the one durable truth about an epoch.
//!
//! It is the JSON header of a commit frame; rows that cannot be read again (of sources that do not replay, and rows
//! inserted into tables) travel in the same frame as Arrow IPC attachments, so that one sync makes them durable and committed.

use super::query::Segments;
use super::resume::QueryFailure;
use crate::access::{Access, AccessChange};
use crate::dead_letters::DeadLettersCheckpoint;
use crate::edge::WatermarkState;
use crate::error::{EngineError, Result};
use crate::inserts::InsertNote;
use millstream_connectors::sink::SinkCommit;
use millstream_state::{CheckpointReader, Frame, FramePayload};
use millstream_types::{Epoch, EventTime, PartitionRange};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The kind byte of commit frames.
pub const COMMIT_FRAME: u8 = 1;

/// What an epoch took from one stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamCommit {
    /// Offset ranges.
    pub ranges: Vec<PartitionRange>,
    /// Rows read.
    pub rows_in: u64,
    /// Rows accepted.
    pub rows_used: u64,
    /// Rows that could not be decoded.
    pub rows_bad: u64,
    /// Rows below the watermark.
    pub rows_late: u64,
    /// The watermark that decided what is late.
    pub watermark_start: EventTime,
    /// The watermark after the epoch, by partition; decides what is final.
    pub watermark_end: WatermarkState,
    /// The accepted rows are in the attachment `stream/<name>`.
    pub logged: bool,
    /// The columns that were read, so that a replay judges rows by the same ones; `None` for all.
    #[serde(default)]
    pub columns: Option<BTreeSet<String>>,
}

/// A change of the catalog.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum CatalogChange {
    /// A statement that makes an object or a setting, to be carried out again.
    Statement {
        /// Its canonical text.
        sql: String,
    },
    /// Users or privileges changed.
    Access {
        /// How.
        access: AccessChange,
    },
    /// The content of an at-rest table was stored and is used from this epoch on.
    Pinned {
        /// The table.
        table: String,
        /// Where its content is stored.
        blob: serde_json::Value,
    },
}

/// The commit record of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommitRecord {
    /// Its number.
    pub epoch: Epoch,
    /// The reading of its clock.
    pub clock: EventTime,
    /// What it took from streams.
    pub streams: BTreeMap<String, StreamCommit>,
    /// Tables whose changes are in attachments `table/<name>`.
    pub tables: Vec<String>,
    /// What it made visible.
    pub sinks: BTreeMap<String, SinkCommit>,
    /// Last epoch handed to each delivered sink before this one.
    pub delivered: BTreeMap<String, Epoch>,
    /// Changes of the catalog that take effect with it.
    pub catalog: Vec<CatalogChange>,
    /// Inserts that it carried out.
    #[serde(default)]
    pub inserts: Vec<InsertNote>,
    /// Queries that failed on it, with the message: recovery leaves them out, whatever they would do now.
    #[serde(default)]
    pub failed: BTreeMap<String, String>,
}

impl CommitRecord {
    /// The record of a commit frame, and the rows that travel with it.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when it cannot be read.
    pub(super) fn of_frame(frame: &Frame) -> Result<(Self, Segments)> {
        let payload = FramePayload::decode(&frame.payload)?;
        let record = serde_json::from_slice(&payload.header)
            .map_err(|error| EngineError::Corrupt(format!("the commit record of epoch {} cannot be read: {error}", frame.epoch)))?;
        Ok((record, payload.attachments))
    }
}

/// Everything small in a checkpoint; rows are in its segments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct CheckpointHeader {
    /// Clock of the epoch.
    pub clock: Option<EventTime>,
    /// The statements that made the catalog, oldest first.
    pub catalog: Vec<String>,
    /// Users and privileges.
    #[serde(default)]
    pub access: Access,
    /// Pipeline options in force.
    pub settings: BTreeMap<String, String>,
    /// Inserts of pipeline files that have been carried out; the keys of others are in the segment `inserts/keys`.
    pub applied_inserts: Vec<(u64, u64)>,
    /// Stored content of at-rest tables.
    pub pinned: BTreeMap<String, serde_json::Value>,
    /// Position, watermark and history per stream.
    pub streams: BTreeMap<String, StreamCheckpoint>,
    /// Operator state per query: what the segments hold.
    pub queries: BTreeMap<String, QueryCheckpoint>,
    /// Facts per sink.
    pub sinks: BTreeMap<String, serde_json::Value>,
    /// Last epoch handed to each delivered sink.
    pub delivered: BTreeMap<String, Epoch>,
    /// Totals since the pipeline began.
    pub totals: BTreeMap<String, StreamTotals>,
    /// Refused rows.
    #[serde(default)]
    pub dead_letters: DeadLettersCheckpoint,
}

impl CheckpointHeader {
    /// That of a checkpoint.
    ///
    /// # Errors
    /// [`EngineError::Corrupt`] when it cannot be read.
    pub(super) fn of(checkpoint: &CheckpointReader) -> Result<Self> {
        Self::deserialize(&checkpoint.manifest().detail)
            .map_err(|error| EngineError::Corrupt(format!("checkpoint of epoch {} cannot be read: {error}", checkpoint.epoch())))
    }
}

/// A stream in a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct StreamCheckpoint {
    /// What the source needs to go on.
    pub position: serde_json::Value,
    /// Watermark and partitions.
    pub watermark: WatermarkState,
    /// Number of epochs whose ranges can be read again; they are in segments.
    pub history: usize,
    /// Number of epochs whose rows are in segments, for a source that cannot replay.
    pub retained: usize,
    /// Older rows have been dropped.
    pub retention_cut: bool,
}

/// Row counts of a stream since the pipeline began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamTotals {
    /// Rows read.
    pub rows_in: u64,
    /// Rows accepted.
    pub rows_used: u64,
    /// Rows that could not be decoded.
    pub rows_bad: u64,
    /// Rows below the watermark.
    pub rows_late: u64,
    /// Encoded bytes.
    pub bytes: u64,
}

/// One epoch of a stream that can be read again.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryEntry {
    /// The epoch.
    pub epoch: Epoch,
    /// Its clock.
    pub clock: EventTime,
    /// The watermark that decided what is late.
    pub watermark_start: EventTime,
    /// The ranges; none for a derived stream, which reads those of its base.
    pub ranges: Vec<PartitionRange>,
    /// The columns by which rows were judged; `None` for all.
    pub columns: Option<Arc<BTreeSet<String>>>,
}

/// A query in a checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct QueryCheckpoint {
    /// Its operators, in order.
    pub operators: Vec<OperatorCheckpoint>,
    /// The query has failed and waits to be dropped or resumed.
    pub failed: Option<QueryFailure>,
    /// With EMIT PERIODIC: clock of the epoch that handed out last.
    #[serde(default)]
    pub emitted: Option<EventTime>,
}

/// An operator's state: the facts; its rows are in segments `query/<name>/<index>/<group>`, those that are shared in `shared/<number>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OperatorCheckpoint {
    /// Identity of the node.
    pub fingerprint: u64,
    /// Which of several nodes with that identity.
    pub ordinal: u32,
    /// Name of the operator.
    pub name: String,
    /// Format of its state.
    pub format: u32,
    /// Small facts.
    pub detail: serde_json::Value,
    /// Names of its groups of rows.
    pub groups: Vec<String>,
    /// The numbers of groups that operators of several queries share.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shared: BTreeMap<String, u64>,
}
