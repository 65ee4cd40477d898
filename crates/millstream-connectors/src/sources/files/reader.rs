//! Reads planned or logged ranges on a blocking thread; two batches wait while the engine works on another.

use super::ahead::{AHEAD_FILES, Decoded, ReadAhead};
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
use millstream_types::{PartitionRange, cores};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// The files that the next epochs will probably begin with.
    upcoming: Mutex<Vec<FoundFile>>,
    /// Several of them are being decoded.
    far_ahead: AtomicBool,
}

impl Shared {
    pub(crate) fn new(config: FilesConfig, schema: SchemaRef, metadata: Vec<(String, Field)>) -> Self {
        Self {
            config,
            schema,
            metadata,
            footers: Mutex::new(HashMap::new()),
            upcoming: Mutex::default(),
            far_ahead: AtomicBool::new(false),
        }
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

    /// Tells which files come after those that are planned.
    pub(crate) fn expect(&self, files: Vec<FoundFile>) {
        *self.upcoming.lock() = files;
    }

    /// Whether the files that come next are being decoded, so that they will hardly be waited for.
    pub(crate) fn is_far_ahead(&self) -> bool {
        self.far_ahead.load(Ordering::Relaxed)
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
    /// Not in `Shared`, which the threads that decode hold: when the reader goes, nobody waits for those files, and the threads end.
    ahead: Arc<Mutex<ReadAhead>>,
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
        if let [slice] = detail.files.as_slice()
            && let Some(decoded) = self.decoded(slice, &request)?
        {
            return Ok(self.hand_out(decoded, request));
        }
        Ok(self.read_on_thread(detail.files, request))
    }
}

impl FilesReader {
    /// What is decoded ahead of a slice. No thread is needed to hand it out: waking one up, and being woken up by it, takes longer on
    /// busy cores than all the rest of a small epoch.
    fn decoded(&self, slice: &FileSlice, request: &ReadRequest) -> Result<Option<Decoded>> {
        let storage = &self.shared.config.location.storage;
        if !self.ahead.lock().has(slice) || storage.stat(&slice.path)?.is_none_or(|now| !slice.same_version(&now)) {
            return Ok(None);
        }
        let mut ahead = self.ahead.lock();
        let decoded = ahead.take(slice, request);
        ahead.expect(&self.shared, &self.shared.upcoming.lock(), request);
        Ok(decoded)
    }

    fn hand_out(&self, decoded: Decoded, request: ReadRequest) -> BoxStream<'static, Result<SourceBatch>> {
        enum Reading {
            Decoded(Box<Decoded>, usize),
            Rest(BoxStream<'static, Result<SourceBatch>>),
        }
        let reader = Self { shared: Arc::clone(&self.shared), ahead: Arc::clone(&self.ahead) };
        let batches = futures::stream::unfold(
            (Reading::Decoded(Box::new(decoded), 0), reader, request),
            |(mut reading, reader, request)| async move {
                loop {
                    match &mut reading {
                        Reading::Rest(batches) => return batches.next().await.map(|batch| (batch, (reading, reader, request))),
                        Reading::Decoded(decoded, bytes) => {
                            if let Some(batch) = decoded.next().await {
                                *bytes += batch.batch.get_array_memory_size();
                                return Some((Ok(batch), (reading, reader, request)));
                            }
                            let Some(left) = decoded.left() else {
                                reader.done(decoded.slice(), *bytes);
                                return None;
                            };
                            reading = Reading::Rest(reader.read_on_thread(vec![left], request.clone()));
                        }
                    }
                }
            },
        );
        batches.boxed()
    }

    fn read_on_thread(&self, files: Vec<FileSlice>, request: ReadRequest) -> BoxStream<'static, Result<SourceBatch>> {
        let reader = Self { shared: Arc::clone(&self.shared), ahead: Arc::clone(&self.ahead) };
        let (sender, receiver) = tokio::sync::mpsc::channel(BATCHES_AHEAD);
        let current = Arc::new(Mutex::new(String::new()));
        let reading = Arc::clone(&current);
        let task = tokio::task::spawn_blocking(move || {
            let mut emit = |batch| sender.blocking_send(batch).is_ok();
            for (index, slice) in files.iter().enumerate() {
                reading.lock().clone_from(&slice.path);
                if sender.is_closed() {
                    return;
                }
                let mut next: Vec<FoundFile> = files.iter().skip(index + 1).take(AHEAD_FILES).map(FileSlice::file).collect();
                next.extend(reader.shared.upcoming.lock().iter().cloned());
                if let Err(error) = reader.read_slice(slice, &request, &next, &mut emit) {
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
        batches.boxed()
    }

    fn read_slice(&self, slice: &FileSlice, request: &ReadRequest, next: &[FoundFile], emit: &mut Emit<'_>) -> Result<()> {
        let shared = &self.shared;
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
            Format::Parquet => self.read_parquet(slice, request, next, emit),
            Format::Arrow => arrow::read(shared, slice, request, emit),
            Format::Avro => avro::read(shared, slice, request, emit),
            Format::Csv | Format::Json | Format::Text | Format::Raw => text::read(shared, slice, request, emit),
        }
    }

    fn read_parquet(&self, slice: &FileSlice, request: &ReadRequest, next: &[FoundFile], emit: &mut Emit<'_>) -> Result<()> {
        let shared = &self.shared;
        let decoded = {
            let mut ahead = self.ahead.lock();
            let decoded = ahead.take(slice, request);
            if shared.config.location.storage.is_local() {
                ahead.expect(shared, next, request);
            }
            decoded
        };
        let mut bytes = 0;
        let mut wanted = true;
        let mut emit = |batch: Result<SourceBatch>| {
            bytes += batch.as_ref().map_or(0, |batch| batch.batch.get_array_memory_size());
            wanted = emit(batch);
            wanted
        };
        let mut left = Some(slice.clone());
        if let Some(mut decoded) = decoded {
            while let Some(batch) = decoded.next_blocking() {
                if !emit(Ok(batch)) {
                    return Ok(());
                }
            }
            left = decoded.left();
        }
        if let Some(left) = left {
            parquet::read(shared, &left, request, cores(), &mut emit)?;
        }
        if wanted {
            self.done(slice, bytes);
        }
        Ok(())
    }

    /// A slice was handed out to its end.
    fn done(&self, slice: &FileSlice, bytes: usize) {
        {
            let mut ahead = self.ahead.lock();
            ahead.learn(bytes);
            self.shared.far_ahead.store(ahead.is_far(), Ordering::Relaxed);
        }
        if slice.last {
            self.shared.drop_footer(&slice.path);
        }
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
