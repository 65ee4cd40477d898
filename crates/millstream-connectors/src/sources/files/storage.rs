//! Where the bytes of files are: the local file system or an object store, behind one small blocking interface.
//!
//! Everything here blocks and is called on blocking threads only; object-store calls run on the ambient Tokio runtime.

use crate::error::{ConnectorError, Result};
use crate::reach;
use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{ChunkReader, Length};
use bytes::{Buf, Bytes};
use futures::TryStreamExt;
use millstream_types::Reach;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

/// How much an object-store reader asks for at once.
const OBJECT_CHUNK_BYTES: u64 = 8 << 20;
/// A column chunk of a local file that is not longer is read at once.
const CHUNK_BYTES: u64 = 1 << 20;
/// Bytes at either end of what was read that a checksum covers.
const CHECK_BYTES: u64 = 4 << 10;

/// A file as a listing shows it. Size, time and etag are its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundFile {
    /// Its identity: the path as the user would write it.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Modification time, microseconds since 1970.
    pub modified: i64,
    /// Of an object store.
    pub etag: Option<String>,
}

impl FoundFile {
    /// Whether size, time and etag are the same.
    pub(crate) fn same_version(&self, other: &FoundFile) -> bool {
        self.size == other.size && self.modified == other.modified && self.etag == other.etag
    }
}

/// A reader that can be positioned.
pub(crate) trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// Access to the files of one source.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// The local file system; paths are file names.
    Local(Reach),
    /// An object store; paths are `root` plus the object's path.
    Object {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// For instance `s3://bucket`.
        root: String,
    },
}

fn io_error(error: object_store::Error) -> io::Error {
    match error {
        object_store::Error::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, error),
        other => io::Error::other(other),
    }
}

/// Runs a future on the ambient runtime from a blocking thread.
fn wait<T>(future: impl Future<Output = object_store::Result<T>>) -> io::Result<T> {
    tokio::runtime::Handle::try_current().map_err(io::Error::other)?.block_on(future).map_err(io_error)
}

impl Storage {
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Storage::Local(_))
    }

    fn object_path(root: &str, path: &str) -> io::Result<ObjectPath> {
        let relative = path.strip_prefix(root).unwrap_or(path).trim_start_matches('/');
        ObjectPath::parse(relative).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }

    pub(crate) fn found_object(root: &str, meta: &ObjectMeta) -> FoundFile {
        FoundFile {
            path: format!("{root}/{}", meta.location),
            size: meta.size,
            modified: meta.last_modified.timestamp_micros(),
            etag: meta.e_tag.clone(),
        }
    }

    pub(crate) fn found_local(path: &str, metadata: &std::fs::Metadata) -> io::Result<FoundFile> {
        let modified = match metadata.modified()?.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros),
        };
        Ok(FoundFile { path: path.to_string(), size: metadata.len(), modified, etag: None })
    }

    /// The file as it is now; `None` when it is not there.
    pub(crate) fn stat(&self, path: &str) -> Result<Option<FoundFile>> {
        let found = match self {
            Storage::Local(_) => std::fs::metadata(path).and_then(|metadata| Self::found_local(path, &metadata)),
            Storage::Object { store, root } => {
                Self::object_path(root, path).and_then(|at| wait(store.head(&at))).map(|meta| Self::found_object(root, &meta))
            }
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ConnectorError::unavailable("looking at file", quoted(path), error)),
        }
    }

    /// The objects under a prefix; only for object stores.
    pub(crate) fn list_objects(&self, prefix: &str, recursive: bool) -> io::Result<Vec<FoundFile>> {
        let Storage::Object { store, root } = self else { return Ok(Vec::new()) };
        let prefix = Some(ObjectPath::parse(prefix).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?);
        let metas = match recursive {
            true => wait(store.list(prefix.as_ref()).try_collect::<Vec<_>>())?,
            false => wait(store.list_with_delimiter(prefix.as_ref()))?.objects,
        };
        Ok(metas.iter().map(|meta| Self::found_object(root, meta)).collect())
    }

    /// The bytes of a file from `start` on.
    pub(crate) fn open(&self, path: &str, size: u64, start: u64) -> io::Result<Box<dyn ReadSeek>> {
        match self {
            Storage::Local(reach) => {
                let mut file = reach::open(reach, path)?;
                if start > 0 {
                    file.seek(SeekFrom::Start(start))?;
                }
                Ok(Box::new(file))
            }
            Storage::Object { store, root } => Ok(Box::new(ObjectReader {
                store: Arc::clone(store),
                path: Self::object_path(root, path)?,
                size,
                position: start,
                chunk: Bytes::new(),
            })),
        }
    }

    /// A file for the Parquet reader.
    pub(crate) fn blob(&self, path: &str, size: u64) -> io::Result<Blob> {
        Ok(match self {
            Storage::Local(reach) => Blob::new(size, BlobKind::Local(Arc::new(reach::open(reach, path)?))),
            Storage::Object { store, root } => {
                Blob::new(size, BlobKind::Object { store: Arc::clone(store), path: Self::object_path(root, path)? })
            }
        })
    }

    /// CRC-32 over the first and the last 4 KiB of the first `length` bytes. Tells a file that only grew or was touched from one that was
    /// rewritten, for the price of two reads.
    pub(crate) fn checksum(&self, path: &str, length: u64) -> io::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        let mut buffer = Vec::new();
        let mut reader = self.open(path, length, 0)?;
        reader.by_ref().take(length.min(CHECK_BYTES)).read_to_end(&mut buffer)?;
        hasher.update(&buffer);
        if length > CHECK_BYTES {
            buffer.clear();
            reader.seek(SeekFrom::Start(length - CHECK_BYTES))?;
            reader.take(CHECK_BYTES).read_to_end(&mut buffer)?;
            hasher.update(&buffer);
        }
        Ok(hasher.finalize().max(1))
    }

    /// Removes a file; one that is gone already is no error.
    pub(crate) fn remove(&self, path: &str) -> io::Result<()> {
        let removed = match self {
            Storage::Local(reach) => reach::check_changed(reach, path).and_then(|()| std::fs::remove_file(path)),
            Storage::Object { store, root } => wait(store.delete(&Self::object_path(root, path)?)),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Moves a file; one that is gone already is no error. An existing target is kept under its name and the file gets a number appended.
    pub(crate) fn archive(&self, path: &str, target: &str) -> io::Result<()> {
        match self {
            Storage::Local(reach) => {
                if !Path::new(path).exists() {
                    return Ok(());
                }
                reach::check_changed(reach, path)?;
                reach::check_changed(reach, target)?;
                if let Some(parent) = Path::new(target).parent() {
                    std::fs::create_dir_all(parent)?;
                }
                let mut free = target.to_string();
                let mut number = 1_u32;
                while Path::new(&free).exists() {
                    free = format!("{target}.{number}");
                    number += 1;
                }
                match std::fs::rename(path, &free) {
                    Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                        // Under a name that no reader takes until it is whole.
                        let partial = format!("{free}.inprogress");
                        std::fs::copy(path, &partial)?;
                        std::fs::rename(&partial, &free)?;
                        std::fs::remove_file(path)
                    }
                    other => other,
                }
            }
            Storage::Object { store, root } => {
                let (from, to) = (Self::object_path(root, path)?, Self::object_path(root, target)?);
                match wait(store.rename(&from, &to)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                }
            }
        }
    }
}

/// A path in messages.
pub(crate) fn quoted(path: &str) -> String {
    format!("\"{path}\"")
}

/// Reads an object in large chunks.
#[derive(Debug)]
struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    size: u64,
    position: u64,
    chunk: Bytes,
}

impl Read for ObjectReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() && self.position < self.size && !buffer.is_empty() {
            let end = self.size.min(self.position + OBJECT_CHUNK_BYTES);
            self.chunk = wait(self.store.get_range(&self.path, self.position..end))?;
            if self.chunk.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let count = buffer.len().min(self.chunk.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for ObjectReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
        };
        let target = target.ok_or(io::ErrorKind::InvalidInput)?;
        if target != self.position {
            self.chunk = Bytes::new();
            self.position = target;
        }
        Ok(target)
    }
}

/// A file as the Parquet reader wants it.
#[derive(Debug, Clone)]
pub(crate) struct Blob {
    size: u64,
    kind: BlobKind,
    /// Parts of it that are in memory, by their first byte.
    fetched: Vec<(u64, Bytes)>,
}

#[derive(Debug, Clone)]
enum BlobKind {
    Local(Arc<File>),
    Object { store: Arc<dyn ObjectStore>, path: ObjectPath },
}

impl Blob {
    fn new(size: u64, kind: BlobKind) -> Self {
        Self { size, kind, fetched: Vec::new() }
    }

    /// Fetches column chunks that will be read, instead of two small reads for each of their pages: of an object all of them, neighbours
    /// in one request; of a local file the short ones, since long ones have long pages.
    pub(crate) fn prefetch(&mut self, chunks: &[Range<u64>]) -> io::Result<()> {
        self.fetched = match &self.kind {
            BlobKind::Local(file) => {
                let short = chunks.iter().filter(|chunk| chunk.end - chunk.start <= CHUNK_BYTES);
                let read = |chunk: &Range<u64>| Ok((chunk.start, read_range(file, chunk.start, (chunk.end - chunk.start) as usize)?));
                short.map(read).collect::<io::Result<_>>()?
            }
            BlobKind::Object { store, path } => {
                let parts = wait(store.get_ranges(path, chunks))?;
                chunks.iter().map(|chunk| chunk.start).zip(parts).collect()
            }
        };
        Ok(())
    }

    /// What was fetched from a position on, in one chunk.
    fn fetched_from(&self, start: u64) -> Option<Bytes> {
        let (from, bytes) = self.fetched.iter().find(|(from, bytes)| *from <= start && start < from + bytes.len() as u64)?;
        Some(bytes.slice((start - from) as usize..))
    }
}

fn read_range(file: &File, start: u64, length: usize) -> io::Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; length];
    file.read_exact_at(&mut buffer, start)?;
    Ok(buffer.into())
}

/// Reads a local file from a position of its own: several threads decode columns of one open file.
#[derive(Debug)]
struct LocalReader {
    file: Arc<File>,
    position: u64,
}

impl Read for LocalReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Length for Blob {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Blob {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        if let Some(bytes) = self.fetched_from(start) {
            return Ok(Box::new(bytes.reader()));
        }
        match &self.kind {
            BlobKind::Local(file) => Ok(Box::new(BufReader::new(LocalReader { file: Arc::clone(file), position: start }))),
            BlobKind::Object { store, path } => {
                let reader =
                    ObjectReader { store: Arc::clone(store), path: path.clone(), size: self.size, position: start, chunk: Bytes::new() };
                Ok(Box::new(reader))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.size) {
            return Err(ParquetError::EOF(format!("bytes {start} to {start} + {length} are beyond its end at {}", self.size)));
        }
        if let Some(bytes) = self.fetched_from(start).filter(|bytes| bytes.len() >= length) {
            return Ok(bytes.slice(..length));
        }
        match &self.kind {
            BlobKind::Local(file) => Ok(read_range(file, start, length)?),
            BlobKind::Object { store, path } => Ok(wait(store.get_range(path, start..start + length as u64))?),
        }
    }
}
