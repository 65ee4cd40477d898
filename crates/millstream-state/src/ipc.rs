//! Batches as Arrow IPC streams: in log frames, checkpoint segments and content of at-rest tables.
//!
//! Columns of views (`Utf8View`, `BinaryView`) are compacted first: a filtered view column refers to all bytes of the batch it was
//! filtered from, and IPC would write them.

use crate::encode_ahead::{each_message, threads_for};
use crate::error::{Result, StateError};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use std::io::{Read, Write};
use std::sync::Arc;

/// How the buffers of an IPC stream are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: smallest latency.
    None,
    /// LZ4 frames: about as fast as memory is copied.
    #[default]
    Lz4,
    /// Zstandard: half the size of LZ4, several times the time.
    Zstd,
}

impl Compression {
    pub(crate) fn options(self) -> Result<IpcWriteOptions> {
        let compression = match self {
            Compression::None => None,
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd => Some(CompressionType::ZSTD),
        };
        IpcWriteOptions::default().try_with_compression(compression).map_err(StateError::arrow("choosing a compression failed"))
    }
}

/// Writes one IPC stream of batches that share `schema`.
///
/// # Errors
/// When a batch has another schema or `out` fails.
pub fn write_stream<W: Write>(out: W, schema: &SchemaRef, batches: &[RecordBatch], compression: Compression) -> Result<()> {
    let failed = || StateError::arrow("writing batches as Arrow IPC failed");
    let mut writer = StreamWriter::try_new_with_options(out, schema, compression.options()?).map_err(failed())?;
    match threads_for(schema, batches) {
        1 => {
            for batch in batches {
                writer.write(&compact(batch)?).map_err(failed())?;
            }
        }
        threads => each_message(schema, batches, compression, threads, |message| {
            writer.get_mut().write_all(&message).map_err(ArrowError::from).map_err(failed())
        })?,
    }
    writer.finish().map_err(failed())
}

/// One IPC stream as bytes.
///
/// # Errors
/// When a batch has another schema.
pub fn encode(schema: &SchemaRef, batches: &[RecordBatch], compression: Compression) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    write_stream(&mut bytes, schema, batches, compression)?;
    Ok(bytes)
}

/// Reads one IPC stream to its end.
///
/// # Errors
/// When it is not one.
pub fn read_stream<R: Read>(input: R) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let failed = || StateError::arrow("reading batches from Arrow IPC failed");
    let reader = StreamReader::try_new(input, None).map_err(failed())?;
    let schema = reader.schema();
    let batches = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(failed())?;
    Ok((schema, batches))
}

/// The batch without bytes that its view columns no longer refer to.
///
/// # Errors
/// Never for batches that Arrow made.
pub fn compact(batch: &RecordBatch) -> Result<RecordBatch> {
    if !batch.columns().iter().any(|column| has_views(column.data_type())) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(compact_column).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options).map_err(StateError::arrow("compacting a batch failed"))
}

fn has_views(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::Struct(fields) => fields.iter().any(|field| has_views(field.data_type())),
        _ => false,
    }
}

fn compact_column(column: &ArrayRef) -> ArrayRef {
    // Twice the bytes in use is tolerated: copying costs more than it saves.
    fn wasteful(buffers: usize, used: usize) -> bool {
        buffers > 2 * used + 1024
    }
    match column.data_type() {
        DataType::Utf8View => {
            let view = column.as_string_view();
            let buffers = view.data_buffers().iter().map(|buffer| buffer.len()).sum();
            if wasteful(buffers, view.total_buffer_bytes_used()) { Arc::new(view.gc()) } else { Arc::clone(column) }
        }
        DataType::BinaryView => {
            let view = column.as_binary_view();
            let buffers = view.data_buffers().iter().map(|buffer| buffer.len()).sum();
            if wasteful(buffers, view.total_buffer_bytes_used()) { Arc::new(view.gc()) } else { Arc::clone(column) }
        }
        DataType::Struct(fields) if has_views(column.data_type()) => {
            let structs = column.as_struct();
            let columns = structs.columns().iter().map(compact_column).collect();
            match StructArray::try_new(fields.clone(), columns, structs.nulls().cloned()) {
                Ok(compacted) => Arc::new(compacted),
                Err(_) => Arc::clone(column),
            }
        }
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, StringViewArray};
    use arrow::compute::filter_record_batch;
    use arrow::datatypes::{Field, Schema};

    #[test]
    fn a_filtered_view_column_does_not_carry_its_origin() {
        let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, true)]));
        let values: Vec<String> = (0..10_000).map(|n| format!("a text that is too long to be inlined {n}")).collect();
        let column = StringViewArray::from_iter_values(&values);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
        let mask: BooleanArray = (0..10_000).map(|n| Some(n % 1000 == 7)).collect();
        let few = filter_record_batch(&batch, &mask).unwrap();
        let bytes = encode(&schema, std::slice::from_ref(&few), Compression::None).unwrap();
        assert!(bytes.len() < 4096, "{} bytes", bytes.len());
        let (read_schema, read) = read_stream(bytes.as_slice()).unwrap();
        assert_eq!(read_schema, schema);
        assert_eq!(read, [few]);
    }

    #[test]
    fn several_threads_write_what_one_does() {
        let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, true)]));
        let batch = |start: usize, rows: usize| {
            let column =
                StringViewArray::from_iter_values((start..start + rows).map(|n| format!("a text that is too long to be inlined {n}")));
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap()
        };
        let batches: Vec<_> = (1..12).map(|n| batch(n * 1_000, n * 7)).collect();
        for compression in [Compression::None, Compression::Lz4] {
            let one = encode(&schema, &batches, compression).unwrap();
            for threads in 2..5 {
                let mut several = StreamWriter::try_new_with_options(vec![], &schema, compression.options().unwrap()).unwrap();
                each_message(&schema, &batches, compression, threads, |message| {
                    several.get_mut().extend(message);
                    Ok(())
                })
                .unwrap();
                several.finish().unwrap();
                assert!(several.get_ref() == &one, "{threads} threads, {compression:?}");
            }
        }
        assert_eq!(threads_for(&schema, &batches), 1);
        assert_eq!(threads_for(&schema, &[batch(0, 100_000), batch(0, 100_000)]), millstream_types::cores().min(2));
    }

    #[test]
    fn an_error_of_the_writer_ends_its_threads() {
        let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, true)]));
        let column: Arc<dyn Array> = Arc::new(StringViewArray::from_iter_values(["a"]));
        let good = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::clone(&column)]).unwrap();
        let full = || Err(StateError::arrow("the disk is full")(ArrowError::MemoryError(String::new())));
        let batches = vec![good; 9];
        let mut left = 3;
        let written = each_message(&schema, &batches, Compression::None, 2, |_| {
            left -= 1;
            if left == 0 { full() } else { Ok(()) }
        });
        assert_eq!((left, written.unwrap_err().to_string()), (0, full().unwrap_err().to_string()));
    }

    #[test]
    fn every_compression_reads_back() {
        let schema = Arc::new(Schema::new(vec![Field::new("s", DataType::Utf8View, true)]));
        let column = StringViewArray::from_iter([Some("a"), None, Some("b")]);
        let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap();
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            let bytes = encode(&schema, &[batch.clone(), batch.clone()], compression).unwrap();
            assert_eq!(read_stream(bytes.as_slice()).unwrap().1, [batch.clone(), batch.clone()]);
        }
        assert_eq!(read_stream(encode(&schema, &[], Compression::Lz4).unwrap().as_slice()).unwrap().1, []);
    }
}
