//! CSV: RFC 4180, a header line unless told otherwise. Times are ISO 8601; without `null_value` an empty text and NULL look the same.

use super::config::{Compression, Config};
use super::format::{Encoding, Facts, Keep, compress, concatenate};
use super::layout::Layout;
use super::part::{Blob, Output};
use crate::error::{ConnectorError, Result};
use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

#[derive(Debug)]
pub(crate) struct CsvEncoding {
    schema: SchemaRef,
    builder: WriterBuilder,
    header: bool,
    compression: Compression,
    ordered: bool,
}

impl CsvEncoding {
    pub(crate) fn new(config: &Config, layout: &Layout) -> Result<CsvEncoding> {
        if let Some(field) = layout.file.fields().iter().find(|field| field.data_type().is_nested()) {
            return Err(ConnectorError::invalid(
                format!("sink \"{}\" cannot write column \"{}\", which is nested, to CSV", layout.sink, field.name()),
                "Select its fields as columns of their own, or use format = 'json' or 'parquet'.",
            ));
        }
        let builder = WriterBuilder::new()
            .with_header(false)
            .with_delimiter(config.csv.delimiter)
            .with_null(config.csv.null_value.clone())
            .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.f".into())
            .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.f%:z".into());
        Ok(CsvEncoding {
            schema: Arc::clone(&layout.file),
            builder,
            header: config.csv.header,
            compression: config.compression,
            ordered: !layout.order.is_empty(),
        })
    }

    fn lines(&self, rows: &[RecordBatch], header: bool) -> Result<Vec<u8>> {
        let mut lines = Vec::new();
        let mut writer = self.builder.clone().with_header(header).build(&mut lines);
        for batch in rows {
            writer.write(batch).map_err(|error| ConnectorError::internal("encoding rows as CSV failed", error))?;
        }
        drop(writer);
        compress(lines, self.compression).map_err(|error| ConnectorError::internal("compressing rows failed", error))
    }
}

impl Encoding for CsvEncoding {
    fn keep(&self) -> Keep {
        if self.ordered { Keep::Rows } else { Keep::EncodedAndRows }
    }

    fn encode(&self, rows: &[RecordBatch]) -> Result<Vec<u8>> {
        self.lines(rows, false)
    }

    fn decode(&self, _part: &Blob) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn join(&self, parts: &[Blob], _facts: &Facts, out: &mut Output) -> Result<()> {
        if self.header {
            let nothing = RecordBatch::new_empty(Arc::clone(&self.schema));
            Blob::Memory(self.lines(&[nothing], true)?.into()).copy_to(out)?;
        }
        concatenate(parts, out)
    }
}
