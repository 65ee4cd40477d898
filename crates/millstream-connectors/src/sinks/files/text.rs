//! Text: one text column, a line per row; NULL is an empty line. A value with line breaks becomes several lines.

use super::config::{Compression, Config};
use super::format::{Encoding, Facts, Keep, compress, concatenate};
use super::layout::Layout;
use super::part::{Blob, Output};
use crate::error::{ConnectorError, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;

#[derive(Debug)]
pub(crate) struct TextEncoding {
    compression: Compression,
    ordered: bool,
}

impl TextEncoding {
    pub(crate) fn new(config: &Config, layout: &Layout) -> Result<TextEncoding> {
        let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        match layout.file.fields().as_ref() {
            [field] if is_text(field.data_type()) => {
                Ok(TextEncoding { compression: config.compression, ordered: !layout.order.is_empty() })
            }
            fields => {
                let found: Vec<String> = fields.iter().map(|field| format!("\"{}\" {}", field.name(), field.data_type())).collect();
                Err(ConnectorError::invalid(
                    format!("sink \"{}\" writes text files and needs one VARCHAR column, not {}", layout.sink, found.join(", ")),
                    "Build the line in the query, for example SELECT concat(word, ' ', n) AS line, or use format = 'csv' or 'json'.",
                ))
            }
        }
    }
}

impl Encoding for TextEncoding {
    fn keep(&self) -> Keep {
        if self.ordered { Keep::Rows } else { Keep::EncodedAndRows }
    }

    fn encode(&self, rows: &[RecordBatch]) -> Result<Vec<u8>> {
        let mut lines = Vec::new();
        for batch in rows {
            let column = cast(batch.column(0), &DataType::Utf8View)
                .map_err(|error| ConnectorError::internal("encoding rows as text failed", error))?;
            let column = column.as_string_view();
            for row in 0..column.len() {
                if column.is_valid(row) {
                    lines.extend_from_slice(column.value(row).as_bytes());
                }
                lines.push(b'\n');
            }
        }
        compress(lines, self.compression).map_err(|error| ConnectorError::internal("compressing rows failed", error))
    }

    fn decode(&self, _part: &Blob) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn join(&self, parts: &[Blob], _facts: &Facts, out: &mut Output) -> Result<()> {
        concatenate(parts, out)
    }
}
