//! The state of a file sink in a checkpoint: which parts each file in the making has, and the rows that are not in a part.

use super::buffer::OpenFile;
use super::part::{Blob, Part, PartData};
use super::publish::{has_size, part_paths, remove_if_there};
use super::sink::{FileSink, PendingResult};
use super::{arrow_error, io_error, state_error};
use crate::error::{ConnectorError, Result};
use crate::sink::SinkCheckpoint;
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::Schema;
use millstream_state::durable_put;
use millstream_types::{Epoch, EventTime};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Checkpoints that may still refer to a part after its file is rolled. Recovery falls back one generation; one more is for a checkpoint
/// that was taken and never finished.
const GENERATIONS: usize = 3;

const SAVED_FORMAT: u32 = 1;

/// The facts of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    format: u32,
    epoch: Epoch,
    pending: Option<(Epoch, EventTime)>,
    files: Vec<SavedFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedFile {
    directory: String,
    first_epoch: Epoch,
    last_epoch: Epoch,
    opened: EventTime,
    rows: u64,
    parts: Vec<SavedPart>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedPart {
    rows: u64,
    encoded: Option<SavedBlob>,
    kept: Option<SavedBlob>,
    event_time: Option<(i64, i64)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedBlob {
    name: String,
    bytes: u64,
}

impl FileSink {
    /// The state that a restart needs.
    pub(super) async fn save(&mut self) -> Result<SinkCheckpoint> {
        let mut saved = Saved {
            format: SAVED_FORMAT,
            epoch: self.last_epoch,
            pending: self.pending.as_ref().map(|pending| (pending.first_epoch, pending.since)),
            files: Vec::new(),
        };
        let mut rows: Vec<(String, Vec<RecordBatch>)> = Vec::new();
        for (directory, file) in &self.open {
            let mut parts = Vec::with_capacity(file.parts.len());
            let mut tail = Vec::new();
            for part in &file.parts {
                let data = part.data().await?;
                if data.blobs().any(|blob| blob.path().is_none()) {
                    // Parts in memory go into the checkpoint as rows; they are cut into the same parts again.
                    tail.extend(data.decode(self.encoder.encoding.as_ref())?);
                    continue;
                }
                data.sync()?;
                parts.push(SavedPart {
                    rows: data.rows,
                    encoded: data.encoded.as_ref().and_then(saved_blob),
                    kept: data.kept.as_ref().and_then(saved_blob),
                    event_time: data.event_time,
                });
            }
            tail.extend(file.tail.iter().cloned());
            if !tail.is_empty() {
                rows.push((format!("tail/{directory}"), tail));
            }
            if !file.values.is_empty() {
                rows.push((format!("values/{directory}"), vec![self.partition_values(&file.values)?]));
            }
            saved.files.push(SavedFile {
                directory: directory.clone(),
                first_epoch: file.first_epoch,
                last_epoch: file.last_epoch,
                opened: file.opened,
                rows: file.rows,
                parts,
            });
        }
        if let Some(pending) = &self.pending {
            rows.push(("result".into(), pending.rows.clone()));
        }
        if let Some(scratch) = self.encoder.scratch() {
            durable_put::sync_dir(scratch).map_err(state_error(scratch))?;
        }
        self.retired.push_back(Vec::new());
        while self.retired.len() > GENERATIONS {
            for path in self.retired.pop_front().unwrap_or_default() {
                remove_if_there(&path)?;
            }
        }
        let detail = serde_json::to_value(&saved).map_err(|error| ConnectorError::internal("describing a checkpoint failed", error))?;
        Ok(SinkCheckpoint { detail, rows })
    }

    pub(super) fn restore(&mut self, state: SinkCheckpoint) -> Result<()> {
        let damaged =
            |problem: String| ConnectorError::Corrupt { place: format!("the checkpoint of sink \"{}\"", self.layout.sink), problem };
        let saved: Saved = serde_json::from_value(state.detail).map_err(|error| damaged(format!("cannot be read ({error})")))?;
        if saved.format > SAVED_FORMAT {
            return Err(damaged(format!("has format {}, and this build reads up to {SAVED_FORMAT}", saved.format)));
        }
        let mut groups: HashMap<String, Vec<RecordBatch>> = state.rows.into_iter().collect();
        for file in saved.files {
            let values = match groups.remove(&format!("values/{}", file.directory)) {
                Some(batches) => batches.first().map(|batch| batch.columns().to_vec()).unwrap_or_default(),
                None => Vec::new(),
            };
            if values.len() != self.layout.partition_columns.len() {
                return Err(damaged(format!("lacks the values of partition \"{}\"", file.directory)));
            }
            let parts = file.parts.into_iter().map(|part| self.restore_part(part)).collect::<Result<_>>()?;
            let mut open = OpenFile::restored(values, file.first_epoch, file.last_epoch, file.opened, parts);
            open.tail = groups.remove(&format!("tail/{}", file.directory)).unwrap_or_default();
            open.tail_rows = open.tail.iter().map(RecordBatch::num_rows).sum();
            open.rows += open.tail_rows as u64;
            if open.rows != file.rows {
                return Err(damaged(format!("holds {} rows of partition \"{}\" and lists {}", open.rows, file.directory, file.rows)));
            }
            self.open.insert(file.directory, open);
        }
        if let Some((first_epoch, since)) = saved.pending {
            self.pending = Some(PendingResult { rows: groups.remove("result").unwrap_or_default(), first_epoch, since });
        }
        self.last_epoch = saved.epoch;
        Ok(())
    }

    fn restore_part(&self, part: SavedPart) -> Result<Part> {
        let Some(scratch) = self.encoder.scratch() else {
            return Err(ConnectorError::Corrupt {
                place: format!("the checkpoint of sink \"{}\"", self.layout.sink),
                problem: "refers to parts of files, and the pipeline has no place for them".into(),
            });
        };
        let blob = |file: Option<SavedBlob>| -> Result<Option<Blob>> {
            let Some(file) = file else { return Ok(None) };
            let path = scratch.join(&file.name);
            if !has_size(&path, file.bytes) {
                return Err(ConnectorError::Corrupt {
                    place: format!("\"{}\"", path.display()),
                    problem: format!("should have {} bytes, as a checkpoint refers to it", file.bytes),
                });
            }
            Ok(Some(Blob::File { path, bytes: file.bytes }))
        };
        Ok(Part::ready(PartData {
            rows: part.rows,
            encoded: blob(part.encoded)?,
            kept: blob(part.kept)?,
            event_time: part.event_time,
            synced: AtomicBool::new(true),
        }))
    }

    /// Parts that nothing refers to any more go when no checkpoint can either.
    pub(super) fn adopt_unreferenced_parts(&mut self) -> Result<()> {
        let Some(scratch) = self.encoder.scratch() else { return Ok(()) };
        let referenced: BTreeSet<PathBuf> =
            self.open.values().flat_map(|file| &file.parts).filter_map(Part::peek).flat_map(|data| part_paths(data)).collect();
        let mut unreferenced = Vec::new();
        for entry in std::fs::read_dir(scratch).map_err(io_error("listing", scratch))? {
            let path = entry.map_err(io_error("listing", scratch))?.path();
            if !referenced.contains(&path) && path.extension().is_some_and(|extension| extension == "part" || extension == "rows") {
                unreferenced.push(path);
            }
        }
        if let Some(generation) = self.retired.back_mut() {
            generation.extend(unreferenced);
        }
        Ok(())
    }

    /// A batch of one row: the values of a partition.
    fn partition_values(&self, values: &[ArrayRef]) -> Result<RecordBatch> {
        let fields: Vec<_> = self.layout.partition_columns.iter().map(|column| Arc::clone(&self.layout.output.fields()[*column])).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), values.to_vec())
            .map_err(arrow_error("keeping the values of a partition failed"))
    }
}

fn saved_blob(blob: &Blob) -> Option<SavedBlob> {
    let name = blob.path()?.file_name()?.to_str()?.to_string();
    Some(SavedBlob { name, bytes: blob.len() })
}
