//! Parts: row groups that are encoded in the background while the engine goes on.
//!
//! `start` hands rows to a blocking thread and returns at once, unless so many parts are being encoded that the sink is what limits the
//! pipeline: then it waits, which is the back-pressure. Whoever needs the bytes waits for them.

use super::format::{Encoding, Keep};
use super::layout::Layout;
use super::{hit, io_error, state_error};
use crate::error::{ConnectorError, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{cast, max, min};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use millstream_state::{Compression, ipc};
use millstream_types::cores;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Semaphore;

/// Bytes in memory or in the scratch directory.
#[derive(Debug, Clone)]
pub(crate) enum Blob {
    Memory(Bytes),
    File { path: PathBuf, bytes: u64 },
}

impl Blob {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Blob::Memory(bytes) => bytes.len() as u64,
            Blob::File { bytes, .. } => *bytes,
        }
    }

    /// The file of a blob in the scratch directory.
    pub(crate) fn open(&self) -> Result<File> {
        match self {
            Blob::File { path, .. } => File::open(path).map_err(io_error("opening", path)),
            Blob::Memory(_) => Err(ConnectorError::internal("opening bytes in memory as a file", std::io::Error::other("not a file"))),
        }
    }

    pub(crate) fn bytes(&self) -> Result<Bytes> {
        match self {
            Blob::Memory(bytes) => Ok(bytes.clone()),
            Blob::File { path, .. } => Ok(std::fs::read(path).map_err(io_error("reading", path))?.into()),
        }
    }

    pub(crate) fn copy_to(&self, out: &mut Output) -> Result<()> {
        out.write_all(&self.bytes()?).map_err(io_error("writing", &out.path))
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Blob::Memory(_) => None,
            Blob::File { path, .. } => Some(path),
        }
    }
}

/// A file that is being written, counted and checksummed.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    file: BufWriter<File>,
    crc32: crc32fast::Hasher,
    bytes: u64,
}

impl Output {
    /// Creates or truncates the file.
    pub(crate) fn create(path: &Path) -> Result<Output> {
        let file = File::create(path).map_err(io_error("creating", path))?;
        Ok(Output { path: path.to_path_buf(), file: BufWriter::with_capacity(256 * 1024, file), crc32: crc32fast::Hasher::new(), bytes: 0 })
    }

    /// Its path, as errors name it.
    pub(crate) fn place(&self) -> String {
        format!("\"{}\"", self.path.display())
    }

    /// Writes what is left, syncs if asked, and tells size and checksum.
    pub(crate) fn finish(self, sync: bool) -> Result<(u64, u32)> {
        let file = self.file.into_inner().map_err(|error| io_error("writing", &self.path)(error.into_error()))?;
        if sync {
            file.sync_all().map_err(io_error("syncing", &self.path))?;
        }
        Ok((self.bytes, self.crc32.finalize()))
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc32.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// An encoded part.
#[derive(Debug)]
pub(crate) struct PartData {
    pub(crate) rows: u64,
    /// What goes into the file; `None` for [`Keep::Rows`].
    pub(crate) encoded: Option<Blob>,
    /// The rows as an Arrow IPC stream; `None` for [`Keep::Encoded`].
    pub(crate) kept: Option<Blob>,
    pub(crate) event_time: Option<(i64, i64)>,
    pub(crate) synced: AtomicBool,
}

impl PartData {
    /// Its size as far as the roll is concerned.
    pub(crate) fn size(&self) -> u64 {
        self.encoded.as_ref().or(self.kept.as_ref()).map_or(0, Blob::len)
    }

    pub(crate) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        self.encoded.iter().chain(&self.kept)
    }

    /// Makes its files durable.
    pub(crate) fn sync(&self) -> Result<()> {
        if self.synced.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        for path in self.blobs().filter_map(Blob::path) {
            File::open(path).and_then(|file| file.sync_all()).map_err(io_error("syncing", path))?;
        }
        Ok(())
    }

    /// The rows, as they were.
    pub(crate) fn decode(&self, encoding: &dyn Encoding) -> Result<Vec<RecordBatch>> {
        match (&self.kept, &self.encoded) {
            (Some(kept), _) => {
                let bytes = kept.bytes()?;
                Ok(ipc::read_stream(bytes.as_ref()).map_err(state_error(kept.path().unwrap_or(Path::new("rows in memory"))))?.1)
            }
            (None, Some(encoded)) => encoding.decode(encoded),
            (None, None) => Ok(Vec::new()),
        }
    }
}

type Encoded = std::result::Result<Arc<PartData>, Arc<ConnectorError>>;

/// A part, encoded or still being encoded.
#[derive(Clone)]
pub(crate) struct Part {
    pub(crate) rows: u64,
    data: Shared<BoxFuture<'static, Encoded>>,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Part").field("rows", &self.rows).field("encoded", &self.data.peek().is_some()).finish()
    }
}

impl Part {
    pub(crate) fn ready(data: PartData) -> Part {
        let rows = data.rows;
        let part = Part { rows, data: futures::future::ready(Ok(Arc::new(data))).boxed().shared() };
        let _ = part.data.clone().now_or_never();
        part
    }

    /// Waits until it is encoded.
    pub(crate) async fn data(&self) -> Result<Arc<PartData>> {
        self.data.clone().await.map_err(failed)
    }

    /// The encoded part if somebody has already waited for it.
    pub(crate) fn peek(&self) -> Option<&Arc<PartData>> {
        self.data.peek().and_then(|data| data.as_ref().ok())
    }

    /// The encoded part if it is there already.
    pub(crate) fn try_data(&self) -> Option<Result<Arc<PartData>>> {
        self.data.clone().now_or_never().map(|data| data.map_err(failed))
    }
}

fn failed(error: Arc<ConnectorError>) -> ConnectorError {
    if let ConnectorError::Unavailable { action, place, source } = error.as_ref() {
        let kind = source.downcast_ref::<std::io::Error>().map_or(std::io::ErrorKind::Other, std::io::Error::kind);
        return ConnectorError::unavailable(action, place.clone(), std::io::Error::new(kind, source.to_string()));
    }
    ConnectorError::internal("encoding rows in the background failed", error)
}

/// Encodes the parts of one sink.
#[derive(Debug)]
pub(crate) struct Encoder {
    pub(crate) encoding: Arc<dyn Encoding>,
    pub(crate) layout: Arc<Layout>,
    scratch: Option<PathBuf>,
    next: AtomicU64,
    permits: Arc<Semaphore>,
}

impl Encoder {
    pub(crate) fn new(encoding: Arc<dyn Encoding>, layout: Arc<Layout>, scratch: Option<PathBuf>) -> Encoder {
        // One part per core; whoever has the rows of the next one ready waits for a core, and back-pressure keeps memory small.
        let permits = Arc::new(Semaphore::new(cores()));
        Encoder { encoding, layout, scratch, next: AtomicU64::new(0), permits }
    }

    pub(crate) fn permits(&self) -> &Arc<Semaphore> {
        &self.permits
    }

    pub(crate) fn scratch(&self) -> Option<&Path> {
        self.scratch.as_deref()
    }

    /// Starts to encode the rows of a part.
    pub(crate) async fn start(self: &Arc<Self>, batches: Vec<RecordBatch>) -> Result<Part> {
        let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
        let closed = |error| ConnectorError::internal("the encoder is gone", error);
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        let encoder = Arc::clone(self);
        let task = tokio::task::spawn_blocking(move || {
            let data = encoder.encode(&batches);
            drop(permit);
            data
        });
        let data = async move {
            match task.await {
                Ok(Ok(data)) => Ok(Arc::new(data)),
                Ok(Err(error)) => Err(Arc::new(error)),
                Err(error) => Err(Arc::new(ConnectorError::internal("a thread that encoded rows ended early", error))),
            }
        };
        Ok(Part { rows, data: data.boxed().shared() })
    }

    fn encode(&self, batches: &[RecordBatch]) -> Result<PartData> {
        let keep = self.encoding.keep();
        let encoded = match keep {
            Keep::Rows => None,
            _ => Some(self.store("part", |out| self.encoding.encode_into(batches, out))?),
        };
        let kept = match keep {
            Keep::Encoded => None,
            _ => {
                let rows = ipc::encode(&self.layout.file, batches, Compression::Lz4).map_err(state_error(Path::new("rows in memory")))?;
                let failed = |error| ConnectorError::unavailable("writing", "rows that wait for a file", error);
                Some(self.store("rows", |out| out.write_all(&rows).map_err(failed))?)
            }
        };
        hit("sink.part.after_write")?;
        Ok(PartData {
            rows: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
            encoded,
            kept,
            event_time: event_time_range(&self.layout, batches)?,
            synced: AtomicBool::new(false),
        })
    }

    /// Keeps what `write` writes, in the scratch directory if there is one.
    fn store(&self, extension: &str, write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>) -> Result<Blob> {
        let Some(scratch) = &self.scratch else {
            let mut bytes = Vec::new();
            write(&mut bytes)?;
            return Ok(Blob::Memory(bytes.into()));
        };
        let (path, file) = loop {
            // Names of this writer that are there belong to an earlier life of the sink in the same process.
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let path = scratch.join(format!("{}-{number}.{extension}", self.layout.writer));
            match File::create_new(&path) {
                Ok(file) => break (path, file),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(io_error("creating", &path)(error)),
            }
        };
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        write(&mut out).map_err(|error| match error {
            // Whoever writes does not know where to.
            ConnectorError::Unavailable { source, .. } => ConnectorError::unavailable("writing", format!("\"{}\"", path.display()), source),
            other => other,
        })?;
        let file = out.into_inner().map_err(|error| io_error("writing", &path)(error.into_error()))?;
        let bytes = file.metadata().map_err(io_error("reading", &path))?.len();
        Ok(Blob::File { path, bytes })
    }
}

/// Smallest and largest event time of rows, in microseconds.
pub(crate) fn event_time_range(layout: &Layout, batches: &[RecordBatch]) -> Result<Option<(i64, i64)>> {
    let Some(column) = layout.event_time else { return Ok(None) };
    let mut range: Option<(i64, i64)> = None;
    for batch in batches {
        let column = batch.column(column);
        let time_zone = match column.data_type() {
            DataType::Timestamp(_, time_zone) => time_zone.clone(),
            _ => return Ok(None),
        };
        let micros = cast(column, &DataType::Timestamp(TimeUnit::Microsecond, time_zone))
            .map_err(|error| ConnectorError::internal("reading event times failed", error))?;
        let micros = micros.as_primitive::<TimestampMicrosecondType>();
        if let (Some(low), Some(high)) = (min(micros), max(micros)) {
            range = Some(range.map_or((low, high), |(first, last)| (first.min(low), last.max(high))));
        }
    }
    Ok(range)
}
