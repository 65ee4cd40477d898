//! Reads planned or logged ranges on a blocking thread; two batches wait while the engine works on another.

use super::ahead::Ahead;
use super::config::{FilesConfig, OnChange, OnMissing};
use super::slice::{FileSlice, RangeDetail};
use super::storage::{FoundFile, quoted};
use super::{arrow, avro, parquet, text};
use crate::error::{ConnectorError, Result};
use crate::formats::Format;
use crate::source::{ReadRequest, Reader, SourceBatch};
use ::arrow::datatypes::{Field, SchemaRef};
use ::parquet::file::metadata::ParquetMetaData;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use millstream_types::PartitionRange;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

/// Batches that wait for the engine.
const BATCHES_AHEAD: usize = 2;
/// Footers that are kept between planning and reading.
const FOOTERS_MAX: usize = 4_096;

/// Takes a batch; `false` when nobody wants more.
pub(crate) type Emit<'a> = dyn FnMut(Result<SourceBatch>) -> bool + 'a;

/// What planning and reading share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub config: FilesConfig,
    /// The declared columns.
    pub schema: SchemaRef,
    /// Metadata columns: key and field.
    pub metadata: Vec<(String, Field)>,
    footers: Mutex<HashMap<String, (FoundFile, Arc<ParquetMetaData>)>>,
    /// The file that the next epoch will probably begin with.
    upcoming: Mutex<Option<FoundFile>>,
}

impl Shared {
    pub(crate) fn new(config: FilesConfig, schema: SchemaRef, metadata: Vec<(String, Field)>) -> Self {
        Self { config, schema, metadata, footers: Mutex::new(HashMap::new()), upcoming: Mutex::new(None) }
    }

    /// Keeps a footer for the reader.
    pub(crate) fn keep_footer(&self, file: &FoundFile, metadata: Arc<ParquetMetaData>) {
        let mut footers = self.footers.lock();
        if footers.len() >= FOOTERS_MAX {
            footers.clear();
        }
        footers.insert(file.path.clone(), (file.clone(), metadata));
    }

    /// The footer of a file, if it was kept and the file is the same.
    pub(crate) fn footer(&self, file: &FoundFile) -> Option<Arc<ParquetMetaData>> {
        let footers = self.footers.lock();
        footers.get(&file.path).filter(|(kept, _)| file.same_version(kept)).map(|(_, metadata)| Arc::clone(metadata))
    }

    /// Tells which file comes after those that are planned.
    pub(crate) fn expect(&self, file: Option<FoundFile>) {
        *self.upcoming.lock() = file;
    }

    /// Forgets the footer of a file that is read to its end.
    pub(crate) fn drop_footer(&self, path: &str) {
        self.footers.lock().remove(path);
    }
}

/// The reader of a `files` stream.
#[derive(Debug)]
pub(crate) struct FilesReader {
    shared: Arc<Shared>,
    /// The file after the one that was asked for last. Not in `Shared`, which the thread that decodes it holds: when the reader goes,
    /// nobody waits for that file, and the thread ends.
    ahead: Arc<Mutex<Option<Ahead>>>,
}

impl FilesReader {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, ahead: Arc::default() }
    }
}

#[async_trait]
impl Reader for FilesReader {
    async fn read(&self, range: PartitionRange, request: ReadRequest) -> Result<BoxStream<'static, Result<SourceBatch>>> {
        let detail = RangeDetail::of(&range)?;
        let (shared, ahead) = (Arc::clone(&self.shared), Arc::clone(&self.ahead));
        let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
        let current = Arc::new(Mutex::new(String::new()));
        let reading = Arc::clone(&current);
        let task = tokio::task::spawn_blocking(move || {
            let mut emit = |batch| sender.blocking_send(batch).is_ok();
            for (index, slice) in detail.files.iter().enumerate() {
                reading.lock().clone_from(&slice.path);
                if sender.is_closed() {
                    return;
                }
                let next = match detail.files.get(index + 1) {
                    Some(next) => Some(next.file()),
                    None => shared.upcoming.lock().clone(),
                };
                if let Err(error) = read_slice(&shared, slice, &request, (&ahead, next), &mut emit) {
                    emit(Err(error));
                    return;
                }
            }
        });
        let batches = futures::stream::unfold((receiver, Some(task)), move |(mut receiver, mut task)| {
            let current = Arc::clone(&current);
            async move {
                if let Some(batch) = receiver.recv().await {
                    return Some((batch, (receiver, task)));
                }
                // The thread is done; a panic in a decoder on damaged input must not look like the end of the range.
                match task.take()?.await {
                    Ok(()) => None,
                    Err(error) => {
                        let place = quoted(&current.lock());
                        let problem = format!("makes the decoder fail: {error}");
                        let hint = Some(super::DAMAGED_HINT.to_string());
                        Some((Err(ConnectorError::Data { place, problem, hint }), (receiver, None)))
                    }
                }
            }
        });
        Ok(batches.boxed())
    }
}

fn read_slice(
    shared: &Arc<Shared>,
    slice: &FileSlice,
    request: &ReadRequest,
    (ahead, next): (&Mutex<Option<Ahead>>, Option<FoundFile>),
    emit: &mut Emit<'_>,
) -> Result<()> {
    let storage = &shared.config.location.storage;
    if slice.end_row == Some(slice.start_row) {
        return Ok(());
    }
    let Some(now) = storage.stat(&slice.path)? else {
        if shared.config.on_missing == OnMissing::Skip {
            tracing::warn!(path = slice.path, "file vanished before it was read");
            return Ok(());
        }
        return Err(ConnectorError::Corrupt {
            place: quoted(&slice.path),
            problem: "is gone, but its rows are part of an epoch; put it back or set on_missing = 'skip'".into(),
        });
    };
    check_unchanged(&shared.config, slice, &now)?;
    match shared.config.format.format {
        Format::Parquet => {
            let decoded = {
                let mut ahead = ahead.lock();
                let decoded = ahead.take_if(|ahead| ahead.is_of(slice));
                *ahead = next.filter(|_| storage.is_local()).and_then(|next| Ahead::start(shared, next, request));
                decoded
            };
            let left = match decoded {
                Some(decoded) => decoded.hand_out(slice, request, emit),
                None => Some(slice.start_row),
            };
            let Some(start_row) = left else { return Ok(()) };
            if slice.end_row != Some(start_row) {
                let threads = std::thread::available_parallelism().map_or(1, usize::from);
                parquet::read(shared, &FileSlice { start_row, ..slice.clone() }, request, threads, emit)?;
            }
            if slice.last {
                shared.drop_footer(&slice.path);
            }
            Ok(())
        }
        Format::Arrow => arrow::read(shared, slice, request, emit),
        Format::Avro => avro::read(shared, slice, request, emit),
        Format::Csv | Format::Json | Format::Text | Format::Raw => text::read(shared, slice, request, emit),
    }
}

/// A logged range must hold what was logged: the same version, or one whose checksum shows that it was only touched or grew.
fn check_unchanged(config: &FilesConfig, slice: &FileSlice, now: &FoundFile) -> Result<()> {
    if slice.same_version(now) {
        return Ok(());
    }
    let grows = config.can_grow(&slice.path) && config.on_change(&slice.path) == OnChange::Append;
    let may_be_same = slice.check != 0 && (now.size == slice.size || grows && now.size >= slice.checked);
    if may_be_same && config.location.storage.checksum(&slice.path, slice.checked).is_ok_and(|check| check == slice.check) {
        return Ok(());
    }
    Err(ConnectorError::Corrupt {
        place: quoted(&slice.path),
        problem: format!("is not the file that was planned: it had {} bytes and has {}, or was written again", slice.size, now.size),
    })
}
