//! Sinks at run time: one face for those that become visible with the commit and those that are delivered after it.

use crate::catalog::object::SinkDef;
use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_connectors::sink::{Sink, SinkCheckpoint, SinkCommit, SinkEpoch, SinkStatus};
use millstream_types::{Delta, Epoch, EventTime};
use std::sync::Arc;
use std::time::Duration;

/// How often a delivered sink is tried before its failure stops the pipeline.
const DELIVERY_ATTEMPTS: u32 = 5;

/// A sink at run time.
#[derive(Debug)]
pub struct SinkState {
    /// The definition.
    pub def: Arc<SinkDef>,
    /// Columns of its queries.
    pub schema: SchemaRef,
    sink: Sink,
    delivered: Epoch,
}

impl SinkState {
    /// A sink that has been created by its connector and not yet opened.
    pub fn new(def: Arc<SinkDef>, schema: SchemaRef, sink: Sink) -> Self {
        Self { def, schema, sink, delivered: Epoch::ZERO }
    }

    fn error(&self, error: millstream_connectors::ConnectorError) -> EngineError {
        EngineError::connector(format!("sink \"{}\"", self.def.name), error)
    }

    /// Opens it with the state of a checkpoint, if there is one.
    ///
    /// # Errors
    /// When its place cannot be written.
    pub async fn open(&mut self, state: Option<SinkCheckpoint>) -> Result<()> {
        let opened = match &mut self.sink {
            Sink::Transactional(sink) => sink.open(state).await,
            Sink::Delivered(sink) => sink.open().await,
        };
        opened.map_err(|error| self.error(error))
    }

    /// Takes an epoch's changes; those of delivered sinks wait for [`SinkState::deliver`].
    ///
    /// # Errors
    /// When rows cannot be encoded.
    pub async fn stage(&mut self, epoch: SinkEpoch, changes: Delta) -> Result<()> {
        let Sink::Transactional(sink) = &mut self.sink else { return Ok(()) };
        if changes.is_empty() {
            return Ok(());
        }
        let staged = sink.stage(epoch, &changes).await;
        staged.map_err(|error| self.error(error))
    }

    /// What the commit record needs; `None` for delivered sinks and epochs that changed nothing.
    ///
    /// # Errors
    /// When files cannot be written.
    pub async fn prepare(&mut self, epoch: SinkEpoch) -> Result<Option<SinkCommit>> {
        let Sink::Transactional(sink) = &mut self.sink else { return Ok(None) };
        match sink.prepare(epoch).await {
            Ok(commit) => Ok((commit != SinkCommit::default()).then_some(commit)),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Makes an epoch's files visible.
    ///
    /// # Errors
    /// When they cannot be renamed.
    pub async fn publish(&mut self, commit: &SinkCommit) -> Result<()> {
        let Sink::Transactional(sink) = &mut self.sink else { return Ok(()) };
        let published = sink.publish(commit).await;
        published.map_err(|error| self.error(error))
    }

    /// Recovery: the changes of a committed epoch again, and what its record says of this sink. Delivered sinks get what
    /// they may not have seen.
    ///
    /// # Errors
    /// As `stage`, `prepare` and `publish`.
    pub async fn replay(&mut self, epoch: SinkEpoch, changes: &Delta, commit: Option<&SinkCommit>) -> Result<()> {
        let replayed = match &mut self.sink {
            Sink::Transactional(sink) => {
                if changes.is_empty() && commit.is_none() {
                    return Ok(());
                }
                let default = SinkCommit::default();
                sink.replay(epoch, changes, commit.unwrap_or(&default)).await
            }
            Sink::Delivered(_) => {
                return if epoch.epoch > self.delivered { self.deliver(epoch, changes).await } else { Ok(()) };
            }
        };
        replayed.map_err(|error| self.error(error))
    }

    /// Compares what can be seen of it with the newest epoch there is.
    ///
    /// # Errors
    /// When output of a later epoch is there: its commit record was lost.
    pub async fn check_published(&mut self, newest: Epoch) -> Result<()> {
        let Sink::Transactional(sink) = &mut self.sink else { return Ok(()) };
        let checked = sink.check_published(newest).await;
        checked.map_err(|error| self.error(error))
    }

    /// Removes what no record names.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub async fn remove_orphans(&mut self) -> Result<()> {
        let Sink::Transactional(sink) = &mut self.sink else { return Ok(()) };
        let removed = sink.remove_orphans().await;
        removed.map_err(|error| self.error(error))
    }

    /// It has effects outside and is served after the commit.
    pub fn is_delivered(&self) -> bool {
        matches!(self.sink, Sink::Delivered(_))
    }

    /// The last epoch a delivered sink has taken.
    pub fn delivered(&self) -> Option<Epoch> {
        self.is_delivered().then_some(self.delivered)
    }

    /// Takes over the cursor of a checkpoint or record.
    pub fn set_delivered(&mut self, epoch: Epoch) {
        self.delivered = self.delivered.max(epoch);
    }

    /// Hands over a committed epoch; tries again with growing pauses before it gives up.
    ///
    /// # Errors
    /// When the outside does not take it after several attempts.
    pub async fn deliver(&mut self, epoch: SinkEpoch, changes: &Delta) -> Result<()> {
        let Sink::Delivered(sink) = &mut self.sink else { return Ok(()) };
        if !super::epoch::has_rows(changes) {
            self.delivered = epoch.epoch;
            return Ok(());
        }
        let mut pause = Duration::from_millis(50);
        let mut attempt = 1;
        loop {
            match sink.deliver(epoch, changes).await {
                Ok(()) => {
                    self.delivered = epoch.epoch;
                    return Ok(());
                }
                Err(error) if attempt < DELIVERY_ATTEMPTS => {
                    tracing::warn!(sink = %self.def.name, epoch = epoch.epoch.0, attempt, %error, "delivery failed, trying again");
                    attempt += 1;
                    tokio::time::sleep(pause).await;
                    pause *= 4;
                }
                Err(error) => {
                    let error = EngineError::connector(format!("sink \"{}\"", self.def.name), error);
                    return Err(error);
                }
            }
        }
    }

    /// When the roll interval makes an epoch due.
    pub fn next_roll(&self) -> Option<EventTime> {
        match &self.sink {
            Sink::Transactional(sink) => sink.next_roll(),
            Sink::Delivered(_) => None,
        }
    }

    /// Rows wait for a roll.
    pub fn has_buffered(&self) -> bool {
        self.status().buffered_rows > 0
    }

    /// State for a checkpoint.
    ///
    /// # Errors
    /// When buffered rows cannot be read.
    pub async fn checkpoint(&mut self) -> Result<Option<SinkCheckpoint>> {
        let Sink::Transactional(sink) = &mut self.sink else { return Ok(None) };
        match sink.checkpoint().await {
            Ok(state) => Ok(Some(state)),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Committed rows that are in no file yet.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn buffered(&self) -> Result<Vec<RecordBatch>> {
        match &self.sink {
            Sink::Transactional(sink) => sink.buffered().await.map_err(|error| self.error(error)),
            Sink::Delivered(_) => Ok(Vec::new()),
        }
    }

    /// Paths of the committed files.
    pub fn committed_files(&self) -> Option<Vec<String>> {
        match &self.sink {
            Sink::Transactional(sink) => sink.committed_files(),
            Sink::Delivered(_) => None,
        }
    }

    /// For monitoring.
    pub fn status(&self) -> SinkStatus {
        match &self.sink {
            Sink::Transactional(sink) => sink.status(),
            Sink::Delivered(_) => SinkStatus::default(),
        }
    }
}
