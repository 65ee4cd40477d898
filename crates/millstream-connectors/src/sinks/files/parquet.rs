//! Parquet: a part is a file of one row group; joining copies column chunks, page indexes and bloom filters, and writes a new footer.

use super::arrow_error;
use super::config::{Compression, Config, Statistics};
use super::format::{Encoding, Facts, Joiner, Keep};
use super::layout::Layout;
use super::parquet_columns;
use super::part::{Blob, Output};
use crate::error::{ConnectorError, Result};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use millstream_types::suggest::nearest;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression as ParquetCompression, GzipLevel, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaDataReader, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{ColumnPath, TypePtr};
use std::io::Write;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Rows of a row group that are looked at to see whether a column's values repeat.
const SAMPLED_ROWS: usize = 8_192;
/// One of so many sampled rows is looked at first.
const FEW_ROWS_STEP: usize = 16;
/// From so many different values in a hundred sampled ones on, every other value of a full row group is a new one.
const DIFFERENT_PERCENT: usize = 92;

#[derive(Debug)]
pub(crate) struct ParquetEncoding {
    schema: SchemaRef,
    root: TypePtr,
    properties: WriterProperties,
    dictionary: bool,
    ordered: bool,
}

impl ParquetEncoding {
    pub(crate) fn new(config: &Config, layout: &Layout) -> Result<ParquetEncoding> {
        let schema = Arc::clone(&layout.file);
        let descriptor = ArrowSchemaConverter::new()
            .convert(&schema)
            .map_err(|error| ConnectorError::invalid(format!("sink \"{}\": {error}", layout.sink), "Cast the column to another type."))?;
        let mut properties = WriterProperties::builder()
            .set_compression(compression(config.compression)?)
            .set_dictionary_enabled(config.parquet.dictionary)
            .set_statistics_enabled(match config.parquet.statistics {
                Statistics::None => EnabledStatistics::None,
                Statistics::Chunk => EnabledStatistics::Chunk,
                Statistics::Page => EnabledStatistics::Page,
            })
            // The sink cuts row groups itself.
            .set_max_row_group_row_count(Some(usize::MAX));
        for column in &config.parquet.bloom_filter {
            if schema.column_with_name(column).is_none() {
                let hint = match nearest(column, schema.fields().iter().map(|field| field.name().as_str())) {
                    Some(near) => format!("Did you mean \"{near}\"?"),
                    None => "List columns of the file, separated by commas.".to_string(),
                };
                let message = format!("sink \"{}\" has no column \"{column}\" for its bloom_filter", layout.sink);
                return Err(ConnectorError::invalid(message, hint));
            }
            properties = properties.set_column_bloom_filter_enabled(ColumnPath::new(vec![column.clone()]), true);
        }
        // Sorting columns are given by leaf, which is the column's position only without nested types.
        if !layout.order.is_empty() && !schema.fields().iter().any(|field| field.data_type().is_nested()) {
            let columns = layout.order.iter().map(|(column, descending)| SortingColumn {
                column_idx: i32::try_from(*column).unwrap_or(i32::MAX),
                descending: *descending,
                nulls_first: *descending,
            });
            properties = properties.set_sorting_columns(Some(columns.collect()));
        }
        Ok(ParquetEncoding {
            schema,
            root: descriptor.root_schema_ptr(),
            properties: properties.build(),
            dictionary: config.parquet.dictionary,
            ordered: !layout.order.is_empty(),
        })
    }

    /// The properties of a row group: no dictionary for columns whose values hardly repeat, where it costs time and memory and saves
    /// nothing. The rows alone decide, so that recovery writes the same bytes again.
    fn properties_for(&self, rows: &[RecordBatch]) -> Result<WriterProperties> {
        let count: usize = rows.iter().map(RecordBatch::num_rows).sum();
        if !self.dictionary || count < 2 * SAMPLED_ROWS {
            return Ok(self.properties.clone());
        }
        let step = count / SAMPLED_ROWS;
        let mut properties = self.properties.clone().into_builder();
        for (index, field) in self.schema.fields().iter().enumerate() {
            if field.data_type().is_nested() || *field.data_type() == DataType::Boolean {
                continue;
            }
            let columns: Vec<&ArrayRef> = rows.iter().map(|batch| batch.column(index)).collect();
            if hardly_repeats(field.data_type(), &columns, step).map_err(arrow_error("sampling a column failed"))? {
                properties = properties.set_column_dictionary_enabled(ColumnPath::new(vec![field.name().clone()]), false);
            }
        }
        Ok(properties.build())
    }

    /// Encodes a row group by so many threads.
    fn encode_by(&self, threads: usize, rows: &[RecordBatch], out: &mut (dyn Write + Send)) -> Result<()> {
        let properties = self.properties_for(rows)?;
        let encode = || -> std::result::Result<(), ParquetError> {
            let mut writer = ArrowWriter::try_new(out, Arc::clone(&self.schema), Some(properties))?;
            if threads > 1 {
                return parquet_columns::encode(writer, &self.schema, rows, threads);
            }
            for batch in rows {
                writer.write(batch)?;
            }
            writer.close().map(drop)
        };
        encode().map_err(|error| match error {
            ParquetError::External(source) => ConnectorError::unavailable("writing", "a part of a file", source),
            other => ConnectorError::internal("encoding a row group as Parquet failed", other),
        })
    }
}

/// Whether nearly all values of every `step`-th row differ. Most columns that repeat show it in a few rows.
fn hardly_repeats(data_type: &DataType, columns: &[&ArrayRef], step: usize) -> std::result::Result<bool, ArrowError> {
    Ok(differ(data_type, columns, step * FEW_ROWS_STEP)? && differ(data_type, columns, step)?)
}

fn differ(data_type: &DataType, columns: &[&ArrayRef], step: usize) -> std::result::Result<bool, ArrowError> {
    let converter = RowConverter::new(vec![SortField::new(data_type.clone())])?;
    let mut values: Vec<u64> = Vec::new();
    for column in columns {
        let indices = UInt32Array::from_iter_values((0..column.len() as u32).step_by(step));
        let rows = converter.convert_columns(&[take(column, &indices, None)?])?;
        values.extend(rows.iter().map(|row| xxh3_64(row.data())));
    }
    let sampled = values.len();
    values.sort_unstable();
    values.dedup();
    Ok(values.len() * 100 >= sampled * DIFFERENT_PERCENT)
}

impl Encoding for ParquetEncoding {
    fn keep(&self) -> Keep {
        if self.ordered { Keep::Rows } else { Keep::Encoded }
    }

    fn encode(&self, rows: &[RecordBatch]) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.encode_by(parquet_columns::threads_for(&self.schema, rows), rows, &mut bytes)?;
        Ok(bytes)
    }

    fn encode_into(&self, rows: &[RecordBatch], out: &mut (dyn Write + Send)) -> Result<()> {
        self.encode_by(1, rows, out)
    }

    fn decode(&self, part: &Blob) -> Result<Vec<RecordBatch>> {
        let failed = |error: ParquetError| ConnectorError::internal("reading a Parquet part back failed", error);
        let reader = match part {
            Blob::Memory(bytes) => ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).and_then(|builder| builder.build()),
            Blob::File { .. } => ParquetRecordBatchReaderBuilder::try_new(part.open()?).and_then(|builder| builder.build()),
        };
        reader.map_err(failed)?.collect::<std::result::Result<_, _>>().map_err(arrow_error("reading a Parquet part back failed"))
    }

    fn join(&self, parts: &[Blob], facts: &Facts, out: &mut Output) -> Result<()> {
        let mut joiner = ParquetJoiner::new(self, out.place(), out)?;
        parts.iter().try_for_each(|part| joiner.add(part))?;
        joiner.end(facts).map(drop)
    }

    fn joins_parts(&self) -> bool {
        !self.ordered
    }

    fn begin(&self, out: Output) -> Result<Box<dyn Joiner>> {
        Ok(Box::new(ParquetJoiner::new(self, out.place(), out)?))
    }
}

/// Copies parts into a file.
struct ParquetJoiner<W: Write + Send> {
    place: String,
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> ParquetJoiner<W> {
    fn new(encoding: &ParquetEncoding, place: String, out: W) -> Result<Self> {
        let mut properties = encoding.properties.clone();
        add_encoded_arrow_schema_to_metadata(&encoding.schema, &mut properties);
        let writer = SerializedFileWriter::new(out, Arc::clone(&encoding.root), Arc::new(properties));
        let writer = writer.map_err(|error| ConnectorError::unavailable("writing", &place, error))?;
        Ok(Self { place, writer })
    }

    fn add(&mut self, part: &Blob) -> Result<()> {
        let appended = match part {
            Blob::Memory(bytes) => append(&mut self.writer, bytes),
            Blob::File { .. } => append(&mut self.writer, &part.open()?),
        };
        appended.map_err(|error| ConnectorError::unavailable("writing", &self.place, error))
    }

    fn end(mut self, facts: &Facts) -> Result<W> {
        for (name, value) in facts {
            self.writer.append_key_value_metadata(KeyValue::new(format!("millstream.{name}"), value.clone()));
        }
        self.writer.into_inner().map_err(|error| ConnectorError::unavailable("writing", &self.place, error))
    }
}

impl Joiner for ParquetJoiner<Output> {
    fn append(&mut self, part: &Blob) -> Result<()> {
        self.add(part)
    }

    fn finish(self: Box<Self>, facts: &Facts) -> Result<Output> {
        self.end(facts)
    }
}

/// Copies the row groups of one encoded part.
fn append<W: Write + Send, R: ChunkReader>(writer: &mut SerializedFileWriter<W>, part: &R) -> std::result::Result<(), ParquetError> {
    let metadata = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(part)?;
    for (group_index, group) in metadata.row_groups().iter().enumerate() {
        let column_indexes = metadata.column_index().and_then(|indexes| indexes.get(group_index));
        let offset_indexes = metadata.offset_index().and_then(|indexes| indexes.get(group_index));
        let mut out: SerializedRowGroupWriter<'_, W> = writer.next_row_group()?;
        for (column_index, column) in group.columns().iter().enumerate() {
            let close = ColumnCloseResult {
                bytes_written: u64::try_from(column.compressed_size()).unwrap_or_default(),
                rows_written: u64::try_from(group.num_rows()).unwrap_or_default(),
                metadata: column.clone(),
                bloom_filter: Sbbf::read_from_column_chunk(column, part)?,
                column_index: column_indexes.and_then(|indexes| indexes.get(column_index)).cloned(),
                offset_index: offset_indexes.and_then(|indexes| indexes.get(column_index)).cloned(),
            };
            out.append_column(part, close)?;
        }
        out.close()?;
    }
    Ok(())
}

fn compression(compression: Compression) -> Result<ParquetCompression> {
    let level = |error: ParquetError| ConnectorError::internal("choosing a compression level failed", error);
    Ok(match compression {
        Compression::None => ParquetCompression::UNCOMPRESSED,
        Compression::Gzip(number) => ParquetCompression::GZIP(GzipLevel::try_new(number).map_err(level)?),
        Compression::Lz4 => ParquetCompression::LZ4_RAW,
        Compression::Snappy => ParquetCompression::SNAPPY,
        Compression::Zstd(number) => ParquetCompression::ZSTD(ZstdLevel::try_new(number).map_err(level)?),
    })
}

/// Names and types of the columns of a Parquet file, for the comparison with a sink's.
pub(crate) fn columns_of(path: &std::path::Path) -> Result<Vec<(String, DataType)>> {
    let file = std::fs::File::open(path).map_err(super::io_error("opening", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file)
        .map_err(|error| ConnectorError::unavailable("reading", format!("\"{}\"", path.display()), error))?;
    Ok(builder.schema().fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect())
}
