//! Parquet files: the footer is read once when an epoch is planned, and row groups are decoded with the declared projection, the
//! columns of a large one by several threads. Event times that nobody reads are taken from the footer's statistics, where these prove
//! that no row is late.

use super::columnar::ColumnarFile;
use super::inspect::Group;
use super::reader::{Emit, Shared};
use super::slice::FileSlice;
use super::storage::{Blob, FoundFile, Storage, quoted};
use crate::error::{ConnectorError, Result};
use crate::source::{ReadRequest, SourceBatch};
use ::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use ::arrow::datatypes::{DataType, FieldRef, Fields, Schema, TimeUnit, TimestampMicrosecondType};
use ::arrow::error::ArrowError;
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use ::parquet::file::reader::ChunkReader;
use millstream_types::EventTime;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

const MAGIC: &[u8; 4] = b"PAR1";
/// Magic, footer length and magic: less is no Parquet file.
const SMALLEST_FILE: u64 = 12;

/// A further thread decodes columns of a row group for each of so many compressed bytes: some hundred microseconds of work.
const LANE_BYTES: u64 = 96 * 1024;

/// A batch as the file stores it.
type Stored = Result<RecordBatch, ArrowError>;

/// Why a file is no Parquet file (yet).
#[derive(Debug)]
pub(crate) enum NotParquet {
    /// It may still be in the writing.
    Incomplete(&'static str),
    /// It is broken, or cannot be reached.
    Failed(ConnectorError),
}

/// Opens a file that ends as a Parquet file does: with a footer that is not longer than itself. Readers that take its length for granted
/// panic.
pub(crate) fn open(storage: &Storage, file: &FoundFile) -> Result<Blob, NotParquet> {
    if file.size == 0 {
        return Err(NotParquet::Incomplete("is empty"));
    }
    if file.size < SMALLEST_FILE {
        return Err(NotParquet::Incomplete("is too short to be a Parquet file"));
    }
    let failed = |error: ParquetError| NotParquet::Failed(parquet_error(&file.path, error));
    let blob = storage.blob(&file.path, file.size).map_err(|error| NotParquet::Failed(super::text::read_error(&file.path, error)))?;
    let tail = blob.get_bytes(file.size - 8, 8).map_err(failed)?;
    if tail[4..] != MAGIC[..] {
        return Err(NotParquet::Incomplete("does not end with a Parquet footer"));
    }
    let footer_bytes = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer_bytes + SMALLEST_FILE > file.size {
        return Err(NotParquet::Failed(ConnectorError::Data {
            place: quoted(&file.path),
            problem: format!("is no valid Parquet file: its footer would be {footer_bytes} bytes long, the file has {}", file.size),
            hint: Some(super::DAMAGED_HINT.into()),
        }));
    }
    Ok(blob)
}

/// Reads the footer.
pub(crate) fn load(storage: &Storage, file: &FoundFile) -> Result<Arc<ParquetMetaData>, NotParquet> {
    // First, since the length decides how much is read into memory.
    let blob = open(storage, file)?;
    let failed = |error: ParquetError| NotParquet::Failed(parquet_error(&file.path, error));
    let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip);
    let metadata = reader.parse_and_finish(&blob).map_err(failed)?;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let inside = group.columns().iter().all(|column| {
            let start = column.dictionary_page_offset().map_or(column.data_page_offset(), |at| at.min(column.data_page_offset()));
            let end = start.checked_add(column.compressed_size());
            start >= 0 && column.compressed_size() >= 0 && end.and_then(|end| u64::try_from(end).ok()).is_some_and(|end| end <= file.size)
        });
        if !inside || group.num_rows() < 0 {
            return Err(NotParquet::Failed(ConnectorError::Data {
                place: quoted(&file.path),
                problem: format!("is no valid Parquet file: row group {index} lies outside the file"),
                hint: Some(super::DAMAGED_HINT.into()),
            }));
        }
    }
    Ok(Arc::new(metadata))
}

fn parquet_error(path: &str, error: ParquetError) -> ConnectorError {
    match error {
        ParquetError::External(source) => ConnectorError::unavailable("reading file", quoted(path), source),
        other => ConnectorError::Data {
            place: quoted(path),
            problem: format!("is no valid Parquet file: {}", super::library_message(&other)),
            hint: Some(super::DAMAGED_HINT.into()),
        },
    }
}

/// Rows and bytes of each row group.
pub(crate) fn groups(metadata: &ParquetMetaData) -> Vec<Group> {
    let groups = metadata.row_groups().iter();
    groups.map(|group| Group { rows: group.num_rows() as u64, bytes: group.compressed_size().max(0) as u64 }).collect()
}

/// The Arrow schema of a file, text as views.
fn arrow_metadata(path: &str, metadata: &Arc<ParquetMetaData>) -> Result<ArrowReaderMetadata> {
    let plain =
        ArrowReaderMetadata::try_new(Arc::clone(metadata), ArrowReaderOptions::new()).map_err(|error| parquet_error(path, error))?;
    let viewed = Arc::new(Schema::new(plain.schema().fields().iter().map(with_views).collect::<Vec<_>>()));
    if viewed.fields() == plain.schema().fields() {
        return Ok(plain);
    }
    // The hint is only about speed; a file that does not take it is read as it is.
    let options = ArrowReaderOptions::new().with_schema(viewed);
    Ok(ArrowReaderMetadata::try_new(Arc::clone(metadata), options).unwrap_or(plain))
}

fn with_views(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => DataType::Utf8View,
        DataType::Dictionary(_, value) if matches!(value.as_ref(), DataType::Utf8 | DataType::LargeUtf8) => DataType::Utf8View,
        DataType::List(item) => DataType::List(with_views(item)),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(with_views).collect::<Fields>()),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// The columns of a file as Arrow sees them.
pub(crate) fn schema(path: &str, metadata: &Arc<ParquetMetaData>) -> Result<Schema> {
    Ok(arrow_metadata(path, metadata)?.schema().as_ref().clone())
}

/// The smallest value of a timestamp column according to the footer, microseconds since 1970; `None` when it does not say.
pub(crate) fn min_timestamp(metadata: &Arc<ParquetMetaData>, column: &str) -> Option<i64> {
    let reader = ArrowReaderMetadata::try_new(Arc::clone(metadata), ArrowReaderOptions::new()).ok()?;
    let converter = StatisticsConverter::try_new(column, reader.schema(), reader.parquet_schema()).ok()?;
    let groups = metadata.row_groups().iter().filter(|group| group.num_rows() > 0);
    let minima = converter.row_group_mins(groups).ok()?;
    if minima.null_count() > 0 {
        return None;
    }
    let DataType::Timestamp(unit, _) = minima.data_type() else { return None };
    let plain = ::arrow::compute::cast(&minima, &DataType::Int64).ok()?;
    let plain = ::arrow::compute::cast(&plain, &DataType::Timestamp(*unit, None)).ok()?;
    let micros = ::arrow::compute::cast(&plain, &DataType::Timestamp(TimeUnit::Microsecond, None)).ok()?;
    // Without rows there is nothing that could be late.
    Some(micros.as_primitive::<TimestampMicrosecondType>().iter().flatten().min().unwrap_or(i64::MAX))
}

/// Oldest and newest event time of a row group according to the footer; `None` where it does not say, or there are NULLs.
fn event_times(metadata: &ArrowReaderMetadata, group: &RowGroupMetaData, column: &str) -> Option<(EventTime, EventTime)> {
    let converter = StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema()).ok()?;
    let (oldest, newest) = (converter.row_group_mins([group]).ok()?, converter.row_group_maxes([group]).ok()?);
    // Nanoseconds must be judged row by row: not all of them are event times.
    let fits = |unit: &TimeUnit| *unit != TimeUnit::Nanosecond;
    if !matches!(oldest.data_type(), DataType::Timestamp(unit, _) if fits(unit)) || !has_no_nulls(metadata, group, column) {
        return None;
    }
    Some((EventTime(only_timestamp(&oldest)?), EventTime(only_timestamp(&newest)?)))
}

fn has_no_nulls(metadata: &ArrowReaderMetadata, group: &RowGroupMetaData, column: &str) -> bool {
    let converter = StatisticsConverter::try_new(column, metadata.schema(), metadata.parquet_schema());
    let nulls = converter.and_then(|converter| converter.with_missing_null_counts_as_zero(false).row_group_null_counts([group]));
    nulls.is_ok_and(|nulls| nulls.len() == 1 && nulls.is_valid(0) && nulls.value(0) == 0)
}

/// The only value of a column of timestamps, in microseconds.
fn only_timestamp(array: &ArrayRef) -> Option<i64> {
    let time_zone = match array.data_type() {
        DataType::Timestamp(_, time_zone) => time_zone.clone(),
        _ => return None,
    };
    let micros = ::arrow::compute::cast(array, &DataType::Timestamp(TimeUnit::Microsecond, time_zone)).ok()?;
    micros.as_primitive::<TimestampMicrosecondType>().iter().next()?
}

fn stored_error(path: &str, error: ArrowError) -> ConnectorError {
    match error {
        ArrowError::ExternalError(source) => ConnectorError::unavailable("reading file", quoted(path), source),
        other => ConnectorError::Data {
            place: quoted(path),
            problem: format!("is no valid Parquet file: {}", super::library_message(&other)),
            hint: Some(super::DAMAGED_HINT.into()),
        },
    }
}

/// Columns of a row group that one thread decodes.
#[derive(Debug, Default)]
struct Lane {
    /// Indices of the stored columns, ascending: the reader hands them out in file order.
    columns: Vec<usize>,
    compressed_bytes: u64,
}

impl Lane {
    /// Divides columns among as many of the threads as are worth their start, about evenly by compressed size. At least one lane.
    fn divide(group: &RowGroupMetaData, metadata: &ArrowReaderMetadata, stored: &[usize], threads: usize) -> Vec<Lane> {
        let mut sizes: Vec<(u64, usize)> = stored.iter().map(|column| (0, *column)).collect();
        for (leaf, column) in group.columns().iter().enumerate() {
            let root = metadata.parquet_schema().get_column_root_idx(leaf);
            if let Some((bytes, _)) = sizes.iter_mut().find(|(_, column)| *column == root) {
                *bytes += column.compressed_size().max(0) as u64;
            }
        }
        let total: u64 = sizes.iter().map(|(bytes, _)| bytes).sum();
        let worthwhile = usize::try_from(total / LANE_BYTES).unwrap_or(usize::MAX);
        let count = threads.min(worthwhile).min(stored.len()).max(1);
        let mut lanes: Vec<Lane> = std::iter::repeat_with(Lane::default).take(count).collect();
        sizes.sort_unstable_by(|left, right| right.cmp(left));
        for (bytes, column) in sizes {
            if let Some(lightest) = lanes.iter_mut().min_by_key(|lane| lane.compressed_bytes) {
                lightest.columns.push(column);
                lightest.compressed_bytes += bytes;
            }
        }
        lanes.retain(|lane| !lane.columns.is_empty() || stored.is_empty());
        lanes.iter_mut().for_each(|lane| lane.columns.sort_unstable());
        lanes
    }

    /// A stored column among the batches of all lanes.
    fn column_of(lanes: &[Lane], batches: &[RecordBatch], column: usize) -> ArrayRef {
        let found = lanes.iter().zip(batches).find_map(|(lane, batch)| Some((batch, lane.columns.binary_search(&column).ok()?)));
        let (batch, position) = found.expect("every stored column is in one lane");
        Arc::clone(batch.column(position))
    }
}

/// Runs readers of different columns of the same rows side by side, the first on this thread, and hands out their batches together.
/// `false` when `take` did not want more.
fn decode(readers: Vec<ParquetRecordBatchReader>, mut take: impl FnMut(Vec<Stored>) -> Result<bool>) -> Result<bool> {
    let mut readers = readers.into_iter();
    let Some(first) = readers.next() else { return Ok(true) };
    std::thread::scope(|scope| {
        let others: Vec<Receiver<Stored>> = readers
            .map(|reader| {
                let (sender, receiver) = std::sync::mpsc::sync_channel(1);
                scope.spawn(move || {
                    for batch in reader {
                        // Nobody listens any more when the reading was given up.
                        if sender.send(batch).is_err() {
                            break;
                        }
                    }
                });
                receiver
            })
            .collect();
        for batch in first {
            let mut batches = vec![batch];
            for other in &others {
                let ended = || ArrowError::ParquetError("one column has fewer rows than another".into());
                batches.push(other.recv().unwrap_or_else(|_| Err(ended())));
            }
            if !take(batches)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Reads a slice on up to so many threads and hands out its batches.
pub(crate) fn read(shared: &Shared, slice: &FileSlice, request: &ReadRequest, threads: usize, emit: &mut Emit<'_>) -> Result<()> {
    let storage = &shared.config.location.storage;
    let file = slice.file();
    let metadata = match shared.footer(&file) {
        Some(metadata) => metadata,
        None => match load(storage, &file) {
            Ok(metadata) => {
                shared.keep_footer(&file, Arc::clone(&metadata));
                metadata
            }
            Err(NotParquet::Incomplete(problem)) => {
                return Err(ConnectorError::Corrupt { place: quoted(&slice.path), problem: problem.into() });
            }
            Err(NotParquet::Failed(error)) => return Err(error),
        },
    };
    let reader_metadata = arrow_metadata(&slice.path, &metadata)?;
    let complete = ColumnarFile::new(shared, slice, request, reader_metadata.schema())?;
    // Without the event-time column, for row groups whose statistics say enough.
    let narrow = match request.without_event_times() {
        Some(request) => Some(ColumnarFile::new(shared, slice, &request, reader_metadata.schema())?),
        None => None,
    };
    let expected = request.event_times.and_then(|times| Some((times, shared.schema.fields().get(times.column)?)));

    let wanted = slice.start_row..slice.end_row.unwrap_or(u64::MAX);
    let mut group_row = 0;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows() as u64;
        let (from, to) = (wanted.start.max(group_row), wanted.end.min(group_row + rows));
        if from < to {
            let entire = (from, to) == (group_row, group_row + rows);
            let known = expected.filter(|_| entire).and_then(|(times, field)| {
                let (oldest, newest) = event_times(&reader_metadata, group, field.name())?;
                (oldest >= times.first && newest <= times.last).then_some((oldest, newest))
            });
            let all_count = |columnar: &&ColumnarFile| columnar.takes_all_rows(|column| has_no_nulls(&reader_metadata, group, column));
            let vouched = known.and_then(|times| narrow.as_ref().filter(all_count).map(|columnar| (columnar, times)));
            let columnar = vouched.map_or(&complete, |(columnar, _)| columnar);
            let mask = ProjectionMask::roots(reader_metadata.parquet_schema(), columnar.stored.iter().copied());
            let mut blob = storage.blob(&slice.path, slice.size).map_err(|error| super::text::read_error(&slice.path, error))?;
            let columns = group.columns().iter().enumerate().filter(|(column, _)| mask.leaf_included(*column));
            let chunks: Vec<_> = columns.map(|(_, column)| column.byte_range()).map(|(at, length)| at..at + length).collect();
            blob.prefetch(&chunks).map_err(|error| super::text::read_error(&slice.path, error))?;
            let bytes_per_row = group.compressed_size().max(0) as u64 / rows.max(1);
            let failed = |error: ParquetError| parquet_error(&slice.path, error);
            let lanes = Lane::divide(group, &reader_metadata, &columnar.stored, threads);
            let readers = lanes.iter().map(|lane| {
                ParquetRecordBatchReaderBuilder::new_with_metadata(blob.clone(), reader_metadata.clone())
                    .with_row_groups(vec![index])
                    .with_projection(ProjectionMask::roots(reader_metadata.parquet_schema(), lane.columns.iter().copied()))
                    .with_batch_size(request.batch_size.max(1))
                    .with_offset((from - group_row) as usize)
                    .with_limit((to - from) as usize)
                    .build()
                    .map_err(failed)
            });
            let readers = readers.collect::<Result<Vec<_>>>()?;
            let mut row = from;
            let whole = decode(readers, |batches| {
                let batches = batches.into_iter().map(|batch| batch.map_err(|error| stored_error(&slice.path, error)));
                let batches = batches.collect::<Result<Vec<_>>>()?;
                let rows = batches[0].num_rows();
                let arrays: Vec<_> = columnar.stored.iter().map(|column| Lane::column_of(&lanes, &batches, *column)).collect();
                let converted = columnar.convert(&arrays, rows, row, bytes_per_row * rows as u64)?;
                row += rows as u64;
                Ok(emit(Ok(SourceBatch { event_times: vouched.map(|(_, times)| times), ..converted })))
            })?;
            if !whole {
                return Ok(());
            }
            if row != to {
                let problem = format!("has {} rows in row group {index}, its footer says {rows}", row - group_row);
                return Err(ConnectorError::Data { place: quoted(&slice.path), problem, hint: Some(super::DAMAGED_HINT.into()) });
            }
        }
        group_row += rows;
    }
    Ok(())
}
