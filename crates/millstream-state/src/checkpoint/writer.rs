//! Writing a checkpoint.

use super::manifest::{MANIFEST, MANIFEST_FORMAT, Manifest, SEGMENTS, SegmentEntry, file_name_of};
use super::reader::CheckpointReader;
use crate::durable_put::{self, Put, sync_dir};
use crate::error::{Result, StateError};
use crate::ipc::{self, Compression};
use crate::state_dir::StateDir;
use crate::{document, failpoint};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::Epoch;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// Writes one checkpoint. Dropped without [`finish`](Self::finish) it leaves nothing.
#[derive(Debug)]
pub struct CheckpointWriter {
    parent: PathBuf,
    temporary: PathBuf,
    manifest: Manifest,
    compression: Compression,
    finished: bool,
}

impl CheckpointWriter {
    /// Begins the checkpoint of the state after `epoch`.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub fn begin(state: &StateDir, epoch: Epoch) -> Result<CheckpointWriter> {
        let parent = state.checkpoint_path();
        let temporary = parent.join(format!(".{epoch}.{}.tmp", state.writer()));
        if temporary.exists() {
            std::fs::remove_dir_all(&temporary).map_err(StateError::io("removing", &temporary))?;
        }
        let segments = temporary.join(SEGMENTS);
        std::fs::create_dir_all(&segments).map_err(StateError::io("creating", &segments))?;
        let manifest =
            Manifest { format: MANIFEST_FORMAT, epoch, writer: state.writer(), segments: Vec::new(), detail: serde_json::Value::Null };
        Ok(CheckpointWriter { parent, temporary, manifest, compression: Compression::default(), finished: false })
    }

    /// Chooses the compression of the segments that follow; LZ4 unless told.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Writes and syncs a segment of batches that share `schema`. Names are any text, each used once.
    ///
    /// # Errors
    /// When a batch has another schema, the name was used, or the disk refuses.
    pub fn write_segment(&mut self, name: &str, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
        let path = self.new_segment_path(name)?;
        let file = File::create_new(&path).map_err(StateError::io("creating", &path))?;
        let mut out = Checksumming { inner: BufWriter::with_capacity(1 << 20, file), crc32: crc32fast::Hasher::new(), bytes: 0 };
        ipc::write_stream(&mut out, schema, batches, self.compression)?;
        let Checksumming { inner, crc32, bytes } = out;
        let file = inner.into_inner().map_err(|error| StateError::io("writing", &path)(error.into_error()))?;
        file.sync_all().map_err(StateError::io("syncing", &path))?;
        failpoint::hit("checkpoint.segment.after_write")?;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        self.add(name, &path, bytes, crc32.finalize(), rows);
        Ok(())
    }

    /// Takes over a segment of an earlier checkpoint whose content has not changed, without copying it.
    ///
    /// # Errors
    /// When that checkpoint has no such segment, the name was used, or the file system refuses.
    pub fn reuse_segment(&mut self, name: &str, earlier: &CheckpointReader) -> Result<()> {
        let (from, entry) = earlier.locate(name)?;
        let path = self.new_segment_path(name)?;
        std::fs::hard_link(&from, &path).map_err(StateError::io("linking", &path))?;
        self.add(name, &path, entry.bytes, entry.crc32, entry.rows);
        Ok(())
    }

    /// Writes the manifest and gives the checkpoint its name. An invalid checkpoint that has the name is replaced.
    ///
    /// # Errors
    /// [`StateError::Exists`] when there is a valid checkpoint of this epoch; I/O errors.
    pub fn finish(mut self, detail: serde_json::Value) -> Result<CheckpointReader> {
        self.manifest.detail = detail;
        let path = self.temporary.join(MANIFEST);
        let mut file = File::create_new(&path).map_err(StateError::io("creating", &path))?;
        file.write_all(&document::encode(&self.manifest)?).map_err(StateError::io("writing", &path))?;
        file.sync_all().map_err(StateError::io("syncing", &path))?;
        sync_dir(&self.temporary.join(SEGMENTS))?;
        sync_dir(&self.temporary)?;
        failpoint::hit("checkpoint.writer.before_rename")?;
        let target = self.parent.join(self.manifest.epoch.to_string());
        if durable_put::publish(&self.temporary, &target)? == Put::Exists {
            if CheckpointReader::open(&target).is_ok_and(|existing| existing.verify().is_ok()) {
                return Err(StateError::Exists { path: target });
            }
            super::reader::set_aside(&target)?;
            if durable_put::publish(&self.temporary, &target)? == Put::Exists {
                return Err(StateError::Exists { path: target });
            }
        }
        self.finished = true;
        CheckpointReader::open(&target)
    }

    fn new_segment_path(&self, name: &str) -> Result<PathBuf> {
        let path = self.temporary.join(SEGMENTS).join(format!("{}.arrow", file_name_of(name)));
        if self.manifest.segments.iter().any(|segment| segment.name == name) {
            return Err(StateError::Exists { path });
        }
        Ok(path)
    }

    fn add(&mut self, name: &str, path: &Path, bytes: u64, crc32: u32, rows: u64) {
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        self.manifest.segments.push(SegmentEntry { name: name.to_string(), file, bytes, crc32, rows });
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

struct Checksumming<W> {
    inner: W,
    crc32: crc32fast::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Checksumming<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.crc32.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
