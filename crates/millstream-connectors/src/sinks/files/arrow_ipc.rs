//! Arrow IPC files: offsets in the footer tie the batches together, so that a file is written in one go from the rows of its parts.

use super::arrow_error;
use super::config::{Compression, Config};
use super::format::{Encoding, Facts, Keep, chunks};
use super::layout::Layout;
use super::part::{Blob, Output};
use crate::error::Result;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions};
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct ArrowEncoding {
    schema: SchemaRef,
    compression: Option<CompressionType>,
}

impl ArrowEncoding {
    pub(crate) fn new(config: &Config, layout: &Layout) -> ArrowEncoding {
        let compression = match config.compression {
            Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
            Compression::Zstd(_) => Some(CompressionType::ZSTD),
            _ => None,
        };
        ArrowEncoding { schema: Arc::clone(&layout.file), compression }
    }
}

impl Encoding for ArrowEncoding {
    fn keep(&self) -> Keep {
        Keep::Rows
    }

    fn encode(&self, _rows: &[RecordBatch]) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }

    fn decode(&self, _part: &Blob) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn join(&self, _parts: &[Blob], facts: &Facts, out: &mut Output) -> Result<()> {
        self.write_rows(&[], 1, facts, out)
    }

    fn write_rows(&self, rows: &[RecordBatch], part_rows: usize, facts: &Facts, out: &mut Output) -> Result<()> {
        let failed = || arrow_error("writing an Arrow file failed");
        let options = IpcWriteOptions::default().try_with_compression(self.compression).map_err(failed())?;
        let mut writer = FileWriter::try_new_with_options(&mut *out, &self.schema, options).map_err(failed())?;
        for (name, value) in facts {
            writer.write_metadata(format!("millstream.{name}"), value.clone());
        }
        for chunk in chunks(rows, part_rows) {
            let batch = concat_batches(&self.schema, &chunk).map_err(failed())?;
            writer.write(&batch).map_err(failed())?;
        }
        writer.finish().map_err(failed())
    }
}
