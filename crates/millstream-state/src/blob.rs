//! Batches that are written once and named by their hash: content of at-rest tables in `tables/<hash>.arrow`, refused rows in
//! `deadletter/<hash>.arrow`.
//!
//! A continuous query that loads a file or a table at rest reads *this* copy ever after, so that recovery sees the same rows although
//! the original has changed. Equal content is stored once.

use crate::durable_put::{self, Put};
use crate::error::{Result, StateError};
use crate::failpoint;
use crate::ipc::{self, Compression};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

/// Names one stored content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// 128-bit xxh3 of the stored bytes, hexadecimal.
    pub hash: String,
    /// Rows.
    pub rows: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A store of batches.
#[derive(Debug, Clone)]
pub struct BlobStore {
    directory: PathBuf,
}

impl BlobStore {
    pub(crate) fn new(directory: PathBuf) -> BlobStore {
        BlobStore { directory }
    }

    /// Durably stores batches that share `schema`; a no-op when the same content is there.
    ///
    /// # Errors
    /// When a batch has another schema or the disk refuses.
    pub fn put(&self, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<BlobRef> {
        let (temporary, file) = durable_put::create_temporary(&self.directory.join("content"))?;
        let stored = self.write(&temporary, file, schema, batches);
        if stored.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        stored
    }

    fn write(&self, temporary: &Path, file: File, schema: &SchemaRef, batches: &[RecordBatch]) -> Result<BlobRef> {
        let mut out = Hashing { inner: BufWriter::with_capacity(1 << 20, file), hash: Xxh3::new(), bytes: 0 };
        ipc::write_stream(&mut out, schema, batches, Compression::Lz4).map_err(|error| error.of_file(temporary))?;
        let file = out.inner.into_inner().map_err(|error| StateError::io("writing", temporary)(error.into_error()))?;
        file.sync_all().map_err(StateError::io("syncing", temporary))?;
        failpoint::hit("blob.after_temp")?;
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let blob = BlobRef { hash: format!("{:032x}", out.hash.digest128()), rows, bytes: out.bytes };
        if durable_put::publish(temporary, &self.path(&blob.hash))? == Put::Exists {
            std::fs::remove_file(temporary).map_err(StateError::io("removing", temporary))?;
        }
        Ok(blob)
    }

    /// Whether the content is there.
    pub fn contains(&self, blob: &BlobRef) -> bool {
        self.path(&blob.hash).is_file()
    }

    /// The stored batches.
    ///
    /// # Errors
    /// [`StateError::NotFound`] when it is not there, [`StateError::Corrupt`] when its bytes do not have the hash.
    pub fn get(&self, blob: &BlobRef) -> Result<(SchemaRef, Vec<RecordBatch>)> {
        let path = self.path(&blob.hash);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StateError::NotFound { what: "stored content", name: blob.hash.clone(), path: self.directory.clone() });
            }
            Err(error) => return Err(StateError::Io { action: "opening", path, source: error }),
        };
        let mut bytes = Vec::new();
        BufReader::new(file).read_to_end(&mut bytes).map_err(StateError::io("reading", &path))?;
        let mut hash = Xxh3::new();
        hash.update(&bytes);
        let found = format!("{:032x}", hash.digest128());
        if found != blob.hash {
            return Err(StateError::corrupt(&path, None, format!("its content has the hash {found}")));
        }
        ipc::read_stream(bytes.as_slice())
    }

    /// Removes content that is not in `hashes`, and temporary files. Returns how many contents went.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn retain(&self, hashes: &HashSet<String>) -> Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.directory).map_err(StateError::io("listing", &self.directory))? {
            let entry = entry.map_err(StateError::io("listing", &self.directory))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let unreferenced = name.strip_suffix(".arrow").is_some_and(|hash| !hashes.contains(hash));
            if unreferenced || durable_put::is_temporary(name) {
                std::fs::remove_file(entry.path()).map_err(StateError::io("removing", entry.path()))?;
                removed += usize::from(unreferenced);
            }
        }
        Ok(removed)
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.directory.join(format!("{hash}.arrow"))
    }
}

struct Hashing<W> {
    inner: W,
    hash: Xxh3,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{DataType, Field, Schema};
    use std::sync::Arc;

    fn batch(values: &[i64]) -> RecordBatch {
        let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::Int64, false)]));
        RecordBatch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))]).unwrap()
    }

    #[test]
    fn equal_content_is_stored_once_and_verified() {
        let directory = tempfile::tempdir().unwrap();
        let store = BlobStore::new(directory.path().to_path_buf());
        let schema = batch(&[]).schema();
        let one = store.put(&schema, &[batch(&[1, 2, 3])]).unwrap();
        assert_eq!(store.put(&schema, &[batch(&[1, 2, 3])]).unwrap(), one);
        let two = store.put(&schema, &[batch(&[4])]).unwrap();
        assert_ne!(one.hash, two.hash);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
        assert_eq!(store.get(&one).unwrap().1, [batch(&[1, 2, 3])]);

        assert_eq!(store.retain(&HashSet::from([one.hash.clone()])).unwrap(), 1);
        assert!(matches!(store.get(&two), Err(StateError::NotFound { .. })));

        let path = directory.path().join(format!("{}.arrow", one.hash));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(store.get(&one), Err(StateError::Corrupt { .. })));
    }
}
