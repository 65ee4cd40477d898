//! At-rest tables with a refresh interval: the next version is read beside the epochs and takes its place between two of them.
//!
//! ```text
//!   interval over ─► read, compare, store (a task of its own) ─► next epoch: named by its commit record, handed to the queries
//! ```
//! An epoch never waits for the files. It sees a version that was begun to be read at most an interval before it, plus the time that
//! reading takes. Where epochs run by hand they wait, so that the same steps give the same rows. A version that is
//! the same as the one in force changes nothing. **Errors**: a version that cannot be read stops the pipeline, as one that is read inline
//! does.

use super::Pipeline;
use super::at_rest::{content, difference};
use crate::catalog::object::Refresh;
use crate::error::{EngineError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use datafusion::execution::SessionState;
use millstream_state::{BlobRef, BlobStore};
use millstream_types::EventTime;
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Another version of an at-rest table.
#[derive(Debug)]
pub(super) struct Version {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Where it is stored, if there is a state directory.
    blob: Option<BlobRef>,
}

/// A version that is being read; `None`: it is the one in force.
pub(super) type Reading = JoinHandle<Result<Option<Version>>>;

impl Pipeline {
    /// Begins to read the versions that are due.
    pub(super) fn read_versions(&mut self, now: EventTime) {
        for def in self.refreshed_tables() {
            let Refresh::Interval(interval) = def.refresh else { continue };
            let due = self.refreshed.get(&def.name).is_none_or(|last| last.plus(interval) <= now);
            if !due || self.reading.contains_key(&def.name) || !self.reads_at_rest(&def.name) {
                continue;
            }
            self.refreshed.insert(def.name.clone(), now);
            let (provider, pinned) = (Arc::clone(&def.provider), self.pinned.get(&def.name).cloned());
            let blobs = self.durability.as_ref().map(|durability| durability.dir.blobs());
            let task = tokio::spawn(read_version(provider, pinned, self.shared.base.clone(), blobs));
            self.reading.insert(def.name.clone(), task);
        }
    }

    /// Before an epoch: puts the versions that have been read in force.
    pub(super) async fn take_versions(&mut self) -> Result<()> {
        let waits = self.manual;
        let names: Vec<String> =
            self.reading.iter().filter(|(_, task)| waits || task.is_finished()).map(|(name, _)| name.clone()).collect();
        for name in names {
            let Some(task) = self.reading.remove(&name) else { continue };
            let version = task.await.map_err(|error| EngineError::Internal(format!("reading table \"{name}\" failed: {error}")))??;
            let Some(Version { schema, batches, blob }) = version.filter(|_| self.reads_at_rest(&name)) else { continue };
            if let Some(blob) = blob {
                self.name_content(&name, &blob)?;
            }
            self.pinned.insert(name.clone(), Arc::new(MemTable::try_new(schema, vec![batches])?));
            self.reload(&name).await?;
        }
        Ok(())
    }

    /// When the next version is to be read.
    pub(super) fn reading_due(&self) -> Option<EventTime> {
        if self.manual {
            return None;
        }
        let tables = self.refreshed_tables().into_iter();
        let due = tables.filter_map(|def| match def.refresh {
            Refresh::Interval(interval) if !self.reading.contains_key(&def.name) && self.reads_at_rest(&def.name) => {
                Some(self.refreshed.get(&def.name).map_or(EventTime::MIN, |last| last.plus(interval)))
            }
            _ => None,
        });
        due.min()
    }

    /// Gives up a version that is being read.
    pub(super) fn stop_reading(&mut self, name: &str) {
        if let Some(task) = self.reading.remove(name) {
            task.abort();
        }
    }
}

async fn read_version(
    provider: Arc<dyn TableProvider>,
    pinned: Option<Arc<dyn TableProvider>>,
    base: SessionState,
    blobs: Option<BlobStore>,
) -> Result<Option<Version>> {
    let (schema, batches) = content(provider, &base).await?;
    let old = match pinned {
        Some(pinned) => content(pinned, &base).await?.1,
        None => Vec::new(),
    };
    let compared = tokio::task::spawn_blocking(move || {
        if difference(&schema, &old, &batches)?.is_empty() {
            return Ok(None);
        }
        let blob = blobs.map(|blobs| blobs.put(&schema, &batches)).transpose()?;
        Ok(Some(Version { schema, batches, blob }))
    });
    compared.await.map_err(|error| EngineError::Internal(format!("comparing two versions of a table failed: {error}")))?
}
