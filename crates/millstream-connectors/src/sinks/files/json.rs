//! JSON lines: 64-bit integers and decimals exactly, as numbers; times as RFC 3339 with as many digits as they need; NULL as `null`;
//! nested types as JSON. A TIMESTAMP is in UTC and says so with a `Z`. NaN and the infinities, which JSON lacks, are `null`.

use super::config::{Compression, Config};
use super::format::{Encoding, Facts, Keep, compress, concatenate};
use super::layout::Layout;
use super::part::{Blob, Output};
use crate::error::{ConnectorError, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field};
use arrow::json::writer::{LineDelimited, WriterBuilder};

#[derive(Debug)]
pub(crate) struct JsonEncoding {
    compression: Compression,
    ordered: bool,
}

impl JsonEncoding {
    pub(crate) fn new(config: &Config, layout: &Layout) -> Result<JsonEncoding> {
        if let Some(field) = layout.file.fields().iter().find(|field| !holds(field)) {
            return Err(ConnectorError::invalid(
                format!("sink \"{}\" cannot write column \"{}\" of type {} to JSON", layout.sink, field.name(), field.data_type()),
                "Cast it to VARCHAR.",
            ));
        }
        Ok(JsonEncoding { compression: config.compression, ordered: !layout.order.is_empty() })
    }
}

/// Whether JSON has a form for values of this type.
fn holds(field: &Field) -> bool {
    match field.data_type() {
        DataType::Union(..) => false,
        DataType::Struct(fields) => fields.iter().all(|field| holds(field)),
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => holds(field),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                fields.iter().all(|field| holds(field))
                    && matches!(fields[0].data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
            }
            _ => false,
        },
        _ => true,
    }
}

impl Encoding for JsonEncoding {
    fn keep(&self) -> Keep {
        if self.ordered { Keep::Rows } else { Keep::EncodedAndRows }
    }

    fn encode(&self, rows: &[RecordBatch]) -> Result<Vec<u8>> {
        let failed = |error| ConnectorError::internal("encoding rows as JSON failed", error);
        let mut lines = Vec::new();
        let mut writer = WriterBuilder::new()
            .with_explicit_nulls(true)
            .with_timestamp_format("%Y-%m-%dT%H:%M:%S%.fZ".into())
            .with_timestamp_tz_format("%Y-%m-%dT%H:%M:%S%.f%:z".into())
            .build::<_, LineDelimited>(&mut lines);
        for batch in rows {
            writer.write(batch).map_err(failed)?;
        }
        writer.finish().map_err(failed)?;
        drop(writer);
        compress(lines, self.compression).map_err(|error| ConnectorError::internal("compressing rows failed", error))
    }

    fn decode(&self, _part: &Blob) -> Result<Vec<RecordBatch>> {
        Ok(Vec::new())
    }

    fn join(&self, parts: &[Blob], _facts: &Facts, out: &mut Output) -> Result<()> {
        concatenate(parts, out)
    }
}
