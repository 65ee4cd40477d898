//! The blackhole as a sink.

use crate::error::{ConnectorError, Result};
use crate::sink::{SinkCheckpoint, SinkCommit, SinkEpoch, SinkStatus, TransactionalSink};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use millstream_types::{DeltaBatch, EventTime, Weights};

/// Counts rows. See the module's documentation.
#[derive(Debug, Default)]
pub struct BlackholeSink {
    committed: u64,
    staged: u64,
}

impl BlackholeSink {
    /// Changed rows of all published epochs, by weight.
    pub fn rows(&self) -> u64 {
        self.committed
    }
}

/// How many rows changes stand for, whether they come or go.
fn count(changes: &[DeltaBatch]) -> u64 {
    let of = |change: &DeltaBatch| match &change.weights {
        Weights::Ones => change.num_rows() as u64,
        Weights::I64(weights) => weights.values().iter().map(|weight| weight.unsigned_abs()).sum(),
    };
    changes.iter().map(of).sum()
}

#[async_trait]
impl TransactionalSink for BlackholeSink {
    async fn open(&mut self, state: Option<SinkCheckpoint>) -> Result<()> {
        if let Some(state) = state {
            self.committed = state.detail.as_u64().ok_or_else(|| ConnectorError::Corrupt {
                place: "checkpoint of a blackhole sink".into(),
                problem: format!("holds {}, not a number of rows", state.detail),
            })?;
        }
        Ok(())
    }

    async fn stage(&mut self, _epoch: SinkEpoch, changes: &[DeltaBatch]) -> Result<()> {
        self.staged += count(changes);
        Ok(())
    }

    async fn prepare(&mut self, _epoch: SinkEpoch) -> Result<SinkCommit> {
        Ok(SinkCommit { rows: self.staged, ..SinkCommit::default() })
    }

    async fn publish(&mut self, _commit: &SinkCommit) -> Result<()> {
        // What was staged counts once, however often its epoch is published.
        self.committed += std::mem::take(&mut self.staged);
        Ok(())
    }

    async fn abort(&mut self, _epoch: SinkEpoch) -> Result<()> {
        self.staged = 0;
        Ok(())
    }

    async fn replay(&mut self, _epoch: SinkEpoch, _changes: &[DeltaBatch], commit: &SinkCommit) -> Result<()> {
        self.committed += commit.rows;
        Ok(())
    }

    async fn remove_orphans(&mut self) -> Result<()> {
        Ok(())
    }

    fn next_roll(&self) -> Option<EventTime> {
        None
    }

    async fn checkpoint(&mut self) -> Result<SinkCheckpoint> {
        Ok(SinkCheckpoint { detail: serde_json::json!(self.committed), rows: Vec::new() })
    }

    async fn buffered(&self) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn committed_files(&self) -> Option<Vec<String>> {
        None
    }

    fn status(&self) -> SinkStatus {
        SinkStatus::default()
    }
}
