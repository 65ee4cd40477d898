//! The entrance of a memory stream.

use super::Engine;
use crate::error::{EngineError, Result};
use crate::inserts::InsertNote;
use crate::pipeline::command::Command;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use millstream_connectors::source::Push;
use millstream_types::{Epoch, Offset};
use std::sync::Arc;

/// The entrance of a memory stream.
#[derive(Debug, Clone)]
pub struct MemorySource {
    engine: Engine,
    stream: String,
    schema: SchemaRef,
    pusher: Arc<dyn Push>,
}

impl Engine {
    /// The handle that pushes rows into a memory stream.
    ///
    /// # Errors
    /// When there is no such stream, or another connector feeds it.
    pub fn memory_source(&self, stream: &str) -> Result<MemorySource> {
        let schema = self.memory_schema(stream)?;
        let pusher = self.inner.shared.pushers.read().get(stream).cloned();
        let pusher = pusher.ok_or_else(|| EngineError::invalid(format!("stream \"{stream}\" is not a memory stream"), ""))?;
        Ok(MemorySource { engine: self.clone(), stream: stream.to_string(), schema, pusher })
    }

    /// The columns rows of a memory stream have when they are pushed: declared columns, and the op column if it is none of them.
    pub(crate) fn memory_schema(&self, stream: &str) -> Result<SchemaRef> {
        let catalog = self.inner.shared.catalog.read().clone();
        let def = catalog.stream(stream)?;
        if def.connector != "memory" {
            return Err(EngineError::invalid(
                format!("stream \"{stream}\" is fed by connector '{}', not by pushes", def.connector),
                "Create it WITH (connector = 'memory').",
            ));
        }
        Ok(Arc::new(Schema::new(crate::edge::decode_fields(def))))
    }
}

impl MemorySource {
    /// The columns of pushed rows.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Queues rows as one epoch's input; waits while the stream's buffer is full.
    ///
    /// # Errors
    /// When the columns differ or the stream has ended.
    pub async fn push(&self, rows: RecordBatch) -> Result<Pushed> {
        self.push_noted(rows, None).await
    }

    /// As [`MemorySource::push`]; the commit record of the rows has the note.
    pub(crate) async fn push_noted(&self, rows: RecordBatch, note: Option<InsertNote>) -> Result<Pushed> {
        let pushed = self.pusher.push(rows, InsertNote::detail(note)).await;
        let end = pushed.map_err(|error| EngineError::connector(format!("stream \"{}\"", self.stream), error))?;
        Ok(Pushed { engine: self.engine.clone(), stream: self.stream.clone(), end })
    }

    /// Ends the stream after the queued rows.
    pub fn end(&self) {
        self.pusher.end();
    }
}

/// Rows that were queued.
#[derive(Debug)]
#[must_use = "rows are durable when `committed` returns"]
pub struct Pushed {
    engine: Engine,
    stream: String,
    end: Offset,
}

impl Pushed {
    /// Has the rows committed at once, whether or not the clock runs. Where a rate limit holds them back, waits as long as the clock runs.
    pub(crate) async fn taken(self) -> Result<Epoch> {
        let (stream, end) = (self.stream.clone(), self.end);
        match self.engine.request(|answer| Command::Take { stream, end, answer }).await? {
            true => self.committed().await,
            false => Ok(self.engine.epoch()),
        }
    }

    /// Waits until the rows are committed; gives the newest committed epoch.
    ///
    /// # Errors
    /// When the pipeline stops before.
    pub async fn committed(self) -> Result<Epoch> {
        let mut committed = self.engine.inner.shared.committed.subscribe();
        loop {
            {
                let state = committed.borrow_and_update();
                if state.offsets.get(&self.stream).is_some_and(|offset| *offset >= self.end) {
                    return Ok(state.epoch);
                }
                if let Some(error) = state.stopped_error() {
                    return Err(error);
                }
            }
            committed.changed().await.map_err(|_| EngineError::Stopped(None))?;
        }
    }
}
