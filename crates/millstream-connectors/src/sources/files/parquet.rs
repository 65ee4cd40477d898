//! Parquet files: the footer is read once when an epoch is planned, and row groups are decoded with the declared projection.

use super::columnar::ColumnarFile;
use super::inspect::Group;
use super::reader::{Emit, Shared};
use super::slice::FileSlice;
use super::storage::{FoundFile, Storage, quoted};
use crate::error::{ConnectorError, Result};
use crate::source::ReadRequest;
use ::arrow::array::{Array, AsArray};
use ::arrow::datatypes::{DataType, FieldRef, Fields, Schema, TimeUnit, TimestampMicrosecondType};
use ::parquet::arrow::ProjectionMask;
use ::parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use ::parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use ::parquet::errors::ParquetError;
use ::parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use ::parquet::file::reader::ChunkReader;
use std::sync::Arc;

const MAGIC: &[u8; 4] = b"PAR1";
/// Magic, footer length and magic: less is no Parquet file.
const SMALLEST_FILE: u64 = 12;

/// Why a file is no Parquet file (yet).
#[derive(Debug)]
pub(crate) enum NotParquet {
    /// It may still be in the writing.
    Incomplete(&'static str),
    /// It is broken, or cannot be reached.
    Failed(ConnectorError),
}

/// Reads the footer.
pub(crate) fn load(storage: &Storage, file: &FoundFile) -> Result<Arc<ParquetMetaData>, NotParquet> {
    if file.size == 0 {
        return Err(NotParquet::Incomplete("is empty"));
    }
    if file.size < SMALLEST_FILE {
        return Err(NotParquet::Incomplete("is too short to be a Parquet file"));
    }
    let failed = |error: ParquetError| NotParquet::Failed(parquet_error(&file.path, error));
    let blob = storage.blob(&file.path, file.size).map_err(|error| NotParquet::Failed(super::text::read_error(&file.path, error)))?;
    // Checked by hand first: the length decides how much is read into memory.
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

/// Reads a slice and hands out its batches.
pub(crate) fn read(shared: &Shared, slice: &FileSlice, request: &ReadRequest, emit: &mut Emit<'_>) -> Result<()> {
    let storage = &shared.config.location.storage;
    let file = FoundFile { path: slice.path.clone(), size: slice.size, modified: slice.modified, etag: slice.etag.clone() };
    let metadata = match shared.footer(slice) {
        Some(metadata) => metadata,
        None => match load(storage, &file) {
            Ok(metadata) => metadata,
            Err(NotParquet::Incomplete(problem)) => {
                return Err(ConnectorError::Corrupt { place: quoted(&slice.path), problem: problem.into() });
            }
            Err(NotParquet::Failed(error)) => return Err(error),
        },
    };
    let reader_metadata = arrow_metadata(&slice.path, &metadata)?;
    let columnar = ColumnarFile::new(shared, slice, request, reader_metadata.schema())?;
    let mask = ProjectionMask::roots(reader_metadata.parquet_schema(), columnar.stored.iter().copied());
    // The reader hands columns out in file order.
    let mut file_order: Vec<usize> = columnar.stored.clone();
    file_order.sort_unstable();
    let positions: Vec<usize> = columnar.stored.iter().filter_map(|index| file_order.binary_search(index).ok()).collect();

    let wanted = slice.start_row..slice.end_row.unwrap_or(u64::MAX);
    let mut group_row = 0;
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let rows = group.num_rows() as u64;
        let (from, to) = (wanted.start.max(group_row), wanted.end.min(group_row + rows));
        if from < to {
            let mut blob = storage.blob(&slice.path, slice.size).map_err(|error| super::text::read_error(&slice.path, error))?;
            if !storage.is_local() {
                let columns = group.columns().iter().enumerate().filter(|(column, _)| mask.leaf_included(*column));
                let ranges: Vec<_> = columns.map(|(_, column)| column.byte_range()).map(|(at, length)| at..at + length).collect();
                blob.prefetch(&ranges).map_err(|error| super::text::read_error(&slice.path, error))?;
            }
            let bytes_per_row = group.compressed_size().max(0) as u64 / rows.max(1);
            let failed = |error: ParquetError| parquet_error(&slice.path, error);
            let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(blob, reader_metadata.clone())
                .with_row_groups(vec![index])
                .with_projection(mask.clone())
                .with_batch_size(request.batch_size.max(1))
                .with_offset((from - group_row) as usize)
                .with_limit((to - from) as usize)
                .build()
                .map_err(failed)?;
            let mut row = from;
            for batch in reader {
                let batch = batch.map_err(|error| match error {
                    ::arrow::error::ArrowError::ExternalError(source) => {
                        ConnectorError::unavailable("reading file", quoted(&slice.path), source)
                    }
                    other => ConnectorError::Data {
                        place: quoted(&slice.path),
                        problem: format!("is no valid Parquet file: {}", super::library_message(&other)),
                        hint: Some(super::DAMAGED_HINT.into()),
                    },
                })?;
                let arrays: Vec<_> = positions.iter().map(|position| Arc::clone(batch.column(*position))).collect();
                let converted = columnar.convert(&arrays, batch.num_rows(), row, bytes_per_row * batch.num_rows() as u64)?;
                row += batch.num_rows() as u64;
                if !emit(Ok(converted)) {
                    return Ok(());
                }
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
