//! Writing a checkpoint.

use super::manifest::{MANIFEST, MANIFEST_FORMAT, Manifest, PACK, SEGMENTS, SegmentEntry, file_name_of};
use super::reader::CheckpointReader;
use crate::durable_put::{self, Put, sync_dir};
use crate::error::{Result, StateError};
use crate::ipc::{self, Compression};
use crate::state_dir::StateDir;
use crate::{document, failpoint};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use millstream_types::Epoch;
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Writes one checkpoint. Dropped without [`finish`](Self::finish) it leaves nothing.
#[derive(Debug)]
pub struct CheckpointWriter {
    parent: PathBuf,
    temporary: PathBuf,
    manifest: Manifest,
    pack: Option<Segments>,
    names: HashSet<String>,
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
        Ok(CheckpointWriter {
            parent,
            temporary,
            manifest,
            pack: None,
            names: HashSet::new(),
            compression: Compression::default(),
            finished: false,
        })
    }

    /// Chooses the compression of the segments that follow; LZ4 unless told.
    #[must_use]
    pub fn with_compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Writes a segment of batches that share `schema`, behind those written before. Names are any text, each used once.
    ///
    /// # Errors
    /// When a batch has another schema, the name was used, or the disk refuses.
    pub fn write_segment(&mut self, name: &str, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
        self.check_name(name)?;
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => none.insert(Segments::create(self.temporary.join(SEGMENTS).join(PACK))?),
        };
        let written = pack.write(schema, batches, self.compression)?;
        self.manifest.segments.push(SegmentEntry { name: name.to_string(), file: PACK.to_string(), ..written });
        failpoint::hit("checkpoint.segment.after_write")
    }

    /// As [`write_segment`](Self::write_segment), to be taken over by later checkpoints with [`reuse_segment`](Self::reuse_segment).
    ///
    /// # Errors
    /// As [`write_segment`](Self::write_segment).
    pub fn write_shared_segment(&mut self, name: &str, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<()> {
        self.check_name(name)?;
        let file = shared_file(name);
        let mut segments = Segments::create(self.temporary.join(SEGMENTS).join(&file))?;
        let written = segments.write(schema, batches, self.compression)?;
        segments.sync()?;
        self.manifest.segments.push(SegmentEntry { name: name.to_string(), file, ..written });
        failpoint::hit("checkpoint.segment.after_write")
    }

    /// Takes over a shared segment of an earlier checkpoint whose content has not changed, without copying it.
    ///
    /// # Errors
    /// When that checkpoint has no such segment, it was not written to be shared, the name was used, or the file system refuses.
    pub fn reuse_segment(&mut self, name: &str, earlier: &CheckpointReader) -> Result<()> {
        self.check_name(name)?;
        let (from, entry) = earlier.locate(name)?;
        if entry.file == PACK {
            return Err(StateError::NotFound { what: "shared segment", name: name.to_string(), path: from });
        }
        let file = shared_file(name);
        let path = self.temporary.join(SEGMENTS).join(&file);
        std::fs::hard_link(&from, &path).map_err(StateError::io("linking", &path))?;
        self.manifest.segments.push(SegmentEntry { name: name.to_string(), file, ..entry.clone() });
        Ok(())
    }

    /// Writes the manifest and gives the checkpoint its name. An invalid checkpoint that has the name is replaced.
    ///
    /// # Errors
    /// [`StateError::Exists`] when there is a valid checkpoint of this epoch; I/O errors.
    pub fn finish(mut self, detail: serde_json::Value) -> Result<CheckpointReader> {
        self.manifest.detail = detail;
        if let Some(pack) = self.pack.take() {
            pack.sync()?;
        }
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

    fn check_name(&mut self, name: &str) -> Result<()> {
        match self.names.insert(name.to_string()) {
            true => Ok(()),
            false => Err(StateError::Exists { path: self.temporary.join(SEGMENTS).join(shared_file(name)) }),
        }
    }
}

/// The file of a segment that has one of its own.
fn shared_file(name: &str) -> String {
    format!("{}.arrow", file_name_of(name))
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        if !self.finished {
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// A file of segments, one after the other.
#[derive(Debug)]
struct Segments {
    path: PathBuf,
    out: BufWriter<File>,
    end: u64,
}

impl Segments {
    fn create(path: PathBuf) -> Result<Self> {
        let file = File::create_new(&path).map_err(StateError::io("creating", &path))?;
        Ok(Self { path, out: BufWriter::with_capacity(1 << 20, file), end: 0 })
    }

    /// Writes a segment; gives its place, size, checksum and rows.
    fn write(&mut self, schema: &SchemaRef, batches: &[RecordBatch], compression: Compression) -> Result<SegmentEntry> {
        let mut out = Checksumming { inner: &mut self.out, crc32: crc32fast::Hasher::new(), bytes: 0 };
        ipc::write_stream(&mut out, schema, batches, compression).map_err(|error| error.of_file(&self.path))?;
        let Checksumming { crc32, bytes, .. } = out;
        let offset = self.end;
        self.end += bytes;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        Ok(SegmentEntry { name: String::new(), file: String::new(), offset, bytes, crc32: crc32.finalize(), rows })
    }

    fn sync(self) -> Result<()> {
        let Self { path, out, .. } = self;
        let file = out.into_inner().map_err(|error| StateError::io("writing", &path)(error.into_error()))?;
        file.sync_all().map_err(StateError::io("syncing", &path))
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
