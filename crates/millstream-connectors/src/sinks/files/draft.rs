//! Drafts: a file is put together while its parts still come, so that little is left to do when it is rolled.
//!
//! ```text
//!   parts   [settled] [settled] [settled] [being encoded]  tail
//!               └─────────┴── appended and synced in the background ──► draft     the roll: the rest, the footer, the last sync
//! ```
//! A draft is work done ahead and nothing more. Parts stay in the scratch directory until the file is published; checkpoints and recovery
//! know nothing of drafts, and a file has the same bytes with and without. One that is not the beginning of the file that is rolled
//! in the end, or that could not be written, is thrown away.

use super::buffer::OpenFile;
use super::config::Config;
use super::format::Joiner;
use super::naming;
use super::part::{Encoder, Output, PartData};
use super::publish::remove_if_there;
use super::roll::join;
use super::{io_error, state_error};
use crate::error::{ConnectorError, Result};
use millstream_state::durable_put;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// More open partitions than this have no drafts: each holds a file and its buffers.
pub(crate) const DRAFTS_MAX: usize = 4;

/// A file in the making, without its footer.
pub(crate) struct Draft {
    /// Its hidden name, relative to the sink's directory.
    pub(crate) temporary: String,
    path: PathBuf,
    work: Option<Work>,
}

enum Work {
    Resting(Box<Written>),
    Running(JoinHandle<Result<Box<Written>>>),
}

/// What a draft holds.
struct Written {
    joiner: Box<dyn Joiner>,
    parts: Vec<Arc<PartData>>,
}

/// The beginning of a file, to be finished by the roll.
pub(crate) struct Beginning {
    pub(crate) joiner: Box<dyn Joiner>,
    /// Parts that are in it.
    pub(crate) parts: usize,
}

impl std::fmt::Debug for Beginning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Beginning").field("parts", &self.parts).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Draft").field("temporary", &self.temporary).finish_non_exhaustive()
    }
}

impl Draft {
    /// Begins a draft for a partition; its format must [join parts](super::format::Encoding::joins_parts).
    pub(crate) fn begin(config: &Config, encoder: &Encoder, directory: &str, number: u64) -> Result<Draft> {
        let layout = &encoder.layout;
        let name = naming::temporary(&format!("draft{number}"), &layout.sink, &layout.pipeline, layout.writer);
        let temporary = join(directory, &name);
        let path = config.path.join(&temporary);
        if let Some(parent) = path.parent() {
            durable_put::create_dir(parent).map_err(state_error(parent))?;
        }
        let joiner = encoder.encoding.begin(Output::create(&path)?)?;
        Ok(Draft { temporary, path, work: Some(Work::Resting(Box::new(Written { joiner, parts: Vec::new() }))) })
    }

    /// Goes on in the background with the settled parts of `file` that fit into one file with those before them, if it is not busy.
    pub(crate) async fn advance(&mut self, file: &OpenFile, config: &Config, durable: bool) -> Result<()> {
        let written = match self.work.take() {
            Some(Work::Running(task)) if !task.is_finished() => {
                self.work = Some(Work::Running(task));
                return Ok(());
            }
            Some(Work::Running(task)) => finished(task).await?,
            Some(Work::Resting(written)) => written,
            None => return Ok(()),
        };
        let mut bytes: u64 = written.parts.iter().map(|part| part.size()).sum();
        let mut rows: u64 = written.parts.iter().map(|part| part.rows).sum();
        let mut next = Vec::new();
        for part in file.settled_parts().iter().skip(written.parts.len()) {
            // One that is still being encoded waits for the next time, and so do those after it.
            let Some(data) = part.try_data() else { break };
            let data = data?;
            bytes += data.size();
            rows += data.rows;
            if bytes > config.roll_size || config.roll_rows.is_some_and(|limit| rows > limit) {
                break;
            }
            next.push(data);
        }
        if next.is_empty() {
            self.work = Some(Work::Resting(written));
            return Ok(());
        }
        let path = self.path.clone();
        self.work = Some(Work::Running(tokio::task::spawn_blocking(move || append(written, next, &path, durable))));
        Ok(())
    }

    /// What was written, if that is the beginning of a file of these parts.
    pub(crate) async fn finish(mut self, parts: &[Arc<PartData>]) -> Option<Beginning> {
        let written = match self.work.take() {
            Some(Work::Running(task)) => finished(task).await,
            Some(Work::Resting(written)) => Ok(written),
            None => return None,
        };
        match written {
            Ok(written) if written.parts.len() <= parts.len() && written.parts.iter().zip(parts).all(|(a, b)| Arc::ptr_eq(a, b)) => {
                Some(Beginning { parts: written.parts.len(), joiner: written.joiner })
            }
            Ok(_) => {
                self.remove();
                None
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "a file could not be written ahead");
                self.remove();
                None
            }
        }
    }

    /// Waits until nothing is being written any more and removes the file.
    pub(crate) async fn discard(mut self) {
        if let Some(Work::Running(task)) = self.work.take() {
            let _ = task.await;
        }
        self.remove();
    }

    fn remove(&self) {
        // What cannot be removed now is found when the sink is opened again.
        let _ = remove_if_there(&self.path);
    }
}

async fn finished(task: JoinHandle<Result<Box<Written>>>) -> Result<Box<Written>> {
    task.await.unwrap_or_else(|error| Err(ConnectorError::internal("a thread that wrote a file ahead ended early", error)))
}

fn append(mut written: Box<Written>, parts: Vec<Arc<PartData>>, path: &Path, durable: bool) -> Result<Box<Written>> {
    for part in parts {
        if let Some(encoded) = &part.encoded {
            written.joiner.append(encoded)?;
        }
        written.parts.push(part);
    }
    if durable {
        // The roll will sync the rest, which is little then.
        File::open(path).and_then(|file| file.sync_data()).map_err(io_error("syncing", path))?;
    }
    Ok(written)
}
